"""The map of change as a small picture, collected while its strips go by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from core.assessment.quicklook import imagery_picture
from core.jobs.learning.report import PREVIEW_SIDE
from core.scenes.date_pair import DatePair
from core.scenes.grid import Window


class ChangePreview:
    """Every n-th row and column of a map, so that the longer side has at most ``PREVIEW_SIDE`` pixels.

    Args:
        pair: the two dates.
    """

    def __init__(self, pair: DatePair) -> None:
        grid = pair.grid
        self._pair = pair
        self._step = -(-max(grid.width, grid.height) // PREVIEW_SIDE)
        width, height = (-(-side // self._step) for side in (grid.width, grid.height))
        self._grid = replace(
            grid,
            width=width,
            height=height,
            pixel_width=grid.pixel_width * self._step,
            pixel_height=grid.pixel_height * self._step,
        )
        self.codes = np.zeros(self._grid.shape, np.uint8)

    def add(self, window: Window, codes: NDArray[np.uint8]) -> None:
        """Takes what it needs of finished rows.

        Args:
            window: of the grid, of whole rows.
            codes: (rows, columns) of the map.
        """
        first = -window.row % self._step
        kept = codes[first :: self._step, :: self._step]
        row = (window.row + first) // self._step
        self.codes[row : row + len(kept)] = kept

    def imagery(self) -> NDArray[np.uint8]:
        """(H, W, 3) of the second date on the same ground."""
        return imagery_picture(self._pair.after, self._grid)
