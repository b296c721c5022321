"""Kernels for patches of another size, and strides that leave no pixel out."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from core.models.stems.kernels import BandKernels, apply_kernel, resample_kernel

SIZES = [(4, 8), (4, 6), (2, 16), (4, 2), (8, 4), (16, 8), (4, 3), (4, 1)]


def drawn(side: int) -> torch.Tensor:
    return torch.randn(3, 2, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(side))


def test_the_same_size_is_the_same_kernel() -> None:
    weight = drawn(4)
    assert resample_kernel(weight, 4) is weight


@pytest.mark.parametrize(("side", "size"), [pair for pair in SIZES if pair[0] < pair[1]])
def test_a_larger_kernel_answers_an_enlarged_patch_as_the_old_one_the_patch(side: int, size: int) -> None:
    weight, patches = drawn(side), torch.randn(50, 2, side, side, dtype=torch.float64)
    larger = functional.interpolate(patches, size=(size, size), mode="bilinear")
    expected = functional.conv2d(patches, weight)
    torch.testing.assert_close(functional.conv2d(larger, resample_kernel(weight, size)), expected, rtol=0, atol=1e-9)
    # A patch without any structure among them: what a kernel sums to stays.
    torch.testing.assert_close(resample_kernel(weight, size).sum((2, 3)), weight.sum((2, 3)), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("side", "size"), [pair for pair in SIZES if pair[0] > pair[1]])
def test_no_smaller_kernel_answers_reduced_patches_better(side: int, size: int) -> None:
    weight = drawn(side)
    unit = torch.eye(side * side, dtype=torch.float64).view(-1, 1, side, side)
    reduced = functional.interpolate(unit, size=(size, size), mode="bilinear", antialias=True)

    def error(kernel: torch.Tensor) -> float:
        answers = torch.einsum("nij,dcij->ndc", reduced[:, 0], kernel)
        return float((answers - torch.einsum("nij,dcij->ndc", unit[:, 0], weight)).square().sum())

    best = resample_kernel(weight, size)
    least = error(best)
    for seed in range(5):
        step = 1e-3 * torch.randn(best.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        assert error(best + step) > least


@pytest.mark.parametrize(("side", "size"), SIZES)
def test_a_kernel_that_takes_the_mean_still_nearly_does(side: int, size: int) -> None:
    mean = torch.full((1, 1, side, side), 1 / side**2, dtype=torch.float64)
    found = float(resample_kernel(mean, size).sum())
    assert abs(found - 1) < (1e-9 if size > side else 0.06)


def test_a_smaller_kernel_of_a_larger_one_answers_smooth_patches_alike() -> None:
    slope = torch.linspace(-1, 1, 8, dtype=torch.float64)
    weight = (slope[:, None] + 0.5 * slope[None])[None, None] / 64
    back = resample_kernel(resample_kernel(weight, 16), 8)
    patch = (slope[:, None] - 0.3 * slope[None] + 0.2)[None, None]
    old, new = ((patch * each).sum() for each in (weight, back))
    assert abs(float(new - old)) < 0.1 * abs(float(old))


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (7, 1), (7, 2), (3, 2), (4, 4), (3, 3), (3, 5), (1, 2)])
@pytest.mark.parametrize("mode", ["zeros", "replicate"])
def test_each_stride_has_an_output(kernel: int, stride: int, mode: str) -> None:
    values = torch.randn(2, 3, 6 * stride, 4 * stride)
    assert apply_kernel(values, torch.randn(5, 3, kernel, kernel), stride, mode).shape == (2, 5, 6, 4)


@pytest.mark.parametrize(("kernel", "stride"), [(7, 2), (3, 1), (7, 1), (3, 2)])
def test_padding_is_that_of_torch(kernel: int, stride: int) -> None:
    values, weight = torch.randn(1, 2, 12, 8), torch.randn(4, 2, kernel, kernel)
    expected = functional.conv2d(values, weight, stride=stride, padding=kernel // 2)
    torch.testing.assert_close(apply_kernel(values, weight, stride), expected)


def test_kernels_of_some_bands_are_cut_from_those_of_all() -> None:
    kernels = BandKernels(4, 3, 5, 3)
    everything = kernels(range(5)).unflatten(1, (3, 5))
    part = kernels([1, 4]).unflatten(1, (3, 2))
    assert torch.equal(part, everything[:, :, [1, 4]])
