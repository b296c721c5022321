"""The features of a model for every pixel of the map, in place of its classes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from core.models.features import Features
from core.models.fusion_model import FusionModel
from core.models.heads import DenseHead, enlarged_to_pixels


class FeatureModel(nn.Module):
    """What a model knows of each pixel before it says a class.

    Args:
        model: with a dense or an embedding head.
        uses_decoder: the decoder's one map; otherwise all levels, each brought to the map's pixels.

    Raises:
        TypeError: the model has another head.
    """

    def __init__(self, model: FusionModel, uses_decoder: bool) -> None:
        super().__init__()
        if not isinstance(model.head, DenseHead):
            raise TypeError("features of pixels need a model with a head of pixels")
        self.model = model
        self.uses_decoder = uses_decoder
        channels = [model.head.classifier.in_channels] if uses_decoder else list(model.fusion.channels)
        self.n_features = sum(channels)

    def forward(self, values: Mapping[str, Tensor]) -> Tensor:
        """(B, n_features, H, W) float32 on the reference grid; see ``FusionModel.forward``."""
        features: Features = self.model.features(values)
        levels = (self.model.dense(features),) if self.uses_decoder else features.levels
        height, width = self.model.size_of(values)
        maps = [enlarged_to_pixels(level.values, level.stride) for level in levels]
        return torch.cat([each[:, :, :height, :width] for each in maps], dim=1)
