"""Drawn labels spread within their super-pixel: what looks alike and lies together is mostly of one class."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from core.finetuning.training_data import BLOCK, NO_PIXELS, TrainingData, WeightedPixels
from core.labels.blocks import GAP_PIXELS
from core.labels.pixel_shapes import pixel_shapes
from core.labels.superpixels import superpixels
from core.models.pixel_rows import PixelRows
from core.models.specification import ModelSpecification
from core.scenes.grid import Window
from core.scenes.reading import usable_pixels

TILE = 2 * BLOCK
"""Side in reference pixels of the pieces that are cut into super-pixels, on a lattice of the ground."""

COMPONENTS = 3
"""Principal components of all inputs that super-pixels are made of: those of dozens of bands are mostly noise."""

KEPT_VARIANCE = 0.95
"""Further components, which would be stretched to the same range as the first, are noise."""


def spread_labels(data: TrainingData, specification: ModelSpecification, group: NDArray[np.int64]) -> WeightedPixels:
    """The pixels beside drawn ones that take their class.

    A super-pixel whose drawn pixels are all of one class, from features of one group of ground, gives that class to the
    rest of its pixels. Their weight is the drawn share of the super-pixel, so that what was not drawn never outweighs what
    was. A pixel under any shape is left alone, whatever its label, and so is one as near to drawn pixels of another group
    as would have joined the two: folds made of groups stay as far apart as they were. The rule is inferred.

    Args:
        data: blocks around the labels.
        specification: of a model whose inputs super-pixels are made of.
        group: (n_features,) the ground that is kept together, of ``spatial_split``; -1 for features without any.
    """
    view = PixelRows(specification, neighbourhoods=False, reduces_many=True).eval()
    parts = [_spread_in(data, view, group, tile) for tile in _tiles(data)]
    found = [part for part in parts if len(part)]
    if not found:
        return NO_PIXELS
    return WeightedPixels(np.concatenate([p.pixels for p in found]), np.concatenate([p.weights for p in found]))


def _tiles(data: TrainingData) -> Iterator[Window]:
    """Pieces of the lattice with a drawn pixel, row by row."""
    column, row = data.scene.grid.anchor()
    tiles = np.unique((data.pixels[:, 1::-1] + (row, column)) // TILE, axis=0)
    for below, right in tiles.tolist():
        yield Window(right * TILE - column, below * TILE - row, TILE, TILE)


def _spread_in(data: TrainingData, view: PixelRows, group: NDArray[np.int64], tile: Window) -> WeightedPixels:
    step = data.scene.step
    margin = -(-(int(GAP_PIXELS) + 2 + view.radius) // step) * step
    around = tile.padded(margin)
    seen = data.window(around)
    inner = tile.slices_within(around)
    with torch.inference_mode():
        rows = view({name: torch.from_numpy(values)[None] for name, values in seen.values.items()})[0][0].numpy()
    usable = usable_pixels(seen.values, data.scene.acquisitions, allows_missing=data.allows_missing)[inner]
    ids = superpixels(np.where(usable, _components(rows[:, *inner], usable), np.nan), "slic")
    feature = seen.feature[inner]
    chosen = _pure_segments(ids, feature, data.labels.class_index, group)
    free = ~pixel_shapes(data.labels, data.scene.grid).covered(tile)
    pixels, weights = [], []
    apart = {
        number: _is_apart(seen.feature, group, number)[inner] for number in {int(group[source]) for _, source, _ in chosen}
    }
    for segment, source, share in chosen:
        allowed = (ids == segment) & free & apart[int(group[source])]
        at_row, at_column = np.nonzero(allowed)
        place = np.stack([at_column + tile.column, at_row + tile.row], axis=1)
        label = np.broadcast_to([data.labels.class_index[source], source], place.shape)
        pixels.append(np.concatenate([place, label], axis=1).astype(np.int64))
        weights.append(np.full(len(place), share, np.float32))
    return WeightedPixels(np.concatenate(pixels), np.concatenate(weights)) if pixels else NO_PIXELS


def _components(rows: NDArray[np.float32], usable: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(components, h, w) of standardised channels (columns, h, w): the first few that hold nearly all of the variance."""
    values = rows[:, usable].astype(np.float64)
    if values.shape[1] < 2:
        return rows[:1].astype(np.float64)
    centred = values - values.mean(axis=1, keepdims=True)
    variances, axes = np.linalg.eigh(centred @ centred.T / values.shape[1])
    variances, axes = variances[::-1], axes[:, ::-1]
    share = np.cumsum(variances) / max(variances.sum(), np.finfo(float).tiny)
    count = min(COMPONENTS, int(np.searchsorted(share, KEPT_VARIANCE)) + 1)
    return np.asarray(np.tensordot(axes[:, :count].T, rows, axes=1))


def _pure_segments(
    ids: NDArray[np.int32], feature: NDArray[np.int32], class_index: NDArray[np.int16], group: NDArray[np.int64]
) -> list[tuple[int, int, float]]:
    """Super-pixels whose drawn pixels are of one class and one group: number, the feature with the most pixels, drawn
    share."""
    sizes = np.bincount(ids.ravel())
    drawn = (feature >= 0) & (ids > 0)
    pairs, counts = np.unique(np.stack([ids[drawn], feature[drawn]], axis=1), axis=0, return_counts=True)
    chosen = []
    for segment in np.unique(pairs[:, 0]).tolist():
        own = pairs[:, 0] == segment
        features = pairs[own, 1]
        if len(np.unique(class_index[features])) == len(np.unique(group[features])) == 1:
            share = counts[own].sum() / sizes[segment]
            chosen.append((segment, int(features[counts[own].argmax()]), float(share)))
    return chosen


def _is_apart(feature: NDArray[np.int32], group: NDArray[np.int64], own: int) -> NDArray[np.bool_]:
    """(rows, columns) whether a pixel's edge is farther than the gap from every drawn pixel of other groups."""
    others = (feature >= 0) & (group[feature] != own)
    if not others.any():
        return np.ones(feature.shape, bool)
    return np.asarray(distance_transform_edt(~others) > GAP_PIXELS + 1)
