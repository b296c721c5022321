"""Areas of classes in zones: polygons of any coordinate reference system, which may overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyogrio
import pyogrio.raw
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import ProjError
from rasterio.features import geometry_mask
from shapely import STRtree

from core.errors import LabelError
from core.labels.reading import FILE_ERRORS, check_layer, layer_name
from core.mapping.class_raster import ClassRaster
from core.mapping.patches import Progress, strips
from core.scenes.grid import Bounds, Grid, same_crs, transformer_between

_PARTS_OF_A_SIDE = 200
"""A straight side in one system is bent in another: so many points along a zone follow it to a small part of a pixel."""


@dataclass(frozen=True, eq=False)
class Zones:
    """Polygons that areas are asked for.

    Attributes:
        identities: (Z,) values of the field that names them.
        geometries: (Z,) as the file has them; None where missing.
        crs: of the geometries.
        projected: (Z,) valid polygons in the map's system; empty where there is nothing to measure.
        repaired: (Z,) bool, those that cross themselves.
    """

    identities: NDArray[Any]
    geometries: NDArray[Any]
    crs: str
    projected: NDArray[Any]
    repaired: NDArray[np.bool_]


def read_zones(path: str, layer: str | None, id_field: str, grid: Grid) -> Zones:
    """Reads the zones of a vector file.

    Raises:
        LabelError: the file, the layer, the field or the coordinate reference system is missing, or there is no polygon.
    """
    try:
        name = layer_name(path, layer, id_field)
        info = pyogrio.read_info(path, layer=name)
        check_layer(path, name, id_field, info)
        _, _, shapes, columns = pyogrio.raw.read(path, layer=name, columns=[id_field], force_2d=True)
    except FILE_ERRORS as error:
        raise LabelError(
            f"The zones '{path}' cannot be read: {str(error).split('; It might help')[0].rstrip('.')}.",
            "Give a vector file with polygons.",
        ) from None
    geometries = shapely.from_wkb(shapes, on_invalid="ignore")
    if not (shapely.get_dimensions(geometries) == 2).any():
        raise LabelError(f"The zones '{path}' hold no polygon.", "Give a layer of polygons.")
    repaired = (shapely.get_dimensions(geometries) == 2) & ~shapely.is_valid(geometries)
    projected = _projected(path, _made_valid(geometries), info["crs"], grid.crs)
    return Zones(columns[0], geometries, info["crs"], projected, repaired)


def _made_valid(shapes: NDArray[Any]) -> NDArray[Any]:
    """Before anything else: to densify a polygon that crosses itself loses parts of it."""
    return np.asarray(shapely.make_valid(shapes, method="structure", keep_collapsed=False), dtype=object)


def _projected(path: str, geometries: NDArray[Any], source_crs: str, target_crs: str) -> NDArray[Any]:
    shapes = geometries.copy()
    if not same_crs(source_crs, target_crs):
        try:
            transformer = transformer_between(source_crs, target_crs)
        except ProjError as error:
            raise LabelError(
                f"The coordinate reference system of '{path}' is not usable: {error}.", "Assign the layer another one."
            ) from None
        for index in np.flatnonzero(shapely.get_dimensions(shapes) == 2):
            left, bottom, right, top = shapely.bounds(shapes[index])
            shapes[index] = shapely.segmentize(shapes[index], max(right - left, top - bottom) / _PARTS_OF_A_SIDE)
        shapes = np.asarray(shapely.transform(shapes, transformer.transform, interleaved=False), dtype=object)
    usable = (shapely.get_dimensions(shapes) == 2) & np.isfinite(shapely.bounds(shapes)).all(axis=1)
    shapes[~usable] = shapely.Polygon()
    return _made_valid(shapes)


def zone_areas(raster: ClassRaster, zones: Zones, progress: Progress) -> NDArray[np.float64]:
    """Area of each code in each zone: of the pixels whose centres lie in it, each as large as it is on the ellipsoid.

    Args:
        raster: the map.
        zones: in the map's system.
        progress: called after each strip.

    Returns:
        (Z, 256) hectares; code 0 is what of the zone lies on the map and was not mapped.
    """
    grid = raster.grid
    hectares = np.zeros((len(zones.projected), 256))
    tree = STRtree(zones.projected)
    row_areas = grid.row_pixel_areas_m2() / 10_000
    for window in strips(grid):
        strip = grid.crop(window)
        near = np.sort(tree.query(shapely.box(*strip.bounds)))
        codes = raster.read(window) if len(near) else np.zeros(window.shape, np.uint8)
        for zone in near:
            # Only the part beside the strip is burnt, or a long border would be gone through once a strip.
            frame = _around(strip.bounds, grid)
            part = shapely.clip_by_rect(zones.projected[zone], *frame)
            if shapely.is_empty(part):
                continue
            columns = strip.window_of(Bounds(*shapely.bounds(part))).intersection(strip.window)
            if columns.is_empty:
                continue
            mask = geometry_mask([part], columns.shape, strip.crop(columns).transform, invert=True)
            rows, across = columns.slices_within(strip.window)
            areas = np.broadcast_to(row_areas[window.row : window.stop_row][rows, None], mask.shape)
            hectares[zone] += np.bincount(codes[rows, across][mask], areas[mask], minlength=256)
        progress(window.stop_row / grid.height, "Measuring zones")
    return hectares


def _around(bounds: Bounds, grid: Grid) -> Bounds:
    """Bounds with a pixel more on each side: what a clip does to a border must not reach a pixel's centre."""
    return Bounds(
        bounds.left - grid.pixel_width,
        bounds.bottom - grid.pixel_height,
        bounds.right + grid.pixel_width,
        bounds.top + grid.pixel_height,
    )


def outside(zones: Zones, grid: Grid) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(Z,) bool, which zones do not touch the map at all, and which lie on it in part."""
    extent = shapely.box(*grid.bounds)
    apart = ~shapely.intersects(extent, zones.projected)
    return apart, ~apart & ~shapely.covers(extent, zones.projected)
