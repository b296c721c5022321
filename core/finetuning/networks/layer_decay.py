"""Learning rates that fall from the head down: what pre-training taught first is moved least.

The rate of a part is that of the head times decay^d, d counting the parts between (Clark et al. 2020, ELECTRA,
arXiv:2003.10555; Bao et al. 2022, BEiT, arXiv:2106.08254): 0 for decoder and classes, 1 for the fusion, 2 for the
encoders' last block, and so on down to what comes before the first. What counts as a part outside a transformer's blocks is
ours: a stage of a convolutional encoder, and all of a fusion but what comes before its encoders.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from core.finetuning.networks.settings import TrainingSettings
from core.models.encoders.encoder import Encoder
from core.models.fusion_model import FusionModel


def distances_from_head(model: FusionModel) -> dict[nn.Parameter, int]:
    """How many parts lie between each parameter and the head, d."""
    encoders = [module for module in model.fusion.modules() if isinstance(module, Encoder)]
    blocks = [encoder.blocks_in_order() for encoder in encoders]
    entrance = 2 + max(len(each) for each in blocks)
    parts: list[tuple[nn.Module, int]] = [(model, entrance), (model.fusion, 1)]
    parts += [(module, entrance) for module in (*model.fusion.before_encoders(), *encoders)]
    for each in blocks:
        parts += [(module, 2 + number) for number, block in enumerate(reversed(each)) for module in block]
    # From the outside in: a later entry of the list stands inside one before.
    return {parameter: d for module, d in [*parts, (model.head, 0)] for parameter in module.parameters()}


def parameter_groups(model: nn.Module, settings: TrainingSettings) -> list[dict[str, Any]]:
    """What is trained, for an optimizer: by distance from the head where the rate decays, and by whether weights do.

    Raises:
        TypeError: the rate should decay in a model that has no parts.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    distances: dict[nn.Parameter, int] = {}
    if settings.layer_decay != 1:
        if not isinstance(model, FusionModel):
            raise TypeError("the rate can decay only from part to part of a model of parts")
        distances = distances_from_head(model)
    groups = []
    for distance in sorted({distances.get(parameter, 0) for parameter in trained}):
        own = [parameter for parameter in trained if distances.get(parameter, 0) == distance]
        rate = settings.learning_rate * settings.layer_decay**distance
        # Biases and normalisation weights are not decayed: they set levels and do not overfit.
        decayed, others = [p for p in own if p.ndim > 1], [p for p in own if p.ndim <= 1]
        groups.append({"params": decayed, "lr": rate, "weight_decay": settings.weight_decay})
        groups.append({"params": others, "lr": rate, "weight_decay": 0.0})
    return groups
