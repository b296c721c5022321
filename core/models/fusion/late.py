"""Late fusion: a whole network a modality, and their dense outputs concatenated."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from core.models.decoders.decoder import Decoder
from core.models.encoders.encoder import Encoder
from core.models.features import Features, features_of
from core.models.fusion.base import Fusion, Joint, Streams


class LateFusion(Fusion):
    """An encoder and a decoder a modality; what they put out is concatenated and joined by a 1 x 1 convolution.

    Args:
        names: of the modalities.
        make_encoder: of one encoder.
        make_decoder: of a decoder over an encoder's levels.
    """

    def __init__(
        self,
        names: Sequence[str],
        make_encoder: Callable[[], Encoder],
        make_decoder: Callable[[Sequence[int], Sequence[int]], Decoder],
    ) -> None:
        super().__init__()
        self.names = tuple(names)
        encoders = {name: make_encoder() for name in self.names}
        first = encoders[self.names[0]]
        decoders = {name: make_decoder(first.channels, first.strides) for name in self.names}
        self.encoders, self.decoders = nn.ModuleDict(encoders), nn.ModuleDict(decoders)
        decoder = decoders[self.names[0]]
        self.geometry = first.geometry
        self.radius = None if first.radius is None or decoder.radius is None else first.radius + decoder.radius
        self.channels, self.strides = (decoder.channels,), (decoder.stride,)
        self.encoder_strides = first.strides
        self.joint = Joint(self.names, decoder.channels, decoder.channels)

    def forward(self, streams: Streams) -> Features:
        dense: Streams = {}
        last: Streams = {}
        for name, stream in self.ordered(streams):
            features: Features = self.encoders[name](stream)
            last[name] = features.levels[-1]
            dense[name] = self.decoders[name](features.levels)
        return features_of([self.joint(dense)], last)
