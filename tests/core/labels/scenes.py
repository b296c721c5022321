"""A small scene's grid and labels for the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import geopandas
import numpy as np
import shapely

from core.labels.label_set import LabelReport, LabelSet
from core.labels.scheme import ClassScheme, LandCoverClass
from core.scenes.grid import Grid

GRID = Grid("EPSG:32633", 500000.0, 5800000.0, 10.0, 10.0, 100, 80)


def square(column: float, row: float, size: float = 4.0) -> shapely.Polygon:
    """A square on the ground from a corner and a side in pixels of ``GRID``."""
    left, top = GRID.left + column * GRID.pixel_width, GRID.top - row * GRID.pixel_height
    return shapely.box(left, top - size * GRID.pixel_height, left + size * GRID.pixel_width, top)


def point(column: float, row: float) -> shapely.Point:
    return shapely.Point(GRID.left + column * GRID.pixel_width, GRID.top - row * GRID.pixel_height)


def label_set(geometries: Sequence[object], classes: Sequence[int], crs: str = GRID.crs) -> LabelSet:
    """Labels without a file; the classes are 'class 0', 'class 1' and so on."""
    count = max(classes) + 1
    scheme = ClassScheme(
        "test", tuple(LandCoverClass(index + 1, f"class {index}", "#102030", f"class {index}") for index in range(count))
    )
    shapes = np.empty(len(geometries), object)
    shapes[:] = list(geometries)
    report = LabelReport(len(shapes), 0, 0, (), (), (), (), tuple(np.bincount(np.asarray(classes), minlength=count).tolist()))
    return LabelSet(shapes, crs, np.asarray(classes, np.int16), np.arange(len(shapes)) + 1, scheme, report)


def write(path: Path, values: Sequence[object], geometries: Sequence[object], **options: object) -> Path:
    """A vector file with the field ``class`` in the grid's system, or the one in ``crs``."""
    crs = options.pop("crs", GRID.crs)
    table = geopandas.GeoDataFrame({"class": list(values)}, geometry=list(geometries), crs=GRID.crs)
    table = table.to_crs(crs) if crs is not None else table.set_crs(None, allow_override=True)
    table.to_file(path, **options)
    return path
