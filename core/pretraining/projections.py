"""Heads that bring features to the vectors which objectives compare. All are dropped after pre-training."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAST_ROWS = 4
"""Of two rows, batch normalisation leaves nothing but signs, and no gradient."""


class RowNorm(nn.BatchNorm1d):
    """Batch normalisation of vectors that takes the running statistics where a batch has fewer than ``LEAST_ROWS`` of
    them, or none."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or len(input) >= LEAST_ROWS:
            return super().forward(input)
        return functional.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class VectorHead(nn.Sequential):
    """Two layers with batch normalisation and ReLU between them, as in SimCLR (Chen et al. 2020, arXiv:2002.05709,
    section 4.2) with the hidden normalisation that SimSiam's ablation asks for (Chen and He 2021, arXiv:2011.10566,
    table 3).

    Args:
        channels: of the input.
        out_channels: of the output.
        hidden: channels between; those of the input by default.
        normalises_output: ends with a batch normalisation without scale, as SimSiam's projection does.
    """

    def __init__(self, channels: int, out_channels: int, hidden: int | None = None, *, normalises_output: bool = False) -> None:
        width = hidden or channels
        super().__init__(
            nn.Linear(channels, width, bias=False),
            RowNorm(width),
            nn.ReLU(),
            nn.Linear(width, out_channels, bias=not normalises_output),
        )
        if normalises_output:
            self.append(RowNorm(out_channels, affine=False))


class DenseProjection(nn.Conv2d):
    """A 1 x 1 convolution from features to the vectors of places (Chen and Bruzzone 2022, TGRS 60:5406011, their code).

    Args:
        channels: of the input.
        out_channels: of the output.
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__(channels, out_channels, 1)


class DinoHead(nn.Module):
    """Three layers to a bottleneck of unit length, and a last one whose rows have unit length (Caron et al. 2021,
    arXiv:2104.14294, appendix C): each output is a cosine.

    Args:
        channels: of the input.
        out_channels: prototypes; 65536 as published.
        hidden: channels of the first two layers; 2048 as published.
        bottleneck: channels of the third; 256 as published.
    """

    def __init__(self, channels: int, out_channels: int = 4096, hidden: int = 512, bottleneck: int = 256) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(channels, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.prototypes = nn.Parameter(torch.randn(out_channels, bottleneck))

    def forward(self, values: Tensor) -> Tensor:
        """(B, out_channels) cosines, from (B, channels)."""
        inner = unit(self.layers(values))
        # Cosines are divided by temperatures of a few hundredths, for which half precision is too coarse.
        with torch.autocast(inner.device.type, enabled=False):
            return functional.linear(inner, functional.normalize(self.prototypes, dim=1))


class AlignmentHead(nn.Module):
    """A layer beside a residual of GELU, layer and dropout, normalised: the heads of X-STARS' dense alignment (Marsocci
    and Audebert 2025, arXiv:2405.09922; the layers by their code).

    Args:
        channels: of the input.
        out_channels: of the output.
        dropout: of the residual.
    """

    def __init__(self, channels: int, out_channels: int, dropout: float = 0.2) -> None:
        super().__init__()
        self.entry = nn.Linear(channels, out_channels)
        self.residual = nn.Sequential(nn.GELU(), nn.Linear(out_channels, out_channels), nn.Dropout(dropout))
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, values: Tensor) -> Tensor:
        """(..., out_channels), from (..., channels)."""
        entered = self.entry(values)
        normed: Tensor = self.norm(entered + self.residual(entered))
        return normed


def unit(vectors: Tensor, dim: int = 1) -> Tensor:
    """Vectors of length one in a dimension, in single precision: the last step of every head before InfoNCE."""
    return functional.normalize(vectors.float(), dim=dim, eps=1e-6)
