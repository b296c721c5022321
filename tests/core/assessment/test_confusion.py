"""Confusion matrix, scores and intervals."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics

from core.assessment.confusion import accuracy, bootstrap_interval, confusion_matrix

NAMES = ("a", "b", "c", "d")


def test_rows_are_the_map_and_columns_the_reference() -> None:
    mapped = np.array([[0, 0, 1], [2, 2, 2]])
    reference = np.array([[0, 1, 1], [2, 0, 2]])
    expected = [[1, 1, 0], [0, 1, 0], [1, 0, 2]]
    assert confusion_matrix(mapped, reference, 3).tolist() == expected
    assert confusion_matrix(mapped, reference, 3).dtype == np.int64


def test_negative_on_either_side_is_ignored() -> None:
    mapped = np.array([0, -1, 1, -3], dtype=np.int8)
    reference = np.array([0, 1, -1, -1], dtype=np.int8)
    assert confusion_matrix(mapped, reference, 2).tolist() == [[1, 0], [0, 0]]


def test_small_types_do_not_overflow() -> None:
    mapped = np.full(3, 200, dtype=np.uint8)
    counts = confusion_matrix(mapped, mapped, 201)
    assert counts[200, 200] == 3
    assert counts.sum() == 3


def test_nothing_to_compare_gives_zeros() -> None:
    assert confusion_matrix(np.array([], dtype=int), np.array([], dtype=int), 2).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("mapped", "reference", "n_classes", "message"),
    [
        (np.zeros(3, int), np.zeros(4, int), 2, r"\(3,\) and \(4,\)"),
        (np.zeros(3), np.zeros(3, int), 2, "map is float64"),
        (np.zeros(3, int), np.array([0, 1, 2]), 2, "below 2; the reference has 2"),
        (np.zeros(3, int), np.zeros(3, int), 0, "at least one class"),
    ],
)
def test_wrong_input_is_named(mapped: np.ndarray, reference: np.ndarray, n_classes: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        confusion_matrix(mapped, reference, n_classes)


@settings(deadline=None, max_examples=60)
@given(hnp.arrays(np.int64, st.tuples(st.just(2), st.integers(2, 80)), elements=st.integers(0, 3)))
def test_scores_equal_scikit_learn(pairs: np.ndarray) -> None:
    mapped, reference = pairs
    scores = accuracy(confusion_matrix(mapped, reference, 4), NAMES)
    present = sorted(set(mapped.tolist()) | set(reference.tolist()))
    options = {"labels": present, "average": None, "zero_division": 0.0}
    for own, theirs in (
        (scores.f1, metrics.f1_score(reference, mapped, **options)),
        (scores.iou, metrics.jaccard_score(reference, mapped, **options)),
    ):
        np.testing.assert_allclose(np.array(own)[present], theirs)
    assert scores.overall_accuracy == pytest.approx(metrics.accuracy_score(reference, mapped))
    assert scores.macro_f1 == pytest.approx(np.mean(metrics.f1_score(reference, mapped, **options)))
    assert scores.mean_iou == pytest.approx(np.mean(metrics.jaccard_score(reference, mapped, **options)))
    options["zero_division"] = np.nan
    np.testing.assert_allclose(np.array(scores.users_accuracy)[present], metrics.precision_score(reference, mapped, **options))
    np.testing.assert_allclose(np.array(scores.producers_accuracy)[present], metrics.recall_score(reference, mapped, **options))
    if len(present) > 1:
        assert scores.kappa == pytest.approx(metrics.cohen_kappa_score(reference, mapped, labels=present))


def test_absent_classes_are_nan_and_do_not_count() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # 'b' is only in the reference, 'c' only in the map, 'd' in neither.
        scores = accuracy(np.array([[6, 2, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]), NAMES)
    assert scores.support == (7, 3, 0, 0)
    assert scores.mapped == (8, 0, 2, 0)
    assert scores.present == (True, True, True, False)
    assert scores.not_validated == ("c", "d")
    assert scores.n_units == 10
    assert math.isnan(scores.users_accuracy[1])
    assert scores.producers_accuracy[1] == 0.0
    assert math.isnan(scores.producers_accuracy[2])
    assert scores.users_accuracy[2] == 0.0
    assert scores.f1[:3] == (pytest.approx(12 / 15), 0.0, 0.0)
    assert math.isnan(scores.f1[3])
    assert math.isnan(scores.iou[3])
    assert scores.macro_f1 == pytest.approx(12 / 15 / 3)
    assert scores.mean_iou == pytest.approx(6 / 9 / 3)


def test_an_empty_matrix_is_nan_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = accuracy(np.zeros((2, 2), int), ("a", "b"))
    for value in (scores.overall_accuracy, scores.macro_f1, scores.mean_iou, scores.kappa):
        assert math.isnan(value)


def test_kappa_of_one_class_is_not_defined() -> None:
    assert math.isnan(accuracy(np.array([[5, 0], [0, 0]]), ("a", "b")).kappa)
    assert accuracy(np.array([[0, 5], [0, 0]]), ("a", "b")).kappa == 0.0


@pytest.mark.parametrize(
    ("counts", "names", "message"),
    [
        (np.zeros((2, 3), int), ("a", "b"), r"square, \(K, K\); got \(2, 3\)"),
        (np.array([[1, -1], [0, 1]]), ("a", "b"), "0 or more; got -1"),
        (np.eye(2), ("a", "b"), "whole numbers; got float64"),
        (np.eye(2, dtype=int), ("a",), "2 classes need as many names; got 1"),
    ],
)
def test_wrong_counts_are_named(counts: np.ndarray, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        accuracy(counts, names)


def test_interval_holds_the_score_and_repeats_with_its_seed(groups: np.ndarray) -> None:
    scores = accuracy(groups.sum(axis=0), tuple("abcdefgh"))
    interval = bootstrap_interval(groups, seed=5)
    for name in ("overall_accuracy", "macro_f1", "mean_iou"):
        low, high = getattr(interval, name)
        assert low < getattr(scores, name) < high
        assert high - low < 0.2
    assert interval.n_groups == len(groups)
    assert interval == bootstrap_interval(groups, seed=5)
    assert interval != bootstrap_interval(groups, seed=6)


def test_interval_equals_a_plain_loop(groups: np.ndarray) -> None:
    generator = np.random.default_rng(11)
    draws = generator.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=50)
    plain = []
    for draw in draws:
        drawn = np.repeat(groups, draw, axis=0).sum(axis=0)
        plain.append(accuracy(drawn, tuple("abcdefgh")))
    interval = bootstrap_interval(groups, seed=11, n_resamples=50)
    for name in ("overall_accuracy", "macro_f1", "mean_iou"):
        expected = np.percentile([getattr(scores, name) for scores in plain], (2.5, 97.5))
        np.testing.assert_allclose(getattr(interval, name), expected)


def test_pixels_of_one_group_do_not_narrow_the_interval(groups: np.ndarray) -> None:
    assert bootstrap_interval(groups * 100, seed=0) == bootstrap_interval(groups, seed=0)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """200 surveys of 30 polygons whose accuracies differ: the interval of overall accuracy holds the true mean."""
    generator = np.random.default_rng(2)
    covered = 0
    for survey in range(200):
        right = generator.binomial(50, generator.beta(8, 2, size=30))
        groups = np.zeros((30, 2, 2), dtype=np.int64)
        groups[:, 0, 0], groups[:, 1, 0] = right, 50 - right
        low, high = bootstrap_interval(groups, seed=survey, n_resamples=400).overall_accuracy
        covered += low <= 0.8 <= high
    assert 0.88 <= covered / 200 <= 0.99


@pytest.mark.parametrize("n_groups", [0, 1])
def test_fewer_than_two_groups_have_no_interval(n_groups: int) -> None:
    filled = np.tile(np.eye(2, dtype=np.int64), (n_groups, 1, 1))
    empty = np.zeros((3, 2, 2), dtype=np.int64)
    interval = bootstrap_interval(np.concatenate([filled, empty]), seed=0)
    assert interval.n_groups == n_groups
    assert all(math.isnan(value) for value in (*interval.overall_accuracy, *interval.macro_f1, *interval.mean_iou))


@pytest.mark.parametrize(
    ("groups", "n_resamples", "message"),
    [
        (np.zeros((2, 2), int), 10, r"\(G, K, K\); got \(2, 2\)"),
        (np.zeros((2, 2, 2)), 10, "whole numbers"),
        (np.zeros((2, 2, 2), int), 0, "At least one resample"),
    ],
)
def test_wrong_groups_are_named(groups: np.ndarray, n_resamples: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(groups, seed=0, n_resamples=n_resamples)
