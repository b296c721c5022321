"""In which order the strips of several windows are looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.mapping.blending import Tiling
from core.mapping.strip_reader import Strip
from core.scenes.grid import Grid, Window, lattice


@dataclass(frozen=True, eq=False)
class Step:
    """A strip of tiles.

    Attributes:
        strip: that is read.
        tiles: corners of its tiles.
        inner: where the tiles' inner parts are.
        finished: what no later strip says anything more of; of a window's edges it may be empty.
    """

    strip: Strip
    tiles: list[Window]
    inner: Window
    finished: Window


def groups_of(windows: Sequence[Window], most_columns: int) -> list[list[Window]]:
    """Windows of which a strip is looked at in turn, from west to east: as many as a row of the files' blocks is kept of, so
    that no block is unpacked for each of them.

    Args:
        windows: that share no pixel.
        most_columns: that such a row may have, where one window does not have more.
    """
    groups: list[list[Window]] = []
    for window in sorted(windows, key=lambda each: (each.column, each.row)):
        if not groups or window.stop_column - groups[-1][0].column > most_columns:
            groups.append([])
        groups[-1].append(window)
    return groups


def steps_of(grid: Grid, windows: Sequence[Window], tiling: Tiling, margin: int) -> list[Step]:
    """The strips of some windows in the order in which they are looked at: from north to south, and from west to east.

    Args:
        grid: of the scene.
        windows: that share no pixel.
        tiling: of the strips.
        margin: pixels at a tile's edges of which it says nothing.
    """
    stride, inner = tiling.stride, tiling.tile - 2 * margin
    steps = []
    for panel, window in enumerate(windows):
        # Inner parts of tiles, in rows.
        rows = lattice(grid, window.translated(-margin, -margin), inner, stride)
        for number, tiles in enumerate(rows):
            first, is_last = tiles[0], number == len(rows) - 1
            width = tiles[-1].column + tiling.tile - first.column
            strip = Strip(Window(first.column, first.row, width, tiling.tile), panel, number == 0, is_last)
            inside = Window(first.column + margin, first.row + margin, width - 2 * margin, inner)
            done = Window(inside.column, inside.row, inside.width, inner if is_last else stride).intersection(window)
            steps.append(Step(strip, tiles, inside, done))
    return sorted(steps, key=lambda step: (step.strip.window.row, step.strip.panel))
