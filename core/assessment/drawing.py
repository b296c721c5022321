"""Drawing pixels of a class map at random, class by class, without holding the map.

A first pass counts the pixels of every class in every row. A pixel of a class then has a rank, its place in the order of
rows and columns; ranks are drawn, and the counts tell the row of each. A second pass reads the rows that were hit. Memory
is 4 bytes a row and class, whatever the width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from core.mapping.class_raster import ClassRaster
from core.scenes.grid import Grid, Window, transformer_between

IntArray = NDArray[np.int64]
Progress = Callable[[float, str], None]

STRIP_PIXELS = 2**24
"""Pixels that are read at a time; as float32 with a mask they take about 0.1 GB."""

CANDIDATES_A_UNIT = 8
"""Pixels that are drawn for each that is wanted where a distance has to be kept."""

_SQUARE_METRES = 10_000.0
"""In a hectare."""


@dataclass(frozen=True, eq=False)
class RowCounts:
    """Pixels of every class in every row of a map.

    Attributes:
        codes: (K,) of the classes that occur, ascending.
        counts: (rows, K) int32.
        hectares: (K,) areas on the ellipsoid.
    """

    codes: NDArray[np.uint8]
    counts: NDArray[np.int32]
    hectares: NDArray[np.float64]

    @property
    def pixels(self) -> IntArray:
        """(K,) of each class."""
        total: IntArray = self.counts.sum(axis=0, dtype=np.int64)
        return total


@dataclass(frozen=True, eq=False)
class DrawnPixels:
    """Pixels of a sample in random order; (n,) each.

    Attributes:
        stratum: index into ``RowCounts.codes``.
        rows, columns: of the map.
    """

    stratum: IntArray
    rows: IntArray
    columns: IntArray

    def __len__(self) -> int:
        return len(self.stratum)

    def select(self, chosen: NDArray[np.integer]) -> DrawnPixels:
        return DrawnPixels(self.stratum[chosen], self.rows[chosen], self.columns[chosen])


def count_rows(raster: ClassRaster, progress: Progress) -> RowCounts:
    """The first pass; nodata is no class."""
    grid = raster.grid
    counts = np.zeros((grid.height, len(raster.scheme)), np.int32)
    index_of = np.full(256, len(raster.scheme), np.int64)
    index_of[list(raster.scheme.codes)] = np.arange(len(raster.scheme))
    for window in _strips(grid):
        for row, codes in enumerate(raster.read(window), start=window.row):
            # A row at a time: the indices take eight times the memory of the codes.
            counts[row] = np.bincount(index_of[codes], minlength=len(raster.scheme) + 1)[:-1]
        progress(window.stop_row / grid.height, "Counting the pixels of the classes")
    occurs = counts.any(axis=0)
    counts = counts[:, occurs]
    hectares = grid.row_pixel_areas_m2() @ counts / _SQUARE_METRES
    return RowCounts(np.array(raster.scheme.codes, np.uint8)[occurs], counts, hectares)


def draw_pixels(
    raster: ClassRaster, rows: RowCounts, units: IntArray, generator: np.random.Generator, progress: Progress
) -> DrawnPixels:
    """Draws pixels of every class with equal probability and without replacement; the second pass.

    Args:
        raster: the map that was counted.
        rows: its counts.
        units: (K,) pixels to draw of each class, at most as many as it has.
        generator: what decides.
        progress: told how far it is.

    Returns:
        The pixels in random order: the order tells nothing of the stratum.
    """
    stratum = np.repeat(np.arange(len(units)), units)
    row, within = np.zeros(len(stratum), np.int64), np.zeros(len(stratum), np.int64)
    for k, (wanted, pixels) in enumerate(zip(units.tolist(), rows.pixels.tolist(), strict=True)):
        ranks = generator.choice(pixels, wanted, replace=False)
        ends = np.cumsum(rows.counts[:, k], dtype=np.int64)
        row[stratum == k] = hit = np.searchsorted(ends, ranks, side="right")
        within[stratum == k] = ranks - (ends[hit] - rows.counts[hit, k])
    column = _columns(raster, rows.codes[stratum], row, within, progress)
    return DrawnPixels(stratum, row, column).select(generator.permutation(len(stratum)))


def _columns(raster: ClassRaster, codes: NDArray[np.uint8], rows: IntArray, within: IntArray, progress: Progress) -> IntArray:
    """The column of each pixel that is the ``within``-th of its code in its row."""
    columns = np.zeros(len(rows), np.int64)
    for window in _strips(raster.grid):
        inside = np.flatnonzero((rows >= window.row) & (rows < window.stop_row))
        if len(inside):
            values = raster.read(window)
            for index in inside.tolist():
                same = np.flatnonzero(values[rows[index] - window.row] == codes[index])
                columns[index] = same[within[index]]
        progress(window.stop_row / raster.grid.height, "Placing the points")
    return columns


def apart(pixels: DrawnPixels, grid: Grid, units: IntArray, distance_m: float) -> DrawnPixels:
    """The first pixels of a random order that keep a distance from all before them, up to a number a class.

    Args:
        pixels: more than are needed, in random order.
        grid: of the map.
        units: (K,) pixels wanted of each class.
        distance_m: between any two centres, in metres.

    Returns:
        At most ``units`` of each class: fewer where the candidates do not suffice.
    """
    x, y = centres(grid, pixels)
    # Geocentric coordinates: the chord between two points is their distance on the ground, in whatever system the map is.
    places = np.column_stack(transformer_between(grid.crs, "EPSG:4978").transform(x, y, np.zeros(len(x))))
    tree = KDTree(places)
    free = np.ones(len(pixels), bool)
    missing = units.copy()
    chosen = []
    for index, k in enumerate(pixels.stratum.tolist()):
        if free[index] and missing[k]:
            chosen.append(index)
            missing[k] -= 1
            # A hair less, so that pixels which are just that far apart may both stand.
            free[tree.query_ball_point(places[index], distance_m * (1 - 1e-6))] = False
    return pixels.select(np.array(chosen, np.int64))


def centres(grid: Grid, pixels: DrawnPixels) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Ground coordinates of the centres of pixels, (n,) x and y."""
    return (
        grid.left + (pixels.columns + 0.5) * grid.pixel_width,
        grid.top - (pixels.rows + 0.5) * grid.pixel_height,
    )


def _strips(grid: Grid) -> list[Window]:
    rows = max(1, STRIP_PIXELS // grid.width)
    return [Window(0, row, grid.width, min(rows, grid.height - row)) for row in range(0, grid.height, rows)]
