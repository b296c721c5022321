"""A ground truth known everywhere, and rasters of any make that show it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer

from core.scenes.grid import Grid
from core.scenes.raster_file import read_raster_file
from core.scenes.reading import SceneReader
from core.scenes.scene import Scene, SceneRequest, build_scene

BASE = "EPSG:32633"
LEFT, TOP = 500_000.0, 5_700_000.0

Array = NDArray[np.float64]


def smooth(xs: Array, ys: Array) -> Array:
    """A gentle surface over coordinates of ``BASE``: bilinear interpolation of 10 m pixels is good to 0.001."""
    east, north = xs - LEFT, TOP - ys
    return 50 + east / 40 + north / 25 + 2 * np.sin(east / 400) * np.cos(north / 300)


def plane(xs: Array, ys: Array) -> Array:
    """A tilted plane over coordinates of ``BASE``: bilinear interpolation and means of pixels are exact."""
    return 50 + (xs - LEFT) / 40 + (TOP - ys) / 25


def truth(transform: Affine, width: int, height: int, crs: str = BASE, surface: object = smooth) -> Array:
    """(rows, columns) of the surface at the pixel centres of a raster of any orientation and system."""
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    xs, ys = transform @ (columns.ravel(), rows.ravel())
    if crs != BASE:
        xs, ys = Transformer.from_crs(crs, BASE, always_xy=True).transform(xs, ys)
    return surface(np.asarray(xs), np.asarray(ys)).reshape(height, width)


def truth_on(grid: Grid, surface: object = smooth) -> Array:
    return truth(grid.transform, grid.width, grid.height, grid.crs, surface)


def write(
    path: Path,
    values: NDArray[np.generic],
    transform: Affine = Affine(10, 0, LEFT, 0, -10, TOP),  # noqa: B008 - immutable
    crs: str | None = BASE,
    *,
    names: Sequence[str] = (),
    mask: NDArray[np.bool_] | None = None,
    **profile: object,
) -> str:
    """Writes (bands, rows, columns) or (rows, columns) values; ``mask`` becomes an internal mask band, True = valid."""
    values = values[None] if values.ndim == 2 else values
    options = {"driver": "GTiff", "dtype": values.dtype.name, **profile}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path,
            "w",
            width=values.shape[2],
            height=values.shape[1],
            count=values.shape[0],
            crs=crs,
            transform=transform,
            **options,
        ) as dataset,
    ):
        dataset.write(values)
        for index, name in enumerate(names, start=1):
            dataset.set_band_description(index, name)
        if mask is not None:
            dataset.write_mask(mask)
    return str(path)


def truth_file(
    path: Path, transform: Affine, width: int, height: int, crs: str = BASE, surface: object = smooth, **profile: object
) -> str:
    """The surface as float32 at the pixel centres."""
    return write(path, truth(transform, width, height, crs, surface).astype(np.float32), transform, crs, **profile)


def scene_of(*paths: str, resolution: float | None = None) -> Scene:
    """A scene of one generic acquisition, values as stored."""
    return build_scene(SceneRequest({"other": list(paths)}, {"other": "generic"}, resolution))


def read_onto(path: str, grid: Grid) -> NDArray[np.float32]:
    """A raster of stored values on any grid: (bands, rows, columns)."""
    scene = scene_of(path)
    with SceneReader(scene) as reader:
        return reader.read_onto(scene.main, grid)


def read_scene(scene: Scene) -> NDArray[np.float32]:
    """The main acquisition over the whole scene."""
    with SceneReader(scene) as reader:
        return reader.read_onto(scene.main, scene.grid)


def sample_of(path: str) -> NDArray[np.floating]:
    sample = read_raster_file(path).description.sample
    if sample is None:
        raise ValueError(f"'{path}' has no sample")
    return sample
