"""Polygons and grid cells that are labelled, or are to be labelled, as wholes: units.

A unit of training has one class, or several in one text, as the patches of BigEarthNet (Sumbul et al. 2019,
arXiv:1902.06148).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import shapely

from core.errors import LabelError, UsageError
from core.labels.label_set import LabelReport, LabelSet
from core.labels.rasterizing import PixelCounts
from core.labels.reading import Shapes, label_report, read_shapes
from core.labels.scheme import ClassScheme
from core.labels.schemes import StyleClass, listed, match_classes, resolve_with_notes
from core.scenes.grid import Grid, Window

MultiLabel = Literal["auto", "yes", "no"]

CELL_PIXELS = 64
"""Side of a cell where none is given: 640 m at 10 m."""

SMALLEST_CELL_PIXELS = 4
MOST_CELLS = 1_000_000


@dataclass(frozen=True, eq=False)
class Units:
    """Polygons that are looked at as wholes.

    Attributes:
        geometries: (N,) shapely polygons or multi-polygons in ``crs``.
        ids: (N,) int64, the features' ids in the source, or the cells counted row by row from 1.
        crs: that of the scene's grid.
    """

    geometries: np.ndarray
    ids: np.ndarray
    crs: str

    def __len__(self) -> int:
        return len(self.geometries)


@dataclass(frozen=True, eq=False)
class SceneLabels:
    """Units whose classes are known.

    Attributes:
        units: inside the scene.
        classes: (N, K) bool, whether a unit has a class; one a unit unless ``is_multi_label``.
        scheme: the K classes.
        separator: between the classes in a text; None where a unit has one class.
        report: what became of the features read.
        source: the file they came from, for messages.
    """

    units: Units
    classes: np.ndarray
    scheme: ClassScheme
    separator: str | None
    report: LabelReport
    source: str

    def __len__(self) -> int:
        return len(self.units)

    @property
    def is_multi_label(self) -> bool:
        return self.separator is not None

    @property
    def rarest(self) -> np.ndarray:
        """(N,) int16, of each unit's classes the one that the fewest units have."""
        counts = np.where(self.classes, self.classes.sum(axis=0), len(self) + 1)
        return np.asarray(counts.argmin(axis=1), np.int16)

    def of_rarest_class(self) -> LabelSet:
        """The units as labels of one class each, for what can hold out only those."""
        units = self.units
        return LabelSet(units.geometries, units.crs, self.rarest, units.ids, self.scheme, self.report, self.source)

    def counts(self, pixels: np.ndarray) -> PixelCounts:
        """The pixels of units as those of labels; other than these, units may overlap and each keeps its own.

        Args:
            pixels: (N,) of each unit.
        """
        tree = shapely.STRtree(self.units.geometries)
        pairs = tree.query(self.units.geometries, predicate="intersects").T
        pairs = pairs[pairs[:, 0] < pairs[:, 1]]
        first, second = (self.units.geometries[pairs[:, side]] for side in (0, 1))
        pairs = pairs[shapely.area(shapely.intersection(first, second)) > 0]
        classes = np.bincount(self.rarest, weights=pixels, minlength=len(self.scheme)).astype(np.int64)
        return PixelCounts(pixels.astype(np.int64), classes, 0, pairs.astype(np.int64).reshape(-1, 2))


def read_scene_labels(
    path: str | Path,
    class_field: str,
    grid: Grid,
    *,
    layer: str | None = None,
    entries: Sequence[StyleClass] = (),
    class_scheme: str = "auto",
    multi_label: MultiLabel = "auto",
) -> SceneLabels:
    """Polygons with one class, or several in one text; see ``read_shapes`` and ``split_classes``.

    Raises:
        LabelError: as ``read_shapes``; there are shapes other than polygons; one class only, or every unit has all of
            them; or a value is no class of the scheme.
    """
    shapes = read_shapes(path, class_field, grid, layer)
    _refuse_points(path, shapes)
    texts = [str(text) for text in shapes.texts]
    # What the style or the scheme knows as one class is one, whatever stands in it.
    parts, separator = split_classes(texts, multi_label, {entry.value.strip() for entry in entries})
    resolved = resolve_with_notes([part for each in parts for part in each], entries, class_scheme)
    lookup = match_classes(resolved.scheme, (part for each in parts for part in each))
    classes = np.zeros((len(parts), len(resolved.scheme)), bool)
    for row, each in enumerate(parts):
        classes[row, [lookup[part] for part in each]] = True
    if classes.all(axis=0).all() or (classes.any(axis=0).sum() < 2):
        raise LabelError(
            f"All polygons of '{path}' inside the scene have the same classes, {listed(resolved.scheme.names)}.",
            "Draw at least two classes inside the scene, or choose another field.",
        )
    units = Units(shapes.geometries, shapes.ids, grid.crs)
    report = label_report(shapes, tuple(classes.sum(axis=0).tolist()), resolved.notes)
    return SceneLabels(units, classes, resolved.scheme, separator, report, str(path))


def split_classes(
    texts: Sequence[str], multi_label: MultiLabel, known: set[str] | frozenset[str] = frozenset()
) -> tuple[list[tuple[str, ...]], str | None]:
    """The classes in each of some texts, and what separates them; None where each text is one class.

    Where any text holds a semicolon, semicolons separate and commas belong to names, of which nomenclatures have many
    ("Beaches, dunes, sands"). Commas separate otherwise; ``auto`` asks in addition that some part stands in another text,
    too: parts of one name alone do not.

    Args:
        texts: of the class field, not empty.
        multi_label: ``yes``, ``no``, or ``auto``: if the texts look like it.
        known: texts that are one class for certain.

    Raises:
        LabelError: a text has separators and no class.
    """
    if multi_label == "no":
        return [(text,) for text in texts], None
    open_texts = [text for text in texts if text not in known]
    separator = ";" if any(";" in text for text in open_texts) else ","
    parts = {text: (text,) if text in known else _parts(text, separator) for text in set(texts)}
    if multi_label == "auto" and separator == ",":
        holders = Counter(part for each in parts.values() for part in each)
        if not any(len(each) > 1 and any(holders[part] > 1 for part in each) for each in parts.values()):
            return [(text,) for text in texts], None
    return [parts[text] for text in texts], separator


def _parts(text: str, separator: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(part.strip() for part in text.split(separator) if part.strip()))
    if not found:
        raise LabelError(f"The class field holds '{text}', which names no class.", "Write classes as in 'Water; Trees'.")
    return found


def read_units(path: str | Path, grid: Grid) -> tuple[Units, list[str]]:
    """The polygons of a vector file that touch the scene, and remarks on those that were left out; see ``read_shapes``.

    Raises:
        LabelError: as ``read_shapes``, or there are shapes other than polygons.
    """
    shapes = read_shapes(path, None, grid)
    _refuse_points(path, shapes)
    return Units(shapes.geometries, shapes.ids, grid.crs), label_report(shapes, (), ()).remarks()


def grid_units(grid: Grid, window: Window, cell_size: float | None) -> Units:
    """Square cells over a part of a scene.

    Cells are counted from the scene's upper left corner, so that the cells of a part are those of the whole; those at the
    right and lower edge may reach beyond it.

    Args:
        grid: of the scene.
        window: cells that touch it are made.
        cell_size: side in the units of the grid's system; ``CELL_PIXELS`` pixels where None.

    Raises:
        UsageError: cells of hardly a pixel, or too many of them.
    """
    width, height = (CELL_PIXELS * size if cell_size is None else cell_size for size in (grid.pixel_width, grid.pixel_height))
    if min(width / grid.pixel_width, height / grid.pixel_height) < SMALLEST_CELL_PIXELS:
        raise UsageError(
            f"cell_size: {cell_size:g} is less than {SMALLEST_CELL_PIXELS} pixels of {grid.pixel_width:g}.",
            "Choose larger cells, or map the pixels with a model of 'Fine-tune on labels'.",
        )
    tiny = 1e-9
    columns, rows = (
        math.ceil(grid.width * grid.pixel_width / width - tiny),
        math.ceil(grid.height * grid.pixel_height / height - tiny),
    )
    first_column, first_row = (
        math.floor(window.column * grid.pixel_width / width + tiny),
        math.floor(window.row * grid.pixel_height / height + tiny),
    )
    stop_column = min(columns, math.ceil(window.stop_column * grid.pixel_width / width - tiny))
    stop_row = min(rows, math.ceil(window.stop_row * grid.pixel_height / height - tiny))
    count = (stop_column - first_column) * (stop_row - first_row)
    if count > MOST_CELLS:
        raise UsageError(f"The grid would have {count:,} cells; {MOST_CELLS:,} are the most.", "Choose larger cells.")
    row, column = (part.ravel() for part in np.mgrid[first_row:stop_row, first_column:stop_column])
    left, top = grid.left + column * width, grid.top - row * height
    boxes = np.asarray(shapely.box(left, top - height, left + width, top), object)
    return Units(boxes, (row * columns + column + 1).astype(np.int64), grid.crs)


def touching_extent(units: Units, grid: Grid, window: Window) -> Units:
    """The units that touch a part of the scene.

    Raises:
        LabelError: none does.
    """
    near = shapely.intersects(shapely.box(*grid.bounds_of(window)), units.geometries)
    if not near.any():
        raise LabelError("No unit lies in the extent.", "Choose another extent, or other units.")
    return Units(units.geometries[near], units.ids[near], units.crs)


def _refuse_points(path: str | Path, shapes: Shapes) -> None:
    points = shapes.ids[shapely.get_dimensions(shapes.geometries) < 2]
    if len(points):
        raise LabelError(
            f"'{path}' holds points (features {listed(points.tolist(), most=5)}); whole scenes are polygons.",
            "Leave the points out, or buffer them into polygons.",
        )
