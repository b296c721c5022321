"""The transfer gate: how much of the fused features each channel hands on."""

from __future__ import annotations

import torch
from torch import nn

from core.models.features import FeatureMap, masked_mean

REDUCTION = 4
OPEN = 1.0
"""The gate's first bias: a fused path that starts open gets a gradient."""


class TransferGate(nn.Module):
    """Weighs the fused against the main features, channel by channel.

    After Xu et al. (2023, Remote Sensing 15:5682), whose abstract says that the gate selects the more informative of
    the fused features; the equations are inferred:

        g = sigmoid(W2 ReLU(LN(W1 mean([fused, main])))),  F = g * fused + (1 - g) * main

    A layer normalisation stands where a batch normalisation would fail on a batch of one.

    Args:
        channels: of the level.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(4, channels // REDUCTION)
        self.first = nn.Linear(2 * channels, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.second = nn.Linear(hidden, channels)
        nn.init.constant_(self.second.bias, OPEN)

    def forward(self, fused: FeatureMap, main: FeatureMap) -> FeatureMap:
        both = torch.cat([masked_mean(fused), masked_mean(main)], dim=1)
        gate = torch.sigmoid(self.second(torch.relu(self.norm(self.first(both)))))[:, :, None, None]
        return fused.masked(gate * fused.values + (1 - gate) * main.values)
