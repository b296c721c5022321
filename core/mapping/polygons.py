"""Polygons of the patches of a map, strip by strip.

Outlines follow the pixels' sides. They are made and joined in pixels from the map's upper left corner, where all coordinates
are whole numbers, so that nothing is lost at the seams of strips and neighbours have the same corners to the last bit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import shapes

from core.mapping.majority import ReadCodes
from core.mapping.patches import Patches, Progress
from core.scenes.grid import Grid


def patch_polygons(patches: Patches, read: ReadCodes, progress: Progress) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
    """Patch numbers and polygons, as soon as they are complete: memory holds those that reach into the next strip.

    Args:
        patches: of the map, with a connectedness of 4: of pixels that touch by corners alone no valid polygon is made.
        read: the map's codes.
        progress: called after each strip.

    Yields:
        (n,) numbers and (n,) polygons in pixels: x to the right, y downwards.
    """
    pieces: dict[int, list[Any]] = defaultdict(list)
    height = patches.windows[-1].stop_row
    for index, window in enumerate(patches.windows):
        numbers = patches.numbers(read(window), index)
        present, compact = np.unique(numbers, return_inverse=True)
        place = Affine.translation(0, window.row)
        compact = compact.reshape(numbers.shape).astype(np.int32)
        for shape, value in shapes(compact, mask=numbers > 0, connectivity=4, transform=place):
            pieces[int(present[int(value)])].append(_polygon(shape["coordinates"]))
        is_last = window.stop_row == height
        open_ones = set() if is_last else set(np.unique(numbers[-1]).tolist())
        complete = [number for number in pieces if number not in open_ones]
        if complete:
            polygons = [_whole(pieces.pop(number)) for number in complete]
            yield np.array(complete), np.array(polygons, dtype=object)
        progress(window.stop_row / height, "Drawing outlines")


def _polygon(rings: list[Any]) -> Any:
    # Arrays: shapely takes coordinates in Python's own lists one by one.
    shell, *holes = (shapely.linearrings(np.array(ring, np.float64)) for ring in rings)
    return shapely.polygons(shell, holes=holes or None)


def _whole(pieces: list[Any]) -> Any:
    """One polygon of the pieces of several strips, as if there had been one strip."""
    if len(pieces) == 1:
        return pieces[0]
    # Where a seam crosses an outline a corner is left that is none; rings start at their lowest point, which is a real one.
    return shapely.simplify(shapely.normalize(shapely.union_all(pieces)), 0.0)


def simplified(polygons: NDArray[Any], tolerance: float) -> NDArray[Any]:
    """Smoother outlines: neighbours keep their common borders in common, without gaps or overlaps, and none disappears.

    Source: Visvalingam and Whyatt (1993), line generalisation by repeated elimination of points, applied to the borders of
    a coverage (``shapely.coverage_simplify``).

    Args:
        polygons: (n,) of all patches of a map, in pixels.
        tolerance: in pixels; a corner goes if the square root of the area that it adds is smaller.
    """
    # A corner where three patches meet must be one of all three, and the one along whose side it lies lacks it.
    dense = shapely.transform(shapely.segmentize(polygons, 1.0), np.rint)
    return np.asarray(shapely.coverage_simplify(dense, tolerance), dtype=object)


def on_the_ground(polygons: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """Polygons in pixels in the grid's own system."""
    size, corner = np.array([grid.pixel_width, -grid.pixel_height]), np.array([grid.left, grid.top])
    return np.asarray(shapely.transform(polygons, lambda points: corner + points * size), dtype=object)
