"""Estimates for any strata, against the worked example of the paper, a plain reference implementation and simulation."""

from __future__ import annotations

import numpy as np
import pytest

from core.assessment.area_adjusted import AreaAdjusted, Stratum, area_adjusted_accuracy
from core.assessment.stratified import NOT_MAPPED, SampleUnits, stratified_accuracy

NAMES = ("A", "B", "C", "D")
SIZES = (40_000, 30_000, 20_000, 10_000)
# Stehman (2014), table 2: ten units in each of four strata.
MAPPED = "AAAAAAABBBABBBBBBBBBBBCCCCCCBBDDDDDDDDDD"
REFERENCE = "AAAAACBABCABBBBBAABBCCCCCDDBBADDDDDDDCCB"


def indices(letters: str) -> np.ndarray:
    return np.array([NAMES.index(letter) for letter in letters])


def strata(sizes=SIZES, hectares: float = 1.0) -> tuple[Stratum, ...]:
    return tuple(Stratum(name, size, size * hectares) for name, size in zip(NAMES, sizes, strict=False))


@pytest.fixture(scope="module")
def units() -> SampleUnits:
    return SampleUnits(np.repeat(np.arange(4), 10), indices(MAPPED), indices(REFERENCE))


@pytest.fixture(scope="module")
def example(units: SampleUnits) -> AreaAdjusted:
    return stratified_accuracy(units, strata(), np.zeros(4), NAMES)


def test_the_worked_example(example: AreaAdjusted) -> None:
    def rounded(estimate, scale: float = 1.0) -> tuple[float, float]:
        return round(estimate.value / scale, 3), round(estimate.standard_error / scale, 3)

    assert rounded(example.areas[0], 100_000) == (0.35, 0.082)
    assert rounded(example.areas[2], 100_000) == (0.20, 0.064)
    assert rounded(example.overall_accuracy) == (0.63, 0.085)
    assert rounded(example.users_accuracy[1]) == (0.574, 0.125)
    # The paper is quoted with 0.114 for this standard error; its equation 28 gives 0.1165 for the units of its table.
    assert rounded(example.producers_accuracy[1]) == (0.794, 0.117)
    assert example.area_proportions[1][2] == pytest.approx(0.08)
    assert np.sum(example.area_proportions) == pytest.approx(1.0)
    assert example.estimator == "stehman2014"
    assert example.notes == ()


def plain_ratio(stratum, y, x, sizes) -> tuple[float, float]:
    """Equations 27 and 28, term by term."""
    total_y = sum(size * y[stratum == h].mean() for h, size in enumerate(sizes))
    total_x = sum(size * x[stratum == h].mean() for h, size in enumerate(sizes))
    ratio, variance = total_y / total_x, 0.0
    for h, size in enumerate(sizes):
        own_y, own_x = y[stratum == h].astype(float), x[stratum == h].astype(float)
        n = len(own_y)
        s_xy = ((own_y - own_y.mean()) * (own_x - own_x.mean())).sum() / (n - 1)
        spread = own_y.var(ddof=1) + ratio**2 * own_x.var(ddof=1) - 2 * ratio * s_xy
        variance += size**2 * (1 - n / size) * spread / n
    return ratio, variance**0.5 / total_x


def test_every_ratio_is_that_of_the_plain_formula() -> None:
    generator = np.random.default_rng(3)
    sizes = (40, 900, 77)
    counts = (12, 30, 25)
    stratum = np.repeat(np.arange(3), counts)
    mapped, reference = generator.integers(0, 3, (2, len(stratum)))
    reference = np.where(generator.random(len(stratum)) < 0.6, mapped, reference)
    found = stratified_accuracy(SampleUnits(stratum, mapped, reference), strata(sizes), np.zeros(3), NAMES[:3])
    everything = np.ones(len(stratum))
    agrees = mapped == reference
    overall = found.overall_accuracy
    assert (overall.value, overall.standard_error) == pytest.approx(plain_ratio(stratum, agrees, everything, sizes))
    for k in range(3):
        in_map, in_reference = mapped == k, reference == k
        users, producers, area = found.users_accuracy[k], found.producers_accuracy[k], found.areas[k]
        assert (users.value, users.standard_error) == pytest.approx(plain_ratio(stratum, agrees & in_map, in_map, sizes))
        assert (producers.value, producers.standard_error) == pytest.approx(
            plain_ratio(stratum, agrees & in_reference, in_reference, sizes)
        )
        share, error = plain_ratio(stratum, in_reference, everything, sizes)
        assert (area.value, area.standard_error) == pytest.approx((share * sum(sizes), error * sum(sizes)))


def test_where_the_strata_are_the_classes_it_agrees_with_olofsson() -> None:
    """The paper's example of Olofsson et al. (2014), in which the finite population hardly counts."""
    counts = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
    pixels = np.array([200_000, 150_000, 3_200_000, 6_450_000])
    mapped, reference = (side.ravel() for side in np.indices((4, 4)))
    mapped, reference = np.repeat(mapped, counts.ravel()), np.repeat(reference, counts.ravel())
    own = stratified_accuracy(SampleUnits(mapped, mapped, reference), strata(pixels, 0.09), pixels * 0.09, NAMES)
    other = area_adjusted_accuracy(counts, pixels * 0.09, NAMES)
    np.testing.assert_allclose(own.area_proportions, other.area_proportions)
    for key in ("users_accuracy", "producers_accuracy", "areas"):
        for one, two in zip(getattr(own, key), getattr(other, key), strict=True):
            assert one.value == pytest.approx(two.value)
            assert one.standard_error == pytest.approx(two.standard_error, rel=3e-4)
    assert own.overall_accuracy.standard_error == pytest.approx(other.overall_accuracy.standard_error, rel=3e-4)


def test_ground_that_is_not_mapped_counts_for_nothing(units: SampleUnits, example: AreaAdjusted) -> None:
    """A fifth stratum outside the map, and half of the first one: accuracies are those of the rest."""
    more = SampleUnits(
        np.concatenate([units.stratum, np.full(7, 4)]),
        np.concatenate([units.mapped, np.full(7, NOT_MAPPED)]),
        np.concatenate([units.reference, np.zeros(7, np.int64)]),
    )
    wider = (*strata(), Stratum("outside", 50_000, 50_000.0))
    found = stratified_accuracy(more, wider, np.zeros(4), NAMES)
    assert found.overall_accuracy.value == pytest.approx(example.overall_accuracy.value)
    assert found.overall_accuracy.standard_error == pytest.approx(example.overall_accuracy.standard_error)
    assert [area.value for area in found.areas] == pytest.approx([area.value for area in example.areas])
    assert sum(found.sample_counts[0]) == sum(example.sample_counts[0])


def test_a_stratum_without_units_leaves_nothing_known(units: SampleUnits) -> None:
    found = stratified_accuracy(units, (*strata(), Stratum("marsh", 5, 5.0)), np.zeros(4), NAMES)
    assert np.isnan(found.overall_accuracy.value)
    assert np.isnan([area.value for area in found.areas]).all()
    assert "'marsh' has no unit" in found.notes[0]


def test_one_unit_has_no_variance_unless_it_is_all() -> None:
    stratum, mapped = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    sample = SampleUnits(stratum, mapped, np.array([0, 1, 1, 1]))
    unknown = stratified_accuracy(sample, strata((10, 8)), np.zeros(2), NAMES[:2])
    assert unknown.overall_accuracy.value == pytest.approx((10 * 2 / 3 + 8) / 18)
    assert np.isnan(unknown.overall_accuracy.standard_error)
    assert "'B' has one unit" in unknown.notes[0]
    whole = stratified_accuracy(sample, strata((10, 1)), np.zeros(2), NAMES[:2])
    # By hand: s^2 = 1/3 of three units, (10/11)^2 (1 - 3/10) / 3 / 3.
    assert whole.overall_accuracy.standard_error == pytest.approx(((10 / 11) ** 2 * 0.7 / 9) ** 0.5)


def test_more_units_than_pixels_are_refused(units: SampleUnits) -> None:
    with pytest.raises(ValueError, match="no more units than pixels"):
        stratified_accuracy(units, strata((40_000, 30_000, 20_000, 9)), np.zeros(4), NAMES)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """2000 samples from a known landscape in strata that are neither the map's classes nor the truth's."""
    generator = np.random.default_rng(8)
    n = 60_000
    truth = generator.choice(3, n, p=[0.55, 0.3, 0.15])
    mapped = np.where(generator.random(n) < 0.82, truth, generator.integers(0, 3, n))
    older = np.where(generator.random(n) < 0.75, truth, generator.integers(0, 3, n))
    sizes = np.bincount(older)
    members = [np.flatnonzero(older == h) for h in range(3)]
    true_areas = np.bincount(truth)
    true_users = [(truth[mapped == k] == k).mean() for k in range(3)]
    true_producers = [(mapped[truth == k] == k).mean() for k in range(3)]
    hits = {"overall": 0, "areas": np.zeros(3), "users": np.zeros(3), "producers": np.zeros(3)}
    repeats = 2000
    for _ in range(repeats):
        drawn = np.concatenate([generator.choice(each, 400, replace=False) for each in members])
        found = stratified_accuracy(
            SampleUnits(older[drawn], mapped[drawn], truth[drawn]), strata(sizes), np.zeros(3), NAMES[:3]
        )

        def covers(estimate, value) -> bool:
            return abs(estimate.value - value) <= estimate.half_width

        hits["overall"] += covers(found.overall_accuracy, (mapped == truth).mean())
        hits["areas"] += [covers(found.areas[k], true_areas[k]) for k in range(3)]
        hits["users"] += [covers(found.users_accuracy[k], true_users[k]) for k in range(3)]
        hits["producers"] += [covers(found.producers_accuracy[k], true_producers[k]) for k in range(3)]
    for key, counts in hits.items():
        # Three standard errors of a share of 0.95 in 2000 are 0.015. With 120 units a stratum a user's accuracy of 0.9 is
        # covered in 0.925: the normal approximation is what falls short there.
        assert np.all(np.abs(np.asarray(counts) / repeats - 0.95) < 0.02), (key, counts)
