"""Intermediate fusion: an encoder a modality, levels concatenated."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from core.models.encoders.encoder import Encoder
from core.models.features import FeatureMap, Features, features_of
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
        # Level by level, so that no more than one level of the modalities is in memory beside what they make together.
        states = {name: self._encoder(name).enter(streams.pop(name)) for name, _ in self.ordered(streams)}
        levels: list[FeatureMap] = []
        exported: Streams = {}
        for number, joint in enumerate(self.joints):
            for name in states:
                states[name] = self._encoder(name).step(number, states[name])
            exported = {name: self._encoder(name).export(number, state) for name, state in states.items()}
            levels.append(joint(exported))
        return features_of(levels, exported)

    def _encoder(self, name: str) -> Encoder:
        encoder = self.encoders[name]
        if not isinstance(encoder, Encoder):
            raise TypeError(f"'{name}' has no encoder.")
        return encoder
