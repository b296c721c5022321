"""A majority filter for codes of classes that leaves alone where nothing was mapped."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from core.labels.scheme import NODATA_CODE
from core.scenes.grid import Grid, Window

ReadCodes = Callable[[Window], NDArray[np.uint8]]
"""(rows, columns) codes of a window inside a grid; 0 = nodata."""


def majority(codes: NDArray[np.uint8], size: int, protected: Iterable[int] = ()) -> NDArray[np.uint8]:
    """Gives each pixel the most frequent class of the square around it.

    Pixels without data have no vote and get no class. Of classes that are equally frequent the pixel's own wins, else the
    one with the lowest code. Beyond the edge of the array there is nothing.

    Args:
        codes: (rows, columns), 0 = nodata.
        size: side of the square in pixels, odd.
        protected: codes of classes whose pixels stay.

    Returns:
        (rows, columns) codes.
    """
    present = [int(code) for code in np.unique(codes) if code != NODATA_CODE]
    best = np.zeros(codes.shape, np.int32)
    chosen = np.zeros(codes.shape, np.uint8)
    for code in present:
        is_class = codes == code
        # Twice the votes and one more for the pixel's own class: ties go there, and nothing else changes.
        votes = 2 * _sums(is_class, size) + is_class
        wins = votes > best
        best[wins] = votes[wins]
        chosen[wins] = code
    fixed = (codes == NODATA_CODE) | np.isin(codes, list(protected))
    chosen[fixed] = codes[fixed]
    return chosen


def majority_reader(read: ReadCodes, grid: Grid, size: int, protected: Iterable[int] = ()) -> ReadCodes:
    """A reader of filtered codes: a window equals the crop of the whole."""
    protected = tuple(protected)

    def filtered(window: Window) -> NDArray[np.uint8]:
        around = window.padded(size // 2).intersection(grid.window)
        rows, columns = window.slices_within(around)
        return majority(read(around), size, protected)[rows, columns]

    return filtered


def _sums(mask: NDArray[np.bool_], size: int) -> NDArray[np.int32]:
    """How many pixels of the square around each one are true."""
    sums = mask.astype(np.int32)
    for axis in (0, 1):
        length, half = sums.shape[axis], size // 2
        total = np.cumsum(sums, axis=axis, dtype=np.int32)
        last = np.minimum(np.arange(length) + half, length - 1)
        before = np.arange(length) - half - 1
        sums = np.take(total, last, axis=axis)
        inside = before >= 0
        place = (inside, slice(None)) if axis == 0 else (slice(None), inside)
        sums[place] -= np.take(total, before[inside], axis=axis)
    return sums
