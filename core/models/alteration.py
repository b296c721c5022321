"""Change between two dates without labels: iteratively reweighted multivariate alteration detection (IR-MAD).

Canonical correlation analysis finds the linear combinations of each date's bands that agree best; their differences, the MAD
variates, are uncorrelated, and where nothing has changed the sum of their squares over their variances follows a chi-square
distribution. Pixels that have probably not changed then count more, and the analysis is repeated until it no longer moves.
Differences of sensors, light and haze that are linear in the bands cancel out: no linear change of the bands of a date
changes the result. Beside what was published, the variance of unchanged ground is corrected for the weights, see
``weighted_shrinkage``.

Nielsen, Conradsen and Simpson (1998), Remote Sensing of Environment 64:1-19, is the transformation; Nielsen (2007), IEEE
Transactions on Image Processing 16:463-478, the iteration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.linalg import eigh
from scipy.stats import chi2

FloatArray = NDArray[np.float64]

MOST_ITERATIONS = 50
_TOLERANCE = 1e-3
"""Largest move of a canonical correlation at which the iteration ends (inferred from Nielsen's own programs)."""

_RIDGE = 1e-9
"""Added to the diagonal of correlation matrices, so that bands that repeat each other do not stop the analysis."""

_LEAST_VARIANCE = 1e-8
"""Of a variate of unit canonical variables: two dates that are the same would divide nothing by nothing."""

_PIXELS_AT_ONCE = 1 << 18


@dataclass(frozen=True, eq=False)
class Alteration:
    """The transformation of two dates' bands to MAD variates.

    Attributes:
        means: (2, C) of the weighted no-change background.
        deviations: (2, C) standard deviations of the same.
        weights: (2, C, p) of the bands in each canonical variable.
        correlations: (p,) canonical correlations, rising: the first variate differs most.
        shrinkage: by how much weighting makes the variance of unchanged ground too small.
        iterations: that it took.
    """

    means: FloatArray
    deviations: FloatArray
    weights: FloatArray
    correlations: FloatArray
    shrinkage: float
    iterations: int

    def variates(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The MAD variates, each divided by its standard deviation where nothing has changed.

        Args:
            values: (2, C, ...) of both dates, NaN = missing.

        Returns:
            (p, ...) float32, the second date's less the first's in sign; NaN = missing.
        """
        shape = values.shape[2:]
        flat = values.reshape(2, values.shape[1], -1)
        found = np.empty((len(self.correlations), flat.shape[2]), np.float32)
        deviation = np.sqrt(np.maximum(2 * (1 - self.correlations) / self.shrinkage, _LEAST_VARIANCE))[:, None]
        for part in _parts(flat.shape[2]):
            centred = flat[:, :, part] - self.means[:, :, None]
            both = [weights.T @ each for weights, each in zip(self.weights, centred, strict=True)]
            found[:, part] = (both[1] - both[0]) / deviation
        return found.reshape(-1, *shape)

    def light_of_first(self) -> tuple[FloatArray, FloatArray]:
        """Gain and offset, (C,) each, that show the second date in the light of the first: unchanged ground then has the same
        mean and spread at both.

        Relative radiometric normalisation on what IR-MAD finds unchanged is that of Canty and Nielsen (2008), Remote Sensing of
        Environment 112:1025-1036; theirs is an orthogonal regression, this one compares moments, which are at hand.
        """
        varies = self.deviations.min(axis=0) > 0
        gain = np.ones_like(self.deviations[0])
        np.divide(self.deviations[0], self.deviations[1], out=gain, where=varies)
        return gain, self.means[0] - gain * self.means[1]


def no_change_probability(variates: NDArray[np.float32]) -> NDArray[np.float64]:
    """The probability that a pixel without any change differs at least as much (Nielsen 2007, equation 8, upper tail).

    It is the level of a statistical test, and no probability that the ground has changed.

    Args:
        variates: (p, ...) of ``Alteration.variates``.

    Returns:
        (...) 0..1, NaN = missing.
    """
    squares = np.square(variates, dtype=np.float64).sum(axis=0)
    return np.asarray(chi2.sf(squares, len(variates)))


def length_at(probability: float, count: int) -> float:
    """The length of so many variates beyond which a pixel without change lies with a probability."""
    return float(np.sqrt(chi2.isf(probability, count)))


def weighted_shrinkage(count: int) -> float:
    """The variance of so many normal variates of variance one, where each pixel counts by its probability of no change.

    Pixels near the middle count more, so that the weighted variance is too small, more so in each round, and with one band
    comes to nothing. Of two independent chi-square variables Z and Z', E[P(Z' > Z) Z] / E[P(Z' > Z)] is the mean of the smaller
    one, the integral of its squared survival function (inferred; not part of Nielsen 2007).
    """
    smaller, _ = quad(lambda value: chi2.sf(value, count) ** 2, 0, np.inf)
    return float(smaller / count)


def fit_alteration(
    values: NDArray[np.float32], progress: Callable[[float, str], None], most_iterations: int = MOST_ITERATIONS
) -> Alteration:
    """Fits the transformation.

    Args:
        values: (2, C, n) of both dates, all finite. Bands that hold one value at a date tell nothing and get no weight.
        progress: told the part done, and in which phase; raises to stop.
        most_iterations: one is the plain MAD transformation.

    Raises:
        ValueError: no band tells anything, or fewer pixels than bands.
    """
    if values.shape[2] <= 2 * values.shape[1]:
        raise ValueError(f"{values.shape[2]} pixels are too few for {values.shape[1]} bands")
    used = np.flatnonzero((values.max(axis=2) > values.min(axis=2)).all(axis=0))
    if not len(used):
        raise ValueError("no band varies at both dates")
    centre = values.mean(axis=2, dtype=np.float64)[:, used]
    scale = values.std(axis=2, dtype=np.float64)[:, used]
    background = np.ones(values.shape[2])
    earlier = np.full(len(used), np.inf)
    for iteration in range(1, most_iterations + 1):
        progress(iteration / most_iterations, f"Looking for what has not changed: round {iteration}")
        means, covariance = _moments(values, used, centre, scale, background)
        found = _canonical(means, covariance, centre, scale, iteration)
        if np.abs(found.correlations - earlier).max() < _TOLERANCE or iteration == most_iterations:
            break
        earlier = found.correlations
        for part in _parts(values.shape[2]):
            background[part] = no_change_probability(found.variates(values[:, used, part]))
    weights = np.zeros((2, values.shape[1], len(used)))
    weights[:, used] = found.weights
    means, deviations = (np.asarray(moment(values, axis=2, dtype=np.float64)) for moment in (np.mean, np.std))
    means[:, used], deviations[:, used] = found.means, found.deviations
    return Alteration(means, deviations, weights, found.correlations, found.shrinkage, found.iterations)


def _parts(count: int) -> Iterator[slice]:
    for first in range(0, count, _PIXELS_AT_ONCE):
        yield slice(first, min(count, first + _PIXELS_AT_ONCE))


def _moments(
    values: NDArray[np.float32], used: NDArray[np.int64], centre: FloatArray, scale: FloatArray, background: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Weighted mean (2 C,) and covariance (2 C, 2 C) of both dates' bands side by side, in units of ``scale``: sums over
    parts of the pixels."""
    size = 2 * len(used)
    total, sums, products = 0.0, np.zeros(size), np.zeros((size, size))
    for part in _parts(values.shape[2]):
        standard = ((values[:, used, part] - centre[:, :, None]) / scale[:, :, None]).reshape(size, -1)
        weighted = standard * background[part]
        total += float(background[part].sum())
        sums += weighted.sum(axis=1)
        products += weighted @ standard.T
    means = sums / total
    return means, products / total - np.outer(means, means)


def _canonical(means: FloatArray, covariance: FloatArray, centre: FloatArray, scale: FloatArray, iteration: int) -> Alteration:
    """Canonical variables of unit variance from the covariance of both dates' standardised bands (Nielsen et al. 1998)."""
    count = len(covariance) // 2
    first, second = slice(0, count), slice(count, 2 * count)
    # In units of the background's own deviations the ridge is alike for all bands, whatever their units.
    deviation = np.sqrt(np.maximum(np.diag(covariance), _LEAST_VARIANCE**2))
    correlation = covariance / np.outer(deviation, deviation)
    own, other = (correlation[part, part] + _RIDGE * np.eye(count) for part in (first, second))
    across = correlation[first, second]
    squares, vectors = eigh(across @ np.linalg.solve(other, across.T), own)
    # The sign of an eigenvector is arbitrary; what weighs most counts as positive.
    vectors *= np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(count)])
    partners = np.linalg.solve(other, across.T @ vectors)
    lengths = np.sqrt(np.einsum("ij,ik,kj->j", partners, other, partners))
    partners /= np.maximum(lengths, _LEAST_VARIANCE)
    correlations = np.sqrt(np.clip(squares, 0.0, 1.0))
    own_weights = vectors / (deviation[first] * scale[0])[:, None]
    other_weights = partners / (deviation[second] * scale[1])[:, None]
    shifted = centre + means.reshape(2, count) * scale
    shrinkage = 1.0 if iteration == 1 else weighted_shrinkage(count)
    deviations = deviation.reshape(2, count) * scale
    return Alteration(shifted, deviations, np.stack([own_weights, other_weights]), correlations, shrinkage, iteration)
