"""Polygons and points on a grid's pixels, exactly and independently of the window looked at.

A pixel belongs to a polygon if its centre does (even-odd rule; a centre on an edge belongs to the side of growing
columns and rows). Where an edge crosses a row of centres is computed in the whole grid's pixel coordinates, from the
edge alone, its upper end first. So a window's pixels are the crop of the whole grid's pixels bit by bit, and where two
polygons share an edge each pixel beside it belongs to exactly one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import shapely

from core.scenes.grid import Grid, Window

_FARTHEST = 2.0**31
"""Pixel coordinates beyond this are outside every grid; clipping them keeps them within int64 when rounded."""


class Drawn(Protocol):
    """Labels, or any other shapes in the system of a grid."""

    @property
    def geometries(self) -> np.ndarray: ...
    def __hash__(self) -> int: ...


@dataclass(frozen=True, eq=False)
class PixelShapes:
    """The labels of a grid in pixel coordinates, columns growing to the east and rows to the south.

    Attributes:
        edges: (E, 4) float64, column and row of the upper end, row of the lower end, columns per row; horizontal edges,
            which cross no row of centres, left out.
        edge_start: (N + 1,) int64, feature ``i`` has the edges ``edge_start[i]:edge_start[i + 1]``.
        pixels: (P, 2) int64, column and row of the pixels that points fall into, and of the pixel that a polygon
            without any pixel centre gets.
        pixel_start: (N + 1,) int64, as ``edge_start``.
        boxes: (N, 4) int64, first column and row, stop column and row of a rectangle that holds the feature's pixels.
    """

    edges: np.ndarray
    edge_start: np.ndarray
    pixels: np.ndarray
    pixel_start: np.ndarray
    boxes: np.ndarray

    def touching(self, window: Window) -> np.ndarray:
        """(n,) int64, the features that may have pixels in a window, ascending."""
        boxes = self.boxes
        return np.flatnonzero(
            (boxes[:, 0] < window.stop_column)
            & (boxes[:, 2] > window.column)
            & (boxes[:, 1] < window.stop_row)
            & (boxes[:, 3] > window.row)
        )

    def mask(self, feature: int, window: Window) -> tuple[Window, np.ndarray]:
        """The pixels of one feature in a window.

        Returns:
            The part of the window that can hold them, and (height, width) bool of that part.
        """
        first_column, first_row, stop_column, stop_row = (int(value) for value in self.boxes[feature])
        box = Window(first_column, first_row, max(0, stop_column - first_column), max(0, stop_row - first_row))
        part = window.intersection(box)
        if part.is_empty:
            return part, np.zeros(part.shape, bool)
        edges = self.edges[self.edge_start[feature] : self.edge_start[feature + 1]]
        rows, columns = _crossings(edges, part.row, part.stop_row)
        # Every crossing switches the pixels to its right; a pixel switched an odd number of times lies inside.
        columns = np.clip(columns - part.column, 0, part.width)
        places, times = np.unique((rows - part.row) * (part.width + 1) + columns, return_counts=True)
        switches = np.zeros((part.height, part.width + 1), bool)
        switches.flat[places[times % 2 == 1]] = True
        inside = np.logical_xor.accumulate(switches, axis=1)[:, :-1]
        pixels = self.pixels[self.pixel_start[feature] : self.pixel_start[feature + 1]] - (part.column, part.row)
        within = ((pixels >= 0) & (pixels < (part.width, part.height))).all(axis=1)
        inside[pixels[within, 1], pixels[within, 0]] = True
        return part, inside

    def covered(self, window: Window) -> np.ndarray:
        """(height, width) bool, the pixels of a window that any feature has."""
        covered = np.zeros(window.shape, bool)
        for number in self.touching(window).tolist():
            part, inside = self.mask(number, window)
            covered[part.slices_within(window)] |= inside
        return covered


@lru_cache(maxsize=4)  # Training asks for thousands of windows of the same labels; a label set is hashed by identity.
def pixel_shapes(labels: Drawn, grid: Grid) -> PixelShapes:
    """The labels on the pixels of a grid, which is in the labels' system."""
    geometries, count = labels.geometries, len(labels.geometries)
    are_points = np.isin(shapely.get_type_id(geometries), (shapely.GeometryType.POINT, shapely.GeometryType.MULTIPOINT))
    edges, edge_features = _edges(geometries, ~are_points, grid)
    edge_start = np.searchsorted(edge_features, np.arange(count + 1))
    xy, owners = shapely.get_coordinates(geometries[are_points], return_index=True)
    owners = np.flatnonzero(are_points)[owners]
    narrow = np.flatnonzero(~are_points)
    narrow = narrow[~_is_broad(geometries[narrow], grid)]
    covers = [_covers_a_centre(edges[edge_start[index] : edge_start[index + 1]]) for index in narrow]
    lonely = narrow[~np.array(covers, bool)]
    inner = shapely.get_coordinates(shapely.point_on_surface(geometries[lonely]))
    pixels = np.floor(_to_pixels(np.concatenate([xy, inner]), grid)).astype(np.int64)
    pixel_features = np.concatenate([owners, lonely])
    order = np.argsort(pixel_features, kind="stable")
    pixels, pixel_features = pixels[order], pixel_features[order]
    pixel_start = np.searchsorted(pixel_features, np.arange(count + 1))
    return PixelShapes(edges, edge_start, pixels, pixel_start, _boxes(geometries, grid))


def _to_pixels(xy: np.ndarray, grid: Grid) -> np.ndarray:
    columns = (xy[:, 0] - grid.left) / grid.pixel_width
    rows = (grid.top - xy[:, 1]) / grid.pixel_height
    return np.clip(np.stack([columns, rows], axis=1), -_FARTHEST, _FARTHEST)


def _boxes(geometries: np.ndarray, grid: Grid) -> np.ndarray:
    bounds = shapely.bounds(geometries).reshape(-1, 4)
    upper_left = np.floor(_to_pixels(bounds[:, [0, 3]], grid))
    lower_right = np.floor(_to_pixels(bounds[:, [2, 1]], grid)) + 1
    return np.concatenate([upper_left, lower_right], axis=1).astype(np.int64)


def _edges(geometries: np.ndarray, are_polygons: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Edges (E, 4) as in ``PixelShapes`` and the feature of each (E,), ascending."""
    polygons, polygon_features = shapely.get_parts(geometries[are_polygons], return_index=True)
    rings, ring_polygons = shapely.get_rings(polygons, return_index=True)
    xy, point_rings = shapely.get_coordinates(rings, return_index=True)
    points = _to_pixels(xy, grid)
    joined = point_rings[1:] == point_rings[:-1]
    first, second = points[:-1][joined], points[1:][joined]
    owners = np.flatnonzero(are_polygons)[polygon_features[ring_polygons[point_rings[:-1][joined]]]]
    downwards = (first[:, 1] < second[:, 1])[:, None]
    upper, lower = np.where(downwards, first, second), np.where(downwards, second, first)
    crossing = np.ceil(upper[:, 1] - 0.5) < np.ceil(lower[:, 1] - 0.5)
    upper, lower, owners = upper[crossing], lower[crossing], owners[crossing]
    slope = (lower[:, 0] - upper[:, 0]) / (lower[:, 1] - upper[:, 1])
    return np.stack([upper[:, 0], upper[:, 1], lower[:, 1], slope], axis=1), owners


def _crossings(edges: np.ndarray, first_row: int, stop_row: int) -> tuple[np.ndarray, np.ndarray]:
    """Where edges cross the centre lines of rows: the rows, and the first columns whose centres are not left of it."""
    first = np.maximum(np.ceil(edges[:, 1] - 0.5), first_row).astype(np.int64)
    counts = np.maximum(np.minimum(np.ceil(edges[:, 2] - 0.5), stop_row).astype(np.int64) - first, 0)
    chosen = np.repeat(np.arange(len(edges)), counts)
    rows = np.arange(len(chosen)) - np.repeat(np.cumsum(counts) - counts, counts) + first[chosen]
    columns, tops, slopes = edges[chosen, 0], edges[chosen, 1], edges[chosen, 3]
    return rows, np.ceil(columns + (rows + 0.5 - tops) * slopes - 0.5).astype(np.int64)


def _is_broad(polygons: np.ndarray, grid: Grid) -> np.ndarray:
    """Whether polygons are so broad that they cover a pixel centre wherever they lie.

    No point of a polygon is farther from its outline than the radius of its largest inscribed circle, so the area is at
    most that radius times the perimeter; and a circle with a radius of half a pixel's diagonal covers a centre.
    """
    area = shapely.area(polygons) / (grid.pixel_width * grid.pixel_height)
    perimeter = shapely.length(polygons) / min(grid.pixel_width, grid.pixel_height)
    return np.asarray(area > 0.71 * perimeter, bool)


def _covers_a_centre(edges: np.ndarray) -> bool:
    """Whether a polygon of these edges has a pixel centre inside, on the grid or beyond it."""
    if not len(edges):
        return False
    rows, columns = _crossings(edges, int(np.floor(edges[:, 1].min())), int(np.ceil(edges[:, 2].max())))
    columns = columns[np.lexsort((columns, rows))]
    return bool((columns[0::2] < columns[1::2]).any())
