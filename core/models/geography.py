"""Where on the Earth and how fine: the geographic encoding of A2-MAE."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from core.models.fourier import fourier_features

FREQUENCIES = 16
PLACE_WAVELENGTHS = (1e-2, 4.0)
"""Of the point on the unit sphere: from about 60 km on the ground to more than the whole globe."""

RESOLUTION_WAVELENGTHS = (0.5, 24.0)
"""Of the binary logarithm of metres: from centimetres to kilometres."""

DROPPED = 0.2
"""Part of the training samples whose place, and whose resolution, is withheld."""


class GeographicEncoding(nn.Module):
    """A vector from latitude, longitude and resolution, added to every feature.

    That A2-MAE (Zhang et al. 2024, arXiv:2406.08079) encodes the three is from its abstract; the form is inferred. The
    point is put on the unit sphere, where longitude does not jump at 180 degrees, and expanded in float64. Learned
    vectors stand in for what is not known, or is withheld in training.

    Args:
        channels: of the features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.place = nn.Linear(6 * FREQUENCIES, channels)
        self.resolution = nn.Linear(2 * FREQUENCIES, channels)
        self.no_place = nn.Parameter(0.02 * torch.randn(channels))
        self.no_resolution = nn.Parameter(0.02 * torch.randn(channels))

    def forward(self, geography: Tensor) -> Tensor:
        """(B, C) from (B, 3) float64 latitude and longitude in degrees and resolution in metres; NaN = unknown."""
        latitude, longitude = geography[:, 0].double().deg2rad(), geography[:, 1].double().deg2rad()
        sphere = torch.stack([latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin(), latitude.sin()], dim=1)
        place = fourier_features(sphere, FREQUENCIES, *PLACE_WAVELENGTHS).flatten(1)
        fineness = resolution_code(geography[:, 2])
        known = code_or_stand_in(place, self.place, self.no_place)
        return known + code_or_stand_in(fineness, self.resolution, self.no_resolution)


def resolution_code(resolution: Tensor) -> Tensor:
    """(B, 2 * FREQUENCIES) float64 of (B,) metres; NaN = unknown."""
    return fourier_features(resolution.double().log2(), FREQUENCIES, *RESOLUTION_WAVELENGTHS)


def code_or_stand_in(code: Tensor, layer: nn.Linear, stand_in: Tensor) -> Tensor:
    """What a layer makes of a code, or what stands in for one that is not known, or is withheld in training.

    Args:
        code: (B, n), NaN = unknown.
        layer: from n to C channels; whether it trains says whether codes are withheld.
        stand_in: (C,).
    """
    is_known = torch.isfinite(code).all(dim=1, keepdim=True)
    if layer.training:
        is_known = is_known & (torch.rand(len(code), 1, device=code.device) >= DROPPED)
    known = layer(torch.nan_to_num(code).to(layer.weight.dtype))
    return torch.where(is_known, known, stand_in)
