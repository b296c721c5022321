"""One raster on disk: what it says of itself, and its values as float32 with NaN where something is missing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from core.errors import RasterError
from core.scenes.grid import Bounds, Grid, Window, source_bounds, source_pixel_size
from core.sensors import RasterDescription

SAMPLE_SIDE = 48
"""Nine windows of this many pixels a side are looked at to judge values: 20,000 pixels, a few blocks of a large file."""

_WEB_MARKERS = ("WMS:", "WMTS:", "<GDAL_WMS", "contextualWMSLegend", "type=xyz", "url=http")


@dataclass(frozen=True)
class RasterFile:
    """Where a raster lies and how it is stored; the file itself is not kept open.

    Attributes:
        path: as GDAL opens it: a file, or a path of a virtual file system (``/vsizip/...``).
        crs: authority code or WKT.
        transform: pixel to ground, of any orientation.
        width, height: in pixels.
        description: what band matching needs to know.
    """

    path: str
    crs: str
    transform: Affine
    width: int
    height: int
    description: RasterDescription

    @property
    def bounds(self) -> Bounds:
        """In the file's own system."""
        return source_bounds(self.transform, self.width, self.height)

    @property
    def pixel_size(self) -> tuple[float, float]:
        """Lengths of a pixel's sides in the units of the file's own system."""
        return source_pixel_size(self.transform)


def open_raster(path: str) -> DatasetReader:
    """Opens a raster for reading.

    Raises:
        RasterError: a web service, a missing file, or one that GDAL cannot open.
    """
    if any(marker in path for marker in _WEB_MARKERS):
        raise RasterError(
            f"'{path}' is a web service, which delivers pictures and not measurements.",
            "Save the data behind it as a GeoTIFF and use that.",
        )
    if not path.startswith("/vsi") and "://" not in path and not os.path.exists(path):
        raise RasterError(f"The raster '{path}' does not exist.", "Check the path.")
    try:
        return rasterio.open(path)
    except RasterioError as error:
        raise RasterError(
            f"The raster '{path}' cannot be opened: {_first_line(error)}.",
            "It may be truncated, or of a format that this GDAL does not read. Copy it anew, or convert it to GeoTIFF.",
        ) from None


def read_raster_file(path: str) -> RasterFile:
    """What a raster says of itself, with a sample of its values.

    Raises:
        RasterError: it cannot be opened or read, has no place on the ground, or holds nothing but nodata.
    """
    with open_raster(path) as dataset:
        crs = _crs_of(dataset)
        if dataset.transform == Affine.identity():
            hint = "Georeference it first."
            if dataset.gcps[0] or dataset.rpcs:
                hint = (
                    "It has ground control points or a sensor model: orthorectify it first (gdalwarp, or SNAP for SAR)."
                )
            raise RasterError(f"The raster '{path}' has no geotransform: nobody knows where its pixels lie.", hint)
        bounds = source_bounds(dataset.transform, dataset.width, dataset.height)
        description = RasterDescription(
            path=path,
            band_count=dataset.count,
            dtype=str(dataset.dtypes[0]),
            descriptions=tuple(dataset.descriptions),
            band_tags=tuple(dataset.tags(index) for index in dataset.indexes),
            tags=_all_tags(dataset),
            color_interpretation=tuple(value.name for value in dataset.colorinterp),
            resolution_m=_resolution_m(crs, dataset.transform, bounds),
            scales=tuple(dataset.scales),
            offsets=tuple(dataset.offsets),
            sample=_sample(dataset),
        )
        return RasterFile(path, crs, dataset.transform, dataset.width, dataset.height, description)


def read_stored(
    dataset: DatasetReader,
    bands: Sequence[int],
    window: Window,
    out_shape: tuple[int, int] | None = None,
) -> NDArray[np.float32]:
    """Stored values of a window, NaN where the file says that there is no data.

    GDAL's own masks are asked, because they compare nodata in the band's own type: a 64-bit nodata value does not
    survive a detour through a float.

    Args:
        dataset: an open raster.
        bands: 1-based indexes.
        window: inside the raster.
        out_shape: (rows, columns) to average the window down to.

    Returns:
        (bands, rows, columns) float32.

    Raises:
        RasterError: the file cannot be read there.
    """
    area = RasterioWindow(window.column, window.row, window.width, window.height)
    shape = None if out_shape is None else (len(bands), *out_shape)
    resampling = Resampling.nearest if out_shape is None else Resampling.average
    try:
        stored = dataset.read(list(bands), window=area, out_shape=shape, resampling=resampling)
        values: NDArray[np.float32] = stored.astype(np.float32)
        flags = dataset.mask_flag_enums
        if any(MaskFlags.all_valid not in flags[band - 1] for band in bands):
            masks = dataset.read_masks(list(bands), window=area, out_shape=shape)
            values[masks == 0] = np.nan
    except RasterioError as error:
        raise RasterError(
            f"The raster '{dataset.name}' cannot be read at columns {window.column} to {window.stop_column}, "
            f"rows {window.row} to {window.stop_row}: {_first_line(error)}.",
            "The file is probably truncated or damaged; copy it anew.",
        ) from None
    values[~np.isfinite(values)] = np.nan
    return values


def _crs_of(dataset: DatasetReader) -> str:
    if dataset.crs is None:
        raise RasterError(
            f"The raster '{dataset.name}' has no coordinate reference system.",
            "Set it with 'Assign projection' (gdal_edit -a_srs EPSG:...).",
        )
    authority = dataset.crs.to_authority()
    return f"{authority[0]}:{authority[1]}" if authority else str(dataset.crs.to_wkt())


def _all_tags(dataset: DatasetReader) -> dict[str, str]:
    """Tags of every plain namespace; metadata of products (``ENVI``, ``IMAGERY``) counts as much as the default one."""
    tags: dict[str, str] = {}
    for namespace in dataset.tag_namespaces():
        if not namespace.startswith(("xml:", "DERIVED", "IMAGE_STRUCTURE")):
            tags.update(dataset.tags(ns=namespace))
    return {**tags, **dataset.tags()}


def _resolution_m(crs: str, transform: Affine, bounds: Bounds) -> float:
    """Side of a square of a pixel's area in metres, good to a percent: it only tells sensors apart."""
    width, height = source_pixel_size(transform)
    middle = Grid(crs, (bounds.left + bounds.right) / 2, (bounds.bottom + bounds.top) / 2, width, height, 1, 1)
    return middle.resolution_m()


def _sample(dataset: DatasetReader) -> NDArray[np.float32]:
    """Values from nine places of the raster: (bands, n) stored values, NaN = missing.

    Raises:
        RasterError: there is no valid value in the whole raster.
    """
    bands = list(dataset.indexes)
    side = SAMPLE_SIDE
    parts = []
    for fraction_y in (0.0, 0.5, 1.0):
        for fraction_x in (0.0, 0.5, 1.0):
            column = round(fraction_x * max(0, dataset.width - side))
            row = round(fraction_y * max(0, dataset.height - side))
            window = Window(column, row, min(side, dataset.width), min(side, dataset.height))
            parts.append(read_stored(dataset, bands, window).reshape(len(bands), -1))
    sample = np.concatenate(parts, axis=1)
    if np.isnan(sample).all():
        sample = _first_valid_block(dataset, bands)
    return sample


def _first_valid_block(dataset: DatasetReader, bands: list[int]) -> NDArray[np.float32]:
    for _, block in dataset.block_windows(1):
        window = Window(int(block.col_off), int(block.row_off), int(block.width), int(block.height))
        values = read_stored(dataset, bands, window)
        if np.isfinite(values).any():
            return values.reshape(len(bands), -1)
    raise RasterError(
        f"The raster '{dataset.name}' holds nothing but nodata.", "Leave it out, or choose one that covers the scene."
    )


def _first_line(error: BaseException) -> str:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    text = str(cause) or str(error)
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
