"""Reading a scene window by window, every acquisition on its own scale of the reference grid.

Nothing is resampled on disk. A source that lies on the wanted grid is copied; any other is read once for the window,
masked and converted to physical units on its own pixels, and only then warped, so that nodata never bleeds into its
neighbours. A source finer than the wanted grid is warped onto a division of its pixels and averaged, which is exact where
its pixels divide the wanted ones. Callers read wide strips and cut tiles out of them: a warp costs the same for a strip as
for one of its tiles.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from shapely import STRtree

from core.scenes.grid import Bounds, Grid, Window, on_scale, project_bounds, same_crs
from core.scenes.raster_file import RasterFile, open_raster, read_stored
from core.scenes.resampling import (
    block_mean,
    covering_window,
    decibels_of_power,
    pixels_across,
    power_of_decibels,
    warp,
)
from core.scenes.scene import Acquisition, Scene, SourceFile, shows_ground

_ALIGNED = 1e-3
"""A source whose pixel edges are off by less than this part of a pixel is copied instead of warped."""

_DIVIDED_ABOVE = math.sqrt(2)
"""Up to this many source pixels to a wanted one, the four around a centre stand for them well enough."""

_ALL_READ_BELOW = 16
"""From this many source pixels to a wanted one, as in overview pictures, only every second, fourth, ... is read."""

VALUES_AT_ONCE = 2**20
"""Larger reads are split, so that memory stays bounded where little of a source is wanted of each part that is read:
rotated and much finer ones; and so that what is read is still in the processor's cache when it is converted."""

OPEN_AT_ONCE = 64
"""Files of a mosaic that are held open: systems allow some hundreds, and each keeps its own tables in memory."""


class SceneReader:
    """Open datasets of a scene. Not for use by several threads at once: each thread makes its own.

    Args:
        scene: whose acquisitions are read.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._datasets: dict[str, DatasetReader] = {}
        self._bounds: dict[tuple[str, str], Bounds] = {}
        self._indexes: dict[tuple[str, str], STRtree] = {}
        self._samplings: dict[tuple[str, str, float, float], _Sampling] = {}

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

    def read_onto(
        self,
        acquisition: Acquisition,
        target: Grid,
        bands: Sequence[str] | None = None,
        out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """One acquisition on any grid: (bands, rows, columns) float32 in physical units, NaN = missing.

        Where the source is finer, a pixel is the mean of what is there, and missing where that is less than half.

        Args:
            acquisition: of the scene.
            target: the grid.
            bands: of it; all by default.
            out: (bands, rows, columns) to write to; a new array by default.

        Raises:
            RasterError: a file cannot be read.
        """
        names = acquisition.bands if bands is None else tuple(bands)
        result = np.empty((len(names), *target.shape), np.float32) if out is None else out
        is_filled = False
        for source in self._sources_in(acquisition, target):
            rows = [row for row, name in enumerate(names) if source.band_index(name) is not None]
            if not rows:
                continue
            if not is_filled and len(rows) == len(names):
                self._read_source(source, names, target, result)  # most scenes have one file
                is_filled = True
                continue
            if not is_filled:
                result[...] = np.nan
                is_filled = True
            self._fill_in(source, {row: names[row] for row in rows}, target, result)
        if not is_filled:
            result[...] = np.nan
        return result

    def _fill_in(self, source: SourceFile, bands: Mapping[int, str], target: Grid, out: NDArray[np.float32]) -> None:
        """Writes a source where it has something and ``out`` has not yet.

        Args:
            bands: of the source, by their places in ``out``.
            target: that the source may reach in part.
            out: (bands, rows, columns) of the target.
        """
        if self._bounds_in(source, target.crs).intersection(target.bounds) is None:
            return
        if len(bands) * target.width * target.height > VALUES_AT_ONCE and max(target.shape) > 1:
            for half in _halves(target):
                rows, columns = half.slices_within(target.window)
                self._fill_in(source, bands, target.crop(half), out[:, rows, columns])
            return
        if not any(np.isnan(out[place]).any() for place in bands):
            return
        values = np.empty((len(bands), *target.shape), np.float32)
        self._read_source(source, list(bands.values()), target, values)
        for place, given in zip(bands, values, strict=True):
            np.copyto(out[place], given, where=np.isnan(out[place]))

    def _read_source(self, source: SourceFile, bands: Sequence[str], target: Grid, out: NDArray[np.float32]) -> None:
        """Writes (bands, rows, columns) of a source on the target; NaN where it does not reach."""
        sampling = self._sampling(source, target)
        raster, fine = source.raster, target.refined(sampling.division)
        offset = _aligned_offset(sampling, raster.crs, fine)
        if offset is not None:
            wanted = fine.window.translated(*offset)
            window = wanted.intersection(sampling.window)
        else:
            wanted = None
            window = covering_window(sampling.transform, sampling.window.width, sampling.window.height, raster.crs, fine)
        if window.is_empty:
            out[...] = np.nan
            return
        size = max(window.width * window.height, fine.width * fine.height) * len(source.identified.match.bands)
        if size > VALUES_AT_ONCE and max(target.shape) > 1:
            for half in _halves(target):
                rows, columns = half.slices_within(target.window)
                self._read_source(source, bands, target.crop(half), out[:, rows, columns])
            return
        self._read_piece(source, bands, sampling, window, wanted, fine, out)

    def _read_piece(
        self,
        source: SourceFile,
        bands: Sequence[str],
        sampling: _Sampling,
        window: Window,
        wanted: Window | None,
        fine: Grid,
        out: NDArray[np.float32],
    ) -> None:
        """A window of a source on a division of the target's pixels, and that on the target.

        Args:
            wanted: the target as a window of the source, where they have the same pixels.
            out: (bands, rows, columns) of the target to write to.
        """
        if wanted is not None and sampling.division == 1:
            if window != wanted:
                out[...] = np.nan
            rows, columns = window.slices_within(wanted)
            self._physical(source, bands, window, sampling.stride, out[:, rows, columns])
            return
        values = self._physical(source, bands, window, sampling.stride)
        is_decibel = source.identified.unit == "dB"
        if is_decibel:
            values = power_of_decibels(values)
        if wanted is None and sampling.division == 1:
            values = warp(values, window, sampling.transform, source.raster.crs, fine, out)
        elif wanted is not None:
            values = block_mean(_placed(values, window, wanted), sampling.division)
        else:
            values = block_mean(warp(values, window, sampling.transform, source.raster.crs, fine), sampling.division)
        out[...] = decibels_of_power(values) if is_decibel else values

    def _physical(
        self,
        source: SourceFile,
        bands: Sequence[str],
        window: Window,
        stride: int,
        out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Physical values of a window of a source, on its own pixels, of which every ``stride``-th counts."""
        matched = source.identified.match.bands
        # All matched bands are read even for a few: the fill value of a product means "no data" in all bands at once.
        order = {name: row for row, (name, _) in enumerate(matched)}
        is_whole = [order[name] for name in bands] == list(range(len(matched)))
        stored = read_stored(self._dataset(source), [index for _, index in matched], window, stride, out if is_whole else None)
        source.identified.calibration.apply_in_place(stored)
        if is_whole:
            return stored
        picked: NDArray[np.float32] = stored[[order[name] for name in bands]]
        if out is not None:
            out[...] = picked
        return picked

    def _dataset(self, source: SourceFile) -> DatasetReader:
        path = source.raster.path
        if path not in self._datasets:
            if len(self._datasets) >= OPEN_AT_ONCE:
                # The one that was not read for the longest time.
                self._datasets.pop(next(iter(self._datasets))).close()
            self._datasets[path] = open_raster(path)
        self._datasets[path] = self._datasets.pop(path)
        return self._datasets[path]

    def _sources_in(self, acquisition: Acquisition, target: Grid) -> list[SourceFile]:
        """The files of an acquisition that reach a grid, in their order. A mosaic has hundreds."""
        key = acquisition.name, target.crs
        if key not in self._indexes:
            bounds = [project_bounds(source.raster.bounds, source.raster.crs, target.crs) for source in acquisition.files]
            self._indexes[key] = STRtree(shapely.box(*np.array([tuple(each) for each in bounds]).T))
        found = self._indexes[key].query(shapely.box(*target.bounds))
        near = [acquisition.files[number] for number in np.sort(found)]
        # Those that only touch it have no pixel there.
        return [source for source in near if self._bounds_in(source, target.crs).intersection(target.bounds) is not None]

    def _bounds_in(self, source: SourceFile, crs: str) -> Bounds:
        key = source.raster.path, crs
        if key not in self._bounds:
            self._bounds[key] = project_bounds(source.raster.bounds, source.raster.crs, crs)
        return self._bounds[key]

    def _sampling(self, source: SourceFile, target: Grid) -> _Sampling:
        key = source.raster.path, target.crs, target.pixel_width, target.pixel_height
        if key not in self._samplings:
            self._samplings[key] = _sampling_of(source.raster, target)
        return self._samplings[key]


def _halves(target: Grid) -> tuple[Window, Window]:
    """A grid cut across its longer side."""
    width, height = target.width, target.height
    if width >= height:
        return Window(0, 0, width // 2, height), Window(width // 2, 0, width - width // 2, height)
    return Window(0, 0, width, height // 2), Window(0, height // 2, width, height - height // 2)


def valid_pixels(values: NDArray[np.float32], acquisition: Acquisition) -> NDArray[np.bool_]:
    """Which reference pixels an acquisition covers: all bands there, over at least half of a pixel's area.

    Args:
        values: (bands, rows, columns) on the acquisition's own scale, NaN = missing.
        acquisition: it was read from.

    Returns:
        (reference rows, reference columns) bool.
    """
    complete = np.asarray(np.isfinite(values[0]))
    for band in values[1:]:
        complete &= np.isfinite(band)
    finer, coarser = acquisition.scale.finer, acquisition.scale.coarser
    if finer > 1:
        rows, columns = complete.shape
        share = complete.reshape(rows // finer, finer, columns // finer, finer).mean(axis=(1, 3))
        return np.asarray(share >= 0.5)
    if coarser > 1:
        return complete.repeat(coarser, axis=0).repeat(coarser, axis=1)
    return complete


def usable_pixels(
    values: Mapping[str, NDArray[np.float32]], acquisitions: Sequence[Acquisition], *, allows_missing: bool
) -> NDArray[np.bool_]:
    """Which reference pixels can be learned from, and mapped.

    Args:
        values: by acquisition, as ``SceneReader.read`` returns them; those left out count as missing.
        acquisitions: of the scene.
        allows_missing: whether one of the acquisitions that show the ground is enough; otherwise all have to be there.

    Returns:
        (reference rows, reference columns) bool.
    """
    valid = {a.name: valid_pixels(values[a.name], a) for a in acquisitions if a.name in values}
    if not allows_missing:
        return np.asarray(np.logical_and.reduce([valid[a.name] for a in acquisitions]))
    telling = [valid[a.name] for a in acquisitions if a.name in valid and shows_ground(a.role, [b.role for b in acquisitions])]
    return np.asarray(np.logical_or.reduce(telling) if telling else np.zeros_like(next(iter(valid.values()))))


@dataclass(frozen=True)
class _Sampling:
    """How densely a source is looked at for a target.

    Attributes:
        stride: every how many-th pixel of the source is read; all are where it is 1.
        transform: pixel to ground, of the pixels that are read.
        window: of all of them.
        division: parts of a target pixel's side, each of which is read and averaged.
    """

    stride: int
    transform: Affine
    window: Window
    division: int


def _sampling_of(raster: RasterFile, target: Grid) -> _Sampling:
    across = pixels_across(raster.transform, raster.width, raster.height, raster.crs, target)
    stride = 1
    while across / stride >= _ALL_READ_BELOW and min(raster.width, raster.height) >= 2 * stride:
        stride *= 2
    window = Window(0, 0, raster.width // stride, raster.height // stride)
    across /= stride
    whole = max(1, round(across))
    is_whole = abs(across / whole - 1) <= _ALIGNED
    # A whole number of pixels is kept: where the edges meet too, nothing is interpolated.
    division = whole if is_whole else max(1, math.ceil(across / _DIVIDED_ABOVE))
    return _Sampling(stride, raster.transform @ Affine.scale(stride), window, division)


def _aligned_offset(sampling: _Sampling, crs: str, target: Grid) -> tuple[int, int] | None:
    """Column and row of the target's corner in the source where both have the same pixels; None otherwise."""
    transform = sampling.transform
    if transform.b or transform.d or transform.a < 0 or transform.e > 0 or not same_crs(crs, target.crs):
        return None
    # The error that adds up over the whole source must stay below the tolerance.
    if abs(transform.a / target.pixel_width - 1) * sampling.window.width > _ALIGNED:
        return None
    if abs(-transform.e / target.pixel_height - 1) * sampling.window.height > _ALIGNED:
        return None
    column = (target.left - transform.c) / transform.a
    row = (target.top - transform.f) / transform.e
    if abs(column - round(column)) > _ALIGNED or abs(row - round(row)) > _ALIGNED:
        return None
    return round(column), round(row)


def _placed(values: NDArray[np.float32], window: Window, wanted: Window) -> NDArray[np.float32]:
    """The values of a window within a wider one, NaN around them."""
    if window == wanted:
        return values
    placed = np.full((len(values), *wanted.shape), np.nan, np.float32)
    rows, columns = window.slices_within(wanted)
    placed[:, rows, columns] = values
    return placed
