"""A scene read strip by strip, ahead of who looks at the strips."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait
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


class StripReader:
    """A strip of the scene as high as a tile, moved south by a stride at a time; what overlaps is kept, not read anew.

    While the model looks at one strip the next is read, every acquisition by a thread of its own, into the second of two
    places in memory that are used in turn: whoever is done with a strip releases it.

    Args:
        scene: that is read.
        inputs: numbers the sets of inputs that are there.
        strip: the first.
        tiling: of the strips.
        count: of the strips.
        threads: as many as the scene has acquisitions. They outlive the reader: what the memory's allocator keeps for a
            thread it does not give to the threads of the next reader.
    """

    def __init__(
        self,
        scene: Scene,
        inputs: InputSubsets,
        strip: Window,
        tiling: Tiling,
        count: int,
        threads: ThreadPoolExecutor,
    ) -> None:
        self._scene = scene
        self._inputs = inputs
        self._strip = strip
        self._tiling = tiling
        self._count = count
        self._asked = self._given = self._released = 0
        # GDAL's datasets are for one thread at a time.
        self._readers = {entry.name: SceneReader(scene) for entry in scene.acquisitions}
        self._places = [self._place() for _ in range(min(count, 2))]
        self._subsets = [np.zeros(strip.shape, np.uint8) for _ in self._places]
        self._threads = threads
        self._coming: list[tuple[str, Future[NDArray[np.bool_]]]] = []

    def _place(self) -> Arrays:
        grids = [(entry, on_scale(self._scene.grid, self._strip, entry.scale)) for entry in self._scene.acquisitions]
        return {entry.name: np.empty((len(entry.bands), *grid.shape), np.float32) for entry, grid in grids}

    def __enter__(self) -> StripReader:
        self._ask()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        wait([future for _, future in self._coming if not future.cancel()])
        for reader in self._readers.values():
            reader.close()

    def _ask(self) -> None:
        """Has the next strip read, where the one before it is there, whose rows it shares, and a place is free."""
        if self._asked < min(self._count, self._given + 1, self._released + 2):
            number = self._asked
            self._asked += 1
            self._coming = []
            for entry in self._scene.acquisitions:
                # One by one: who is interrupted here still waits for those that read.
                self._coming.append((entry.name, self._threads.submit(self._read, entry, number)))

    def _read(self, acquisition: Acquisition, number: int) -> NDArray[np.bool_]:
        """Fills the place of a strip with an acquisition; (fresh rows, columns) where it is valid."""
        place = self._places[number % 2][acquisition.name]
        strip, kept = self._strip, 0
        if number:
            row = strip.row + number * self._tiling.stride + self._tiling.overlap
            strip = Window(strip.column, row, strip.width, self._tiling.stride)
            kept = self._tiling.overlap * acquisition.scale.finer // acquisition.scale.coarser
        if kept:
            place[:, :kept] = self._places[(number - 1) % 2][acquisition.name][:, -kept:]
        fresh = place[:, kept:]
        with raster_environment():  # rasterio's settings are those of a thread
            self._readers[acquisition.name].read_onto(
                acquisition, on_scale(self._scene.grid, strip, acquisition.scale), out=fresh
            )
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
        place, subset = self._places[number % 2], self._subsets[number % 2]
        kept = self._tiling.overlap if number else 0
        if kept:
            subset[:kept] = self._subsets[(number - 1) % 2][-kept:]
        subset[kept:] = 0
        for name, coming in self._coming:
            subset[kept:] |= coming.result().astype(np.uint8) * self._inputs.bit(name)
        self._given += 1
        self._ask()
        return place, subset

    def release(self) -> None:
        """Gives the place of the oldest strip in use to the next one."""
        self._released += 1
        self._ask()
