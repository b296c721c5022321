"""Dense alignment: the loss by hand, who is a negative of whom, and that each pitfall of the released code is avoided."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional

from core.models.features import FeatureMap
from core.models.fusion_model import FusionModel
from core.pretraining.monitors import spread_of
from core.pretraining.objectives.dense_alignment import (
    DenseAlignment,
    DenseAlignmentSettings,
    retrieval_accuracy,
    soft_alignment,
)
from core.pretraining.objectives.objective import Windows
from tests.core.pretraining.models import small_model, small_specification, step_of
from tests.core.pretraining.objectives.learning import assert_sound, assert_unchanged, backward, fields, shared_ground, state_of

SETTINGS = DenseAlignmentSettings(tokens=8, channels=8, dropout=0.0)


def made(old: str | None = None, **options: Any) -> tuple[FusionModel, DenseAlignment]:
    model = small_model(small_specification("unet", "intermediate", dropout=0.0, statistics_dropout=0.0))
    return model, DenseAlignment(model, replace(SETTINGS, **options), old).train()


def unit_groups(groups: int, rows: int, seed: int) -> torch.Tensor:
    drawn = torch.randn(groups, rows, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return functional.normalize(drawn, dim=2)


def softmax(row: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in row)
    return [math.exp(value) / total for value in row]


def test_two_windows_by_hand() -> None:
    # u = (1, 0), (0, 1) and v = (0.8, 0.6), (0.6, 0.8); t = 0.5, t_t = 0.25, smoothing 0.2.
    first = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)
    second = torch.tensor([[[0.8, 0.6], [0.6, 0.8]]], dtype=torch.float64)
    settings = DenseAlignmentSettings(temperature=0.5, target_temperature=0.25, own_share=0.3, label_smoothing=0.2)
    # U U^T is the identity, V V^T has 1 and 0.96: the mean is 1 and 0.48. Z = V U^T / t has 1.6 and 1.2.
    soft = softmax([1 / 0.25, 0.48 / 0.25])
    target = [0.8 * (0.7 * soft[0] + 0.3) + 0.1, 0.8 * 0.7 * soft[1] + 0.1]
    said = softmax([0.8 / 0.5, 0.6 / 0.5])
    expected = -sum(t * math.log(s) for t, s in zip(target, said, strict=True))  # The same for all four rows.
    found = soft_alignment(first, second, torch.ones(1, 2, dtype=torch.bool), None, settings)
    assert float(found) == pytest.approx(expected, rel=1e-9)


def test_groups_and_candidates_are_those_of_a_loop() -> None:
    first, second = unit_groups(3, 6, 0), unit_groups(3, 6, 1)
    source = torch.Generator().manual_seed(2)
    known = torch.rand(3, 6, generator=source) > 0.2
    apart = torch.rand(3, 6, 6, generator=source) > 0.3
    apart = apart & apart.mT
    settings = DenseAlignmentSettings(label_smoothing=0.3)
    losses = []
    for group in range(3):
        u, v = first[group], second[group]
        for row in range(6):
            if not known[group, row]:
                continue
            kept = [i for i in range(6) if i == row or (known[group, i] and apart[group, row, i])]
            own = [float(u[row] @ u[i] + v[row] @ v[i]) / 2 / settings.target_temperature for i in kept]
            mixed = [0.5 * part + 0.5 * (i == row) for i, part in zip(kept, softmax(own), strict=True)]
            target = [0.7 * part + 0.3 / len(kept) for part in mixed]
            for one, other in ((v, u), (u, v)):
                said = softmax([float(one[row] @ other[i]) / settings.temperature for i in kept])
                losses.append(-sum(t * math.log(s) for t, s in zip(target, said, strict=True)))
    found = soft_alignment(first, second, known, apart, settings)
    assert float(found) == pytest.approx(sum(losses) / len(losses), rel=1e-9)


def test_unknown_places_do_not_count() -> None:
    known = torch.tensor([[True, True, False, True]])
    first, second = unit_groups(1, 4, 0), unit_groups(1, 4, 1)
    plain = soft_alignment(first, second, known, None, SETTINGS)
    other = first.clone()
    other[:, 2] = second[:, 0]
    assert torch.equal(soft_alignment(other, second, known, None, SETTINGS), plain)
    nothing = soft_alignment(first, second, torch.zeros_like(known), None, SETTINGS)
    assert float(nothing) == 0


def test_targets_are_soft() -> None:
    """Products of unnormalised vectors of some thousand leave targets of exactly one."""
    near = functional.normalize(torch.tensor([[[1.0, 0.0], [0.95, 0.31]]]), dim=2)
    settings = replace(SETTINGS, own_share=0.0)
    loss = soft_alignment(near, near, torch.ones(1, 2, dtype=torch.bool), None, settings)
    assert 0.1 < float(loss) < math.log(2) + 1e-6


def test_the_loss_has_a_gradient_for_the_model_and_every_head() -> None:
    model, objective = made()
    terms = objective(step_of(model, fields(model.specification, 16, 3)))
    assert terms["dense_alignment"].requires_grad
    backward(terms)
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in objective.parameters())
    for name in model.modalities:
        own = [parameter.grad for path, parameter in model.named_parameters() if path.startswith(f"stems.{name}.")]
        assert any(gradient is not None and bool(gradient.any()) for gradient in own)


def test_the_old_modality_is_that_of_a_copy_which_stays_to_the_bit() -> None:
    model, objective = made("sar")
    assert objective.teacher is not None
    before = state_of(objective.teacher)
    windows = fields(model.specification, 16, 3)
    trained = [p for module in (model, objective) for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    for seed in range(2):
        terms = objective(step_of(model, windows, seed))
        optimizer.zero_grad()
        backward(terms)
        optimizer.step()
        objective.after_step(model, 0.5)
    assert_unchanged(objective.teacher, before)
    # The stem of what is known already learns nothing; those of the new ones do.
    learned = {path.split(".")[1] for path, p in model.named_parameters() if path.startswith("stems.") and p.grad is not None}
    assert learned == {"optical", "dsm"}
    assert objective.pairs(step_of(model, windows)) == [("sar", "optical"), ("sar", "dsm")]


def test_what_there_is_nothing_for_is_left_out() -> None:
    model, objective = made("sar")
    windows = fields(model.specification, 16, 3)
    for names in (("optical", "dsm"), ("sar",)):
        part = Windows({name: windows.values[name] for name in names}, windows.geography)
        assert objective(step_of(model, part)) == {}
    assert made()[1](step_of(model, Windows({"sar": windows.values["sar"]}, windows.geography))) == {}
    with pytest.raises(ValueError, match="got lidar"):
        DenseAlignment(model, SETTINGS, "lidar")


def test_pairs_of_modalities_are_summed() -> None:
    model, objective = made(tokens=99, weight=1.0)
    model.eval()  # Batches of other modalities must not move statistics.
    windows = fields(model.specification, 16, 3)
    with torch.no_grad():
        whole = objective(step_of(model, windows))["dense_alignment"]
        parts = []
        for names in (("optical", "sar"), ("optical", "dsm"), ("sar", "dsm")):
            part = Windows({name: windows.values[name] for name in names}, windows.geography)
            parts.append(objective(step_of(model, part))["dense_alignment"])
    torch.testing.assert_close(whole, torch.stack(parts).sum())


def test_places_within_the_radius_are_no_negatives_of_each_other() -> None:
    """Windows of 4 x 4 places of 2 pixels; the second window has pixels of 20 m, the third says nothing of it."""
    model, objective = made(radius_m=45.0, tokens=99)
    geography = torch.tensor([[0, 0, 10.0], [0, 0, 20.0], [0, 0, torch.nan]], dtype=torch.float64)
    step = step_of(model, Windows(fields(model.specification, 16, 3).values, geography))
    level = FeatureMap(torch.zeros(3, 1, 4, 4), torch.ones(3, 1, 4, 4), 2)
    places = objective._draw(level, step.generator)
    apart = objective._apart(step, level, places)
    assert apart is not None
    found = apart.view(3, 16, 3, 16)
    for one in range(3):
        for other in range(3):
            for i, a in enumerate(places.tolist()):
                for j, b in enumerate(places.tolist()):
                    metres = 2 * (10.0, 20.0, 10.0)[one] * math.hypot(a // 4 - b // 4, a % 4 - b % 4)
                    assert bool(found[one, i, other, j]) == (one != other or metres > 45.0)


def test_with_a_radius_one_window_is_enough_and_without_it_is_zero() -> None:
    for radius, is_zero in ((None, True), (15.0, False)):
        model, objective = made(radius_m=radius)
        terms = objective(step_of(model, fields(model.specification, 16, 1)))
        assert_sound(objective, model, terms)
        assert (float(terms["dense_alignment"].detach()) == 0) == is_zero


def test_no_more_places_are_compared_than_asked_for() -> None:
    level = FeatureMap(torch.zeros(4, 1, 8, 8), torch.ones(4, 1, 8, 8), 2)
    generator = torch.Generator().manual_seed(0)
    assert len(made(tokens=50)[1]._draw(level, generator)) == 50
    assert len(made(tokens=500)[1]._draw(level, generator)) == 64
    assert len(made(tokens=50, radius_m=1.0, most=40)[1]._draw(level, generator)) == 10
    drawn = made(tokens=50)[1]._draw(level, generator).tolist()
    assert len(set(drawn)) == 50


def test_retrieval_counts_partners_that_are_found() -> None:
    features = torch.eye(6)
    assert retrieval_accuracy(features, 3 * features) == 1
    assert retrieval_accuracy(features, features.roll(1, 0)) == 0
    half = features.clone()
    half[:3] = features[:3].roll(1, 0)
    assert retrieval_accuracy(features, half) == 0.5
    assert retrieval_accuracy(torch.zeros(0, 3), torch.zeros(0, 3)) == 0
    drawn = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    other = torch.randn(400, 8, generator=torch.Generator().manual_seed(1))
    assert retrieval_accuracy(drawn, other) < 0.02


def test_it_learns_to_find_a_patch_in_another_sensor_and_does_not_collapse() -> None:
    wanted = small_specification("unet", "intermediate", width=8, dropout=0.0, statistics_dropout=0.0)
    model = small_model(wanted)
    settings = DenseAlignmentSettings(tokens=16, channels=16, dropout=0.0, radius_m=15.0)
    objective = DenseAlignment(model, settings).train()
    trained = [p for module in (model, objective) for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=0.01)
    found = []
    for seed in range(60):
        windows = shared_ground(wanted, 16, 6, seed)
        part = Windows({name: windows.values[name] for name in ("optical", "sar")}, windows.geography)
        terms = objective(step_of(model, part, seed))
        optimizer.zero_grad()
        backward(terms)
        optimizer.step()
        found.append(objective.monitors()["retrieval"])
    assert sum(found[-5:]) > 3 * sum(found[:5])
    assert objective._last is not None
    assert spread_of(objective._last[0]) > 0.4
