"""Both architectures over every kind of input: shapes, gradients, missing data, receptive field."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from core.models.registry import (
    ARCHITECTURES,
    build_model,
    count_parameters,
    forward_bytes,
    model_step,
    receptive_radius,
)
from core.models.specification import ModelSpecification
from core.scenes.grid import COARSER_FACTORS
from tests.core.models.specifications import MODALITY_SETS, inputs, modality, random_model, side_of, specification

EVERY_MODEL = pytest.mark.parametrize(
    ("architecture", "modalities"), [(architecture, name) for architecture in ARCHITECTURES for name in MODALITY_SETS]
)


def built(wanted: ModelSpecification, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(wanted)


@EVERY_MODEL
@pytest.mark.parametrize("batch", [1, 3])
def test_scores_have_a_channel_a_class_on_the_reference_grid(architecture: str, modalities: str, batch: int) -> None:
    wanted = specification(architecture, modalities, n_classes=7)
    height, width = side_of(wanted), side_of(wanted, 40)
    model = built(wanted)
    for mode in (model.train(), model.eval()):
        scores = mode(inputs(wanted, height, width, batch))
        assert scores.shape == (batch, 7, height, width)
        assert scores.dtype == torch.float32
        assert torch.isfinite(scores).all()


@EVERY_MODEL
def test_every_parameter_learns_within_three_steps(architecture: str, modalities: str) -> None:
    wanted = specification(architecture, modalities)
    side = side_of(wanted)
    model = built(wanted).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    idle = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert sum(model.get_parameter(name).numel() for name in idle) == count_parameters(model)
    for step in range(3):
        classes = torch.randint(5, (2, side, side), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs(wanted, side, side, 2, step)), classes).backward()
        idle -= {name for name, parameter in model.named_parameters() if parameter.grad is not None and parameter.grad.any()}
        optimizer.step()
    assert not idle


@EVERY_MODEL
@pytest.mark.parametrize("missing", [0.3, 1.0])
def test_missing_values_neither_spoil_scores_nor_gradients(architecture: str, modalities: str, missing: float) -> None:
    wanted = specification(architecture, modalities)
    side = side_of(wanted)
    model = built(wanted).train()
    scores = model(inputs(wanted, side, side, 2, missing=missing))
    scores.square().mean().backward()
    assert torch.isfinite(scores).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)
    assert torch.isfinite(model.eval()(inputs(wanted, side, side, missing=missing))).all()
    state = model.state_dict().values()
    assert all(torch.isfinite(value).all() for value in state)


def test_infinite_and_absurd_values_stay_finite() -> None:
    wanted = specification("unet_intermediate", "usual")
    model = random_model(wanted)
    values = inputs(wanted, 24, 24)
    for name, value in (("sentinel2_l2a", math.inf), ("sentinel1", -math.inf), ("dsm", 1e30)):
        values[name][:, :, 3, 5] = value
    assert torch.isfinite(model(values)).all()


@EVERY_MODEL
def test_a_batch_changes_nothing_for_its_members(architecture: str, modalities: str) -> None:
    wanted = specification(architecture, modalities)
    side = side_of(wanted)
    model = random_model(wanted)
    values = inputs(wanted, side, side, 3)
    alone = model({name: value[1:2] for name, value in values.items()})
    torch.testing.assert_close(model(values)[1:2], alone, rtol=0, atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_modalities_are_taken_by_name(architecture: str) -> None:
    wanted = specification(architecture, "usual")
    model = random_model(wanted)
    values = inputs(wanted, 24, 24)
    turned = dict(reversed(list(values.items())))
    assert torch.equal(model(values), model(turned))


def test_same_seed_same_weights() -> None:
    wanted = specification("unet_intermediate", "usual")
    first, second, other = (built(wanted, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def with_positive_weights(model: nn.Module) -> nn.Module:
    """A model through which a larger input passes to every output that it can reach: no weight cancels another, no unit
    is silent and the largest value wins every pooling."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
            if parameter.ndim > 1:
                parameter.fill_(1 / parameter[0].numel())
    return model.eval().double()


def farthest_change(model: nn.Module, values: dict[str, Tensor], wanted: ModelSpecification, place: int) -> int:
    """How many reference pixels beyond a changed input pixel the output still changes, along the rows."""
    plain, farthest = model(values).detach(), 0
    for entry in wanted.modalities:
        changed = {name: value.clone() for name, value in values.items()}
        pixel = place * entry.finer // entry.coarser
        changed[entry.name][:, :, 0, pixel] += 50
        differs = (model(changed) - plain).detach().abs().amax(dim=(0, 1, 2))
        # Heights are centred on the mean of the whole tile first, which stirs the last bits everywhere.
        columns = torch.nonzero(differs > 1e-13 * float(plain.abs().max()))
        first = pixel * entry.coarser // entry.finer
        last = first + entry.coarser - 1
        farthest = max(farthest, first - int(columns.min()), int(columns.max()) - last)
    return farthest


@EVERY_MODEL
@pytest.mark.parametrize("depth", [1, 3])
def test_receptive_radius_is_a_close_upper_bound(architecture: str, modalities: str, depth: int) -> None:
    wanted = specification(architecture, modalities, depth=depth)
    model = with_positive_weights(built(wanted))
    radius, step = receptive_radius(wanted), model_step(wanted)
    # One row of tiles is enough to see how far a change travels along it.
    width = side_of(wanted, 2 * radius + 4 * step)
    middle = width // 2 // step * step
    values = {name: torch.zeros_like(value).double() for name, value in inputs(wanted, step, width).items()}
    for entry in wanted.modalities:
        values[entry.name] += torch.tensor([band.mean for band in entry.bands]).view(-1, 1, 1)
    seen = max(farthest_change(model, values, wanted, middle + phase) for phase in range(0, step, max(1, step // 12)))
    assert 0.6 * radius <= seen <= radius


@EVERY_MODEL
def test_a_far_pixel_changes_no_score_of_a_random_model(architecture: str, modalities: str) -> None:
    wanted = specification(architecture, modalities)
    model = random_model(wanted)
    radius, step = receptive_radius(wanted), model_step(wanted)
    width = side_of(wanted, 2 * radius + 2 * step)
    values = inputs(wanted, 2 * step, width)
    plain = model(values)
    for entry in wanted.modalities:
        values[entry.name][:, :, :, 0] += 3
    differs = (model(values) - plain).abs()
    assert differs[..., :step].max() > 0.1
    # Heights are centred on the mean of the whole tile first, which stirs the last bits everywhere.
    has_relief = modalities in ("usual", "coarser")
    beyond = differs[..., radius + max(entry.coarser for entry in wanted.modalities) :].max()
    assert beyond <= (1e-4 if has_relief else 0)


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("coarser", COARSER_FACTORS)
def test_step_holds_whole_pixels_of_every_level_and_modality(depth: int, coarser: int) -> None:
    entries = (modality("fine", 2), modality("coarse", 1, "other", coarser=coarser))
    wanted = ModelSpecification(architecture="unet_early", modalities=entries, n_classes=2, depth=depth)
    step = model_step(wanted)
    assert step % 2**depth == 0
    assert step % coarser == 0
    assert step <= 2**depth * coarser


def test_impossible_specifications_are_refused() -> None:
    entry = modality("optical", 3)
    with pytest.raises(ValidationError, match="same name"):
        ModelSpecification(architecture="unet_early", modalities=(entry, entry), n_classes=2)
    with pytest.raises(ValidationError, match="whole factor"):
        modality("both", 1, finer=2, coarser=2)
    with pytest.raises(ValidationError, match="bands"):
        modality("none", 0)
    with pytest.raises(ValidationError, match="name"):
        modality("a.b")
    for values in ({"n_classes": 1}, {"architecture": "transformer"}, {"dropout": 1.0}, {"depth": 0}, {"modalities": ()}):
        with pytest.raises(ValidationError, match=next(iter(values))):
            ModelSpecification(**({"architecture": "unet_early", "modalities": (entry,), "n_classes": 2} | values))


def test_a_forward_pass_takes_memory_by_its_area_statistics_and_width() -> None:
    usual = forward_bytes(specification("unet_early", "usual", width=24), 64, 64)
    assert forward_bytes(specification("unet_early", "usual", width=24), 128, 64) == pytest.approx(2 * usual, rel=1e-6)
    assert forward_bytes(specification("unet_early", "usual", width=48), 64, 64) > usual
    assert forward_bytes(specification("unet_early", "one", width=24), 64, 64) < usual
    # All statistics, 12 bands by 7, 2 by 7 and one by 28, are held at least twice.
    assert usual > 2 * 4 * 64 * 64 * 126
