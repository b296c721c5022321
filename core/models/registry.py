"""The architectures by name."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn

from core.models.specification import ArchitectureName, ModelSpecification
from core.models.stems import Stem, stem_radius
from core.models.unet import EarlyFusionUNet, IntermediateFusionUNet

ARCHITECTURES: dict[ArchitectureName, Callable[[ModelSpecification], nn.Module]] = {
    "unet_early": EarlyFusionUNet,
    "unet_intermediate": IntermediateFusionUNet,
}


def build_model(specification: ModelSpecification) -> nn.Module:
    """A freshly initialised model; the caller seeds torch's generator.

    Its forward takes a dictionary modality name -> (B, C, h, w) float32 physical values with NaN for missing, each on
    its own scale, and returns (B, n_classes, H, W) class scores. H and W are multiples of ``model_step``.
    """
    return ARCHITECTURES[specification.architecture](specification)


def model_step(specification: ModelSpecification) -> int:
    """Tiles have sides that are multiples of this many reference pixels."""
    return math.lcm(2**specification.depth, *(modality.coarser for modality in specification.modalities))


def receptive_radius(specification: ModelSpecification) -> int:
    """Reference pixels around a pixel beyond which nothing can change its scores; an upper bound.

    Two 3 x 3 convolutions a level on the way down and on the way up, a pixel of the coarser level at each pooling and
    each interpolation, and the stems' neighbourhoods.
    """
    deepest = specification.depth
    radius = 0
    for level in range(deepest + 1):
        radius += 2 * 2**level * (1 if level == deepest else 2)
        radius += 2**level * (level > 0) * 2
    return radius + max(stem_radius(modality) for modality in specification.modalities)


def count_parameters(model: nn.Module) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def forward_bytes(specification: ModelSpecification, height: int, width: int) -> int:
    """Bytes that one forward pass takes above the weights, for one window of reference pixels; an upper bound.

    The most is held either where the statistics of all inputs are joined and standardised, or at the decoder's finest
    level. How many copies that makes was measured on the processor, with 21 to 700 statistics and widths of 24 and 64.
    """
    statistics = sum(Stem(modality).channels for modality in specification.modalities)
    features = (18 + 3 * len(specification.modalities)) * specification.width
    return int(4 * height * width * max(3.5 * statistics, 1.2 * statistics + features))
