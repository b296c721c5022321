"""When a modality was taken and how fine it is, as inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from core.models.dates import HARMONICS, day_code
from core.models.geography import FREQUENCIES, code_or_stand_in, resolution_code


class CircumstancesEncoding(nn.Module):
    """A vector from a modality's day of the year and its pixel size, added to its features.

    A field in May and in August, or at 10 and at 30 m, is the same field: told of both, features need not guess them from
    the values. That time and resolution are inputs of a model of any sensor is the practice of OlmoEarth (Ai2, 2025) and
    A2-MAE (Zhang et al. 2024, arXiv:2406.08079); the form is ours, that of ``GeographicEncoding``. Learned vectors stand
    in for what is not known, or is withheld in training.

    Args:
        channels: of the features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.day = nn.Linear(2 * HARMONICS, channels)
        self.resolution = nn.Linear(2 * FREQUENCIES, channels)
        self.no_day = nn.Parameter(0.02 * torch.randn(channels))
        self.no_resolution = nn.Parameter(0.02 * torch.randn(channels))

    def forward(self, days: Tensor, resolution: Tensor) -> Tensor:
        """(B, C).

        Args:
            days: (B,) since the start of any year, NaN = unknown.
            resolution: (B,) metres, NaN = unknown.
        """
        day = code_or_stand_in(day_code(days), self.day, self.no_day)
        return day + code_or_stand_in(resolution_code(resolution), self.resolution, self.no_resolution)
