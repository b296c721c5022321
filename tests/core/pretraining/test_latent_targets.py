"""Latent targets: frozen, informative, and told apart as by hand."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch

from core.models.features import FeatureMap
from core.models.fusion_model import FusionModel
from core.models.specification import EncoderName
from core.pretraining.masking import MaskSettings, known_patches
from core.pretraining.objectives.latent_targets import LatentTargets, patch_discrimination
from core.pretraining.objectives.objective import Objective
from core.pretraining.patch_decoder import Level
from core.pretraining.patch_targets import LEAST_MOMENTUM, SPREAD_FLOOR, PatchTargets, RunningStandardisation
from tests.core.models.specifications import ENCODERS, MODALITY_SETS, inputs, modality
from tests.core.pretraining.models import (
    assert_fits_any_input,
    idle_parameters,
    small_model,
    small_specification,
    small_windows,
    step_of,
)


def small(model: FusionModel, level: Level = "dense", loss: Literal["cosine", "contrast"] = "contrast") -> LatentTargets:
    masks = MaskSettings(ratio=0.5, withheld=0.25)
    pixels = 0.5 if level == "dense" else 0.0
    return LatentTargets(model, masks, level=level, loss=loss, width=8, depth=1, channels=6, pixels=pixels)


def test_patches_are_told_apart_as_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.nn.functional.normalize(torch.randn(2, 3, 5, generator=generator), dim=2)
    predicted, targets = drawn.double().unbind()
    losses = []
    for i in range(3):
        terms = [math.exp(float(predicted[i] @ targets[j]) / 0.2) for j in range(3)]
        losses.append(-math.log(terms[i] / sum(terms)))
    assert patch_discrimination(predicted, targets, 0.2).item() == pytest.approx(np.mean(losses), rel=1e-9)
    # The first two are the same: neither is asked to be told from the other.
    twins = targets[[0, 0, 2]]
    pairs = [(0, 2), (1, 2)]
    losses = [math.log1p(math.exp(float(predicted[i] @ (twins[j] - twins[i])) / 0.2)) for i, j in pairs]
    third = sum(math.exp(float(predicted[2] @ (twins[j] - twins[2])) / 0.2) for j in range(3))
    losses.append(math.log(third))
    assert patch_discrimination(predicted, twins, 0.2).item() == pytest.approx(np.mean(losses), rel=1e-9)
    assert patch_discrimination(predicted[:1], targets[:1], 0.2).item() == 0.0


def test_the_direction_is_compared_as_by_hand() -> None:
    wanted = small_specification("unet", "early", "one")
    model, windows = small_model(wanted).eval(), small_windows(wanted, 32)
    objective = LatentTargets(model, MaskSettings(ratio=0.5), loss="cosine", width=8, depth=1, channels=6, weight=0.3)
    said = torch.linspace(1, 2, 6)
    with torch.no_grad():
        objective.outputs["aerial_rgb"][2].weight.zero_()
        objective.outputs["aerial_rgb"][2].bias.copy_(said)
    known = known_patches(windows.values["aerial_rgb"], model.modalities["aerial_rgb"], 8)
    fresh = LatentTargets(model, MaskSettings(ratio=0.5), loss="cosine", width=8, depth=1, channels=6)
    targets = fresh.targets["aerial_rgb"](windows.values["aerial_rgb"], known).double()
    masked = []
    objective.decoders.register_forward_pre_hook(lambda _, given: masked.append(given[2].masked["aerial_rgb"]))
    loss = objective(step_of(model, windows))["latent aerial_rgb"].item()
    unit = (said / said.norm()).double()
    expected = [1 - float(unit @ row) for row in targets[masked[0].flatten()]]
    assert len(expected) == 16
    assert loss == pytest.approx(0.3 * np.mean(expected), rel=1e-5)


def test_targets_are_frozen_and_go_by_the_seed() -> None:
    entry = MODALITY_SETS["three"][2]
    values = inputs(small_specification("unet", "early"), 32, 32, 2)["dsm"]
    known = known_patches(values, entry, 8)
    torch.manual_seed(1)
    first = PatchTargets(entry, 8, 12)
    torch.manual_seed(2)
    again, other = PatchTargets(entry, 8, 12), PatchTargets(entry, 8, 12, seed=1)
    assert not list(first.parameters())
    assert torch.equal(first(values, known), again(values, known))
    assert not torch.allclose(first(values, known), other(values, known), atol=0.1)
    torch.testing.assert_close(first(values, known).norm(dim=1), torch.ones(32))


def test_targets_of_a_scene_point_everywhere() -> None:
    """Though its values lie close together and far from the sensor's mean."""
    entry = modality("optical", 4)
    values = inputs(small_specification("unet", "early"), 64, 64, 2)["optical"] * 0.02 + 0.3
    targets = PatchTargets(entry, 8)(values, known_patches(values, entry, 8))
    similar = targets @ targets.T
    similar.fill_diagonal_(0.0)
    assert float(similar.mean()) == pytest.approx(0.0, abs=0.05)
    assert float(similar.abs().mean()) < 0.35


def test_what_goes_into_a_target_is_what_is_there() -> None:
    """A brighter patch, a rougher one and one with other surroundings have other targets; a missing pixel says nothing."""
    entry = modality("optical", 2)
    values = torch.randn(1, 2, 40, 40, generator=torch.Generator().manual_seed(0))
    known = known_patches(values, entry, 8)
    maker = PatchTargets(entry, 8, 16)
    maker(values, known)
    maker.eval()
    plain = maker(values, known)
    brighter, rougher = values.clone(), values.clone()
    brighter[:, :, 16:24, 16:24] += 1.0
    inside = values[:, :, 16:24, 16:24]
    rougher[:, :, 16:24, 16:24] = inside.mean((2, 3), keepdim=True) * -2 + inside * 3
    for changed, moved_around in ((brighter, True), (rougher, False)):
        cosine = (maker(changed, known) * plain).sum(dim=1).view(5, 5)
        assert cosine[2, 2] < 0.95
        assert (cosine[0] > 0.999).all()
        assert bool((cosine[1, 1:4] < 0.99).all()) == moved_around
    gap, filled = values.clone(), values.clone()
    gap[:, 0, 17, 17] = torch.nan
    gap[:, 1, 17, 17], filled[:, 1, 17, 17] = 5.0, -5.0
    filled[:, 0, 17, 17] = torch.nan
    assert torch.equal(maker(gap, known), maker(filled, known))


def test_heights_count_against_their_surroundings_alone() -> None:
    entry = modality("dsm", 1, "elevation")
    values = 20 * torch.randn(2, 1, 40, 40, generator=torch.Generator().manual_seed(0)) + 100
    known = known_patches(values, entry, 8)
    maker = PatchTargets(entry, 8, 16)
    plain = maker(values, known)
    higher = maker.eval()(values + torch.tensor([1024.0, 4096.0]).view(2, 1, 1, 1), known)
    torch.testing.assert_close(higher, plain, rtol=0, atol=0.01)
    other = maker(2 * values, known)
    assert float((other * plain).sum(dim=1).mean()) < 0.95


def test_pixels_are_predicted_from_their_own_place() -> None:
    wanted = small_specification("unet", "intermediate")
    model, windows = small_model(wanted).eval(), small_windows(wanted, 16, 2)
    windows.values["sar"][0] = torch.nan
    objective = LatentTargets(model, level="dense", loss="cosine", pixels=0.4, width=8, depth=1, channels=6)
    kept: list[FeatureMap] = []
    objective.decoders.register_forward_pre_hook(lambda _, given: kept.append(given[1]))
    losses = objective(step_of(model, windows))
    for name, entry in model.modalities.items():
        cell = entry.coarser
        fresh = PatchTargets(entry, cell, 6, (5, 9))
        known = known_patches(windows.values[name], entry, cell)
        targets = iter(fresh(windows.values[name], known))
        errors = []
        for window, row, column in torch.nonzero(known).tolist():
            target = next(targets)
            part = (slice(cell * row, cell * (row + 1)), slice(cell * column, cell * (column + 1)))
            seen = kept[0].known[window, 0][part] > 0
            if seen.any():
                mean = kept[0].values[window, :, part[0], part[1]][:, seen].mean(dim=1)
                said = objective.pixel_outputs[name](mean)
                errors.append(1 - float((said @ target / said.norm()).detach()))
        assert losses[f"latent pixels {name}"].item() == pytest.approx(0.4 * np.mean(errors) / 3, rel=1e-4)


def test_running_statistics_are_means_first_and_move_slowly_later() -> None:
    running = RunningStandardisation(1)
    rows = [torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [7.0]])]
    running(rows[0])
    found = running(rows[1])
    mean, square = 4.0, (1 + 9 + 25 + 49) / 4
    expected = (5.0 - mean) / math.sqrt(square - mean**2 + SPREAD_FLOOR)
    assert found[0, 0].item() == pytest.approx(expected, rel=1e-5)
    running.seen.fill_(10_000)
    running(torch.tensor([[14.0]]))
    assert running.mean.item() == pytest.approx(mean + LEAST_MOMENTUM * 10)
    before = running.mean.clone()
    running.eval()(torch.tensor([[99.0]]))
    assert torch.equal(running.mean, before)


def test_what_is_missing_has_no_influence() -> None:
    wanted = small_specification("unet", "intermediate")
    losses = []
    for stands_there in (77.0, -3.0):
        model, windows = small_model(wanted, 1).eval(), small_windows(wanted, 32)
        optical = windows.values["optical"].clone()
        optical[:, 1, 2:9, 3:7] = torch.nan
        optical[:, 0, 2:9, 3:7] = stands_there
        terms = small(model)(step_of(model, replace(windows, values=windows.values | {"optical": optical})))
        losses.append({name: loss.item() for name, loss in terms.items()})
    assert losses[0] == losses[1]
    assert len(losses[0]) == 6


def test_any_of_the_modalities_may_be_predicted() -> None:
    wanted = small_specification("unet", "intermediate")
    model = small_model(wanted)
    objective = LatentTargets(model, modalities=("sar",), level="dense", pixels=1.0, width=8, depth=1)
    assert set(objective(step_of(model, small_windows(wanted, 32)))) == {"latent sar", "latent pixels sar"}
    with pytest.raises(ValueError, match="need the level 'dense'"):
        LatentTargets(model, pixels=1.0)


@pytest.mark.parametrize(("level", "loss"), [("tokens", "cosine"), ("dense", "contrast")])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_everything_of_the_objective_learns(encoder: EncoderName, level: Level, loss: Literal["cosine", "contrast"]) -> None:
    def make(model: FusionModel) -> Objective:
        return small(model, level, loss)

    idle = idle_parameters(small_specification(encoder, "intermediate", has_geography=True), make)
    assert not [name for name in idle if name.startswith("objective.")]
    if level == "dense":
        assert idle == {"model.head.classifier.weight", "model.head.classifier.bias"}


@pytest.mark.parametrize(("encoder", "level"), [*itertools.product(ENCODERS, ("dense",)), ("vit", "tokens")])
def test_any_input_fits(encoder: EncoderName, level: Level) -> None:
    assert_fits_any_input(encoder, lambda model: small(model, level))


def test_it_comes_to_know_a_window() -> None:
    wanted = small_specification("vit", "joint_tokens")
    model = small_model(wanted)
    objective = LatentTargets(model, level="tokens", loss="cosine", width=16, depth=1, channels=6)
    windows = small_windows(wanted, 16, 1)
    optimizer = torch.optim.Adam([*model.parameters(), *objective.parameters()], lr=1e-2)
    losses = []
    for seed in range(35):
        loss = torch.stack(list(objective(step_of(model, windows, seed)).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:5])


def test_days_and_pixel_sizes_are_told_to_the_model() -> None:
    wanted = small_specification("unet", "intermediate", "usual").model_copy(update={"has_circumstances": True})
    model, windows = small_model(wanted).eval(), small_windows(wanted, 32)
    objective = small(model).eval()
    geography = torch.tensor([[52.0, 13.0, 10.0]] * len(windows), dtype=torch.float64)
    dates = {name: torch.full((len(windows), 1), 100.0, dtype=torch.float64) for name in windows.names}
    told = [replace(windows, geography=geography, dates=given) for given in ({}, dates)]
    found = [{name: float(loss) for name, loss in objective(step_of(model, each)).items()} for each in (windows, *told)]
    assert found[0].keys() == found[1].keys() == found[2].keys()
    assert all(len({terms[name] for terms in found}) == 3 for name in found[0])
