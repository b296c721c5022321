"""Result rasters, written strip by strip, whole or not at all.

A raster is written beside its target under a temporary name, read back and compared, and renamed. Reading it back is not
for want of trust in the disk: GDAL compresses the last blocks when a file is closed, and rasterio 1.4 does not say when
that fails, so a map on a full disk would look finished and be cut off.

Provenance stands in the TIFF's default metadata domain, under these names, each of them text:

==========================  =====================================================================
``RSFUSION_VERSION``        version of this software
``RSFUSION_CREATED``        when the map was made, ISO 8601, UTC
``RSFUSION_MODEL``          file name of the model
``RSFUSION_MODEL_SHA256``   SHA-256 of the model file
``RSFUSION_INPUTS``         JSON: input to list of file names
``RSFUSION_SETTINGS``       JSON: what was asked for, such as overlap and resolution
``RSFUSION_CLASSES``        JSON: the classes with code, name and colour
==========================  =====================================================================
"""

from __future__ import annotations

import math
import os
import secrets
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterioWindow

from core.errors import OutputError
from core.folders import check_writable
from core.scenes.grid import Grid

BLOCK_CACHE_BYTES = 112 * 2**20
"""rasterio 1.4 passes a whole number for ``GDAL_CACHEMAX`` on as bytes, where GDAL itself reads small ones as MiB."""

RasterFormat = Literal["gtiff", "cog"]

WRITTEN_ROWS = _BLOCK = 512
"""Rows of a raster of few bands that are gathered before they are written."""
_SMALL_BLOCK = 256
_SMALLEST_BLOCK = 64
_BLOCK_BYTES = 16 * 2**20
"""Of all bands of a block, which lie together: whoever reads one of them unpacks the others."""
_IN_MEMORY_BYTES = 128 * 2**20
"""What is gathered lies on the disk where it is more: rows of hundreds of bands take gigabytes."""
_PIECE_VALUES = 4 * 2**20
"""That are read back at once."""
_OVERVIEWS_FROM = 1024
"""Rasters of at least this many pixels along a side get overviews: smaller ones are drawn as fast without."""
_FULL_BELOW_BYTES = 2**20
"""A disk with less than this left after a failed write is full: what was to be written is larger than that."""


def raster_environment() -> rasterio.Env:
    """GDAL settings for reading and writing rasters in this process; enter it once around a job."""
    return rasterio.Env(GDAL_CACHEMAX=BLOCK_CACHE_BYTES)


def check_output(path: Path, inputs: Iterable[str | Path] = ()) -> None:
    """Checks, before any work, that a file can be written.

    Args:
        path: of the file.
        inputs: what the job reads; none of them may be the output, under any of its names.

    Raises:
        OutputError: the folder is missing or read-only, the path is a folder, or is one of the inputs.
    """
    folder = path.absolute().parent
    if path.is_dir():
        raise OutputError(f"'{path}' is a folder.", "Give the name of a file to write.")
    if not folder.is_dir():
        raise OutputError(f"The folder '{folder}' does not exist.", "Create it first, or choose another place.")
    for given in inputs:
        if _is_same_file(path, Path(given)):
            raise OutputError(f"The output '{path}' is also an input.", "Choose another name for the output.")
    check_writable(folder)
    if path.exists() and not os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise OutputError(f"'{path}' is read-only.", "Choose another name, or make the file writable.")


def _is_same_file(first: Path, second: Path) -> bool:
    try:
        if first.exists() and second.exists():
            return first.samefile(second)
        return first.resolve() == second.resolve()
    except OSError:
        # A name that the file system cannot even look up, such as a GDAL connection string, is not the output.
        return False


def check_space(path: Path, needed_bytes: int) -> None:
    """Checks that the disk has room for a file.

    Args:
        path: of the file.
        needed_bytes: its size, or a bound of it.

    Raises:
        OutputError: there is less.
    """
    free = shutil.disk_usage(path.absolute().parent).free
    if free < needed_bytes:
        raise OutputError(
            f"'{path}' may take {needed_bytes / 2**20:.1f} MiB, and its disk has {free / 2**20:.1f} MiB left.",
            "Free some space, map a smaller extent, or choose another disk.",
        )


class StripWriter:
    """Writes a raster from strips of rows that come in order.

    Strips may have any height: rows are gathered until they fill a row of blocks, so no block is compressed twice. Used
    as a context manager, it puts the file in place at the end, or removes what is half done when an exception passes.
    Write from one thread at a time.

    Args:
        path: of the raster.
        grid: of the raster.
        count: number of bands.
        dtype: of the values.
        nodata: value of pixels without data, or None.
        descriptions: a text for each band.
        tags: provenance, see the module's text.
        colormap: colour table of band 1, code to red, green, blue, alpha.
        file_format: ``gtiff`` or ``cog``; both are tiled and compressed; large ones have overviews,
            unless they are ``gtiff`` of several bands.

    Raises:
        OutputError: the file cannot be made.
    """

    def __init__(
        self,
        path: Path,
        grid: Grid,
        count: int,
        dtype: str,
        nodata: float | None,
        *,
        descriptions: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
        colormap: Mapping[int, tuple[int, int, int, int]] | None = None,
        file_format: RasterFormat = "gtiff",
    ) -> None:
        self._path = path
        self._grid = grid
        self._count = count
        self._dtype = np.dtype(dtype)
        self._block = _block_side(grid, count * self._dtype.itemsize)
        self._is_classes = colormap is not None
        self._file_format = file_format
        self._partial = _beside(path, "part")
        self._rows = self._gathering(self._block)
        self._gathered = 0
        self._strip: NDArray[Any] | None = None
        self._strip_columns = self._strip_height = 0
        self._next_row = 0
        self._checksums: list[list[int]] = []
        try:
            with raster_environment():
                self._dataset: Any = rasterio.open(self._partial, "w", **self._profile(nodata))
                if descriptions:
                    self._dataset.descriptions = tuple(descriptions)
                self._dataset.update_tags(**(tags or {}))
                if colormap is not None:
                    self._dataset.write_colormap(1, dict(colormap))
        except (OSError, RasterioError) as error:
            raise self._failure(error) from error

    def _gathering(self, rows: int) -> NDArray[Any]:
        """(count, rows, width) to write to, in memory or in a file beside the raster that goes with the process."""
        shape = self._count, rows, self._grid.width
        if math.prod(shape) * self._dtype.itemsize <= _IN_MEMORY_BYTES:
            return np.empty(shape, self._dtype)
        try:
            with tempfile.TemporaryFile(dir=self._path.absolute().parent) as file:
                # The file lives as long as it is mapped. A disk that is full later would end the process.
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, math.prod(shape) * self._dtype.itemsize)
                return np.memmap(file, self._dtype, "w+", shape=shape)
        except OSError as error:
            raise self._failure(error) from error

    def _profile(self, nodata: float | None) -> dict[str, Any]:
        return {
            "driver": "GTiff",
            "crs": self._grid.crs,
            "transform": self._grid.transform,
            "width": self._grid.width,
            "height": self._grid.height,
            "count": self._count,
            "dtype": self._dtype.name,
            "nodata": nodata,
            "tiled": True,
            "blockxsize": self._block,
            "blockysize": self._block,
            # With the bands of a block together the blocks' order in the file does not depend on the cache.
            "interleave": "pixel",
            "compress": "deflate",
            "predictor": self._predictor,
            "bigtiff": "if_safer",
        }

    @property
    def _predictor(self) -> int:
        """Differences help where values are numbers; the codes of classes compress better as they are."""
        if self._is_classes:
            return 1
        return 3 if self._dtype.kind == "f" else 2

    def __enter__(self) -> StripWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def write(self, values: NDArray[Any], row: int) -> None:
        """Writes the next strip.

        Args:
            values: (count, height, width) of the raster's dtype.
            row: the raster's row of the strip's first row: where the strip before it ended.

        Raises:
            ValueError: strips out of order, or of another shape or dtype.
            OutputError: the disk is full.
        """
        height = values.shape[1] if values.ndim == 3 else -1
        expected = (self._count, height, self._grid.width)
        if values.shape != expected or values.dtype != self._dtype or row + height > self._grid.height:
            raise ValueError(
                f"Expected a strip of shape {(self._count, 'rows', self._grid.width)} and type {self._dtype} within "
                f"{self._grid.height} rows; got {values.shape} of {values.dtype} at row {row}."
            )
        if row != self._next_row:
            raise ValueError(f"Expected the strip of row {self._next_row}; got row {row}.")
        done = 0
        while done < height:
            taken = min(self._block - self._gathered, height - done)
            self._rows[:, self._gathered : self._gathered + taken] = values[:, done : done + taken]
            self._gathered += taken
            self._next_row += taken
            done += taken
            if self._gathered == self._block or self._next_row == self._grid.height:
                self._flush()

    def write_part(self, values: NDArray[Any], row: int, column: int) -> None:
        """Writes a part of the next strip; parts come from west to east, all of a strip before those of the next.

        Args:
            values: (count, height, columns) of the raster's dtype.
            row, column: the raster's, of the part's first pixel.

        Raises:
            ValueError: parts out of order, or of another shape or dtype.
            OutputError: the disk is full.
        """
        count, height, width = values.shape
        if column == self._strip_columns == 0:
            if width == self._grid.width:
                self.write(values, row)
                return
            self._strip_height = height
        expected = (self._count, self._strip_height), (self._next_row, self._strip_columns), self._dtype
        if ((count, height), (row, column), values.dtype) != expected or column + width > self._grid.width:
            raise ValueError(
                f"Expected {self._count} bands, {self._strip_height} rows of {self._dtype} at row {self._next_row}, column "
                f"{self._strip_columns}; got {values.shape} of {values.dtype} at row {row}, column {column}."
            )
        if self._strip is None or self._strip.shape[1] < height:
            self._strip = self._gathering(height)
        self._strip[:, :height, column : column + width] = values
        self._strip_columns += width
        if self._strip_columns == self._grid.width:
            self._strip_columns = 0
            self.write(self._strip[:, :height], row)

    def _pieces(self) -> list[slice]:
        """Columns whose rows of blocks are compared at once."""
        blocks = max(1, _PIECE_VALUES // (self._count * self._block**2))
        width = blocks * self._block
        return [slice(first, min(first + width, self._grid.width)) for first in range(0, self._grid.width, width)]

    def _flush(self) -> None:
        """Writes the gathered rows, a whole row of blocks."""
        rows = self._rows[:, : self._gathered]
        place = RasterioWindow(0, self._next_row - self._gathered, self._grid.width, self._gathered)
        try:
            self._dataset.write(rows, window=place)
        except (OSError, RasterioError) as error:
            raise self._failure(error) from error
        self._checksums.append([_checksum(rows[:, :, columns]) for columns in self._pieces()])
        self._gathered = 0

    def finish(self) -> None:
        """Completes the raster under its temporary name. What can still fail fails here, before anything is replaced.

        Raises:
            ValueError: rows are missing.
            OutputError: the disk is full.
        """
        if self._dataset.closed:
            return
        if self._next_row != self._grid.height:
            raise ValueError(f"'{self._path}' has {self._grid.height} rows and {self._next_row} were written.")
        try:
            with raster_environment():
                self._dataset.close()
                self._finish_layout()
                self._read_back()
        except (OSError, RasterioError) as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Finishes the raster and puts it in place.

        Raises:
            ValueError: rows are missing.
            OutputError: the disk is full, or the target is held open by another program.
        """
        try:
            self.finish()
            os.replace(self._partial, self._path)
        except OSError as error:
            raise self._failure(error) from error
        finally:
            self.abort()
        self._remove_stale()

    def abort(self) -> None:
        """Removes what is half done; does nothing after ``close``."""
        if not self._dataset.closed:
            self._dataset.close()
        for path in (self._partial, self._layout_path):
            path.unlink(missing_ok=True)

    @property
    def _layout_path(self) -> Path:
        return self._partial.with_name(self._partial.name + ".cog")

    def _finish_layout(self) -> None:
        """Adds the overviews of a plain GeoTIFF, or translates it to a cloud-optimised one."""
        resampling = Resampling.nearest if self._is_classes else Resampling.average
        if self._file_format == "cog":
            rasterio.shutil.copy(
                self._partial,
                self._layout_path,
                driver="COG",
                compress="DEFLATE",
                predictor="NO" if self._is_classes else "YES",
                blocksize=self._block,
                bigtiff="IF_SAFER",
                overview_resampling=resampling.name.upper(),
            )
            os.replace(self._layout_path, self._partial)
        elif max(self._grid.shape) >= _OVERVIEWS_FROM and self._count == 1:
            # Not for several bands: GDAL rewrites their overview blocks as its cache runs full, so that the file's
            # bytes would depend on what else the process reads. The COG driver has no such trouble.
            factors = [2]
            while max(self._grid.shape) / factors[-1] >= _OVERVIEWS_FROM / 2:
                factors.append(2 * factors[-1])
            with rasterio.open(self._partial, "r+") as dataset:
                dataset.build_overviews(factors, resampling)

    def _read_back(self) -> None:
        """Reads all that was written and compares it.

        Raises:
            OSError: the file is not what was written.
        """
        with rasterio.open(self._partial) as dataset:
            for index, checksums in enumerate(self._checksums):
                row = index * self._block
                height = min(self._block, self._grid.height - row)
                for columns, checksum in zip(self._pieces(), checksums, strict=True):
                    window = RasterioWindow(columns.start, row, columns.stop - columns.start, height)
                    if _checksum(dataset.read(window=window)) != checksum:
                        raise OSError(f"rows {row} to {row + height - 1} are not as they were written")
            levels = len(dataset.overviews(1))
        for level in range(levels):
            with rasterio.open(self._partial, overview_level=level) as overview:
                for _, window in overview.block_windows(1):
                    overview.read(window=window)

    def _failure(self, error: Exception) -> OutputError:
        """The error as the user should know it."""
        free = shutil.disk_usage(self._path.absolute().parent).free
        if free < _FULL_BELOW_BYTES:
            return OutputError(
                f"'{self._path}' cannot be written: the disk is full.", "Free some space, or choose another disk."
            )
        if isinstance(error, PermissionError):
            return OutputError(
                f"'{self._path}' cannot be written: {error.strerror}.",
                "Close it in other programs, or choose another name.",
            )
        cause = error.__cause__ or error
        return OutputError(f"'{self._path}' cannot be written: {cause}.", "Check the free space and the rights of its folder.")

    def _remove_stale(self) -> None:
        """Removes what described the file that was replaced: statistics, overviews and masks."""
        for suffix in (".aux.xml", ".ovr", ".msk"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)


def _block_side(grid: Grid, pixel_bytes: int) -> int:
    side = _BLOCK if min(grid.shape) >= _BLOCK else _SMALL_BLOCK
    while side > _SMALLEST_BLOCK and pixel_bytes * side**2 > _BLOCK_BYTES:
        side //= 2
    return side


def file_bytes(pixels: int, pixel_bytes: int, dtype: str, file_format: RasterFormat) -> float:
    """Bytes on the disk that writing a raster takes at most.

    Args:
        pixels: of the raster.
        pixel_bytes: of all of its bands.
        dtype: classes and pictures, whole numbers, shrink to less than half; probabilities and features hardly.
        file_format: overviews add a third, and a COG is translated from a whole file that lies beside it.
    """
    files = 7 / 3 if file_format == "cog" else 4 / 3
    return pixels * pixel_bytes * files * (0.5 if dtype == "uint8" else 1)


def gathered_bytes(grid: Grid, pixel_bytes: int, rows: int) -> tuple[int, int]:
    """Bytes in memory, and on the disk for the time being, that gathering parts of strips takes.

    Args:
        grid: of the raster.
        pixel_bytes: of all of its bands.
        rows: of a strip.
    """
    sizes = [grid.width * pixel_bytes * height for height in (_block_side(grid, pixel_bytes), rows)]
    in_memory = sum(size for size in sizes if size <= _IN_MEMORY_BYTES)
    return in_memory, sum(sizes) - in_memory


def _checksum(values: NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(values).data)


def _beside(path: Path, kind: str) -> Path:
    """A name in the same folder that nobody else has; with tempfile the finished file would be closed to others."""
    return path.absolute().with_name(f".{path.name}.{secrets.token_hex(4)}.{kind}")
