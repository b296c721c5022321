from __future__ import annotations

import itertools
import math

import pytest

from core.errors import SensorError
from core.sensors import SENSORS, Sensor, band_statistics, get_sensor, sensors_of_role
from core.sensors.names import normalise_name

EXPECTED = {
    "sentinel1",
    "sentinel2_l1c",
    "sentinel2_l2a",
    "landsat_tm",
    "landsat_oli",
    "spot6_7",
    "aerial_rgb",
    "aerial_rgbnir",
    "enmap",
    "hyperspectral",
    "dem",
    "dsm",
    "height_above_ground",
    "display_8bit",
    "generic",
}
every_sensor = pytest.mark.parametrize("sensor", SENSORS.values(), ids=lambda sensor: sensor.name)


def test_all_names_are_there() -> None:
    assert set(SENSORS) == EXPECTED
    assert all(sensor.name == name for name, sensor in SENSORS.items())


@every_sensor
def test_names_and_aliases_are_unique_within_a_sensor(sensor: Sensor) -> None:
    texts = [{normalise_name(text) for text in (band.name, *band.aliases)} for band in sensor.bands]
    for first, second in itertools.combinations(texts, 2):
        assert not first & second


@every_sensor
def test_values_are_consistent(sensor: Sensor) -> None:
    for band in sensor.bands:
        lowest, highest = band.valid_range
        assert lowest < highest
        assert band.scale > 0
        assert (band.center_nm is None) == (band.fwhm_nm is None)
        if band.kind in ("optical", "thermal"):
            assert band.center_nm is not None
            assert band.fwhm_nm is not None
            assert 0 < band.fwhm_nm < band.center_nm
        if band.kind == "sar":
            assert band.center_nm is None
            assert band.polarization in ("VV", "VH", "HH", "HV")
        assert (band.mean is None) == (band.standard_deviation is None)
        if band.mean is not None:
            assert lowest <= band.mean <= highest
            assert band.standard_deviation is not None
            assert 0 < band.standard_deviation < (highest - lowest) / 2


@pytest.mark.parametrize("name", ["sentinel2_l1c", "sentinel2_l2a", "landsat_tm", "spot6_7"])
def test_wavelengths_rise_with_the_bands(name: str) -> None:
    centers = [band.center_nm or math.nan for band in SENSORS[name].bands if band.kind == "optical"]
    assert centers == sorted(centers)


def test_published_wavelengths() -> None:
    """ESA's for Sentinel-2A, USGS' for OLI, the middle of the published intervals for TM."""
    red_edge = get_sensor("sentinel2_l2a").band("B5")
    assert (red_edge.center_nm, red_edge.fwhm_nm, red_edge.gsd_m) == (704.1, 14, 20)
    assert get_sensor("landsat_oli").band("B5").center_nm == 864.7
    near_infrared = get_sensor("landsat_tm").band("B4")
    assert near_infrared.center_nm == (760 + 900) / 2
    assert near_infrared.fwhm_nm == 900 - 760


def test_sentinel2_levels_differ_by_the_cirrus_band() -> None:
    l1c = {band.name for band in get_sensor("sentinel2_l1c").bands}
    l2a = {band.name for band in get_sensor("sentinel2_l2a").bands}
    assert l1c - l2a == {"B10"}
    assert l2a < l1c


def test_enmap_has_two_overlapping_detectors() -> None:
    centers = [band.center_nm or math.nan for band in get_sensor("enmap").bands]
    assert len(centers) == 224
    falls = [index for index in range(1, 224) if centers[index] < centers[index - 1]]
    assert falls == [91]
    assert centers[:91] == sorted(centers[:91])
    assert centers[91:] == sorted(centers[91:])


def test_statistics_are_the_registry_s_or_left_to_the_scene() -> None:
    assert band_statistics(get_sensor("sentinel1"), "VV") == (-12.0, 5.0)
    assert band_statistics(get_sensor("dem"), "elevation") is None
    with pytest.raises(KeyError):
        band_statistics(get_sensor("dem"), "B4")


def test_an_unknown_sensor_lists_the_known_ones() -> None:
    with pytest.raises(SensorError) as caught:
        get_sensor("sentinel9")
    assert "sentinel9" in caught.value.message
    assert all(name in caught.value.hint for name in EXPECTED)


def test_roles() -> None:
    assert {sensor.name for sensor in sensors_of_role("sar")} == {"sentinel1", "display_8bit", "generic"}
    assert "dem" not in {sensor.name for sensor in sensors_of_role("optical")}
    assert {sensor.name for sensor in sensors_of_role("other")} == EXPECTED
