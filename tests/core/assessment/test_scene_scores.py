"""Scores of scenes against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from core.assessment.scene_scores import given_classes, scene_scores

NAMES = ("water", "trees", "crops", "bare")


def truth_of(*rows: str) -> np.ndarray:
    return np.array([[name[0] in row for name in NAMES] for row in rows])


def test_one_class_a_unit():
    """Of four units two are right, one is right in the second place, one in the fourth."""
    shares = np.array([[0.7, 0.1, 0.1, 0.1], [0.2, 0.5, 0.2, 0.1], [0.4, 0.3, 0.2, 0.1], [0.4, 0.3, 0.2, 0.1]])
    truth = truth_of("w", "t", "t", "b")
    found = scene_scores(shares, truth, given_classes(shares, None), NAMES)
    assert found.n_units == 4
    assert found.top1 == 2 / 4
    assert found.top3 == 3 / 4
    # Water: 1 of 3 said, 1 of 1 found; trees: 1 of 1 and 1 of 2; bare: none; crops: neither said nor there.
    assert found.f1[0] == pytest.approx(2 / 4)
    assert found.f1[1] == pytest.approx(2 / 3)
    assert math.isnan(found.f1[2])
    assert found.f1[3] == 0
    assert found.macro_f1 == pytest.approx((2 / 4 + 2 / 3 + 0) / 3)
    assert found.support == (1, 2, 0, 1)
    # Water stands first of all. Trees: the first, and two that are alike stand second with one of them right. Bare: all alike.
    assert found.average_precision[0] == 1
    assert found.average_precision[1] == pytest.approx(0.5 * 1 + 0.5 * (2 / 3))
    assert math.isnan(found.average_precision[2])
    assert found.average_precision[3] == pytest.approx(1 / 4)
    assert found.mean_average_precision == pytest.approx((1 + 5 / 6 + 1 / 4) / 3)


def test_several_classes_a_unit():
    shares = np.array([[0.9, 0.6, 0.1, 0.1], [0.8, 0.3, 0.2, 0.1], [0.1, 0.2, 0.7, 0.1]])
    truth = truth_of("wt", "t", "c")
    said = given_classes(shares, 0.5)
    assert said.tolist() == [[True, True, False, False], [True, False, False, False], [False, False, True, False]]
    found = scene_scores(shares, truth, said, NAMES)
    assert found.top1 == pytest.approx(2 / 3)
    assert found.top3 == 1
    # Water: said twice, once rightly; trees: of two found one; crops: right.
    assert found.f1[:3] == pytest.approx((2 / 3, 2 / 3, 1))
    assert found.macro_f1 == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert found.mean_average_precision == 1
    # All twelve pairs sorted: 0.9 yes, 0.8 no, 0.7 yes, 0.6 yes, 0.3 yes.
    assert found.micro_average_precision == pytest.approx((1 + 2 / 3 + 3 / 4 + 4 / 5) / 4)


def test_a_unit_below_the_threshold_has_its_most_probable_class():
    assert given_classes(np.array([[0.2, 0.3, 0.1]]), 0.9).tolist() == [[False, True, False]]


@pytest.mark.parametrize(
    ("shares", "truth"),
    [(np.zeros((2, 4)), truth_of("w")), (np.zeros((1, 4)), truth_of("")), (np.zeros((0, 4)), np.zeros((0, 4), bool))],
)
def test_what_cannot_be_scored(shares, truth):
    with pytest.raises(ValueError):
        scene_scores(shares, truth, np.zeros_like(truth), NAMES)
