"""The small modules that every network here is made of.

All of them compute each output pixel from a bounded neighbourhood in evaluation mode: normalisation is by running
statistics (batch normalisation), never by the statistics of the tile at hand. This is why tiles that overlap by the
receptive field agree with the map computed in one piece.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.models.products import convolve, is_plain

NORMALISED_LIMIT = 6.0
"""Normalised values are cut here: a glint or a dead pixel must not outvote its neighbourhood."""

LEAST_VARIANCE = 1e-6
"""Added to variances, so that the spread of what does not vary has a gradient."""

FEW_CHANNELS = 8
"""Up to so many, and additions of whole rasters are faster than convolutions."""

STATISTICS_WINDOWS = (5, 9, 17)
"""Neighbourhoods, in pixels, whose mean and spread stand beside each pixel: those of the neighbourhood forest."""


class NeighbourhoodStatistics(nn.Module):
    """Mean and standard deviation of square neighbourhoods, stacked behind the values themselves.

    A few polygons cannot teach a network to average; given the averages it starts where the best classical baseline
    stands. Neighbourhoods shrink at borders and around gaps: what lies outside or is missing does not count. Counted as
    zeros, it gave the margins of scenes a texture that no class has.

    Args:
        windows: odd side lengths in pixels.
    """

    def __init__(self, windows: tuple[int, ...] = STATISTICS_WINDOWS) -> None:
        super().__init__()
        self.windows = windows

    def channels(self, channels: int) -> int:
        """Number of output channels for that many input channels."""
        return channels * (1 + 2 * len(self.windows))

    def forward(self, values: Tensor, known: Tensor) -> Tensor:
        # values: (B, C, H, W), zero where missing; known: (B, 1, H, W), 1 or 0 -> (B, C * (1 + 2 * windows), H, W)
        return torch.cat(list(self.views(values, known)), dim=1)

    def views(self, values: Tensor, known: Tensor) -> Iterator[Tensor]:
        """The values themselves, then mean and standard deviation of each neighbourhood, one after the other.

        Args:
            values: (B, C, H, W), zero where missing.
            known: (B, 1, H, W), 1 or 0.

        Yields:
            (B, C, H, W) each, whose memory is the receiver's.
        """
        if is_plain(values):
            yield from self._swift_views(values, known)
            return
        yield values
        sums = (box_sums(tensor, self.windows) for tensor in (known, values, values.square()))
        for count, total, squares in zip(*sums, strict=True):
            count = count.clamp_min(1.0)
            mean = total / count
            variance = (squares / count - mean.square()).clamp_min(0.0)
            yield mean
            yield (variance + LEAST_VARIANCE).sqrt()

    def _swift_views(self, values: Tensor, known: Tensor) -> Iterator[Tensor]:
        """The same without gradients: in place, and where all is known without a division by how much of it is."""
        is_whole = bool(known.all())
        values = values.contiguous(memory_format=torch.channels_last)
        yield values
        squares = values.square()
        for window in self.windows:
            correction = _edges(known, window) if is_whole else window**2 / box_sums(known, [window])[0].clamp_min_(1.0)
            mean, variance = (_window_means(tensor, window) for tensor in (values, squares))
            for tensor in (mean, variance):
                if is_whole:
                    _correct_edges(tensor, correction, window // 2)
                else:
                    tensor.mul_(correction)
            # Before the mean is somebody else's.
            variance.addcmul_(mean, mean, value=-1.0).clamp_min_(0.0).add_(LEAST_VARIANCE).sqrt_()
            yield mean
            yield variance


def _window_means(values: Tensor, window: int) -> Tensor:
    """Sums over square neighbourhoods, divided by the number of pixels of a whole one; what lies outside counts as zero."""
    if values.shape[1] <= FEW_CHANNELS:
        return box_sums(values, [window])[0].mul_(1 / window**2)
    channels, half = values.shape[1], window // 2
    ones = torch.ones(channels, 1, 1, window)
    rows = convolve(values, ones, padding=(0, half), groups=channels)
    return convolve(rows, ones.transpose(2, 3) / window**2, padding=(half, 0), groups=channels)


def _edges(known: Tensor, window: int) -> Tensor:
    """(H, W), by how much the border makes neighbourhoods smaller where all is known."""
    down, across = (box_sums(torch.ones(1, 1, 1, side), [window])[0].flatten() for side in known.shape[-2:])
    # The other axis of a single line adds nothing.
    return window**2 / (down[:, None] * across[None])


def _correct_edges(values: Tensor, correction: Tensor, edge: int) -> None:
    """Multiplies what lies nearer to the border than the edge; all else has whole neighbourhoods."""
    height, width = correction.shape
    if min(height, width) <= 2 * edge:
        values.mul_(correction)
        return
    inner = slice(edge, height - edge)
    for rows, columns in (
        (slice(edge), slice(None)),
        (slice(height - edge, None), slice(None)),
        (inner, slice(edge)),
        (inner, slice(width - edge, None)),
    ):
        values[:, :, rows, columns].mul_(correction[rows, columns])


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
