"""Bringing values onto another grid: bilinear interpolation that knows missing pixels, and means over blocks.

Why not GDAL's warper. Missing pixels: with one mask for all bands a band's NaN spreads to its neighbours, with a mask for
each band its gaps are filled from their surroundings. Repeatability: the kernel's width and the last bits depend on the
part that is asked for. Here a pixel depends on its place alone, so that a window equals the crop of the whole.
"""

from __future__ import annotations

import math

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from core.scenes.grid import Grid, Window, same_crs, transformer_between

_TIE = 1e-6
"""A centre this close to the edge of two source pixels, in pixels, counts as lying in the eastern or southern one, so that
rounding does not decide."""

_WHOLE = 1e-5
"""A corner this close to a whole number of pixels from the system's origin, in pixels, lies on it."""

CELL = 16
"""Side, in target pixels, of the cells between whose corners places are interpolated."""
CELL_ERROR = 1e-4
"""By how many source pixels a place may be off then."""


def warp(values: NDArray[np.float32], window: Window, transform: Affine, crs: str, target: Grid) -> NDArray[np.float32]:
    """Bilinear interpolation at the centres of the target's pixels.

    A target pixel is missing in a band where the source pixel under its centre is. Elsewhere the missing ones of the four
    pixels around the centre are left out and the weights of the others divided by their sum.

    Args:
        values: (bands, rows, columns) of ``window``, NaN = missing.
        window: of the source, with the pixels around all centres that lie in it (see ``covering_window``).
        transform: pixel to ground, of the whole source.
        crs: of the source.
        target: wanted pixels.

    Returns:
        (bands, rows, columns) float32 of the target.
    """
    n_bands, height, width = values.shape
    columns, rows = near_positions(transform, crs, target)
    columns -= window.column
    rows -= window.row
    column, row = np.floor(columns + _TIE), np.floor(rows + _TIE)
    # Comparisons with NaN are false: a centre that the source's system cannot express is outside.
    inside = np.flatnonzero((column >= 0) & (column < width) & (row >= 0) & (row < height))
    result = np.full((n_bands, target.height * target.width), np.nan, np.float32)
    flat = values.reshape(n_bands, -1)
    nearest = row[inside].astype(np.intp) * width + column[inside].astype(np.intp)
    corners = _corners(columns[inside] - 0.5, rows[inside] - 0.5, width, height)
    for band in range(n_bands):
        result[band, inside] = _interpolated(flat[band], nearest, corners)
    return result.reshape(n_bands, *target.shape)


Corners = list[tuple[NDArray[np.intp], NDArray[np.float32]]]


def _corners(columns: NDArray[np.float64], rows: NDArray[np.float64], width: int, height: int) -> Corners:
    """Flat index and weight of the four pixels around each place; beyond the edge the last pixel stands for the next."""
    left, top = np.floor(columns), np.floor(rows)
    right_part, lower_part = (columns - left).astype(np.float32), (rows - top).astype(np.float32)
    first_column, first_row = left.astype(np.intp), top.astype(np.intp)
    return [
        (
            np.clip(first_row + down, 0, height - 1) * width + np.clip(first_column + right, 0, width - 1),
            (lower_part if down else 1 - lower_part) * (right_part if right else 1 - right_part),
        )
        for down in (0, 1)
        for right in (0, 1)
    ]


def _interpolated(band: NDArray[np.float32], nearest: NDArray[np.intp], corners: Corners) -> NDArray[np.float32]:
    total = np.zeros(len(nearest), np.float32)
    valid = np.isfinite(band)
    if valid.all():
        for index, weight in corners:
            total += band[index] * weight
        return total
    weights, complete = np.zeros(len(nearest), np.float32), np.ones(len(nearest), bool)
    known = np.where(valid, band, np.float32(0))
    for index, weight in corners:
        total += known[index] * weight
        weights += valid[index] * weight
        complete &= valid[index]
    # The pixel under the centre has the largest weight, at least a quarter, so this never divides by zero. Complete ones
    # are not divided, so that a gap elsewhere in the window does not change their last bits.
    there = valid[nearest]
    total /= np.where(there & ~complete, weights, np.float32(1))
    total[~there] = np.nan
    return total


def source_positions(transform: Affine, crs: str, target: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Source columns and rows (pixel edges at whole numbers) of the target's centres, flat, row by row."""
    columns, rows = _in_source(transform, crs, target.crs, *pixel_centres(target))
    return columns.ravel(), rows.ravel()


def _in_source(
    transform: Affine, crs: str, target_crs: str, xs: NDArray[np.float64], ys: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(rows, columns) source columns and rows of a lattice of ground coordinates; NaN where the source cannot express them."""
    grid_x, grid_y = np.meshgrid(xs, ys)
    if not same_crs(target_crs, crs):
        grid_x, grid_y = transformer_between(target_crs, crs).transform(grid_x, grid_y)
        lost = ~(np.isfinite(grid_x) & np.isfinite(grid_y))
        grid_x[lost] = grid_y[lost] = np.nan
    columns, rows = ~transform @ (grid_x, grid_y)
    return np.asarray(columns, np.float64), np.asarray(rows, np.float64)


def near_positions(transform: Affine, crs: str, target: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """As ``source_positions``, to a ten-thousandth of a source pixel and many times as fast between two systems.

    The corners of cells of ``CELL`` x ``CELL`` target pixels are transformed, and places between them interpolated. The pixels
    of a cell are transformed each where its middle, or that of one of its edges, would be off by more than ``CELL_ERROR``
    (between two conformal systems the bends along both sides cancel in the middle alone), or where the source's system cannot
    express it. Cells are counted from the system's origin, so that a place is the same in any window.
    """
    if same_crs(target.crs, crs):
        return source_positions(transform, crs, target)
    numbers, shifts = absolute_pixels(target)
    sizes = target.pixel_width, target.pixel_height
    cells = [each // CELL for each in numbers]
    firsts = [int(each.min()) for each in cells]
    counts = [int(each.max()) - first + 1 for each, first in zip(cells, firsts, strict=True)]

    # Corners, and between them the middles of edges and cells.
    xs, ys = (
        (np.arange(2 * count + 1) / 2 + first) * CELL + shift
        for count, first, shift in zip(counts, firsts, shifts, strict=True)
    )
    halves = np.stack(_in_source(transform, crs, target.crs, xs * sizes[0], ys * sizes[1]))
    corners = halves[:, ::2, ::2]
    across = np.abs((corners[:, :, :-1] + corners[:, :, 1:]) / 2 - halves[:, ::2, 1::2])
    up_and_down = np.abs((corners[:, :-1] + corners[:, 1:]) / 2 - halves[:, 1::2, ::2])
    between = (corners[:, :-1, :-1] + corners[:, :-1, 1:] + corners[:, 1:, :-1] + corners[:, 1:, 1:]) / 4
    errors = [across[:, :-1], across[:, 1:], up_and_down[:, :, :-1], up_and_down[:, :, 1:]]
    errors.append(np.abs(between - halves[:, 1::2, 1::2]))
    # Comparisons with NaN are false.
    is_near = np.asarray((np.stack(errors) <= CELL_ERROR).all(axis=(0, 1)))
    (column, row), (right, up) = (
        [each - first for each, first in zip(cells, firsts, strict=True)],
        [(number - each * CELL) / CELL for number, each in zip(numbers, cells, strict=True)],
    )
    along = corners[:, :, column] + (corners[:, :, column + 1] - corners[:, :, column]) * right
    found = along[:, row] + (along[:, row + 1] - along[:, row]) * up[:, None]
    found = found.reshape(2, -1)
    if not is_near.all():
        exact = np.flatnonzero(~is_near[np.ix_(row, column)])
        found[:, exact] = np.stack(source_positions(transform, crs, target))[:, exact]
    return found[0], found[1]


def absolute_pixels(grid: Grid) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64]], tuple[float, float]]:
    """Numbers of a grid's columns to the east and rows to the north, counted from the system's origin to the pixels'
    centres, and what has to be added to them for the centres; the same for a grid and for any crop of it."""
    # Not the nearest whole number: that of a corner half way between two, as Landsat's are, depends on the crop.
    first_column = math.floor(grid.left / grid.pixel_width + _WHOLE)
    first_row = math.floor(grid.top / grid.pixel_height + _WHOLE)
    shift_x = round(grid.left / grid.pixel_width - first_column, 6)
    shift_y = round(grid.top / grid.pixel_height - first_row, 6)
    return (np.arange(grid.width) + first_column, first_row - np.arange(grid.height)), (shift_x + 0.5, shift_y - 0.5)


def pixel_centres(grid: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ground coordinates of the columns' and rows' centres, with the same bits for a grid and for any crop of it.

    A crop's corner carries rounding of its own. Counted from the system's origin, only the part of a pixel by which a
    grid is shifted is left to rounding, and that is rounded to a millionth.
    """
    (columns, rows), (shift_x, shift_y) = absolute_pixels(grid)
    return np.asarray((columns + shift_x) * grid.pixel_width), np.asarray((rows + shift_y) * grid.pixel_height)


def pixels_across(transform: Affine, width: int, height: int, crs: str, target: Grid) -> float:
    """How many source pixels lie along the longer side of a target pixel, at the middle of the source.

    Only the target's system and pixel sizes count, not its place, so that all windows of a grid get the same answer.

    Args:
        transform, width, height, crs: of the source, of any orientation.
        target: the grid to fill.

    Returns:
        Above 1 where the source is finer. 1 where the middle of the source cannot be expressed in the target's system.
    """
    x, y = transform @ (width / 2, height / 2)
    same = same_crs(target.crs, crs)
    if not same:
        x, y = transformer_between(crs, target.crs).transform(x, y)
    half_x, half_y = target.pixel_width / 2, target.pixel_height / 2
    xs, ys = np.array([x - half_x, x + half_x, x, x]), np.array([y, y, y - half_y, y + half_y])
    if not np.isfinite([xs, ys]).all():
        return 1.0
    if not same:
        xs, ys = transformer_between(target.crs, crs).transform(xs, ys)
    columns, rows = ~transform @ (xs, ys)
    across = max(math.hypot(columns[1] - columns[0], rows[1] - rows[0]), math.hypot(columns[3] - columns[2], rows[3] - rows[2]))
    return across if math.isfinite(across) else 1.0


def covering_window(transform: Affine, width: int, height: int, crs: str, target: Grid, margin: int = 2) -> Window:
    """The window of a source raster, of any orientation, that is needed to warp it onto ``target``.

    Args:
        transform, width, height, crs: of the source.
        target: the grid to fill.
        margin: source pixels added on every side, for the resampling kernel.

    Returns:
        A window inside the source; empty where it does not reach the target.
    """
    bounds = target.bounds
    # Between two systems straight edges bend. Over 64 pixels they bend by a small part of a pixel.
    xs, ys = np.meshgrid(
        np.linspace(bounds.left, bounds.right, 2 + target.width // 64),
        np.linspace(bounds.bottom, bounds.top, 2 + target.height // 64),
    )
    if not same_crs(target.crs, crs):
        xs, ys = transformer_between(target.crs, crs).transform(xs, ys)
    seen = np.isfinite(xs) & np.isfinite(ys)
    if not seen.any():
        return Window(0, 0, 0, 0)
    columns, rows = ~transform @ (xs[seen], ys[seen])
    first_column, first_row = math.floor(columns.min()) - margin, math.floor(rows.min()) - margin
    stop_column, stop_row = math.ceil(columns.max()) + margin, math.ceil(rows.max()) + margin
    needed = Window(first_column, first_row, stop_column - first_column, stop_row - first_row)
    return needed.intersection(Window(0, 0, width, height))


def block_mean(values: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Means over blocks of ``side`` x ``side`` pixels; NaN where less than half of a block is there.

    Args:
        values: (bands, rows, columns), rows and columns multiples of ``side``, NaN = missing.
        side: of a block.
    """
    if side == 1:
        return values
    bands, rows, columns = values.shape
    blocks = values.reshape(bands, rows // side, side, columns // side, side)
    valid = np.isfinite(blocks)
    count = valid.sum(axis=(2, 4))
    total = np.where(valid, blocks, 0).sum(axis=(2, 4), dtype=np.float64)
    enough = 2 * count >= side * side
    mean: NDArray[np.float32] = np.where(enough, total / np.maximum(count, 1), np.nan).astype(np.float32)
    return mean


def power_of_decibels(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Linear power; speckle averages out in power, while a mean of decibels lies below the decibels of the mean."""
    return np.asarray(np.power(10, values / 10, dtype=np.float32))


def decibels_of_power(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The inverse of ``power_of_decibels``."""
    return np.asarray(10 * np.log10(values, dtype=np.float32))
