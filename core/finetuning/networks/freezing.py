"""Which part of a model is trained, and which stays as pre-training left it."""

from __future__ import annotations

from torch import nn

from core.finetuning.networks.settings import TrainedPart
from core.models.encoders.encoder import Encoder
from core.models.fusion_model import FusionModel


def freeze(model: nn.Module, trained: TrainedPart) -> list[nn.Module]:
    """Takes the gradient from what is not trained.

    Args:
        model: changed in place.
        trained: ``all``; ``last``: all but stems and what comes before the last stage of each encoder; ``head``: what
            follows the fusion: the decoder and the classes; ``adapters``: as ``head``, what they change being frozen.

    Returns:
        The modules that have to stay in evaluation mode, so that their running statistics stay what they are, too.

    Raises:
        TypeError: a part of a model that has no parts.
    """
    if trained == "all":
        return []
    if not isinstance(model, FusionModel):
        raise TypeError("only a model of parts can be trained in parts")
    frozen: list[nn.Module] = [model.stems, model.date_poolings, model.circumstances]
    frozen += [module for module in (model.generator, model.geography) if module is not None]
    if trained in ("head", "adapters"):
        frozen.append(model.fusion)
    else:
        for module in model.fusion.modules():
            if isinstance(module, Encoder):
                frozen += module.early_parts()
                for parameter in module.parameters(recurse=False):
                    parameter.requires_grad_(False)
    for module in frozen:
        module.requires_grad_(False)
    return frozen
