"""Asymmetric attention fusion: a main stream that takes from noisier ones what it trusts, at every stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from core.models.encoders.encoder import Encoder
from core.models.features import FeatureMap, Features, any_known, features_of, masked_mean
from core.models.fusion.base import Fusion, Streams
from core.models.fusion.transfer_gate import TransferGate

Direction = Literal["auxiliary_to_main", "both"]

REDUCTION = 16


class AsymmetricAttention(nn.Module):
    """What one auxiliary stream gives to the main one at one stage.

    Channel attention comes from both streams, spatial attention from the main one alone: it decides where the
    auxiliary is trusted. Where the main stream has no data there is nothing to judge by, and all is let
    through; from the next stage on, what was let through there counts as the main stream's.

        D^ = sigmoid(MLP([mean O; mean D])) * sigmoid(conv7([mean_c O; max_c O])) * D,  O' = O + W D^

    W starts at zero, so that training starts from the main stream alone.

    Args:
        channels: of the stage.
        direction: ``both`` lets the auxiliary stream take from the main one in the same way.
    """

    def __init__(self, channels: int, direction: Direction) -> None:
        super().__init__()
        hidden = max(4, channels // REDUCTION)
        # With rectified units, four of them are all silent from the start one time in sixteen.
        self.channel = nn.Sequential(nn.Linear(2 * channels, hidden), nn.GELU(), nn.Linear(hidden, channels))
        self.spatial = nn.Conv2d(2, 1, 7, padding=3)
        self.to_main = _closed(channels)
        self.to_auxiliary = _closed(channels) if direction == "both" else None

    def forward(self, main: FeatureMap, auxiliary: FeatureMap) -> tuple[Tensor, Tensor | None]:
        """What to add to the main stream, and to the auxiliary one."""
        means = torch.cat([masked_mean(main), masked_mean(auxiliary)], dim=1)
        channel = torch.sigmoid(self.channel(means))[:, :, None, None]
        seen = torch.cat([main.values.mean(dim=1, keepdim=True), main.values.amax(dim=1, keepdim=True)], dim=1)
        spatial = torch.sigmoid(self.spatial(seen)) * main.known + (1 - main.known)
        given = self.to_main(channel * spatial * auxiliary.values)
        taken = None if self.to_auxiliary is None else self.to_auxiliary(channel * main.values) * auxiliary.known
        return given, taken


def _closed(channels: int) -> nn.Conv2d:
    """A 1 x 1 convolution that gives nothing yet."""
    convolution = nn.Conv2d(channels, channels, 1, bias=False)
    nn.init.zeros_(convolution.weight)
    return convolution


class AsymmetricAttentionFusion(Fusion):
    """A stream a modality, joined by asymmetric attention after every stage; transfer gates choose what is handed on.

    After Xu et al. (2023, Remote Sensing 15:5682): two streams, an asymmetric attention module at every stage and the
    transfer gate are theirs; the equations are inferred from the abstract. More than two modalities, of which the
    first is the main one and each of the others gives to it, and the transformer's stages are ours.

    Args:
        names: of the modalities, the main one first.
        make_encoder: of one encoder.
        direction: of the attention.
        has_transfer_gate: whether levels pass a gate.
    """

    def __init__(
        self, names: Sequence[str], make_encoder: Callable[[], Encoder], direction: Direction, has_transfer_gate: bool
    ) -> None:
        super().__init__()
        self.names = tuple(names)
        encoders = {name: make_encoder() for name in self.names}
        first = encoders[self.names[0]]
        self.encoders = nn.ModuleDict(encoders)
        self.geometry = first.geometry
        self.channels, self.strides = first.channels, first.strides
        self.encoder_strides = self.strides
        # Means over the whole window steer the attention.
        self.radius = first.radius if len(self.names) == 1 else None
        auxiliaries = self.names[1:]
        # What an auxiliary stream took at the last stage would be read by no one.
        directions: list[Direction] = [*[direction] * (len(self.channels) - 1), "auxiliary_to_main"]
        self.attentions = nn.ModuleList(
            nn.ModuleDict({name: AsymmetricAttention(channels, way) for name in auxiliaries})
            for channels, way in zip(self.channels, directions, strict=True)
        )
        gates = [TransferGate(channels) for channels in self.channels] if has_transfer_gate and auxiliaries else []
        self.gates = nn.ModuleList(gates)

    def forward(self, streams: Streams) -> Features:
        present = dict(self.ordered(streams))
        main_name = self.names[0]
        if main_name not in present:
            some = next(iter(present.values()))
            present[main_name] = FeatureMap(torch.zeros_like(some.values), torch.zeros_like(some.known), some.stride)
        states = {name: self._encoder(name).enter(present[name]) for name in self.names if name in present}
        levels = []
        for number in range(len(self.strides)):
            states = {name: self._encoder(name).step(number, state) for name, state in states.items()}
            states, own = self._exchange(number, states)
            fused = self._encoder(main_name).export(number, states[main_name])
            if self.gates:
                main = self._encoder(main_name).export(number, replace(own, known=states[main_name].known, is_whole=False))
                fused = self.gates[number](fused, main)
            levels.append(fused)
        last = {name: self._encoder(name).export(number, state) for name, state in states.items() if name in streams}
        return features_of(levels, last)

    def _exchange(self, number: int, states: Streams) -> tuple[Streams, FeatureMap]:
        """The streams after one stage's attention, and the main one as it was before."""
        own = states[self.names[0]]
        # A transformer's states grow from block to block; what it exports is normalised.
        seen = {name: self._encoder(name).export(number, state) for name, state in states.items()}
        exchanged, total = dict(states), own.values
        for name, attention in self.attentions[number].items():  # type: ignore[operator]
            if name in states:
                given, taken = attention(seen[self.names[0]], seen[name])
                total = total + given
                if taken is not None:
                    exchanged[name] = replace(states[name], values=states[name].values + taken)
        known = any_known(list(states.values()))
        exchanged[self.names[0]] = replace(own, values=total * known, known=known, is_whole=False)
        return exchanged, own

    def _encoder(self, name: str) -> Encoder:
        encoder = self.encoders[name]
        if not isinstance(encoder, Encoder):
            raise TypeError(f"'{name}' has no encoder.")
        return encoder
