"""Wavelength metadata: where files keep it, and what it says."""

from __future__ import annotations

import re
from dataclasses import dataclass

from core.sensors.description import RasterDescription

_NUMBER = re.compile(r"[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?")
_IN_TEXT = re.compile(r"(\d+(?:\.\d+)?)\s*(nm\b|nanomet\w*|[uµμ]m\b|micromet\w*|microns?\b)", re.IGNORECASE)
_LARGEST_MICROMETRES = 100.0
"""Without a unit: no optical band lies below 100 nm, none above 100 µm."""


@dataclass(frozen=True)
class Spectrum:
    """What a file says about the wavelengths of its bands, in the file's order.

    Attributes:
        centers_nm: None for a band without one.
        widths_nm: full width at half maximum; None for a band without one.
        bad: 1-based indexes of the bands flagged as unusable (``bbl`` = 0).
    """

    centers_nm: tuple[float | None, ...]
    widths_nm: tuple[float | None, ...]
    bad: frozenset[int]

    @property
    def has_centers(self) -> bool:
        return any(center is not None for center in self.centers_nm)

    @property
    def usable(self) -> dict[int, float]:
        """Centres of the bands (1-based) that have one and are not flagged."""
        return {
            index: center
            for index, center in enumerate(self.centers_nm, start=1)
            if center is not None and index not in self.bad
        }


def read_spectrum(description: RasterDescription) -> Spectrum:
    """Wavelengths, widths and bad bands from band tags, then ENVI lists in the file's tags, then descriptions."""
    count = description.band_count
    file_tags = description.file_tags()
    listed_centers = _listed(file_tags, "wavelength", count)
    listed_widths = _listed(file_tags, "fwhm", count)
    listed_flags = _listed(file_tags, "bbl", count)
    centers: list[float | None] = []
    widths: list[float | None] = []
    bad: set[int] = set()
    for index in range(1, count + 1):
        tags = description.tags_of(index)
        unit = tags.get("wavelength_units") or tags.get("wavelength_unit") or file_tags.get("wavelength_units", "")
        center = _nanometres(_number(tags.get("wavelength")) or listed_centers[index - 1], unit)
        width = _number(tags.get("fwhm")) or listed_widths[index - 1]
        if center is None:
            center = _nanometres(_number(tags.get("central_wavelength_um")), "um")
        if center is None:
            center = _from_text(description.description(index))
        centers.append(center)
        widths.append(_width_nanometres(width, _number(tags.get("fwhm_um")), unit, center))
        flag = _number(tags["bbl"]) if "bbl" in tags else listed_flags[index - 1]
        if flag == 0:
            bad.add(index)
    return Spectrum(tuple(centers), tuple(widths), frozenset(bad))


def _listed(tags: dict[str, str], key: str, count: int) -> list[float | None]:
    """An ENVI list ``{a, b, c}``, or Nones where it is absent or has another length."""
    numbers = [float(text) for text in _NUMBER.findall(tags.get(key, ""))]
    return list(numbers) if len(numbers) == count else [None] * count


def _number(text: str | None) -> float | None:
    found = _NUMBER.search(text) if text else None
    return float(found[0]) if found else None


def _is_micrometres(unit: str, value: float) -> bool:
    lowered = unit.strip().lower()
    if lowered.startswith(("nm", "nano")):
        return False
    if lowered.startswith(("um", "µm", "μm", "micro")):
        return True
    return value < _LARGEST_MICROMETRES


def _nanometres(value: float | None, unit: str) -> float | None:
    if value is None or value <= 0:
        return None
    return round(value * 1000, 4) if _is_micrometres(unit, value) else value


def _width_nanometres(width: float | None, width_um: float | None, unit: str, center: float | None) -> float | None:
    if width_um is not None:
        return round(width_um * 1000, 4)
    if width is None or width <= 0 or center is None:
        return None
    # Without a unit a width below 1 can only be in micrometres: no common instrument is finer than a nanometre.
    return round(width * 1000, 4) if _is_micrometres(unit, width if unit else width * _LARGEST_MICROMETRES) else width


def _from_text(text: str) -> float | None:
    found = _IN_TEXT.findall(text)
    # The last one: texts such as "B4, central wavelength 665 nm" may carry other numbers before it.
    return _nanometres(float(found[-1][0]), found[-1][1]) if found else None
