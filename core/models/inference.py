"""A network as it maps: what training needs and a map does not is folded away."""

from __future__ import annotations

import copy
import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from core.models.fusion.base import Joint
from core.models.fusion_model import FusionModel
from core.models.products import convolve, linear


def for_inference(model: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The same model for mapping: normalisations are folded into the convolutions before them, whose weights lie with the
    channels of a place side by side (Jacob et al. 2018, arXiv:1712.05877, section 3.2, without the quantisation).

    Scores differ in the last bits. The default network takes three quarters of the time, see ``scripts/benchmarks/mapping.py``.

    Args:
        model: in evaluation mode. It stays as it is; weights of convolutions are copied, and all others shared with it.
        dtype: that fusion and head of a ``FusionModel`` compute in.
    """
    folded = _folded(model)
    if dtype == torch.float32:
        return folded
    if not isinstance(folded, FusionModel):
        raise TypeError("Only networks compute in other numbers than float32.")
    twin = copy.copy(folded)
    twin.computing = dtype
    parts: tuple[nn.Module, ...] = (twin.fusion, twin.head)
    for part in parts:
        for module in part.modules():
            if isinstance(module, _Convolution | _Linear):
                # The twin's own: what was folded is shared with nobody.
                module._parameters = {
                    name: None if value is None else nn.Parameter(value.detach().to(dtype), requires_grad=False)
                    for name, value in module._parameters.items()
                }
    return twin


class _Convolution(nn.Conv2d):
    """A convolution whose answer is the same for any number of threads; see ``core.models.products``."""

    def forward(self, input: Tensor) -> Tensor:
        given, padding = input.to(self.weight.dtype), self.padding
        if isinstance(padding, str):
            return super().forward(given)
        if self.padding_mode != "zeros":
            given = functional.pad(given, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = (0, 0)
        return convolve(given, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class _Linear(nn.Linear):
    """A linear layer, likewise."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input.to(self.weight.dtype), self.weight, self.bias)


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
        is_own = False
        for name, child in children.items():
            # What a convolution or a normalisation puts out is nobody else's.
            if type(child) is nn.ReLU and is_own:
                children[name] = nn.ReLU(inplace=True)
            is_own |= isinstance(child, nn.Conv2d | nn.BatchNorm2d)
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
