"""What tiles say of the pixels that they share, put together."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray


class Blended:
    """What the tiles of a strip say together, and those of the next strip of its panel on top of what they share with it.

    Strips of several panels come in turn; of each what it shares with the next is kept.

    Args:
        count: of the values of a pixel.
        inner: side of the part of a tile that counts.
        columns: of the widest strip.
        stride: rows from a strip to the next of its panel.
        reuses_memory: whether ``means`` lie in two places that are used in turn.
    """

    def __init__(self, count: int, inner: int, columns: int, stride: int, reuses_memory: bool) -> None:
        self._stride = stride
        self._reuses_memory = reuses_memory
        self._spare: list[NDArray[np.float32]] = []
        self._sums = np.zeros((count, inner, columns), np.float32)
        self._totals = np.zeros((inner, columns), np.float32)
        self._shared: dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
        self._columns = columns

    @property
    def _is_plain(self) -> bool:
        """Whether a strip shares nothing with the next."""
        return self._stride == self._sums.shape[1]

    def begin(self, panel: int, columns: int) -> None:
        """Begins with the next strip of a panel, of so many columns."""
        self._columns = columns
        kept = self._sums.shape[1] - self._stride
        if kept:
            sums, totals = self._sums[:, :, :columns], self._totals[:, :columns]
            before = self._shared.pop(panel, None)
            sums[:, :kept] = 0 if before is None else before[0]
            totals[:kept] = 0 if before is None else before[1]
            sums[:, kept:] = 0
        self._totals[kept:, :columns] = 0

    def add(self, values: torch.Tensor, weights: NDArray[np.float32] | None, rows: slice, columns: slice) -> None:
        """Adds (count, rows, columns) values of a tile; without weights nothing is shared with others."""
        sums = torch.from_numpy(self._sums)[:, rows, columns]
        if weights is None:
            sums.copy_(values)
            self._totals[rows, columns] = 1
        else:
            sums.addcmul_(values, torch.from_numpy(weights))
            self._totals[rows, columns] += weights

    def means(self, rows: slice, columns: slice) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """(count, rows, columns) weighted means of a part; (rows, columns) where there are any."""
        totals = self._totals[rows, columns]
        is_covered = totals > 0
        sums = self._sums[:, rows, columns]
        # With what is being gathered, or with the two before it, that makes two strips that are not touched.
        is_full = len(self._spare) == (1 if self._is_plain else 2)
        place = self._spare.pop(0) if is_full else np.empty_like(self._sums)
        if self._is_plain:
            # Nothing is kept for the next strip: what was gathered is given away.
            given, self._sums = self._sums, place
            means = sums
        else:
            given = place
            means = place[:, : sums.shape[1], : sums.shape[2]]
            np.divide(sums, np.where(is_covered, totals, 1), out=means)
        if self._reuses_memory:
            self._spare.append(given)
        return means, is_covered

    def end(self, panel: int, is_last: bool) -> None:
        """Ends a strip; of the last of its panel nothing is kept."""
        if not self._is_plain and not is_last:
            columns = slice(0, self._columns)
            self._shared[panel] = self._sums[:, self._stride :, columns].copy(), self._totals[self._stride :, columns].copy()
