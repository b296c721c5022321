"""How tiles are weighed where they overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_WEIGHT = 1e-6
"""Weight of a pixel whose surroundings the tile cuts off: it counts only where no other tile knows better."""

SMALLEST = 256
"""Side of a tile, in pixels, where the receptive field asks for less: smaller ones share much of their area."""

USUAL, RADII = 448, 12
"""Side of a tile, in pixels and in radii of the receptive field, whichever is less, where the overlap allows smaller ones, too:
what tiles share is computed up to four times, and memory grows with their area."""


@dataclass(frozen=True)
class Tiling:
    """Size and distance of tiles, in reference pixels.

    Attributes:
        tile: side of a tile.
        stride: distance between the corners of neighbours.
    """

    tile: int
    stride: int

    @property
    def overlap(self) -> int:
        return self.tile - self.stride

    def margin(self, radius: int) -> int:
        """Pixels along a tile's edges whose surroundings the tile cuts off and a neighbour does not: they say nothing.

        Args:
            radius: of the receptive field, in pixels.
        """
        return radius if 2 * radius <= self.overlap else 0


def choose_tiling(step: int, radius: int, overlap: float, finest: int) -> Tiling:
    """A tile whose overlap covers the receptive field, within bounds of memory.

    Where it does, it covers no more: beyond the receptive field neighbours say the same to the bit, and what they share is
    computed up to four times. A forest on pixels without relief shares nothing at all.

    Args:
        step: tile and stride are multiples of it.
        radius: of the receptive field, in pixels.
        overlap: part of a tile's side that it shares with a neighbour at most, 0 to 0.75.
        finest: pixels of the finest modality along a reference pixel.
    """
    largest = max(96, 1024 // finest if finest > 1 else 512)
    wanted = max(2 * radius / overlap, min(USUAL, RADII * radius)) if overlap > 0 else 4 * radius
    # Two steps at least: a tile of one has nothing to share.
    tile = max(2, round(min(max(wanted, SMALLEST), largest) / step)) * step

    def shared(tile: int) -> int:
        return min(-(-round(tile * overlap) // step) * step, tile - step)

    while overlap > 0 and shared(tile) < 2 * radius and tile + step <= largest:
        tile += step
    needed = -(-2 * radius // step) * step
    return Tiling(tile, tile - min(shared(tile), needed))


def fixed_tiling(step: int, window: int, overlap: float) -> Tiling:
    """Tiles of the size that a model was trained on, for one whose answer depends on all of a tile.

    Args:
        step: tile and stride are multiples of it.
        window: side that the model was trained on.
        overlap: part of a tile's side that it shares with a neighbour, 0 to 0.75.
    """
    tile = max(2, -(-window // step)) * step
    shared = min(-(-round(tile * overlap) // step) * step, tile - step)
    return Tiling(tile, tile - shared)


def blending_weights(tiling: Tiling, radius: int) -> NDArray[np.float32]:
    """Weights along one side of a tile; the weight of a pixel is the product of its row's and its column's.

    A pixel nearer to the edge than the receptive field's radius lacks a part of its surroundings and weighs next to
    nothing; between that margin and the end of the overlap the weight rises in a straight line, so that neighbours
    fade into each other. Where the overlap is too small for the margin on both sides, the whole overlap fades.

    Returns:
        (tile,) float32, all positive, at most 1.
    """
    overlap = tiling.overlap
    margin = tiling.margin(radius)
    distance = np.minimum(np.arange(tiling.tile), np.arange(tiling.tile)[::-1]) + 0.5
    ramp = max(overlap - 2 * margin, 1e-3)
    weights = np.clip((distance - margin) / ramp, LEAST_WEIGHT, 1.0) if overlap else np.ones(tiling.tile)
    return weights.astype(np.float32)
