"""Encoders by name."""

from __future__ import annotations

from core.models.encoders.encoder import Encoder
from core.models.encoders.resnet import ResNetEncoder
from core.models.encoders.resunet import ResUNetEncoder
from core.models.encoders.unet import UNetEncoder
from core.models.encoders.vit import ViTEncoder
from core.models.specification import ModelSpecification, SizeName

UNET_WIDTHS: dict[SizeName, int] = {"tiny": 16, "small": 24, "base": 48, "large": 64}
"""Channels of the finest level. With 16 the default maps twice as fast as with 24 and agrees as well with held-out labels,
see ``scripts/benchmarks/network_widths.py``; processors convolve 16 channels at a time."""


def build_encoder(specification: ModelSpecification) -> Encoder:
    """A freshly initialised encoder of the kind and size that a model asks for."""
    size = specification.size
    match specification.encoder:
        case "unet":
            return UNetEncoder(specification.width or UNET_WIDTHS[size], specification.depth, specification.dropout)
        case "resnet":
            return ResNetEncoder(size, specification.finest or 2)
        case "resunet":
            return ResUNetEncoder(size, specification.finest or 2)
        case "vit":
            return ViTEncoder(size, specification.finest or 4, specification.resolution_m)
