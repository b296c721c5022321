"""Mean and spread of the neighbourhoods of pixels."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from core.models.blocks import box_sums
from core.models.features import AffineMap
from core.models.products import convolve, is_plain

STATISTICS_WINDOWS = (5, 9, 17)
"""Neighbourhoods, in pixels, whose mean and spread stand beside each pixel: those of the neighbourhood forest."""

LEAST_VARIANCE = 1e-6
"""Added to variances, so that the spread of what does not vary has a gradient."""

ROWS_AT_ONCE = 16
"""Rows of pixels whose statistics are in memory together: the processor's cache holds them."""


class NeighbourhoodStatistics(nn.Module):
    """Mean and standard deviation of square neighbourhoods, stacked behind the values themselves.

    A few polygons cannot teach a network to average; given the averages it starts where the best classical baseline
    stands. Neighbourhoods shrink at borders and around gaps: what lies outside or is missing does not count. Counted as
    zeros, it gave the margins of scenes a texture that no class has.

    Args:
        windows: odd side lengths in pixels, the smallest first.
    """

    def __init__(self, windows: tuple[int, ...] = STATISTICS_WINDOWS) -> None:
        super().__init__()
        self.windows = windows

    def channels(self, channels: int) -> int:
        """Number of output channels for that many input channels."""
        return channels * (1 + 2 * len(self.windows))

    def forward(self, values: Tensor, known: Tensor) -> Tensor:
        """The values themselves, then mean and standard deviation of each neighbourhood.

        Args:
            values: (B, C, H, W), zero where missing.
            known: (B, 1, H, W), 1 or 0.

        Returns:
            (B, C * (1 + 2 * windows), H, W).
        """
        if not is_swift(values):
            return torch.cat(self._views(values, known), dim=1)
        batch, channels, height, width = values.shape
        pixels = torch.empty(batch, height, width, self.channels(channels))
        for number, rows, part in self._by_rows(values, known):
            pixels[number, rows] = part[0].permute(1, 2, 0)
        return pixels.permute(0, 3, 1, 2)

    def mapped(self, values: Tensor, known: Tensor, maps: Sequence[AffineMap], dtype: torch.dtype | None) -> list[Tensor]:
        """What affine maps make of the statistics, which are never all in memory.

        Args:
            values, known: see ``forward``, of values that ``is_swift`` holds of.
            maps: of the channels of ``forward``.
            dtype: of what the first map makes, in place of that of the values.

        Returns:
            (B, D, H, W) of each map.
        """
        if not maps:
            return []
        weight, offset = (torch.cat(both) for both in zip(*maps, strict=True))
        (batch, _, height, width), kernel = values.shape, weight[:, :, None, None]
        edges = list(itertools.pairwise([0, *itertools.accumulate(len(each) for each, _ in maps)]))
        laid = torch.channels_last
        # The first in memory of its own: it is needed longer than the others.
        first = torch.empty(batch, edges[0][1], height, width, dtype=dtype or values.dtype, memory_format=laid)
        others = torch.empty(batch, len(weight) - edges[0][1], height, width, memory_format=laid)
        for number, rows, part in self._by_rows(values, known):
            made = convolve(part, kernel, offset)[0]
            first[number, :, rows] = made[: edges[0][1]]
            others[number, :, rows] = made[edges[0][1] :]
        return [first, *(others[:, start - edges[0][1] : stop - edges[0][1]] for start, stop in edges[1:])]

    def _views(self, values: Tensor, known: Tensor) -> list[Tensor]:
        views = [values]
        sums = (box_sums(tensor, self.windows) for tensor in (known, values, values.square()))
        for count, total, squares in zip(*sums, strict=True):
            count = count.clamp_min(1.0)
            mean = total / count
            variance = (squares / count - mean.square()).clamp_min(0.0)
            views += [mean, (variance + LEAST_VARIANCE).sqrt()]
        return views

    def _by_rows(self, values: Tensor, known: Tensor) -> Iterator[tuple[int, slice, Tensor]]:
        """By window of a batch and some of its rows (1, C * (1 + 2 * windows), rows, W), whose memory changes with the next."""
        # Compiled when it is taken in, which takes a second or two.
        from core.models.stems.neighbourhood_kernel import neighbourhood_rows

        batch, channels, height, width = values.shape
        halves = np.array([window // 2 for window in self.windows])
        edge = int(halves[-1])
        part = torch.empty(min(ROWS_AT_ONCE, height), width, self.channels(channels))
        for number in range(batch):
            around = (0, 0, edge, edge, edge, edge)
            given = functional.pad(values[number].permute(1, 2, 0), around).flatten().numpy()
            there = functional.pad(known[number, 0, :, :, None], around).flatten().numpy()
            for start in range(0, height, ROWS_AT_ONCE):
                rows = part[: min(ROWS_AT_ONCE, height - start)]
                neighbourhood_rows(given, there, width, channels, start, halves, LEAST_VARIANCE, rows.numpy())
                yield number, slice(start, start + len(rows)), rows[None].permute(0, 3, 1, 2)


def is_swift(values: Tensor) -> bool:
    """Whether compiled code may make the statistics: nobody asks for gradients."""
    return is_plain(values) and values.dtype == torch.float32
