"""Means of features over segments, and the same segments of two views."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class SegmentFeatures:
    """Features of segments, one row each, ordered by window and id.

    Attributes:
        features: (S, C) float32.
        windows: (S,) int64, the window that a segment lies in.
        ids: (S,) int64, its id there.
    """

    features: Tensor
    windows: Tensor
    ids: Tensor

    def __len__(self) -> int:
        return len(self.ids)


def mean_of_segments(values: Tensor, segments: Tensor, known: Tensor) -> SegmentFeatures:
    """Means over the known places of each segment, without a loop over segments.

    Args:
        values: (B, C, h, w).
        segments: (B, h, w) integer ids from 1; 0 = of no segment.
        known: (B, 1, h, w) weight of each place, 0 = unknown.

    Returns:
        The segments of which anything is known.
    """
    weights = known[:, 0].flatten().float()
    key, span = _keys(segments)
    rows = ((segments.flatten() > 0) & (weights > 0)).nonzero()[:, 0]
    kept, place = torch.unique(key[rows], return_inverse=True)
    flat = values.movedim(1, -1).flatten(0, 2)[rows].float()
    weight = weights[rows, None]
    total = flat.new_zeros(len(kept), flat.shape[1]).index_add_(0, place, flat * weight)
    share = flat.new_zeros(len(kept), 1).index_add_(0, place, weight)
    return SegmentFeatures(total / share, kept // span, kept % span)


def one_place_each(segments: Tensor, known: Tensor, generator: torch.Generator) -> Tensor:
    """Segments reduced to one known place each, drawn evenly.

    The released code of Chen and Bruzzone (2022) multiplies the segments by such a sample before it takes their means,
    so that these are of single pixels. The mean is what the paper speaks of; this is for comparison.

    Args:
        segments: (B, h, w) integer ids from 1; 0 = of no segment.
        known: (B, 1, h, w), 0 = unknown.
        generator: on the CPU.

    Returns:
        (B, h, w) ids; 0 everywhere else.
    """
    key, _ = _keys(segments)
    rows = ((segments.flatten() > 0) & (known[:, 0].flatten() > 0)).nonzero()[:, 0]
    rows = rows[torch.randperm(len(rows), generator=generator).to(rows.device)]
    order = torch.argsort(key[rows], stable=True)
    rows, sorted_keys = rows[order], key[rows][order]
    is_first = torch.ones_like(sorted_keys, dtype=torch.bool)
    is_first[1:] = sorted_keys[1:] != sorted_keys[:-1]
    kept = torch.zeros_like(segments).flatten()
    kept[rows[is_first]] = segments.flatten()[rows[is_first]]
    return kept.view(segments.shape)


def paired(
    first: SegmentFeatures, second: SegmentFeatures, generator: torch.Generator, most: int = 1024
) -> tuple[Tensor, Tensor]:
    """Features of the segments that both views show, at most ``most`` of them, drawn.

    Args:
        first, second: of two views of the same windows.
        generator: on the CPU.
        most: rows, since similarities of all with all are computed.

    Returns:
        (S, C) of each view, rows of the same segments.
    """
    if not len(first) or not len(second):
        return first.features[:0], second.features[:0]
    span = torch.maximum(first.ids.max(), second.ids.max()) + 1
    keys, other = first.windows * span + first.ids, second.windows * span + second.ids
    place = torch.searchsorted(other, keys).clamp_max(len(other) - 1)
    rows = (other[place] == keys).nonzero()[:, 0]
    if len(rows) > most:
        rows = rows[torch.randperm(len(rows), generator=generator)[:most].sort().values.to(rows.device)]
    return first.features[rows], second.features[place[rows]]


def _keys(segments: Tensor) -> tuple[Tensor, int]:
    """(B * h * w,) numbers that differ between segments and between windows, and how far windows lie apart in them."""
    span = int(segments.max()) + 1 if segments.numel() else 1
    window = torch.arange(len(segments), device=segments.device).view(-1, 1, 1) * span
    return (segments.long() + window).flatten(), span
