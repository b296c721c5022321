"""Early fusion: all bands side by side, then one encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from core.models.encoders.encoder import Encoder
from core.models.features import FeatureMap, Features, any_known
from core.models.fusion.base import Fusion, Streams


class EarlyFusion(Fusion):
    """Sums what the stems put out: the convolution of stacked bands is the sum of the convolutions of each.

    Args:
        names: of the modalities.
        make_encoder: of the one encoder.
    """

    def __init__(self, names: Sequence[str], make_encoder: Callable[[], Encoder]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.encoder = make_encoder()
        self.geometry, self.radius = self.encoder.geometry, self.encoder.radius
        self.channels, self.strides = self.encoder.channels, self.encoder.strides
        self.encoder_strides = self.strides

    def forward(self, streams: Streams) -> Features:
        maps = [stream for _, stream in self.ordered(streams)]
        total = torch.stack([each.values for each in maps]).sum(dim=0) if len(maps) > 1 else maps[0].values
        features: Features = self.encoder(FeatureMap(total, any_known(maps), maps[0].stride))
        return features
