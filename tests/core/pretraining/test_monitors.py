"""What is said of features: collapsed ones are known as such, and an ignored input, too."""

from __future__ import annotations

import math

import pytest
import torch

from core.models.registry import build_model
from core.pretraining.monitors import effective_rank, has_collapsed, look_at, spread_of
from tests.core.pretraining.models import small_model, small_specification, small_windows


def test_rank_and_spread_of_known_features():
    assert effective_rank(torch.ones(50, 8)) == pytest.approx(1.0)
    assert spread_of(torch.ones(50, 8)) == pytest.approx(0.0, abs=1e-6)
    drawn = torch.randn(4000, 8, generator=torch.Generator().manual_seed(0))
    assert effective_rank(drawn) == pytest.approx(8, rel=0.01)
    assert spread_of(drawn) == pytest.approx(1, rel=0.02)
    # Two directions of equal strength: the entropy of two halves is ln 2.
    two = torch.zeros(100, 8)
    two[::2, 0], two[1::2, 0] = 1, -1
    two[::4, 1], two[1::4, 1], two[2::4, 1], two[3::4, 1] = 1, 1, -1, -1
    assert effective_rank(two) == pytest.approx(math.exp(math.log(2)), rel=1e-6)
    assert effective_rank(torch.zeros(1, 8)) == 1.0


def test_a_constant_model_is_collapsed_and_a_fresh_one_is_not():
    wanted = small_specification("unet", "early")
    windows = small_windows(wanted, batch=4)
    model = small_model(wanted)
    health = look_at(model, windows)
    assert model.training
    assert not health.is_collapsed
    for parameter in model.fusion.parameters():
        torch.nn.init.zeros_(parameter)
    for name, parameter in model.fusion.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.ones_(parameter)
    assert look_at(model, windows).is_collapsed


def test_an_input_that_is_not_looked_at_counts_for_nothing():
    wanted = small_specification("unet", "intermediate")
    torch.manual_seed(0)
    model = build_model(wanted)
    name = wanted.modalities[1].name
    for parameter in model.stems[name].parameters():
        torch.nn.init.zeros_(parameter)
    windows = small_windows(wanted, batch=4)
    dependence = look_at(model, windows).dependence
    assert dependence[name] == pytest.approx(0, abs=1e-6)
    assert all(value > 1e-3 for other, value in dependence.items() if other != name)


def test_what_asymmetric_attention_gives_and_where_its_gates_stand():
    wanted = small_specification("unet", "asymmetric_attention")
    windows = small_windows(wanted, batch=4)
    model = small_model(wanted)
    fresh = look_at(model, windows).fusion
    auxiliaries = [entry.name for entry in wanted.modalities[1:]]
    # What is given starts at zero, and the gates start open.
    assert {name: value for name, value in fresh.items() if name.startswith("given")} == {
        f"given by {n}": 0 for n in auxiliaries
    }
    assert 0.5 < fresh["transfer gates"] < 0.9
    assert fresh["stuck gates"] == 0
    with torch.no_grad():
        for attentions in model.fusion.attentions:
            torch.nn.init.eye_(attentions[auxiliaries[0]].to_main.weight[:, :, 0, 0])
        for gate in model.fusion.gates:
            gate.second.bias.fill_(100.0)
    later = look_at(model, windows).fusion
    assert later[f"given by {auxiliaries[0]}"] > 0.01
    assert later["transfer gates"] == pytest.approx(1)
    assert later["stuck gates"] == 1
    # Nothing listens any longer, and other fusions have nothing of the kind.
    assert not any(module._forward_hooks for module in model.modules())
    assert look_at(small_model(small_specification("unet", "early")), small_windows(wanted, batch=4)).fusion == {}


def test_features_that_share_a_direction_or_vary_along_one_are_told_apart_from_collapsed_ones():
    """What contrast passes through on its way is not a point; one direction is not enough to learn from."""
    assert not has_collapsed(spread=0.03, rank=6.0)
    assert has_collapsed(spread=0.47, rank=1.2)
    assert has_collapsed(spread=0.005, rank=6.0)
