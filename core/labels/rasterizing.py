"""Labels to pixels, window by window: memory depends on the window, never on the scene."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from core.errors import GridError
from core.labels.label_set import LabelReport, LabelSet
from core.labels.pixel_shapes import PixelShapes, pixel_shapes
from core.scenes.grid import Grid, Window, same_crs

NO_LABEL = -1
"""The class of a pixel without a label, or whose labels contradict each other."""

BLOCK_PIXELS = 512
"""Side of the blocks in which a scene's labels are counted: 512 x 512 pixels take about 10 MB on the way."""

FEWEST_PIXELS = 30
"""A class with fewer labelled pixels is remarked upon: below that, a proportion's error exceeds about 9 points."""


@dataclass(frozen=True, eq=False)
class RasterizedLabels:
    """The labels of a window.

    Attributes:
        classes: (H, W) int16, index into the scheme's classes, -1 for none or contradicting ones.
        feature: (H, W) int32, index into the label set, -1 where ``classes`` is -1.
        conflicts: pixels claimed by features of different classes.
    """

    classes: np.ndarray
    feature: np.ndarray
    conflicts: int


@dataclass(frozen=True, eq=False)
class PixelCounts:
    """How many pixels the labels of a scene have.

    Attributes:
        features: (N,) int64, a feature.
        classes: (K,) int64, a class of the scheme.
        conflicts: pixels claimed by different classes.
        overlaps: (M, 2) int64, pairs of features that claim a common pixel; where more than two do, each later one is
            paired with the first.
    """

    features: np.ndarray
    classes: np.ndarray
    conflicts: int
    overlaps: np.ndarray


def rasterize(
    labels: LabelSet, grid: Grid, window: Window | None = None, features: Sequence[int] | np.ndarray | None = None
) -> RasterizedLabels:
    """The classes of a window's pixels.

    A polygon has the pixels whose centres it covers, a point the pixel that it lies in. A polygon that covers no centre
    has the pixel of a point inside it. A pixel of several features of one class belongs to the first; a pixel of
    features of different classes to none. Pixels outside the grid have no label. The result equals the same window cut
    out of the whole grid's.

    Args:
        labels: in the grid's system.
        grid: the scene's, or any other.
        window: of the grid; the whole grid by default.
        features: indices of the features to burn, as if there were no others; all by default.

    Raises:
        GridError: the labels are in another coordinate reference system.
    """
    _check_crs(labels, grid)
    shapes = pixel_shapes(labels, grid)
    window = grid.window if window is None else window
    return _burn(labels, shapes, grid, window, features)[0]


def count_pixels(labels: LabelSet, grid: Grid) -> PixelCounts:
    """Counts the pixels of features and classes, block by block, and finds the features that overlap.

    Raises:
        GridError: the labels are in another coordinate reference system.
    """
    _check_crs(labels, grid)
    shapes = pixel_shapes(labels, grid)
    features = np.zeros(len(labels), np.int64)
    conflicts = 0
    overlaps: set[tuple[int, int]] = set()
    for block in _labelled_blocks(shapes, grid):
        burnt, pairs = _burn(labels, shapes, grid, block, None)
        features += np.bincount(burnt.feature[burnt.feature >= 0], minlength=len(labels))
        conflicts += burnt.conflicts
        overlaps |= pairs
    classes = np.bincount(labels.class_index, weights=features, minlength=len(labels.scheme)).astype(np.int64)
    return PixelCounts(features, classes, conflicts, np.array(sorted(overlaps), np.int64).reshape(-1, 2))


def finish_report(labels: LabelSet, counts: PixelCounts, minimum_pixels: int = FEWEST_PIXELS) -> LabelReport:
    """The report of the labels with what counting their pixels has shown."""
    present = np.unique(labels.class_index).tolist()
    return replace(
        labels.report,
        pixels_per_class=tuple(counts.classes.tolist()),
        conflicts=counts.conflicts,
        without_pixel=tuple(labels.feature_ids[counts.features == 0].tolist()),
        sparse_classes=tuple(
            (labels.scheme.names[index], int(counts.classes[index]))
            for index in present
            if counts.classes[index] < minimum_pixels
        ),
        minimum_pixels=minimum_pixels,
    )


def _check_crs(labels: LabelSet, grid: Grid) -> None:
    if not same_crs(labels.crs, grid.crs):
        raise GridError(f"The labels are in {labels.crs} and the grid in {grid.crs}.", "Read the labels for this grid.")


def _burn(
    labels: LabelSet,
    shapes: PixelShapes,
    grid: Grid,
    window: Window,
    chosen: Sequence[int] | np.ndarray | None,
) -> tuple[RasterizedLabels, set[tuple[int, int]]]:
    feature = np.full(window.shape, -1, np.int32)
    conflict = np.zeros(window.shape, bool)
    pairs: set[tuple[int, int]] = set()
    class_of = np.append(labels.class_index, NO_LABEL).astype(np.int16)  # so that feature -1 has the class -1
    visible = window.intersection(grid.window)
    candidates = shapes.touching(visible)
    if chosen is not None:
        candidates = np.intersect1d(candidates, np.asarray(chosen, np.int64))
    for index in candidates.tolist():
        part, mask = shapes.mask(index, visible)
        if not mask.any():
            continue
        rows, columns = part.slices_within(window)
        here = feature[rows, columns]
        taken = mask & (here >= 0)
        if taken.any():
            pairs.update((int(other), index) for other in np.unique(here[taken]))
            conflict[rows, columns] |= taken & (class_of[here] != class_of[index])
        here[mask & (here < 0)] = index
    feature[conflict] = -1
    return RasterizedLabels(class_of[feature], feature, int(conflict.sum())), pairs


def _labelled_blocks(shapes: PixelShapes, grid: Grid) -> Iterator[Window]:
    """Blocks of the grid that some feature's rectangle touches, row by row."""
    boxes = shapes.boxes
    low = np.maximum(boxes[:, :2], 0) // BLOCK_PIXELS
    high = -(-np.minimum(boxes[:, 2:], (grid.width, grid.height)) // BLOCK_PIXELS)
    blocks: set[tuple[int, int]] = set()
    for (first_column, first_row), (stop_column, stop_row) in zip(low.tolist(), high.tolist(), strict=True):
        blocks.update((row, column) for row in range(first_row, stop_row) for column in range(first_column, stop_column))
    for row, column in sorted(blocks):
        yield Window(column * BLOCK_PIXELS, row * BLOCK_PIXELS, BLOCK_PIXELS, BLOCK_PIXELS).intersection(grid.window)
