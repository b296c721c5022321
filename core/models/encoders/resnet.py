"""Residual networks: 18, 34 and 50 layers (He et al. 2016, arXiv:1512.03385, table 1), and an 18 of half the width.

The weights of public encoders fit: names and shapes of the layers after the stem follow timm's. Strides follow the
"1.5" form of the 50-layer network, in which the 3 x 3 convolution of a bottleneck has the stride.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from core.models.encoders.encoder import Encoder
from core.models.features import FeatureMap
from core.models.specification import SizeName
from core.models.stems.kernels import StemGeometry

RESNETS: dict[SizeName, tuple[tuple[int, int, int, int], bool, int]] = {
    "tiny": ((2, 2, 2, 2), False, 32),
    "small": ((2, 2, 2, 2), False, 64),
    "base": ((3, 4, 6, 3), False, 64),
    "large": ((3, 4, 6, 3), True, 64),
}
"""Blocks of each stage, whether they are bottlenecks, and channels of the stem."""


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(
        self, in_channels: int, width: int, stride: int, padding_mode: Literal["zeros", "replicate"] = "zeros"
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, 1, bias=False, padding_mode=padding_mode)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False, padding_mode=padding_mode)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(in_channels, width, stride)

    def forward(self, values: Tensor) -> Tensor:
        inner = functional.relu(self.bn1(self.conv1(values)))
        shortcut = values if self.downsample is None else self.downsample(values)
        return functional.relu(self.bn2(self.conv2(inner)) + shortcut)


class Bottleneck(nn.Module):
    """A 3 x 3 convolution between two of 1 x 1, on a quarter of the channels, beside a shortcut."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = _shortcut(in_channels, 4 * width, stride)

    def forward(self, values: Tensor) -> Tensor:
        inner = functional.relu(self.bn1(self.conv1(values)))
        inner = functional.relu(self.bn2(self.conv2(inner)))
        shortcut = values if self.downsample is None else self.downsample(values)
        return functional.relu(self.bn3(self.conv3(inner)) + shortcut)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


class ResidualEncoder(Encoder):
    """A stem's normalisation, a 3 x 3 max-pool and stages of residual blocks; the first level is the stem's own."""

    bn1: nn.BatchNorm2d
    stages: nn.ModuleList

    def enter(self, embedded: FeatureMap) -> FeatureMap:
        return embedded.masked(functional.relu(self.bn1(embedded.values)))

    def step(self, number: int, state: FeatureMap) -> FeatureMap:
        if number == 0:
            return state
        values = functional.max_pool2d(state.values, 3, 2, 1) if number == 1 else state.values
        return state.coarser(self.stages[number](values))


class ResNetEncoder(ResidualEncoder):
    """Levels at the stem's stride and at 2, 4, 8 and 16 times it.

    Args:
        size: see ``RESNETS``.
        finest: stride of the stem in reference pixels: 2 as published, 1 to keep every pixel apart.
    """

    def __init__(self, size: SizeName, finest: int) -> None:
        super().__init__()
        counts, is_bottleneck, width = RESNETS[size]
        block = Bottleneck if is_bottleneck else BasicBlock
        self.geometry = StemGeometry(width, 7, finest)
        self.bn1 = nn.BatchNorm2d(width)
        widths = [width * 2**number for number in range(4)]
        self.channels = (width, *(entry * block.expansion for entry in widths))
        self.strides = tuple(finest * 2**number for number in range(5))
        self.stages = nn.ModuleList([nn.Identity()])
        before = width
        for number, (entry, count) in enumerate(zip(widths, counts, strict=True)):
            blocks: list[nn.Module] = []
            for place in range(count):
                blocks.append(block(before, entry, 2 if number and place == 0 else 1))
                before = entry * block.expansion
            self.stages.append(nn.Sequential(*blocks))
        # The stem, the pooling, and two 3 x 3 convolutions a block (one in a bottleneck).
        convolutions = [count * (1 if is_bottleneck else 2) for count in counts]
        inside = sum(count * stride for count, stride in zip(convolutions, self.strides[1:], strict=True))
        self.radius = 3 + finest + inside + sum(self.strides)
