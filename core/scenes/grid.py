"""Grids and windows: pure arithmetic, no input or output.

Coordinates. A grid is a north-up raster of square or rectangular pixels: column 0, row 0 is the upper left pixel, columns
grow to the east and rows to the south. A window is given in whole pixels of its grid and may lie partly or wholly outside
it. Ground coordinates are those of the grid's coordinate reference system, in its axis units, x before y.

``Grid`` describes what the project computes on. A source raster may be south-up or rotated; it is described by its affine
transform alone and only ever warped onto a ``Grid``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from affine import Affine
from pyproj import CRS, Transformer

_PIXEL_TOLERANCE = 1e-3
"""Two pixel edges closer than this part of a pixel are the same edge: rounding in files is about 1e-6."""


_SEMI_MAJOR_M = 6_378_137.0
_ECCENTRICITY_SQUARED = 0.0066943799901413165
"""Of the WGS 84 ellipsoid."""


class Bounds(NamedTuple):
    """A rectangle on the ground, in the units of a coordinate reference system."""

    left: float
    bottom: float
    right: float
    top: float

    @property
    def area(self) -> float:
        return (self.right - self.left) * (self.top - self.bottom)

    def intersection(self, other: Bounds) -> Bounds | None:
        """The common rectangle, or None where there is none with an area."""
        left, bottom = max(self.left, other.left), max(self.bottom, other.bottom)
        right, top = min(self.right, other.right), min(self.top, other.top)
        return Bounds(left, bottom, right, top) if left < right and bottom < top else None

    def union(self, other: Bounds) -> Bounds:
        return Bounds(
            min(self.left, other.left),
            min(self.bottom, other.bottom),
            max(self.right, other.right),
            max(self.top, other.top),
        )


@dataclass(frozen=True)
class Window:
    """A rectangle of whole pixels: first column and row, width and height."""

    column: int
    row: int
    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width < 0 or self.height < 0:
            raise ValueError(f"A window cannot have a negative size: {self}.")

    @property
    def stop_column(self) -> int:
        return self.column + self.width

    @property
    def stop_row(self) -> int:
        return self.row + self.height

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width), as numpy has it."""
        return self.height, self.width

    @property
    def is_empty(self) -> bool:
        return self.width == 0 or self.height == 0

    def intersection(self, other: Window) -> Window:
        """The common part; empty where there is none."""
        column, row = max(self.column, other.column), max(self.row, other.row)
        width = max(0, min(self.stop_column, other.stop_column) - column)
        height = max(0, min(self.stop_row, other.stop_row) - row)
        return Window(column, row, width, height)

    def slices_within(self, outer: Window) -> tuple[slice, slice]:
        """Row and column slices of this window in an array that covers ``outer``.

        Raises:
            ValueError: this window is not inside ``outer``.
        """
        if self.intersection(outer) != self:
            raise ValueError(f"{self} does not lie inside {outer}.")
        row, column = self.row - outer.row, self.column - outer.column
        return slice(row, row + self.height), slice(column, column + self.width)

    def padded(self, pixels: int) -> Window:
        return Window(self.column - pixels, self.row - pixels, self.width + 2 * pixels, self.height + 2 * pixels)

    def translated(self, columns: int, rows: int) -> Window:
        return Window(self.column + columns, self.row + rows, self.width, self.height)

    def pieces(self, side: int) -> Iterator[Window]:
        """Squares that cover the window, row by row; the last ones end where it ends."""
        for row in range(self.row, self.stop_row, side):
            for column in range(self.column, self.stop_column, side):
                yield self.intersection(Window(column, row, side, side))


@lru_cache(maxsize=64)
def parsed_crs(crs: str) -> CRS:
    """The coordinate reference system of an authority code or WKT, parsed once."""
    return CRS.from_user_input(crs)


@lru_cache(maxsize=256)
def same_crs(first: str, second: str) -> bool:
    """Whether two names or WKT texts mean the same system."""
    return first == second or parsed_crs(first).equals(parsed_crs(second), ignore_axis_order=True)


@lru_cache(maxsize=64)
def transformer_between(source_crs: str, target_crs: str) -> Transformer:
    """The transformation of coordinates, x before y in both systems, made once: PROJ takes milliseconds to find it."""
    return Transformer.from_crs(parsed_crs(source_crs), parsed_crs(target_crs), always_xy=True)


@dataclass(frozen=True)
class Grid:
    """A north-up raster: where it lies, how fine it is, how large.

    Attributes:
        crs: authority code (``EPSG:32633``) or WKT.
        left, top: ground coordinates of the upper left corner of pixel (0, 0).
        pixel_width, pixel_height: positive sizes in the units of the system.
        width, height: in pixels.
    """

    crs: str
    left: float
    top: float
    pixel_width: float
    pixel_height: float
    width: int
    height: int

    def __post_init__(self) -> None:
        if not (self.pixel_width > 0 and self.pixel_height > 0):
            raise ValueError(f"Pixel sizes are positive; got {self.pixel_width} x {self.pixel_height}.")
        if self.width < 1 or self.height < 1:
            raise ValueError(f"A grid has at least one pixel; got {self.width} x {self.height}.")

    @property
    def transform(self) -> Affine:
        """Pixel to ground."""
        return Affine(self.pixel_width, 0.0, self.left, 0.0, -self.pixel_height, self.top)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width), as numpy has it."""
        return self.height, self.width

    @property
    def window(self) -> Window:
        """The whole grid."""
        return Window(0, 0, self.width, self.height)

    @property
    def bounds(self) -> Bounds:
        return self.bounds_of(self.window)

    def bounds_of(self, window: Window) -> Bounds:
        return Bounds(
            self.left + window.column * self.pixel_width,
            self.top - window.stop_row * self.pixel_height,
            self.left + window.stop_column * self.pixel_width,
            self.top - window.row * self.pixel_height,
        )

    def crop(self, window: Window) -> Grid:
        """The grid of a window, which may reach beyond this grid."""
        bounds = self.bounds_of(window)
        return Grid(self.crs, bounds.left, bounds.top, self.pixel_width, self.pixel_height, window.width, window.height)

    def window_of(self, bounds: Bounds) -> Window:
        """The smallest window of whole pixels that covers ``bounds``; it may reach beyond the grid."""
        first_column = math.floor((bounds.left - self.left) / self.pixel_width + _PIXEL_TOLERANCE)
        stop_column = math.ceil((bounds.right - self.left) / self.pixel_width - _PIXEL_TOLERANCE)
        first_row = math.floor((self.top - bounds.top) / self.pixel_height + _PIXEL_TOLERANCE)
        stop_row = math.ceil((self.top - bounds.bottom) / self.pixel_height - _PIXEL_TOLERANCE)
        return Window(first_column, first_row, max(0, stop_column - first_column), max(0, stop_row - first_row))

    def anchor(self) -> tuple[int, int]:
        """Absolute column and row of pixel (0, 0), counted from the system's origin, rows to the south.

        Two grids that differ by whole pixels have anchors that differ by those whole pixels, so a lattice laid on
        absolute columns and rows is the same for a scene and for any crop of it.
        """
        column = math.floor(self.left / self.pixel_width + _PIXEL_TOLERANCE)
        row = math.floor(-self.top / self.pixel_height + _PIXEL_TOLERANCE)
        return column, row

    @property
    def is_geographic(self) -> bool:
        """Whether coordinates are in degrees."""
        return bool(parsed_crs(self.crs).is_geographic)

    def center(self) -> tuple[float, float]:
        """Longitude and latitude of the grid's middle, in degrees (WGS 84)."""
        x = self.left + self.width * self.pixel_width / 2
        y = self.top - self.height * self.pixel_height / 2
        longitude, latitude = transformer_between(self.crs, "EPSG:4326").transform(x, y)
        return float(longitude), float(latitude)

    def resolution_m(self) -> float:
        """Side of a square of a pixel's area, in metres on the ellipsoid, at the middle of the grid."""
        return math.sqrt(float(self.row_pixel_areas_m2(np.array([self.height // 2]))[0]))

    def row_pixel_areas_m2(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Area of one pixel of each row, in square metres, measured on the ellipsoid.

        A degree of longitude shrinks towards the poles and a projection stretches, so a pixel's area is asked of the
        ellipsoid and not of the pixel size. Along a row the middle column stands for all. A pixel is taken as a
        parallelogram, which is good to 1e-8 at 1 km and to 1e-4 at a degree.

        Args:
            rows: row numbers; all rows by default.

        Returns:
            (n_rows,) float64.
        """
        rows = np.arange(self.height) if rows is None else np.asarray(rows)
        x = np.full(len(rows), self.left + self.width * self.pixel_width / 2)
        y = self.top - (rows + 0.5) * self.pixel_height
        half_x, half_y = self.pixel_width / 2, self.pixel_height / 2
        # The middles of a pixel's right, left, upper and lower side.
        xs, ys = np.stack([x + half_x, x - half_x, x, x]), np.stack([y, y, y + half_y, y - half_y])
        longitudes, latitudes = np.radians(transformer_between(self.crs, "EPSG:4326").transform(xs, ys))
        sine = np.sin(latitudes.mean(axis=0))
        bend = 1 - _ECCENTRICITY_SQUARED * sine**2
        # Metres along the parallel and the meridian for a radian (radii of curvature; Snyder 1987, eq. 4-18 to 4-20).
        along_parallel = _SEMI_MAJOR_M * np.cos(latitudes.mean(axis=0)) / np.sqrt(bend)
        along_meridian = _SEMI_MAJOR_M * (1 - _ECCENTRICITY_SQUARED) / bend**1.5
        east = along_parallel * ((longitudes[::2] - longitudes[1::2] + math.pi) % (2 * math.pi) - math.pi)
        north = along_meridian * (latitudes[::2] - latitudes[1::2])
        areas: np.ndarray = np.abs(east[0] * north[1] - east[1] * north[0])
        return areas

    def refined(self, factor: int) -> Grid:
        """The same ground with pixels ``factor`` times smaller."""
        return Grid(
            self.crs,
            self.left,
            self.top,
            self.pixel_width / factor,
            self.pixel_height / factor,
            self.width * factor,
            self.height * factor,
        )


@dataclass(frozen=True)
class Scale:
    """A modality's pixel size as a whole number of times, or parts, of the reference's.

    Attributes:
        finer: pixels of the modality along one side of a reference pixel; 1 unless the modality is finer.
        coarser: reference pixels along one side of a pixel of the modality; 1 unless the modality is coarser.
    """

    finer: int = 1
    coarser: int = 1

    def __post_init__(self) -> None:
        if min(self.finer, self.coarser) < 1 or (self.finer > 1 and self.coarser > 1):
            raise ValueError(f"A scale is a whole factor one way or the other; got {self}.")


FINER_FACTORS = tuple(range(1, 17))
COARSER_FACTORS = (1, 2, 3, 4, 6, 8, 12, 16)
"""Their least common multiple is 48, so one lattice step serves every mixture of resolutions."""


def nearest_scale(reference_m: float, own_m: float) -> Scale:
    """The whole factor between two resolutions nearest in ratio, within ``FINER_FACTORS`` and ``COARSER_FACTORS``."""
    ratio = reference_m / own_m
    if ratio >= 1:
        return Scale(finer=min(FINER_FACTORS, key=lambda factor: abs(math.log(ratio / factor))))
    return Scale(coarser=min(COARSER_FACTORS, key=lambda factor: abs(math.log(ratio * factor))))


def on_scale(grid: Grid, window: Window, scale: Scale) -> Grid:
    """The grid of a modality over a window of the reference grid.

    Coarser pixels are counted from the reference system's origin, not from the grid's corner, so that a crop of a scene
    has the same coarse pixels as the scene.

    Args:
        grid: the reference grid.
        window: whose absolute column, row, width and height are multiples of ``scale.coarser``.
        scale: of the modality.

    Raises:
        ValueError: the window cuts through coarse pixels.
    """
    if scale.coarser == 1:
        return grid.crop(window).refined(scale.finer)
    column, row = grid.anchor()
    if any(value % scale.coarser for value in (column + window.column, row + window.row, window.width, window.height)):
        raise ValueError(f"{window} is not aligned to pixels {scale.coarser} times coarser.")
    fine = grid.crop(window)
    return Grid(
        fine.crs,
        fine.left,
        fine.top,
        fine.pixel_width * scale.coarser,
        fine.pixel_height * scale.coarser,
        window.width // scale.coarser,
        window.height // scale.coarser,
    )


def aligned(grid: Grid, window: Window, step: int) -> Window:
    """The smallest window around ``window`` whose absolute edges are multiples of ``step`` pixels."""
    column, row = grid.anchor()
    first_column = (column + window.column) // step * step - column
    first_row = (row + window.row) // step * step - row
    stop_column = -((-(column + window.stop_column)) // step) * step - column
    stop_row = -((-(row + window.stop_row)) // step) * step - row
    return Window(first_column, first_row, stop_column - first_column, stop_row - first_row)


def lattice(grid: Grid, window: Window, tile: int, stride: int) -> list[list[Window]]:
    """Tiles that cover ``window``, laid on the absolute lattice of ``stride`` pixels, as rows of tiles.

    Tile ``i`` starts at absolute pixel ``i * stride`` and is ``tile`` long. All tiles that touch the window are
    returned, so a pixel's set of tiles does not depend on the window asked for.

    Raises:
        ValueError: a stride below 1 or above the tile.
    """
    if not 1 <= stride <= tile:
        raise ValueError(f"The stride lies between 1 and the tile's {tile} pixels; got {stride}.")
    column, row = grid.anchor()

    def starts(first: int, length: int) -> Iterator[int]:
        index = -((tile - 1 - first) // stride)  # the first tile whose last pixel is at or after `first`
        while index * stride < first + length:
            yield index * stride - first
            index += 1

    return [
        [Window(window.column + x, window.row + y, tile, tile) for x in starts(column + window.column, window.width)]
        for y in starts(row + window.row, window.height)
    ]


def first_line(edge: float, own_size: float, size: float, phase_of: float) -> float:
    """The last line of a lattice at or before ``edge``.

    The lattice's lines lie ``size`` apart, and one of them coincides with the first line after the origin of the raster
    lattice that has a line at ``phase_of`` and lines ``own_size`` apart. So a raster and its crops by whole pixels give
    the same lattice, and pixels of a multiple of its size hold its pixels whole.
    """
    phase = phase_of - math.floor(phase_of / own_size + _PIXEL_TOLERANCE) * own_size
    return phase + math.floor((edge - phase) / size + _PIXEL_TOLERANCE) * size


def project_bounds(bounds: Bounds, source_crs: str, target_crs: str) -> Bounds:
    """The rectangle that holds ``bounds`` in another system, following curved edges.

    In degrees, one across the antimeridian goes all around the Earth.

    Raises:
        ValueError: the rectangle has no image in the other system.
    """
    if same_crs(source_crs, target_crs):
        return bounds
    projected = Bounds(*transformer_between(source_crs, target_crs).transform_bounds(*bounds, densify_pts=21))
    if not all(math.isfinite(value) for value in projected):
        raise ValueError(f"{bounds} of {source_crs} cannot be expressed in {target_crs}.")
    if projected.left > projected.right:
        return Bounds(-180.0, projected.bottom, 180.0, projected.top)
    return projected


def source_bounds(transform: Affine, width: int, height: int) -> Bounds:
    """The rectangle around a raster of any orientation, in its own system."""
    corners = [transform @ corner for corner in ((0, 0), (width, 0), (0, height), (width, height))]
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    return Bounds(min(xs), min(ys), max(xs), max(ys))


def source_pixel_size(transform: Affine) -> tuple[float, float]:
    """Length of a pixel's two sides in the units of the system, for a raster of any orientation."""
    return math.hypot(transform.a, transform.d), math.hypot(transform.b, transform.e)
