"""Low-rank adapters: nothing at the start, small changes of frozen weights, and an ordinary model in the end."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrize

from core.finetuning.networks.adapters import LowRankChange, add_adapters, merged_state
from core.finetuning.networks.freezing import freeze
from core.models.registry import build_model
from core.models.specification import EncoderName, FusionName
from tests.core.models.specifications import ENCODERS, FUSIONS
from tests.core.pretraining.models import small_specification, small_windows

EVERY_ENCODER_AND_FUSION = [
    *itertools.product(ENCODERS, ("intermediate",)),
    *itertools.product(("unet", "vit"), [fusion for fusion in FUSIONS if fusion != "intermediate"]),
]


@pytest.mark.parametrize(("encoder", "fusion"), EVERY_ENCODER_AND_FUSION)
def test_every_network_starts_as_its_base_and_ends_as_an_ordinary_model(encoder: EncoderName, fusion: FusionName) -> None:
    wanted = small_specification(encoder, fusion, width=16) if encoder == "unet" else small_specification(encoder, fusion)
    torch.manual_seed(0)
    model = build_model(wanted)
    base = copy.deepcopy(model).eval()
    frozen = freeze(model, "adapters")
    add_adapters(model, 2, 4.0, seed=1)
    values = small_windows(wanted).values
    with torch.no_grad():
        assert torch.equal(model.eval()(values), base(values))
    assert {name: value.tolist() for name, value in merged_state(model).items()} == {
        name: value.tolist() for name, value in base.state_dict().items()
    }
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for number in range(3):
        model.train()
        for module in frozen:
            module.eval()
        scores = model(small_windows(wanted, seed=number).values)
        functional.cross_entropy(scores, torch.randint(5, scores[:, 0].shape)).backward()
        optimizer.step()
        optimizer.zero_grad()
    own, before = model.state_dict(), base.state_dict()
    adapted = {key.split(".parametrizations.")[0] for key in own if key.endswith(".parametrizations.weight.original")}
    assert adapted
    for name in adapted:
        assert torch.equal(own[f"{name}.parametrizations.weight.original"], before[f"{name}.weight"])
    merged = merged_state(model)
    moved = {name for name, value in merged.items() if not torch.equal(value, before[name])}
    weights = {f"{name}.weight" for name in adapted}
    # What no gradient reaches, such as the last places of a sequence that no one asks, stays in place.
    assert weights & moved
    assert {name for name in moved - weights if not name.startswith("head.")} == set()
    assert any(name.startswith("head.") for name in moved)
    ordinary = build_model(wanted).eval()
    ordinary.load_state_dict(merged)
    with torch.no_grad():
        said, expected = ordinary(values), model.eval()(values)
    assert not torch.allclose(expected, base(values), atol=1e-3)
    torch.testing.assert_close(said, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(12, 9),
        nn.Conv2d(12, 9, 3, padding=1, bias=False),
        nn.Conv2d(12, 9, 3, stride=2, padding=1, padding_mode="replicate"),
        nn.Conv2d(12, 9, 1),
    ],
)
def test_the_sum_of_weights_is_the_sum_of_layers(layer: nn.Linear | nn.Conv2d) -> None:
    """Beside the paper's equation 3: W x + (alpha / r) B A x, for a convolution with a k x k one and a 1 x 1 one."""
    torch.manual_seed(0)
    change = LowRankChange(layer.weight, 3, 6.0, torch.Generator().manual_seed(0))
    nn.init.normal_(change.up)
    values = torch.randn((2, 5, 12) if isinstance(layer, nn.Linear) else (2, 12, 8, 7))
    with torch.no_grad():
        if isinstance(layer, nn.Linear):
            beside = layer(values) + 2.0 * functional.linear(functional.linear(values, change.down), change.up)
        else:
            down = copy.deepcopy(layer)
            down.weight, down.bias = nn.Parameter(change.down.view(3, *layer.weight.shape[1:])), None
            beside = layer(values) + 2.0 * functional.conv2d(down(values), change.up[:, :, None, None])
        parametrize.register_parametrization(layer, "weight", change)
        said = layer(values)
    torch.testing.assert_close(said, beside, rtol=1e-5, atol=1e-5)


def test_rank_and_seed_count_and_layers_too_small_are_left() -> None:
    wanted = small_specification("unet", "asymmetric_attention", width=16)
    base = build_model(wanted)

    def adapted(rank: int, seed: int = 0) -> dict[str, torch.Tensor]:
        model = copy.deepcopy(base)
        freeze(model, "adapters")
        add_adapters(model, rank, 1.0, seed)
        assert sum(p.numel() for p in model.fusion.parameters() if p.requires_grad) == sum(
            value.numel() for name, value in model.state_dict().items() if name.endswith((".down", ".up"))
        )
        return {name: value for name, value in model.state_dict().items() if name.endswith(".down")}

    two, four = adapted(2), adapted(4)
    assert {len(value) for value in two.values()} == {2}
    assert {len(value) for value in four.values()} == {4}
    assert all(name.startswith("fusion.") for name in two)
    # A map of attention has one row, of which nothing is smaller.
    assert any(".spatial." in name for name in base.state_dict())
    assert not any(".spatial." in name for name in two)
    again, other = adapted(2), adapted(2, seed=1)
    assert all(torch.equal(value, again[name]) for name, value in two.items())
    assert not any(torch.equal(value, other[name]) for name, value in two.items())
    with pytest.raises(TypeError, match="model of parts"):
        add_adapters(nn.Linear(20, 20), 2, 1.0, 0)
