"""Intermediate fusion: an encoder a modality, levels concatenated."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from core.models.encoders.encoder import Encoder
from core.models.features import Features, features_of
from core.models.fusion.base import Fusion, Joint, Streams


class IntermediateFusion(Fusion):
    """Levels of a stream a modality, concatenated and joined by a 1 x 1 convolution each.

    Args:
        names: of the modalities.
        make_encoder: of one encoder.
    """

    def __init__(self, names: Sequence[str], make_encoder: Callable[[], Encoder]) -> None:
        super().__init__()
        self.names = tuple(names)
        encoders = {name: make_encoder() for name in self.names}
        first = encoders[self.names[0]]
        self.encoders = nn.ModuleDict(encoders)
        self.geometry, self.radius = first.geometry, first.radius
        self.channels, self.strides = first.channels, first.strides
        self.encoder_strides = self.strides
        self.joints = nn.ModuleList(Joint(self.names, channels, channels) for channels in self.channels)

    def forward(self, streams: Streams) -> Features:
        features: dict[str, Features] = {name: self.encoders[name](stream) for name, stream in self.ordered(streams)}
        levels = [
            joint({name: each.levels[number] for name, each in features.items()}) for number, joint in enumerate(self.joints)
        ]
        return features_of(levels, {name: each.levels[-1] for name, each in features.items()})
