"""The U-Net's decoder: from the coarsest level up, joined with each finer one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.models.blocks import ResidualBlock
from core.models.decoders.decoder import Decoder
from core.models.features import FeatureMap

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

    def forward(self, levels: Sequence[FeatureMap]) -> FeatureMap:
        values = levels[-1].values
        for block, level in zip(self.blocks, reversed(levels[:-1]), strict=True):
            values = block(_beside(values, level))
        return replace(levels[0].masked(values), stride=self.stride, registers=None, linear=None)


def _beside(values: Tensor, level: FeatureMap) -> Tensor:
    """Coarser values interpolated, and a level's; what was interpolated is given back before the block begins."""
    larger = functional.interpolate(values, size=level.values.shape[-2:], mode="bilinear", align_corners=False)
    return torch.cat([larger, level.values], dim=1)
