from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.sensors import SENSORS, RasterDescription
from core.sensors.names import is_enumeration, named_bands, normalise_name, polarization_of, sensor_names

BAND_NUMBERS = st.integers(0, 250)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B1", "b1"),
        ("B01", "b1"),
        ("b8a", "b8a"),
        ("B08A", "b8a"),
        ("Band 4", "b4"),
        ("band_04", "b4"),
        ("band 1 (418.24 Nanometers)", "b1"),
        ("B4 (0.6646 µm)", "b4"),
        ("SR_B4", "b4"),
        ("ST_B10", "b10"),
        ("toa_B04", "b4"),
        ("Red", "red"),
        ("Sigma0_VV_db", "sigma0vvdb"),
        ("B10", "b10"),
        ("", ""),
    ],
)
def test_names_people_write(text: str, expected: str) -> None:
    assert normalise_name(text) == expected


@given(st.text(max_size=40))
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise_name(text)
    assert normalise_name(once) == once


@given(
    BAND_NUMBERS,
    st.sampled_from(["", "A", "a"]),
    st.integers(0, 3),
    st.sampled_from(["B", "b", "Band ", "BAND_", "band-", "SR_B", "boa b"]),
    st.sampled_from(["", " ", "_"]),
)
def test_case_padding_and_separators_do_not_matter(number: int, suffix: str, zeros: int, prefix: str, end: str) -> None:
    assert normalise_name(f"{prefix}{'0' * zeros}{number}{suffix}{end}") == f"b{number}{suffix.lower()}"


@given(BAND_NUMBERS, BAND_NUMBERS)
def test_different_numbers_stay_different(first: int, second: int) -> None:
    assert (normalise_name(f"B{first:02d}") == normalise_name(f"band {second}")) == (first == second)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("VV", "VV"),
        ("Sigma0_VH_db", "VH"),
        ("gamma0-hh", "HH"),
        ("S1_VV_20200101", "VV"),
        ("VV_VH", None),
        ("savvy", None),
        ("", None),
    ],
)
def test_polarization_is_a_word_of_its_own(text: str, expected: str | None) -> None:
    assert polarization_of(text) == expected


@pytest.mark.parametrize(
    ("text", "index", "expected"),
    [
        ("Band 3", 3, True),
        ("Band 3", 4, False),
        ("band_03", 3, True),
        ("band 3 (429.294 Nanometers)", 3, True),
        ("3", 3, True),
        ("B3", 3, False),
        ("red", 1, False),
    ],
)
def test_an_enumeration_names_nothing(text: str, index: int, expected: bool) -> None:
    assert is_enumeration(text, index) is expected


@pytest.mark.parametrize("sensor", SENSORS.values(), ids=lambda sensor: sensor.name)
def test_every_name_and_alias_of_a_sensor_leads_to_its_band(sensor) -> None:  # type: ignore[no-untyped-def]
    for band in sensor.bands:
        for text in (band.name, band.name.lower(), *band.aliases):
            assert sensor_names(sensor)[normalise_name(text)] == band.name


@pytest.mark.parametrize(
    ("path", "sensor", "band"),
    [
        ("/data/R10m/T33UUB_20220724T101031_B04_10m.jp2", "sentinel2_l2a", "B4"),
        ("T33UUB_20220724T101031_B8A.tif", "sentinel2_l1c", "B8A"),
        ("C:\\data\\LC08_L2SP_193024_20220724_02_T1_SR_B4.TIF", "landsat_oli", "B4"),
        ("s1a-iw-grd-vv-20220724t053000.tiff", "sentinel1", "VV"),
    ],
)
def test_a_file_of_one_band_is_named_by_its_file(path: str, sensor: str, band: str) -> None:
    description = RasterDescription(path, 1, "uint16", (None,))
    assert named_bands(description, SENSORS[sensor]) == {1: band}
