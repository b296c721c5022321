"""Sensors whose bands come from the file: generic rasters, display imagery, imaging spectrometers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from core.sensors.description import RasterDescription
from core.sensors.names import band_texts, color_names, file_name_words, normalise_name, polarization_of, sensor_names
from core.sensors.registry import get_sensor
from core.sensors.registry.satellites import reflective_band
from core.sensors.types import Band, Role, Sensor, SensorKind
from core.sensors.wavelengths import Spectrum

_UNKNOWN_WIDTH_NM = 10.0
"""Assumed where the file tells none; spectrometers sample at 5 to 12 nm."""


def generic_bands(description: RasterDescription, role: Role) -> tuple[Sensor, dict[int, str]]:
    """A sensor with every band of the file, named by its description or its number, without statistics.

    Returns:
        The sensor, of the role's kind, and 1-based index to band name.
    """
    kind = _kind(role)
    names = _unique(_own_name(description, index) for index in range(1, description.band_count + 1))
    bands = tuple(Band(name=name, kind=kind, polarization=polarization_of(name) if kind == "sar" else None) for name in names)
    return replace(get_sensor("generic"), kind=kind, bands=bands), dict(enumerate(names, start=1))


def display_bands(description: RasterDescription, role: Role, transparent: frozenset[int]) -> tuple[Sensor, dict[int, str]]:
    """Display imagery: bands named after the template where the file tells a colour or a polarisation.

    Args:
        transparent: 1-based indexes of alpha bands, left out.
    """
    template = get_sensor("display_8bit")
    known = sensor_names(template)
    colours = color_names(description)
    bands: list[Band] = []
    indexes = [index for index in range(1, description.band_count + 1) if index not in transparent]
    for index in indexes:
        texts = [*band_texts(description, index), colours.get(index, "")]
        if description.band_count == 1:
            texts += file_name_words(description.path)
        matched = next((known[key] for key in map(normalise_name, texts) if key in known), None)
        polarization = next(filter(None, map(polarization_of, texts)), None) if role == "sar" else None
        matched = matched or (polarization if polarization in ("VV", "VH") else None)
        if matched is not None:
            bands.append(template.band(matched))
        else:
            stretch = template.bands[0]
            bands.append(
                replace(
                    stretch,
                    name=_own_name(description, index),
                    kind=_kind(role),
                    center_nm=None,
                    fwhm_nm=None,
                    aliases=(),
                )
            )
    names = _unique(band.name for band in bands)
    renamed = tuple(replace(band, name=name) for band, name in zip(bands, names, strict=True))
    return replace(template, kind=_kind(role), bands=renamed), dict(zip(indexes, names, strict=True))


def spectrometer_bands(spectrum: Spectrum, resolution_m: float | None) -> tuple[Sensor, dict[int, str]]:
    """Bands of surface reflectance at the file's wavelengths, named by them; flagged bands are left out."""
    usable = spectrum.usable
    names = _unique(f"{center:.1f} nm" for center in usable.values())
    bands = tuple(
        reflective_band(name, center, spectrum.widths_nm[index - 1] or _UNKNOWN_WIDTH_NM, resolution_m)
        for name, (index, center) in zip(names, usable.items(), strict=True)
    )
    return replace(get_sensor("hyperspectral"), bands=bands), dict(zip(usable, names, strict=True))


def _kind(role: Role) -> SensorKind:
    return role


def _own_name(description: RasterDescription, index: int) -> str:
    texts = band_texts(description, index)
    return texts[0].strip() if texts else f"band {index}"


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    """The same names, a number added to those that came before."""
    result: list[str] = []
    for name in names:
        candidate, count = name, 1
        while candidate in result:
            count += 1
            candidate = f"{name} ({count})"
        result.append(candidate)
    return tuple(result)
