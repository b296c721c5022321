"""What a model says in the end: classes of pixels or of scenes, embeddings, change between two dates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.models.decoders.decoder import Decoder
from core.models.features import FeatureMap, Features, features_of, inner_part, masked_mean

MakeDecoder = Callable[[Sequence[int], Sequence[int]], Decoder]


class DenseHead(nn.Module):
    """Class scores of every reference pixel: a decoder over the levels and a 1 x 1 convolution.

    Args:
        channels, strides: of the levels.
        make_decoder: over them.
        n_classes: channels put out.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], make_decoder: MakeDecoder, n_classes: int) -> None:
        super().__init__()
        # Late fusion has decoded already.
        self.decoder = make_decoder(channels, strides) if len(channels) > 1 else None
        decoded = channels[0] if self.decoder is None else self.decoder.channels
        self.classifier = nn.Conv2d(decoded, n_classes, 1)
        self.radius: int | None = 0 if self.decoder is None else self.decoder.radius
        self.stride = strides[0] if self.decoder is None else self.decoder.stride

    def forward(self, features: Features, margin: int = 0) -> Tensor:
        """(B, n_classes, H, W) scores, without ``margin`` pixels along each edge."""
        # What is enlarged looks beyond what is left of it.
        level = self.dense(features, margin if self.stride == 1 else 0)
        scores: Tensor = self.classifier(level.values)
        return scores if level.stride == 1 else inner_part(enlarged_to_pixels(scores, level.stride), margin)

    def dense(self, features: Features, margin: int = 0) -> FeatureMap:
        """What the classifier sees, without so many reference pixels along each edge, a multiple of its stride."""
        return features.levels[0].cut(margin) if self.decoder is None else self.decoder(features.levels, margin)


class EmbeddingHead(DenseHead):
    """A unit vector for every reference pixel."""

    def forward(self, features: Features, margin: int = 0) -> Tensor:
        """(B, n_classes, H, W), of length one in the second dimension."""
        return functional.normalize(super().forward(features, margin), dim=1, eps=1e-6)


class SceneHead(nn.Module):
    """Class scores of the whole window, from the means of all levels.

    Args:
        channels: of the levels.
        n_classes: put out.
    """

    def __init__(self, channels: Sequence[int], n_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(sum(channels))
        self.classifier = nn.Linear(sum(channels), n_classes)
        self.radius: int | None = None

    def forward(self, features: Features) -> Tensor:
        """(B, n_classes) scores."""
        pooled = torch.cat([masked_mean(level) for level in features.levels], dim=1)
        scores: Tensor = self.classifier(self.norm(pooled))
        return scores


def enlarged_to_pixels(values: Tensor, stride: int) -> Tensor:
    """From a map's stride to reference pixels, interpolated."""
    if stride == 1:
        return values
    return functional.interpolate(values, scale_factor=float(stride), mode="bilinear", align_corners=False)


def difference(before: Features, after: Features) -> Features:
    """The absolute difference of two dates' features, where both are known.

    Siamese features and their difference follow Daudt et al. (2018, arXiv:1810.08462), the Siam-diff form.
    """
    levels = []
    for old, new in zip(before.levels, after.levels, strict=True):
        known = old.known * new.known
        levels.append(FeatureMap((new.values - old.values).abs() * known, known, old.stride))
    return features_of(levels)
