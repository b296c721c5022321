"""The residual U-Net's encoder of Chen and Bruzzone (2022, TGRS 60:5406011; their code, MIT, read for the shapes):
a 3 x 3 stem of stride 2, a 3 x 3 max-pool, then three stages of two residual blocks, all with replicated borders.

Widths follow theirs: 1 for early fusion, one half for a stream of intermediate and late fusion. The quarter is ours,
for computers without a GPU.
"""

from __future__ import annotations

from torch import nn

from core.models.encoders.resnet import BasicBlock, ResidualEncoder
from core.models.specification import SizeName
from core.models.stems.kernels import StemGeometry

RESUNETS: dict[SizeName, int] = {"small": 16, "base": 32, "large": 64}
"""Channels of the stem: a quarter of the published width, a half, and the whole."""


class ResUNetEncoder(ResidualEncoder):
    """Levels at the stem's stride and at 2, 4 and 8 times it.

    Args:
        size: see ``RESUNETS``.
        finest: stride of the stem in reference pixels; 2 as published.
    """

    def __init__(self, size: SizeName, finest: int) -> None:
        super().__init__()
        width = RESUNETS[size]
        self.geometry = StemGeometry(width, 3, finest, "replicate")
        self.bn1 = nn.BatchNorm2d(width)
        self.channels = (width, width, 2 * width, 4 * width)
        self.strides = tuple(finest * 2**number for number in range(4))
        self.stages = nn.ModuleList([nn.Identity()])
        for number, (before, after) in enumerate(zip(self.channels[:-1], self.channels[1:], strict=True)):
            first = BasicBlock(before, after, 2 if number else 1, "replicate")
            self.stages.append(nn.Sequential(first, BasicBlock(after, after, 1, "replicate")))
        self.radius = 1 + finest + sum(4 * stride for stride in self.strides[1:]) + sum(self.strides)
