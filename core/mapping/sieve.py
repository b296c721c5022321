"""Small patches of a map go to their neighbours.

GDAL's sieve gives a small patch to its largest neighbour, however short the border that they share, counts pixels where an
area is meant, and lets the patches of a heap of specks all stay where none of them has a large neighbour. Here the smallest
patch of all goes first, to the class with which it shares the longest border, and joins what it touches of that class; then
the next one, until none is left that is too small. What does not touch a smaller patch than itself can go at the same time,
so the work is done in rounds over tables of borders; the result is that of one patch after another.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from core.labels.scheme import NODATA_CODE
from core.mapping.majority import ReadCodes
from core.mapping.patches import Patches, Progress
from core.scenes.grid import Grid

_LENGTH_UNITS = 1000
"""Of a pixel's height: lengths are whole numbers, so that their sums do not depend on an order."""

AREA_TOLERANCE = 0.003
"""A patch that lacks less than this part of the smallest area is large enough: a UTM zone stretches areas by -0.1 to +0.2
percent, and fifty pixels of 10 m are half a hectare to everybody."""


@dataclass(frozen=True, eq=False)
class Borders:
    """Which patches touch.

    Attributes:
        first, second: (E,) int64 patches, ``first`` < ``second``, every pair once.
        lengths: (E,) int64 of the common border; 0 where they touch by corners alone.
        corners: (E,) int64, places where they touch diagonally.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    lengths: NDArray[np.int64]
    corners: NDArray[np.int64]

    def select(self, kept: NDArray[np.bool_]) -> Borders:
        return Borders(self.first[kept], self.second[kept], self.lengths[kept], self.corners[kept])


def smallest_size(hectares: float, unit_m2: float) -> int:
    """The size of the smallest patch that stays, in units of ``area_sizes``; see ``AREA_TOLERANCE``."""
    return int(np.ceil(hectares * 10_000 * (1 - AREA_TOLERANCE) / unit_m2))


def find_borders(patches: Patches, read: ReadCodes, grid: Grid, is_small: NDArray[np.bool_], progress: Progress) -> Borders:
    """The borders of all small patches.

    Args:
        patches: of the map.
        read: the map's codes.
        grid: of the map.
        is_small: (P + 1,) bool; borders between two others are left out.
        progress: called after each strip.
    """
    widths = _widths(grid)
    found: list[Borders] = []
    above = np.zeros((0, grid.width), np.int64)
    for index, window in enumerate(patches.windows):
        numbers = np.concatenate([above, patches.numbers(read(window), index)])
        own = numbers[len(above) :]
        # The side between two rows is as wide as a pixel of the lower one.
        across = np.broadcast_to(widths[window.stop_row - len(numbers) + 1 : window.stop_row, None], numbers[1:].shape)
        pairs = [
            _pairs(numbers[:-1], numbers[1:], is_small, across, False),
            _pairs(own[:, :-1], own[:, 1:], is_small, np.broadcast_to(np.int64(_LENGTH_UNITS), own[:, 1:].shape), False),
            _pairs(numbers[:-1, :-1], numbers[1:, 1:], is_small, None, True),
            _pairs(numbers[:-1, 1:], numbers[1:, :-1], is_small, None, True),
        ]
        found.append(_summed(pairs, len(is_small)))
        above = numbers[-1:]
        progress(window.stop_row / grid.height, "Measuring borders")
    return _summed(found, len(is_small))


def _widths(grid: Grid) -> NDArray[np.int64]:
    """(rows,) width of a pixel in units of its height; towards the poles a degree of longitude shrinks."""
    rows = np.arange(grid.height)
    ratio = np.full(grid.height, grid.pixel_width / grid.pixel_height)
    if grid.is_geographic:
        ratio *= np.cos(np.radians(grid.top - (rows + 0.5) * grid.pixel_height))
    widths: NDArray[np.int64] = np.maximum(1, np.rint(ratio * _LENGTH_UNITS)).astype(np.int64)
    return widths


def _pairs(
    one: NDArray[np.int64],
    other: NDArray[np.int64],
    is_small: NDArray[np.bool_],
    lengths: NDArray[np.int64] | None,
    is_corner: bool,
) -> Borders:
    """The places where two patches meet of which one is small; ``lengths`` is None for corners."""
    meets = (one != other) & (one > 0) & (other > 0)
    meets[meets] = is_small[one[meets]] | is_small[other[meets]]
    first, second = one[meets], other[meets]
    length = np.zeros(len(first), np.int64) if lengths is None else lengths[meets]
    return Borders(np.minimum(first, second), np.maximum(first, second), length, np.full(len(first), int(is_corner), np.int64))


def _summed(parts: list[Borders], n_patches: int) -> Borders:
    """One table in which every pair stands once."""
    first, second, lengths, corners = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("first", "second", "lengths", "corners")
    )
    if not len(first):
        return Borders(first, second, lengths, corners)
    keys = first * n_patches + second
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    chosen = order[starts]
    return Borders(
        first[chosen],
        second[chosen],
        np.add.reduceat(lengths[order], starts),
        np.add.reduceat(corners[order], starts),
    )


def merge_small(
    patches: Patches, borders: Borders, minimum: int, protected: Collection[int], progress: Progress
) -> NDArray[np.uint8]:
    """Gives small patches to the neighbouring classes with which they share the longest borders, the smallest first.

    Where borders are of the same length, the class that touches the patch at more corners wins, then the one with the
    lower code. A patch that shares no side with another class stays.

    Args:
        patches: of the map.
        borders: of the small ones.
        minimum: size of the smallest patch that may stay.
        protected: codes of classes whose patches all stay; they may grow.
        progress: called after each round.

    Returns:
        (P + 1,) uint8, the class that each patch has in the end.
    """
    codes, sizes = patches.codes.copy(), patches.sizes.copy()
    stays = np.zeros(256, bool)
    stays[[NODATA_CODE, *protected]] = True
    root = np.arange(len(codes))
    joins_by_corners = patches.connectedness == 8
    begun = None
    while True:
        is_small = (sizes < minimum) & ~stays[codes]
        borders = borders.select(is_small[borders.first] | is_small[borders.second])
        begun = begun or len(borders.first)
        progress(1 - len(borders.first) / max(1, begun), "Joining small patches")
        going, classes = _going(borders, codes, sizes, is_small)
        if not len(going):
            break
        codes[going] = classes
        goes = np.zeros(len(codes), bool)
        goes[going] = True
        touches = (goes[borders.first] | goes[borders.second]) & (codes[borders.first] == codes[borders.second])
        if not joins_by_corners:
            touches &= borders.lengths > 0
        _join(root, sizes, borders.first[touches], borders.second[touches])
        first, second = root[borders.first], root[borders.second]
        moved = Borders(np.minimum(first, second), np.maximum(first, second), borders.lengths, borders.corners)
        borders = _summed([moved.select(first != second)], len(codes))
    while not np.array_equal(root, root[root]):
        root = root[root]
    return codes[root]


def _going(
    borders: Borders, codes: NDArray[np.uint8], sizes: NDArray[np.int64], is_small: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """The small patches that touch no smaller one that could go, and the classes that they go to."""
    patch = np.concatenate([borders.first, borders.second])
    neighbour = np.concatenate([borders.second, borders.first])
    lengths, corners = np.tile(borders.lengths, 2), np.tile(borders.corners, 2)
    can_go = np.zeros(len(codes), bool)
    can_go[patch[lengths > 0]] = True
    can_go &= is_small
    own = can_go[patch]
    patch, neighbour, lengths, corners = patch[own], neighbour[own], lengths[own], corners[own]
    # Of patches of one size the first goes first: their numbers follow their first pixels.
    smaller = (sizes[neighbour] < sizes[patch]) | ((sizes[neighbour] == sizes[patch]) & (neighbour < patch))
    waits = np.zeros(len(codes), bool)
    waits[patch[can_go[neighbour] & smaller]] = True
    own = ~waits[patch]
    patch, neighbour, lengths, corners = patch[own], neighbour[own], lengths[own], corners[own]
    if not len(patch):
        return patch, np.zeros(0, np.uint8)
    keys = patch * 256 + codes[neighbour]
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    keys, length, corner = keys[order][starts], np.add.reduceat(lengths[order], starts), np.add.reduceat(corners[order], starts)
    by_side = length > 0
    keys, length, corner = keys[by_side], length[by_side], corner[by_side]
    best = np.lexsort((keys % 256, -corner, -length, keys // 256))
    going, place = np.unique(keys[best] // 256, return_index=True)
    return going, (keys[best][place] % 256).astype(np.uint8)


def _join(root: NDArray[np.int64], sizes: NDArray[np.int64], first: NDArray[np.int64], second: NDArray[np.int64]) -> None:
    """Makes one patch of those that are linked: the first one takes the size of all."""
    members, compact = np.unique(np.concatenate([first, second]), return_inverse=True)
    ones, others = compact[: len(first)], compact[len(first) :]
    graph = coo_array((np.ones(len(ones), bool), (ones, others)), shape=(len(members), len(members)))
    count, component = connected_components(graph, directed=False)
    head = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(head, component, members)
    size = np.zeros(count, np.int64)
    np.add.at(size, component, sizes[members])
    root[members] = head[component]
    sizes[head] = size
