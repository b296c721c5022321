"""Mean and spread of the neighbourhoods of pixels, row by row, compiled when this module is taken in.

Sums of neighbourhoods are made of those of columns, in an order that is the same wherever a pixel lies in a tile. A row and
what it is made of stay in the processor's cache, where operations on whole tiles fetch and write all of them ten times.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


_ADDING = "void(float32[::1], int64, float32[::1], uint64, uint64)"


@numba.njit(_ADDING, nogil=True)
def _add(sums, size, source, one, other):  # type: ignore[no-untyped-def]
    """Adds what lies at two places. Places without a sign are not looked at for being negative, one by one."""
    for number in range(size):
        place = np.uint64(number)
        sums[place] += source[one + place] + source[other + place]


@numba.njit(_ADDING, nogil=True)
def _add_squares(sums, size, source, one, other):  # type: ignore[no-untyped-def]
    for number in range(size):
        place = np.uint64(number)
        first, second = source[one + place], source[other + place]
        sums[place] += first * first + second * second


@numba.njit("void(float32[::1], int64, float32[::1], uint64)", nogil=True)
def _copy(copied, size, source, first):  # type: ignore[no-untyped-def]
    for number in range(size):
        place = np.uint64(number)
        copied[place] = source[first + place]


@numba.njit("void(float32[:, ::1], float32[::1], float32[::1], float32[::1], int64, int64, float32)", nogil=True)
def _put(pixels, total, total_squares, count, at, channels, least_variance):  # type: ignore[no-untyped-def]
    """Mean and standard deviation from sums, the sums of squares, and of how many."""
    place = np.uint64(0)
    for pixel in range(pixels.shape[0]):
        part = np.float32(1) / max(count[pixel], np.float32(1))
        for channel in range(at, at + channels):
            mean = total[place] * part
            variance = total_squares[place] * part - mean * mean
            pixels[pixel, channel] = mean
            pixels[pixel, channel + channels] = np.sqrt(max(variance, np.float32(0)) + least_variance)
            place += np.uint64(1)


@numba.njit(
    "void(float32[::1], float32[::1], int64, int64, int64, int64[::1], float32, float32[:, :, ::1])",
    nogil=True,
    boundscheck=False,
)
def neighbourhood_rows(
    values: FloatArray,
    known: FloatArray,
    width: int,
    channels: int,
    first: int,
    halves: NDArray[np.int64],
    least_variance: float,
    rows: FloatArray,
) -> None:
    """The values of some rows of pixels, and mean and standard deviation of each of their neighbourhoods.

    Args:
        values: of (H, W, C), zero where missing, with as many rows and columns of zeros around it as the largest
            neighbourhood reaches to a side.
        known: of (H, W), 1 or 0, with the same around it.
        width, channels: W and C.
        first: of the rows.
        halves: how far each neighbourhood reaches to a side; the smallest first.
        least_variance: added to variances.
        rows: (n, W, C * (1 + 2 * neighbourhoods)) to be filled.
    """
    most, size = halves[-1], width * channels
    columns, edge = width + 2 * most, most * channels
    line = columns * channels
    # Of columns of pixels, then of whole neighbourhoods.
    sums, squares, counts = np.empty(line, np.float32), np.empty(line, np.float32), np.empty(columns, np.float32)
    total, total_squares, share = np.empty(size, np.float32), np.empty(size, np.float32), np.empty(width, np.float32)
    for number in range(rows.shape[0]):
        row, pixels = first + number + most, rows[number]
        _copy(sums, line, values, row * line)
        _copy(counts, columns, known, row * columns)
        for place in range(line):
            squares[place] = sums[place] * sums[place]
        for pixel in range(width):
            for channel in range(channels):
                pixels[pixel, channel] = sums[edge + pixel * channels + channel]
        reached = 0
        for level in range(halves.size):
            half = halves[level]
            for distance in range(reached + 1, half + 1):
                above, below = row - distance, row + distance
                _add(sums, line, values, above * line, below * line)
                _add_squares(squares, line, values, above * line, below * line)
                _add(counts, columns, known, above * columns, below * columns)
            reached = half
            _copy(total, size, sums, edge)
            _copy(total_squares, size, squares, edge)
            _copy(share, width, counts, most)
            for distance in range(1, half + 1):
                left, right = edge - distance * channels, edge + distance * channels
                _add(total, size, sums, left, right)
                _add(total_squares, size, squares, left, right)
                _add(share, width, counts, most - distance, most + distance)
            _put(pixels, total, total_squares, share, (1 + 2 * level) * channels, channels, least_variance)
