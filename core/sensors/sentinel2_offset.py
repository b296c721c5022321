"""Whether Sentinel-2 digital numbers carry the +1000 offset of processing baseline 04.00 (ESA, 25 January 2022).

Products of that baseline and later store ``reflectance * 10000 + 1000``. Much Sentinel-2 imagery has been repacked since,
with the offset or without it, and no longer says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from core.sensors.band_match import BandMatch
from core.sensors.description import FloatArray, RasterDescription

OffsetSetting = Literal["auto", "yes", "no"]
OffsetChoice = Literal["auto", "yes", "no", "like others", "unlike others"]
"""A user's setting; or what the darkest of several tiles of one product tells of all: that they carry it, or do not."""

OFFSET_DN = -1000.0
"""What is added to the stored numbers where they carry the offset."""

_FIRST_BASELINE = 4.0
_BASELINE_KEYS = ("processing_baseline", "s2:processing_baseline", "baseline")
_OFFSET_KEY = re.compile(r"(?:^|[_:])(?:boa|radio|quantification)_add_offset")
_REMOVED_KEY = re.compile(r"boa_offset_applied$")
_PRODUCT = re.compile(r"S2[ABC]_MSIL[12][AC]_\d{8}T\d{6}_N(\d{2})(\d{2})_", re.IGNORECASE)

_DARK_PERCENTILE = 1.0
LEAST_WITH_OFFSET = 900.0
"""With the offset the darkest ground stands near 1000; noise and over-correction take it a little below."""

MOST_WITH_OFFSET = 2000.0
"""Where even the darkest band is brighter than this (snow, cloud), darkness tells nothing."""

_PATH_RADIANCE_DN = {"B1": 1000.0, "B2": 750.0, "B3": 450.0, "B4": 220.0, "B5": 150.0, "B6": 100.0}
"""What a clear atmosphere alone adds to the darkest ground seen from above (L1C), in digital numbers."""


@dataclass(frozen=True)
class OffsetDecision:
    """Whether 1000 has to be taken off, and why.

    Attributes:
        how: ``set`` by the user, told by ``metadata``, or ``guessed`` from the values.
        warning: for the user; None where nothing is in doubt.
        detail: the reason, for the report.
    """

    applies: bool
    how: Literal["set", "metadata", "guessed"]
    warning: str | None
    detail: str


def sentinel2_offset(description: RasterDescription, match: BandMatch, setting: OffsetChoice = "auto") -> OffsetDecision:
    """Decides about the offset of a Sentinel-2 raster.

    The user's setting comes first, then metadata (an add-offset, the processing baseline, the product's name), then the
    values: the cirrus band of L1C is dark nearly everywhere, and so is the darkest ground of most scenes.

    Args:
        description: with a sample of the stored values, as digital numbers, for the guess.
        match: the bands, of ``sentinel2_l1c`` or ``sentinel2_l2a``.
        setting: ``yes`` or ``no`` to overrule.
    """
    if setting in ("like others", "unlike others"):
        return _guessed_elsewhere(description, setting == "like others")
    if setting != "auto":
        word = "is taken off" if setting == "yes" else "is not taken off"
        return OffsetDecision(setting == "yes", "set", None, f"Sentinel-2 offset of 1000 {word}, as set by the user.")
    dark = _darkness(description, match)
    told = _from_metadata(description)
    if told is not None:
        applies, source = told
        detail = f"Sentinel-2 offset of 1000 {'present' if applies else 'absent'}: {source}."
        return OffsetDecision(applies, "metadata", _contradiction(applies, source, dark), detail)
    return _guess(description, match, dark)


def darkest_level(description: RasterDescription, match: BandMatch) -> float:
    """The lowest percentile of the darkest band in digital numbers, zeros left out; infinite without values."""
    dark = _darkness(description, match)
    return float("inf") if dark is None else dark.value


def _guessed_elsewhere(description: RasterDescription, applies: bool) -> OffsetDecision:
    present = "present and taken off" if applies else "absent"
    reason = "tiles of one product carry it all or none, and the darkest of those given tells"
    detail = f"Sentinel-2 offset of 1000 {present}, guessed: {reason}."
    return OffsetDecision(applies, "guessed", _doubt(description, present, reason), detail)


def _doubt(description: RasterDescription, present: str, reason: str) -> str:
    return (
        f"'{description.path}' does not say whether its Sentinel-2 values carry the offset of 1000 (processing baseline "
        f"04.00 and later). Guessed that it is {present}: {reason}. Set sentinel2_offset to 'yes' or 'no' if you know."
    )


def _from_metadata(description: RasterDescription) -> tuple[bool, str] | None:
    """Whether the metadata tell of the offset, and which did."""
    tags = description.file_tags()
    for index in range(1, description.band_count + 1):
        tags = description.tags_of(index) | tags
    for key, value in tags.items():
        if _REMOVED_KEY.search(key) and value.strip().lower() in ("true", "1", "yes"):
            return False, f"{key} = {value}"
    for key, value in tags.items():
        number = _number(value)
        if _OFFSET_KEY.search(key) and number is not None:
            return number != 0, f"{key} = {value}"
    for key in _BASELINE_KEYS:
        number = _number(tags.get(key, ""))
        if number is not None:
            return number >= _FIRST_BASELINE, f"processing baseline {tags[key]}"
    for text in (description.path, *tags.values()):
        product = _PRODUCT.search(text)
        # N9999 marks private reprocessing and tells nothing.
        if product and product[1] != "99":
            return int(product[1]) >= _FIRST_BASELINE, f"the product's name has N{product[1]}{product[2]}"
    return None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


@dataclass(frozen=True)
class _Darkness:
    """The darkest band of a sample: its name and its lowest percentile, less what the atmosphere adds."""

    band: str
    value: float


def _darkness(description: RasterDescription, match: BandMatch) -> _Darkness | None:
    sample = description.sample_of(match.indexes)
    if sample is None:
        return None
    levels = _percentiles(sample)
    haze = _PATH_RADIANCE_DN if match.sensor.name == "sentinel2_l1c" else {}
    found = [
        _Darkness(name, float(level) - haze.get(name, 0.0))
        for name, level in zip(match.names, levels, strict=True)
        if np.isfinite(level)
    ]
    return min(found, key=lambda entry: entry.value) if found else None


def _percentiles(sample: FloatArray) -> FloatArray:
    """The dark percentile of each band, NaN for a band without values; zeros are missing pixels."""
    levels = np.full(len(sample), np.nan)
    for position, values in enumerate(sample):
        present = values[np.isfinite(values) & (values != 0)]
        if present.size:
            levels[position] = np.percentile(present, _DARK_PERCENTILE)
    return levels


def _contradiction(applies: bool, source: str, dark: _Darkness | None) -> str | None:
    if not applies or dark is None or dark.value >= LEAST_WITH_OFFSET / 2:
        return None
    return (
        f"The metadata ({source}) say that the Sentinel-2 values carry the offset of 1000, but band {dark.band} falls to "
        f"{dark.value:.0f}, as if it had been taken off already. The metadata are followed; set sentinel2_offset to 'no' "
        "if the map looks too dark."
    )


def _guess(description: RasterDescription, match: BandMatch, dark: _Darkness | None) -> OffsetDecision:
    if dark is None:
        reason = "there are no values to look at"
        applies = False
    elif dark.value < LEAST_WITH_OFFSET:
        reason = f"dark pixels of {dark.band} fall to {dark.value:.0f}, which is below 1000"
        applies = False
    elif "B10" in match.names:
        reason = f"the darkest pixels, those of {dark.band}, stand at {dark.value:.0f}, and the cirrus band is there"
        applies = True
    elif dark.value <= MOST_WITH_OFFSET:
        reason = f"the darkest pixels, those of {dark.band}, stand at {dark.value:.0f}; a very bright scene looks alike"
        applies = True
    else:
        reason = f"there are no dark pixels ({dark.band} starts at {dark.value:.0f}), which leaves it open"
        applies = False
    present = "present and taken off" if applies else "absent"
    detail = f"Sentinel-2 offset of 1000 {present}, guessed: {reason}."
    return OffsetDecision(applies, "guessed", _doubt(description, present, reason), detail)
