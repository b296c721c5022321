"""Contrast of super-pixels: what two views make of the same piece of ground agrees, and differs from other pieces."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from core.labels.superpixels import SuperpixelMethod, superpixels, visible_bands
from core.models.features import FeatureMap
from core.models.fusion_model import FusionModel
from core.pretraining.info_nce import ContrastSettings, info_nce
from core.pretraining.objectives.objective import Objective, Step, Windows
from core.pretraining.projections import DenseProjection, unit
from core.pretraining.segments import mean_of_segments, one_place_each, paired
from core.pretraining.view_pairs import FeaturePair, PairSettings, dense_channels, draw_pair, encode_pair, within
from core.pretraining.views import aligned_features, warp


@dataclass(frozen=True)
class SuperpixelContrastSettings:
    """Which contrast of super-pixels.

    Attributes:
        contrast: form of InfoNCE; by default the published one.
        channels: of the projection; 128 as published, 64 for late fusion.
        method: how super-pixels are cut; as published.
        most: super-pixels compared in a step (inferred): similarities are of all with all.
        samples_one_place: takes one pixel of each super-pixel in place of the mean, as the released code does.
        weight: of the term.
    """

    contrast: ContrastSettings = field(default_factory=lambda: ContrastSettings(0.5, 0.1, 1.0))
    channels: int = 128
    method: SuperpixelMethod = "felzenszwalb"
    most: int = 1024
    samples_one_place: bool = False
    weight: float = 1.0


class SuperpixelContrast(Objective):
    """The dense term of Chen and Bruzzone (2022, TGRS 60:5406011, arXiv:2103.05543; equations by their code).

    What the decoder puts out of each view goes through a 1 x 1 convolution to unit length. The second view's vectors and
    the segments are brought into the frame of the first, and only ground that both views show counts. Each super-pixel's
    mean is a row of InfoNCE, and all others of the batch are its negatives.

    Inferred: two moved views where theirs moves one, windows cut on the fly where theirs cuts whole tiles beforehand,
    the modality to cut where there is nothing optical (the first that is there), and unit length before the mean and
    again after it.

    Terms: ``superpixel``.

    Args:
        model: that will learn; its head has a decoder.
        settings: of the contrast.
        pair: of the views.

    Raises:
        ValueError: the model's head has no decoder.
    """

    def __init__(
        self,
        model: FusionModel,
        settings: SuperpixelContrastSettings | None = None,
        pair: PairSettings | None = None,
    ) -> None:
        super().__init__()
        self.settings, self.pair = settings or SuperpixelContrastSettings(), pair or PairSettings()
        self.projection = DenseProjection(dense_channels(model), self.settings.channels)
        self._count: int | None = None

    def forward(self, step: Step) -> dict[str, Tensor]:
        return self.terms(step, encode_pair(step.model, draw_pair(step, self.pair)))

    def terms(self, step: Step, pair: FeaturePair) -> dict[str, Tensor]:
        """The loss of views that are encoded already."""
        views = pair.views
        dense = [within(step, step.model.dense(features)) for features in (pair.first, pair.second)]
        first, second = (each.masked(unit(self.projection(each.values))) for each in dense)
        second = aligned_features(second, views.second_maps, views.first_maps)
        known = first.known * second.known
        segments = self._segments(step, views.first_maps, first)
        if self.settings.samples_one_place:
            segments = one_place_each(segments, known, step.generator)
        means = [mean_of_segments(each.values, segments, known) for each in (first, second)]
        one, other = paired(means[0], means[1], step.generator, self.settings.most)
        self._count = len(one)
        return {"superpixel": self.settings.weight * info_nce(unit(one), unit(other), self.settings.contrast)}

    def monitors(self) -> dict[str, float]:
        """How many super-pixels the last step compared."""
        return {} if self._count is None else {"superpixels": float(self._count)}

    def _segments(self, step: Step, maps: Tensor, wanted: FeatureMap) -> Tensor:
        """(B, h, w) ids of the super-pixels of the windows as seen through maps, on the grid of a feature map."""
        ids = cut_windows(step.model, step.windows, self.settings.method)[:, None].to(wanted.values)
        moved = warp(ids, maps, is_smooth=False, size=(wanted.values.shape[-2], wanted.values.shape[-1]))
        return torch.nan_to_num(moved)[:, 0].long()


def cut_windows(model: FusionModel, windows: Windows, method: SuperpixelMethod) -> Tensor:
    """(B, h, w) int64 super-pixels of each window, on the pixels of the modality that they are cut of: the first optical
    one with data, or the first with data."""
    entries = [entry for name, entry in model.modalities.items() if name in windows.values]
    seen = [entry for entry in entries if bool(torch.isfinite(windows.values[entry.name]).any())] or entries
    entry = next((entry for entry in seen if entry.kind == "optical"), seen[0])
    bands = visible_bands([band.center_nm for band in entry.bands])
    images = windows.values[entry.name][:, bands].detach().float().cpu().numpy()
    return torch.from_numpy(np.stack([superpixels(image, method) for image in images])).long()
