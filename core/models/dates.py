"""Several dates of one modality, pooled to one map; any number of them, some missing."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from core.models.features import FeatureMap

HARMONICS = 3
"""The year, the half-year and the third: what seasons of crops and snow need."""

YEAR_DAYS = 365.2425


class DatePooling(nn.Module):
    """Attention over the dates of each place: a learned query asks features and day of the year.

    After L-TAE (Garnot and Landrieu 2020, arXiv:2007.00586), whose learned master query it takes; weights by place are ours,
    since clouds are. One date passes unchanged but for its day's code, and a date that is not known has no code.

    Args:
        channels: of the features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.day = nn.Linear(2 * HARMONICS, channels, bias=False)
        # Without a bias, which would add the same to the scores of all dates.
        self.norm = nn.LayerNorm(channels, bias=False)
        self.query = nn.Parameter(torch.randn(channels) / math.sqrt(channels))

    def forward(self, values: Tensor, known: Tensor, dates: Tensor | None) -> tuple[Tensor, Tensor]:
        """Pools dates.

        Args:
            values: (B, T, C, h, w), zero where missing.
            known: (B, T, 1, h, w), 1 or 0.
            dates: (B, T) days since the start of any year, NaN = unknown; None where none is known.

        Returns:
            (B, C, h, w) and (B, 1, h, w).
        """
        if dates is not None:
            values = (values + self._codes(dates)[..., None, None]) * known
        if values.shape[1] == 1:
            return values[:, 0], known[:, 0]
        seen = self.norm(values.movedim(2, -1))
        scores = (seen * self.query).sum(dim=-1, keepdim=True).movedim(-1, 2)
        weights = torch.softmax(scores.masked_fill(known == 0, -torch.inf).clamp_min(-1e9), dim=1) * known
        return (weights * values).sum(dim=1), known.amax(dim=1)

    def _codes(self, dates: Tensor) -> Tensor:
        codes = self.day(day_code(torch.nan_to_num(dates, nan=0.0)).to(self.day.weight.dtype))
        return torch.as_tensor(codes * torch.isfinite(dates)[..., None])


def day_code(dates: Tensor) -> Tensor:
    """(..., 2 * HARMONICS) float64 of (...) days since the start of any year; NaN = unknown."""
    # Whole parts of the year only: the same day of any year has the same code.
    harmonics = torch.arange(1, HARMONICS + 1, dtype=torch.float64, device=dates.device)
    angles = 2 * torch.pi * dates.double()[..., None] * harmonics / YEAR_DAYS
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def pool_dates(pooling: DatePooling, dated: FeatureMap, count: int, dates: Tensor | None) -> FeatureMap:
    """Pools a map whose batch holds ``count`` dates of each member, date by date."""
    values, known = (each.reshape(-1, count, *each.shape[1:]) for each in (dated.values, dated.known))
    pooled: tuple[Tensor, Tensor] = pooling(values, known, dates)
    return FeatureMap(pooled[0], pooled[1], dated.stride)
