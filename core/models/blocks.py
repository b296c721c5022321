"""The small modules that every network here is made of.

All of them compute each output pixel from a bounded neighbourhood in evaluation mode: normalisation is by running
statistics (batch normalisation), never by the statistics of the tile at hand. This is why tiles that overlap by the
receptive field agree with the map computed in one piece.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.models.products import is_plain

NORMALISED_LIMIT = 6.0
"""Normalised values are cut here: a glint or a dead pixel must not outvote its neighbourhood."""


def box_sums(values: Tensor, windows: Sequence[int]) -> list[Tensor]:
    """Sums over square neighbourhoods; what lies outside counts as zero.

    Sums of 1, 2, 4, ... pixels are each made of two of the former, and those of a window of a few of them: some ten
    additions of whole rasters for windows of 5, 9 and 17 pixels, several times faster than pooling. A cumulative sum
    would be as fast, but there each pixel has an influence on the rounding of all that follow: a missing pixel, or the
    place of a tile, would change maps.

    Args:
        values: (B, C, H, W).
        windows: odd side lengths in pixels.

    Returns:
        (B, C, H, W) for each window.
    """
    rows = _line_sums(values, windows, dim=3)
    return [_line_sums(row, [window], dim=2)[0] for row, window in zip(rows, windows, strict=True)]


def _line_sums(values: Tensor, windows: Sequence[int], dim: int) -> list[Tensor]:
    """Sums of the pixels around each along one of the last two axes."""
    half, length = max(windows) // 2, values.shape[dim]
    runs = {1: functional.pad(values, (half, half) if dim == 3 else (0, 0, half, half))}
    size = 1
    while 2 * size <= max(windows):
        shorter, count = runs[size], runs[size].shape[dim] - size
        runs[2 * size] = shorter.narrow(dim, 0, count) + shorter.narrow(dim, size, count)
        size *= 2
    sums = []
    for window in windows:
        start, parts = half - window // 2, []
        for size in sorted(runs, reverse=True):
            # The binary digits of the window, the largest first.
            if window & size:
                parts.append(runs[size].narrow(dim, start, length))
                start += size
        sums.append(functools.reduce(torch.add, parts))
    return sums


def halved(values: Tensor) -> Tensor:
    """The largest of every two by two pixels; a last row or column that is left over is left out."""
    if not is_plain(values) or values.shape[-2] % 2 or values.shape[-1] % 2:
        return functional.max_pool2d(values, 2)
    # A third of the time of torch's pooling.
    rows = torch.maximum(values[:, :, ::2], values[:, :, 1::2])
    return torch.maximum(rows[..., ::2], rows[..., 1::2])


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, after He et al. (2016, arXiv:1512.03385), figure 2."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = convolution(in_channels, out_channels)
        self.second = nn.Sequential(
            nn.Dropout2d(dropout),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, values: Tensor) -> Tensor:
        # In place: what the second convolution puts out is nobody else's.
        return functional.relu_(self.second(self.first(values)).add_(self.shortcut(values)))


def convolution(in_channels: int, out_channels: int, size: int = 3) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, size, padding=size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )
