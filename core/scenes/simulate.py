"""A simulated scene: three sensors, ground truth and drawn polygons, of any size, from a seed.

The landscape is a function of place (``simulation.landscape``), so the scene is made tile by tile with memory that does
not depend on its size, the truth's one byte a pixel apart. The same size and seed give the same files.
"""

from __future__ import annotations

import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterioWindow
from scipy.ndimage import map_coordinates

from core.errors import OutputError, UsageError
from core.folders import check_writable
from core.scenes.categorical import auxiliary_metadata, auxiliary_path, colour_table, paletted_style, style_path
from core.scenes.grid import Bounds, Grid, Window, project_bounds
from core.scenes.simulation.landscape import CLASSES, Landscape
from core.scenes.simulation.measurements import LOOKS, OPTICAL_BANDS, SAR_BANDS, Tile, surface

SMALLEST_SIZE, LARGEST_SIZE = 64, 20000
POLYGONS_PER_CLASS = 12
POINTS_PER_CLASS = 60

_CRS, _LEFT, _TOP, _PIXEL_M = "EPSG:32633", 310_000.0, 5_820_000.0, 10.0
_SURFACE_CRS = "EPSG:3035"
_SURFACE_PIXELS_M = (2.5, 5.0)
_LARGEST_FINE_SIZE = 3000
"""Above this size the surface model has the coarser of its pixel sizes: at 2.5 m it is 64 bytes a scene pixel."""
_TILE = 512
_FULL_BELOW_BYTES = 2**20
"""A disk with less than this left after a failed write is full."""
_DATE = "2021-07-06T00:00:00.000Z"
"""Written wherever a file wants the date of its making."""
_TITLE = "Simulated scene"

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class SimulatedScene:
    """Where the files of a simulated scene are.

    Attributes:
        folder: that holds them.
        optical: Sentinel-2 L2A, 12 bands, uint16, 0 = no data.
        sar: Sentinel-1 VV and VH in dB, float32, NaN = no data.
        elevation: surface model in metres, float32, finer and in another coordinate reference system.
        truth: class codes, uint8, 0 = no data.
        labels: polygons with the fields ``class`` and ``code``.
        reference: points with the same fields for accuracy assessment, none of them inside a polygon.
        readme: says that all this is simulated.
    """

    folder: Path
    optical: Path
    sar: Path
    elevation: Path
    truth: Path
    labels: Path
    reference: Path
    readme: Path

    @classmethod
    def in_folder(cls, folder: Path) -> SimulatedScene:
        """The names in a folder."""
        names = (
            "sentinel2_l2a.tif",
            "sentinel1_vv_vh.tif",
            "surface_model.tif",
            "truth.tif",
            "labels.gpkg",
            "labels_reference.gpkg",
            "README.txt",
        )
        return cls(folder, *(folder / name for name in names))

    @property
    def rasters(self) -> tuple[Path, ...]:
        return self.optical, self.sar, self.elevation, self.truth


def write_scene(folder: Path, size: int = 500, seed: int = 0, progress: Progress | None = None) -> SimulatedScene:
    """Writes a simulated scene.

    Args:
        folder: made here; may exist if it is empty or holds an earlier simulated scene, which is then replaced. Other
            files in it are left alone.
        size: width and height in pixels of 10 m, 64 to 20000.
        seed: of everything random, not negative.
        progress: called with the part done, 0..1, and the phase; what it raises ends the work.

    Returns:
        The files.

    Raises:
        UsageError: a size or a seed out of range.
        OutputError: the folder cannot be written to, holds other files, or the disk is too small.
    """
    if not SMALLEST_SIZE <= size <= LARGEST_SIZE:
        raise UsageError(f"size: a simulated scene has {SMALLEST_SIZE} to {LARGEST_SIZE} pixels a side; got {size}.")
    if seed < 0:
        raise UsageError(f"seed: a seed is not negative; got {seed}.")
    folder = Path(os.path.abspath(folder))
    _check_folder(folder)
    _check_space(folder, size)
    partial_folder = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    try:
        # Not tempfile's folder: that one is closed to everybody else, and so would be the scene.
        partial_folder.mkdir()
        _write_files(SimulatedScene.in_folder(partial_folder), size, seed, progress or _silent)
        _move_into_place(partial_folder, folder)
    except (OSError, RasterioError) as error:
        full = shutil.disk_usage(folder.parent).free < _FULL_BELOW_BYTES
        what = "the disk is full" if full else str(error)
        raise OutputError(f"The scene cannot be written to '{folder}': {what}.") from error
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)
    return SimulatedScene.in_folder(folder)


def _silent(fraction: float, phase: str) -> None:
    """The progress of nobody who asked."""


def _check_folder(folder: Path) -> None:
    if not folder.parent.is_dir():
        raise OutputError(f"The folder '{folder.parent}' does not exist.", "Create it first, or choose another place.")
    check_writable(folder.parent)
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise OutputError(f"'{folder}' is a file, and the scene is a folder.", "Choose another name.")
    check_writable(folder)
    if any(folder.iterdir()) and not _holds_scene(folder):
        raise OutputError(
            f"The folder '{folder}' is not empty and holds no earlier simulated scene.",
            "Choose a new or an empty folder.",
        )


def _holds_scene(folder: Path) -> bool:
    readme = SimulatedScene.in_folder(folder).readme
    try:
        with readme.open(encoding="utf-8", errors="replace") as stream:
            return stream.readline().rstrip("\n") == _TITLE
    except OSError:
        return False


def _check_space(folder: Path, size: int) -> None:
    """The uncompressed size of everything bounds what is written from above."""
    fine = (_PIXEL_M / _surface_pixel_m(size)) ** 2
    needed = int(size * size * (2 * len(OPTICAL_BANDS) + 4 * len(SAR_BANDS) + 1 + 4.5 * fine)) + 2**20
    free = shutil.disk_usage(folder.parent).free
    if free < needed:
        raise OutputError(
            f"A scene of {size} x {size} pixels takes up to {needed / 2**20:.0f} MiB, and the disk of "
            f"'{folder.parent}' has {free / 2**20:.0f} MiB left.",
            "Free some space, or ask for a smaller scene.",
        )


def _surface_pixel_m(size: int) -> float:
    return _SURFACE_PIXELS_M[size > _LARGEST_FINE_SIZE]


def _move_into_place(partial_folder: Path, folder: Path) -> None:
    """One rename for a new folder; file by file where the folder is there and may hold something else of the user's."""
    if not folder.exists():
        partial_folder.rename(folder)
        return
    old = SimulatedScene.in_folder(folder)
    # Statistics of the old rasters and journals of the old GeoPackages would be taken for those of the new ones.
    stale = [auxiliary_path(raster) for raster in old.rasters]
    stale += [Path(f"{vector}-{kind}") for vector in (old.labels, old.reference) for kind in ("wal", "shm", "journal")]
    for path in stale:
        path.unlink(missing_ok=True)
    for path in sorted(partial_folder.iterdir()):
        path.replace(folder / path.name)


def _write_files(scene: SimulatedScene, size: int, seed: int, progress: Progress) -> None:
    grid = Grid(_CRS, _LEFT, _TOP, _PIXEL_M, _PIXEL_M, size, size)
    landscape = Landscape(size * _PIXEL_M, seed)
    truth = _write_images(scene, grid, landscape, seed, lambda part: progress(0.45 * part, "Sentinel-1 and Sentinel-2"))
    _write_surface(scene, grid, landscape, lambda part: progress(0.45 + 0.5 * part, "Surface model"))
    progress(0.95, "Labels")
    counts = np.bincount(truth.ravel(), minlength=256)
    style_path(scene.truth).write_text(paletted_style(CLASSES), encoding="utf-8", newline="\n")
    auxiliary_path(scene.truth).write_text(
        auxiliary_metadata(CLASSES, {entry.code: int(counts[entry.code]) for entry in CLASSES}),
        encoding="utf-8",
        newline="\n",
    )
    _write_labels(scene, grid, truth, seed)
    _read_back(scene)
    scene.readme.write_text(_readme(scene, size, seed), encoding="utf-8", newline="\n")
    progress(1.0, "Done")


def _read_back(scene: SimulatedScene) -> None:
    """Reads every block: a file closed on a full disk is cut off, and rasterio does not say so."""
    for path in scene.rasters:
        with rasterio.open(path) as dataset:
            for _, window in dataset.block_windows(1):
                dataset.read(window=window)


def _tiles(grid: Grid) -> Iterator[Window]:
    """Tiles of ``_TILE`` pixels from the upper left corner, row by row."""
    for row in range(0, grid.height, _TILE):
        for column in range(0, grid.width, _TILE):
            yield Window(column, row, _TILE, _TILE).intersection(grid.window)


def _profile(grid: Grid, count: int, dtype: str, nodata: float, predictor: int) -> dict[str, Any]:
    """Creation options: blocks are the tiles, so every block is written once."""
    block = _TILE if min(grid.shape) >= _TILE else 256
    return {
        "driver": "GTiff",
        "crs": grid.crs,
        "transform": grid.transform,
        "width": grid.width,
        "height": grid.height,
        "count": count,
        "dtype": dtype,
        "nodata": nodata,
        "tiled": True,
        "blockxsize": block,
        "blockysize": block,
        "compress": "deflate",
        "predictor": predictor,
        "bigtiff": "if_safer",
    }


def _write_images(
    scene: SimulatedScene, grid: Grid, landscape: Landscape, seed: int, progress: Callable[[float], None]
) -> NDArray[np.uint8]:
    """Writes Sentinel-2, Sentinel-1 and the truth, and returns the truth."""
    truth = np.empty(grid.shape, dtype=np.uint8)
    with (
        rasterio.open(scene.optical, "w", **_profile(grid, len(OPTICAL_BANDS), "uint16", 0, 2)) as optical,
        rasterio.open(scene.sar, "w", **_profile(grid, len(SAR_BANDS), "float32", math.nan, 3)) as sar,
        rasterio.open(scene.truth, "w", **_profile(grid, 1, "uint8", 0, 1)) as classes,
    ):
        optical.descriptions, sar.descriptions, classes.descriptions = OPTICAL_BANDS, SAR_BANDS, ("class",)
        optical.update_tags(
            SENSOR="Sentinel-2 L2A (simulated)",
            ACQUISITION_DATE="2021-07-02",
            PROCESSING_BASELINE="03.01",
            BOA_QUANTIFICATION_VALUE="10000",
            BOA_ADD_OFFSET="0",
        )
        sar.update_tags(
            SENSOR="Sentinel-1 (simulated)",
            ACQUISITION_DATE="2021-07-03",
            ORBIT_DIRECTION="ASCENDING",
            UNIT="dB",
            LOOKS=str(LOOKS),
        )
        classes.write_colormap(1, colour_table(CLASSES))
        windows = list(_tiles(grid))
        for number, window in enumerate(windows):
            progress(number / len(windows))
            generator = np.random.default_rng([seed, window.row // _TILE, window.column // _TILE])
            tile = Tile(landscape, window.column, window.row, window.width, window.height, _PIXEL_M, generator)
            place = RasterioWindow(window.column, window.row, window.width, window.height)
            codes = tile.truth()
            truth[window.slices_within(grid.window)] = codes
            classes.write(codes, 1, window=place)
            optical.write(tile.optical(), window=place)
            backscatter = tile.sar()
            backscatter[:, _outside_swath(window, grid)] = np.nan
            sar.write(backscatter, window=place)
    return truth


def _outside_swath(window: Window, grid: Grid) -> NDArray[np.bool_]:
    """Where the radar's swath ends: a strip across the scene's lower right corner."""
    columns = np.arange(window.column, window.stop_column)[None, :]
    rows = np.arange(window.row, window.stop_row)[:, None]
    outside: NDArray[np.bool_] = columns + 0.22 * rows > 1.12 * grid.width
    return outside


def _surface_grid(grid: Grid) -> Grid:
    """The grid of the surface model: covers the scene, on whole multiples of its pixel size."""
    pixel = _surface_pixel_m(grid.width)
    bounds = project_bounds(grid.bounds, grid.crs, _SURFACE_CRS)
    left, top = math.floor(bounds.left / pixel) * pixel, math.ceil(bounds.top / pixel) * pixel
    width, height = math.ceil((bounds.right - left) / pixel), math.ceil((top - bounds.bottom) / pixel)
    return Grid(_SURFACE_CRS, left, top, pixel, pixel, width, height)


def _write_surface(scene: SimulatedScene, grid: Grid, landscape: Landscape, progress: Callable[[float], None]) -> None:
    surface_grid = _surface_grid(grid)
    to_scene = Transformer.from_crs(_SURFACE_CRS, grid.crs, always_xy=True)
    with rasterio.open(scene.elevation, "w", **_profile(surface_grid, 1, "float32", -9999.0, 3)) as target:
        target.descriptions = ("DSM",)
        target.update_tags(SENSOR="Digital surface model (simulated)", UNIT="m")
        windows = list(_tiles(surface_grid))
        for number, window in enumerate(windows):
            progress(number / len(windows))
            heights = _surface_tile(landscape, grid, surface_grid, window, to_scene)
            target.write(heights, 1, window=RasterioWindow(window.column, window.row, window.width, window.height))


def _surface_tile(
    landscape: Landscape, grid: Grid, surface_grid: Grid, window: Window, to_scene: Transformer
) -> NDArray[np.float32]:
    """One tile of the surface model: the surface on the scene's axes, taken at the tile's pixels."""
    bounds: Bounds = surface_grid.bounds_of(window)
    pixel = surface_grid.pixel_width
    x_map = bounds.left + (np.arange(window.width) + 0.5) * pixel
    y_map = bounds.top - (np.arange(window.height) + 0.5) * pixel
    x_map, y_map = np.meshgrid(x_map, y_map)
    x_scene, y_scene = to_scene.transform(x_map, y_map)
    east, south = x_scene - grid.left, grid.top - y_scene
    # On whole pixels counted from the scene's corner, so that neighbouring tiles look at the same points.
    left, top = math.floor(east.min() / pixel) - 2, math.floor(south.min() / pixel) - 2
    width, height = math.ceil(east.max() / pixel) + 2 - left, math.ceil(south.max() / pixel) + 2 - top
    heights = surface(landscape, left * pixel, top * pixel, width, height, pixel)
    places = [south / pixel - top - 0.5, east / pixel - left - 0.5]
    values = map_coordinates(heights, places, order=1, mode="nearest")
    # To a 16th of a metre: finer digits would not compress.
    return np.asarray(np.rint(values * 16) / 16, dtype=np.float32)


def _write_labels(scene: SimulatedScene, grid: Grid, truth: NDArray[np.uint8], seed: int) -> None:
    import geopandas
    import shapely

    from core.scenes.simulation.drawing import draw_polygons, sample_points
    from core.scenes.vector_writing import dated

    names = {entry.code: entry.name for entry in CLASSES}
    polygons = draw_polygons(truth, POLYGONS_PER_CLASS, np.random.default_rng([seed, 1 << 20]))
    points = sample_points(truth, POINTS_PER_CLASS, [shape for _, shape in polygons], np.random.default_rng([seed, 2]))
    to_map = partial(_pixels_to_map, grid)
    drawn = geopandas.GeoDataFrame(
        {"class": [names[code] for code, _ in polygons], "code": np.array([code for code, _ in polygons], np.int32)},
        geometry=[shapely.transform(shape, to_map) for _, shape in polygons],
        crs=grid.crs,
    ).to_crs("EPSG:4326")
    centers = [shapely.transform(shapely.Point(column + 0.5, row + 0.5), to_map) for _, row, column in points]
    reference = geopandas.GeoDataFrame(
        {"class": [names[code] for code, _, _ in points], "code": np.array([code for code, _, _ in points], np.int32)},
        geometry=centers,
        crs=grid.crs,
    )
    with dated(_DATE):
        drawn.to_file(scene.labels, layer="labels", driver="GPKG", engine="pyogrio")
        reference.to_file(scene.reference, layer="labels_reference", driver="GPKG", engine="pyogrio")


def _pixels_to_map(grid: Grid, coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 2) pixel coordinates to the map's."""
    return np.stack(
        [grid.left + coordinates[:, 0] * grid.pixel_width, grid.top - coordinates[:, 1] * grid.pixel_height], axis=1
    )


def _readme(scene: SimulatedScene, size: int, seed: int) -> str:
    classes = "\n".join(f"  {entry.code}  {entry.name}" for entry in CLASSES)
    return f"""{_TITLE}

None of this was measured. A program computed it ({size} x {size} pixels of 10 m, seed {seed}); the place on the map
means nothing.

{scene.optical.name}  Sentinel-2 L2A as it might look: 12 bands, reflectance x 10,000 without offset, 0 = no data
{scene.sar.name}  Sentinel-1 VV and VH in dB with speckle of {LOOKS} looks, NaN = no data (a corner)
{scene.elevation.name}  surface model in metres with trees and houses, finer pixels, {_SURFACE_CRS}
{scene.truth.name}  the class of every pixel, 0 = no data
{scene.labels.name}  polygons to learn from, fields "class" and "code", EPSG:4326
{scene.reference.name}  a stratified random sample of points outside the polygons, to measure accuracy

Classes
{classes}
"""
