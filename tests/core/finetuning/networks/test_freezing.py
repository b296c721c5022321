"""Parts of a model that stay as they were, to the bit, running statistics included."""

from __future__ import annotations

import pytest
import torch

from core.finetuning.networks.freezing import freeze
from core.models.encoders.encoder import Encoder
from core.models.registry import build_model
from core.models.specification import EncoderName, FusionName
from tests.core.pretraining.models import small_specification, small_windows


def moved_by_training(encoder: EncoderName, fusion: FusionName, trained: str) -> set[str]:
    """Names of the values that three steps change."""
    wanted = small_specification(encoder, fusion)
    torch.manual_seed(0)
    model = build_model(wanted)
    frozen = freeze(model, trained)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for number in range(3):
        model.train()
        for module in frozen:
            module.eval()
        scores = model(small_windows(wanted, seed=number).values)
        torch.nn.functional.cross_entropy(scores, torch.randint(5, scores[:, 0].shape)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("encoder", ["unet", "resnet", "vit"])
def test_only_the_head_moves(encoder):
    moved = moved_by_training(encoder, "intermediate", "head")
    assert moved
    assert all(name.startswith("head.") for name in moved)


@pytest.mark.parametrize("encoder", ["unet", "resnet", "resunet", "vit"])
def test_only_the_last_stage_and_what_follows_moves(encoder):
    moved = moved_by_training(encoder, "early", "last")
    wanted = small_specification(encoder, "early")
    model = build_model(wanted)
    inner = next(module for module in model.fusion.modules() if isinstance(module, Encoder))
    early = {id(p) for part in inner.early_parts() for p in part.parameters()} | {
        id(p) for p in inner.parameters(recurse=False)
    }
    names = {name for name, parameter in model.named_parameters() if id(parameter) in early}
    names |= {name for name in model.state_dict() if name.startswith("stems.")}
    assert names
    assert not moved & names
    assert any(name.startswith("fusion.encoder.") for name in moved)
    assert any(name.startswith("head.") for name in moved)


def test_everything_is_trained_by_default():
    model = build_model(small_specification("unet", "early"))
    assert freeze(model, "all") == []
    assert all(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(TypeError, match="model of parts"):
        freeze(torch.nn.Linear(2, 2), "head")
