"""A network as it maps: what training needs and a map does not is folded away."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from core.models.fusion.base import Joint


def for_inference(model: nn.Module) -> nn.Module:
    """The same model for mapping: normalisations are folded into the convolutions before them, whose weights lie with the
    channels of a place side by side (Jacob et al. 2018, arXiv:1712.05877, section 3.2, without the quantisation).

    Scores differ in the last bits. The default network takes three quarters of the time, see ``scripts/benchmarks/mapping.py``.

    Args:
        model: in evaluation mode. It stays as it is; weights of convolutions are copied, and all others shared with it.
    """
    return _folded(model)


_FEW_PLACES = 1024
"""Of so few places threads share the sums over channels, and not the places: there one thread computes."""


@contextmanager
def _threads_of(values: Tensor, n_places: int) -> Iterator[None]:
    """One thread on the processor where there are few places."""
    threads = torch.get_num_threads()
    if n_places > _FEW_PLACES or values.device.type != "cpu" or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Convolution(nn.Conv2d):
    """A convolution that has the channels of a place side by side: its answer is the same for any number of threads."""

    def forward(self, input: Tensor) -> Tensor:
        input = input.contiguous(memory_format=torch.channels_last)
        with _threads_of(input, input.shape[-1] * input.shape[-2]):
            return super().forward(input)


class _Linear(nn.Linear):
    """A linear layer whose answer is the same for any number of threads."""

    def forward(self, input: Tensor) -> Tensor:
        with _threads_of(input, input.numel() // input.shape[-1]):
            return super().forward(input)


class _GroupNorm(nn.GroupNorm):
    """A normalisation that has the places of a channel side by side, for the same reason."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.contiguous())


_KINDS: dict[type[nn.Module], type[nn.Module]] = {nn.GroupNorm: _GroupNorm, nn.Linear: _Linear}


def _folded(module: nn.Module) -> nn.Module:
    if type(module) is nn.Conv2d:
        weight = module.weight.detach().contiguous(memory_format=torch.channels_last)
        return _twin(
            module, _Convolution, _parameters=dict(module._parameters) | {"weight": nn.Parameter(weight, requires_grad=False)}
        )
    if type(module) in _KINDS:
        return _twin(module, _KINDS[type(module)])
    children = {name: None if child is None else _folded(child) for name, child in module._modules.items()}
    if isinstance(module, nn.Sequential):
        for first, second in itertools.pairwise(list(children)):
            _fold(children, first, second)
    elif isinstance(module, Joint):
        _fold(children, "convolution", "norm")
    is_same = all(child is module._modules[name] for name, child in children.items())
    return module if is_same else _twin(module, _modules=children)


def _twin(module: nn.Module, kind: type[nn.Module] | None = None, **changed: object) -> nn.Module:
    """A module that shares all but what is changed, and is of another kind where one is given."""
    twin = copy.copy(module)
    twin.__dict__ = dict(module.__dict__) | changed
    if kind is not None:
        twin.__class__ = kind
    return twin


def _fold(children: dict[str, nn.Module | None], first: str, second: str) -> None:
    """Puts a convolution and the normalisation behind it into one; other modules stay."""
    convolution, norm = children[first], children[second]
    if isinstance(convolution, nn.Conv2d) and type(norm) is nn.BatchNorm2d and not (norm.training or convolution.training):
        children[first] = fuse_conv_bn_eval(convolution, norm)
        children[second] = nn.Identity()
