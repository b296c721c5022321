"""Residual U-Nets over several modalities: joined at the input, or a stream each and joined at every level.

The U-shape is that of Ronneberger et al. (2015, arXiv:1505.04597); residual blocks replace its plain ones. The
neighbourhood statistics of the stems and the small default width are ours: they let a network that is trained from
scratch on a dozen polygons hold its own against a random forest.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.models.blocks import ResidualBlock
from core.models.specification import ModalitySpecification, ModelSpecification
from core.models.stems import Stem


class Projection(nn.Module):
    """Statistics of any size to a given number of channels, each statistic brought to unit spread first."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(in_channels, affine=False),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        )

    def forward(self, values: Tensor) -> Tensor:
        return torch.as_tensor(self.layers(values))


class EncoderStream(nn.Module):
    """Levels at strides 1, 2, 4, ... with twice the channels at each.

    Args:
        width: channels of the input and of the finest level.
        depth: number of times the resolution is halved.
        dropout: of feature channels.
    """

    def __init__(self, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        widths = level_widths(width, depth)
        inputs = [width, *widths[:-1]]
        self.levels = nn.ModuleList(ResidualBlock(before, after, dropout) for before, after in zip(inputs, widths, strict=True))

    def forward(self, values: Tensor) -> list[Tensor]:
        # values: (B, width, H, W) -> one (B, width * 2^i, H / 2^i, W / 2^i) a level
        outputs: list[Tensor] = []
        for number, level in enumerate(self.levels):
            values = level(values if number == 0 else functional.max_pool2d(values, 2))
            outputs.append(values)
        return outputs


class Decoder(nn.Module):
    """From the coarsest level up, joined with each finer one; class scores at the reference resolution."""

    def __init__(self, width: int, depth: int, dropout: float, n_classes: int) -> None:
        super().__init__()
        widths = level_widths(width, depth)
        self.levels = nn.ModuleList(
            ResidualBlock(widths[i + 1] + widths[i], widths[i], dropout) for i in reversed(range(depth))
        )
        self.head = nn.Conv2d(width, n_classes, 1)

    def forward(self, levels: list[Tensor]) -> Tensor:
        values = levels[-1]
        for block, skip in zip(self.levels, reversed(levels[:-1]), strict=True):
            larger = functional.interpolate(values, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            values = block(torch.cat([larger, skip], dim=1))
        return torch.as_tensor(self.head(values))


class EarlyFusionUNet(nn.Module):
    """All modalities' channels side by side, then one U-Net."""

    def __init__(self, specification: ModelSpecification) -> None:
        super().__init__()
        self.names = tuple(modality.name for modality in specification.modalities)
        self.stems = _stems(specification.modalities)
        width, depth, dropout = specification.width, specification.depth, specification.dropout
        self.projection = Projection(sum(_stem(self.stems, name).channels for name in self.names), width)
        self.encoder = EncoderStream(width, depth, dropout)
        self.decoder = Decoder(width, depth, dropout, specification.n_classes)

    def forward(self, values: dict[str, Tensor]) -> Tensor:
        # values: by modality (B, C, h, w) on its own scale, NaN = missing -> (B, n_classes, H, W) scores
        joined = torch.cat([self.stems[name](values[name]) for name in self.names], dim=1)
        return torch.as_tensor(self.decoder(self.encoder(self.projection(joined))))


class IntermediateFusionUNet(nn.Module):
    """A stream a modality, joined at every level by a 1 x 1 convolution, then one decoder."""

    def __init__(self, specification: ModelSpecification) -> None:
        super().__init__()
        self.names = tuple(modality.name for modality in specification.modalities)
        self.stems = _stems(specification.modalities)
        width, depth, dropout = specification.width, specification.depth, specification.dropout
        self.projections = nn.ModuleDict({name: Projection(_stem(self.stems, name).channels, width) for name in self.names})
        self.encoders = nn.ModuleDict({name: EncoderStream(width, depth, dropout) for name in self.names})
        self.joints = nn.ModuleList(
            nn.Sequential(nn.Conv2d(len(self.names) * channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
            for channels in level_widths(width, depth)
        )
        self.decoder = Decoder(width, depth, dropout, specification.n_classes)

    def forward(self, values: dict[str, Tensor]) -> Tensor:
        # values: by modality (B, C, h, w) on its own scale, NaN = missing -> (B, n_classes, H, W) scores
        streams = [self.encoders[name](self.projections[name](self.stems[name](values[name]))) for name in self.names]
        levels = [joint(torch.cat([stream[number] for stream in streams], dim=1)) for number, joint in enumerate(self.joints)]
        return torch.as_tensor(self.decoder(levels))


def level_widths(width: int, depth: int) -> list[int]:
    """Channels of each level, finest first."""
    return [width * 2**level for level in range(depth + 1)]


def _stems(modalities: tuple[ModalitySpecification, ...]) -> nn.ModuleDict:
    return nn.ModuleDict({modality.name: Stem(modality) for modality in modalities})


def _stem(stems: nn.ModuleDict, name: str) -> Stem:
    stem = stems[name]
    if not isinstance(stem, Stem):
        raise TypeError(f"'{name}' is no stem.")
    return stem
