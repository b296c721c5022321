"""A model over a scene: strips of tiles in, finished rows out.

The lattice of tiles is laid on absolute coordinates, so the map of a crop is the crop of the map. Memory depends on the
width alone: a strip of the rasters as high as a tile, and the class probabilities of as many rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from core.mapping.blending import Tiling, blending_weights, choose_tiling, fixed_tiling
from core.mapping.missing import InputSubsets
from core.mapping.rasters import BLOCK_CACHE_BYTES, raster_environment
from core.models.costs import forward_bytes
from core.models.inference import for_inference
from core.models.model_file import ModelCard
from core.models.novelty import Novelty
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
        novelty: (1, rows, columns) float32 distance from what the model has seen; (0, rows, columns) unless asked for.
        contributions: (n_inputs, rows, columns) float32 from 0 to 1, how far the probabilities move without each input;
            (0, rows, columns) unless asked for.
    """

    window: Window
    probabilities: NDArray[np.float32]
    mapped: NDArray[np.bool_]
    subset: NDArray[np.uint8]
    novelty: NDArray[np.float32]
    contributions: NDArray[np.float32]


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
        novelty: measures how far each pixel lies from what the model has seen.
        has_contributions: ask the model once more without each of its inputs. It has to have learned to do without.
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
        novelty: Novelty | None = None,
        has_contributions: bool = False,
    ) -> None:
        self._model = for_inference(model)
        own = {parameter.data_ptr() for parameter in model.parameters()}
        copied = [parameter for parameter in self._model.parameters() if parameter.data_ptr() not in own]
        self._copied_bytes = sum(parameter.numel() * parameter.element_size() for parameter in copied)
        self._card = card
        self._scene = scene
        self._device = device
        specification = card.specification
        radius = receptive_radius(specification)
        if radius is not None and novelty is not None:
            radius = max(radius, novelty.radius)
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
        self._novelty = novelty
        self._withheld = [modality.name for modality in specification.modalities] if has_contributions else []
        self._n_blended = self._n_outputs + (novelty is not None) + len(self._withheld)
        weights = blending_weights(self.tiling, radius or 0)
        self._weights = np.outer(weights, weights)

    def memory_bytes(self, width: int) -> int:
        """Bytes that mapping a window of that width needs above the model; an upper bound, whatever the height."""
        specification, tile = self._card.specification, self.tiling.tile
        pixels = (width + 2 * tile) * tile
        cells = [modality.finer**2 / modality.coarser**2 for modality in specification.modalities]
        values = sum(len(modality.bands) * cell for modality, cell in zip(specification.modalities, cells, strict=True))
        # Rasters twice, of which one is being read; sums and weights, and the finished rows.
        strip = pixels * 4 * (2 * values + 2 * (self._n_blended + 1))
        reading = min(pixels * max(cells), VALUES_AT_ONCE) * _READING_BYTES
        return int(strip + reading + forward_bytes(specification, tile, tile) + BLOCK_CACHE_BYTES + self._copied_bytes)

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
        sums = np.zeros((self._n_blended, self.tiling.tile, columns), np.float32)
        totals = np.zeros((self.tiling.tile, columns), np.float32)
        with SceneReader(self._scene) as reader, _StripReader(reader, strip, self.tiling, len(rows)) as source:
            for number, tiles in enumerate(rows):
                strip = Window(first.column, tiles[0].row, columns, self.tiling.tile)
                values = source.next()
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
                    yield self._finish(finished, sums[:, part[0], part[1]], totals[part], wanted[part], subset[part])
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
            blended = self._blended(inputs, subset[rows, columns])
            if self.tiling.overlap:
                np.multiply(blended, self._weights, out=blended)
            sums[:, rows, columns] += blended
            totals[rows, columns] += self._weights

    def _blended(self, inputs: dict[str, torch.Tensor], subset: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Of a tile all that is blended: probabilities or features, the novelty, what each input contributes."""
        with torch.inference_mode():
            given = {name: values.to(self._device) for name, values in inputs.items()}
            if not self._is_classified:
                return np.array(self._model(given)[0].float().cpu().numpy())
            probabilities = self._probabilities(given, subset)
            parts = [probabilities]
            if self._novelty is not None:
                parts.append(self._novelty(given).nan_to_num(nan=0.0).float())
            parts.extend(self._moved(probabilities, given, subset, name)[None] for name in self._withheld)
            return np.asarray((torch.cat(parts) if len(parts) > 1 else probabilities).cpu().numpy())

    def _probabilities(self, given: dict[str, torch.Tensor], subset: NDArray[np.uint8]) -> torch.Tensor:
        divisors = torch.from_numpy(self.inputs.temperatures[subset]).to(self._device)
        return torch.softmax(self._model(given)[0].float() / divisors, dim=0)

    def _moved(
        self, probabilities: torch.Tensor, given: dict[str, torch.Tensor], subset: NDArray[np.uint8], name: str
    ) -> torch.Tensor:
        """(H, W) part of the probability that lies with other classes without an input (the total variation distance)."""
        left = self.inputs.without(subset, name)
        is_needed = torch.from_numpy((left != subset) & ~self.inputs.is_enough(left, True)).to(self._device)
        others = {other: values for other, values in given.items() if other != name}
        if name not in given:
            return torch.zeros_like(probabilities[0])
        if not others:
            return is_needed.float()
        # Without this input nothing could be said where the others do not show the ground.
        moved = 0.5 * (probabilities - self._probabilities(others, left)).abs().sum(dim=0)
        return torch.where(is_needed, torch.ones_like(moved), moved)

    def _finish(
        self,
        window: Window,
        sums: NDArray[np.float32],
        totals: NDArray[np.float32],
        wanted: NDArray[np.bool_],
        subset: NDArray[np.uint8],
    ) -> MapStrip:
        mapped = wanted & (totals > 0)
        means = np.asarray(sums / np.where(totals > 0, totals, 1), np.float32)
        if not mapped.all():
            means[:, ~mapped] = 0
        first, rest = self._n_outputs, self._n_blended - len(self._withheld)
        return MapStrip(window, means[:first], mapped, subset, means[first:rest], means[rest:])


class _StripReader:
    """A strip of the scene as high as a tile, moved south by a stride at a time; what overlaps is kept, not read anew.

    The rows of the next strip are read, by a thread of their own, while the model looks at this one.

    Args:
        reader: of the scene; it is used by that thread alone.
        strip: the first.
        tiling: of the strips.
        count: of the strips.
    """

    def __init__(self, reader: SceneReader, strip: Window, tiling: Tiling, count: int) -> None:
        self._reader = reader
        self._tiling = tiling
        self._windows = [strip] + [
            Window(strip.column, strip.row + number * tiling.stride + tiling.overlap, strip.width, tiling.stride)
            for number in range(1, count)
        ]
        self._values: Arrays = {}
        self._thread = ThreadPoolExecutor(1)
        self._coming: Future[Arrays] | None = None

    def __enter__(self) -> _StripReader:
        self._ask()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _ask(self) -> None:
        self._coming = None
        if self._windows:
            self._coming = self._thread.submit(self._read, self._windows.pop(0))

    def _read(self, window: Window) -> Arrays:
        with raster_environment():  # rasterio's settings are those of a thread
            return self._reader.read(window)

    def next(self) -> Arrays:
        """Values of the next strip, in the place of those before."""
        if self._coming is None:
            raise ValueError("there are no more strips")
        self._take(self._coming.result())
        # Only now, with the rows in their place: memory holds those of one strip and of the next, and not of a third.
        self._ask()
        return self._values

    def _take(self, fresh: Arrays) -> None:
        if not self._values:
            self._values = fresh
            return
        for name, values in self._values.items():
            rows = fresh[name].shape[1]
            # Band by band: what is moved within an array is copied on the way.
            for old, new in zip(values, fresh[name], strict=True):
                old[:-rows] = old[rows:].copy()
                old[-rows:] = new


def _inside(strip: Window, window: Window) -> NDArray[np.bool_]:
    inside = np.zeros(strip.shape, bool)
    inside[strip.intersection(window).slices_within(strip)] = True
    return inside


def _shift(array: NDArray[np.float32], rows: int) -> None:
    """Moves rows up and clears those that come in below."""
    kept = array.shape[1] - rows
    if kept:
        array[:, :kept] = array[:, rows:].copy()
    array[:, kept:] = 0
