"""Which part of a scene is mapped: an extent, and polygons."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyogrio
import pyogrio.errors
import shapely
from numpy.typing import NDArray
from rasterio.features import geometry_mask
from shapely import STRtree

from core.errors import GridError, LabelError
from core.scenes.grid import Bounds, Grid, Window, project_bounds


def extent_window(grid: Grid, bounds: Bounds, crs: str) -> Window:
    """The pixels of a grid that an extent touches.

    Raises:
        GridError: the extent does not overlap the grid.
    """
    try:
        window = grid.window_of(project_bounds(bounds, crs, grid.crs)).intersection(grid.window)
    except ValueError:
        window = Window(0, 0, 0, 0)
    if window.is_empty:
        raise GridError(
            f"The extent {tuple(round(value, 6) for value in bounds)} of {crs} does not overlap the scene, which covers "
            f"{tuple(round(value, 6) for value in grid.bounds)} of {grid.crs}.",
            "Choose an extent inside the scene.",
        )
    return window


class PolygonMask:
    """The pixels whose centres lie in the polygons of a vector file.

    Args:
        path: of the file; its first layer counts.
        grid: of the scene.

    Raises:
        LabelError: the file cannot be read, has no coordinate reference system or no polygon.
        GridError: no polygon overlaps the grid.
    """

    def __init__(self, path: Path, grid: Grid) -> None:
        self._grid = grid
        try:
            frame = pyogrio.read_dataframe(path, columns=[])
        except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
            raise LabelError(f"The mask '{path}' cannot be read: {error}.", "Give a vector file with polygons.") from None
        if getattr(frame, "crs", None) is None:
            raise LabelError(f"The mask '{path}' has no coordinate reference system.", "Set the layer's system.")
        shapes = shapely.make_valid(np.asarray(frame.geometry.to_crs(grid.crs)))
        shapes = shapes[~shapely.is_missing(shapes) & (shapely.get_dimensions(shapes) == 2)]
        if not len(shapes):
            raise LabelError(f"The mask '{path}' holds no polygon.", "Give a polygon layer.")
        self._shapes = shapes
        self._tree = STRtree(shapes)
        if not len(self._tree.query(shapely.box(*grid.bounds))):
            raise GridError(f"No polygon of the mask '{path}' overlaps the scene.", "Choose a mask inside the scene.")

    @property
    def digest(self) -> str:
        """Of the polygons: a copy of the file has the same."""
        return hashlib.sha256(b"".join(shapely.to_wkb(self._shapes))).hexdigest()

    def __call__(self, window: Window) -> NDArray[np.bool_]:
        """(rows, columns) bool, whether a pixel of the window is inside a polygon."""
        target = self._grid.crop(window)
        near = self._shapes[np.sort(self._tree.query(shapely.box(*target.bounds)))]
        if not len(near):
            return np.zeros(window.shape, bool)
        mask: NDArray[np.bool_] = geometry_mask(near, window.shape, target.transform, invert=True)
        return mask
