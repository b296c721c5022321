"""How honest probabilities are is measured with temperatures that have not seen the pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax

from core.assessment.calibration import reliability
from core.finetuning.evaluation import Predictions, fit_temperature
from core.finetuning.networks.loop import TrainingResult
from core.jobs.learning.calibration import measured_calibration


def predictions(factor: np.ndarray, feature: np.ndarray, seed: int = 0) -> Predictions:
    """Labels drawn with the probabilities that the scores say, and the scores multiplied by a factor."""
    generator = np.random.default_rng(seed)
    scores = generator.normal(0, 1.5, (len(feature), 3))
    classes = np.array([generator.choice(3, p=row) for row in softmax(scores, axis=1)])
    return Predictions((factor[:, None] * scores).astype(np.float32), classes.astype(np.int64), feature)


def result(told: Predictions | None) -> TrainingResult:
    temperature = 1.0 if told is None else fit_temperature(told)
    return TrainingResult(torch.nn.Identity(), (), 1, told, temperature, calibration=told)


def test_scores_that_are_too_sure_are_made_honest() -> None:
    told = predictions(np.full(4000, 4.0), np.arange(4000) % 400)
    found = measured_calibration(result(told), np.arange(400) // 40, seed=0)
    assert found is not None
    assert (found.pixels, found.blocks) == (4000, 10)
    assert found.before.expected_error > 0.2
    assert found.expected_error < 0.04
    assert found.temperature == pytest.approx(4, rel=0.1)
    assert found == measured_calibration(result(told), np.arange(400) // 40, seed=0)


def test_each_half_is_scaled_by_the_temperature_of_the_other() -> None:
    """Of two blocks one is honest and one is too sure: by turns, both come out wrong."""
    feature = np.arange(2000) // 5
    is_first = feature < 200
    told = predictions(np.where(is_first, 1.0, 5.0), feature)
    found = measured_calibration(result(told), np.repeat([7, 3], 200), seed=0)
    assert found is not None
    halves = [Predictions(told.scores[rows], told.classes[rows], told.feature[rows]) for rows in (is_first, ~is_first)]
    scaled = [half.scores / fit_temperature(other) for half, other in zip(halves, halves[::-1], strict=True)]
    expected = reliability(softmax(np.concatenate(scaled).astype(np.float64), axis=1), told.classes)
    assert found.expected_error == pytest.approx(expected.expected_error, abs=1e-6)
    assert found.expected_error > found.same_pixels_error + 0.02
    assert found.before == reliability(softmax(told.scores.astype(np.float64), axis=1), told.classes)


@pytest.mark.parametrize("seed", range(8))
def test_blocks_of_one_class_are_dealt_so_that_both_halves_have_all(seed: int) -> None:
    told = predictions(np.ones(400), np.arange(400) % 6)
    told = Predictions(told.scores, told.feature // 2, told.feature)
    assert measured_calibration(result(told), np.arange(6), seed) is not None


def test_it_is_not_measured_on_too_little() -> None:
    told = predictions(np.ones(49), np.arange(49) % 10)
    assert measured_calibration(result(told), np.arange(10), 0) is None
    more = predictions(np.ones(50), np.arange(50) % 10)
    assert measured_calibration(result(more), np.arange(10), 0) is not None
    assert measured_calibration(result(more), np.zeros(10, np.int64), 0) is None, "a single block"
    apart = Predictions(more.scores, more.feature % 2, more.feature)
    assert measured_calibration(result(apart), np.arange(10) % 2, 0) is None, "a class in each half"
    assert measured_calibration(result(None), np.arange(10), 0) is None
