"""Polygons as a person would draw them on the screen, and an independent sample of points."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from core.scenes.simulation.landscape import CLASSES

_REACH = 32
"""Half the side, in pixels, of the neighbourhood that a polygon is placed in."""
_LARGEST_RADIUS = 12.0
_SMALLEST_RADIUS = 2.2
_PURITY = 0.93
"""Least part of a polygon that shows its class: what is below, somebody would have seen and drawn anew."""
_GAP_PIXELS = 3.0
_CANDIDATES = 4000
_BATCH = 200_000

Codes = NDArray[np.uint8]


def draw_polygons(truth: Codes, polygons_per_class: int, generator: np.random.Generator) -> list[tuple[int, shapely.Polygon]]:
    """Irregular polygons, 5 to 25 pixels across, that mostly show one class.

    Args:
        truth: (H, W) class codes.
        polygons_per_class: as many as fit, and no more than this.
        generator: of all that is random.

    Returns:
        Class code and polygon in pixel coordinates (x to the east, y to the south), class by class.
    """
    drawn: list[tuple[int, shapely.Polygon]] = []
    counts = np.bincount(truth.ravel(), minlength=256)
    # The rarest first: in a small scene the others would take its room.
    for code in sorted((entry.code for entry in CLASSES), key=lambda code: (counts[code], code)):
        mine = 0
        for row, column in _pixels_of(truth, code, _CANDIDATES, generator):
            polygon = _draw_around(truth, row, column, generator)
            if polygon is None or any(polygon.distance(other) < _GAP_PIXELS for _, other in drawn):
                continue
            drawn.append((code, polygon))
            mine += 1
            if mine == polygons_per_class:
                break
    return sorted(drawn, key=lambda entry: entry[0])


def sample_points(
    truth: Codes, points_per_class: int, polygons: list[shapely.Polygon], generator: np.random.Generator
) -> list[tuple[int, int, int]]:
    """A stratified random sample: pixels of every class, drawn independently of the polygons and outside them.

    Returns:
        Class code, row and column, class by class.
    """
    tree = shapely.STRtree(polygons)
    points = []
    for entry in CLASSES:
        mine = 0
        for row, column in _pixels_of(truth, entry.code, 4 * points_per_class, generator):
            if len(tree.query(shapely.Point(column + 0.5, row + 0.5), predicate="intersects")):
                continue
            points.append((entry.code, row, column))
            mine += 1
            if mine == points_per_class:
                break
    return points


def _pixels_of(truth: Codes, code: int, count: int, generator: np.random.Generator) -> Iterator[tuple[int, int]]:
    """Up to ``count`` different random pixels of a class, as row and column."""
    found: dict[int, None] = {}
    # A class of the scene has a few percent of it, so a few batches find enough even in a very large scene.
    for _ in range(20):
        drawn = generator.integers(0, truth.size, min(_BATCH, 4 * truth.size))
        found.update(dict.fromkeys(drawn[truth.ravel()[drawn] == code].tolist()))
        if len(found) >= count:
            break
    for flat in list(found)[:count]:
        yield divmod(flat, truth.shape[1])


def _draw_around(truth: Codes, row: int, column: int, generator: np.random.Generator) -> shapely.Polygon | None:
    """A polygon around a pixel, or None where the class is too narrow there."""
    first_row, first_column = max(0, row - _REACH), max(0, column - _REACH)
    near = truth[first_row : row + _REACH + 1, first_column : column + _REACH + 1]
    same = near == truth[row, column]
    # Outside the scene nobody draws.
    room = float(distance_transform_edt(np.pad(same, 1))[row - first_row + 1, column - first_column + 1])
    if room < _SMALLEST_RADIUS * 0.7:
        return None
    radius = min(generator.uniform(_SMALLEST_RADIUS, _LARGEST_RADIUS), max(room * 1.35, _SMALLEST_RADIUS))
    corners = int(generator.integers(6, 13))
    angles = (np.arange(corners) + generator.uniform(-0.3, 0.3, corners)) * 2 * math.pi / corners
    lengths = generator.uniform(0.72, 1.18, corners)
    stretch, turn = generator.uniform(0.65, 1.0), generator.uniform(0, math.pi)
    along, across = lengths * np.cos(angles), lengths * np.sin(angles) * stretch
    shape = np.stack(
        [along * math.cos(turn) - across * math.sin(turn), along * math.sin(turn) + across * math.cos(turn)], axis=1
    )
    center = np.array([column + 0.5, row + 0.5]) + generator.normal(0, 0.4, 2)
    while radius >= _SMALLEST_RADIUS * 0.8:
        polygon = shapely.Polygon(center + radius * shape)
        if polygon.is_valid and _purity(polygon, same, first_row, first_column) >= _PURITY:
            return polygon
        radius *= 0.85
    return None


def _purity(polygon: shapely.Polygon, same: NDArray[np.bool_], first_row: int, first_column: int) -> float:
    """Part of the pixels with their centre in the polygon that are of the class; outside the scene none is."""
    left, top, right, bottom = (math.floor(value) for value in polygon.bounds)
    xs, ys = np.meshgrid(np.arange(left, right + 1), np.arange(top, bottom + 1))
    inside = shapely.contains_xy(polygon, xs + 0.5, ys + 0.5)
    if inside.sum() < 8:
        return 0.0
    rows, columns = ys[inside] - first_row, xs[inside] - first_column
    seen = (rows >= 0) & (columns >= 0) & (rows < same.shape[0]) & (columns < same.shape[1])
    return float(same[rows[seen], columns[seen]].sum() / len(rows))
