"""Sines and cosines of numbers, for positions, places, dates and wavelengths alike."""

from __future__ import annotations

import torch
from torch import Tensor


def fourier_features(values: Tensor, count: int, shortest: float, longest: float) -> Tensor:
    """Sine and cosine at wavelengths spaced evenly in their logarithm (Vaswani et al. 2017, arXiv:1706.03762, section 3.5).

    Args:
        values: (...) float64: at the shortest wavelengths a float32 would have lost its place.
        count: number of wavelengths.
        shortest, longest: of them, in the unit of the values.

    Returns:
        (..., 2 * count) float64.
    """
    steps = torch.linspace(0, 1, count, dtype=torch.float64, device=values.device)
    wavelengths = shortest * (longest / shortest) ** steps
    angles = 2 * torch.pi * values.double()[..., None] / wavelengths
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
