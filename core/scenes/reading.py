"""Reading a scene window by window, every acquisition on its own scale of the reference grid.

Nothing is resampled on disk. A source that lies on the wanted grid is copied; any other is read once for the window,
masked and converted to physical units on its own pixels, and only then warped, so that nodata never bleeds into its
neighbours. Callers read wide strips and cut tiles out of them: a warp costs the same for a strip as for one of its tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio import crs as rasterio_crs
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.warp import reproject

from core.scenes.grid import (
    Bounds,
    Grid,
    Window,
    covering_window,
    on_scale,
    project_bounds,
    same_crs,
    source_pixel_size,
)
from core.scenes.raster_file import open_raster, read_stored
from core.scenes.scene import Acquisition, Scene, SourceFile

_ALIGNED = 1e-3
"""A source whose pixel edges are off by less than this part of a pixel is copied instead of warped."""

_DECIMATE_ABOVE = 2.0
"""A source this many times finer than the wanted grid is averaged while it is read, which uses its overviews."""


class SceneReader:
    """Open datasets of a scene. Not for use by several threads at once: each thread makes its own.

    Args:
        scene: whose acquisitions are read.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._datasets: dict[str, DatasetReader] = {}
        self._bounds: dict[str, Bounds] = {}

    def __enter__(self) -> SceneReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        for dataset in self._datasets.values():
            dataset.close()
        self._datasets.clear()

    def read(self, window: Window) -> dict[str, NDArray[np.float32]]:
        """Every acquisition over a window of the reference grid, which may reach beyond it.

        Args:
            window: with absolute edges at multiples of ``scene.step``.

        Returns:
            By acquisition (bands, rows, columns) float32 in physical units, on its own scale; NaN = missing.

        Raises:
            RasterError: a file cannot be read.
        """
        return {
            acquisition.name: self.read_onto(acquisition, on_scale(self.scene.grid, window, acquisition.scale))
            for acquisition in self.scene.acquisitions
        }

    def read_onto(self, acquisition: Acquisition, target: Grid, bands: Sequence[str] | None = None) -> NDArray[np.float32]:
        """One acquisition on any grid: (bands, rows, columns) float32 in physical units, NaN = missing."""
        names = acquisition.bands if bands is None else tuple(bands)
        filled = np.full((len(names), *target.shape), np.nan, np.float32)
        for source in acquisition.files:
            if self._bounds_in(source, target.crs).intersection(target.bounds) is None:
                continue
            rows = [row for row, name in enumerate(names) if source.band_index(name) is not None]
            if not rows or not np.isnan(filled[rows]).any():
                continue
            values = self._read_source(source, [names[row] for row in rows], target)
            if values is not None:
                filled[rows] = np.where(np.isnan(filled[rows]), values, filled[rows])
        return filled

    def _read_source(self, source: SourceFile, bands: Sequence[str], target: Grid) -> NDArray[np.float32] | None:
        raster = source.raster
        offset = _aligned_offset(source, target)
        if offset is not None:
            wanted = target.window.translated(*offset)
            inside = wanted.intersection(Window(0, 0, raster.width, raster.height))
            if inside.is_empty:
                return None
            values = np.full((len(bands), *target.shape), np.nan, np.float32)
            rows, columns = inside.slices_within(wanted)
            values[:, rows, columns] = self._physical(source, bands, inside)
            return values
        window = covering_window(raster.transform, raster.width, raster.height, raster.crs, target)
        if window.is_empty:
            return None
        factor = _decimation(source, target)
        if factor > 1:
            window = _snapped(window, factor, raster.width, raster.height)
        shape = (-(-window.height // factor), -(-window.width // factor))
        values = self._physical(source, bands, window, shape if factor > 1 else None)
        transform = raster.transform @ Affine.translation(window.column, window.row)
        transform = transform @ Affine.scale(window.width / shape[1], window.height / shape[0])
        return _warp(values, transform, raster.crs, target)

    def _physical(
        self, source: SourceFile, bands: Sequence[str], window: Window, shape: tuple[int, int] | None = None
    ) -> NDArray[np.float32]:
        """Physical values of a window of a source, on its own pixels."""
        matched = source.identified.match.bands
        # All matched bands are read even for a few: the fill value of a product means "no data" in all bands at once.
        stored = read_stored(self._dataset(source), [index for _, index in matched], window, shape)
        physical = source.identified.calibration.apply(stored)
        order = {name: row for row, (name, _) in enumerate(matched)}
        picked: NDArray[np.float32] = physical[[order[name] for name in bands]]
        return picked

    def _dataset(self, source: SourceFile) -> DatasetReader:
        path = source.raster.path
        if path not in self._datasets:
            self._datasets[path] = open_raster(path)
        return self._datasets[path]

    def _bounds_in(self, source: SourceFile, crs: str) -> Bounds:
        key = f"{source.raster.path}|{crs}"
        if key not in self._bounds:
            self._bounds[key] = project_bounds(source.raster.bounds, source.raster.crs, crs)
        return self._bounds[key]


def valid_pixels(values: NDArray[np.float32], acquisition: Acquisition) -> NDArray[np.bool_]:
    """Which reference pixels an acquisition covers: all bands there, over at least half of a pixel's area.

    Args:
        values: (bands, rows, columns) on the acquisition's own scale, NaN = missing.
        acquisition: it was read from.

    Returns:
        (reference rows, reference columns) bool.
    """
    complete = np.asarray(np.isfinite(values).all(axis=0))
    finer, coarser = acquisition.scale.finer, acquisition.scale.coarser
    if finer > 1:
        rows, columns = complete.shape
        share = complete.reshape(rows // finer, finer, columns // finer, finer).mean(axis=(1, 3))
        return np.asarray(share >= 0.5)
    if coarser > 1:
        return complete.repeat(coarser, axis=0).repeat(coarser, axis=1)
    return complete


def _aligned_offset(source: SourceFile, target: Grid) -> tuple[int, int] | None:
    """Column and row of the target's corner in the source where both have the same pixels; None otherwise."""
    raster = source.raster
    transform = raster.transform
    if transform.b or transform.d or transform.a < 0 or transform.e > 0 or not same_crs(raster.crs, target.crs):
        return None
    # The error that adds up over the whole width must stay below the tolerance.
    if abs(transform.a / target.pixel_width - 1) * target.width > _ALIGNED:
        return None
    if abs(-transform.e / target.pixel_height - 1) * target.height > _ALIGNED:
        return None
    column = (target.left - transform.c) / transform.a
    row = (target.top - transform.f) / transform.e
    if abs(column - round(column)) > _ALIGNED or abs(row - round(row)) > _ALIGNED:
        return None
    return round(column), round(row)


def _decimation(source: SourceFile, target: Grid) -> int:
    """How many source pixels are averaged into one while reading; 1 where the source is not much finer."""
    target_m = target.resolution_m()
    ratio = target_m / (source.raster.description.resolution_m or target_m)
    # Half the target's pixel size keeps the edges for the warp that follows.
    return int(ratio / 2) if ratio > _DECIMATE_ABOVE else 1


def _snapped(window: Window, factor: int, width: int, height: int) -> Window:
    """The window widened to whole groups of pixels, so that a group does not depend on the window asked for."""
    column, row = window.column // factor * factor, window.row // factor * factor
    stop_column = min(width, -(-window.stop_column // factor) * factor)
    stop_row = min(height, -(-window.stop_row // factor) * factor)
    return Window(column, row, stop_column - column, stop_row - row)


def _warp(values: NDArray[np.float32], transform: Affine, crs: str, target: Grid) -> NDArray[np.float32]:
    filled = np.full((values.shape[0], *target.shape), np.nan, np.float32)
    width, height = source_pixel_size(transform)
    same_units = same_crs(crs, target.crs)
    is_finer = same_units and min(target.pixel_width / width, target.pixel_height / height) > 1.5
    reproject(
        values,
        filled,
        src_transform=transform,
        src_crs=rasterio_crs.CRS.from_user_input(crs),
        src_nodata=np.nan,
        dst_transform=target.transform,
        dst_crs=rasterio_crs.CRS.from_user_input(target.crs),
        dst_nodata=np.nan,
        resampling=Resampling.average if is_finer else Resampling.bilinear,
        # Exact, not approximated along lines: a pixel must not depend on the window that it is read with.
        tolerance=0.0,
        warp_mem_limit=256,
    )
    return filled
