"""Affine maps of channels, several at once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from core.models.features import AffineMap
from core.models.products import convolve


def apply_maps(channels: Tensor, maps: Sequence[AffineMap], dtype: torch.dtype | None = None) -> list[Tensor]:
    """What affine maps make of channels.

    Args:
        channels: (B, C, H, W).
        maps: of them.
        dtype: of what the first map makes, in place of that of the channels.

    Returns:
        (B, D, H, W) of each map.
    """
    if not maps:
        return []
    weight, offset = (torch.cat(both) for both in zip(*maps, strict=True))
    made = convolve(channels, weight[:, :, None, None], offset)
    if len(maps) == 1:
        return [made.to(dtype or made.dtype)]
    (_, stop), *others = itertools.pairwise([0, *itertools.accumulate(len(each) for each, _ in maps)])
    laid = torch.channels_last
    # In memory of its own: the first is needed longer than the others.
    first = made[:, :stop].to(dtype or made.dtype, memory_format=laid).contiguous(memory_format=laid)
    return [first, *(made[:, a:b] for a, b in others)]
