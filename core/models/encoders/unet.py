"""The encoder of the small residual U-Net: levels at strides 1, 2, 4, ... with twice the channels at each.

The U-shape is that of Ronneberger et al. (2015, arXiv:1505.04597); residual blocks replace its plain ones. The small
default width is ours: it lets a network that is trained from scratch on a dozen polygons hold its own.
"""

from __future__ import annotations

from torch import nn

from core.models.blocks import ResidualBlock, halved
from core.models.encoders.encoder import Encoder
from core.models.features import FeatureMap
from core.models.stems.kernels import StemGeometry


class UNetEncoder(Encoder):
    """Residual blocks with pooling between them.

    Args:
        width: channels of the finest level.
        depth: how often the resolution is halved.
        dropout: of feature channels.
    """

    def __init__(self, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.geometry = StemGeometry(width, 1, 1)
        self.channels = tuple(width * 2**level for level in range(depth + 1))
        self.strides = tuple(2**level for level in range(depth + 1))
        self.radius = unet_radius(self.strides)
        self.entry = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU())
        before = (width, *self.channels[:-1])
        self.stages = nn.ModuleList(ResidualBlock(i, o, dropout) for i, o in zip(before, self.channels, strict=True))

    def enter(self, embedded: FeatureMap) -> FeatureMap:
        return embedded.masked(self.entry(embedded.values))

    def step(self, number: int, state: FeatureMap) -> FeatureMap:
        if number == 0:
            return state.masked(self.stages[0](state.values))
        return state.coarser(self.stages[number](halved(state.values)))


def unet_radius(strides: tuple[int, ...]) -> int:
    """Two 3 x 3 convolutions a level. What is pooled lies below the pixel that it makes, all of which whoever looks at a
    level counts as looked at."""
    return sum(2 * stride for stride in strides)
