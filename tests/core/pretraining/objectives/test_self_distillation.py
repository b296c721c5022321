"""Self-distillation: the loss by loops, the centre, the crops, and the teacher."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from core.models.fusion_model import FusionModel
from core.pretraining.objectives.objective import Windows
from core.pretraining.objectives.self_distillation import (
    GLOBAL_VIEWS,
    LOCAL_VIEWS,
    SelfDistillation,
    SelfDistillationSettings,
    shrink_of,
)
from core.pretraining.views import draw_maps
from tests.core.pretraining.models import small_model, small_specification, small_windows, step_of
from tests.core.pretraining.objectives.learning import assert_sound, backward, fields, state_of


def made(names: tuple[str, ...] | None = None, **options: Any) -> tuple[FusionModel, SelfDistillation]:
    model = small_model(small_specification("unet", "intermediate"))
    return model, SelfDistillation(model, SelfDistillationSettings(12, 8, 4, **options), names).train()


def heard(objective: SelfDistillation) -> tuple[list[Tensor], list[Tensor]]:
    """What student and teacher will say, collected."""
    told: list[Tensor] = []
    taught: list[Tensor] = []
    objective.head.register_forward_hook(lambda *call: told.append(call[2].detach()))
    objective.head_teacher.register_forward_hook(lambda *call: taught.append(call[2]))
    return told, taught


@pytest.mark.parametrize("n_local", [0, 2])
def test_the_loss_is_that_of_a_loop_over_pairs_of_crops(n_local: int) -> None:
    model, objective = made(n_local=n_local, weight=2.0)
    objective.centre.copy_(torch.linspace(-0.1, 0.1, 12))
    told, taught = heard(objective)
    found = float(objective(step_of(model, fields(model.specification, 32, 3)))["self_distillation"].detach())
    crops = [crop for scores in told for crop in scores.split(3)]
    assert len(crops) == 2 + n_local
    losses = []
    for number, teacher in enumerate(taught[0].split(3)):
        for other, student in enumerate(crops):
            if other == number:
                continue
            for row in range(3):
                target = [math.exp((float(t) - float(c)) / 0.04) for t, c in zip(teacher[row], objective.centre, strict=True)]
                scores = [float(s) / 0.1 for s in student[row]]
                total = math.log(sum(math.exp(score) for score in scores))
                losses.append(-sum(t / sum(target) * (s - total) for t, s in zip(target, scores, strict=True)))
    assert found == pytest.approx(2 * sum(losses) / len(losses), rel=1e-4)


def test_the_centre_moves_to_what_the_teacher_says_on_average() -> None:
    model, objective = made(n_local=0, centre_momentum=0.75)
    objective.centre.fill_(0.2)
    _, taught = heard(objective)
    for seed in range(2):  # Two batches that make one step of the optimiser.
        objective(step_of(model, fields(model.specification, 16, 3), seed))
    assert torch.equal(objective.centre, torch.full((12,), 0.2))
    objective.after_step(model, 0.0)
    expected = 0.75 * 0.2 + 0.25 * torch.cat(taught).mean(dim=0)
    torch.testing.assert_close(objective.centre, expected)
    objective.after_step(model, 0.0)
    torch.testing.assert_close(objective.centre, expected)


def test_teachers_of_model_and_head_follow_with_a_rising_momentum() -> None:
    model, objective = made(momentum=0.5)
    pairs = [(model, objective.teacher), (objective.head, objective.head_teacher)]
    for done, rate in ((0.0, 0.5), (0.5, 0.25), (1.0, 0.0)):
        before = [state_of(teacher.module) for _, teacher in pairs]
        with torch.no_grad():
            for module, _ in pairs:
                for parameter in module.parameters():
                    parameter.add_(1.0)
        objective.after_step(model, done)
        for (module, teacher), state in zip(pairs, before, strict=True):
            for name, parameter in module.named_parameters():
                torch.testing.assert_close(teacher.module.get_parameter(name), state[name].lerp(parameter, rate))


def test_no_gradient_goes_through_the_teacher() -> None:
    model, objective = made()
    backward(objective(step_of(model, fields(model.specification, 16, 2))))
    for teacher in (objective.teacher, objective.head_teacher):
        assert all(parameter.grad is None for parameter in teacher.parameters())
    assert any(parameter.grad is not None for parameter in model.parameters())


def test_crops_have_the_published_parts_of_the_area() -> None:
    for views, least, most in ((GLOBAL_VIEWS, 0.4, 1.0), (LOCAL_VIEWS, 0.05, 0.4)):
        maps = draw_maps(2000, views, torch.Generator().manual_seed(0))
        areas = torch.linalg.det(maps[:, :, :2]).abs()
        assert least <= float(areas.min()) < 1.05 * least
        assert 0.98 * most < float(areas.max()) <= most


@pytest.mark.parametrize(("side", "shrink"), [(16, 1), (24, 1), (32, 2), (34, 1), (36, 2)])
def test_local_crops_are_smaller_where_enough_is_left_of_every_modality(side: int, shrink: int) -> None:
    model, objective = made(n_local=1)
    windows = small_windows(model.specification, side)
    assert shrink_of(model, windows) == shrink
    seen: list[int] = []
    features = model.features

    def look(values: dict[str, Tensor], **options: Any) -> Any:
        seen.append(values["optical"].shape[-1])
        return features(values, **options)

    model.features = look  # type: ignore[method-assign,assignment]
    assert_sound(objective, model, objective(step_of(model, windows)))
    assert seen == [side, side // shrink]


def test_modalities_can_be_chosen_and_be_seen_apart() -> None:
    model, objective = made(("sar",), n_local=1)
    windows = fields(model.specification, 16, 3)
    first = objective(step_of(model, windows))
    assert_sound(objective, model, first)
    stems = {name for name, parameter in model.named_parameters() if "stems" in name and parameter.grad is not None}
    assert stems
    assert all("sar" in name for name in stems)
    without = Windows({"dsm": windows.values["dsm"]}, windows.geography)
    assert objective(step_of(model, without)) == {}
    model, objective = made(is_apart=True, n_local=0)
    told, _ = heard(objective)
    assert_sound(objective, model, objective(step_of(model, windows)))
    assert len(told) == 3


def test_a_crop_that_shows_nothing_counts_for_nothing() -> None:
    model, objective = made(n_local=1)
    windows = fields(model.specification, 16, 3)
    told, taught = heard(objective)
    for values in windows.values.values():
        values[1] = torch.nan
    found = float(objective(step_of(model, windows))["self_distillation"].detach())
    crops = [crop for scores in told for crop in scores.split(3)]
    losses = []
    for number, teacher in enumerate(taught[0].split(3)):
        target = (teacher / 0.04).softmax(dim=1)
        for other, student in enumerate(crops):
            if other != number:
                losses.append(-(target * (student / 0.1).log_softmax(dim=1)).sum(dim=1)[[0, 2]])
    assert found == pytest.approx(float(torch.cat(losses).mean()), rel=1e-5)


def test_the_entropy_of_the_teacher_shows_collapse_both_ways() -> None:
    model, objective = made(n_local=0)
    step = step_of(model, fields(model.specification, 16, 6))
    assert objective.monitors() == {}

    def taught(scores: Tensor) -> dict[str, float]:
        hook = objective.head_teacher.register_forward_hook(lambda *call: scores)
        objective(step)
        hook.remove()
        return objective.monitors()

    nothing = taught(torch.zeros(12, 12))
    assert nothing["teacher_entropy"] == pytest.approx(1, abs=1e-6)
    same = taught(torch.eye(12)[:1].expand(12, 12))
    assert same["teacher_entropy"] == pytest.approx(0, abs=1e-3)
    assert same["teacher_variety"] == pytest.approx(0, abs=1e-3)
    sound = taught(torch.eye(12))
    assert sound["teacher_entropy"] == pytest.approx(0, abs=1e-3)
    assert sound["teacher_variety"] == pytest.approx(1, abs=1e-3)


def test_four_windows_are_learned_from_a_teacher_that_stays() -> None:
    # A teacher that moves changes what is to be learned, and its loss need not fall.
    model, objective = made(n_local=1, momentum=1.0, final_momentum=1.0)
    windows = fields(model.specification, 32, 4)
    trained = [p for module in (model, objective) for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-3)
    losses = []
    for number in range(60):
        optimizer.zero_grad()
        torch.manual_seed(5)
        terms = objective(step_of(model, windows, 5))
        losses.append(float(terms["self_distillation"].detach()))
        backward(terms)
        optimizer.step()
        objective.after_step(model, number / 60)
        objective.centre.zero_()
    assert min(losses[-3:]) < 0.9 * losses[0]
