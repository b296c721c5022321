"""Patches: connected pixels of one class, found in strips of rows.

Memory holds one strip of pixels and a few numbers a patch. The pixels' patches are not kept: a strip that is read again
is labelled again, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.measure import label

from core.mapping.majority import ReadCodes
from core.scenes.grid import Grid, Window

Connectedness = Literal[4, 8]
Progress = Callable[[float, str], None]

STRIP_PIXELS = 2**21
"""Of a strip; on the way a pixel takes about 100 bytes."""

_AREA_UNITS = 10**6
"""Of a pixel, at least; 2**63 of them are a raster of a million columns and rows."""


def strips(grid: Grid, pixels: int = STRIP_PIXELS) -> Iterator[Window]:
    """Strips of whole rows from north to south, with about so many pixels each."""
    height = max(1, pixels // grid.width)
    for row in range(0, grid.height, height):
        yield Window(0, row, grid.width, min(height, grid.height - row))


@dataclass(frozen=True, eq=False)
class Patches:
    """The patches of a map; number 0 is nodata, the others count in the order of their first pixels, row by row.

    Attributes:
        codes: (P + 1,) uint8, class of each patch.
        sizes: (P + 1,) int64, sum of its pixels' sizes.
        windows: the strips.
        connectedness: 4 where pixels touch by sides, 8 where by corners too.
    """

    codes: NDArray[np.uint8]
    sizes: NDArray[np.int64]
    windows: tuple[Window, ...]
    connectedness: Connectedness
    _patch_of: NDArray[np.int64]  # (parts + 1,) patch of each part, a part being what one strip shows of a patch
    _first_part: tuple[int, ...]  # a strip

    def __len__(self) -> int:
        return len(self.codes) - 1

    def numbers(self, codes: NDArray[np.uint8], strip: int) -> NDArray[np.int64]:
        """(rows, columns) patch numbers of a strip from its codes; 0 = nodata."""
        parts = _parts(codes, self.connectedness)
        parts[parts > 0] += self._first_part[strip]
        return self._patch_of[parts]


def find_patches(
    read: ReadCodes,
    grid: Grid,
    connectedness: Connectedness,
    row_sizes: NDArray[np.int64],
    progress: Progress,
    strip_pixels: int = STRIP_PIXELS,
) -> Patches:
    """Finds all patches of a map.

    Args:
        read: the map's codes.
        grid: of the map.
        connectedness: 4 or 8.
        row_sizes: (rows,) what a pixel of each row adds to the size of its patch.
        progress: called after each strip.
        strip_pixels: about so many are held at a time; the result is the same for any number.
    """
    windows = tuple(strips(grid, strip_pixels))
    codes, sizes, firsts = [np.zeros(1, np.uint8)], [np.zeros(1, np.int64)], [np.full(1, -1, np.int64)]
    links: list[NDArray[np.int64]] = [np.zeros((2, 0), np.int64)]
    first_part, n_parts = [], 0
    above: tuple[NDArray[np.uint8], NDArray[np.int64]] | None = None
    for window in windows:
        strip = read(window)
        parts = _parts(strip, connectedness)
        count = int(parts.max(initial=0))
        code, size, first = _measured(strip, parts, count, row_sizes[window.row : window.stop_row])
        codes.append(code)
        sizes.append(size)
        firsts.append(first + window.row * grid.width)
        parts[parts > 0] += n_parts
        if above is not None:
            links.append(_links(*above, strip[0], parts[0], connectedness))
        above = strip[-1].copy(), parts[-1].copy()
        first_part.append(n_parts)
        n_parts += count
        progress(window.stop_row / grid.height, "Finding patches")
    patch_of = _joined(np.concatenate(links, axis=1), np.concatenate(firsts))
    total = np.zeros(int(patch_of.max()) + 1, np.int64)
    np.add.at(total, patch_of, np.concatenate(sizes))
    code_of = np.zeros(len(total), np.uint8)
    code_of[patch_of] = np.concatenate(codes)
    return Patches(code_of, total, windows, connectedness, patch_of, tuple(first_part))


def _parts(codes: NDArray[np.uint8], connectedness: Connectedness) -> NDArray[np.int64]:
    """(rows, columns) connected parts of a strip, from 1; 0 = nodata."""
    found: Any = label(codes, background=0, connectivity=1 if connectedness == 4 else 2)  # type: ignore[no-untyped-call]
    return np.asarray(found, np.int64)


def _measured(
    codes: NDArray[np.uint8], parts: NDArray[np.int64], count: int, row_sizes: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Code, size and first pixel of each part, without nodata."""
    flat = parts.ravel()
    # Whole numbers far below 2**53: their sums in float64 are exact, and the same in any order.
    weights = np.broadcast_to(row_sizes[:, None].astype(np.float64), parts.shape).ravel()
    sizes = np.bincount(flat, weights, minlength=count + 1).astype(np.int64)
    first = np.zeros(count + 1, np.int64)
    # Of several values for one place the last one stays: backwards, that is the first pixel.
    first[flat[::-1]] = np.arange(len(flat) - 1, -1, -1)
    return codes.ravel()[first[1:]], sizes[1:], first[1:]


def _links(
    codes_above: NDArray[np.uint8],
    parts_above: NDArray[np.int64],
    codes: NDArray[np.uint8],
    parts: NDArray[np.int64],
    connectedness: Connectedness,
) -> NDArray[np.int64]:
    """(2, n) parts of one class that touch across the seam of two strips."""
    found = []
    for shift in (0,) if connectedness == 4 else (-1, 0, 1):
        upper = slice(max(0, shift), len(codes) + min(0, shift))
        lower = slice(max(0, -shift), len(codes) + min(0, -shift))
        same = (codes_above[upper] == codes[lower]) & (codes[lower] > 0)
        found.append(np.stack([parts_above[upper][same], parts[lower][same]]))
    return np.unique(np.concatenate(found, axis=1), axis=1)


def _joined(links: NDArray[np.int64], firsts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Patch of each part, numbered by the patches' first pixels; nodata, whose first pixel is -1, stays 0."""
    n_parts = len(firsts)
    graph = coo_array((np.ones(links.shape[1], bool), (links[0], links[1])), shape=(n_parts, n_parts))
    count, component = connected_components(graph, directed=False)
    first = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(first, component, firsts)
    number = np.empty(count, np.int64)
    number[np.argsort(first)] = np.arange(count)
    patch_of: NDArray[np.int64] = number[component]
    return patch_of


def area_sizes(grid: Grid) -> tuple[NDArray[np.int64], float]:
    """Pixel areas on the ellipsoid as whole numbers, whose sums do not depend on an order.

    Returns:
        (rows,) int64 for ``find_patches``, and their unit in square metres.
    """
    areas = grid.row_pixel_areas_m2()
    unit = float(10.0 ** np.floor(np.log10(areas.max())) / _AREA_UNITS)
    return np.rint(areas / unit).astype(np.int64), unit
