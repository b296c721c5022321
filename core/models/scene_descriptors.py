"""What a polygon looks like as a whole: statistics of the channels of its pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.models.subsets import subset_numbers

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


@dataclass(frozen=True)
class Layout:
    """Which columns of a descriptor belong to which input, and which sets of inputs have an estimator of their own.

    Attributes:
        names: of the inputs, in the order of their columns.
        parts: their columns.
        n_columns: of all; those behind the inputs' are the base model's, which are looked at where every input is there.
        subsets: the sets of inputs, all of them first.
    """

    names: tuple[str, ...]
    parts: tuple[slice, ...]
    n_columns: int
    subsets: tuple[frozenset[str], ...]

    def numbers(self, rows: FloatArray) -> NDArray[np.int64]:
        """(N,) number of the set of inputs that each row has; 0, all of them, for sets that are not listed."""
        bits = np.zeros(len(rows), np.int64)
        for bit, part in enumerate(self.parts):
            bits += np.isfinite(rows[:, part]).all(axis=1).astype(np.int64) << bit
        return np.array(subset_numbers(self.names, self.subsets), np.int64)[bits]

    def has(self, rows: FloatArray, number: int) -> NDArray[np.bool_]:
        """(N,) bool, whether a row has all inputs of a set, and perhaps others."""
        return np.asarray(np.isfinite(rows[:, self.columns(number)]).all(axis=1))

    def columns(self, number: int) -> NDArray[np.int64]:
        """The columns that the estimator of a set sees."""
        if number == 0:
            return np.arange(self.n_columns)
        chosen = [
            np.arange(part.start, part.stop)
            for part, name in zip(self.parts, self.names, strict=True)
            if name in self.subsets[number]
        ]
        return np.concatenate(chosen)

    def seen(self, rows: FloatArray, medians: FloatArray, number: int) -> NDArray[np.float32]:
        """(N, columns) float32 what the estimator of a set sees; the training's medians where something is missing."""
        columns = self.columns(number)
        given = rows[:, columns]
        return np.where(np.isnan(given), medians[columns], given).astype(np.float32)
