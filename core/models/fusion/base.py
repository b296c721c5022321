"""What every fusion is: streams of several modalities in, one set of features out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from core.models.features import FeatureMap, Features
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
            streams: by modality, on one grid; a modality that is absent is left out.
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
        parts = [streams[name].values if name in streams else torch.zeros_like(some.values) for name in self.names]
        known = torch.stack([stream.known for stream in streams.values()]).amax(dim=0)
        values: Tensor = torch.relu(self.norm(self.convolution(torch.cat(parts, dim=1))))
        is_whole = any(stream.is_whole for stream in streams.values())
        return FeatureMap(values, known, some.stride, is_whole=is_whole).masked(values)
