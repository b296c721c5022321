"""Means and standard deviations that physical values are normalised with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.sensors.description import FloatArray
from core.sensors.types import Sensor

_PERCENTILES = (2.0, 98.0)
_SMALLEST_DEVIATION = 1e-6


def band_statistics(sensor: Sensor, band: str) -> tuple[float, float] | None:
    """Mean and standard deviation of a band in physical units, or None for "take the scene's own".

    They hold for calibrated values only: of an ``IdentifiedRaster`` use the statistics of its ``bands``.

    Raises:
        KeyError: the sensor has no such band.
    """
    entry = sensor.band(band)
    if entry.mean is None or entry.standard_deviation is None:
        return None
    return entry.mean, entry.standard_deviation


def robust_statistics(values: FloatArray) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
    """Mean and standard deviation of each band after clipping it to its 2nd and 98th percentile.

    Args:
        values: (C, N), NaN = missing.

    Returns:
        Mean (C,) and standard deviation (C,), float64. A band without values has 0 and 1, a constant band its value
        and 1, so that normalising never divides by zero.
    """
    means, deviations = np.zeros(len(values)), np.ones(len(values))
    for position, band in enumerate(values):
        present = band[np.isfinite(band)].astype(np.float64)
        if not present.size:
            continue
        clipped = np.clip(present, *np.percentile(present, _PERCENTILES))
        deviation = clipped.std()
        means[position] = clipped.mean()
        if deviation > _SMALLEST_DEVIATION * max(1.0, abs(means[position])):
            deviations[position] = deviation
    return means, deviations
