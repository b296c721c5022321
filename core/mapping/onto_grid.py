"""A class raster read on the grid of another one."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from core.labels.scheme import NODATA_CODE
from core.mapping.class_raster import ClassRaster
from core.mapping.majority import ReadCodes
from core.scenes.grid import Grid, Window
from core.scenes.resampling import covering_window, pixels_across, source_positions

_MOST_ACROSS = 16
"""Places along a pixel at which a much finer map is looked at; more do not change what is most frequent."""
_TIE = 1e-6
"""A centre this close to the edge of two pixels, in pixels, counts as lying in the eastern or southern one."""


def places_across(raster: ClassRaster, grid: Grid) -> int:
    """At how many places along the side of a pixel of ``grid`` the raster is looked at: as many as it has pixels there."""
    own = raster.grid
    across = pixels_across(own.transform, own.width, own.height, own.crs, grid)
    return max(1, min(_MOST_ACROSS, math.ceil(across - 0.05)))


def reader_on(raster: ClassRaster, grid: Grid) -> ReadCodes:
    """Reads a map on another grid, in any coordinate reference system.

    Where the map is coarser or alike, a pixel gets the class under its centre; where it is finer, the most frequent class
    within it, in a tie the one with the lower code, and nodata where less than half of it was mapped.
    """
    own, places = raster.grid, places_across(raster, grid)

    def read(window: Window) -> NDArray[np.uint8]:
        fine = grid.crop(window).refined(places)
        needed = covering_window(own.transform, own.width, own.height, own.crs, fine)
        codes = np.zeros(fine.width * fine.height, np.uint8)
        if not needed.is_empty:
            columns, rows = source_positions(own.transform, own.crs, fine)
            column, row = np.floor(columns + _TIE) - needed.column, np.floor(rows + _TIE) - needed.row
            # Comparisons with NaN are false: a centre that the map's system cannot express is outside.
            inside = np.flatnonzero((column >= 0) & (column < needed.width) & (row >= 0) & (row < needed.height))
            codes[inside] = raster.read(needed)[row[inside].astype(np.intp), column[inside].astype(np.intp)]
        return block_majority(codes.reshape(fine.shape), places)

    return read


def block_majority(codes: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The most frequent class of blocks of ``side`` x ``side`` pixels; nodata where less than half of a block has one.

    Args:
        codes: (rows, columns), multiples of ``side``; 0 = nodata.
        side: of a block.
    """
    if side == 1:
        return codes
    rows, columns = codes.shape
    blocks = codes.reshape(rows // side, side, columns // side, side)
    best = np.zeros((rows // side, columns // side), np.int64)
    chosen = np.zeros(best.shape, np.uint8)
    for code in np.unique(codes):
        if code != NODATA_CODE:
            count = (blocks == code).sum(axis=(1, 3))
            wins = count > best
            best[wins] = count[wins]
            chosen[wins] = code
    chosen[2 * (blocks != NODATA_CODE).sum(axis=(1, 3)) < side * side] = NODATA_CODE
    return chosen
