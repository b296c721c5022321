"""InfoNCE against values worked out by hand and against its equations written as loops."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from core.pretraining.info_nce import ContrastSettings, info_nce, soft_contrast

FORMS = [
    ContrastSettings(temperature, share, hardness)
    for temperature, share, hardness in product((0.5, 0.1), (0.0, 0.1), (0.0, 1.0, 2.0))
]


def unit_rows(rows: int, channels: int, seed: int) -> Tensor:
    drawn = torch.randn(rows, channels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return functional.normalize(drawn, dim=1)


def dot(one: Tensor, other: Tensor) -> float:
    return sum(float(a) * float(b) for a, b in zip(one, other, strict=True))


def row_loss(positive: float, negatives: list[float], settings: ContrastSettings) -> float:
    """The published equations, one anchor."""
    count, t, share = len(negatives), settings.temperature, settings.negative_share
    p, n = math.exp(positive / t), [math.exp(value / t) for value in negatives]
    weights = [value**settings.hardness for value in n]
    mean_weight = sum(weights) / count
    reweighted = sum(w * value for w, value in zip(weights, n, strict=True)) / mean_weight
    total = max((reweighted - share * count * p) / (1 - share), count * math.exp(-1 / t)) if share else reweighted
    return -math.log(p / (p + total))


def looped(first: Tensor, second: Tensor, settings: ContrastSettings, queue: Tensor | None) -> float:
    losses = []
    for views in ((first, second), (second, first)) if queue is None else ((first, second),):
        for row in range(len(first)):
            others = [each for view in views for i, each in enumerate(view) if i != row] if queue is None else list(queue)
            negatives = [dot(views[0][row], other) for other in others]
            losses.append(row_loss(dot(views[0][row], views[1][row]), negatives, settings))
    return sum(losses) / len(losses)


def test_two_windows_by_hand() -> None:
    first = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    second = torch.tensor([[0.8, 0.6], [0.6, 0.8]], dtype=torch.float64)
    # With t = 1, row (1, 0): its partner is at 0.8, and (0, 1) and (0.6, 0.8) at 0 and 0.6. Row (0.8, 0.6): its partner
    # is at 0.8, and (0, 1) and (0.6, 0.8) at 0.6 and 0.96. The other two are the same mirrored.
    one = -math.log(math.exp(0.8) / (math.exp(0.8) + math.exp(0.0) + math.exp(0.6)))
    two = -math.log(math.exp(0.8) / (math.exp(0.8) + math.exp(0.6) + math.exp(0.96)))
    found = info_nce(first, second, ContrastSettings(1.0))
    assert float(found) == pytest.approx((one + two) / 2, rel=1e-12)


def test_debiased_and_hard_by_hand() -> None:
    first = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    second = torch.tensor([[0.6, 0.8]], dtype=torch.float64)
    queue = torch.tensor([[0.8, 0.6], [0.0, 1.0]], dtype=torch.float64)
    # t = 1, beta = 1, tau_plus = 0.1: p = e^0.6; the negatives n are e^0.8 and 1, and so are their weights.
    p, n = math.exp(0.6), (math.exp(0.8), 1.0)
    r = (n[0] * n[0] + n[1] * n[1]) / ((n[0] + n[1]) / 2)
    g = (r - 0.1 * 2 * p) / 0.9
    found = info_nce(first, second, ContrastSettings(1.0, 0.1, 1.0), queue=queue)
    assert float(found) == pytest.approx(-math.log(p / (p + g)), rel=1e-12)


@pytest.mark.parametrize("settings", FORMS, ids=str)
@pytest.mark.parametrize("rows", [2, 3, 7])
def test_every_form_is_its_equation(rows: int, settings: ContrastSettings) -> None:
    first, second, queue = (unit_rows(count, 5, seed) for seed, count in enumerate((rows, rows, 4)))
    assert float(info_nce(first, second, settings)) == pytest.approx(looped(first, second, settings, None), rel=1e-9)
    found = info_nce(first, second, settings, queue=queue)
    assert float(found) == pytest.approx(looped(first, second, settings, queue), rel=1e-9)


def test_the_bound_of_the_debiased_form_is_reached() -> None:
    """Where the positive outweighs all negatives, the least that they can be is taken."""
    first = second = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    settings = ContrastSettings(0.2, 0.1)
    p, g = math.exp(5.0), 2 * math.exp(-5.0)
    assert float(info_nce(first, second, settings)) == pytest.approx(-math.log(p / (p + g)), rel=1e-9)


@pytest.mark.parametrize("temperature", [0.5, 0.05, 0.005])
@pytest.mark.parametrize("kind", ["same", "opposite", "random"])
def test_small_temperatures_stay_finite(temperature: float, kind: str) -> None:
    first = unit_rows(4, 6, 0).float().requires_grad_(True)
    second = {"same": first.detach(), "opposite": -first.detach(), "random": unit_rows(4, 6, 1).float()}[kind]
    for settings in (ContrastSettings(temperature, share, hardness) for share in (0.0, 0.1) for hardness in (0.0, 1.0)):
        loss = info_nce(first, second, settings)
        (gradient,) = torch.autograd.grad(loss, first)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()


def test_without_a_negative_it_is_zero_and_says_so_with_a_gradient() -> None:
    for rows in (0, 1):
        first = unit_rows(rows, 3, 0).requires_grad_(True)
        loss = info_nce(first, unit_rows(rows, 3, 1), ContrastSettings())
        loss.backward()  # type: ignore[no-untyped-call]
        assert float(loss.detach()) == 0
        assert first.grad is not None
        assert not first.grad.any()
    empty = unit_rows(0, 3, 0)
    assert float(info_nce(empty, empty, ContrastSettings(), queue=unit_rows(4, 3, 1))) == 0


def test_a_queue_passes_no_gradient_to_the_keys() -> None:
    first, second = (unit_rows(3, 4, seed).requires_grad_(True) for seed in (0, 1))
    info_nce(first, second, ContrastSettings(), queue=unit_rows(5, 4, 2)).backward()  # type: ignore[no-untyped-call]
    assert first.grad is not None
    assert first.grad.any()
    assert second.grad is None


def test_harder_negatives_weigh_more_and_fewer_of_them_less() -> None:
    first, second = unit_rows(6, 4, 0), unit_rows(6, 4, 1)
    plain = info_nce(first, second, ContrastSettings(0.5))
    assert info_nce(first, second, ContrastSettings(0.5, hardness=1.0)) > plain
    near = functional.normalize(first + 0.1 * second, dim=1)
    assert info_nce(first, near, ContrastSettings(0.5, 0.1)) < info_nce(first, near, ContrastSettings(0.5))


def test_soft_contrast_by_hand() -> None:
    logits = torch.tensor([[2.0, 1.0], [0.0, 3.0]], dtype=torch.float64)
    targets = torch.tensor([[0.7, 0.3], [0.2, 0.8]], dtype=torch.float64)

    def entropy(target: list[float], row: list[float]) -> float:
        total = sum(math.exp(value) for value in row)
        return -sum(t * math.log(math.exp(value) / total) for t, value in zip(target, row, strict=True))

    rows = [
        (entropy([0.7, 0.3], [2.0, 1.0]) + entropy([0.7, 0.3], [2.0, 0.0])) / 2,
        (entropy([0.2, 0.8], [0.0, 3.0]) + entropy([0.2, 0.8], [1.0, 3.0])) / 2,
    ]
    assert float(soft_contrast(logits, targets)) == pytest.approx(sum(rows) / 2, rel=1e-12)
    weighted = soft_contrast(logits, targets, torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert float(weighted) == pytest.approx(rows[1], rel=1e-12)
    batched = soft_contrast(logits.expand(3, 2, 2), targets.expand(3, 2, 2))
    assert float(batched) == pytest.approx(sum(rows) / 2, rel=1e-12)
