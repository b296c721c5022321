"""Affine maps of many channels, without having all of the channels in memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from core.models.features import AffineMap
from core.models.products import convolve, convolve_onto

_MOST_WAITING = 12
"""Channels that are worth a convolution of their own."""


def apply_maps(parts: Iterable[Tensor], maps: Sequence[AffineMap], dtype: torch.dtype | None = None) -> list[Tensor]:
    """What affine maps make of channels that come some at a time.

    Args:
        parts: (B, C, H, W) each.
        maps: over the channels of all parts.
        dtype: of what the first map makes, in place of that of the parts.

    Returns:
        (B, D, H, W) of each map.
    """
    if not maps:
        return []
    weight, offset = (torch.cat(both) for both in zip(*maps, strict=True)) if len(maps) > 1 else maps[0]
    total, start = None, 0
    for part in _grouped(parts):
        stop = start + part.shape[1]
        own = weight[:, start:stop, None, None]
        total = convolve(part, own, offset) if total is None else convolve_onto(total, part, own)
        start = stop
    if total is None:
        raise ValueError("no channels")
    if len(maps) == 1:
        return [total.to(dtype or total.dtype)]
    (_, stop), *others = itertools.pairwise([0, *itertools.accumulate(len(each) for each, _ in maps)])
    laid = torch.channels_last
    # In memory of its own: the first is needed longer than the others.
    first = total[:, :stop].to(dtype or total.dtype, memory_format=laid).contiguous(memory_format=laid)
    return [first, *(total[:, a:b] for a, b in others)]


def _grouped(parts: Iterable[Tensor]) -> Iterator[Tensor]:
    """Parts of few channels side by side: to add to what is there takes as long for few as for many."""
    waiting: list[Tensor] = []
    for part in parts:
        waiting.append(part)
        if sum(each.shape[1] for each in waiting) >= _MOST_WAITING:
            yield waiting[0] if len(waiting) == 1 else torch.cat(waiting, dim=1)
            waiting = []
    if waiting:
        yield torch.cat(waiting, dim=1)
