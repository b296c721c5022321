"""IR-MAD against a direct solution, and the properties that it is used for."""

import numpy as np
import pytest
from scipy.linalg import eig
from scipy.stats import chi2

from core.models.alteration import fit_alteration, length_at, no_change_probability, weighted_shrinkage

BANDS, SIDE = 4, 60
BLOCK = (slice(10, 25), slice(30, 50))


def quiet(part, phase):
    pass


@pytest.fixture
def dates():
    """(2, C, n): the second date is a mixture of the first's bands with noise, and the block is new ground."""
    generator = np.random.default_rng(0)
    before = generator.normal(size=(BANDS, BANDS)) @ generator.normal(size=(BANDS, SIDE, SIDE)).reshape(BANDS, -1)
    after = (np.eye(BANDS) + 0.3 * generator.normal(size=(BANDS, BANDS))) @ before + 7
    after = (after + 0.2 * generator.normal(size=after.shape)).reshape(BANDS, SIDE, SIDE)
    after[:, *BLOCK] = 7 + 3 * generator.normal(size=(BANDS, 15, 20)) + 9
    return np.stack([before, after.reshape(BANDS, -1)]).astype(np.float32)


def changed_block():
    changed = np.zeros((SIDE, SIDE), bool)
    changed[BLOCK] = True
    return changed.ravel()


def test_one_round_is_canonical_correlation_analysis(dates):
    found = fit_alteration(dates, quiet, most_iterations=1)
    covariance = np.cov(dates.reshape(2 * BANDS, -1).astype(np.float64))
    own, other, across = covariance[:BANDS, :BANDS], covariance[BANDS:, BANDS:], covariance[:BANDS, BANDS:]
    squares = eig(np.linalg.inv(own) @ across @ np.linalg.inv(other) @ across.T)[0].real
    np.testing.assert_allclose(found.correlations, np.sqrt(np.sort(squares)), atol=1e-6)
    variates = [w.T @ (d - m[:, None]) for w, d, m in zip(found.weights, dates, found.means, strict=True)]
    for each in variates:
        np.testing.assert_allclose(np.cov(each), np.eye(BANDS), atol=1e-3)
    between = np.cov(np.concatenate(variates))[:BANDS, BANDS:]
    np.testing.assert_allclose(between, np.diag(found.correlations), atol=1e-3)


def test_the_changed_block_is_found_and_the_rounds_find_it_better(dates):
    changed = changed_block()
    plain, repeated = (fit_alteration(dates, quiet, count) for count in (1, 50))
    assert 1 < repeated.iterations < 50
    wrong = [((no_change_probability(found.variates(dates)) < 0.001) != changed).mean() for found in (plain, repeated)]
    assert wrong[1] < 0.004 < wrong[0]
    assert repeated.correlations.min() > plain.correlations.min() + 0.1


@pytest.mark.parametrize("bands", [1, 2, BANDS])
@pytest.mark.parametrize("rounds", [1, 50])
def test_what_has_not_changed_follows_the_distribution(dates, bands, rounds):
    """However often it is weighted: without the correction the variance of one band would come to nothing."""
    generator = np.random.default_rng(3)
    before = generator.normal(size=(bands, 20_000))
    clean = np.stack([before, 2 * before + generator.normal(size=before.shape)]).astype(np.float32)
    probability = no_change_probability(fit_alteration(clean, quiet, rounds).variates(clean))
    assert np.quantile(probability, [0.01, 0.1, 0.5, 0.9]) == pytest.approx([0.01, 0.1, 0.5, 0.9], abs=0.03)
    assert (probability < 0.001).mean() < 0.002


def test_the_shrinkage_is_that_of_weighted_normal_variates():
    variates = np.random.default_rng(0).normal(size=(3, 200_000))
    weights = no_change_probability(variates)
    assert weighted_shrinkage(3) == pytest.approx((weights * variates**2).sum() / weights.sum() / 3, rel=0.01)
    assert length_at(0.01, 3) ** 2 == pytest.approx(chi2.isf(0.01, 3))


def test_other_units_and_mixtures_of_bands_change_nothing(dates):
    expected = np.linalg.norm(fit_alteration(dates, quiet).variates(dates), axis=0)
    rescaled = dates.copy()
    rescaled[1] = rescaled[1] * np.float32([[100], [0.001], [-5], [2]]) + np.float32([[1e3], [0], [3], [-40]])
    mixed = dates.copy()
    mixed[0] = np.float32([[1, 2, 0, 0], [0, 1, 0, 3], [1, 0, 1, 0], [0, 0, 2, 1]]) @ mixed[0]
    for other in (rescaled, mixed):
        found = np.linalg.norm(fit_alteration(other, quiet).variates(other), axis=0)
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


def test_bands_that_tell_nothing_and_bands_that_repeat_others_do_no_harm(dates):
    constant = np.concatenate([dates, np.full_like(dates[:, :1], 5)], axis=1)
    expected = np.linalg.norm(fit_alteration(dates, quiet).variates(dates), axis=0)
    found = fit_alteration(constant, quiet)
    assert found.weights.shape == (2, BANDS + 1, BANDS)
    np.testing.assert_allclose(np.linalg.norm(found.variates(constant), axis=0), expected, rtol=1e-5)
    repeated = np.concatenate([dates, dates[:, :2]], axis=1)
    variates = fit_alteration(repeated, quiet).variates(repeated)
    assert np.isfinite(variates).all()
    assert ((no_change_probability(variates) < 0.001) != changed_block()).mean() < 0.02


def test_two_dates_that_are_the_same_have_not_changed(dates):
    same = np.stack([dates[0], dates[0]])
    variates = fit_alteration(same, quiet).variates(same)
    assert (no_change_probability(variates) > 0.5).all()


def test_too_little_to_compare(dates):
    with pytest.raises(ValueError, match="too few"):
        fit_alteration(dates[:, :, : 2 * BANDS], quiet)
    with pytest.raises(ValueError, match="no band varies"):
        fit_alteration(np.ones_like(dates), quiet)


def test_missing_values_stay_missing(dates):
    found = fit_alteration(dates, quiet)
    gap = dates.copy()
    gap[1, 2, 17] = np.nan
    variates = found.variates(gap)
    assert np.isnan(no_change_probability(variates)[17])
    np.testing.assert_array_equal(np.delete(variates, 17, axis=1), np.delete(found.variates(dates), 17, axis=1))


def test_the_second_date_in_the_light_of_the_first():
    """Gain and offset of the sensor are found on what has not changed, whatever the rest does."""
    generator = np.random.default_rng(3)
    first = generator.normal(50, 10, size=(3, 6000))
    gain, offset = np.array([0.5, 1.0, 2.0]), np.array([20.0, -5.0, 0.0])
    second = (first - offset[:, None]) / gain[:, None] + generator.normal(0, 0.2, size=first.shape)
    second[:, :600] = generator.normal(200, 5, size=(3, 600))
    found = fit_alteration(np.stack([first, second]).astype(np.float32), lambda part, phase: None)
    np.testing.assert_allclose(found.light_of_first()[0], gain, rtol=0.03)
    np.testing.assert_allclose(found.light_of_first()[1], offset, atol=2)
