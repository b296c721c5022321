"""Masked reconstruction: the loss by hand, what counts in it, and that everything learns."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from core.models.fusion_model import FusionModel
from core.models.specification import EncoderName, FusionName
from core.pretraining.masking import MaskSettings
from core.pretraining.objectives.masked_reconstruction import MaskedReconstruction, patch_loss
from core.pretraining.objectives.objective import Objective
from core.pretraining.patch_decoder import Level
from core.pretraining.patches import LEAST_SPREAD, band_groups
from tests.core.models.specifications import ENCODERS, FUSIONS
from tests.core.pretraining.models import (
    assert_fits_any_input,
    idle_parameters,
    small_model,
    small_specification,
    small_windows,
    step_of,
)

BELOW_THE_LAST_LEVEL = (
    r"model\.(head\..*|fusion\.(encoders?\.(\w+\.)?norms|joints|gates|attentions|meetings|cross_modality)\.\d.*)"
)


def test_the_mean_over_patches_is_the_one_by_hand() -> None:
    predicted = torch.tensor([[[[1.0, 2.0]]], [[[0.0, 0.0]]], [[[5.0, 5.0]]]])
    target = torch.tensor([[[[0.0, 0.0]]], [[[1.0, 9.0]]], [[[0.0, 0.0]]]])
    counts = torch.tensor([[[[1.0, 1.0]]], [[[1.0, 0.0]]], [[[0.0, 0.0]]]])
    # (1 + 4) / 2 = 2.5 twice, and 1 of the one pixel that counts; the third patch has none.
    assert patch_loss(predicted, target, counts, torch.tensor([2.0, 1.0, 2.0])).item() == pytest.approx((2 * 2.5 + 1) / 2)
    assert patch_loss(predicted, target, 0 * counts, torch.ones(3)).item() == 0.0


@pytest.mark.parametrize("policy", ["independent", "anchor"])
def test_the_loss_is_the_one_by_hand(policy: str) -> None:
    """With a head that says the same everywhere, one number a pixel of the patch."""
    wanted = small_specification("unet", "early")
    model, windows = small_model(wanted), small_windows(wanted, 16, 3)
    windows.values["optical"][0, 2, :4, :3] = torch.nan
    windows.values["dsm"] = windows.values["dsm"] * 20 + 500
    settings = MaskSettings("anchor" if policy == "anchor" else "independent", 0.5)
    objective = MaskedReconstruction(model, settings, patch=8, width=8, depth=1, anchor_weight=3.0, weight=0.7)
    with torch.no_grad():
        for output in objective.outputs.values():
            output.weight.zero_()
            output.bias.copy_(torch.linspace(-1, 1, len(output.bias)))
    losses = objective(step_of(model, windows))
    masks = objective.encoded(step_of(model, windows)).masks
    assert set(losses) == {f"reconstruction {name}" for name in model.modalities}
    for name, entry in model.modalities.items():
        side = 8 * entry.finer // entry.coarser
        values = windows.values[name].double().numpy()
        values = np.where(np.isnan(values).any(axis=1, keepdims=True), np.nan, values)
        mean = np.array([band.mean for band in entry.bands])[:, None, None]
        deviation = np.array([band.standard_deviation for band in entry.bands])[:, None, None]
        said = np.linspace(-1, 1, len(entry.bands) * side**2).reshape(-1, side, side)
        errors = []
        for window, row, column in torch.nonzero(masks.masked[name]).tolist():
            patch = values[window, :, row * side : (row + 1) * side, column * side : (column + 1) * side]
            patch = patch / 5.0 if entry.kind == "elevation" else np.clip((patch - mean) / deviation, -6, 6)
            target = np.empty_like(patch)
            for group in band_groups(entry):
                chosen = patch[list(group)]
                target[list(group)] = (chosen - np.nanmean(chosen)) / np.sqrt(np.nanvar(chosen) + LEAST_SPREAD**2)
            is_anchor = policy == "anchor" and masks.anchors is not None and list(THREE)[masks.anchors[window]] == name
            errors.append((3.0 if is_anchor else 1.0) * np.nanmean((said - target) ** 2))
        assert losses[f"reconstruction {name}"].item() == pytest.approx(0.7 * np.mean(errors) / 3, rel=1e-4)


THREE = ("optical", "sar", "dsm")


def test_what_is_missing_has_no_influence() -> None:
    wanted = small_specification("unet", "intermediate")
    model, windows = small_model(wanted, 1), small_windows(wanted, 16)
    windows.values["optical"][:, 1, 2:9, 3:7] = torch.nan
    windows.values["sar"][0] = torch.nan
    objective = MaskedReconstruction(model, MaskSettings(ratio=0.5), width=8, depth=1)
    optical = windows.values["optical"].clone()
    optical[:, 0, 2:9, 3:7] = 77.0
    moved = replace(windows, values=windows.values | {"optical": optical})
    losses = []
    for given in (windows, moved):
        torch.manual_seed(0)  # of dropout
        terms = objective(step_of(model.eval(), given))
        losses.append({name: loss.item() for name, loss in terms.items()})
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("encoder", "fusion", "level"),
    [
        *itertools.product(ENCODERS, ("intermediate", "cross_attention_and_modality"), ("tokens",)),
        *itertools.product(("resnet", "resunet"), ("late", "joint_tokens"), ("dense",)),
        *itertools.product(("unet", "vit"), FUSIONS, ("dense",)),
    ],
)
def test_everything_learns_within_three_steps(encoder: EncoderName, fusion: FusionName, level: Level) -> None:
    wanted = small_specification(encoder, fusion, has_geography=True, attention_direction="both")

    def make(model: FusionModel) -> Objective:
        return MaskedReconstruction(model, MaskSettings(ratio=0.5), width=8, depth=1, level=level, patch=8)

    idle = idle_parameters(wanted, make)
    assert not [name for name in idle if name.startswith("objective.")]
    if level == "dense":
        # What classifies has nothing to say yet.
        assert idle == {"model.head.classifier.weight", "model.head.classifier.bias"}
    else:
        assert {name for name in idle if not re.fullmatch(BELOW_THE_LAST_LEVEL, name)} == set()


@pytest.mark.parametrize("encoder", ENCODERS)
def test_any_input_fits(encoder: EncoderName) -> None:
    assert_fits_any_input(encoder, lambda model: MaskedReconstruction(model, width=8, depth=1))


def test_a_model_of_scenes_has_no_dense_level() -> None:
    model = small_model(small_specification("unet", "early", head="scene"))
    with pytest.raises(ValueError, match="choose the level 'tokens'"):
        MaskedReconstruction(model, level="dense")
    assert MaskedReconstruction(model)(step_of(model, small_windows(model.specification, 16)))


def test_it_comes_to_know_a_window() -> None:
    wanted = small_specification("vit", "joint_tokens", "one")
    model = small_model(wanted)
    objective = MaskedReconstruction(model, MaskSettings(ratio=0.5), width=32, depth=1)
    windows = small_windows(wanted, 16, 1)
    optimizer = torch.optim.Adam([*model.parameters(), *objective.parameters()], lr=1e-2)
    losses = []
    for seed in range(45):
        loss = torch.stack(list(objective(step_of(model, windows, seed)).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
