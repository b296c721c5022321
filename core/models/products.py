"""Convolutions and linear layers whose answer is the same, bit for bit, on any number of threads.

torch chooses the library of a convolution by the number of threads, and libraries add up in different orders. Without
gradients on the processor all of it therefore goes to oneDNN, with the channels of a place side by side, which is also the
fastest way: a 1 x 1 convolution takes a third of the time that torch's own choice takes on one thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

_FEW_PLACES = 1024
"""Of so few places threads share the sums over channels, and not the places: there one thread computes."""


def convolve(
    values: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """As ``torch.nn.functional.conv2d``."""
    if not is_plain(values) or not values.numel():
        return functional.conv2d(values, weight, bias, tuple(stride), tuple(padding), tuple(dilation), groups)
    values = values.contiguous(memory_format=torch.channels_last)
    with _threads_of(values.shape[-1] * values.shape[-2]):
        return torch.mkldnn_convolution(values, weight, bias, padding, stride, dilation, groups)


def convolve_onto(total: Tensor, values: Tensor, weight: Tensor) -> Tensor:
    """A 1 x 1 convolution added to what is there already, in its memory where nobody asks for gradients.

    Args:
        total: (B, D, H, W), what a convolution put out.
        values: (B, C, H, W).
        weight: (D, C, 1, 1).
    """
    if not is_plain(values) or not values.numel() or not has_sums():
        return total + convolve(values, weight)
    values = values.contiguous(memory_format=torch.channels_last)
    nothing = ([0, 0], [1, 1], [1, 1], 1)
    with _threads_of(values.shape[-1] * values.shape[-2]):
        added: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(
            total, values, weight, None, *nothing, "add", 1.0, None, [], None
        )
    return added


def linear(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As ``torch.nn.functional.linear``: a convolution of pixels that stand in a column."""
    if not is_plain(values) or not values.numel():
        return functional.linear(values, weight, bias)
    rows = values.reshape(1, -1, 1, values.shape[-1]).permute(0, 3, 1, 2)
    answer = convolve(rows, weight[:, :, None, None], bias)
    return answer.permute(0, 2, 3, 1).reshape(*values.shape[:-1], len(weight))


def is_plain(values: Tensor) -> bool:
    """Whether values are on the processor, and nobody asks for gradients or records what is done."""
    return (
        values.device.type == "cpu"
        and (values.dtype == torch.float32 or (values.dtype == torch.bfloat16 and takes_bfloat16()))
        and has_onednn()
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_exporting()
    )


@cache
def has_onednn() -> bool:
    """Whether torch was built with oneDNN."""
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


@cache
def has_sums() -> bool:
    """Whether this torch lets oneDNN add a convolution to what is there."""
    return hasattr(torch.ops.mkldnn, "_convolution_pointwise_")


@cache
def takes_bfloat16() -> bool:
    """Whether oneDNN convolves numbers of 16 bits on this processor; torch does it by itself elsewhere, and slowly."""
    return has_onednn() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@contextmanager
def _threads_of(places: int) -> Iterator[None]:
    """One thread where there are few places."""
    threads = torch.get_num_threads()
    if places > _FEW_PLACES or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
