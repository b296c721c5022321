from __future__ import annotations

import pytest

from core.sensors import RasterDescription
from core.sensors.wavelengths import Spectrum, read_spectrum


def spectrum(tags: dict[str, str] | None = None, text: str | None = None, **changes: object) -> Spectrum:
    return read_spectrum(RasterDescription("x", 1, "int16", (text,), (tags or {},), **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tags", "center", "width"),
    [
        ({"wavelength": "664.6", "wavelength_units": "Nanometers", "fwhm": "30"}, 664.6, 30.0),
        ({"wavelength": "0.6646", "wavelength_units": "Micrometers", "fwhm": "0.03"}, 664.6, 30.0),
        ({"WAVELENGTH": "665", "WAVELENGTH_UNIT": "nm"}, 665.0, None),
        ({"wavelength": "0.6646", "wavelength_units": "µm"}, 664.6, None),
        ({"wavelength": "0.6646", "fwhm": "0.03"}, 664.6, 30.0),
        ({"wavelength": "664.6", "fwhm": "6.5"}, 664.6, 6.5),
        ({"CENTRAL_WAVELENGTH_UM": "0.6646", "FWHM_UM": "0.03"}, 664.6, 30.0),
        ({"wavelength": "unknown"}, None, None),
        ({}, None, None),
    ],
)
def test_band_tags(tags: dict[str, str], center: float | None, width: float | None) -> None:
    found = spectrum(tags)
    assert found.centers_nm[0] == (None if center is None else pytest.approx(center))
    assert found.widths_nm[0] == (None if width is None else pytest.approx(width))


@pytest.mark.parametrize(
    ("text", "center"),
    [
        ("band 1 (418.24 Nanometers)", 418.24),
        ("Resize (Band 1):L7_MTL.txt) (0.482500 Micrometers)", 482.5),
        ("B4, central wavelength 665 nm", 665.0),
        ("B04_10m", None),
        (None, None),
    ],
)
def test_descriptions(text: str | None, center: float | None) -> None:
    assert spectrum(text=text).centers_nm[0] == center


def test_envi_lists_of_the_file() -> None:
    tags = {
        "wavelength": "{ 0.45, 0.55,\n 0.65}",
        "wavelength_units": "Micrometers",
        "fwhm": "{0.01,0.01,0.02}",
        "bbl": "{1,0,1}",
    }
    found = read_spectrum(RasterDescription("x", 3, "int16", tags=tags))
    assert found.centers_nm == (450.0, 550.0, 650.0)
    assert found.widths_nm == (10.0, 10.0, 20.0)
    assert found.usable == {1: 450.0, 3: 650.0}


def test_a_list_of_another_length_is_not_used() -> None:
    assert not read_spectrum(RasterDescription("x", 3, "int16", tags={"wavelength": "{450, 550}"})).has_centers
