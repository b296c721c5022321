"""Stratified estimates, against the worked example of the paper and against simulation."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from core.assessment.area_adjusted import AreaAdjusted, Estimate, area_adjusted_accuracy

CLASSES = ("deforestation", "forest gain", "stable forest", "stable non-forest")
COUNTS = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
PIXELS = np.array([200_000, 150_000, 3_200_000, 6_450_000])
HECTARES = PIXELS * 0.09


@pytest.fixture(scope="module")
def example() -> AreaAdjusted:
    """Olofsson et al. (2014), section 5 and tables 8 and 9."""
    return area_adjusted_accuracy(COUNTS, HECTARES, CLASSES)


def test_error_matrix_of_area_proportions(example: AreaAdjusted) -> None:
    printed = [
        [0.0176, 0.0, 0.0013, 0.0011],
        [0.0, 0.0110, 0.0016, 0.0024],
        [0.0019, 0.0, 0.2967, 0.0213],
        [0.0040, 0.0020, 0.0179, 0.6212],
    ]
    np.testing.assert_allclose(example.area_proportions, printed, atol=0.00005)


def test_accuracies_of_the_worked_example(example: AreaAdjusted) -> None:
    def rounded(estimates: tuple[Estimate, ...]) -> list[tuple[float, float]]:
        return [(round(estimate.value, 2), round(estimate.half_width, 2)) for estimate in estimates]

    assert rounded((example.overall_accuracy,)) == [(0.95, 0.02)]
    assert rounded(example.users_accuracy) == [(0.88, 0.07), (0.73, 0.10), (0.93, 0.04), (0.96, 0.02)]
    # The paper prints 0.23 for forest gain and 0.01 for stable non-forest; its equation 7 gives 0.254 and 0.018.
    assert rounded(example.producers_accuracy) == [(0.75, 0.21), (0.85, 0.25), (0.93, 0.03), (0.96, 0.02)]


def test_areas_of_the_worked_example(example: AreaAdjusted) -> None:
    printed = [(21_158, 6_158), (11_686, 3_756), (285_770, 15_510), (581_386, 16_282)]
    assert [(round(area.value), round(area.half_width)) for area in example.areas] == printed
    assert sum(area.value for area in example.areas) == pytest.approx(HECTARES.sum())
    assert example.notes == ()


def test_the_unit_of_area_changes_only_the_areas(example: AreaAdjusted) -> None:
    pixels = area_adjusted_accuracy(COUNTS, PIXELS, CLASSES)
    assert pixels.areas[0].value == pytest.approx(example.areas[0].value / 0.09)
    for own, other in zip(pixels.producers_accuracy, example.producers_accuracy, strict=True):
        assert own.value == pytest.approx(other.value)
        assert own.standard_error == pytest.approx(other.standard_error)


def test_standard_errors_are_the_spread_of_repeated_samples() -> None:
    """Draws 1500 large samples from a known population: a check of equation 7 that does not rest on the printed digits."""
    generator = np.random.default_rng(1)
    shares = COUNTS / COUNTS.sum(axis=1, keepdims=True)
    sizes = np.array([3000, 3000, 4000, 8000])
    samples = np.stack([generator.multinomial(n, p, size=1500) for n, p in zip(sizes, shares, strict=True)], axis=1)
    drawn = [area_adjusted_accuracy(sample, HECTARES, CLASSES) for sample in samples]
    truth = area_adjusted_accuracy((shares * 1_000_000).round().astype(int), HECTARES, CLASSES)
    for read in (
        lambda result, k: result.producers_accuracy[k],
        lambda result, k: result.users_accuracy[k],
        lambda result, k: result.areas[k],
        lambda result, _: result.overall_accuracy,
    ):
        for k in range(4):
            estimates = np.array([read(result, k).value for result in drawn])
            stated = np.sqrt(np.mean([read(result, k).standard_error ** 2 for result in drawn]))
            assert estimates.mean() == pytest.approx(read(truth, k).value, rel=0.02)
            assert stated == pytest.approx(estimates.std(), rel=0.06)


def test_a_stratum_without_units_leaves_the_whole_unknown() -> None:
    counts = COUNTS.copy()
    counts[1] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = area_adjusted_accuracy(counts, HECTARES, CLASSES)
    assert math.isnan(result.overall_accuracy.value)
    assert all(math.isnan(area.value) for area in result.areas)
    assert all(math.isnan(estimate.value) for estimate in result.producers_accuracy)
    assert math.isnan(result.users_accuracy[1].value)
    # What is known of a stratum from its own units stays known.
    assert result.users_accuracy[0].value == pytest.approx(0.88)
    assert "'forest gain' covers 1.5 % of the map and has no unit" in " ".join(result.notes)


def test_a_stratum_with_one_unit_has_estimates_without_intervals() -> None:
    counts = COUNTS.copy()
    counts[1] = (0, 1, 0, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = area_adjusted_accuracy(counts, HECTARES, CLASSES)
    assert math.isfinite(result.overall_accuracy.value)
    assert math.isnan(result.overall_accuracy.half_width)
    assert result.users_accuracy[1].value == 1.0
    assert math.isnan(result.users_accuracy[1].half_width)
    assert math.isnan(result.areas[2].half_width)
    assert math.isfinite(result.users_accuracy[2].half_width)
    (note,) = result.notes
    assert "one unit of reference" in note


def test_a_class_only_in_the_reference_gets_an_area() -> None:
    counts = np.array([[40, 5, 5], [3, 46, 1], [0, 0, 0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = area_adjusted_accuracy(counts, np.array([600.0, 400.0, 0.0]), ("a", "b", "c"))
    assert result.areas[2].value == pytest.approx(600 * 5 / 50 + 400 / 50)
    assert result.areas[2].half_width > 0
    assert result.producers_accuracy[2].value == 0.0
    assert math.isnan(result.users_accuracy[2].value)
    assert math.isfinite(result.overall_accuracy.half_width)
    assert "'c' occurs in the reference and not in the map" in result.notes[0]


def test_a_class_on_neither_side_is_left_out() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = area_adjusted_accuracy(np.array([[9, 1, 0], [2, 8, 0], [0, 0, 0]]), np.array([5, 5, 0]), ("a", "b", "c"))
    assert result.areas[2] == Estimate(0.0, 0.0)
    assert math.isnan(result.producers_accuracy[2].value)
    assert math.isnan(result.users_accuracy[2].value)
    assert result.notes == ()


def test_an_interval_of_no_width_is_explained() -> None:
    result = area_adjusted_accuracy(np.array([[10, 0], [3, 7]]), np.array([5.0, 5.0]), ("a", "b"))
    assert result.users_accuracy[0] == Estimate(1.0, 0.0)
    assert "The 10 units of 'a' agree on one reference class" in result.notes[0]


@pytest.mark.parametrize(
    ("areas", "names", "message"),
    [
        ([1.0], ("a", "b"), r"2 classes need as many mapped areas; got an array of shape \(1,\)"),
        ([1.0, 2.0], ("a",), "2 classes need as many names; got 1"),
        ([1.0, -2.0], ("a", "b"), "0 or more"),
        ([1.0, float("nan")], ("a", "b"), "finite"),
        ([0.0, 0.0], ("a", "b"), "not all 0"),
        ([1.0, 0.0], ("a", "b"), "no area: b"),
    ],
)
def test_wrong_input_is_named(areas: list[float], names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        area_adjusted_accuracy(np.array([[3, 1], [1, 3]]), np.array(areas), names)
