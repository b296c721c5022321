"""Accuracy and area from a stratified sample, after Olofsson et al. (2014).

Olofsson, Foody, Herold, Stehman, Woodcock and Wulder: Good practices for estimating area and assessing accuracy of land
change. *Remote Sensing of Environment* 148, 42-57, doi:10.1016/j.rse.2014.02.015. The numbers of equations are that
paper's. The strata are the classes of the map, and the units are a random sample within each stratum; only then are the
estimates design-based and their intervals valid.

The intervals are 1.96 standard errors to either side, as in the paper. In its worked example (section 5) two printed
intervals do not follow from its own equation 7: the producer's accuracies of forest gain (printed 0.23, computed 0.254)
and of stable non-forest (printed 0.01, computed 0.018). All its other results are reproduced to the printed digit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from core.assessment.confusion import FloatArray, IntArray, checked_counts

Z_95 = 1.96
"""Standard errors to either side of a 95 % interval, rounded as the paper does."""


@dataclass(frozen=True)
class Estimate:
    """An estimate with its standard error; NaN where it is not defined."""

    value: float
    standard_error: float

    @property
    def half_width(self) -> float:
        """Half of the 95 % confidence interval."""
        return Z_95 * self.standard_error


@dataclass(frozen=True)
class Stratum:
    """A part of the ground in which units were drawn at random.

    Attributes:
        name: as the reference has it.
        pixels: of the map that it was made from.
        area: in the unit of the estimates.
        drawn: units of the sample.
        used: units with a reference, from which the estimates come.
    """

    name: str
    pixels: int
    area: float
    drawn: int = 0
    used: int = 0


@dataclass(frozen=True)
class AreaAdjusted:
    """Stratified estimates; per class in the order of ``names``.

    Attributes:
        names: of the K classes.
        sample_counts: (K, K) units, rows = map, columns = reference.
        mapped_areas: of each map class, in the unit given.
        area_proportions: (K, K) error matrix of estimated proportions of area, the paper's p_ij (eq. 4); the row of a
            stratum without units is NaN.
        overall_accuracy: eqs. 1 and 5.
        users_accuracy: eqs. 2 and 6.
        producers_accuracy: eqs. 3 and 7.
        areas: estimated area of each class, in the unit given (eqs. 9 to 11).
        notes: in plain words, what could not be estimated and why.
        estimator: of the classes of the map as strata (Olofsson et al. 2014), or of any strata (Stehman 2014).
        strata: that the units were drawn from; empty where the reference does not say.
    """

    names: tuple[str, ...]
    sample_counts: tuple[tuple[int, ...], ...]
    mapped_areas: tuple[float, ...]
    area_proportions: tuple[tuple[float, ...], ...]
    overall_accuracy: Estimate
    users_accuracy: tuple[Estimate, ...]
    producers_accuracy: tuple[Estimate, ...]
    areas: tuple[Estimate, ...]
    notes: tuple[str, ...]
    estimator: Literal["olofsson2014", "stehman2014"] = "olofsson2014"
    strata: tuple[Stratum, ...] = ()


def area_adjusted_accuracy(
    sample_counts: NDArray[np.integer], mapped_areas: NDArray[np.floating], names: tuple[str, ...]
) -> AreaAdjusted:
    """Estimates accuracy and area from units sampled within the classes of a map.

    A stratum (a map class that covers ground) without units leaves overall accuracy, producer's accuracies and areas
    unknown: NaN. With one unit it has no variance: the estimates stand and their standard errors are NaN. A class that
    the reference has and the map has not is no stratum; its area and producer's accuracy (0) come from the others.

    Args:
        sample_counts: (K, K) units, rows = map class (stratum), columns = reference class.
        mapped_areas: (K,) area of each class in the map, in any unit.
        names: of the K classes.

    Raises:
        ValueError: shapes that do not fit, negative or not finite areas, no area at all, or units in a stratum without
            area.
    """
    counts = checked_counts(sample_counts)
    areas = np.asarray(mapped_areas, dtype=np.float64)
    _check(counts, areas, names)
    sampled = counts.sum(axis=1)
    is_stratum = areas > 0
    weights = areas / areas.sum()
    total = float(areas.sum())

    within = _within_strata(counts, is_stratum)  # n_ij / n_i, 0 in rows that are no stratum
    variances = _within_variances(within, sampled, is_stratum)
    proportions = weights[:, None] * within  # eq. 4
    reference = proportions.sum(axis=0)

    users = np.where(is_stratum, np.diagonal(within), np.nan)  # eq. 2
    users_variance = np.where(is_stratum, np.diagonal(variances), np.nan)  # eq. 6
    overall = float(np.trace(proportions))  # eq. 1
    overall_variance = float((weights**2 * np.diagonal(variances)).sum())  # eq. 5
    producers, producers_variance = _producers(proportions, variances, weights)
    area_variance = (weights[:, None] ** 2 * variances).sum(axis=0)  # eq. 10, squared
    return AreaAdjusted(
        names=tuple(names),
        sample_counts=tuple(tuple(int(value) for value in row) for row in counts),
        mapped_areas=tuple(float(value) for value in areas),
        area_proportions=tuple(tuple(float(value) for value in row) for row in proportions),
        overall_accuracy=Estimate(overall, overall_variance**0.5),
        users_accuracy=_estimates(users, users_variance),
        producers_accuracy=_estimates(producers, producers_variance),
        areas=_estimates(total * reference, total**2 * area_variance),  # eqs. 9 and 11
        notes=_notes(counts, is_stratum, weights, names),
    )


def _check(counts: IntArray, areas: FloatArray, names: tuple[str, ...]) -> None:
    n_classes = len(counts)
    if areas.shape != (n_classes,):
        raise ValueError(f"{n_classes} classes need as many mapped areas; got an array of shape {areas.shape}.")
    if len(names) != n_classes:
        raise ValueError(f"{n_classes} classes need as many names; got {len(names)}.")
    if not np.isfinite(areas).all() or (areas < 0).any() or areas.sum() <= 0:
        raise ValueError(f"Mapped areas are finite, 0 or more, and not all 0; got {areas.tolist()}.")
    astray = [name for name, n, area in zip(names, counts.sum(axis=1), areas, strict=True) if n and not area]
    if astray:
        raise ValueError(f"Units were sampled where the map has no area: {', '.join(astray)}.")


def _within_strata(counts: IntArray, is_stratum: NDArray[np.bool_]) -> FloatArray:
    """Shares of the reference classes in each stratum, (K, K): NaN rows without units, 0 where there is no stratum."""
    sampled = counts.sum(axis=1)
    shares = np.zeros(counts.shape)
    shares[is_stratum] = np.nan
    has_units = is_stratum & (sampled > 0)
    shares[has_units] = counts[has_units] / sampled[has_units, None]
    return shares


def _within_variances(within: FloatArray, sampled: IntArray, is_stratum: NDArray[np.bool_]) -> FloatArray:
    """Variances of the shares of each stratum, (K, K): NaN rows below two units, 0 where there is no stratum."""
    variances = np.zeros(within.shape)
    variances[is_stratum] = np.nan
    enough = is_stratum & (sampled > 1)
    variances[enough] = within[enough] * (1.0 - within[enough]) / (sampled[enough, None] - 1)
    return variances


def _producers(proportions: FloatArray, variances: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Producer's accuracies and their variances, (K,) each (eqs. 3 and 7, with areas as shares of the whole)."""
    reference = proportions.sum(axis=0)
    occurs = reference > 0  # False where it is NaN
    accuracies = np.full(len(weights), np.nan)
    accuracies[occurs] = np.diagonal(proportions)[occurs] / reference[occurs]
    terms = weights[:, None] ** 2 * variances
    own = np.diagonal(terms)
    others = np.where(np.eye(len(weights), dtype=bool), 0.0, terms).sum(axis=0)
    spread = np.full(len(weights), np.nan)
    spread[occurs] = ((1.0 - accuracies) ** 2 * own + accuracies**2 * others)[occurs] / reference[occurs] ** 2
    return accuracies, spread


def _estimates(values: FloatArray, variances: FloatArray) -> tuple[Estimate, ...]:
    return tuple(Estimate(float(v), float(s)) for v, s in zip(values, np.sqrt(variances), strict=True))


def _notes(counts: IntArray, is_stratum: NDArray[np.bool_], weights: FloatArray, names: tuple[str, ...]) -> tuple[str, ...]:
    notes = []
    for k, name in enumerate(names):
        in_map, in_reference = int(counts[k].sum()), int(counts[:, k].sum())
        covers = f"'{name}' covers {100 * weights[k]:.2g} % of the map"
        if is_stratum[k] and in_map == 0:
            notes.append(
                f"{covers} and has no unit of reference. Overall accuracy, producer's accuracies and areas cannot be "
                "estimated; sample at least two units of it, or merge it with another class."
            )
        elif is_stratum[k] and in_map == 1:
            notes.append(
                f"{covers} and has one unit of reference, so its variance is unknown and no interval can be given; "
                "sample at least one more."
            )
        elif is_stratum[k] and np.count_nonzero(counts[k]) == 1:
            notes.append(
                f"The {in_map} units of '{name}' agree on one reference class. Their interval of width 0 comes from the "
                "normal approximation and is no certainty."
            )
        if not is_stratum[k] and in_reference:
            notes.append(
                f"'{name}' occurs in the reference and not in the map. Its area is estimated from the other strata; "
                "its user's accuracy is not defined."
            )
    return tuple(notes)
