"""The U-Net's decoder: from the coarsest level up, joined with each finer one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.models.blocks import ResidualBlock
from core.models.decoders.decoder import Decoder
from core.models.features import FeatureMap, inner_part

WIDEST = 256
"""Most channels of a level on its way up; the 50-layer encoder's 2048 would cost more than the encoder."""


class UNetDecoder(Decoder):
    """Residual blocks over interpolated coarser levels beside each finer one; after Ronneberger et al. (2015,
    arXiv:1505.04597).

    Args:
        channels, strides: of the levels, finest first.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        blocks, above = [], channels[-1]
        for number in reversed(range(len(channels) - 1)):
            width = min(channels[number], WIDEST)
            blocks.append(ResidualBlock(above + channels[number], width))
            above = width
        self.blocks = nn.ModuleList(blocks)
        self.channels, self.stride = above, strides[0]
        self.radius = sum(2 * stride for stride in strides[:-1]) + sum(strides[1:])

    def forward(self, levels: Sequence[FeatureMap], margin: int = 0) -> FeatureMap:
        values, before = levels[-1].values, 0
        cuts = cuts_of_levels([level.stride for level in levels[:-1]], margin)
        for block, level, cut in zip(self.blocks, reversed(levels[:-1]), reversed(cuts), strict=True):
            values = block(_beside(values, before, level, cut))
            before = cut
        finest = levels[0].cut(margin)
        return replace(finest.masked(inner_part(values, (margin - before) // self.stride)), stride=self.stride, registers=None)


def cuts_of_levels(strides: Sequence[int], margin: int) -> list[int]:
    """How many reference pixels along each edge of every level but the coarsest need not be decoded.

    A block looks two of its pixels far, and what is interpolated before it one coarser pixel.

    Args:
        strides: of the levels, finest first.
        margin: of the finest that nobody asks about.
    """
    cuts, left = [], margin
    for stride in strides:
        left = max(0, left - 2 * stride) // stride * stride
        cuts.append(left)
        left = max(0, left - 2 * stride)
    return cuts


def _beside(values: Tensor, before: int, level: FeatureMap, cut: int) -> Tensor:
    """Coarser values interpolated, and a level's; what was interpolated is given back before the block begins.

    Args:
        values: coarser by two.
        before: reference pixels along each edge that they lack.
        level: of the window.
        cut: reference pixels along each edge that are left out.
    """
    size = [side - 2 * before // level.stride for side in level.values.shape[-2:]]
    larger = functional.interpolate(values, size=size, mode="bilinear", align_corners=False)
    parts = [inner_part(larger, (cut - before) // level.stride), inner_part(level.values, cut // level.stride)]
    return torch.cat(parts, dim=1)
