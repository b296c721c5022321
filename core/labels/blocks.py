"""Training and validation parts that lie apart on the ground.

Neighbouring pixels resemble each other, so a score on pixels beside the training pixels says little about the rest of
the map. Whole features are therefore kept together, and so are all features of one square block of ground (spatial
block cross-validation; Roberts et al. 2017, Ecography 40:913-929).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import shapely
from pyproj import Geod, Transformer
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from core.errors import LabelError, UsageError
from core.labels.label_set import LabelSet
from core.labels.rasterizing import PixelCounts, count_pixels
from core.labels.schemes import listed
from core.scenes.grid import Grid, parsed_crs

GAP_PIXELS = 2.0
"""Features closer than this across a block border stay together: their pixels are neighbours, often mixed ones."""

SMALLEST_BLOCK_PIXELS = 8
"""Smaller blocks no longer separate what a network's first layers see at once."""

DIAMETERS_PER_BLOCK = 4.0
"""Side of the first block size tried, in median feature diameters: few features a block, several blocks a class."""

ENOUGH_GROUPS = 4
"""Groups of a class that allow a held-out part near any usual fraction; a larger block is not traded for more."""

POOR_SHARE = 0.25
"""A class with less than this part of the wanted pixels held out is remarked upon."""

FOLDS = 4
"""Parts of a cross-validation: with the usual split the first has three tenths of the labels, and the others share the rest."""

_RESTARTS = 8
_MOST_FLIPS = 500


@dataclass(frozen=True, eq=False)
class Split:
    """Which features are held out.

    Attributes:
        validation: (N,) bool, a feature is held out.
        block: (N,) int64, the group of features that was kept together, counted from 0.
        block_size_m: side of the ground squares.
        notes: sentences for the user.
        unvalidated_classes: names of the classes that have no held-out labels.
    """

    validation: np.ndarray
    block: np.ndarray
    block_size_m: float
    notes: tuple[str, ...]
    unvalidated_classes: tuple[str, ...]


def spatial_split(
    labels: LabelSet,
    grid: Grid,
    validation_fraction: float,
    seed: int,
    block_size_m: float | None = None,
    counts: PixelCounts | None = None,
    joins_near: bool = True,
) -> Split:
    """Holds out whole blocks of ground, so that of every class about the wanted part of its pixels is held out.

    Features whose centroids lie in one block, and features that overlap or lie within two pixels of each other, form a
    group; a group is held out or trained on as one. Blocks are counted from the origin of the grid's system. Where the
    labels touch everywhere, so that nothing could be held out, only overlapping features are joined across blocks, and
    a note says so.

    Without a size given, the first one tried is four median diameters of the features (of a circle of their area), at
    least eight pixels. Of it, its half, its quarter and so on down to eight pixels, the largest is taken that gives
    every class the four groups that suffice, or as many as the others do.

    Args:
        labels: of the scene.
        grid: the scene's reference grid.
        validation_fraction: of each class's pixels, between 0 and 1.
        seed: the same seed gives the same split.
        block_size_m: side of the squares in metres.
        counts: of ``count_pixels``, if they are at hand.
        joins_near: keep features together that lie within two pixels of each other; else only those that overlap. Cells
            of a grid all touch.

    Raises:
        LabelError: no class could be held out and trained on.
        UsageError: a fraction or a block size out of range.
    """
    if not 0 < validation_fraction < 1:
        raise UsageError(f"The validation fraction lies between 0 and 1; got {validation_fraction}.")
    if block_size_m is not None and not block_size_m > 0:
        raise UsageError(f"A block size is positive; got {block_size_m} m.")
    counts = count_pixels(labels, grid) if counts is None else counts
    centres = shapely.get_coordinates(shapely.centroid(labels.geometries))
    metres = _metres_per_unit(grid)
    notes: list[str] = []
    near = np.concatenate([_near_pairs(labels.geometries, grid), counts.overlaps]) if joins_near else counts.overlaps
    sizes = [block_size_m] if block_size_m is not None else _candidate_sizes(labels, grid, counts)
    size, block = _chosen_blocks(labels, counts, centres * metres, near, sizes)
    if not _can_split(labels, counts, block):
        size, block = _chosen_blocks(labels, counts, centres * metres, counts.overlaps, sizes)
        notes.append(
            "The labels touch each other everywhere, so held-out blocks border directly on training blocks: "
            "the scores are on the optimistic side."
        )
    if not _can_split(labels, counts, block):
        raise LabelError(
            f"No class can be validated: the labels of each lie in a single block of {size:g} m.",
            "Draw at least two polygons a class, apart from each other, or choose smaller blocks.",
        )
    pixels = _group_pixels(labels, counts, block)
    held_out = _choose_groups(pixels, validation_fraction, np.random.default_rng(seed))
    shares = pixels[held_out].sum(axis=0) / np.maximum(pixels.sum(axis=0), 1)
    present = np.flatnonzero(pixels.sum(axis=0) > 0)
    unvalidated = tuple(labels.scheme.names[index] for index in present if shares[index] == 0)
    if unvalidated:
        notes.append(
            f"Classes without held-out labels, because theirs lie in one place: {listed(unvalidated)}. "
            "They are trained on and not validated."
        )
    poor = [labels.scheme.names[index] for index in present if 0 < shares[index] < POOR_SHARE * validation_fraction]
    if poor:
        notes.append(
            f"Classes of which only a small part could be held out, because one place has nearly all: {listed(poor)}. "
            "Their scores rest on few pixels."
        )
    return Split(held_out[block], block, float(size), tuple(notes), unvalidated)


def spatial_folds(labels: LabelSet, split: Split, seed: int, counts: PixelCounts) -> np.ndarray:
    """Deals the blocks of a split into parts, of which each can be held out in turn: cross-validation over blocks of ground.

    The first part is what the split holds out; the others take about as much of each class. A block stays out of all parts
    where some class could not be learned without it.

    Args:
        labels, seed: as for ``spatial_split``.
        split: of these labels.
        counts: of ``count_pixels``.

    Returns:
        (N,) int64, the part of each feature from 0; -1 = learned from in every turn.
    """
    pixels = _group_pixels(labels, counts, split.block)
    fold = np.full(len(pixels), -1, np.int64)
    fold[np.unique(split.block[split.validation])] = 0
    for number in range(1, FOLDS):
        open_ = np.flatnonzero(fold < 0)
        if number == FOLDS - 1:
            fold[open_] = number
        else:
            left = pixels[open_]
            chosen = _choose_groups(left, 1 / (FOLDS - number), np.random.default_rng((seed, number)))
            fold[open_[chosen]] = number
    present = pixels > 0
    for number in range(1, FOLDS):
        own = np.flatnonzero(fold == number)
        # Classes that occur in no other part.
        alone = present[own].any(axis=0) & ~present[fold != number].any(axis=0)
        fold[own[present[own][:, alone].any(axis=1)]] = -1
    return np.asarray(fold[split.block], np.int64)


def _metres_per_unit(grid: Grid) -> np.ndarray:
    """(2,) metres on the ground per unit of x and y, in the middle of the grid.

    Rounded to a percent, so that a scene and a crop of it, whose middles differ, nearly always share their blocks.
    """
    x = grid.left + grid.width * grid.pixel_width / 2
    y = grid.top - grid.height * grid.pixel_height / 2
    to_geographic = Transformer.from_crs(parsed_crs(grid.crs), 4326, always_xy=True)
    longitudes, latitudes = to_geographic.transform(
        [x - grid.pixel_width / 2, x + grid.pixel_width / 2, x, x],
        [y, y, y - grid.pixel_height / 2, y + grid.pixel_height / 2],
    )
    _, _, lengths = Geod(ellps="WGS84").inv(longitudes[::2], latitudes[::2], longitudes[1::2], latitudes[1::2])
    exact = np.array(lengths) / (grid.pixel_width, grid.pixel_height)
    return np.asarray(np.exp(np.round(np.log(exact) * 100) / 100))


def _near_pairs(geometries: np.ndarray, grid: Grid) -> np.ndarray:
    """(M, 2) int64, pairs of features that touch, overlap or lie within the gap."""
    distance = GAP_PIXELS * max(grid.pixel_width, grid.pixel_height)
    tree = shapely.STRtree(geometries)
    pairs = tree.query(geometries, predicate="dwithin", distance=distance).T
    return np.asarray(pairs[pairs[:, 0] < pairs[:, 1]], np.int64)


def _candidate_sizes(labels: LabelSet, grid: Grid, counts: PixelCounts) -> list[float]:
    """Block sizes in metres, from several feature diameters down to a few pixels, each half of the one before."""
    pixel = grid.resolution_m()
    smallest = _two_digits(SMALLEST_BLOCK_PIXELS * pixel)
    diameters = 2 * np.sqrt(counts.features[counts.features > 0] / math.pi) * pixel
    sizes = [_two_digits(DIAMETERS_PER_BLOCK * float(np.median(diameters)))] if len(diameters) else []
    while sizes and sizes[-1] > smallest:
        sizes.append(_two_digits(max(sizes[-1] / 2, smallest)))
    return [size for size in sizes if size >= smallest] or [smallest]


def _two_digits(value: float) -> float:
    return float(f"{value:.1e}")


def _chosen_blocks(
    labels: LabelSet, counts: PixelCounts, centres_m: np.ndarray, joined: np.ndarray, sizes: list[float]
) -> tuple[float, np.ndarray]:
    """The largest size whose blocks give every class as many groups as it can have, up to those that suffice."""
    choices = [(size, _groups(centres_m, joined, size)) for size in sizes]
    wealth = []
    for _, block in choices:
        groups = (_group_pixels(labels, counts, block) > 0).sum(axis=0)
        wealth.append(int(np.minimum(groups, ENOUGH_GROUPS).sum()))
    return choices[wealth.index(max(wealth))]


def _groups(centres_m: np.ndarray, joined: np.ndarray, size_m: float) -> np.ndarray:
    """(N,) int64, the group of every feature: features of one block and joined features, transitively."""
    cells = np.floor(centres_m / size_m).astype(np.int64)
    _, cell = np.unique(cells, axis=0, return_inverse=True)
    cell = cell.reshape(-1)
    count = len(cell)
    first = np.concatenate([np.arange(count), joined[:, 0]])
    second = np.concatenate([count + cell, joined[:, 1]])
    total = count + int(cell.max()) + 1
    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(total, total))
    _, component = connected_components(graph, directed=False)
    _, group = np.unique(component[:count], return_inverse=True)
    return np.asarray(group.reshape(-1), np.int64)


def _group_pixels(labels: LabelSet, counts: PixelCounts, block: np.ndarray) -> np.ndarray:
    """(G, K) float64, pixels of every class in every group."""
    pixels = np.zeros((int(block.max()) + 1, len(labels.scheme)))
    np.add.at(pixels, (block, labels.class_index), counts.features)
    return pixels


def _can_split(labels: LabelSet, counts: PixelCounts, block: np.ndarray) -> bool:
    return bool(_validatable(_group_pixels(labels, counts, block))[1].any())


def _validatable(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Groups that may be held out (G,) bool, and classes that may be (K,) bool.

    A group with the only pixels of some class has to be trained on; a class that lies in such groups alone cannot be
    held out.
    """
    present = pixels > 0
    groups = present.sum(axis=0)
    free = ~(present & (groups == 1)).any(axis=1)
    return free, (groups >= 2) & (present & free[:, None]).any(axis=0)


def _choose_groups(pixels: np.ndarray, fraction: float, generator: np.random.Generator) -> np.ndarray:
    """(G,) bool: the groups to hold out, by descent from several random beginnings.

    The cost is the sum of squared distances between each class's held-out part and the fraction wanted. A class that
    would not be validated costs more than any distance, and one that would not be trained on more than all the rest.
    """
    free, classes = _validatable(pixels)
    used = np.flatnonzero(free & (pixels.sum(axis=1) > 0))
    shares = pixels[:, classes] / pixels[:, classes].sum(axis=0)
    best = np.zeros(len(pixels), bool)
    if not len(used):
        return best
    lowest = math.inf
    for _ in range(_RESTARTS):
        chosen, cost = _descend(shares[used], fraction, generator.random(len(used)) < fraction)
        if cost < lowest - 1e-12:
            lowest = cost
            best = np.zeros(len(pixels), bool)
            best[used[chosen]] = True
    return best


def _descend(shares: np.ndarray, fraction: float, chosen: np.ndarray) -> tuple[np.ndarray, float]:
    """Moves one group at a time to the other side, always the one that helps most, until none does.

    Args:
        shares: (G, K), the part of each class that lies in each group.
        fraction: of each class to hold out.
        chosen: (G,) bool, the groups held out at the beginning.

    Returns:
        The groups held out at the end, and their cost.
    """
    classes = shares.shape[1]
    tiny = 1e-9  # the part of a class below which rounding may have left what is nothing

    def cost(held_out: np.ndarray) -> np.ndarray:
        unvalidated = (held_out < tiny).sum(axis=-1)
        untrained = (held_out > 1 - tiny).sum(axis=-1)
        distance = ((held_out - fraction) ** 2).sum(axis=-1)
        return np.asarray(distance + 2 * classes * unvalidated + 4 * classes**2 * untrained)

    part = shares[chosen].sum(axis=0)
    current = float(cost(part))
    for _ in range(_MOST_FLIPS):
        moved = part + np.where(chosen[:, None], -shares, shares)
        costs = cost(moved)
        index = int(np.argmin(costs))
        if costs[index] >= current - 1e-9:
            break
        chosen[index] = not chosen[index]
        part, current = shares[chosen].sum(axis=0), float(costs[index])
    return chosen, current
