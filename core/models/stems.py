"""From a modality's physical values on its own grid to channels on the reference grid."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.models.blocks import STATISTICS_WINDOWS, NeighbourhoodStatistics, Normalisation, box_mean
from core.models.specification import ModalitySpecification

RELIEF = ((9, 5.0), (33, 20.0))
"""Neighbourhoods, in pixels of the map or of the modality if that is coarser, and the height in metres that counts as
one in each: trees and houses, then slopes and valleys."""


class Stem(nn.Module):
    """Normalised values and the statistics of their neighbourhoods, on the reference grid.

    Finer modalities are summed up per reference pixel by mean and spread, so that texture below a pixel survives;
    coarser ones are interpolated. There is nothing to learn here: what follows is a 1 x 1 convolution.

    Elevation above the sea enters as relief, its difference from the neighbourhood's mean, so that a model cannot
    learn the height of one valley floor by heart; height above ground is a property of the thing itself and enters as
    it is.

    Args:
        specification: of the modality.
    """

    def __init__(self, specification: ModalitySpecification) -> None:
        super().__init__()
        self.scale = specification.scale
        is_relief = _is_relief(specification)
        self.normalisation = None if is_relief else Normalisation(specification)
        self.statistics = NeighbourhoodStatistics()
        channels = len(specification.bands) * (1 + (self.scale.finer > 1))
        if is_relief:
            channels *= len(RELIEF)
        self.channels = self.statistics.channels(channels)

    def forward(self, values: Tensor) -> Tensor:
        # values: (B, C, H * finer / coarser, W * finer / coarser), physical, NaN = missing -> (B, channels, H, W)
        known = torch.isfinite(values).all(dim=1, keepdim=True).to(values.dtype)
        finer, coarser = self.scale.finer, self.scale.coarser
        values = _relief(values, finer) if self.normalisation is None else self.normalisation(values)
        values = values * known
        if coarser > 1:
            share = functional.interpolate(known, scale_factor=float(coarser), mode="bilinear", align_corners=False)
            values = functional.interpolate(values, scale_factor=float(coarser), mode="bilinear", align_corners=False)
            known = (share > 0).to(values.dtype)
            values = values / share.clamp_min(1e-6)
        if finer > 1:
            share = functional.avg_pool2d(known, finer)
            known = (share > 0).to(values.dtype)
            mean = functional.avg_pool2d(values, finer) / share.clamp_min(1e-6)
            variance = functional.avg_pool2d(values.square(), finer) / share.clamp_min(1e-6) - mean.square()
            values = torch.cat([mean, (variance.clamp_min(0.0) + 1e-6).sqrt() * known], dim=1)
        return torch.as_tensor(self.statistics(values, known))


def stem_radius(specification: ModalitySpecification) -> int:
    """Reference pixels around a pixel that its stem looks at; an upper bound."""
    own = max(window for window, _ in RELIEF) // 2 if _is_relief(specification) else 0
    scale = specification.scale
    # Interpolation reaches to the next coarse pixel.
    return (own + (scale.coarser > 1)) * scale.coarser + max(STATISTICS_WINDOWS) // 2


def _is_relief(specification: ModalitySpecification) -> bool:
    return specification.kind == "elevation" and specification.sensor != "height_above_ground"


def _relief(heights: Tensor, finer: int) -> Tensor:
    """Heights above the mean of the surroundings, one channel for each neighbourhood of ``RELIEF``.

    Args:
        heights: (B, C, H, W) metres, NaN = missing.
        finer: pixels of ``heights`` along one of those that neighbourhoods are counted in.

    Returns:
        (B, C * 2, H, W); zero where the height is missing.
    """
    present = torch.isfinite(heights)
    known = present.to(heights.dtype)
    # A float32 holds a height of 8000 m to half a millimetre, but sums of many no longer: centre them first.
    centre = torch.where(present, heights, torch.zeros_like(heights)).sum((2, 3), keepdim=True)
    centre = centre / known.sum((2, 3), keepdim=True).clamp_min(1.0)
    centred = torch.where(present, heights - centre, torch.zeros_like(heights))
    coarse, share = functional.avg_pool2d(centred, finer), functional.avg_pool2d(known, finer)
    parts = []
    for window, metres in RELIEF:
        mean = box_mean(coarse, window) / box_mean(share, window).clamp_min(1e-6)
        mean = mean.repeat_interleave(finer, dim=2).repeat_interleave(finer, dim=3)
        relief = (centred - mean) / metres
        # The logarithm keeps a cliff from drowning a hedge.
        parts.append(torch.where(present, relief.sign() * relief.abs().log1p(), torch.zeros_like(relief)))
    return torch.cat(parts, dim=1)
