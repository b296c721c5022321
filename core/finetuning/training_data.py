"""The part of a scene that labels need: blocks of pixels around them, read once, cut into windows many times."""

from __future__ import annotations

import copy
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.errors import LabelError, OutputError
from core.labels.label_set import LabelSet
from core.labels.pixel_shapes import pixel_shapes
from core.labels.rasterizing import rasterize
from core.scenes.grid import Grid, Window, aligned
from core.scenes.reading import SceneReader, usable_pixels
from core.scenes.scene import Acquisition, Scene

BLOCK = 48
"""Side of a stored block in reference pixels: a multiple of every coarser factor."""

MEMORY_LIMIT = 2 * 1024**3
"""Above this many bytes the blocks go to a temporary file that the system pages in and out."""

Arrays = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class TrainingWindow:
    """A window of the scene with its labels.

    Attributes:
        values: by modality (bands, rows, columns) float32 on its own scale, NaN = missing.
        classes: (rows, columns) int16 on the reference grid, -1 = no label, or no data to learn it from.
        feature: (rows, columns) int32, index into the label set, -1 where ``classes`` is -1.
        weight: (rows, columns) float32, how much a label counts: 1 where it was drawn.
    """

    values: Arrays
    classes: NDArray[np.int16]
    feature: NDArray[np.int32]
    weight: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class WeightedPixels:
    """Pixels that nobody drew, with the class they are taken for.

    Attributes:
        pixels: (n, 4) int64, as ``TrainingData.pixels``; the feature is that of the label they come from.
        weights: (n,) float32, how much each counts beside a drawn pixel.
    """

    pixels: NDArray[np.int64]
    weights: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.pixels)

    def some(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> WeightedPixels:
        return WeightedPixels(self.pixels[rows], self.weights[rows])


NO_PIXELS = WeightedPixels(np.empty((0, 4), np.int64), np.empty(0, np.float32))


class TrainingData:
    """Blocks around the labels, in memory or in a temporary file, and windows cut from them.

    Args:
        scene: whose acquisitions are the model's inputs.
        labels: in the scene's system.
        reach: reference pixels around the labels that windows may touch.
        progress: told the part done.
        allows_missing: whether labels count where only some of the rasters have data.

    Attributes:
        pixels: (n, 4) int64, column and row on the reference grid, class and feature of all drawn pixels with data.
        spread: further pixels to learn from, never to score; see ``core.finetuning.label_spreading``.

    Raises:
        LabelError: no labelled pixel has data.
        OutputError: the temporary file does not fit on its disk.
        RasterError: a raster cannot be read.
    """

    def __init__(
        self,
        scene: Scene,
        labels: LabelSet,
        reach: int,
        progress: Callable[[float], None] = lambda part: None,
        allows_missing: bool = False,
    ) -> None:
        self.scene = scene
        self.labels = labels
        self.allows_missing = allows_missing
        self._slots = {block: slot for slot, block in enumerate(_blocks_near(labels, scene.grid, reach))}
        self._store = _Store(scene.acquisitions, len(self._slots))
        self._classes = np.full((len(self._slots), BLOCK, BLOCK), -1, np.int16)
        self._feature = np.full((len(self._slots), BLOCK, BLOCK), -1, np.int32)
        self._weight = np.ones((len(self._slots), BLOCK, BLOCK), np.float32)
        self.spread = NO_PIXELS
        self._fill(progress)
        self.pixels = self._labelled_pixels()
        if not len(self.pixels):
            raise LabelError(
                f"No labelled pixel has data in {'any' if allows_missing else 'every'} raster that is used.",
                "Draw labels where all rasters overlap, or leave out the raster that covers too little.",
            )

    def _fill(self, progress: Callable[[float], None]) -> None:
        runs = list(_runs(self._slots))
        with SceneReader(self.scene) as reader:
            for number, (row, first, stop) in enumerate(runs):
                window = _block_window(self.scene.grid, first, row, stop - first)
                values = reader.read(window)
                burnt = rasterize(self.labels, self.scene.grid, window)
                valid = usable_pixels(values, self.scene.acquisitions, allows_missing=self.allows_missing)
                classes = np.where(valid, burnt.classes, -1)
                feature = np.where(valid, burnt.feature, -1)
                for column in range(first, stop):
                    slot = self._slots[column, row]
                    part = slice((column - first) * BLOCK, (column - first + 1) * BLOCK)
                    self._classes[slot], self._feature[slot] = classes[:, part], feature[:, part]
                    self._store.put(slot, values, column - first)
                progress((number + 1) / len(runs))

    def _labelled_pixels(self) -> NDArray[np.int64]:
        """(n, 4) column and row on the reference grid, class, feature, in the order of rows and columns of blocks."""
        parts = []
        for (column, row), slot in self._slots.items():
            rows, columns = np.nonzero(self._classes[slot] >= 0)
            window = _block_window(self.scene.grid, column, row, 1)
            parts.append(
                np.stack(
                    [
                        columns + window.column,
                        rows + window.row,
                        self._classes[slot, rows, columns],
                        self._feature[slot, rows, columns],
                    ],
                    axis=1,
                )
            )
        return np.concatenate(parts) if parts else np.empty((0, 4), np.int64)

    def window(self, window: Window) -> TrainingWindow:
        """The window's values and labels; NaN and -1 outside the blocks near labels.

        Args:
            window: with absolute edges at multiples of the scene's ``step``.
        """
        values = self._store.empty(window.shape)
        classes = np.full(window.shape, -1, np.int16)
        feature = np.full(window.shape, -1, np.int32)
        weight = np.ones(window.shape, np.float32)
        around = aligned(self.scene.grid, window, BLOCK)
        anchor = self.scene.grid.anchor()
        for row in range((around.row + anchor[1]) // BLOCK, (around.stop_row + anchor[1]) // BLOCK):
            for column in range((around.column + anchor[0]) // BLOCK, (around.stop_column + anchor[0]) // BLOCK):
                slot = self._slots.get((column, row))
                if slot is None:
                    continue
                block = _block_window(self.scene.grid, column, row, 1)
                common = block.intersection(window)
                to, source = common.slices_within(window), common.slices_within(block)
                classes[to], feature[to] = self._classes[slot][source], self._feature[slot][source]
                weight[to] = self._weight[slot][source]
                self._store.copy(slot, source, values, to)
        return TrainingWindow(values, classes, feature, weight)

    def only(self, features: NDArray[np.bool_]) -> TrainingData:
        """The same blocks with the labels of some features: those of all others are as if they had never been drawn.

        Args:
            features: (n_features,) bool, those to keep.
        """
        part = copy.copy(self)
        kept = (self._feature >= 0) & features[self._feature]
        part._classes = np.where(kept, self._classes, np.int16(-1))
        part._feature = np.where(kept, self._feature, np.int32(-1))
        part.pixels = self.pixels[features[self.pixels[:, 3]]]
        part.spread = self.spread.some(features[self.spread.pixels[:, 3]])
        return part

    def unlabelled(self, most: int) -> NDArray[np.int64]:
        """(n, 4) as ``pixels``, class and feature -1: pixels with data under no drawn shape, evenly over the blocks with a
        label and those around them, where these have their surroundings.

        Args:
            most: about so many in all.
        """
        column, row = self.scene.grid.anchor()
        near = {
            (c + right, r + down)
            for c, r in np.unique((self.pixels[:, :2] + (column, row)) // BLOCK, axis=0).tolist()
            for right in (-1, 0, 1)
            for down in (-1, 0, 1)
        }
        blocks = [
            (c, r)
            for c, r in sorted(near, key=lambda block: (block[1], block[0]))
            if all((c + right, r + down) in self._slots for right in (-1, 0, 1) for down in (-1, 0, 1))
        ]
        each = max(1, most // max(1, len(blocks)))
        parts = [np.empty((0, 4), np.int64)]
        for number in np.linspace(0, len(blocks) - 1, min(len(blocks), most)).round().astype(int).tolist():
            block_column, block_row = blocks[number]
            window = _block_window(self.scene.grid, block_column, block_row, 1)
            values = self.window(window).values
            usable = usable_pixels(values, self.scene.acquisitions, allows_missing=self.allows_missing)
            rows, columns = np.nonzero(usable & ~pixel_shapes(self.labels, self.scene.grid).covered(window))
            kept = np.linspace(0, len(rows) - 1, min(len(rows), each)).round().astype(int)
            none = np.full(len(kept), -1, np.int64)
            parts.append(np.stack([columns[kept] + window.column, rows[kept] + window.row, none, none], axis=1))
        return np.concatenate(parts)

    def with_spread(self, spread: WeightedPixels) -> TrainingData:
        """The same blocks, in whose windows further pixels have a label, of less weight than the drawn ones.

        Args:
            spread: pixels without a label, with the number of a feature each.
        """
        part = copy.copy(self)
        part.spread = spread
        part._classes, part._feature, part._weight = self._classes.copy(), self._feature.copy(), self._weight.copy()
        columns, rows = (spread.pixels[:, axis] + self.scene.grid.anchor()[axis] for axis in (0, 1))
        blocks = zip((columns // BLOCK).tolist(), (rows // BLOCK).tolist(), strict=True)
        place = np.array([self._slots[block] for block in blocks], np.int64), rows % BLOCK, columns % BLOCK
        part._classes[place], part._feature[place] = spread.pixels[:, 2], spread.pixels[:, 3]
        part._weight[place] = spread.weights
        return part


def thinned(pixels: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most so many pixels of each class, evenly over the list, in its order.

    Args:
        pixels: (n, 4) as ``TrainingData.pixels``.
        most: of a class.
    """
    return np.asarray(pixels[thinned_rows(pixels, most)])


def thinned_rows(pixels: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Which rows ``thinned`` keeps."""
    kept = [np.empty(0, np.int64)]
    for index in np.unique(pixels[:, 2]):
        rows = np.flatnonzero(pixels[:, 2] == index)
        kept.append(rows[np.linspace(0, len(rows) - 1, min(len(rows), most)).round().astype(int)])
    return np.asarray(np.sort(np.concatenate(kept)), np.int64)


class _Store:
    """Blocks of every acquisition on its own scale."""

    def __init__(self, acquisitions: Sequence[Acquisition], count: int) -> None:
        self._acquisitions = acquisitions
        shapes = {a.name: (count, len(a.bands), _scaled(BLOCK, a), _scaled(BLOCK, a)) for a in acquisitions}
        size = 4 * sum(int(np.prod(shape)) for shape in shapes.values())
        self._arrays: dict[str, np.ndarray] = {}
        folder = _paging_folder(size) if size > MEMORY_LIMIT else None
        if folder is not None:
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        for name, shape in shapes.items():
            if folder is None:
                self._arrays[name] = np.empty(shape, np.float32)
            else:
                self._arrays[name] = np.memmap(folder / f"{name}.bin", np.float32, "w+", shape=shape)

    def put(self, slot: int, values: Arrays, number: int) -> None:
        """Stores the ``number``-th block of a row of blocks."""
        for acquisition in self._acquisitions:
            side = _scaled(BLOCK, acquisition)
            part = slice(number * side, (number + 1) * side)
            self._arrays[acquisition.name][slot] = values[acquisition.name][:, :, part]

    def empty(self, shape: tuple[int, int]) -> Arrays:
        return {
            a.name: np.full((len(a.bands), _scaled(shape[0], a), _scaled(shape[1], a)), np.nan, np.float32)
            for a in self._acquisitions
        }

    def copy(self, slot: int, source: tuple[slice, slice], values: Arrays, to: tuple[slice, slice]) -> None:
        for a in self._acquisitions:
            rows, columns = (_scaled_slice(part, a) for part in source)
            to_rows, to_columns = (_scaled_slice(part, a) for part in to)
            values[a.name][:, to_rows, to_columns] = self._arrays[a.name][slot][:, rows, columns]


def _paging_folder(size: int) -> Path:
    """A temporary folder on a disk with so many bytes left: where a mapped file finds none, the system kills the process."""
    parent = tempfile.gettempdir()
    free = shutil.disk_usage(parent).free
    if free < size:
        raise OutputError(
            f"The surroundings of the labels take {size / 2**30:.1f} GiB, and the disk of '{parent}' has "
            f"{free / 2**30:.1f} GiB left.",
            "Free some space, or name a folder on a larger disk in the environment variable TMPDIR.",
        )
    return Path(tempfile.mkdtemp(prefix="rsfusion-"))


def _scaled(pixels: int, acquisition: Acquisition) -> int:
    return pixels * acquisition.scale.finer // acquisition.scale.coarser


def _scaled_slice(part: slice, acquisition: Acquisition) -> slice:
    return slice(_scaled(part.start, acquisition), _scaled(part.stop, acquisition))


def _block_window(grid: Grid, column: int, row: int, count: int) -> Window:
    """Window of ``count`` blocks beside each other, from absolute block column and row."""
    anchor_column, anchor_row = grid.anchor()
    return Window(column * BLOCK - anchor_column, row * BLOCK - anchor_row, BLOCK * count, BLOCK)


def _blocks_near(labels: LabelSet, grid: Grid, reach: int) -> list[tuple[int, int]]:
    """Absolute (column, row) of the blocks within reach of a label, row by row."""
    anchor_column, anchor_row = grid.anchor()
    blocks: set[tuple[int, int]] = set()
    for left, top, right, bottom in pixel_shapes(labels, grid).boxes.tolist():
        first_column = (max(0, left) - reach + anchor_column) // BLOCK
        stop_column = -((-(min(grid.width, right) + reach + anchor_column)) // BLOCK)
        first_row = (max(0, top) - reach + anchor_row) // BLOCK
        stop_row = -((-(min(grid.height, bottom) + reach + anchor_row)) // BLOCK)
        blocks.update((c, r) for r in range(first_row, stop_row) for c in range(first_column, stop_column))
    return sorted(blocks, key=lambda block: (block[1], block[0]))


def _runs(blocks: dict[tuple[int, int], int]) -> Iterator[tuple[int, int, int]]:
    """Row, first and stop column of blocks that lie beside each other: they are read, and warped, together."""
    start: tuple[int, int] | None = None
    previous: tuple[int, int] | None = None
    for column, row in blocks:
        if start is None or previous != (column - 1, row):
            if start is not None and previous is not None:
                yield start[1], start[0], previous[0] + 1
            start = (column, row)
        previous = (column, row)
    if start is not None and previous is not None:
        yield start[1], start[0], previous[0] + 1
