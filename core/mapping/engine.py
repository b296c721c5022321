"""A model over a scene: strips of tiles in, finished rows out.

The lattice of tiles is laid on absolute coordinates, so the map of a crop is the crop of the map. Memory depends on the
width alone: a strip of the rasters as high as a tile, and the class probabilities of as many rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely
import torch
from numpy.typing import NDArray
from torch import nn

from core.mapping.blended import Blended
from core.mapping.blending import Tiling, blending_weights, choose_tiling, fixed_tiling
from core.mapping.missing import InputSubsets
from core.mapping.rasters import BLOCK_CACHE_BYTES
from core.mapping.strip_order import Step, groups_of, steps_of
from core.mapping.strip_reader import Arrays, StripReader
from core.mapping.tile_threads import WAITING_TILES, TileThreads
from core.mapping.uncertainty import likeliest
from core.models.costs import forward_bytes
from core.models.estimator_model import EstimatorModel
from core.models.features import inner_part
from core.models.fusion_model import FusionModel
from core.models.inference import for_inference
from core.models.model_file import ModelCard
from core.models.novelty import Novelty
from core.models.registry import model_step, receptive_radius
from core.models.vote_model import VoteModel
from core.scenes.grid import Window, aligned, lattice, project_bounds
from core.scenes.raster_file import raster_bytes
from core.scenes.reading import VALUES_AT_ONCE
from core.scenes.scene import Scene

Allowed = Callable[[Window], NDArray[np.bool_]]

TILES_BYTES = 512 * 2**20
"""What tiles that are looked at side by side may take together; a single one takes what it has to."""
MOST_IN_BATCH = 64
"""More tiles at once gain nothing."""
_LIBRARY_BYTES = 45 * 2**20
"""What libraries take when they are used for the first time, such as tables of coordinate systems."""
_KERNEL_BYTES = 40 * 2**20
"""What the kernels of a network take that are made when they are asked for."""
BLOCK_ROWS = 512
"""Rows of the blocks that most files have; those of others are no higher, or lie in strips of few rows."""
KEPT_OF_CACHE = 0.75
"""Of GDAL's cache, what the blocks that strips share may take: the next row of them is read while they are kept."""
_READING_BYTES = 12
"""Bytes a value that reading takes on its way: as it is stored, and warped."""


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

    @cached_property
    def likeliest(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """(rows, columns) index of the likeliest class, and its probability."""
        return likeliest(self.probabilities)


@dataclass(frozen=True)
class _Place:
    """A tile, or what is left of it within the scene.

    Attributes:
        rows, columns: of what it says something of, among those of a strip's inner parts.
        within: rows and columns of the same within the inner part of a whole tile.
    """

    rows: slice
    columns: slice
    within: tuple[slice, slice]


@dataclass(frozen=True, eq=False)
class _Strip:
    """A strip of tiles as it is looked at.

    Attributes:
        step: which.
        values: by acquisition.
        subset: (rows, columns) uint8, of the tiles' inner parts: the set of inputs that are there.
        wanted: (rows, columns) bool, which of them are to be mapped.
    """

    step: Step
    values: Arrays
    subset: NDArray[np.uint8]
    wanted: NDArray[np.bool_]


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
        tile_bytes: that the model takes for a tile; by default worked out from its specification.
        dtype: that a network computes in, its stems apart.
        whole_rows: strips of windows side by side come in turn whatever their width, though a file's blocks may have to be
            unpacked for several of them.
        tiles_in_batch: that the model is given at once; by default one on the processor, whose threads take one each, and on a
            graphics card as many as half of its free memory holds. Where they do not fit after all, half as many.
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
        tile_bytes: int | None = None,
        dtype: torch.dtype = torch.float32,
        tiles_in_batch: int | None = None,
        whole_rows: bool = False,
    ) -> None:
        self._model = for_inference(model, dtype)
        own = {parameter.data_ptr() for parameter in model.parameters()}
        copied = [parameter for parameter in self._model.parameters() if parameter.data_ptr() not in own]
        self._copied_bytes = sum(parameter.numel() * parameter.element_size() for parameter in copied)
        self._card = card
        self._scene = scene
        self._whole_rows = whole_rows
        self.device = device
        """That is computed on."""
        specification = card.specification
        radius = receptive_radius(specification)
        if radius is not None and novelty is not None:
            radius = max(radius, novelty.radius)
        finest = max(modality.finer for modality in specification.modalities)
        step = self._step = model_step(specification)
        if radius is None:
            self.tiling: Tiling = fixed_tiling(step, specification.window, overlap)
        else:
            self.tiling = choose_tiling(step, radius, overlap, finest)
        self._threads = ThreadPoolExecutor(max(1, len(scene.acquisitions)))
        # Of a tile only what lies further from its edges than the model sees is looked at, where neighbours say the rest.
        self.margin = self.tiling.margin(radius or 0)
        """Pixels along each edge of a tile that it says nothing of."""
        self._inner = self.tiling.tile - 2 * self.margin
        # Whose answer for a pixel is the same to the bit in tiles of any size. Batches are of tiles of one size.
        is_local = isinstance(self._model, FusionModel | EstimatorModel | VoteModel) and novelty is None
        self._trims = is_local and device.type == "cpu" and radius is not None and self.margin == radius
        # Most of a network does without what its stems alone look at.
        spared = self._model.spared(self.margin) if isinstance(self._model, FusionModel) else 0
        side = self.tiling.tile - 2 * spared
        self._forward_bytes = forward_bytes(specification, side, side, dtype) if tile_bytes is None else tile_bytes
        self.tiles_at_once = self._tiles_at_once(torch.get_num_threads())
        """How many tiles are looked at side by side."""
        self.tiles_in_batch = tiles_in_batch or self._fitting_batch()
        self._allows_missing = allows_missing and card.allows_missing
        self._is_classified = n_features is None
        self._n_outputs = specification.n_classes if n_features is None else n_features
        self.inputs = InputSubsets(card)
        self._novelty = novelty
        self._withheld = [modality.name for modality in specification.modalities] if has_contributions else []
        self._n_blended = self._n_outputs + (novelty is not None) + len(self._withheld)
        weights = blending_weights(self.tiling, radius or 0)[self.margin : self.tiling.tile - self.margin]
        self._weights = None if self._inner == self.tiling.stride else np.outer(weights, weights)

    def _tiles_at_once(self, threads: int) -> int:
        """How many tiles are looked at side by side; see ``TileThreads``."""
        if self.device.type != "cpu":
            return 1
        return max(1, min(threads, TILES_BYTES // max(1, self._forward_bytes)))

    def _fitting_batch(self) -> int:
        """How many tiles the device is given at once."""
        if self.device.type != "cuda":
            return 1
        free, _ = torch.cuda.mem_get_info(self.device)
        return max(1, min(MOST_IN_BATCH, free // 2 // max(1, self._forward_bytes)))

    def memory_bytes(self, asked: Window | Sequence[Window]) -> int:
        """Bytes that mapping a window, or several in turn, takes above the model at the peak, whatever their height."""
        windows = [asked] if isinstance(asked, Window) else asked
        specification, tile, overlap = self._card.specification, self.tiling.tile, self.tiling.overlap
        tiles = max(self._tiles_across(window) for window in windows)
        columns = (tiles - 1) * self.tiling.stride + tile
        cells = [modality.finer**2 / modality.coarser**2 for modality in specification.modalities]
        values = [len(modality.bands) * cell for modality, cell in zip(specification.modalities, cells, strict=True)]
        # The strip that is looked at and the next; sums and weights, those that were given away, and flags.
        strips = columns * tile * (2 * 4 * sum(values) + 2)
        n_sums = 2 if self._inner == self.tiling.stride else 3
        results = columns * self._inner * (4 * n_sums * self._n_blended + 4 + 8)
        # What strips share with the next ones, of all windows that are looked at in turn.
        groups = self._groups(windows)
        across = [max(each.stop_column for each in group) - min(each.column for each in group) for group in groups]
        shared_rows = 4 * sum(values) + 1, 4 * self._n_blended + 4
        in_turn = max(width + len(group) * overlap for width, group in zip(across, groups, strict=True))
        shared = in_turn * (overlap * shared_rows[0] + (self._inner - self.tiling.stride) * shared_rows[1])
        fresh = columns * self.tiling.stride
        reading = sum(min(fresh * each, VALUES_AT_ONCE) * _READING_BYTES for each in values)
        # Rasters are closed after each group, and with them goes what was kept of them.
        cached = sum(raster_bytes(source.raster) for source in self._scene.sources) * max(across) / self._scene.grid.width
        forward = self.tiles_at_once * self._forward_bytes
        libraries = _LIBRARY_BYTES + (_KERNEL_BYTES + self._copied_bytes if forward else 0)
        # Answers that wait for those before them; batches that are put together.
        batch = min(self.tiles_in_batch, tiles)
        forward += 4 * WAITING_TILES * self.tiles_at_once * batch * self._n_blended * self._inner**2
        if batch > 1:
            forward += int(4 * batch * tile**2 * sum(values))
        return int(strips + results + shared + reading + min(cached, BLOCK_CACHE_BYTES) + forward + libraries)

    def _tiles_across(self, window: Window) -> int:
        """Tiles side by side that say something of a window."""
        row = Window(window.column, window.row, window.width, 1).translated(-self.margin, -self.margin)
        return len(lattice(self._scene.grid, row, self._inner, self.tiling.stride)[0])

    def within_a_tile(self, row: int, column: int) -> Window:
        """A square near a place that a single tile says everything of, where tiles share less than half; else a pixel."""
        place = Window(column, row, 1, 1).translated(-self.margin, -self.margin)
        corner = lattice(self._scene.grid, place, self._inner, self.tiling.stride)[0][0]
        side = max(1, 2 * self.tiling.stride - self._inner)
        first = self.margin + (self._inner - side) // 2
        return Window(corner.column + first, corner.row + first, side, side)

    def panels(self, window: Window, most_bytes: float) -> list[Window]:
        """A window cut into columns of tiles that take no more memory in turn than that, where as many as are looked at side by
        side do not; of one width, from west to east. Together they are the map of the window.
        """
        stride = self.tiling.stride
        # What tiles share with others is computed anew in every panel: such tiles do not count as columns of their own.
        columns = max(1, self._tiles_across(window) - (self._inner - 1) // stride)
        most = columns
        panels = self._cut_across(window, columns, most)
        while most > self.tiles_at_once and self.memory_bytes(panels) > most_bytes:
            most -= 1
            panels = self._cut_across(window, columns, most)
        return panels

    def _cut_across(self, window: Window, columns: int, most: int) -> list[Window]:
        """A window of so many columns of tiles cut into panels of about as many, ``most`` of them in each."""
        width = -(-columns // -(-columns // most)) * self.tiling.stride
        first = aligned(self._scene.grid, window.translated(-self.margin, 0), self.tiling.stride).column + self.margin
        edges = [window.column, *range(first + width, window.stop_column, width), window.stop_column]
        return [
            Window(left, window.row, right - left, window.height) for left, right in itertools.pairwise(edges) if right > left
        ]

    def strip_rows(self, window: Window) -> list[Window]:
        """The windows of what ``strips`` returns."""
        return [step.finished for step in self._steps([window]) if not step.finished.is_empty]

    def strips(
        self, asked: Window | Sequence[Window], allowed: Allowed | None = None, reuses_memory: bool = False
    ) -> Iterator[MapStrip]:
        """The map of a window, from north to south; of several, those at one height in turn.

        Args:
            asked: a window inside the scene's grid, or several that share no pixel, such as ``panels`` returns.
            allowed: which pixels of a window are wanted, (rows, columns) bool; all by default.
            reuses_memory: each strip changes with the one after the next. Fresh memory for each would cost more time than
                what is done in it.

        Raises:
            RasterError: a raster cannot be read.
        """
        windows = [asked] if isinstance(asked, Window) else asked
        for group in self._groups(windows):
            yield from self._side_by_side(group, allowed, reuses_memory)

    def _groups(self, windows: Sequence[Window]) -> list[list[Window]]:
        return groups_of(windows, self._scene.grid.width if self._whole_rows else self._kept_columns)

    def _steps(self, windows: Sequence[Window]) -> list[Step]:
        return steps_of(self._scene.grid, windows, self.tiling, self.margin)

    @property
    def _kept_columns(self) -> int:
        """Of how many columns of the scene GDAL keeps a row of blocks of all rasters."""
        return int(KEPT_OF_CACHE * BLOCK_CACHE_BYTES / self._blocks_bytes)

    @cached_property
    def _blocks_bytes(self) -> float:
        """Of a row of blocks of all rasters, for each column of the scene."""
        grid, column = self._scene.grid, 0.0
        for entry in self._scene.acquisitions:
            # Files of one sensor lie beside each other, or hold different bands of the same ground.
            places = [project_bounds(source.raster.bounds, source.raster.crs, grid.crs) for source in entry.files]
            covered = shapely.union_all(shapely.box(*np.array([tuple(each) for each in places]).T)).area
            pixels = covered / (grid.pixel_width * grid.pixel_height)
            rows = max(BLOCK_ROWS * entry.scale.coarser // entry.scale.finer, 1)
            column += sum(raster_bytes(source.raster) for source in entry.files) / pixels * rows
        return column

    def _side_by_side(self, windows: list[Window], allowed: Allowed | None, reuses_memory: bool) -> Iterator[MapStrip]:
        steps = self._steps(windows)
        widest = max(step.strip.window.width for step in steps)
        blended = Blended(self._n_blended, self._inner, widest - 2 * self.margin, self.tiling.stride, reuses_memory)
        margin, tile = self.margin, self.tiling.tile
        with (
            StripReader(self._scene, self.inputs, [step.strip for step in steps], self.tiling, self._threads) as source,
            TileThreads(self.tiles_at_once, waits_elsewhere=self.device.type != "cpu") as threads,
        ):

            def begin(number: int) -> tuple[_Strip, list[list[_Place]]]:
                step = steps[number]
                values, subset = source.next()
                there = subset[margin : tile - margin, margin : margin + step.inner.width]
                wanted = self.inputs.is_enough(there, self._allows_missing) & _inside(step.inner, windows[step.strip.panel])
                if allowed is not None:
                    wanted &= allowed(step.inner)
                left = step.inner.column - margin
                places = [place for corner in step.tiles if (place := self._place(corner, left, wanted)) is not None]
                batches = [places[first : first + self.tiles_in_batch] for first in range(0, len(places), self.tiles_in_batch)]
                return _Strip(step, values, there, wanted), batches

            begun: Step | None = None
            for looked_at, answer in threads.in_order(len(steps), begin, self._look):
                step = looked_at.step
                if begun is not step:
                    begun = step
                    blended.begin(step.strip.panel, step.inner.width)
                if answer is not None:
                    for place, values in zip(*answer, strict=True):
                        weights = None if self._weights is None else self._weights[place.within]
                        blended.add(values, weights, place.rows, place.columns)
                    continue
                if not step.finished.is_empty:
                    part = step.finished.slices_within(step.inner)
                    means = blended.means(*part)
                    yield self._finish(step.finished, *means, looked_at.wanted[part], looked_at.subset[part])
                blended.end(step.strip.panel, step.strip.is_last)
                source.release()

    def _place(self, corner: Window, first_column: int, wanted: NDArray[np.bool_]) -> _Place | None:
        """A tile of a strip; None where nothing of it is wanted.

        Args:
            corner: of the tile, in the scene's grid.
            first_column: of the strip, likewise.
            wanted: (rows, columns) of the strip's inner parts.
        """
        left = corner.column - first_column
        if not wanted[:, left : left + self._inner].any():
            return None
        rows = columns = slice(0, self._inner)
        if self._trims:
            grid = self._scene.grid
            rows, columns = self._within(corner.row, grid.height), self._within(corner.column, grid.width)
        return _Place(rows, slice(left + columns.start, left + columns.stop), (rows, columns))

    def _within(self, start: int, length: int) -> slice:
        """What of a tile's inner part lies within the scene, along one side, and up to a step more: tiles begin and end at
        whole steps, so that pooled pixels stay the same ones."""
        begin, end = (edge - start - self.margin for edge in (0, length))
        return slice(
            max(0, begin) // self._step * self._step,
            self._inner - max(0, self._inner - end) // self._step * self._step,
        )

    def _look(self, strip: _Strip, places: list[_Place]) -> list[torch.Tensor]:
        """What is blended of the inner parts of some tiles of a strip."""
        said: list[torch.Tensor] = []
        while len(said) < len(places):
            batch = places[len(said) : len(said) + self.tiles_in_batch]
            answer = self._fitted(strip, batch)
            if answer is not None:
                said.extend(answer)
        return said

    def _fitted(self, strip: _Strip, batch: list[_Place]) -> torch.Tensor | None:
        """What is said of a batch; None where it takes more memory than there is and half as many are to be tried."""
        try:
            subset = np.stack([strip.subset[place.rows, place.columns] for place in batch])
            return self._blended(self._cut(strip.values, batch), subset)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
        # Outside of the handler, which still holds what was made.
        self.tiles_in_batch = len(batch) // 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _cut(self, values: Arrays, places: list[_Place]) -> dict[str, torch.Tensor]:
        """Tiles of a strip, each input on its own scale."""
        inputs = {}
        for acquisition in self._scene.acquisitions:
            finer, coarser = acquisition.scale.finer, acquisition.scale.coarser

            def own(side: slice) -> slice:
                # The tile of an inner part begins where that does, and ends two margins later.
                return slice(side.start * finer // coarser, (side.stop + 2 * self.margin) * finer // coarser)  # noqa: B023

            given = values[acquisition.name]
            tiles = [torch.from_numpy(given[None, :, own(place.rows), own(place.columns)]) for place in places]
            inputs[acquisition.name] = tiles[0] if len(tiles) == 1 else torch.cat(tiles)
        return inputs

    def _blended(self, inputs: dict[str, torch.Tensor], subset: NDArray[np.uint8]) -> torch.Tensor:
        """(B, values, rows, columns) of the inner parts of tiles all that is blended: probabilities or features, the novelty,
        what each input contributes.

        Args:
            inputs: by acquisition (B, bands, h, w).
            subset: (B, rows, columns) of the inner parts.
        """
        with torch.inference_mode():
            given = {name: values.to(self.device) for name, values in inputs.items()}
            if not self._is_classified:
                return inner_part(self._model(given), self.margin).float().cpu()
            probabilities = self._probabilities(given, subset)
            parts = [probabilities]
            if self._novelty is not None:
                parts.append(inner_part(self._novelty(given), self.margin)[:, None].nan_to_num(nan=0.0).float())
            parts.extend(self._moved(probabilities, given, subset, name)[:, None] for name in self._withheld)
            return (torch.cat(parts, dim=1) if len(parts) > 1 else probabilities).cpu()

    def _probabilities(self, given: dict[str, torch.Tensor], subset: NDArray[np.uint8]) -> torch.Tensor:
        if isinstance(self._model, FusionModel | EstimatorModel | VoteModel):
            scores = self._model(given, margin=self.margin)
        else:
            scores = inner_part(self._model(given), self.margin).float()
        asked = subset if subset.min() < subset.max() else subset[:1, :1, :1]
        divisors = torch.from_numpy(self.inputs.temperatures[asked]).to(self.device)
        return torch.softmax(scores / divisors[:, None], dim=1)

    def _moved(
        self, probabilities: torch.Tensor, given: dict[str, torch.Tensor], subset: NDArray[np.uint8], name: str
    ) -> torch.Tensor:
        """(B, H, W) part of the probability that lies with other classes without an input (the total variation distance)."""
        left = self.inputs.without(subset, name)
        is_needed = torch.from_numpy((left != subset) & ~self.inputs.is_enough(left, True)).to(self.device)
        others = {other: values for other, values in given.items() if other != name}
        if name not in given:
            return torch.zeros_like(probabilities[:, 0])
        if not others:
            return is_needed.float()
        # Without this input nothing could be said where the others do not show the ground.
        moved = 0.5 * (probabilities - self._probabilities(others, left)).abs().sum(dim=1)
        return torch.where(is_needed, torch.ones_like(moved), moved)

    def _finish(
        self,
        window: Window,
        means: NDArray[np.float32],
        is_covered: NDArray[np.bool_],
        wanted: NDArray[np.bool_],
        subset: NDArray[np.uint8],
    ) -> MapStrip:
        mapped = wanted & is_covered
        if not mapped.all():
            means[:, ~mapped] = 0
        first, rest = self._n_outputs, self._n_blended - len(self._withheld)
        return MapStrip(window, means[:first], mapped, subset.copy(), means[first:rest], means[rest:])


def _inside(strip: Window, window: Window) -> NDArray[np.bool_]:
    inside = np.zeros(strip.shape, bool)
    inside[strip.intersection(window).slices_within(strip)] = True
    return inside
