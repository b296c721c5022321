"""Random fields that are functions of place.

Every value depends on the seed and on the coordinates alone, never on what was computed before, so a field computed
window by window equals the field computed in one piece. Coordinates are metres, x to the east and y to the south.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
"""Fields are float32; coordinates are float64, since 200 km in 24 bits leave no centimetres."""
HashArray = NDArray[np.uint64]

_SPLINE_SPREAD = math.sqrt(1 / 12) * 151 / 315
"""Standard deviation of a cubic B-spline surface over uniform random knots: the spread of the knots, times the mean
sum of squared basis values (151/315) once for each axis under the root."""


def hashed(key: int, *coordinates: NDArray[np.int64] | HashArray) -> HashArray:
    """64 random bits for each tuple of whole numbers (the finaliser of SplitMix64, Steele et al. 2014).

    Args:
        key: which field this is; other keys give independent bits.
        coordinates: whole numbers, arrays that broadcast.
    """
    with np.errstate(over="ignore"):
        bits = np.asarray(np.uint64((key * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) % 2**64))
        for coordinate in coordinates:
            bits = bits ^ coordinate.astype(np.uint64)
            bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            bits = (bits ^ (bits >> np.uint64(31))) + np.uint64(0x9E3779B97F4A7C15)
    return bits


def unit(bits: HashArray, part: int = 0) -> FloatArray:
    """Numbers in [0, 1) from 16 of the 64 bits; ``part`` 0 to 3 are independent of each other."""
    return ((bits >> np.uint64(16 * part)) & np.uint64(0xFFFF)).astype(np.float32) / np.float32(65536)


def _spline_weights(positions: FloatArray, wavelength: float) -> tuple[FloatArray, int]:
    """Cubic B-spline weights of knots ``wavelength`` apart.

    Returns:
        (n_positions, n_knots) weights and the number of the first knot.
    """
    cell = np.floor(positions / wavelength).astype(np.int64)
    t = positions / wavelength - cell
    first = int(cell.min()) - 1
    weights = np.zeros((len(positions), int(cell.max()) + 3 - first), dtype=np.float32)
    basis = (
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    )
    index = np.arange(len(positions))
    for offset, values in enumerate(basis):
        weights[index, cell - 1 + offset - first] = values
    return weights, first


def smooth_noise(xs: FloatArray, ys: FloatArray, wavelength: float, key: int) -> FloatArray:
    """A smooth random surface of zero mean and unit standard deviation over the grid of ``ys`` and ``xs``.

    Args:
        xs: (width,) coordinates of the columns.
        ys: (height,) coordinates of the rows.
        wavelength: distance of the random knots in metres.
        key: which field this is.

    Returns:
        (height, width) float32.
    """
    x_weights, first_x = _spline_weights(xs, wavelength)
    y_weights, first_y = _spline_weights(ys, wavelength)
    columns = np.arange(first_x, first_x + x_weights.shape[1])
    rows = np.arange(first_y, first_y + y_weights.shape[1])
    knots = unit(hashed(key, rows[:, None], columns[None, :])) - np.float32(0.5)
    surface = _banded_product(_banded_product(knots, y_weights).T, x_weights).T
    return np.ascontiguousarray(surface) / np.float32(_SPLINE_SPREAD)


def _banded_product(knots: FloatArray, weights: FloatArray) -> FloatArray:
    """``weights @ knots`` where each row of ``weights`` has four values next to each other.

    The sum is spelled out in one order: a matrix product of the linear algebra library may order it by the size of the
    matrices, and a field must not depend on the window in its last bit.
    """
    first = np.argmax(weights != 0, axis=1)
    first = np.minimum(first, weights.shape[1] - 4)
    rows = np.arange(len(weights))
    result: FloatArray = weights[rows, first][:, None] * knots[first]
    for offset in (1, 2, 3):
        result += weights[rows, first + offset][:, None] * knots[first + offset]
    return result


def fractal_noise(
    xs: FloatArray,
    ys: FloatArray,
    wavelength: float,
    octaves: int,
    key: int,
    persistence: float = 0.5,
) -> FloatArray:
    """A sum of smooth surfaces, each of half the wavelength and ``persistence`` times the height of the one before.

    Returns:
        (height, width) float32 of zero mean and unit standard deviation.
    """
    total = smooth_noise(xs, ys, wavelength, key * 64)
    for octave in range(1, octaves):
        total += np.float32(persistence**octave) * smooth_noise(xs, ys, wavelength / 2**octave, key * 64 + octave)
    return total / np.float32(math.sqrt(sum(persistence ** (2 * octave) for octave in range(octaves))))


@dataclass(frozen=True)
class Parcels:
    """Land cut into rows of rectangles, with another direction in every district.

    Attributes:
        bits: (H, W) uint64, the same within a parcel.
        district: (H, W) uint64, the same within a district.
        u, v: (H, W) metres along and across the district's direction.
        edge: (H, W) metres to the parcel's nearest edge across and along the rows, district borders left out.
    """

    bits: HashArray
    district: HashArray
    u: FloatArray
    v: FloatArray
    edge: FloatArray


def parcels(xs: FloatArray, ys: FloatArray, district_size: float, parcel_size: float, key: int) -> Parcels:
    """Field parcels as they are laid out on the ground: districts of one direction, each cut into rows and fields.

    Args:
        xs, ys: (width,) and (height,) coordinates.
        district_size: mean distance of two districts' centres in metres.
        parcel_size: mean side of a parcel in metres.
        key: which field this is.
    """
    x, y, district = _districts(xs, ys, district_size, key)
    angle = unit(district, 0) * np.float32(math.pi)
    cosine, sine = np.cos(angle), np.sin(angle)
    u, v = cosine * x + sine * y, cosine * y - sine * x
    row_width = np.float32(parcel_size) * (np.float32(0.55) + np.float32(0.7) * unit(district, 1))
    row = np.floor(v / row_width)
    row_bits = hashed(key + 1, district, row.astype(np.int64))
    length = np.float32(parcel_size) * (np.float32(0.9) + np.float32(1.6) * unit(row_bits, 1))
    shifted = u + length * unit(row_bits, 0)
    position = np.floor(shifted / length)
    across, along = v - row * row_width, shifted - position * length
    edge = np.minimum(np.minimum(across, row_width - across), np.minimum(along, length - along))
    return Parcels(hashed(key + 2, row_bits, position.astype(np.int64)), district, u, v, edge)


def _districts(xs: FloatArray, ys: FloatArray, size: float, key: int) -> tuple[FloatArray, FloatArray, HashArray]:
    """Voronoi cells of one random point in every square of ``size`` metres.

    Returns:
        x and y relative to the cell's own point, and the cell's bits; each (H, W).
    """
    x, y = np.broadcast_to(xs[None, :], (len(ys), len(xs))), np.broadcast_to(ys[:, None], (len(ys), len(xs)))
    column, row = np.floor(xs / size).astype(np.int64)[None, :], np.floor(ys / size).astype(np.int64)[:, None]
    best = np.full(x.shape, np.inf, dtype=np.float32)
    best_x, best_y = np.zeros_like(best), np.zeros_like(best)
    best_bits = np.zeros(x.shape, dtype=np.uint64)
    for row_step in (-1, 0, 1):
        for column_step in (-1, 0, 1):
            # One hash a square, spread over its pixels by plain indexing.
            rows, row_index = np.unique(row.ravel() + row_step, return_inverse=True)
            columns, column_index = np.unique(column.ravel() + column_step, return_inverse=True)
            bits = hashed(key, rows[:, None], columns[None, :])
            center_x = (columns[None, :] + unit(bits, 2).astype(np.float64)) * size
            center_y = (rows[:, None] + unit(bits, 3).astype(np.float64)) * size
            spread = np.ix_(row_index, column_index)
            dx = (x - center_x[spread]).astype(np.float32)
            dy = (y - center_y[spread]).astype(np.float32)
            distance = dx * dx + dy * dy
            nearer = distance < best
            best[nearer] = distance[nearer]
            best_x[nearer] = dx[nearer]
            best_y[nearer] = dy[nearer]
            best_bits[nearer] = bits[spread][nearer]
    return best_x, best_y, best_bits
