"""Contrast of windows: the three losses by hand, the queue, and the cross-modal term."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from core.models.features import Features
from core.models.fusion_model import FusionModel
from core.models.specification import FusionName
from core.pretraining.info_nce import ContrastSettings
from core.pretraining.objectives.image_contrast import ImageContrast, ImageContrastKind, ImageContrastSettings
from core.pretraining.objectives.objective import Step
from core.pretraining.view_pairs import FeaturePair, PairSettings, ViewPair, draw_pair, encode_pair
from tests.core.pretraining.models import small_model, small_specification, step_of
from tests.core.pretraining.objectives.learning import assert_unchanged, backward, fields, shared_ground, state_of, vectors

PLAIN = ContrastSettings(1.0)


def made(fusion: FusionName = "intermediate", between: bool = False, **options: object) -> tuple[FusionModel, ImageContrast]:
    model = small_model(small_specification("unet", fusion))
    settings = ImageContrastSettings(channels=8, own_channels=4, queue=7, **options)  # type: ignore[arg-type]
    return model, ImageContrast(model, settings, PairSettings(between_modalities=between)).train()


def stepped(model: FusionModel, batch: int = 3, seed: int = 0) -> Step:
    return step_of(model, fields(model.specification, 16, batch, seed), seed)


def by_hand(step: Step, first: Features, second: Features) -> FeaturePair:
    """Features as if they were of two views of the windows."""
    unmoved = torch.eye(2, 3, dtype=torch.float64).repeat(len(step.windows), 1, 1)
    return FeaturePair(ViewPair(step.windows, step.windows, unmoved, unmoved), first, second)


def test_nt_xent_by_hand() -> None:
    model, objective = made(contrast=PLAIN, weight=0.5)
    objective.head = nn.Identity()  # type: ignore[assignment]
    step = stepped(model, 2)
    # Of length 2 and 5; only directions count: (1, 0), (0, 1) and (0.8, 0.6), (0.6, 0.8).
    pair = by_hand(step, vectors([[2.0, 0.0], [0.0, 2.0]]), vectors([[4.0, 3.0], [3.0, 4.0]]))
    one = -math.log(math.exp(0.8) / (math.exp(0.8) + math.exp(0.0) + math.exp(0.6)))
    two = -math.log(math.exp(0.8) / (math.exp(0.8) + math.exp(0.6) + math.exp(0.96)))
    assert float(objective.terms(step, pair)["image"]) == pytest.approx(0.5 * (one + two) / 2, rel=1e-6)


def test_a_window_that_a_view_does_not_show_is_left_out() -> None:
    model, objective = made(contrast=PLAIN)
    objective.head = nn.Identity()  # type: ignore[assignment]
    step = stepped(model, 3)
    whole = by_hand(step, vectors([[2.0, 1.0], [0.0, 2.0]]), vectors([[4.0, 3.0], [3.0, 4.0]]))
    gapped = by_hand(step, vectors([[2.0, 1.0], [5.0, 5.0], [0.0, 2.0]]), vectors([[4.0, 3.0], [0.0, 0.0], [3.0, 4.0]]))
    assert torch.equal(objective.terms(step, whole)["image"], objective.terms(step, gapped)["image"])


def test_simsiam_by_hand() -> None:
    model, objective = made(kind="simsiam")
    objective.head = nn.Identity()  # type: ignore[assignment]
    # The predictor turns by a right angle: (x, y) -> (-y, x).
    predictor = nn.Linear(2, 2, bias=False)
    predictor.weight.data = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    objective.predictor = predictor  # type: ignore[assignment]
    step = stepped(model, 1)
    first, second = vectors([[1.0, 0.0]]), vectors([[3.0, 4.0]])
    # (0, 1) against (0.6, 0.8), and (-0.8, 0.6) against (1, 0).
    found = objective.terms(step, by_hand(step, first, second))["image"]
    assert float(found.detach()) == pytest.approx(1 - (0.8 - 0.8) / 2, rel=1e-6)


def test_simsiam_stops_the_gradient_of_what_is_to_be_told() -> None:
    model, objective = made(kind="simsiam")
    objective.predictor = nn.Linear(8, 8, bias=False)  # type: ignore[assignment]
    nn.init.zeros_(objective.predictor.weight)  # type: ignore[union-attr,arg-type]
    backward(objective(stepped(model)))
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in objective.head.parameters())
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.parameters())


def test_moco_tells_the_teachers_keys_from_the_queue() -> None:
    model, objective = made(kind="moco", contrast=PLAIN)
    step = stepped(model, 2)
    pair = encode_pair(model, draw_pair(step, objective.pair))
    keys: list[torch.Tensor] = []
    assert objective.head_teacher is not None
    objective.head_teacher.register_forward_hook(lambda *call: keys.append(call[2]))
    queries: list[torch.Tensor] = []
    objective.head.register_forward_hook(lambda *call: queries.append(call[2]))
    found = objective.terms(step, pair)["image"]
    q, k = (nn.functional.normalize(each[0].detach(), dim=1) for each in (queries, keys))
    queue = objective.queue
    expected = 0.0
    for row, partner in ((0, 2), (1, 3), (2, 0), (3, 1)):
        positive = math.exp(float(q[row] @ k[partner]))
        expected -= math.log(positive / (positive + sum(math.exp(float(q[row] @ each)) for each in queue))) / 4
    assert float(found.detach()) == pytest.approx(expected, rel=1e-5)


def test_the_queue_takes_keys_in_the_place_of_the_oldest() -> None:
    model, objective = made(kind="moco")
    start = objective.queue.clone()
    torch.testing.assert_close(start.norm(dim=1), torch.ones(7))
    objective(stepped(model, 2))
    assert torch.equal(objective.queue, start)
    objective.after_step(model, 0.0)
    first = objective.queue.clone()
    assert torch.equal(first[4:], start[4:])
    assert not (first[:4] == start[:4]).all(dim=1).any()
    # Two batches that make one step of the optimiser: eight keys for seven places, of which the last are kept.
    objective(stepped(model, 2, 1))
    objective(stepped(model, 2, 2))
    objective.after_step(model, 0.5)
    assert not (objective.queue == first).all(dim=1).any()
    assert int(objective.queue_place) == (4 + 7) % 7
    torch.testing.assert_close(objective.queue.norm(dim=1), torch.ones(7))
    full = objective.queue.clone()
    objective.after_step(model, 0.6)
    assert torch.equal(objective.queue, full)


def test_mocos_teacher_follows_after_the_step() -> None:
    model, objective = made(kind="moco", momentum=0.75)
    assert objective.teacher is not None
    before = state_of(objective.teacher)
    objective(stepped(model))
    assert_unchanged(objective.teacher, before)
    name, weight = next(iter(model.named_parameters()))
    with torch.no_grad():
        weight.add_(1.0)
    objective.after_step(model, 0.3)
    torch.testing.assert_close(objective.teacher.module.get_parameter(name), before[f"module.{name}"] + 0.25)


def test_the_cross_modal_term_by_hand() -> None:
    model, objective = made(contrast=PLAIN, has_cross_modal=True, cross_modal_weight=2.0)
    objective.head = nn.Identity()  # type: ignore[assignment]
    objective.own_heads = nn.ModuleDict({name: nn.Identity() for name in model.modalities})
    step = stepped(model, 2)
    own = {"optical": [[2.0, 0.0], [0.0, 2.0]], "sar": [[4.0, 3.0], [3.0, 4.0]]}
    one = -math.log(math.exp(0.8) / (math.exp(0.8) + math.exp(0.0) + math.exp(0.6)))
    two = -math.log(math.exp(0.8) / (math.exp(0.8) + math.exp(0.6) + math.exp(0.96)))
    pooled = [[1.0, 0.0], [0.0, 1.0]]
    both = by_hand(step, vectors(pooled, own), vectors(pooled, own))
    assert float(objective.terms(step, both)["cross_modal"]) == pytest.approx(2 * (one + two), rel=1e-6)
    # Only one view shows two of them.
    single = by_hand(step, vectors(pooled, own), vectors(pooled, {"sar": own["sar"]}))
    assert float(objective.terms(step, single)["cross_modal"]) == pytest.approx(one + two, rel=1e-6)
    # With a third, the mean over the three pairs; of two equal ones: partner at 1, the others at 0 and 0.
    three = vectors(pooled, own | {"dsm": own["optical"]})
    same = -math.log(math.exp(1.0) / (math.exp(1.0) + 2))
    expected = 2 * ((one + two) / 2 * 2 + same) / 3
    alone = by_hand(step, three, vectors(pooled))
    assert float(objective.terms(step, alone)["cross_modal"]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("fusion", ["early", "intermediate", "late"])
@pytest.mark.parametrize("names", [("optical", "sar"), ("sar",)])
def test_the_cross_modal_term_needs_two_modalities_held_apart(fusion: FusionName, names: tuple[str, ...]) -> None:
    model, objective = made(fusion, has_cross_modal=True)
    step = stepped(model)
    windows = type(step.windows)({name: step.windows.values[name] for name in names}, step.windows.geography)
    terms = objective(step_of(model, windows))
    assert ("cross_modal" in terms) == (fusion != "early" and len(names) == 2)


def test_heads_that_nothing_reaches_are_not_made() -> None:
    assert list(made(has_cross_modal=True)[1].own_heads) == ["optical", "sar", "dsm"]
    assert list(made("late", between=True, has_cross_modal=True)[1].own_heads) == ["sar", "dsm"]
    assert not made("early", has_cross_modal=True)[1].own_heads
    assert not made()[1].own_heads


def test_a_window_without_one_of_the_modalities_is_no_sample_of_the_pair() -> None:
    model, objective = made(contrast=PLAIN, has_cross_modal=True)
    objective.head = nn.Identity()  # type: ignore[assignment]
    objective.own_heads = nn.ModuleDict({name: nn.Identity() for name in model.modalities})
    step = stepped(model, 3)
    pooled = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    whole = vectors(pooled, {"optical": [[2.0, 1.0], [0.0, 2.0]], "sar": [[4.0, 3.0], [3.0, 4.0]]})
    gapped = vectors(pooled, {"optical": [[2.0, 1.0], [5.0, 1.0], [0.0, 2.0]], "sar": [[4.0, 3.0], [0.0, 0.0], [3.0, 4.0]]})
    losses = [objective.terms(step, by_hand(step, each, each))["cross_modal"] for each in (whole, gapped)]
    assert torch.equal(losses[0], losses[1])


@pytest.mark.parametrize("kind", ["nt_xent", "simsiam"])
def test_it_learns_to_know_windows_again_and_does_not_collapse(kind: ImageContrastKind) -> None:
    """On windows that it never saw before."""
    wanted = small_specification("unet", "intermediate", width=8, dropout=0.0, statistics_dropout=0.0)
    model = small_model(wanted)
    objective = ImageContrast(model, ImageContrastSettings(kind, ContrastSettings(0.2), channels=16)).train()
    trained = [p for module in (model, objective) for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=0.01)
    losses = []
    for seed in range(25):
        terms = objective(step_of(model, shared_ground(wanted, 16, 12, seed), seed))
        optimizer.zero_grad()
        backward(terms)
        optimizer.step()
        losses.append(float(terms["image"].detach()))
    assert sum(losses[-5:]) < 0.85 * sum(losses[:5])
    monitors = objective.monitors()
    assert monitors["image_spread"] > 0.5
    assert monitors["image_rank"] > 4
