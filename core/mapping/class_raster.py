"""Reading a class raster back, whoever made it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.errors import LabelError, RasterError
from core.labels.palette import colours_for
from core.labels.scheme import ClassScheme, LandCoverClass
from core.labels.style import entries_from_qml
from core.mapping.sidecars import ClassAreas
from core.scenes.grid import Grid, Window
from core.scenes.raster_file import RasterFile, open_raster, read_raster_file, read_stored

CLASSES_TAG = "RSFUSION_CLASSES"
AREA_ROWS = 512


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


def open_class_raster(path: str, fewest_classes: int = 2) -> ClassRaster:
    """A class raster with the meaning of its codes.

    Names and colours come from the tags of our own maps, else from a QGIS style beside the file, else they are the
    codes themselves.

    Args:
        path: of the raster.
        fewest_classes: that have to occur in it.

    Raises:
        RasterError: not a class raster, or too few classes occur in it.
    """
    file = read_raster_file(path)
    grid = _grid_of(file)
    codes = _codes_of(file)
    if len(codes) < fewest_classes:
        raise RasterError(
            f"The map '{path}' holds one class only (code {codes[0]}): there is nothing to tell apart.",
            "Give a map with at least two classes.",
        )
    return ClassRaster(path, grid, _scheme_of(path, codes))


def class_areas(raster: ClassRaster) -> ClassAreas:
    """Pixels and area of every code of a map on disk; nodata counts as code 0."""
    areas = ClassAreas(raster.grid)
    for row in range(0, raster.grid.height, AREA_ROWS):
        window = Window(0, row, raster.grid.width, min(AREA_ROWS, raster.grid.height - row))
        areas.add(raster.read(window), row)
    return areas


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
        nodata = dataset.nodata
        for _, block in dataset.block_windows(1):
            window = Window(int(block.col_off), int(block.row_off), int(block.width), int(block.height))
            values = np.unique(read_stored(dataset, [1], window))
            values = values[np.isfinite(values)]
            wrong = values[(values != values.round()) | (values < 0) | (values > 255)]
            if wrong.size:
                raise RasterError(
                    f"'{file.path}' holds values that are no class codes, such as {wrong[0]:g}.",
                    "A class raster holds whole numbers from 1 to 255, and 0 for nodata.",
                )
            found.update(int(value) for value in values)
    if 0 in found and nodata not in (None, 0):
        raise RasterError(
            f"The map '{file.path}' has the code 0 where it has data, and {nodata:g} where it has none; 0 is no class here.",
            "Give the class another code from 1 to 255 with a raster calculator, or declare 0 as nodata if it is none.",
        )
    found.discard(0)
    if not found:
        raise RasterError(f"The map '{file.path}' holds nodata only.", "Give a map in which something was mapped.")
    return sorted(found)


def _scheme_of(path: str, codes: list[int]) -> ClassScheme:
    """What the codes mean; codes that nothing names are called by their number."""
    classes = _tagged_classes(path)
    if classes is None:
        classes = _styled_classes(path)
    unnamed = [str(code) for code in codes if code not in {entry.code for entry in classes}]
    for name, colour in zip(unnamed, colours_for(unnamed), strict=True):
        classes.append(LandCoverClass(int(name), name, colour, name))
    return ClassScheme(Path(path).stem, tuple(sorted(classes, key=lambda entry: entry.code)))


def _tagged_classes(path: str) -> list[LandCoverClass] | None:
    """The classes that our own maps carry in a tag; None where there is no such tag."""
    with open_raster(path) as dataset:
        text = dataset.tags().get(CLASSES_TAG)
    if not text:
        return None
    try:
        classes = [LandCoverClass(**entry) for entry in json.loads(text)]
        ClassScheme(Path(path).stem, tuple(classes))
    except (json.JSONDecodeError, TypeError, ValueError) as error:
        raise RasterError(f"The tag {CLASSES_TAG} of '{path}' is damaged: {error}.", "Map the scene again.") from None
    return classes


def _styled_classes(path: str) -> list[LandCoverClass]:
    """The classes of a QGIS style beside the raster; none where there is no style that can be used."""
    style = Path(path).with_suffix(".qml")
    if not style.is_file():
        return []
    try:
        named = {int(entry.value): entry for entry in entries_from_qml(style)}
    except (LabelError, ValueError):
        return []
    return [
        LandCoverClass(code, entry.name, entry.colour.lower(), str(code)) for code, entry in named.items() if 1 <= code <= 255
    ]
