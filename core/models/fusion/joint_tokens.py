"""Joint tokens: one encoder for all modalities at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from core.models.attention import TransformerBlock, heads_for
from core.models.encoders.encoder import Encoder
from core.models.features import FeatureMap, Features, features_of
from core.models.fusion.base import Fusion, Streams
from core.models.fusion.cross_attention import CrossAttention
from core.models.fusion.cross_modality import CrossModality
from core.models.fusion.tokens import TokenSet, as_map, mean_of_modalities, token_set


class JointTokensFusion(Fusion):
    """One encoder over the tokens of all modalities, each with its modality's code, as in A2-MAE's shared backbone
    (Zhang et al. 2024, arXiv:2406.08079; how tokens are joined is inferred).

    With a transformer, all places of all modalities form one sequence. Convolutional encoders, whose places are too
    many for that, take each modality with the same weights, and the tokens of one place meet at every level; this form
    is ours. Around the encoder stand, on request, the two modules of the cross-scale system: cross-attention before it
    and cross-modality after it.

    Args:
        names: of the modalities.
        make_encoder: of the one encoder.
        has_cross_attention: see ``core.models.fusion.cross_attention``.
        has_cross_modality: see ``core.models.fusion.cross_modality``.
    """

    def __init__(
        self,
        names: Sequence[str],
        make_encoder: Callable[[], Encoder],
        has_cross_attention: bool = False,
        has_cross_modality: bool = False,
    ) -> None:
        super().__init__()
        self.names = tuple(names)
        self.encoder = make_encoder()
        self.geometry, self.radius = self.encoder.geometry, self.encoder.radius
        self.channels, self.strides = self.encoder.channels, self.encoder.strides
        self.encoder_strides = self.strides
        self.is_sequence = self.radius is None
        width = self.geometry.channels
        self.modality_codes = nn.ParameterDict({name: nn.Parameter(0.02 * torch.randn(width)) for name in self.names})
        is_local = not self.is_sequence
        self.cross_attention = CrossAttention(self.names, width, is_local) if has_cross_attention else None
        last = [len(self.channels) - 1] if self.is_sequence else range(len(self.channels))
        self.cross_modality = nn.ModuleDict(
            {str(number): CrossModality(self.names, self.channels[number], is_local) for number in last}
            if has_cross_modality
            else {}
        )
        # What a transformer's blocks do among all places is done here among the modalities of one.
        meets = is_local and not has_cross_attention and not has_cross_modality
        self.meetings = nn.ModuleList(TransformerBlock(c, heads_for(c)) for c in self.channels if meets)

    def before_encoders(self) -> list[nn.Module]:
        return [module for module in (self.modality_codes, self.cross_attention) if module is not None]

    def forward(self, streams: Streams) -> Features:
        coded = {
            name: stream.masked(stream.values + self.modality_codes[name][:, None, None])
            for name, stream in self.ordered(streams)
        }
        if self.is_sequence:
            return self._sequence(coded)
        return self._maps(coded if self.cross_attention is None else self.cross_attention(coded))

    def _sequence(self, streams: Streams) -> Features:
        """All tokens of all modalities as one sequence through the encoder's stages."""
        states = {name: self.encoder.enter(stream) for name, stream in streams.items()}
        if self.cross_attention is not None:
            # With their positions: asking everywhere, a token could not find its own place in the other sensor.
            states = self.cross_attention(states)
        joined = _stacked(list(states.values()))
        levels: list[FeatureMap] = []
        parts: Streams = {}
        for number in range(len(self.strides)):
            joined = self.encoder.step(number, joined)
            parts = dict(zip(states, _unstacked(joined, len(states)), strict=True))
            if str(number) in self.cross_modality:
                parts = self.cross_modality[str(number)](parts)
            merged = mean_of_modalities(list(parts.values()))
            levels.append(self.encoder.export(number, merged))
        last = {name: self.encoder.export(len(levels) - 1, replace(part, registers=None)) for name, part in parts.items()}
        return features_of(levels, last)

    def _maps(self, streams: Streams) -> Features:
        """Each modality through the same encoder; they meet place by place at every level."""
        by_level = self._shared(streams) if self.training else self._one_by_one(streams)
        levels: list[FeatureMap] = []
        parts: Streams = {}
        for number, parts in enumerate(by_level):
            if self.cross_modality:
                parts = self.cross_modality[str(number)](parts)
            elif self.meetings:
                parts = _met(self.meetings[number], parts)
            levels.append(mean_of_modalities(list(parts.values())))
        return features_of(levels, parts)

    def _one_by_one(self, streams: Streams) -> list[Streams]:
        """The levels of each modality, which take the least memory one after the other."""
        features: dict[str, Features] = {name: self.encoder(stream) for name, stream in streams.items()}
        return [{name: each.levels[number] for name, each in features.items()} for number in range(len(self.strides))]

    def _shared(self, streams: Streams) -> list[Streams]:
        """The same in one batch: normalised by statistics of all modalities, as afterwards. By its own, each modality
        would look like any other, and its code would be taken out again."""
        maps = list(streams.values())
        values, known = torch.cat([each.values for each in maps]), torch.cat([each.known for each in maps])
        features: Features = self.encoder(FeatureMap(values, known, maps[0].stride))
        by_level = []
        for level in features.levels:
            parts = zip(streams, level.values.chunk(len(maps)), level.known.chunk(len(maps)), strict=True)
            by_level.append({name: FeatureMap(value, where, level.stride) for name, value, where in parts})
        return by_level


def _stacked(states: list[FeatureMap]) -> FeatureMap:
    """Modalities below each other, so that an encoder sees one long map; the registers of the first serve all."""
    values = torch.cat([state.values for state in states], dim=2)
    known = torch.cat([state.known for state in states], dim=2)
    return FeatureMap(values, known, states[0].stride, states[0].registers)


def _unstacked(joined: FeatureMap, count: int) -> list[FeatureMap]:
    # Not in chunks: the exporter to ONNX cannot divide a number of rows that it does not know.
    values, known = (
        each.reshape(*each.shape[:2], count, -1, each.shape[3]).unbind(2) for each in (joined.values, joined.known)
    )
    return [FeatureMap(v, k, joined.stride) for v, k in zip(values, known, strict=True)]


def _met(block: nn.Module, parts: Streams) -> Streams:
    """The tokens of one place through a transformer block, place by place."""
    sets: list[TokenSet] = [token_set(part) for part in parts.values()]
    values = torch.stack([each.values for each in sets], dim=2)
    known = torch.stack([each.known for each in sets], dim=2)
    batch, places, count, channels = values.shape
    met: Tensor = block(values.flatten(0, 1), known.flatten(0, 1))
    met = met.view(batch, places, count, channels)
    return {name: as_map(met[:, :, number], part) for number, (name, part) in enumerate(parts.items())}
