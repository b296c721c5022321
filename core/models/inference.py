"""A network as it maps: what training needs and a map does not is folded away."""

from __future__ import annotations

import copy
import itertools

import torch
from torch import nn
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


def _folded(module: nn.Module) -> nn.Module:
    if type(module) is nn.Conv2d:
        weight = module.weight.detach().contiguous(memory_format=torch.channels_last)
        return _twin(module, _parameters=dict(module._parameters) | {"weight": nn.Parameter(weight, requires_grad=False)})
    children = {name: None if child is None else _folded(child) for name, child in module._modules.items()}
    if isinstance(module, nn.Sequential):
        for first, second in itertools.pairwise(list(children)):
            _fold(children, first, second)
    elif isinstance(module, Joint):
        _fold(children, "convolution", "norm")
    is_same = all(child is module._modules[name] for name, child in children.items())
    return module if is_same else _twin(module, _modules=children)


def _twin(module: nn.Module, **changed: object) -> nn.Module:
    """A module that shares all but what is changed."""
    twin = copy.copy(module)
    twin.__dict__ = dict(module.__dict__) | changed
    return twin


def _fold(children: dict[str, nn.Module | None], first: str, second: str) -> None:
    """Puts a convolution and the normalisation behind it into one; other modules stay."""
    convolution, norm = children[first], children[second]
    if type(convolution) is nn.Conv2d and type(norm) is nn.BatchNorm2d and not (norm.training or convolution.training):
        children[first] = fuse_conv_bn_eval(convolution, norm)
        children[second] = nn.Identity()
