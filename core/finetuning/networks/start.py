"""The model that training starts from."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from core.labels.scheme import ClassScheme
from core.models.fusion_model import FusionModel
from core.models.model_file import ModelCard
from core.models.registry import build_model
from core.models.specification import ModelSpecification

HEAD = "head.classifier."
"""Prefix of the weights that belong to the classes and not to the sensors."""

LINEAR = "linear."
"""Prefix of the linear models beside the network."""


def start_model(
    specification: ModelSpecification, seed: int, base: tuple[nn.Module, ModelCard] | None, scheme: ClassScheme
) -> FusionModel:
    """A model made from a seed, or with the weights of a base model.

    The base model's head is kept where its classes are the same, by name and order; otherwise it is made anew.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_model(specification)
    if base is not None:
        weights = base[0].state_dict()
        if not keeps_classes(base, scheme):
            weights = without_classes(weights)
        model.load_state_dict(weights, strict=False)
    return model


def keeps_classes(base: tuple[nn.Module, ModelCard] | None, scheme: ClassScheme) -> bool:
    """Whether a base model's classes are those wanted, by name and order."""
    return base is not None and base[1].scheme.names == scheme.names


def without_classes(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights that mean something for other classes, too: not the last layer's, nor the linear models'."""
    return {name: value for name, value in weights.items() if not name.startswith((HEAD, LINEAR))}
