"""One raster on disk: what it says of itself, and its values as float32 with NaN where something is missing."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from pyproj.exceptions import CRSError, ProjError
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from core.errors import RasterError, ReadError
from core.scenes.grid import Bounds, Grid, Window, parsed_crs, source_bounds, source_pixel_size
from core.sensors import RasterDescription

SAMPLE_SIDE = 48
"""Nine windows of this many pixels a side are looked at to judge values: 20,000 pixels, a few blocks of a large file."""

_SMALLEST_AREA = 1e-20
"""Of a pixel, in squared units of its system: a hundredth of a millimetre is 1e-10 degrees."""

_DRIVER_PREFIX = re.compile(r"[A-Za-z0-9_]{2,}:")
"""Of a raster within a file, such as ``NETCDF:"a.nc":B2``; a single letter is a drive."""

_WEB_MARKERS = ("WMS:", "WMTS:", "<GDAL_WMS", "contextualWMSLegend", "type=xyz", "url=http")
_WEB_DRIVERS = ("WMS", "WMTS")
"""What GDAL opens a file with that only describes a service."""


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


def raster_bytes(raster: RasterFile) -> int:
    """Of all values of a raster, as GDAL holds them."""
    return raster.width * raster.height * raster.description.band_count * np.dtype(raster.description.dtype).itemsize


def open_raster(path: str) -> DatasetReader:
    """Opens a raster for reading.

    Raises:
        RasterError: a web service, a missing file, or one that GDAL cannot open.
    """
    if any(marker in path for marker in _WEB_MARKERS):
        raise _web_service(path)
    if not path.startswith("/vsi") and not _DRIVER_PREFIX.match(path) and not os.path.exists(path):
        raise RasterError(f"The raster '{path}' does not exist.", "Check the path.")
    try:
        with warnings.catch_warnings():
            # What is not georeferenced is refused with a message of our own.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            dataset = rasterio.open(path)
    except RasterioError as error:
        raise ReadError(
            f"The raster '{path}' cannot be opened: {_first_line(error)}.",
            "It may be truncated, or of a format that this GDAL does not read. Copy it anew, or convert it to GeoTIFF.",
        ) from None
    if dataset.driver in _WEB_DRIVERS:
        dataset.close()
        raise _web_service(path)
    return dataset


def _web_service(path: str) -> RasterError:
    return RasterError(
        f"'{path}' is a web service, which delivers pictures and not measurements.",
        "Save the data behind it as a GeoTIFF and use that.",
    )


def files_of(path: str) -> list[str]:
    """What a raster is made of on disk: itself, the files that a VRT refers to, and those beside it that describe it.

    Raises:
        RasterError: it cannot be opened.
    """
    with open_raster(path) as dataset:
        return [path, *(file for file in dataset.files if file != path)]


def read_raster_file(path: str) -> RasterFile:
    """What a raster says of itself, with a sample of its values.

    Raises:
        RasterError: it cannot be opened or read, has no place on the ground, or holds nothing but nodata.
    """
    with open_raster(path) as dataset:
        _check_bands(dataset)
        _check_transform(dataset)
        crs = _crs_of(dataset)
        bounds = source_bounds(dataset.transform, dataset.width, dataset.height)
        description = RasterDescription(
            path=path,
            band_count=dataset.count,
            dtype=str(dataset.dtypes[0]),
            descriptions=tuple(dataset.descriptions),
            band_tags=tuple(dataset.tags(index) for index in dataset.indexes),
            tags=_all_tags(dataset),
            color_interpretation=tuple(value.name for value in dataset.colorinterp),
            resolution_m=_resolution_m(path, crs, dataset.transform, bounds),
            scales=tuple(dataset.scales),
            offsets=tuple(dataset.offsets),
            sample=_sample(dataset),
        )
        return RasterFile(path, crs, dataset.transform, dataset.width, dataset.height, description)


def read_stored(
    dataset: DatasetReader,
    bands: Sequence[int],
    window: Window,
    stride: int = 1,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Stored values of a window, NaN where the file says that there is no data.

    Nodata is compared in the band's own type: a 64-bit nodata value does not survive a detour through a float. Of all but
    whole numbers of up to 32 bits, GDAL's own masks are asked.

    Args:
        dataset: an open raster.
        bands: 1-based indexes.
        window: inside the raster, counted in groups of ``stride`` x ``stride`` pixels.
        stride: of each group one pixel is read, from the file's overviews where it has any.
        out: (bands, rows, columns) to write to; a new array by default.

    Returns:
        (bands, rows, columns) of the window, float32.

    Raises:
        RasterError: the file cannot be read there.
    """
    first_column, first_row, columns, rows = (
        value * stride for value in (window.column, window.row, window.width, window.height)
    )
    area = RasterioWindow(first_column, first_row, columns, rows)
    shape = (len(bands), *window.shape)
    try:
        stored = dataset.read(list(bands), window=area, out_shape=shape)
        with np.errstate(over="ignore"):
            # Numbers beyond float32 are nodata values, or become infinite and missing below.
            values: NDArray[np.float32] = np.empty(stored.shape, np.float32) if out is None else out
            values[...] = stored
        for row, band in enumerate(bands):
            missing = _missing_in(dataset, band, stored[row], area, shape[1:])
            if missing is not None:
                values[row][missing] = np.nan
    except RasterioError as error:
        raise ReadError(
            f"The raster '{dataset.name}' cannot be read at columns {first_column} to {first_column + columns}, "
            f"rows {first_row} to {first_row + rows}: {_first_line(error)}.",
            "The file is probably truncated or damaged; copy it anew.",
        ) from None
    if stored.dtype.kind not in "iu":
        values[~np.isfinite(values)] = np.nan
    return values


def _missing_in(
    dataset: DatasetReader, band: int, stored: NDArray[Any], area: RasterioWindow, shape: tuple[int, ...]
) -> NDArray[np.bool_] | None:
    """Where the file says that a band has no data; None where it says that it has, everywhere."""
    flags = dataset.mask_flag_enums[band - 1]
    if MaskFlags.all_valid in flags:
        return None
    if flags == [MaskFlags.nodata]:
        nodata = dataset.nodatavals[band - 1]
        if nodata is not None and math.isnan(nodata) and stored.dtype.kind == "f":
            return None  # missing already
        if nodata is not None and stored.dtype.kind in "iu" and stored.dtype.itemsize <= 4 and float(nodata).is_integer():
            # Asked for a mask, GDAL reads the band anew.
            limits = np.iinfo(stored.dtype)
            return stored == stored.dtype.type(nodata) if limits.min <= nodata <= limits.max else None
    return np.asarray(dataset.read_masks(band, window=area, out_shape=shape) == 0)


def _check_bands(dataset: DatasetReader) -> None:
    if dataset.count:
        return
    inside = ", ".join(dataset.subdatasets[:8])
    raise RasterError(
        f"'{dataset.name}' holds no band of its own{f', but these rasters: {inside}' if inside else ''}.",
        "Give one of them by its full name, or save it as a GeoTIFF." if inside else "Choose another file.",
    )


def _check_transform(dataset: DatasetReader) -> None:
    transform = dataset.transform
    area = abs(transform.determinant)
    # Of formats that know no georeference at all, rasterio returns numbers that mean nothing.
    if transform == Affine.identity() or not _SMALLEST_AREA < area < math.inf:
        hint = "Georeference it first."
        if dataset.gcps[0] or dataset.rpcs:
            hint = "It has ground control points or a sensor model: orthorectify it first (gdalwarp, or SNAP for SAR)."
        raise RasterError(f"The raster '{dataset.name}' has no geotransform: nobody knows where its pixels lie.", hint)


def _crs_of(dataset: DatasetReader) -> str:
    """Authority code, or WKT where no code means exactly the same."""
    if dataset.crs is None:
        raise RasterError(
            f"The raster '{dataset.name}' has no coordinate reference system.",
            "Set it with 'Assign projection' (gdal_edit -a_srs EPSG:...).",
        )
    text = str(dataset.crs.to_wkt())
    try:
        own = parsed_crs(text)
        authority = dataset.crs.to_authority()
        code = f"{authority[0]}:{authority[1]}" if authority else ""
        # Codes are found by likeness; one that is only alike would shift the raster.
        return code if code and own.equals(parsed_crs(code), ignore_axis_order=True) else text
    except CRSError:
        raise RasterError(
            f"The coordinate reference system of '{dataset.name}' is not understood: {text[:80]}.",
            "Set it with 'Assign projection' (gdal_edit -a_srs EPSG:...).",
        ) from None


def _all_tags(dataset: DatasetReader) -> dict[str, str]:
    """Tags of every plain namespace; metadata of products (``ENVI``, ``IMAGERY``) counts as much as the default one."""
    tags: dict[str, str] = {}
    for namespace in dataset.tag_namespaces():
        if not namespace.startswith(("xml:", "DERIVED", "IMAGE_STRUCTURE")):
            tags.update(dataset.tags(ns=namespace))
    return {**tags, **dataset.tags()}


def _resolution_m(path: str, crs: str, transform: Affine, bounds: Bounds) -> float:
    """Side of a square of a pixel's area in metres, good to a percent: it only tells sensors apart.

    Raises:
        RasterError: the raster's middle has no place on the Earth.
    """
    width, height = source_pixel_size(transform)
    middle = Grid(crs, (bounds.left + bounds.right) / 2, (bounds.bottom + bounds.top) / 2, width, height, 1, 1)
    try:
        longitude, latitude = middle.center()
        resolution = middle.resolution_m()
    except ProjError:
        longitude = latitude = resolution = math.nan
    # Longitudes may be counted on beyond the antimeridian; one round and a half is more than any file does.
    if not (abs(latitude) <= 90 and abs(longitude) <= 540 and 0 < resolution < math.inf):
        raise RasterError(
            f"The raster '{path}' has no place on the Earth: x {middle.left:g}, y {middle.top:g} in {parsed_crs(crs).name}.",
            "Check its coordinate reference system ('Assign projection') and its coordinates.",
        )
    return resolution


def _sample(dataset: DatasetReader) -> NDArray[np.float32]:
    """Values from nine places of the raster, and where these tell nothing apart from a place that does.

    Returns:
        (bands, n) stored values, NaN = missing. They are constant only where the whole raster is.

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
    if is_constant(sample):
        sample = _first_varied(dataset, bands)
    return sample


def is_constant(values: NDArray[np.float32]) -> bool:
    """Whether no band of (bands, n) values, NaN = missing, tells two pixels apart."""
    low, high = _range(values)
    return bool((low >= high).all())


def _range(values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lowest and highest value of each band; infinite and crossed where it has none."""
    missing = np.isnan(values)
    return np.where(missing, np.inf, values).min(axis=1), np.where(missing, -np.inf, values).max(axis=1)


def _first_varied(dataset: DatasetReader, bands: list[int]) -> NDArray[np.float32]:
    """The first block in which a band has another value than before, else the one value of each band: (bands, n)."""
    low, high = np.full(len(bands), np.inf, np.float32), np.full(len(bands), -np.inf, np.float32)
    for _, block in dataset.block_windows(1):
        window = Window(int(block.col_off), int(block.row_off), int(block.width), int(block.height))
        values = read_stored(dataset, bands, window).reshape(len(bands), -1)
        block_low, block_high = _range(values)
        low, high = np.minimum(low, block_low), np.maximum(high, block_high)
        if (low < high).any():
            return np.concatenate([values, _finite(low)[:, None], _finite(high)[:, None]], axis=1)
    if not np.isfinite(low).any():
        raise RasterError(
            f"The raster '{dataset.name}' holds nothing but nodata.", "Leave it out, or choose one that covers the scene."
        )
    return _finite(low)[:, None]


def _finite(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(np.isfinite(values), values, np.float32(np.nan))


def _first_line(error: BaseException) -> str:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    text = str(cause) or str(error)
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
