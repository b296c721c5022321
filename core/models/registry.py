"""Models from their specification, and what they ask of windows and memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from core.models.estimator_model import EstimatorModel
from core.models.fusion_model import FusionModel
from core.models.scene_model import SceneModel
from core.models.specification import ModelSpecification
from core.models.vote_model import VoteModel


def build_model(specification: ModelSpecification) -> FusionModel:
    """A freshly initialised network; the caller seeds torch's generator. See ``FusionModel.forward``."""
    return FusionModel(specification)


def any_model(specification: ModelSpecification) -> FusionModel | EstimatorModel | VoteModel | SceneModel:
    """As ``build_model``, for specifications with an estimator, too: that is empty until it is fitted or loaded."""
    if specification.estimator is None:
        return FusionModel(specification)
    if specification.head == "scene":
        return SceneModel(specification)
    return VoteModel(specification) if specification.estimator.kind == "vote" else EstimatorModel(specification)


def for_inputs(model: nn.Module, specification: ModelSpecification) -> nn.Module:
    """A model with generated kernels for other sensors than its own, in evaluation mode: the same weights."""
    with torch.random.fork_rng():
        other = any_model(specification)
    other.load_state_dict(model.state_dict())
    return other.eval()


def model_step(specification: ModelSpecification) -> int:
    """Tiles have sides that are multiples of this many reference pixels."""
    return _window_needs(specification)[0]


def receptive_radius(specification: ModelSpecification) -> int | None:
    """Reference pixels around a pixel beyond which nothing can change its scores, an upper bound; None where the whole
    window does: models with attention among all places, or with means over the window."""
    return _window_needs(specification)[1]


@lru_cache(maxsize=64)
def _window_needs(specification: ModelSpecification) -> tuple[int, int | None]:
    # Shapes alone are asked for: no memory is taken, and no random number drawn.
    with torch.device("meta"), _Unwritten():
        model = any_model(specification)
    return model.step, model.radius


class _Unwritten(TorchFunctionMode):
    """Leaves tensors without values as they are: to write to one of the meta device, torch loads its compiler, which takes a
    second and 70 MiB."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        name = getattr(function, "__name__", "")
        if name.endswith("_") and not name.endswith("__"):
            return args[0] if args else named["tensor"]
        return function(*args, **named)


def count_parameters(model: nn.Module) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
