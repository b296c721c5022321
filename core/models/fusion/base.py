"""What every fusion is: streams of several modalities in, one set of features out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.models.features import FeatureMap, Features
from core.models.products import convolve, convolve_onto, is_plain
from core.models.stems.kernels import StemGeometry

Streams = dict[str, FeatureMap]


class Fusion(nn.Module):
    """Joins the stems' outputs of any non-empty subset of a model's modalities. It owns the encoders.

    Attributes:
        names: of the modalities, in the order of the model.
        geometry: of the stems before it.
        channels, strides: of the levels that it returns.
        encoder_strides: of the encoders inside.
        radius: see ``core.models.encoders.encoder.Encoder``.
    """

    names: tuple[str, ...]
    geometry: StemGeometry
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    encoder_strides: tuple[int, ...]
    radius: int | None

    @abstractmethod
    def forward(self, streams: Streams) -> Features:
        """Joins streams.

        Args:
            streams: by modality, on one grid; a modality that is absent is left out. They are the fusion's, which may take
                out what it has used.
        """

    def before_encoders(self) -> list[nn.Module]:
        """What streams pass before they enter an encoder."""
        return []

    def ordered(self, streams: Streams) -> list[tuple[str, FeatureMap]]:
        """The streams in the model's order: sums must not depend on who was read first.

        Raises:
            ValueError: there is none, or one that the model does not know.
        """
        unknown = [name for name in streams if name not in self.names]
        if unknown or not streams:
            raise ValueError(f"expected some of {', '.join(self.names)}; got {', '.join(streams) or 'nothing'}")
        return [(name, streams[name]) for name in self.names if name in streams]


class Joint(nn.Module):
    """Channels of several modalities side by side, joined by a 1 x 1 convolution; an absent one counts as zeros.

    Args:
        names: of the modalities.
        channels: of each.
        out_channels: of the joint.
    """

    def __init__(self, names: Sequence[str], channels: int, out_channels: int) -> None:
        super().__init__()
        self.names = tuple(names)
        self.convolution = nn.Conv2d(len(self.names) * channels, out_channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, streams: Streams) -> FeatureMap:
        some = next(iter(streams.values()))
        known = torch.stack([stream.known for stream in streams.values()]).amax(dim=0)
        joined = self._summed(streams) if is_plain(some.values) else self._concatenated(streams)
        values: Tensor = functional.relu(self.norm(joined), inplace=is_plain(joined))
        is_whole = any(stream.is_whole for stream in streams.values())
        return FeatureMap(values, known, some.stride, is_whole=is_whole).masked(values)

    def _concatenated(self, streams: Streams) -> Tensor:
        some = next(iter(streams.values())).values
        parts = [streams[name].values if name in streams else torch.zeros_like(some) for name in self.names]
        joined: Tensor = self.convolution(torch.cat(parts, dim=1))
        return joined

    def _summed(self, streams: Streams) -> Tensor:
        """The same without the modalities side by side in memory."""
        weight, bias = self.convolution.weight, self.convolution.bias
        total: Tensor | None = None
        for name, own in zip(self.names, weight.chunk(len(self.names), dim=1), strict=True):
            if name in streams:
                values = streams[name].values.to(weight.dtype)
                total = convolve(values, own, bias) if total is None else convolve_onto(total, values, own)
        if total is None:
            raise ValueError("no stream")
        return total
