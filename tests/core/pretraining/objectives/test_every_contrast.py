"""What every contrastive objective keeps to: any part of the modalities, gaps, one window, small windows, repeatability."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch

from core.models.fusion_model import FusionModel
from core.models.specification import EncoderName, FusionName
from core.pretraining.objectives.dense_alignment import DenseAlignment, DenseAlignmentSettings
from core.pretraining.objectives.image_contrast import ImageContrastKind, ImageContrastSettings
from core.pretraining.objectives.objective import Objective, Windows
from core.pretraining.objectives.sar_optical_contrast import SarOpticalContrast
from core.pretraining.objectives.self_distillation import SelfDistillation, SelfDistillationSettings
from core.pretraining.objectives.superpixel_contrast import SuperpixelContrastSettings
from core.pretraining.view_pairs import PairSettings
from core.pretraining.views import ViewSettings
from tests.core.pretraining.models import small_model, small_specification, small_windows, step_of
from tests.core.pretraining.objectives.learning import assert_sound, assert_unchanged, fields, idle_after, state_of

VIEWS = ViewSettings(shift=0.2, gain=0.1, offset=0.1, noise=0.1)


def contrast(kind: ImageContrastKind, is_between: bool) -> Callable[[FusionModel], Objective]:
    image = ImageContrastSettings(kind, channels=8, own_channels=4, queue=6, has_cross_modal=True)
    superpixel = SuperpixelContrastSettings(channels=4)
    return lambda model: SarOpticalContrast(model, image, superpixel, PairSettings(VIEWS, is_between))


def distillation(is_apart: bool) -> Callable[[FusionModel], Objective]:
    settings = SelfDistillationSettings(16, 8, 4, n_local=1, is_apart=is_apart)
    return lambda model: SelfDistillation(model, settings)


def alignment(radius_m: float | None, old: str | None) -> Callable[[FusionModel], Objective]:
    return lambda model: DenseAlignment(model, DenseAlignmentSettings(tokens=8, channels=8, radius_m=radius_m), old)


KINDS: tuple[ImageContrastKind, ...] = ("nt_xent", "moco", "simsiam")
OBJECTIVES = {
    **{f"{kind}{'_late' * is_between}": contrast(kind, is_between) for kind, is_between in product(KINDS, (False, True))},
    "distillation": distillation(False),
    "distillation_apart": distillation(True),
    "alignment": alignment(None, None),
    "alignment_radius": alignment(20.0, None),
    "alignment_old": alignment(None, "sar"),
}
EVERY_OBJECTIVE = pytest.mark.parametrize("name", OBJECTIVES)
MODELS: tuple[tuple[EncoderName, FusionName], ...] = (
    ("unet", "early"),
    ("resnet", "asymmetric_attention"),
    ("resunet", "late"),
    ("vit", "cross_attention_and_modality"),
)


@pytest.mark.parametrize(
    ("name", "encoder", "fusion"),
    [
        *((name, "unet", "intermediate") for name in OBJECTIVES),
        *((name, *parts) for name in ("nt_xent", "moco_late", "distillation_apart", "alignment_radius") for parts in MODELS),
    ],
)
def test_any_part_of_the_modalities_with_gaps_gives_numbers(name: str, encoder: EncoderName, fusion: FusionName) -> None:
    wanted = small_specification(encoder, fusion)
    model = small_model(wanted)
    objective = OBJECTIVES[name](model).train()
    for number, chosen in enumerate((("optical", "sar", "dsm"), ("sar", "dsm"), ("dsm",))):
        windows = small_windows(wanted, 24 if encoder == "resnet" else 16, 2, number, missing=0.02)
        values = {each: windows.values[each] for each in chosen}
        values[chosen[0]][0] = torch.nan  # A modality that one window lacks wholly.
        terms = objective(step_of(model, Windows(values, windows.geography), number))
        assert_sound(objective, model, terms)
        objective.after_step(model, number / 3)
        if name.startswith("alignment"):
            expected = len(chosen) > 1 and ("sar" in chosen or name != "alignment_old")
            assert bool(terms) == expected
        else:
            assert terms


@EVERY_OBJECTIVE
def test_one_window_gives_numbers(name: str) -> None:
    wanted = small_specification("unet", "intermediate")
    model = small_model(wanted)
    objective = OBJECTIVES[name](model).train()
    for seed in range(2):
        assert_sound(objective, model, objective(step_of(model, small_windows(wanted, 16, 1, seed), seed)))
        objective.after_step(model, 0.5)


@EVERY_OBJECTIVE
def test_nothing_known_at_all_gives_numbers(name: str) -> None:
    wanted = small_specification("unet", "intermediate")
    model = small_model(wanted)
    objective = OBJECTIVES[name](model).train()
    terms = objective(step_of(model, small_windows(wanted, 16, 2, missing=1.0)))
    assert_sound(objective, model, terms)
    assert all(float(term.detach()) == 0 for term in terms.values())
    objective.after_step(model, 0.5)
    assert_sound(objective, model, {})


@pytest.mark.parametrize("modalities", ["one", "coarser"])
@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "alignment_old"])
def test_other_sets_of_modalities_run(name: str, modalities: str) -> None:
    wanted = small_specification("unet", "intermediate", modalities)
    model = small_model(wanted)
    objective = OBJECTIVES[name](model).train()
    assert_sound(objective, model, objective(step_of(model, small_windows(wanted, 24, 2))))


@EVERY_OBJECTIVE
def test_every_parameter_of_an_objective_learns(name: str) -> None:
    wanted = small_specification("unet", "intermediate")
    model = small_model(wanted)
    objective = OBJECTIVES[name](model).train()
    idle = idle_after(objective, model, lambda number: fields(wanted, 32, 4, number))
    assert idle == set()


@EVERY_OBJECTIVE
def test_the_same_seed_gives_the_same_bits(name: str) -> None:
    def run() -> list[float]:
        wanted = small_specification("unet", "intermediate")
        model = small_model(wanted)
        objective = OBJECTIVES[name](model).train()
        losses = []
        for seed in range(2):
            torch.manual_seed(seed)
            losses += [float(term.detach()) for term in objective(step_of(model, fields(wanted, 16, 3), seed)).values()]
            objective.after_step(model, seed / 2)
        return losses

    assert run() == run()


@EVERY_OBJECTIVE
def test_teachers_stay_as_they_are_until_the_step_is_done(name: str) -> None:
    wanted = small_specification("unet", "intermediate")
    model = small_model(wanted)
    objective = OBJECTIVES[name](model).train()
    teachers = [module for path, module in objective.named_modules() if path.rpartition(".")[2].endswith("teacher")]
    before = [state_of(teacher) for teacher in teachers]
    terms = objective(step_of(model, fields(wanted, 16, 3)))
    assert_sound(objective, model, terms)
    for teacher, state in zip(teachers, before, strict=True):
        assert_unchanged(teacher, state)
        assert not any(module.training for module in teacher.modules())
        assert all(parameter.grad is None and not parameter.requires_grad for parameter in teacher.parameters())
    assert len(teachers) == {"moco": 2, "distillation": 2}.get(name.split("_")[0], int(name == "alignment_old"))


@EVERY_OBJECTIVE
def test_a_resumed_objective_goes_on_to_the_bit(name: str) -> None:
    wanted = small_specification("unet", "intermediate")

    def step(objective: Objective, model: FusionModel, seed: int) -> float:
        torch.manual_seed(seed)
        total = torch.stack(list(objective(step_of(model, fields(wanted, 16, 3), seed)).values())).sum()
        objective.after_step(model, seed / 4)
        return float(total.detach())

    model = small_model(wanted)
    whole = OBJECTIVES[name](model).train()
    for seed in range(2):
        step(whole, model, seed)
    model_state, state = state_of(model), state_of(whole)
    expected = step(whole, model, 2)
    other = small_model(wanted, seed=5)
    resumed = OBJECTIVES[name](other).train()
    other.load_state_dict(model_state)
    resumed.load_state_dict(state)
    assert step(resumed, other, 2) == expected


@EVERY_OBJECTIVE
def test_half_precision_changes_losses_little(name: str) -> None:
    """As the loop trains on a GPU: networks in bfloat16, similarities in single precision."""
    wanted = small_specification("unet", "intermediate", dropout=0.0, statistics_dropout=0.0)
    losses = []
    for is_half in (False, True):
        model = small_model(wanted)
        objective = OBJECTIVES[name](model).train()
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            terms = objective(step_of(model, fields(wanted, 32, 4)))
        assert_sound(objective, model, terms)
        objective.after_step(model, 0.5)
        assert all(term.dtype == torch.float32 for term in terms.values())
        losses.append({term: float(value.detach()) for term, value in terms.items()})
    assert losses[0].keys() == losses[1].keys()
    for term, loss in losses[0].items():
        assert losses[1][term] == pytest.approx(loss, rel=0.15, abs=0.03)
