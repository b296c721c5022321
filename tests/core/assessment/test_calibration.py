"""Reliability curves and expected calibration errors of a handful of pixels, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from core.assessment.calibration import reliability


def test_the_curve_of_a_handful_of_pixels() -> None:
    probabilities = np.array([[0.9, 0.1], [0.3, 0.7], [0.8, 0.2], [0.45, 0.55], [1.0, 0.0]])
    curve = reliability(probabilities, np.array([0, 1, 1, 0, 0]), n_bins=4)
    # (0.5, 0.75] holds 0.7, which is right, and 0.55, which is wrong; (0.75, 1] 0.9 and 1, right, and 0.8, wrong.
    assert curve.count == (0, 0, 2, 3)
    assert curve.confidence[2:] == pytest.approx((0.625, 0.9))
    assert curve.accuracy[2:] == pytest.approx((1 / 2, 2 / 3))
    assert all(math.isnan(value) for value in (*curve.confidence[:2], *curve.accuracy[:2]))
    assert curve.expected_error == pytest.approx((2 * 0.125 + 3 * (0.9 - 2 / 3)) / 5)


def test_a_bin_holds_its_upper_edge() -> None:
    """The paper's bins are open below and closed above; there are 15 of them."""
    probabilities = np.array([[0.6, 0.2, 0.2], [np.nextafter(0.6, 1), 0.2, 0.2], [1.0, 0.0, 0.0]])
    curve = reliability(probabilities, np.zeros(3, int))
    assert [number for number, count in enumerate(curve.count) if count] == [8, 9, 14]
    assert len(curve.count) == 15


@pytest.mark.parametrize(
    ("confidence", "right", "error"), [(0.8, 8, 0.0), (0.8, 4, 0.4), (0.8, 10, 0.2), (1.0, 0, 1.0), (1.0, 10, 0.0)]
)
def test_the_error_is_what_confidence_and_accuracy_lie_apart(confidence: float, right: int, error: float) -> None:
    probabilities = np.tile([confidence, 1 - confidence], (10, 1))
    classes = (np.arange(10) >= right).astype(int)
    assert reliability(probabilities, classes).expected_error == pytest.approx(error)


def test_doubt_and_trust_in_one_bin_make_up_for_each_other_in_two_they_do_not() -> None:
    probabilities = np.array([[0.6, 0.4], [0.9, 0.1]])
    assert reliability(probabilities, np.array([0, 1]), n_bins=1).expected_error == pytest.approx(0.25)
    assert reliability(probabilities, np.array([0, 1]), n_bins=4).expected_error == pytest.approx((0.4 + 0.9) / 2)


def test_pixels_count_alike() -> None:
    probabilities = np.array([[0.6, 0.4]] + 9 * [[1.0, 0.0]])
    assert reliability(probabilities, np.zeros(10, int)).expected_error == pytest.approx(0.04)


def test_no_pixels_have_no_error() -> None:
    curve = reliability(np.empty((0, 3)), np.empty(0, int))
    assert curve.count == 15 * (0,)
    assert math.isnan(curve.expected_error)


def test_float32_that_sums_to_a_little_more_than_one_is_taken() -> None:
    curve = reliability(np.array([[1.0000001, 0.0]], np.float32), np.array([0]))
    assert curve.count[-1] == 1


@pytest.mark.parametrize(
    ("probabilities", "classes", "n_bins", "message"),
    [
        (np.ones(3), np.zeros(3, int), 15, r"got \(3,\) and \(3,\)"),
        (np.ones((3, 2)), np.zeros(2, int), 15, r"got \(3, 2\) and \(2,\)"),
        (np.ones((1, 2)), np.zeros(1, int), 0, "At least one bin"),
        (np.full((1, 2), 1.5), np.zeros(1, int), 15, "between 0 and 1"),
        (np.array([[np.nan, 0.5]]), np.zeros(1, int), 15, "between 0 and 1"),
        (np.array([[-3.0, 0.5]]), np.zeros(1, int), 15, "between 0 and 1"),
    ],
)
def test_what_are_no_probabilities_is_refused(
    probabilities: np.ndarray, classes: np.ndarray, n_bins: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        reliability(probabilities, classes, n_bins)
