"""A scene read strip by strip, ahead of who looks at the strips."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from core.mapping.blending import Tiling
from core.mapping.missing import InputSubsets
from core.mapping.rasters import raster_environment
from core.scenes.grid import Window, on_scale
from core.scenes.reading import SceneReader, valid_pixels
from core.scenes.scene import Acquisition, Scene

Arrays = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Strip:
    """Where something is read.

    Attributes:
        window: as high as a tile, in the scene's grid.
        panel: which of several windows it is a strip of. Strips of one panel follow each other from north to south.
        is_first, is_last: of the panel.
    """

    window: Window
    panel: int
    is_first: bool
    is_last: bool


class StripReader:
    """Strips of the scene as high as tiles. What a strip shares with the one before it in its panel is kept, not read anew.

    While the model looks at one strip the next is read, every acquisition by a thread of its own, into the second of two
    places in memory that are used in turn: whoever is done with a strip releases it.

    Args:
        scene: that is read.
        inputs: numbers the sets of inputs that are there.
        strips: in the order in which they are read; those of a panel are a stride of the tiling apart.
        tiling: of the strips.
        threads: as many as the scene has acquisitions. They outlive the reader: what the memory's allocator keeps for a
            thread it does not give to the threads of the next reader.
    """

    def __init__(
        self, scene: Scene, inputs: InputSubsets, strips: Sequence[Strip], tiling: Tiling, threads: ThreadPoolExecutor
    ) -> None:
        self._scene = scene
        self._inputs = inputs
        self._strips = strips
        self._overlap = tiling.overlap
        self._asked = self._given = self._released = 0
        # GDAL's datasets are for one thread at a time.
        self._readers = {entry.name: SceneReader(scene) for entry in scene.acquisitions}
        self._places = [self._place() for _ in range(min(len(strips), 2))]
        self._shared: dict[tuple[int, str], NDArray[np.float32]] = {}
        self._shared_subsets: dict[int, NDArray[np.uint8]] = {}
        self._threads = threads
        self._coming: list[tuple[str, Future[NDArray[np.bool_]]]] = []

    def _place(self) -> tuple[Arrays, NDArray[np.uint8]]:
        """Memory for the largest strip: of each acquisition, and of the sets of inputs."""
        width, height = (max(getattr(strip.window, side) for strip in self._strips) for side in ("width", "height"))
        arrays = {}
        for entry in self._scene.acquisitions:
            rows, columns = (side * entry.scale.finer // entry.scale.coarser for side in (height, width))
            arrays[entry.name] = np.empty((len(entry.bands), rows, columns), np.float32)
        return arrays, np.zeros((height, width), np.uint8)

    def __enter__(self) -> StripReader:
        self._ask()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        wait([future for _, future in self._coming if not future.cancel()])
        for reader in self._readers.values():
            reader.close()

    def _ask(self) -> None:
        """Has the next strip read, where the one before it is there, whose rows it may share, and a place is free."""
        if self._asked < min(len(self._strips), self._given + 1, self._released + 2):
            number = self._asked
            self._asked += 1
            self._coming = []
            for entry in self._scene.acquisitions:
                # One by one: who is interrupted here still waits for those that read.
                self._coming.append((entry.name, self._threads.submit(self._read, entry, number)))

    def _read(self, acquisition: Acquisition, number: int) -> NDArray[np.bool_]:
        """Fills the place of a strip with an acquisition; (fresh rows, columns) where it is valid."""
        strip, scale = self._strips[number], acquisition.scale
        window, key = strip.window, (strip.panel, acquisition.name)
        place = self._places[number % 2][0][acquisition.name][:, :, : window.width * scale.finer // scale.coarser]
        kept = self._overlap * scale.finer // scale.coarser
        fresh = place
        if not strip.is_first and kept:
            place[:, :kept] = self._shared.pop(key)
            fresh = place[:, kept:]
            window = Window(window.column, window.row + self._overlap, window.width, window.height - self._overlap)
        with raster_environment():  # rasterio's settings are those of a thread
            self._readers[acquisition.name].read_onto(
                acquisition, on_scale(self._scene.grid, window, acquisition.scale), out=fresh
            )
        if not strip.is_last and kept:
            self._shared[key] = place[:, -kept:].copy()
        return valid_pixels(fresh, acquisition)

    def next(self) -> tuple[Arrays, NDArray[np.uint8]]:
        """The next strip: by acquisition (bands, rows, columns), and (rows, columns) the number of the set of inputs that
        are there. Both change when two strips were given and one of them is released.

        Raises:
            RasterError: a raster cannot be read.
            ValueError: there are no more strips, or both that were given are still in use.
        """
        if self._given >= self._asked:
            raise ValueError("there are no more strips, or none is released")
        number = self._given
        strip, (arrays, subsets) = self._strips[number], self._places[number % 2]
        width, kept = strip.window.width, 0
        subset = subsets[:, :width]
        if not strip.is_first and self._overlap:
            kept = self._overlap
            subset[:kept] = self._shared_subsets.pop(strip.panel)
        subset[kept:] = 0
        for name, coming in self._coming:
            subset[kept:] |= coming.result().astype(np.uint8) * self._inputs.bit(name)
        if not strip.is_last and self._overlap:
            self._shared_subsets[strip.panel] = subset[-self._overlap :].copy()
        self._given += 1
        self._ask()
        scales = {entry.name: entry.scale for entry in self._scene.acquisitions}
        given = {name: place[:, :, : width * scales[name].finer // scales[name].coarser] for name, place in arrays.items()}
        return given, subset

    def release(self) -> None:
        """Gives the place of the oldest strip in use to the next one."""
        self._released += 1
        self._ask()
