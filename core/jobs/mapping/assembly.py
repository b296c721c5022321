"""Strips of panels, in whatever order they come, to the rasters of a map."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.jobs.mapping.layers import Layer, encoded_strip
from core.labels.scheme import ClassScheme
from core.mapping.engine import MapStrip
from core.mapping.journal import StripJournal, journal_bytes
from core.mapping.rasters import (
    WRITTEN_ROWS,
    RasterFormat,
    StripWriter,
    check_space,
    file_bytes,
    gathered_bytes,
    raster_environment,
)
from core.mapping.sidecars import ClassAreas, scheme_colormap
from core.scenes.grid import Grid, Window

Strip = list[NDArray[Any]]


class MapAssembly:
    """Keeps every strip in the journal, and writes rows to the rasters as soon as all panels have them.

    A thread of its own does so while the model looks at the next strip.

    Args:
        layers: the rasters; the first is that of the classes.
        scheme: of the classes.
        grid: of the map.
        panels: windows of one height, from west to east.
        rows: windows of the strips, from north to south.
        journal: of the strips.
        tags: of every raster.
        file_format: of every raster.

    Attributes:
        areas: of the classes, once all is written.
        subsets: (256,) how many pixels rest on each set of inputs.

    Raises:
        OutputError: a raster cannot be made, or the disk has too little room.
    """

    def __init__(
        self,
        layers: list[Layer],
        scheme: ClassScheme,
        grid: Grid,
        panels: list[Window],
        rows: list[Window],
        journal: StripJournal,
        tags: dict[str, str],
        file_format: RasterFormat,
    ) -> None:
        self.areas = ClassAreas(grid)
        self.subsets: NDArray[np.int64] = np.zeros(256, np.int64)
        self._layers = layers
        self._panels = panels
        self._rows = rows
        self._journal = journal
        self._next = 0
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        check_map_space(layers, grid, file_format)
        colormap = scheme_colormap(scheme)
        with ExitStack() as stack:
            self._writers = [
                stack.enter_context(
                    StripWriter(
                        Path(layer.path),
                        grid,
                        len(layer.names),
                        layer.dtype,
                        layer.nodata,
                        tags=tags,
                        file_format=file_format,
                        descriptions=layer.names,
                        colormap=colormap if layer is layers[0] else None,
                    )
                )
                for layer in layers
            ]
            self._stack = stack.pop_all()

    def __enter__(self) -> MapAssembly:
        # What an interrupted run has left is written before anything new.
        self._writing = self._thread.submit(self._write_ready, None, [])
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._thread.shutdown(wait=True, cancel_futures=True)
        except KeyboardInterrupt as interrupt:
            # A cancelled job is interrupted where it takes long. GDAL's datasets are not closed while a thread writes to them.
            self._thread.shutdown(wait=True)
            kind, error = KeyboardInterrupt, interrupt
        self._stack.__exit__(kind, error, trace)

    def missing(self) -> list[Window]:
        """The windows of strips that are not there yet, panel by panel, from north to south."""
        every = (self._strip(panel, row) for panel in self._panels for row in self._rows)
        return [window for window in every if window not in self._journal]

    def add(self, strip: MapStrip) -> None:
        """Takes a strip; waits for the one before to be written, so that memory holds no more than two."""
        self._hand_over(strip.window, strip)

    def add_encoded(self, window: Window, arrays: Strip) -> None:
        """As ``add``, of a strip that another process has encoded."""
        self._hand_over(window, arrays)

    def _hand_over(self, window: Window, strip: MapStrip | Strip) -> None:
        if self._writing is not None:
            self._writing.result()
        self._writing = self._thread.submit(self._take, window, strip)

    def finish(self) -> None:
        """Completes every raster, so that leaving the context only moves them to their places.

        Raises:
            OutputError: the disk is full.
            ValueError: strips are missing.
        """
        if self._writing is not None:
            self._writing.result()
        for writer in self._writers:
            writer.finish()

    def _take(self, window: Window, strip: MapStrip | Strip) -> None:
        with raster_environment():
            arrays = encoded_strip(self._layers, strip) if isinstance(strip, MapStrip) else strip
            self._journal.add(window, arrays)
            self._write_ready(window, arrays)

    def _write_ready(self, window: Window | None, arrays: Strip) -> None:
        """Writes all rows that have come so far; ``arrays`` are those of ``window``, which need not be read again."""
        while self._next < len(self._rows):
            row = self._rows[self._next]
            windows = [self._strip(panel, row) for panel in self._panels]
            if not all(each in self._journal for each in windows):
                return
            parts = [arrays if each == window else self._journal.read(each) for each in windows]
            first = row.row - self._rows[0].row
            for number, writer in enumerate(self._writers):
                several = [part[number] for part in parts]
                values = several[0] if len(several) == 1 else np.concatenate(several, axis=2)
                writer.write(values, first)
                if number == 0:
                    self.areas.add(values[0], first)
            for part in parts:
                self.subsets += part[-1]
            self._next += 1

    @staticmethod
    def _strip(panel: Window, row: Window) -> Window:
        return Window(panel.column, row.row, panel.width, row.height)


def runs_of(strips: list[Window]) -> list[Window]:
    """Strips that follow each other without a gap, as one window each."""
    runs: list[Window] = []
    for strip in strips:
        last = runs[-1] if runs else None
        if last is not None and (last.column, last.width, last.stop_row) == (strip.column, strip.width, strip.row):
            runs[-1] = Window(last.column, last.row, last.width, last.height + strip.height)
        else:
            runs.append(strip)
    return runs


def assembly_bytes(layers: list[Layer], width: int, stride: int) -> int:
    """Bytes that strips take from the model to the rasters, at the peak.

    Args:
        layers: of the map.
        width: of the map.
        stride: rows of a strip.
    """
    # A row of blocks is gathered; a strip is encoded, and may be put together from panels.
    return sum(layer.pixel_bytes for layer in layers) * width * (WRITTEN_ROWS + 2 * stride)


def check_map_space(layers: list[Layer], grid: Grid, file_format: RasterFormat) -> None:
    """Raises an error where the disks have no room for the rasters of a map and its strips."""
    pixels = grid.width * grid.height
    needed: dict[Path, float] = {}
    for layer in layers:
        folder = Path(layer.path).absolute().parent
        gathered = gathered_bytes(grid, layer.pixel_bytes, 0)[1]
        written = file_bytes(pixels, layer.pixel_bytes, layer.dtype, file_format)
        needed[folder] = needed.get(folder, 0) + gathered + written
    output = Path(layers[0].path).absolute()
    needed[output.parent] += pixels * sum(layer.pixel_bytes for layer in layers) - journal_bytes(output)
    for folder, size in needed.items():
        there = [layer for layer in layers if Path(layer.path).absolute().parent == folder]
        check_space(Path(max(there, key=lambda layer: layer.pixel_bytes).path), int(size))
