"""A model over a scene: strips of tiles in, finished rows out.

The lattice of tiles is laid on absolute coordinates, so the map of a crop is the crop of the map. Memory depends on the
width alone: a strip of the rasters as high as a tile, and the class probabilities of as many rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from core.mapping.blending import Tiling, blending_weights, choose_tiling, fixed_tiling
from core.mapping.missing import InputSubsets
from core.mapping.rasters import BLOCK_CACHE_BYTES
from core.models.costs import forward_bytes
from core.models.model_file import ModelCard
from core.models.registry import model_step, receptive_radius
from core.scenes.grid import Window, lattice
from core.scenes.reading import VALUES_AT_ONCE, SceneReader
from core.scenes.scene import Scene

Arrays = dict[str, NDArray[np.float32]]
Allowed = Callable[[Window], NDArray[np.bool_]]

_READING_BYTES = 200
"""Bytes a pixel that warping takes on its way: where it comes from, twice, and four neighbours with their weights."""


@dataclass(frozen=True, eq=False)
class MapStrip:
    """Finished rows of a map.

    Attributes:
        window: where, in the scene's grid.
        probabilities: (n_classes, rows, columns) float32 that sum to one, or features; zero where nothing was mapped.
        mapped: (rows, columns) bool, False = nodata.
        subset: (rows, columns) uint8 number of the set of inputs that were there; see ``InputSubsets``.
    """

    window: Window
    probabilities: NDArray[np.float32]
    mapped: NDArray[np.bool_]
    subset: NDArray[np.uint8]


class MappingEngine:
    """Predicts class probabilities over a window of a scene.

    Args:
        model: in evaluation mode, on ``device``.
        card: its card.
        scene: with the model's inputs, as ``core.scenes.scene.select`` returns it.
        device: to compute on.
        overlap: part of a tile that it shares with its neighbour.
        allows_missing: map where only some of the inputs have data, if the model has learned to.
        n_features: of a model that puts out so many features of a pixel, which are blended as they are; by default it puts
            out class scores, and their probabilities are blended.
    """

    def __init__(
        self,
        model: nn.Module,
        card: ModelCard,
        scene: Scene,
        device: torch.device,
        overlap: float = 0.25,
        allows_missing: bool = True,
        n_features: int | None = None,
    ) -> None:
        self._model = model
        self._card = card
        self._scene = scene
        self._device = device
        specification = card.specification
        radius = receptive_radius(specification)
        finest = max(modality.finer for modality in specification.modalities)
        step = model_step(specification)
        if radius is None:
            self.tiling: Tiling = fixed_tiling(step, specification.window, overlap)
        else:
            self.tiling = choose_tiling(step, radius, overlap, finest)
        self._allows_missing = allows_missing and card.allows_missing
        self._is_classified = n_features is None
        self._n_outputs = specification.n_classes if n_features is None else n_features
        self.inputs = InputSubsets(card, scene)
        weights = blending_weights(self.tiling, radius or 0)
        self._weights = np.outer(weights, weights)

    def memory_bytes(self, width: int) -> int:
        """Bytes that mapping a window of that width needs above the model; an upper bound, whatever the height."""
        specification, tile = self._card.specification, self.tiling.tile
        pixels = (width + 2 * tile) * tile
        cells = [modality.finer**2 / modality.coarser**2 for modality in specification.modalities]
        values = sum(len(modality.bands) * cell for modality, cell in zip(specification.modalities, cells, strict=True))
        # Rasters twice while a strip moves on; sums and weights, and the finished rows.
        strip = pixels * 4 * (2 * values + 2 * (self._n_outputs + 1))
        reading = min(pixels * max(cells), VALUES_AT_ONCE) * _READING_BYTES
        return int(strip + reading + forward_bytes(specification, tile, tile) + BLOCK_CACHE_BYTES)

    def strips(self, window: Window, allowed: Allowed | None = None) -> Iterator[MapStrip]:
        """The map of a window, from north to south.

        Args:
            window: inside the scene's grid.
            allowed: which pixels of a window are wanted, (rows, columns) bool; all by default.

        Raises:
            RasterError: a raster cannot be read.
        """
        rows = lattice(self._scene.grid, window, self.tiling.tile, self.tiling.stride)
        first, last = rows[0][0], rows[0][-1]
        columns = last.stop_column - first.column
        strip = Window(first.column, first.row, columns, self.tiling.tile)
        sums = np.zeros((self._n_outputs, self.tiling.tile, columns), np.float32)
        totals = np.zeros((self.tiling.tile, columns), np.float32)
        with SceneReader(self._scene) as reader:
            source = _StripReader(reader, strip, self.tiling)
            for number, tiles in enumerate(rows):
                strip = Window(first.column, tiles[0].row, columns, self.tiling.tile)
                values = source.move_to(tiles[0].row)
                subset = self.inputs.of(values)
                wanted = self.inputs.is_enough(subset, self._allows_missing) & _inside(strip, window)
                if allowed is not None:
                    wanted &= allowed(strip)
                self._add_tiles(tiles, strip, values, subset, wanted, sums, totals)
                is_last = number == len(rows) - 1
                done = self.tiling.tile if is_last else self.tiling.stride
                finished = Window(strip.column, strip.row, columns, done).intersection(window)
                if not finished.is_empty:
                    part = finished.slices_within(strip)
                    yield _finish(finished, sums[:, part[0], part[1]], totals[part], wanted[part], subset[part])
                _shift(sums, self.tiling.stride)
                _shift(totals[None], self.tiling.stride)

    def _add_tiles(
        self,
        tiles: list[Window],
        strip: Window,
        values: Arrays,
        subset: NDArray[np.uint8],
        wanted: NDArray[np.bool_],
        sums: NDArray[np.float32],
        totals: NDArray[np.float32],
    ) -> None:
        for tile in tiles:
            rows, columns = tile.slices_within(strip)
            if not wanted[rows, columns].any():
                continue
            inputs = {}
            for acquisition in self._scene.acquisitions:
                finer, coarser = acquisition.scale.finer, acquisition.scale.coarser
                part = slice(columns.start * finer // coarser, columns.stop * finer // coarser)
                inputs[acquisition.name] = torch.from_numpy(values[acquisition.name][None, :, :, part])
            probabilities = self._predict(inputs, self.inputs.temperatures[subset[rows, columns]])
            sums[:, rows, columns] += probabilities * self._weights
            totals[rows, columns] += self._weights

    def _predict(self, inputs: dict[str, torch.Tensor], temperatures: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            scores = self._model({name: values.to(self._device) for name, values in inputs.items()})
            if not self._is_classified:
                return np.asarray(scores[0].float().cpu().numpy(), dtype=np.float32)
            divisors = torch.from_numpy(temperatures).to(self._device)
            probabilities = torch.softmax(scores[0].float() / divisors, dim=0)
        return np.asarray(probabilities.cpu().numpy(), dtype=np.float32)


class _StripReader:
    """A strip of the scene as high as a tile, moved south by a stride at a time; what overlaps is kept, not read anew."""

    def __init__(self, reader: SceneReader, strip: Window, tiling: Tiling) -> None:
        self._reader = reader
        self._tiling = tiling
        self._strip = strip
        self._values: Arrays | None = None

    def move_to(self, row: int) -> Arrays:
        """Values of the strip that starts at a row."""
        columns = self._strip.width
        if self._values is None:
            self._values = self._reader.read(Window(self._strip.column, row, columns, self._tiling.tile))
        else:
            kept, stride = self._tiling.overlap, self._tiling.stride
            fresh = self._reader.read(Window(self._strip.column, row + kept, columns, stride))
            for acquisition in self._reader.scene.acquisitions:
                moved = stride * acquisition.scale.finer // acquisition.scale.coarser
                old = self._values[acquisition.name][:, moved:]
                self._values[acquisition.name] = np.concatenate([old, fresh[acquisition.name]], axis=1)
        return self._values


def _inside(strip: Window, window: Window) -> NDArray[np.bool_]:
    inside = np.zeros(strip.shape, bool)
    inside[strip.intersection(window).slices_within(strip)] = True
    return inside


def _finish(
    window: Window,
    sums: NDArray[np.float32],
    totals: NDArray[np.float32],
    wanted: NDArray[np.bool_],
    subset: NDArray[np.uint8],
) -> MapStrip:
    mapped = wanted & (totals > 0)
    probabilities = np.where(mapped, sums / np.where(totals > 0, totals, 1), 0).astype(np.float32)
    return MapStrip(window, probabilities, mapped, subset)


def _shift(array: NDArray[np.float32], rows: int) -> None:
    """Moves rows up and clears those that come in below."""
    kept = array.shape[1] - rows
    if kept:
        array[:, :kept] = array[:, rows:].copy()
    array[:, kept:] = 0
