"""Bringing values onto another grid: bilinear interpolation that knows missing pixels, and means over blocks.

Why not GDAL's warper. Missing pixels: with one mask for all bands a band's NaN spreads to its neighbours, with a mask for
each band its gaps are filled from their surroundings. Repeatability: the kernel's width and the last bits depend on the
part that is asked for. Here a pixel depends on its place alone, so that a window equals the crop of the whole.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

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


def warp(
    values: NDArray[np.float32],
    window: Window,
    transform: Affine,
    crs: str,
    target: Grid,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Bilinear interpolation at the centres of the target's pixels.

    A target pixel is missing in a band where the source pixel under its centre is. Elsewhere the missing ones of the four
    pixels around the centre are left out and the weights of the others divided by their sum.

    Args:
        values: (bands, rows, columns) of ``window``, NaN = missing.
        window: of the source, with the pixels around all centres that lie in it (see ``covering_window``).
        transform: pixel to ground, of the whole source.
        crs: of the source.
        target: wanted pixels.
        out: (bands, rows, columns) of the target to write to; a new array by default.

    Returns:
        (bands, rows, columns) float32 of the target.
    """
    result = np.empty((len(values), *target.shape), np.float32) if out is None else out
    values = np.ascontiguousarray(values)
    for rows, columns, lines in near_position_rows(transform, crs, target):
        # What is done to so few rows at a time stays in the processor's cache.
        columns -= window.column
        lines -= window.row
        _warp_rows(values, columns, lines, result[:, rows])
    return result


def _warp_rows(
    values: NDArray[np.float32], columns: NDArray[np.float64], rows: NDArray[np.float64], out: NDArray[np.float32]
) -> None:
    """Bilinear interpolation at some places.

    Args:
        values: (bands, height, width).
        columns, rows: (lines, places) in pixels of ``values``, edges at whole numbers; changed.
        out: (bands, lines, places) to write to.
    """
    _, height, width = values.shape
    outside: NDArray[np.bool_] | None = None
    column: NDArray[np.float64] | None = None
    row: NDArray[np.float64] | None = None
    if not (columns.min() >= 0.5 and columns.max() < width - 0.5 and rows.min() >= 0.5 and rows.max() < height - 0.5):
        column, row = np.floor(columns + _TIE), np.floor(rows + _TIE)
        # Comparisons with NaN are false: a centre that the source's system cannot express is outside.
        outside = ~((column >= 0) & (column < width) & (row >= 0) & (row < height))
        if outside.all():
            out[...] = np.nan
            return
        columns[outside] = rows[outside] = 0.5
    columns -= 0.5
    rows -= 0.5
    left, top = np.floor(columns), np.floor(rows)
    columns -= left
    rows -= top
    right_part, lower_part = columns.astype(np.float32), rows.astype(np.float32)
    first_column, first_row = left.astype(np.int32), top.astype(np.int32)
    indexes = _four_indexes(first_column, first_row, width, height, is_inner=outside is None)
    left_part, upper_part = 1 - right_part, 1 - lower_part
    weights = (upper_part * left_part, upper_part * right_part, lower_part * left_part, lower_part * right_part)
    part = np.empty(out.shape[1:], np.float32)
    for band, total in zip(values.reshape(len(values), -1), out, strict=True):
        sums = np.take(band, indexes[0], mode="clip")
        sums *= weights[0]
        for index, weight in zip(indexes[1:], weights[1:], strict=True):
            np.take(band, index, out=part, mode="clip")
            part *= weight
            sums += part
        gaps = np.isnan(sums)
        if gaps.any():
            # Under the centre lies the pixel with the largest weight.
            where = np.nonzero(gaps)
            near = (indexes[0][where], indexes[1][where], indexes[2][where], indexes[3][where])
            if column is None or row is None:
                line = first_row[where] + (rows[where] + 0.5 + _TIE >= 1)
                place = first_column[where] + (columns[where] + 0.5 + _TIE >= 1)
            else:
                line, place = row[where].astype(np.int32), column[where].astype(np.int32)
            nearest = np.clip(line, 0, height - 1) * width + np.clip(place, 0, width - 1)
            sums[where] = _with_gaps(band, nearest, near, [weight[where] for weight in weights])
        if outside is not None:
            sums[outside] = np.nan
        total[...] = sums


def _four_indexes(
    column: NDArray[np.int32], row: NDArray[np.int32], width: int, height: int, is_inner: bool
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Flat indexes of a pixel, of those to its right, below and both; beyond the edge the last one stands for the next."""
    if is_inner:
        first = row.astype(np.intp) * width + column
        return first, first + 1, first + width, first + (width + 1)
    left, right = np.clip(column, 0, width - 1), np.clip(column + 1, 0, width - 1)
    upper, lower = (np.clip(each, 0, height - 1).astype(np.intp) * width for each in (row, row + 1))
    return upper + left, upper + right, lower + left, lower + right


def _with_gaps(
    band: NDArray[np.float32],
    nearest: NDArray[np.intp],
    indexes: tuple[NDArray[np.intp], ...],
    parts: list[NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Interpolated values of flat places near missing pixels; NaN where the nearest one is missing."""
    total, weights = np.zeros(len(nearest), np.float32), np.zeros(len(nearest), np.float32)
    for index, part in zip(indexes, parts, strict=True):
        values = band[index]
        valid = np.isfinite(values)
        total += np.where(valid, values, np.float32(0)) * part
        weights += valid * part
    # The nearest has the largest weight, at least a quarter, so this divides by zero only where it is missing itself.
    total /= np.where(weights > 0, weights, np.float32(1))
    total[~np.isfinite(band[nearest])] = np.nan
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


_Positions = Iterator[tuple[slice, NDArray[np.float64], NDArray[np.float64]]]


def near_position_rows(transform: Affine, crs: str, target: Grid) -> _Positions:
    """As ``source_positions``, to a ten-thousandth of a source pixel and many times as fast between two systems; for a few rows
    of the target at a time: rows; (rows, columns) columns and rows of the source.

    The corners of cells of ``CELL`` x ``CELL`` target pixels are transformed, and places between them interpolated. The pixels
    of a cell are transformed each where its middle, or that of one of its edges, would be off by more than ``CELL_ERROR``
    (between two conformal systems the bends along both sides cancel in the middle alone), or where the source's system cannot
    express it. Cells are counted from the system's origin, so that a place is the same in any window.
    """
    if same_crs(target.crs, crs):
        for first in range(0, target.height, CELL):
            some = Window(0, first, target.width, min(CELL, target.height - first))
            columns, lines = _in_source(transform, crs, target.crs, *_some_centres(target, some))
            yield slice(first, some.stop_row), columns, lines
        return
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
    steps = along[:, 1:] - along[:, :-1]
    edges = np.flatnonzero(np.diff(row)) + 1
    for start, stop in itertools.pairwise([0, *edges.tolist(), target.height]):
        # The rows of one row of cells.
        cell, part = row[start], up[start:stop, None]
        columns, lines = (along[axis, cell] + steps[axis, cell] * part for axis in (0, 1))
        if not is_near[cell].all():
            exact = np.flatnonzero(~is_near[cell][column])
            xs, ys = _some_centres(target, Window(0, start, target.width, stop - start))
            columns[:, exact], lines[:, exact] = _in_source(transform, crs, target.crs, xs[exact], ys)
        yield slice(start, stop), columns, lines


def _some_centres(target: Grid, window: Window) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of a window of a grid, what ``pixel_centres`` says of the whole."""
    xs, ys = pixel_centres(target)
    return xs[window.column : window.stop_column], ys[window.row : window.stop_row]


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
    return np.asarray(np.exp(values * np.float32(math.log(10) / 10)))


def decibels_of_power(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The inverse of ``power_of_decibels``."""
    return np.asarray(np.log(values) * np.float32(10 / math.log(10)))
