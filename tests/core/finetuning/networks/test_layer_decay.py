"""Learning rates from the head to the stems: every parameter has one, and none rises on the way down."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from core.finetuning.networks.freezing import freeze
from core.finetuning.networks.layer_decay import distances_from_head, parameter_groups
from core.finetuning.networks.settings import TrainingSettings
from core.models.registry import build_model
from core.models.specification import EncoderName, FusionName
from tests.core.models.specifications import ENCODERS, FUSIONS
from tests.core.pretraining.models import small_specification

SETTINGS = TrainingSettings(learning_rate=0.5, layer_decay=0.5, weight_decay=0.1)


@pytest.mark.parametrize(("encoder", "fusion"), list(itertools.product(ENCODERS, FUSIONS)))
def test_each_parameter_is_in_one_group_with_the_rate_of_its_distance(encoder: EncoderName, fusion: FusionName) -> None:
    with torch.device("meta"):
        model = build_model(small_specification(encoder, fusion))
    groups = parameter_groups(model, SETTINGS)
    listed = [parameter for group in groups for parameter in group["params"]]
    assert len(listed) == len(set(listed)) == len(list(model.parameters()))
    rate = {parameter: group["lr"] for group in groups for parameter in group["params"]}
    decay = {parameter: group["weight_decay"] for group in groups for parameter in group["params"]}
    distances = distances_from_head(model)
    assert all(rate[parameter] == 0.5 * 0.5 ** distances[parameter] for parameter in listed)
    assert all(decay[parameter] == (0.1 if parameter.ndim > 1 else 0) for parameter in listed)
    # No distance is left out, and the ends are where they should be.
    assert sorted(set(distances.values())) in (
        list(range(max(distances.values()) + 1)),
        # Early fusion has no parts of its own.
        [0, *range(2, max(distances.values()) + 1)],
    )
    assert {distances[parameter] for parameter in model.head.parameters()} == {0}
    assert {distances[parameter] for parameter in model.stems.parameters()} == {max(distances.values())}


@pytest.mark.parametrize(
    ("encoder", "ordered"),
    [
        ("unet", ["stems.", "encoders.optical.stages.0.", "encoders.optical.stages.1.", "joints.", "head."]),
        ("resnet", ["encoders.optical.bn1.", "encoders.optical.stages.1.", "encoders.optical.stages.4.", "joints.", "head."]),
        ("resunet", ["stems.", "encoders.optical.stages.1.", "encoders.optical.stages.3.", "joints.", "head."]),
        ("vit", ["encoders.optical.cls_token", "blocks.0.", "blocks.1.", "blocks.10.", "blocks.11.", "joints.", "head."]),
    ],
)
def test_distances_fall_in_the_order_that_a_window_takes(encoder: EncoderName, ordered: list[str]) -> None:
    model = build_model(small_specification(encoder, "intermediate"))
    distances = distances_from_head(model)
    named = dict(model.named_parameters())
    seen = [{distances[parameter] for name, parameter in named.items() if part in name} for part in ordered]
    assert all(len(each) == 1 for each in seen)
    values = [each.pop() for each in seen]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == len(values)


def test_what_joint_tokens_pass_first_moves_least() -> None:
    model = build_model(small_specification("vit", "cross_attention"))
    distances = distances_from_head(model)
    first = [*model.fusion.modality_codes.parameters(), *model.fusion.cross_attention.parameters()]
    assert {distances[parameter] for parameter in first} == {max(distances.values())} == {14}


def test_without_decay_there_are_the_two_groups_of_one_rate() -> None:
    model = build_model(small_specification("unet", "early"))
    freeze(model, "last")
    groups = parameter_groups(model, replace(SETTINGS, layer_decay=1.0))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert [group["lr"] for group in groups] == [0.5, 0.5]
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert [id(p) for p in groups[0]["params"]] == [id(p) for p in trained if p.ndim > 1]
    assert [id(p) for p in groups[1]["params"]] == [id(p) for p in trained if p.ndim <= 1]
    assert len(parameter_groups(nn.Linear(2, 2), replace(SETTINGS, layer_decay=1.0))) == 2
    with pytest.raises(TypeError, match="model of parts"):
        parameter_groups(nn.Linear(2, 2), SETTINGS)
