"""Classifiers of scenes: which is chosen, what is learned from what, and that gaps have an estimator of their own."""

from __future__ import annotations

import numpy as np
import pytest

from core.finetuning.estimators import scene_classifiers
from core.finetuning.estimators.scene_classifiers import CANDIDATES, best_of, best_threshold, fit_classifier, try_candidates
from core.models.scene_descriptors import Layout

LAYOUT = Layout(("a", "b"), (slice(0, 2), slice(2, 4)), 4, (frozenset("ab"), frozenset("a"), frozenset("b")))


@pytest.fixture
def units() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Descriptors in which either input tells the class alone; classes; blocks."""
    generator = np.random.default_rng(0)
    kind = np.arange(120) % 3
    rows = generator.normal(0, 0.3, (120, 4))
    rows[:, 0] += kind
    rows[:, 2] -= 2 * kind
    return rows, np.eye(3, dtype=bool)[kind], np.arange(120) // 8


def silent(fraction: float, phase: str) -> None:
    assert 0 <= fraction <= 1


def test_one_block_is_never_in_two_folds(units):
    _, classes, blocks = units
    folds = scene_classifiers._folds(classes, blocks, 0)
    assert sorted(np.concatenate([asked for _, asked in folds]).tolist()) == list(range(120))
    for learned, asked in folds:
        assert not set(blocks[learned]) & set(blocks[asked])


def test_the_least_log_loss_is_chosen(units):
    rows, classes, blocks = units
    tried = try_candidates(rows, classes, blocks, LAYOUT, False, 0, silent)
    assert [each.candidate for each in tried] == list(CANDIDATES)
    assert best_of(tried, False) is min(tried, key=lambda each: each.log_loss).candidate
    assert tried[-1].log_loss < np.log(3) / 2
    one = next(each for each in tried if each.candidate.name == "Logistic regression, C = 1")
    assert one.log_loss == pytest.approx(-np.log(one.probabilities[classes]).mean())


def test_blocks_too_few_to_leave_one_out(units):
    rows, classes, _ = units
    assert try_candidates(rows, classes, np.zeros(120, np.int64), LAYOUT, False, 0, silent) == []
    assert best_of([], False).kind == "logistic"


@pytest.mark.parametrize("candidate", [CANDIDATES[2], CANDIDATES[-1]], ids=["logistic", "forest"])
@pytest.mark.parametrize("is_multi", [False, True], ids=["single", "several"])
def test_each_set_of_inputs_has_an_estimator(units, candidate, is_multi):
    rows, classes, _ = units
    fitted = fit_classifier(candidate, rows, classes, LAYOUT, is_multi, 0, (1, 2))
    truth = classes.argmax(axis=1)
    for gap in (slice(0, 0), slice(0, 2), slice(2, 4)):
        seen = rows.copy()
        seen[:, gap] = np.nan
        assert (fitted.probabilities(seen).argmax(axis=1) == truth).mean() > 0.8
    alone = fit_classifier(candidate, rows, classes, LAYOUT, is_multi, 0)
    gone = rows.copy()
    gone[:, :2] = np.nan
    # Without one, medians stand in for what is missing.
    filled = np.where(np.isnan(gone), np.median(rows, axis=0), gone)
    np.testing.assert_allclose(alone.probabilities(gone), alone.probabilities(filled))


def test_a_class_that_all_units_have_is_said_as_often(units):
    rows, classes, _ = units
    classes = classes.copy()
    classes[:, 1] = True
    fitted = fit_classifier(CANDIDATES[2], rows, classes, LAYOUT, True, 0)
    assert set(fitted.estimators) == {(0, 0), (0, 2)}
    assert (fitted.probabilities(rows)[:, 1] > 0.99).all()


def test_the_threshold_of_the_best_f1():
    shares = np.array([[0.32, 0.1], [0.34, 0.31], [0.1, 0.32], [0.05, 0.02]])
    classes = np.array([[True, False], [True, True], [False, True], [False, False]])
    # From 0.15 to 0.30 all is right.
    assert best_threshold(shares, classes) == 0.25
