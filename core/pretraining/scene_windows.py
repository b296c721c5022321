"""Random windows of scenes of any size, with or without the same sensors, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.errors import RasterError
from core.models.specification import ModelSpecification
from core.pretraining.objectives.objective import Windows
from core.scenes.grid import Grid, Window, aligned, project_bounds
from core.scenes.reading import SceneReader, usable_pixels
from core.scenes.scene import Scene, SourceFile

MEMORY_BYTES = 512 * 2**20
"""For all parts of scenes that are held at a time."""

LEAST_VALID = 0.5
"""Part of a window in which something has to be known for it to be shown."""

TRIES = 20

SCATTERED = 0.25
"""A scene whose files cover less of its grid than this, such as plots of a forest, is looked at file by file."""

Arrays = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class _Part:
    """A part of a scene in memory."""

    scene: int
    window: Window
    values: Arrays
    valid: NDArray[np.bool_]


class SceneWindows:
    """Draws windows. All windows of a batch are from one scene, since all have to have the same modalities.

    Scenes that fit into memory together are read once. Of larger ones an epoch sees some parts, drawn anew for each
    epoch, so that reading costs little beside training, and memory does not depend on the size of the rasters.

    Args:
        scenes: whose acquisitions are named after the model's modalities.
        specification: of the model.
        size: side of a window in reference pixels.
        batch_size: windows a batch.
        memory_bytes: see ``MEMORY_BYTES``.

    Raises:
        RasterError: no scene has a window with data.
    """

    def __init__(
        self,
        scenes: Sequence[Scene],
        specification: ModelSpecification,
        size: int,
        batch_size: int,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._scenes = tuple(scenes)
        self._specification = specification
        self.size, self.batch_size = size, batch_size
        self._memory_bytes = memory_bytes
        self._grounds = [_ground_of(scene) for scene in scenes]
        self._dated = [_dated_ground(scene) for scene in scenes] if specification.has_circumstances else []
        self._parts: list[list[_Part]] = [[] for _ in scenes]
        self._is_whole = sum(_bytes_of(scene, scene.grid.window) for scene in scenes) <= memory_bytes
        if self._is_whole:
            self._read_all()

    @property
    def n_windows(self) -> int:
        """How many windows lie beside each other on all scenes: what one epoch is to see."""
        return sum(-(-w.width // self.size) * -(-w.height // self.size) for ground in self._grounds for w in ground)

    def open_epoch(self, seed: int, epoch: int) -> None:
        """Chooses the parts that the epoch's windows are drawn from.

        Raises:
            RasterError: a file cannot be read, or nothing of it has data.
        """
        if self._is_whole:
            return
        generator = np.random.default_rng((seed, epoch, 7))
        budget = self._memory_bytes // len(self._scenes)
        for number, scene in enumerate(self._scenes):
            self._parts[number] = []
            with SceneReader(scene) as reader:
                # Parts without data are drawn anew; a scene that shows nothing even so sits out the epoch.
                for _ in range(TRIES):
                    wanted = _parts_of(scene, self._grounds[number], self.size, budget, generator)
                    found = [part for w in wanted if (part := _read(reader, number, w, self.size)) is not None]
                    if found:
                        self._parts[number] = found
                        break
        self._check()

    def batch(self, generator: np.random.Generator) -> Windows:
        """Draws windows; see ``Windows``. The same generator gives the same windows in the same epoch."""
        counts = np.array([sum(part.valid.size for part in parts) for parts in self._parts], float)
        # By the root of its size: large scenes are seen more often, and small ones not forgotten.
        number = int(generator.choice(len(counts), p=np.sqrt(counts) / np.sqrt(counts).sum()))
        parts = self._parts[number]
        sizes = np.array([part.valid.size for part in parts], float)
        drawn = [
            self._draw(parts[int(generator.choice(len(parts), p=sizes / sizes.sum()))], generator)
            for _ in range(self.batch_size)
        ]
        names = [a.name for a in self._scenes[number].acquisitions]
        values = {name: torch.from_numpy(np.stack([each[name] for each, _ in drawn])) for name in names}
        windows = [window for _, window in drawn]
        return Windows(values, self._geography(number, windows), self._dates(number, windows))

    def _draw(self, part: _Part, generator: np.random.Generator) -> tuple[Arrays, Window]:
        """A window that lies within the part, and has data where the part has enough of it."""
        scene = self._scenes[part.scene]
        step = scene.step
        best = (-1.0, part.window)
        for _ in range(TRIES):
            left, up = (
                step * int(generator.integers((side - self.size) // step + 1))
                for side in (part.window.width, part.window.height)
            )
            window = Window(part.window.column + left, part.window.row + up, self.size, self.size)
            share = float(part.valid[window.slices_within(part.window)].mean())
            if share > best[0]:
                best = share, window
            if share >= LEAST_VALID:
                break
        rows, columns = best[1].slices_within(part.window)
        cut: Arrays = {}
        for acquisition in scene.acquisitions:
            finer, coarser = acquisition.scale.finer, acquisition.scale.coarser
            own = [slice(s.start * finer // coarser, s.stop * finer // coarser) for s in (rows, columns)]
            cut[acquisition.name] = part.values[acquisition.name][:, own[0], own[1]]
        return cut, best[1]

    def _geography(self, number: int, windows: Sequence[Window]) -> Tensor:
        grid = self._scenes[number].grid
        if not (self._specification.has_geography or self._specification.has_circumstances):
            return torch.full((len(windows), 3), torch.nan, dtype=torch.float64)
        rows = []
        for window in windows:
            longitude, latitude = grid.crop(window).center()
            rows.append([latitude, longitude, grid.resolution_m()])
        return torch.tensor(rows, dtype=torch.float64)

    def _dates(self, number: int, windows: Sequence[Window]) -> dict[str, Tensor]:
        """By acquisition the day of the year of what each window shows; of several files there on several days none."""
        if not self._specification.has_circumstances:
            return {}
        found: dict[str, Tensor] = {}
        for name, dated in self._dated[number].items():
            rows = []
            for window in windows:
                days = {day for ground, day in dated if not ground.intersection(window).is_empty}
                rows.append([days.pop() if len(days) == 1 else math.nan])
            found[name] = torch.tensor(rows, dtype=torch.float64)
        return found

    def _read_all(self) -> None:
        for number, scene in enumerate(self._scenes):
            # A scene smaller than a window, or of a side that the step does not divide, is filled up with nothing.
            whole = aligned(scene.grid, scene.grid.window, scene.step)
            side = -(-self.size // scene.step) * scene.step
            window = Window(whole.column, whole.row, max(whole.width, side), max(whole.height, side))
            with SceneReader(scene) as reader:
                part = _read(reader, number, window, self.size)
            if part is not None:
                self._parts[number] = [part]
        self._check()

    def _check(self) -> None:
        empty = [scene for scene, parts in zip(self._scenes, self._parts, strict=True) if not parts]
        # Read whole, a scene without data is a mistake of the user's; of parts that were drawn, some may miss it.
        if empty and (self._is_whole or len(empty) == len(self._scenes)):
            raise RasterError(
                f"Nothing of '{empty[0].paths[0]}' that was looked at has data.",
                "Leave this scene out, or check its nodata value.",
            )


def _read(reader: SceneReader, number: int, window: Window, size: int) -> _Part | None:
    """A part of a scene; None where it has no data."""
    values = reader.read(window)
    valid = usable_pixels(values, reader.scene.acquisitions, allows_missing=True)
    return _Part(number, window, values, valid) if valid.any() and min(window.shape) >= size else None


def _ground_of(scene: Scene) -> list[Window]:
    """Where the files of the raster that covers most lie; the whole grid where that is much of it."""
    grid = scene.grid
    best: list[Window] = []
    for acquisition in scene.acquisitions:
        found = (_place(source, grid).intersection(grid.window) for source in acquisition.files)
        inside = [window for window in found if not window.is_empty]
        if _area(inside) > _area(best):
            best = inside
    return [grid.window] if _area(best) >= SCATTERED * grid.width * grid.height else best


def _dated_ground(scene: Scene) -> dict[str, list[tuple[Window, float]]]:
    """By acquisition of which any day is known where its files lie, and the days since the start of the year."""
    dated = {}
    for acquisition in scene.acquisitions:
        dates = [source.date for source in acquisition.files]
        if any(dates):
            days = [math.nan if date is None else date.timetuple().tm_yday - 1.0 for date in dates]
            places = [_place(source, scene.grid) for source in acquisition.files]
            dated[acquisition.name] = list(zip(places, days, strict=True))
    return dated


def _place(source: SourceFile, grid: Grid) -> Window:
    """Where a file lies in a grid, which it may reach beyond."""
    return grid.window_of(project_bounds(source.raster.bounds, source.raster.crs, grid.crs))


def _area(windows: Sequence[Window]) -> int:
    return sum(window.width * window.height for window in windows)


def _parts_of(scene: Scene, ground: Sequence[Window], size: int, budget: int, generator: np.random.Generator) -> list[Window]:
    """Squares drawn anywhere on the ground, as many as the budget takes, of eight windows' side or less."""
    grid, step = scene.grid, scene.step
    if len(ground) > 1 or ground[0] != grid.window:
        return _around_files(scene, ground, size, budget, generator)
    whole = aligned(grid, grid.window, step)
    side = _side_of(scene, size, budget)
    width, height = max(min(side, whole.width), size), max(min(side, whole.height), size)
    count = max(1, budget // max(1, _bytes_of(scene, Window(0, 0, width, height))))
    count = min(count, max(1, -(-whole.width // width) * -(-whole.height // height)))
    windows = []
    for _ in range(count):
        left, up = (
            step * int(generator.integers(max(0, of - own) // step + 1))
            for of, own in ((whole.width, width), (whole.height, height))
        )
        windows.append(Window(whole.column + left, whole.row + up, width, height))
    return windows


def _side_of(scene: Scene, size: int, budget: int) -> int:
    """Of the squares that are drawn."""
    side = 8 * size
    while side > size and _bytes_of(scene, Window(0, 0, side, side)) > budget:
        side //= 2
    return -(-max(side, size) // scene.step) * scene.step


def _around_files(
    scene: Scene, ground: Sequence[Window], size: int, budget: int, generator: np.random.Generator
) -> list[Window]:
    """Some of the files in any order, each at least as large as a window, and squares of those that are larger, as many as the
    budget takes."""
    step, total, side = scene.step, 0, _side_of(scene, size, budget)
    parts: list[Window] = []
    turns = [-(-file.width // side) * -(-file.height // side) for file in ground]
    for number in generator.permutation(np.repeat(np.arange(len(ground)), turns)):
        own = _square_of(ground[number], side, generator)
        # The file lies anywhere in the part, if it is the smaller of the two.
        spare = [max(0, size - side) for side in (own.width, own.height)]
        left, up = (int(generator.integers(each + 1)) for each in spare)
        around = Window(own.column - left, own.row - up, own.width + spare[0], own.height + spare[1])
        part = aligned(scene.grid, around, step)
        total += _bytes_of(scene, part)
        if parts and total > budget:
            break
        parts.append(part)
    return parts


def _square_of(file: Window, side: int, generator: np.random.Generator) -> Window:
    """A part of a file that is larger than a square of that side, drawn anywhere in it; else the file."""
    if file.width <= side and file.height <= side:
        return file
    width, height = min(file.width, side), min(file.height, side)
    left, up = (int(generator.integers(of - own + 1)) for of, own in ((file.width, width), (file.height, height)))
    return Window(file.column + left, file.row + up, width, height)


def _bytes_of(scene: Scene, window: Window) -> int:
    """What a window of all acquisitions takes in memory."""
    pixels = window.width * window.height
    return sum(4 * len(a.bands) * pixels * a.scale.finer**2 // a.scale.coarser**2 for a in scene.acquisitions) + pixels
