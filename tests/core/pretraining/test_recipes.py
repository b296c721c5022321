"""The recipes: each learns on four windows, with one input, three and a missing one; each switch switches its part."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from core.errors import UsageError
from core.models.architectures import ARCHITECTURES
from core.models.registry import model_step
from core.pretraining.methods import METHODS
from core.pretraining.objectives.objective import Step, Windows
from core.pretraining.recipes.build import RECIPES, make_recipe
from tests.core.pretraining.models import small_model, small_specification, small_windows

EVERY_METHOD = pytest.mark.parametrize("method", list(METHODS))
SMALL = {
    "asymmetric_attention": {"queue": 8},
    "cross_scale_mae": {"queue": 0},
    "cross_sensor_alignment": {"outputs": 64, "tokens": 8, "local_crops": 1},
}
"""Heads and queues of a size that a test can afford."""


def model_for(method, modalities="three", **switches):
    recipe = make_recipe(method, "small", SMALL.get(method, {}) | switches)
    entry = ARCHITECTURES[METHODS[method].architecture]
    wanted = small_specification(entry.encoder, entry.fusion, modalities, entry.stem, head="embedding", n_classes=1)
    wanted = recipe.specification(wanted)
    recipe.check(wanted)
    return recipe, wanted, small_model(wanted)


def learned(method, modalities="three", steps=12, absent=None, **switches) -> list[float]:
    """The losses of some steps on the same four windows."""
    recipe, wanted, model = model_for(method, modalities, **switches)
    torch.manual_seed(0)
    objective = recipe.objective(model).train()
    side = -(-32 // model_step(wanted)) * model_step(wanted)
    windows = small_windows(wanted, side, 4)
    values = {name: each for name, each in windows.values.items() if name != absent}
    parameters = [p for module in (model, objective) for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3)
    losses = []
    for number in range(steps):
        # The same draw every time: four windows, and nothing else to be learned.
        generator = torch.Generator().manual_seed(5)
        torch.manual_seed(5)
        terms = objective(Step(model, Windows(values, windows.geography), generator, number / steps))
        loss = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        objective.after_step(model, (number + 1) / steps)
        losses.append(float(loss))
    return losses


@EVERY_METHOD
def test_every_recipe_learns_four_windows(method):
    # A queue fills with what was learned, and a teacher moves: their losses may rise at first.
    switches = {"kind": "nt_xent"} if method == "asymmetric_attention" else {}
    if method == "cross_sensor_alignment":
        switches = {"distillation": "false"}
    losses = learned(method, steps=10, **switches)
    assert all(loss == loss for loss in losses)
    assert min(losses[-3:]) < losses[0] - 0.02 * abs(losses[0])


@EVERY_METHOD
def test_every_recipe_takes_one_input_and_a_missing_one(method):
    if method not in ("sar_optical_contrast_late", "cross_sensor_alignment"):
        assert all(torch.isfinite(torch.tensor(learned(method, "one", steps=1))))
    assert all(torch.isfinite(torch.tensor(learned(method, "three", steps=1, absent="sar"))))


@pytest.mark.parametrize("method", ["sar_optical_contrast_late", "cross_sensor_alignment"])
def test_what_needs_two_inputs_says_so(method):
    with pytest.raises(UsageError, match="two sensors"):
        model_for(method, "one")


def terms_of(method, modalities="three", **switches) -> set[str]:
    recipe, wanted, model = model_for(method, modalities, **switches)
    windows = small_windows(wanted, -(-32 // model_step(wanted)) * model_step(wanted), 4)
    return set(recipe.objective(model)(Step(model, windows, torch.Generator().manual_seed(0))))


def test_every_term_can_be_switched_off():
    method = "sar_optical_contrast_intermediate"
    everything = terms_of(method)
    assert {"image", "superpixel"} < everything
    assert everything - terms_of(method, cross_modal=False) == everything - {"image", "superpixel"}
    assert "image" not in terms_of(method, image=False, cross_modal=False)
    assert "superpixel" not in terms_of(method, superpixel=False)
    both = terms_of("cross_sensor_alignment")
    assert both == {"self_distillation", "dense_alignment"}
    assert terms_of("cross_sensor_alignment", alignment=False) == {"self_distillation"}
    assert terms_of("cross_sensor_alignment", distillation=False) == {"dense_alignment"}
    assert terms_of("cross_scale_mae") - terms_of("cross_scale_mae", contrast=False) == {
        f"cross-scale {name}" for name in ("optical", "sar", "dsm")
    }
    for method in ("sar_optical_contrast_early", "sar_optical_contrast_late"):
        with pytest.raises(UsageError, match="switched off"):
            terms_of(method, image=False, superpixel=False)


def test_switches_of_the_model_change_its_parts():
    assert model_for("cross_scale_mae")[1].fusion == "cross_attention_and_modality"
    assert model_for("cross_scale_mae", cross_attention=False)[1].fusion == "cross_modality"
    assert model_for("cross_scale_mae", cross_modality=False)[1].fusion == "cross_attention"
    assert model_for("cross_scale_mae", cross_attention=False, cross_modality=False)[1].fusion == "joint_tokens"
    one, other = model_for("asymmetric_attention")[1], model_for("asymmetric_attention", asymmetry=False)[1]
    assert (one.attention_direction, other.attention_direction) == ("auxiliary_to_main", "both")
    assert not model_for("asymmetric_attention", transfer_gate=False)[1].has_transfer_gate
    assert model_for("anchor_aware_mae")[1].has_geography
    assert not model_for("anchor_aware_mae", geography=False)[1].has_geography


def test_switches_of_the_objective_change_its_parts():
    recipe, _, model = model_for("cross_scale_mae", pools_inside_crop=True)
    assert recipe.objective(model).contrast.settings.pools_inside_crop
    recipe, _, model = model_for("sar_optical_contrast_late", segments="slic")
    assert recipe.objective(model).superpixel.settings.method == "slic"
    recipe, _, model = model_for("anchor_aware_mae", anchor_choice="finest")
    assert recipe.objective(model).masks.anchor == "finest"


@pytest.mark.parametrize(
    ("method", "switches", "words"),
    [
        ("anchor_aware_mae", {"mask_ratio": "1.5"}, "between 0.01 and 0.99"),
        ("anchor_aware_mae", {"mask_ratio": "nan"}, "between 0.01 and 0.99"),
        ("latent_targets", {"ratio": "75"}, "between 0.01 and 0.99"),
        ("latent_targets", {"withheld": 2}, "between 0 and 1"),
        ("latent_targets", {"pixels": "inf"}, "0 or more"),
        ("cross_scale_mae", {"weight": -1}, "0 or more"),
        ("cross_scale_mae", {"queue": "inf"}, "is a number"),
        ("cross_scale_mae", {"least_ratio": 0.7}, "larger than the largest"),
        ("asymmetric_attention", {"queue": 0}, "'moco'"),
        ("asymmetric_attention", {"momentum": 3}, "between 0 and 1"),
        ("cross_sensor_alignment", {"outputs": 0}, "between 2"),
        ("sar_optical_contrast_late", {"shift": -0.5}, "between 0 and"),
    ],
)
def test_values_that_no_training_can_have_are_refused(method, switches, words):
    with pytest.raises(UsageError, match=words):
        make_recipe(method, "small", switches)


@EVERY_METHOD
def test_every_number_has_a_range_that_holds_its_defaults(method):
    for setting in ("small", "paper"):
        recipe = make_recipe(method, setting, {})
        own = {field.name: getattr(recipe, field.name) for field in fields(recipe)}
        numbers = {name: value for name, value in own.items() if isinstance(value, int | float) and not isinstance(value, bool)}
        assert make_recipe(method, setting, numbers) == recipe


@pytest.mark.parametrize(
    ("method", "switch"),
    [("asymmetric_attention", "asymmetry"), ("asymmetric_attention", "transfer_gate"), ("cross_scale_mae", "cross_attention")],
)
def test_a_switch_with_nothing_to_switch_is_refused(method, switch):
    wanted = small_specification("unet", "early", head="embedding", n_classes=1)
    make_recipe(method).check(make_recipe(method).specification(wanted))
    recipe = make_recipe(method, "small", {switch: False})
    with pytest.raises(UsageError, match="fusion is 'early'"):
        recipe.check(recipe.specification(wanted))


@EVERY_METHOD
def test_published_settings_are_there_and_every_switch_has_a_line(method):
    paper, small = make_recipe(method, "paper"), make_recipe(method)
    assert type(paper) is type(small) is RECIPES[method]
    assert small.settings("paper") != small.settings("small")
    text = "".join(cls.__doc__ or "" for cls in type(small).__mro__)
    for field in fields(small):
        assert field.name in text, field.name


def test_wrong_switches_are_named():
    with pytest.raises(UsageError, match=r"no switch 'contrst'.*contrast \(True\)"):
        make_recipe("cross_scale_mae", "small", {"contrst": "false"})
    with pytest.raises(UsageError, match="'contrast' is on or off, not 'maybe'"):
        make_recipe("cross_scale_mae", "small", {"contrast": "maybe"})
    with pytest.raises(UsageError, match="'mask_ratio' is a number"):
        make_recipe("cross_scale_mae", "small", {"mask_ratio": "much"})
    with pytest.raises(UsageError, match="'kind' is not 'byol'"):
        make_recipe("asymmetric_attention", "small", {"kind": "byol"})
    recipe = make_recipe("cross_scale_mae", "small", {"contrast": "false", "mask_ratio": "0.5", "queue": 3.0})
    assert (recipe.contrast, recipe.mask_ratio, recipe.queue) == (False, 0.5, 3)
