"""Cross-scale contrast: NT-Xent by hand, crops, pooling, the queue, one encoding of the whole."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.models.features import FeatureMap, Features
from core.models.fusion_model import FusionModel
from core.models.specification import EncoderName, FusionName
from core.pretraining.masking import MaskSettings
from core.pretraining.objectives.cross_scale_contrast import (
    CrossScaleContrast,
    CrossScaleMae,
    CrossScaleSettings,
    draw_crops,
    inside_crop,
)
from core.pretraining.objectives.masked_reconstruction import MaskedReconstruction
from core.pretraining.objectives.objective import Objective
from tests.core.models.specifications import ENCODERS
from tests.core.pretraining.models import (
    assert_fits_any_input,
    idle_parameters,
    small_model,
    small_specification,
    small_windows,
    step_of,
)

Vectors = dict[str, list[NDArray[np.float64]]]


def watched(objective: CrossScaleContrast) -> Vectors:
    """The unit vectors that the heads give from now on, of the whole and then of the crop."""
    seen: Vectors = {name: [] for name in objective.heads}
    for name, head in objective.heads.items():

        def watch(_: Any, __: Any, answer: Tensor, name: str = name) -> None:
            vectors = answer.detach().double().numpy()
            seen[name].append(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))

        head.register_forward_hook(watch)
    return seen


def nt_xent(u: NDArray[np.float64], v: NDArray[np.float64], temperature: float) -> float:
    """Over the 2 B items of both, each against all others."""
    items, count = np.concatenate([u, v]), len(u)
    total = 0.0
    for i in range(2 * count):
        partner = (i + count) % (2 * count)
        others = [math.exp(items[i] @ items[j] / temperature) for j in range(2 * count) if j != i]
        total -= math.log(math.exp(items[i] @ items[partner] / temperature) / sum(others))
    return total / (2 * count)


@pytest.mark.parametrize("batch", [2, 3])
@pytest.mark.parametrize("fusion", ["early", "intermediate", "late"])
def test_the_loss_is_the_one_by_hand(fusion: FusionName, batch: int) -> None:
    wanted = small_specification("unet", fusion)
    model, windows = small_model(wanted), small_windows(wanted, 32, batch)
    objective = CrossScaleContrast(model, CrossScaleSettings(channels=6, temperature=0.3, weight=0.9), MaskSettings(ratio=0.5))
    seen = watched(objective)
    losses = objective(step_of(model, windows))
    names = ["merged"] if fusion == "early" else list(model.modalities)
    assert list(losses) == [f"cross-scale {name}" for name in names]
    for name in names:
        u, v = seen[name]
        assert u.shape == v.shape == (batch, 6)
        expected = 0.9 * nt_xent(u, v, 0.3) / len(names)
        assert losses[f"cross-scale {name}"].item() == pytest.approx(expected, rel=1e-5)


def test_a_window_without_a_modality_does_not_count_for_it() -> None:
    wanted = small_specification("unet", "intermediate")
    model, windows = small_model(wanted), small_windows(wanted, 32, 3)
    windows.values["sar"][1] = torch.nan
    del windows.values["dsm"]
    objective = CrossScaleContrast(model, CrossScaleSettings(channels=6))
    seen = watched(objective)
    losses = objective(step_of(model, windows))
    assert [len(each) for each in seen["sar"]] == [2, 2]
    assert [len(each) for each in seen["optical"]] == [3, 3]
    assert losses["cross-scale sar"].item() == pytest.approx(0.5 * nt_xent(*seen["sar"], 0.5) / 2, rel=1e-5)
    assert "cross-scale dsm" not in losses


@pytest.mark.parametrize("queue", [0, 4])
def test_one_window_says_nothing_but_does_no_harm(queue: int) -> None:
    wanted = small_specification("unet", "intermediate")
    model = small_model(wanted)
    objective = CrossScaleContrast(model, CrossScaleSettings(channels=6, queue=queue))
    losses = objective(step_of(model, small_windows(wanted, 16, 1)))
    assert [loss.item() for loss in losses.values()] == [0.0, 0.0, 0.0]
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize(("ratio_of", "least", "most"), [("side", 0.4, 0.6), ("area", 0.4**0.5, 0.6**0.5)])
def test_crops_have_the_published_ratio_and_lie_inside(ratio_of: Any, least: float, most: float) -> None:
    maps, sides = draw_crops(2000, CrossScaleSettings(crop_ratio_of=ratio_of), torch.Generator())
    ratios = sides if ratio_of == "side" else sides**2
    assert least <= float(sides.min()) < least + 0.01
    assert most - 0.01 < float(sides.max()) <= most
    assert float(ratios.mean()) == pytest.approx(0.5, abs=0.005)
    assert torch.equal(maps[:, 0, 0], sides)
    assert torch.equal(maps[:, 1, 1], sides)
    assert not maps[:, 0, 1].any()
    reach = maps[:, :, 2].abs() + sides[:, None]
    assert float(reach.max()) <= 1 + 1e-12
    assert float(reach.max()) > 0.99


def test_the_crop_is_what_the_window_shows_there_and_is_finer() -> None:
    wanted = small_specification("unet", "early", "one")
    model, windows = small_model(wanted), small_windows(wanted, 32, 2)
    ramp = torch.arange(32.0).repeat(32, 1)
    windows.values["aerial_rgb"][:] = ramp
    calls: list[tuple[dict[str, Tensor], Tensor]] = []
    given = model.features

    def spy(values: dict[str, Tensor], *, geography: Tensor) -> Features:
        calls.append((values, geography))
        return given(values, geography=geography)

    objective = CrossScaleContrast(model, CrossScaleSettings(channels=6))
    model.features = spy  # type: ignore[method-assign, assignment]
    objective(step_of(model, windows))
    (_, whole), (cropped, finer) = calls[-2:]
    shown = cropped["aerial_rgb"][:, 0]
    sides = (shown[:, 16, -2] - shown[:, 16, 1]) / 29
    torch.testing.assert_close((finer / whole)[:, 2].float()[:1], sides[:1], rtol=1e-4, atol=0)
    assert 0.4 <= float(sides[0]) <= 0.6


def test_places_inside_the_crop_are_those_whose_centres_are() -> None:
    maps = torch.tensor([[[0.5, 0.0, 0.25], [0.0, 0.5, -0.5]], [[0.4, 0.0, -0.6], [0.0, 0.4, 0.6]]], dtype=torch.float64)
    level = FeatureMap(torch.zeros(2, 1, 6, 8), torch.ones(2, 1, 6, 8), 4)
    found = inside_crop(level, maps, 22, 30)
    for window in range(2):
        for row in range(6):
            for column in range(8):
                x, y = (4 * column + 2) / 30 * 2 - 1, (4 * row + 2) / 22 * 2 - 1
                half, east, south = (float(maps[window, i, j]) for i, j in ((0, 0), (0, 2), (1, 2)))
                assert float(found[window, 0, row, column]) == float(abs(x - east) <= half and abs(y - south) <= half)


def test_pooling_inside_the_crop_takes_the_mean_of_the_places_there() -> None:
    wanted = small_specification("unet", "early", "one")
    model, windows = small_model(wanted).eval(), small_windows(wanted, 64, 2)
    objective = CrossScaleContrast(model, CrossScaleSettings(channels=6, pools_inside_crop=True)).eval()
    pooled: list[Tensor] = []
    objective.heads["merged"].register_forward_pre_hook(lambda _, given: pooled.append(given[0].detach()))
    objective(step_of(model, windows))
    maps, _ = draw_crops(2, objective.settings, torch.Generator().manual_seed(0))
    level = model.features(windows.values).levels[-1]
    inside = inside_crop(level, maps, 64, 64)[:, 0] > 0
    for window in range(2):
        assert 0 < int(inside[window].sum()) < inside[window].numel()
        expected = level.values[window][:, inside[window]].mean(dim=1)
        torch.testing.assert_close(pooled[0][window], expected.detach(), rtol=0, atol=1e-5)


def test_the_queue_holds_the_latest_vectors_and_its_loss_is_the_one_by_hand() -> None:
    wanted = small_specification("unet", "early", "one")
    model = small_model(wanted)
    objective = CrossScaleContrast(model, CrossScaleSettings(channels=6, queue=5))
    seen = watched(objective)
    for number in range(4):
        losses = objective(step_of(model, small_windows(wanted, 32, 2, number), number))
        objective.after_step(model, 0.0)
    u, v = seen["merged"][-2:]
    # Newest first: the two of the third step, of the second, and one of the first.
    held = np.concatenate([seen["merged"][5], seen["merged"][3], seen["merged"][1]])[:5]
    total = 0.0
    for first, second in ((u, v), (v, u)):
        for a, b in zip(first, second, strict=True):
            positive = math.exp(a @ b / 0.5)
            total -= math.log(positive / (positive + sum(math.exp(a @ n / 0.5) for n in held)))
    assert losses["cross-scale merged"].item() == pytest.approx(0.5 * total / 4, rel=1e-5)
    newest = objective.get_buffer("queue_merged").numpy()
    np.testing.assert_allclose(newest, np.concatenate([v, held])[:5], atol=1e-6)


def test_the_whole_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = small_specification("vit", "cross_attention_and_modality")
    model = small_model(wanted)
    objective = make_mae(model)
    calls = []
    given = FusionModel.features

    def spy(self: FusionModel, *args: Any, **options: Any) -> Features:
        calls.append(1)
        return given(self, *args, **options)

    monkeypatch.setattr(FusionModel, "features", spy)
    losses = objective(step_of(model, small_windows(wanted, 16)))
    assert len(calls) == 2
    assert {name.split()[0] for name in losses} == {"reconstruction", "cross-scale"}


def make_mae(model: FusionModel) -> Objective:
    reconstruction = MaskedReconstruction(model, MaskSettings("consistent", 0.5), width=8, depth=1, level="dense")
    return CrossScaleMae(reconstruction, CrossScaleContrast(model, CrossScaleSettings(channels=6), MaskSettings(ratio=0.5)))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_everything_learns_within_three_steps(encoder: EncoderName) -> None:
    idle = idle_parameters(small_specification(encoder, "cross_attention_and_modality"), make_mae)
    assert idle == {"model.head.classifier.weight", "model.head.classifier.bias"}


@pytest.mark.parametrize("encoder", ENCODERS)
def test_any_input_fits(encoder: EncoderName) -> None:
    assert_fits_any_input(encoder, make_mae)
