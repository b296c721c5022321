"""A decoder for levels of one stride, as a transformer's: a pyramid is made of them first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.models.blocks import convolution
from core.models.decoders.decoder import Decoder
from core.models.features import FeatureMap

POOLS = (1, 2, 3, 6)
"""Cells along a side of the pooled maps (Zhao et al. 2017, arXiv:1612.01105, section 3.2)."""

WIDTHS = {192: 64, 384: 96, 768: 128}


class UPerNetDecoder(Decoder):
    """Pyramid pooling over the last level and a feature pyramid over all (Xiao et al. 2018, arXiv:1807.10221).

    The pyramid of a transformer's equal levels is made by scaling the earlier ones up, as for ViTDet (Li et al. 2022,
    arXiv:2203.16527), here by interpolation: the finest of it has the pixels of the map, up to four to a patch.

    Args:
        channels, strides: of the levels.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        width = WIDTHS.get(channels[-1], 64)
        stride = strides[0]
        self.scales = [min(2 ** (len(channels) - 1 - number), 4, stride) for number in range(len(channels))]
        # Only as fine as whole pixels allow.
        self.scales = [scale if stride % scale == 0 else 1 for scale in self.scales]
        self.laterals = nn.ModuleList(convolution(entry, width, 1) for entry in channels)
        self.pools = nn.ModuleList(nn.Conv2d(channels[-1], width, 1) for _ in POOLS)
        self.context = convolution(len(POOLS) * width + width, width)
        self.joint = convolution(len(channels) * width, width)
        self.channels, self.stride = width, stride // self.scales[0]
        self.radius = None

    def forward(self, levels: Sequence[FeatureMap], margin: int = 0) -> FeatureMap:
        last = levels[-1]
        maps = [lateral(level.values) for lateral, level in zip(self.laterals, levels, strict=True)]
        maps[-1] = self.context(torch.cat([maps[-1], *self._pooled(last)], dim=1))
        scaled: list[Tensor] = []
        for values, scale in zip(maps, self.scales, strict=True):
            scaled.append(_resized(values, (scale * values.shape[-2], scale * values.shape[-1])))
        for number in reversed(range(len(scaled) - 1)):
            scaled[number] = scaled[number] + _resized(scaled[number + 1], scaled[number].shape[-2:])
        size = scaled[0].shape[-2:]
        values = self.joint(torch.cat([_resized(each, size) for each in scaled], dim=1))
        known = levels[0].known.repeat_interleave(self.scales[0], 2).repeat_interleave(self.scales[0], 3)
        return FeatureMap(values * known, known, self.stride).cut(margin)

    def _pooled(self, level: FeatureMap) -> list[Tensor]:
        """Means over the known places of each cell of each pool."""
        size = level.values.shape[-2:]
        pooled = []
        for pool, cells in zip(self.pools, POOLS, strict=True):
            share = _means(level.known, cells).clamp_min(1e-6)
            pooled.append(_resized(pool(_means(level.values, cells) / share), size))
        return pooled


def _means(values: Tensor, cells: int) -> Tensor:
    """(B, C, cells, cells) means of the cells, which overlap where a side is no multiple of their number.

    Torch's own ``adaptive_avg_pool2d`` becomes a graph of one size of window alone when it is exported.
    """
    for axis in (2, 3):
        size = values.shape[axis]
        # Rounded down at the start and up at the end, so that no cell is empty.
        bounds = [(cell * size // cells, ((cell + 1) * size + cells - 1) // cells) for cell in range(cells)]
        parts = [values.narrow(axis, start, stop - start).mean(axis) for start, stop in bounds]
        values = torch.stack(parts, axis)
    return values


def _resized(values: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(values.shape[-2:]) == tuple(size):
        return values
    return functional.interpolate(values, size=tuple(size), mode="bilinear", align_corners=False)
