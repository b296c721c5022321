"""SAR values: decibels, linear power or amplitude; and the direction of the orbit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from core.errors import SensorError
from core.sensors.band_match import BandMatch
from core.sensors.description import RasterDescription
from core.sensors.evidence import metadata_text, place_text
from core.sensors.names import band_texts

OrbitDirection = Literal["ascending", "descending"]

_ORBIT_KEYS = (
    "orbit_direction",
    "orbitproperties_pass",
    "orbit_properties_pass",
    "sat:orbit_state",
    "pass",
    "orbit_pass",
)
_ASCENDING = re.compile(r"(?<![a-z])asc(?:ending)?(?![a-z])", re.IGNORECASE)
_DESCENDING = re.compile(r"(?<![a-z])(?:desc|dsc|descending)(?![a-z])", re.IGNORECASE)

_BRIGHTEST_MEDIAN_POWER = 5.0
"""Calibrated power has a median far below 1; only uncalibrated digital numbers are larger."""

_DARKEST_MEDIAN_DB = -60.0


@dataclass(frozen=True)
class BackscatterScale:
    """How stored SAR values become decibels: ``factor * log10(stored)`` where ``factor`` is not None, else
    ``stored * scale``.

    Attributes:
        warning: for the user; None where nothing is in doubt.
    """

    factor: float | None
    scale: float
    detail: str
    warning: str | None = None


def backscatter_scale(description: RasterDescription, match: BandMatch) -> BackscatterScale:
    """Tells decibels from linear values by the names of the bands and a sample of the stored values.

    Raises:
        SensorError: the values are neither: uncalibrated digital numbers.
    """
    texts = " ".join(text.lower() for index in match.indexes for text in band_texts(description, index))
    sample = description.sample_of(match.indexes)
    values = np.empty(0) if sample is None else sample[np.isfinite(sample) & (sample != 0)]
    if values.size == 0:
        doubt = f"'{description.path}' shows no values to tell decibels from linear backscatter; taken as decibels."
        return BackscatterScale(None, 1.0, "Backscatter taken as decibels.", doubt)
    scales = np.array([description.own_calibration(index)[0] for index in match.indexes])
    median = float(np.median(values)) * float(scales[0])
    if float(np.mean(values < 0)) > 0.01 or re.search(r"(?<![a-z])db(?![a-z])", texts):
        if description.has_integers and median < _DARKEST_MEDIAN_DB:
            doubt = f"'{description.path}' has SAR values around {median:.0f}, taken as hundredths of a decibel."
            return BackscatterScale(None, 0.01, "Backscatter in hundredths of a decibel.", doubt)
        return BackscatterScale(None, 1.0, "Backscatter in decibels.")
    if median > _BRIGHTEST_MEDIAN_POWER:
        raise SensorError(
            f"'{description.path}' has SAR values around {median:g}: neither decibels nor calibrated linear backscatter.",
            "Calibrate it to sigma nought or gamma nought first, or set the SAR sensor to 'generic'.",
        )
    quantity, factor = ("amplitude", 20.0) if "amplitude" in texts else ("power", 10.0)
    doubt = f"'{description.path}' has no negative values, so it is taken as linear {quantity} and converted to decibels."
    return BackscatterScale(factor, 1.0, f"Backscatter as linear {quantity}, converted to decibels.", doubt)


def orbit_direction(description: RasterDescription) -> OrbitDirection | None:
    """The direction of the satellite's orbit from the metadata, else from the file's and its folder's name.

    It changes which slopes face the sensor, so images of both directions are different views of the same ground.
    """
    tags = description.file_tags()
    told = "\n".join(tags[key] for key in _ORBIT_KEYS if key in tags)
    for text in (told, metadata_text(description), place_text(description.path)):
        ascending, descending = bool(_ASCENDING.search(text)), bool(_DESCENDING.search(text))
        if ascending != descending:
            return "ascending" if ascending else "descending"
    return None
