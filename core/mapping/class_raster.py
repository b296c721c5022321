"""Reading a class raster back, whoever made it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from core.errors import LabelError, RasterError
from core.labels.palette import colours_for
from core.labels.scheme import ClassScheme, LandCoverClass
from core.labels.style import entries_from_qml
from core.scenes.grid import Grid, Window
from core.scenes.raster_file import RasterFile, open_raster, read_raster_file, read_stored

CLASSES_TAG = "RSFUSION_CLASSES"


@dataclass(frozen=True)
class ClassRaster:
    """A map on disk.

    Attributes:
        path: of the raster.
        grid: of its pixels.
        scheme: what its codes mean.
    """

    path: str
    grid: Grid
    scheme: ClassScheme

    def read(self, window: Window) -> NDArray[np.uint8]:
        """(rows, columns) codes of a window inside the grid; 0 = nodata."""
        with open_raster(self.path) as dataset:
            stored = read_stored(dataset, [1], window)[0]
        codes: NDArray[np.uint8] = np.nan_to_num(stored, nan=0.0).astype(np.uint8)
        return codes


def open_class_raster(path: str) -> ClassRaster:
    """A class raster with the meaning of its codes.

    Names and colours come from the tags of our own maps, else from a QGIS style beside the file, else they are the
    codes themselves.

    Raises:
        RasterError: not a class raster, or it holds one class only.
    """
    file = read_raster_file(path)
    codes = _codes_of(file)
    if len(codes) < 2:
        raise RasterError(
            f"The map '{path}' holds one class only (code {codes[0]}): there is nothing to tell apart.",
            "Give a map with at least two classes.",
        )
    return ClassRaster(path, _grid_of(file), _scheme_of(path, codes))


def _grid_of(file: RasterFile) -> Grid:
    transform = file.transform
    if transform.b or transform.d or transform.a <= 0 or transform.e >= 0:
        raise RasterError(f"The map '{file.path}' is rotated or south-up.", "Warp it to a north-up grid first.")
    return Grid(file.crs, transform.c, transform.f, transform.a, -transform.e, file.width, file.height)


def _codes_of(file: RasterFile) -> list[int]:
    """The codes that occur, nodata apart."""
    if file.description.band_count != 1:
        raise RasterError(
            f"'{file.path}' has {file.description.band_count} bands; a class raster has one.", "Give the class raster."
        )
    found: set[int] = set()
    with open_raster(file.path) as dataset:
        for _, block in dataset.block_windows(1):
            window = Window(int(block.col_off), int(block.row_off), int(block.width), int(block.height))
            values = np.unique(read_stored(dataset, [1], window))
            values = values[np.isfinite(values)]
            if (values != values.round()).any() or (values.size and (values.min() < 0 or values.max() > 255)):
                raise RasterError(
                    f"'{file.path}' holds values that are no class codes, such as {values[-1]:g}.",
                    "A class raster holds whole numbers from 1 to 255, and 0 for nodata.",
                )
            found.update(int(value) for value in values)
    found.discard(0)
    if not found:
        raise RasterError(f"The map '{file.path}' holds nodata only.", "Give a map that covers the reference.")
    return sorted(found)


def _scheme_of(path: str, codes: list[int]) -> ClassScheme:
    with rasterio.open(path) as dataset:
        text = dataset.tags().get(CLASSES_TAG)
    if text:
        try:
            return ClassScheme(Path(path).stem, tuple(LandCoverClass(**entry) for entry in json.loads(text)))
        except (json.JSONDecodeError, TypeError, ValueError) as error:
            raise RasterError(f"The tag {CLASSES_TAG} of '{path}' is damaged: {error}.", "Map the scene again.") from None
    named: dict[int, tuple[str, str]] = {}
    style = Path(path).with_suffix(".qml")
    if style.is_file():
        try:
            named = {int(entry.value): (entry.name, entry.colour) for entry in entries_from_qml(style)}
        except (LabelError, ValueError):
            named = {}
    wanted = sorted({*codes, *(code for code in named if 1 <= code <= 255)})
    colours = dict(zip(wanted, colours_for([named.get(code, (str(code), ""))[0] for code in wanted]), strict=True))
    classes = []
    for code in wanted:
        name, colour = named.get(code, (str(code), colours[code]))
        classes.append(LandCoverClass(code, name, colour.lower(), str(code)))
    return ClassScheme(Path(path).stem, tuple(classes))
