"""What a polygon looks like as a whole: statistics of the channels of its pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

QUANTILES = (0.1, 0.5, 0.9)
STATISTICS = ("mean", "deviation", *(f"quantile{round(100 * share)}" for share in QUANTILES))
"""Of each channel, in the order of the columns."""

QUANTILE_PIXELS = 4096
"""Of a unit at most, evenly over it: a quantile of so many is off by less than a percent of the pixels."""

FloatArray = NDArray[np.float64]


class Moments:
    """Mean and standard deviation of many pixels, gathered part by part.

    Args:
        count: of the channels.
    """

    def __init__(self, count: int) -> None:
        self._n = 0
        self._sum, self._squares = np.zeros(count), np.zeros(count)

    def add(self, pixels: NDArray[np.float32]) -> None:
        """Counts pixels, (channels, n)."""
        self._n += pixels.shape[1]
        self._sum += pixels.sum(axis=1, dtype=np.float64)
        self._squares += np.square(pixels, dtype=np.float64).sum(axis=1)

    def result(self) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation (channels,) each; NaN where there was no pixel."""
        if not self._n:
            return np.full_like(self._sum, np.nan), np.full_like(self._sum, np.nan)
        mean = self._sum / self._n
        return mean, np.sqrt(np.maximum(self._squares / self._n - mean**2, 0))


class Description:
    """The statistics of one modality of one unit, gathered part by part.

    Args:
        count: of the channels.
        pixels: of the unit, about; of many of them only some count for the quantiles.
    """

    def __init__(self, count: int, pixels: float) -> None:
        self._moments = Moments(count)
        self._step = max(1, int(np.ceil(pixels / QUANTILE_PIXELS)))
        self._kept: list[NDArray[np.float32]] = []
        self._count = count

    def add(self, pixels: NDArray[np.float32], numbers: NDArray[np.int64]) -> None:
        """Counts pixels.

        Args:
            pixels: (channels, n), all of them known.
            numbers: (n,) of the pixels on the ground, the same whatever the parts.
        """
        self._moments.add(pixels)
        self._kept.append(pixels[:, numbers % self._step == 0])

    def result(self) -> FloatArray:
        """(channels * len(STATISTICS),) the channels of the first statistic first; NaN where nothing is known."""
        kept = np.concatenate([np.empty((self._count, 0), np.float32), *self._kept], axis=1)
        if kept.shape[1]:
            quantiles = np.quantile(kept.astype(np.float64), QUANTILES, axis=1)
        else:
            quantiles = np.full((len(QUANTILES), self._count), np.nan)
        return np.concatenate([*self._moments.result(), *quantiles])


def completed(rows: FloatArray, medians: FloatArray, parts: list[slice]) -> NDArray[np.float32]:
    """Rows without gaps: what is missing gets the training's median, and each part a column that says where it was.

    Args:
        rows: (N, D), NaN = missing.
        medians: (D,) of the training.
        parts: columns that are missing together: of an input, of the base model.

    Returns:
        (N, D + parts) float32.
    """
    missing = np.isnan(rows)
    gaps = np.stack([missing[:, part].any(axis=1) for part in parts], axis=1)
    return np.concatenate([np.where(missing, medians, rows), gaps], axis=1).astype(np.float32)
