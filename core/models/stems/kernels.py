"""The learned part of a stem: one kernel for each band and view."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.models.products import convolve


@dataclass(frozen=True)
class StemGeometry:
    """What an encoder wants of the stems before it.

    Attributes:
        channels: that a stem puts out.
        kernel: side in reference pixels.
        stride: reference pixels from one output to the next.
        padding_mode: what lies beyond the border.
    """

    channels: int
    kernel: int
    stride: int
    padding_mode: Literal["zeros", "replicate"] = "zeros"

    @property
    def is_patch(self) -> bool:
        """Whether kernels tile the ground without overlap, as a transformer's do."""
        return self.kernel == self.stride and self.kernel > 1


class BandKernels(nn.Module):
    """A kernel for every band and view of one sensor.

    Args:
        channels: put out.
        n_views, n_bands: how many kernels.
        kernel: side of each.
    """

    def __init__(self, channels: int, n_views: int, n_bands: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, n_views, n_bands, kernel, kernel))
        nn.init.normal_(self.weight, std=1 / math.sqrt(n_views * n_bands * kernel * kernel))

    def forward(self, index: Sequence[int]) -> Tensor:
        """(channels, views * len(index), kernel, kernel), the bands of the first view first."""
        chosen = self.weight if len(index) == self.weight.shape[2] else self.weight[:, :, list(index)]
        return torch.as_tensor(chosen.flatten(1, 2))


def resample_kernel(weight: Tensor, size: int) -> Tensor:
    """A patch kernel for patches of another size that answers a resized patch as the old one answers the patch.

    The pseudo-inverse resize of FlexiViT (Beyer et al. 2023, arXiv:2212.08013, equation 4): with B the matrix that
    resizes a patch bilinearly, the new kernel is the pseudo-inverse of B's transpose times the old one.

    Args:
        weight: (..., p, p).
        size: side of the new kernel.

    Returns:
        (..., size, size).
    """
    side = weight.shape[-1]
    if side == size:
        return weight
    unit = torch.eye(side * side, dtype=torch.float64).view(side * side, 1, side, side)
    resized = functional.interpolate(unit, size=(size, size), mode="bilinear", antialias=size < side)
    matrix = resized.reshape(side * side, size * size)
    inverse = torch.linalg.pinv(matrix).to(weight.dtype).to(weight.device)
    return torch.as_tensor((weight.flatten(-2) @ inverse.T).reshape(*weight.shape[:-2], size, size))


def apply_kernel(values: Tensor, weight: Tensor, stride: int, padding_mode: str = "zeros") -> Tensor:
    """Convolution whose output has a pixel for each ``stride`` of the input, whatever the kernel's side.

    Args:
        values: (B, C, h, w) with sides of a multiple of ``stride``.
        weight: (D, C, k, k).
        stride: step.
        padding_mode: ``zeros`` or ``replicate``.
    """
    kernel = weight.shape[-1]
    # As torch pads a strided convolution: half the kernel on the left, and what is needed on the right.
    left = kernel // 2 if kernel > stride else 0
    right = max(0, kernel - stride - left)
    if left or right:
        mode = "constant" if padding_mode == "zeros" else padding_mode
        values = functional.pad(values, (left, right, left, right), mode=mode)
    return convolve(values, weight, stride=(stride, stride))
