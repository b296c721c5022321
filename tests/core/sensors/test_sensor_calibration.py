from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from core.errors import SensorError
from core.sensors import IdentifiedRaster, RasterDescription, identify

S2_NAMES = ("B2", "B3", "B4", "B8A")


def identified(  # type: ignore[no-untyped-def]
    names: tuple[str | None, ...], dtype: str, sample, sensor: str = "auto", role: str = "optical", **changes
) -> IdentifiedRaster:
    values = None if sample is None else np.broadcast_to(np.asarray(sample, np.float32), (len(names), np.size(sample)))
    description = RasterDescription(changes.pop("path", "scene.tif"), len(names), dtype, names, sample=values, **changes)
    return identify(description, sensor, role)  # type: ignore[arg-type]


def applied(raster: IdentifiedRaster, *values: float) -> np.ndarray:
    """The values of one pixel, the same in every band unless one is given for each."""
    count = len(raster.bands)
    pixel = np.array(values if len(values) == count else values * count, np.float32)
    return raster.calibration.apply(pixel.reshape(count, 1, 1)).reshape(count)


def test_sentinel2_numbers_become_reflectance() -> None:
    raster = identified(S2_NAMES, "uint16", [200, 3000])
    np.testing.assert_allclose(applied(raster, 3000.0), 0.3, rtol=1e-6)
    assert raster.unit == "reflectance"
    assert raster.bands[0].scale == 1e-4


def test_the_offset_is_taken_off_once() -> None:
    raster = identified(S2_NAMES, "uint16", [1100, 4000])
    np.testing.assert_allclose(applied(raster, 4000.0), 0.3, rtol=1e-5)
    assert any("offset" in warning for warning in raster.warnings)


def test_the_user_s_setting_reaches_the_calibration() -> None:
    description = RasterDescription("scene.tif", 4, "uint16", S2_NAMES)
    for setting, expected in (("yes", 0.2), ("no", 0.3)):
        raster = identify(description, "sentinel2_l2a", "optical", setting)  # type: ignore[arg-type]
        np.testing.assert_allclose(applied(raster, 3000.0), expected, rtol=1e-5)


def test_reflectance_is_not_scaled_again() -> None:
    raster = identified(S2_NAMES, "float32", [0.02, 1.4])
    np.testing.assert_allclose(applied(raster, 0.3), 0.3)
    assert any("already" in note for note in raster.notes)


def test_numbers_stored_as_floats_are_scaled() -> None:
    np.testing.assert_allclose(applied(identified(S2_NAMES, "float32", [200, 4000]), 3000.0), 0.3, rtol=1e-6)
    percent = identified(S2_NAMES, "float32", [2, 60])
    np.testing.assert_allclose(applied(percent, 30.0), 0.3, rtol=1e-6)
    assert any("percent" in warning for warning in percent.warnings)


def test_the_file_s_own_scale_and_offset_come_first() -> None:
    raster = identified(S2_NAMES, "uint16", [1100, 4000], scales=(2e-4,) * 4, offsets=(-0.2,) * 4)
    np.testing.assert_allclose(applied(raster, 2500.0), 0.3, rtol=1e-6)
    assert not any("offset of 1000" in warning for warning in raster.warnings)
    scaled = identified(S2_NAMES, "uint16", [1100, 4000], scales=(1e-4,) * 4, offsets=(0.0,) * 4)
    np.testing.assert_allclose(applied(scaled, 4000.0), 0.3, rtol=1e-5)


def test_fill_pixels_and_impossible_values_are_missing() -> None:
    raster = identified(S2_NAMES, "uint16", [200, 3000])
    assert np.isnan(applied(raster, 0.0)).all()
    partly = applied(raster, 0.0, 3000.0, 30000.0, np.nan)
    np.testing.assert_allclose(partly, [0.0, 0.3, np.nan, np.nan], rtol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "stored", "expected"),
    [("uint16", 18182.0, 0.300005), ("int16", 3000.0, 0.3), ("float32", 0.3, 0.3), ("float32", 18182.0, 0.300005)],
)
def test_landsat_scalings(dtype: str, stored: float, expected: float) -> None:
    names = ("SR_B2", "SR_B3", "SR_B4", "SR_B5")
    raster = identified(names, dtype, [stored * 0.5, stored], "landsat_oli")
    np.testing.assert_allclose(applied(raster, stored), expected, rtol=1e-5)


def test_landsat_temperature_is_in_kelvin() -> None:
    raster = identified(("SR_B4", "ST_B10"), "uint16", [18000, 44000], "landsat_oli")
    reflectance, kelvin = applied(raster, 18182.0, 44000.0)
    assert reflectance == pytest.approx(0.3, abs=1e-4)
    assert kelvin == pytest.approx(299.39, abs=0.01)


def test_eight_bit_landsat_is_not_called_reflectance() -> None:
    raster = identified(("B1", "B2", "B3", "B4", "B5", "B7"), "uint8", [20, 200], "landsat_tm")
    np.testing.assert_allclose(applied(raster, 51.0), 0.2, rtol=1e-6)
    assert raster.unit == "1"
    assert all(band.mean is None for band in raster.bands)
    assert any("8-bit" in warning for warning in raster.warnings)


def test_every_display_value_is_valid() -> None:
    raster = identified(("red", "green", "blue"), "uint8", [0, 255], "display_8bit")
    values = np.tile(np.arange(256, dtype=np.float32), (3, 1))
    result = raster.calibration.apply(values)
    assert np.isfinite(result).all()
    np.testing.assert_allclose(result[0, [0, 51, 255]], [0, 0.2, 1], rtol=1e-6)


def test_sixteen_bit_photographs_are_normalised_by_the_scene() -> None:
    raster = identified(("red", "green", "blue"), "uint16", [100, 4000], "aerial_rgb")
    assert not raster.calibration.is_physical
    assert all(band.mean is None for band in raster.bands)
    assert np.isfinite(applied(raster, 65535.0)).all()


@given(st.floats(1e-4, 4.0))
def test_linear_power_becomes_decibels(power: float) -> None:
    raster = identified(("VV", "VH"), "float32", [power], role="sar")
    np.testing.assert_allclose(applied(raster, power), 10 * np.log10(power), rtol=1e-4, atol=1e-4)
    assert any("linear" in warning for warning in raster.warnings)


def test_decibels_stay_decibels() -> None:
    raster = identified(("VV", "VH"), "float32", [-20, -8], role="sar")
    np.testing.assert_allclose(applied(raster, -11.5), -11.5)
    assert np.isnan(applied(raster, -80.0)).all()
    assert np.isnan(applied(raster, 0.0)).all()
    assert raster.warnings == ()


def test_other_radar_scalings() -> None:
    amplitude = identified(("Amplitude_VV", "Amplitude_VH"), "float32", [0.1, 0.3], role="sar")
    np.testing.assert_allclose(applied(amplitude, 0.1), -20.0, rtol=1e-5)
    hundredths = identified(("VV", "VH"), "int16", [-2000, -800], role="sar")
    np.testing.assert_allclose(applied(hundredths, -1150.0), -11.5, rtol=1e-6)
    assert np.isnan(applied(identified(("VV", "VH"), "float32", [0.1], role="sar"), -0.01)).all()
    with pytest.raises(SensorError, match="neither decibels nor"):
        identified(("VV", "VH"), "uint16", [200, 500], role="sar")


@pytest.mark.parametrize(
    ("path", "tags", "expected"),
    [
        ("S1_VV_VH_asc_2020.tif", {}, "ascending"),
        ("s1_descending/scene.tif", {}, "descending"),
        ("S1_DSC.tif", {}, "descending"),
        ("asc.tif", {"ORBIT_DIRECTION": "DESCENDING"}, "descending"),
        ("cascade.tif", {}, None),
    ],
)
def test_orbit_direction(path: str, tags: dict[str, str], expected: str | None) -> None:
    raster = identified(("VV", "VH"), "float32", [-12, -8], role="sar", path=path, tags=tags)
    assert raster.orbit_direction == expected


def test_elevation_voids_are_missing() -> None:
    raster = identified((None,), "float32", [5, 30], role="elevation", path="dem.tif")
    for void in (-9999.0, -32768.0, -3.4e38):
        assert np.isnan(applied(raster, void)).all()
    assert applied(raster, 812.5) == pytest.approx(812.5)


def test_generic_values_are_left_alone() -> None:
    raster = identified(("a", "b"), "float32", [5, 30], role="other")
    np.testing.assert_array_equal(applied(raster, -1e6), np.float32(-1e6))
    assert all(band.mean is None for band in raster.bands)


def test_complex_numbers_are_refused() -> None:
    with pytest.raises(SensorError, match="complex64"):
        identified(("VV", "VH"), "complex64", None, role="sar")


@given(arrays(np.float32, (4, 3, 5), elements=st.floats(0, 20000, width=32) | st.just(np.nan)))
def test_calibrating_keeps_the_input_and_agrees_with_the_formula(stored: np.ndarray) -> None:
    raster = identified(S2_NAMES, "uint16", [200, 3000])
    before = stored.copy()
    result = raster.calibration.apply(stored)
    np.testing.assert_array_equal(stored, before)
    assert result.dtype == np.float32
    assert result.shape == stored.shape
    expected = before.astype(np.float64) * 1e-4
    expected[:, (before == 0).all(axis=0)] = np.nan
    # On the limit itself float32 and float64 may disagree.
    clear = np.isnan(expected) | (np.abs(expected - 2.0) > 1e-6)
    expected[expected > 2.0] = np.nan
    np.testing.assert_allclose(result[clear], expected[clear], rtol=1e-5, atol=1e-7)


def test_another_number_of_bands_is_a_defect() -> None:
    raster = identified(S2_NAMES, "uint16", [200, 3000])
    with pytest.raises(ValueError, match="4 bands"):
        raster.calibration.apply(np.zeros((3, 2, 2), np.float32))
