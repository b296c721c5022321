"""Sizes and shares of samples, against worked examples and by the rules that they follow."""

from __future__ import annotations

import numpy as np
import pytest

from core.assessment.sample_size import FEWEST_UNITS, allocate, expected_standard_error, needed_size

# Olofsson et al. (2014), section 5.1.1: areas, and the user's accuracies that they expect.
WEIGHTS = np.array([0.02, 0.015, 0.32, 0.645])
PIXELS = (WEIGHTS * 10_000_000).astype(np.int64)
ACCURACIES = np.array([0.70, 0.60, 0.90, 0.95])


def test_the_size_of_the_worked_example() -> None:
    assert needed_size(WEIGHTS, PIXELS, ACCURACIES, 0.01) == 641


def test_a_small_map_needs_fewer_units_than_the_formula_for_large_ones() -> None:
    """By hand: one class, U = 0.8, N = 1000, target 0.02: 0.16 / (0.0004 + 0.16 / 1000) = 285.7; without N it is 400."""
    one = np.array([1.0])
    assert needed_size(one, np.array([1000]), np.array([0.8]), 0.02) == 286
    assert needed_size(one, np.array([10**10]), np.array([0.8]), 0.02) == 400


def test_the_size_gives_the_target_with_the_optimal_shares() -> None:
    pixels = np.array([4000, 3000, 60_000, 90_000])
    weights = pixels / pixels.sum()
    size = needed_size(weights, pixels, ACCURACIES, 0.01)
    units = allocate(size, pixels, weights, ACCURACIES, "optimal", 50)
    assert expected_standard_error(units, pixels, weights, ACCURACIES) == pytest.approx(0.01, rel=0.003)
    for other in ("proportional", "equal", "balanced"):
        units = allocate(size, pixels, weights, ACCURACIES, other, 50)
        assert units.sum() == size
        assert expected_standard_error(units, pixels, weights, ACCURACIES) > 0.0099


def test_balanced_shares_give_the_minimum_and_the_rest_by_area() -> None:
    """541 units are left for two classes of 0.32 and 0.645; the paper's third allocation has 50, 50, 180 and 361."""
    units = allocate(641, PIXELS, WEIGHTS, ACCURACIES, "balanced", 50)
    assert units[:2].tolist() == [50, 50]
    assert units[2:] == pytest.approx([541 * 0.32 / 0.965, 541 * 0.645 / 0.965], abs=1)
    assert units.sum() == 641


def test_other_shares_by_hand() -> None:
    assert allocate(641, PIXELS, WEIGHTS, ACCURACIES, "equal", 50).tolist() == [161, 160, 160, 160]
    assert allocate(641, PIXELS, WEIGHTS, ACCURACIES, "proportional", 50).tolist() == [13, 10, 205, 413]
    scores = WEIGHTS * np.sqrt(ACCURACIES * (1 - ACCURACIES))
    exact = 641 * scores / scores.sum()
    assert np.abs(allocate(641, PIXELS, WEIGHTS, ACCURACIES, "optimal", 50) - exact).max() < 1


def test_a_class_below_its_share_is_taken_whole_and_the_others_share_the_rest() -> None:
    pixels = np.array([7, 1, 500, 1000])
    for allocation in ("balanced", "equal"):
        units = allocate(300, pixels, pixels / pixels.sum(), np.full(4, 0.8), allocation, 50)
        assert units[:2].tolist() == [7, 1]
        assert units.sum() == 300


def test_no_class_is_left_with_less_than_a_variance_needs() -> None:
    pixels = np.array([3, 10**8])
    weights = pixels / pixels.sum()
    for allocation in ("balanced", "proportional", "equal", "optimal"):
        units = allocate(100, pixels, weights, np.full(2, 0.8), allocation, 2)
        assert units.min() >= FEWEST_UNITS
        assert units.sum() == 100


def test_more_units_than_pixels_are_all_pixels() -> None:
    pixels = np.array([5, 9])
    weights = pixels / pixels.sum()
    units = allocate(1000, pixels, weights, np.full(2, 0.8), "balanced", 50)
    assert units.tolist() == [5, 9]
    assert expected_standard_error(units, pixels, weights, np.full(2, 0.8)) == 0


@pytest.mark.parametrize("allocation", ["balanced", "proportional", "equal", "optimal"])
def test_any_size_is_met_within_the_bounds(allocation: str) -> None:
    generator = np.random.default_rng(4)
    for _ in range(200):
        pixels = generator.integers(1, 10 ** generator.integers(1, 7), generator.integers(1, 9))
        weights = pixels / pixels.sum()
        accuracies = generator.uniform(0.05, 0.99, len(pixels))
        size = int(generator.integers(np.minimum(20, pixels).sum(), 3000))
        units = allocate(size, pixels, weights, accuracies, allocation, 20)  # type: ignore[arg-type]
        assert units.sum() == min(size, pixels.sum())
        assert (units <= pixels).all()
        assert (units >= np.minimum(20 if allocation == "balanced" else FEWEST_UNITS, pixels)).all()
