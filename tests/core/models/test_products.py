"""Convolutions and linear layers that do not depend on the number of threads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from core.models.products import convolve, convolve_onto, linear

THREADS = (1, 2, 3, 5)


@pytest.fixture
def restored_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def answers(compute) -> list[Tensor]:
    found = []
    for count in THREADS:
        torch.set_num_threads(count)
        with torch.inference_mode():
            found.append(compute())
    return found


@pytest.mark.usefixtures("restored_threads")
@pytest.mark.parametrize(("given", "put_out", "side"), [(84, 24, 130), (4, 8, 96), (12, 4, 64), (288, 96, 40), (3, 5, 17)])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("has_bias", [False, True])
def test_a_convolution_is_that_of_torch_on_any_number_of_threads(given, put_out, side, kernel, has_bias):
    generator = torch.Generator().manual_seed(given + kernel)
    values = torch.randn(1, given, side, side, generator=generator)
    weight = torch.randn(put_out, given, kernel, kernel, generator=generator) / given
    bias = torch.randn(put_out, generator=generator) if has_bias else None
    padding = (kernel // 2, kernel // 2)
    found = answers(lambda: convolve(values, weight, bias, padding=padding))
    assert all(torch.equal(found[0], each) for each in found[1:])
    torch.testing.assert_close(found[0], functional.conv2d(values, weight, bias, padding=padding), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("restored_threads")
@pytest.mark.parametrize("shape", [(7,), (5, 33), (2, 9, 33), (1, 3000, 33)])
def test_a_linear_layer_is_that_of_torch_on_any_number_of_threads(shape):
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    weight, bias = torch.randn(11, shape[-1]), torch.randn(11)
    found = answers(lambda: linear(values, weight, bias))
    assert all(torch.equal(found[0], each) for each in found[1:])
    torch.testing.assert_close(found[0], functional.linear(values, weight, bias), rtol=1e-4, atol=1e-5)


def test_gradients_pass():
    values, weight = torch.randn(1, 3, 8, 8), torch.randn(4, 3, 1, 1, requires_grad=True)
    convolve(values, weight).sum().backward()
    assert weight.grad is not None
    rows = torch.randn(5, 3, requires_grad=True)
    linear(rows, torch.randn(4, 3)).sum().backward()
    assert rows.grad is not None


def test_nothing_comes_of_nothing():
    with torch.inference_mode():
        assert convolve(torch.zeros(0, 3, 4, 4), torch.zeros(2, 3, 1, 1)).shape == (0, 2, 4, 4)
        assert linear(torch.zeros(0, 3), torch.zeros(2, 3)).shape == (0, 2)


@pytest.mark.usefixtures("restored_threads")
@pytest.mark.parametrize(("given", "put_out", "side"), [(12, 26, 130), (24, 26, 64), (2, 26, 65), (16, 16, 20), (3, 5, 17)])
def test_a_sum_is_that_of_two_convolutions_on_any_number_of_threads(given, put_out, side):
    generator = torch.Generator().manual_seed(given)
    one, other = (torch.randn(2, given, side, side, generator=generator) for _ in range(2))
    weight = torch.randn(put_out, given, 1, 1, generator=generator) / given
    found = answers(lambda: convolve_onto(convolve(one, weight), other, weight))
    assert all(torch.equal(found[0], each) for each in found[1:])
    expected = functional.conv2d(one, weight) + functional.conv2d(other, weight)
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-5)


def test_a_sum_leaves_what_gradients_are_asked_of():
    total, values, weight = torch.randn(1, 4, 9, 9), torch.randn(1, 3, 9, 9), torch.randn(4, 3, 1, 1, requires_grad=True)
    before = total.clone()
    convolve_onto(total, values, weight).sum().backward()
    assert torch.equal(total, before)
    assert weight.grad is not None


@pytest.mark.usefixtures("restored_threads")
@pytest.mark.parametrize("window", [5, 9, 17])
def test_sums_along_a_line_are_the_same_on_any_number_of_threads(window):
    values = torch.randn(1, 12, 70, 90, generator=torch.Generator().manual_seed(0))
    ones = torch.ones(12, 1, 1, window)
    found = answers(lambda: convolve(values, ones, padding=(0, window // 2), groups=12))
    assert all(torch.equal(found[0], each) for each in found[1:])
    torch.testing.assert_close(found[0], functional.conv2d(values, ones, padding=(0, window // 2), groups=12))
