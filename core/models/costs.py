"""What a forward pass takes: operations and memory, measured on a small window."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count, sdpa_flop_count

from core.models.inference import for_inference
from core.models.products import has_sums
from core.models.registry import any_model, count_parameters, model_step
from core.models.specification import ModelSpecification

SIDE = 64
"""Side in reference pixels of the window that is measured, at least."""

SCRATCH = 1.4
"""Memory that a process keeps lies in pieces, and convolutions reorder what they are given; so much more than the tensors
alone was seen at most."""

GAPPED_SCRATCH = 1.15
"""The same where inputs have gaps: what they take beyond what is whole is small pieces that come and go."""


@dataclass(frozen=True)
class ForwardCost:
    """Of one model.

    Attributes:
        parameters: trainable values.
        flops_per_pixel: floating-point operations a reference pixel in convolutions, matrix products and attention, a
            multiplication and an addition counting as two.
        bytes_per_pixel: above weights and input, at the peak, on the processor.
    """

    parameters: int
    flops_per_pixel: float
    bytes_per_pixel: float


@lru_cache(maxsize=256)
def forward_cost(specification: ModelSpecification, dtype: torch.dtype = torch.float32) -> ForwardCost:
    """Builds the model as it maps, see ``core.models.inference``, and runs it on a small window.

    Args:
        specification: of the model.
        dtype: that a network computes in.
    """
    probe, flops = _probe(specification, dtype), operations_counter()
    with torch.no_grad(), flops:
        probe.model(probe.values, **probe.after)
    return ForwardCost(probe.parameters, flops.get_total_flops() / probe.pixels, _bytes_per_pixel(specification, dtype))


def forward_bytes(specification: ModelSpecification, height: int, width: int, dtype: torch.dtype = torch.float32) -> int:
    """Bytes that one forward pass takes above the weights, for one window of reference pixels; an upper bound."""
    return int(_bytes_per_pixel(specification, dtype) * height * width)


@lru_cache(maxsize=256)
def _bytes_per_pixel(specification: ModelSpecification, dtype: torch.dtype) -> float:
    """See ``ForwardCost``. Asked for on its own: to count operations, torch loads its compiler, a second and 70 MiB."""
    probe, memory, gapped = _probe(specification, dtype), _LiveBytes(), _LiveBytes()
    with torch.no_grad(), memory:
        probe.model(probe.values, **probe.after)
    if specification.has_shortcut and len(probe.values) > 1:
        # Where inputs have gaps, most of the linear models are asked.
        with torch.no_grad(), gapped:
            probe.model(_every_subset(probe.values))
    return max(SCRATCH * memory.peak, GAPPED_SCRATCH * gapped.peak) / probe.pixels


@dataclass(frozen=True, eq=False)
class _Probe:
    """A model as it maps, and what it is asked about.

    Attributes:
        model: in evaluation mode.
        parameters: trainable values.
        values: by input (1, bands, h, w), zeros.
        after: the same for models of change, under the name of their argument.
        pixels: of the window.
    """

    model: nn.Module
    parameters: int
    values: dict[str, Tensor]
    after: dict[str, dict[str, Tensor]]
    pixels: int


def _probe(specification: ModelSpecification, dtype: torch.dtype) -> _Probe:
    with torch.random.fork_rng():
        model = any_model(specification).eval()
    step = model_step(specification)
    side = -(-SIDE // step) * step
    values = {}
    for entry in specification.modalities:
        own = side * entry.finer // entry.coarser
        values[entry.name] = torch.zeros(1, len(entry.bands), own, own)
    after = {"after": values} if specification.head == "change" else {}
    parameters = count_parameters(model)
    model.requires_grad_(False)
    return _Probe(for_inference(model, dtype), parameters, values, after, side * side)


def _every_subset(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Values of which every set of inputs is there somewhere: the window is cut into as many stripes."""
    gapped = {}
    for bit, (name, given) in enumerate(values.items()):
        stripes = 2 ** len(values) * torch.arange(given.shape[-1]) // given.shape[-1]
        gapped[name] = given.masked_fill(stripes >> bit & 1 == 0, torch.nan)
    return gapped


def operations_counter() -> FlopCounterMode:
    """Counts the floating-point operations of what runs within it, those of oneDNN, too."""
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    counted = {attention: _attention_flops, torch.ops.aten.mkldnn_convolution: _convolution_flops}
    if has_sums():
        counted[torch.ops.mkldnn._convolution_pointwise_] = _added_flops
    return FlopCounterMode(display=False, custom_mapping=counted)


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Of the processor's own kernel of attention, which torch 2.13 counts as nothing."""
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


def _convolution_flops(values: Any, weight: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    """Of oneDNN's convolutions, where they are asked for by name; see ``core.models.products``."""
    return int(conv_flop_count(values, weight, out_shape))


def _added_flops(total: Any, values: Any, weight: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    """Of a convolution that is added to what is there; see ``core.models.products.convolve_onto``."""
    return int(conv_flop_count(values, weight, out_shape))


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The most bytes that tensors made inside were alive with at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._now = 0
        self._users: dict[int, int] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing that is measured here is compiled, and asking the compiler to leave it alone loads it."""
        return False

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._add(leaf)
        return result

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        if key not in self._users:
            self._users[key] = 0
            self._now += size
            self.peak = max(self.peak, self._now)
        self._users[key] += 1
        weakref.finalize(tensor, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key]
            self._now -= size
