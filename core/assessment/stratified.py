"""Accuracy and area from a stratified sample whose strata need not be the classes of the map.

Stehman (2014): Estimating area and map accuracy for stratified random sampling when the strata are different from the map
classes. *International Journal of Remote Sensing* 35(13), 4923-4939, doi:10.1080/01431161.2014.930207. The numbers of
equations are that paper's. A stratum's weight here is its share of the area, not of the pixels, which is the same where
all pixels cover the same ground; pixels count in the correction for a finite population.

A unit where the assessed map has no data stands for ground of which the map says nothing. It counts with 0 in every
indicator, so that all estimates are of the mapped part of the strata. That is inferred: the paper's map has no gaps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.assessment.area_adjusted import AreaAdjusted, Estimate, Stratum
from core.assessment.confusion import FloatArray, IntArray

NOT_MAPPED = -1
"""The class of a unit where the map has no data."""


@dataclass(frozen=True, eq=False)
class SampleUnits:
    """The units of a stratified sample; (n,) int64 each.

    Attributes:
        stratum: index into the strata.
        mapped: index of the map's class, or ``NOT_MAPPED``.
        reference: index of the true class; not looked at where nothing is mapped.
    """

    stratum: IntArray
    mapped: IntArray
    reference: IntArray

    def __len__(self) -> int:
        return len(self.stratum)

    def confusion(self, n_classes: int) -> IntArray:
        """(K, K) units, rows = map, columns = reference."""
        counts = np.zeros((n_classes, n_classes), np.int64)
        seen = self.mapped != NOT_MAPPED
        np.add.at(counts, (self.mapped[seen], self.reference[seen]), 1)
        return counts


def stratified_accuracy(
    units: SampleUnits, strata: tuple[Stratum, ...], mapped_areas: NDArray[np.floating], names: tuple[str, ...]
) -> AreaAdjusted:
    """Estimates accuracy and area from units sampled at random within any strata (eqs. 2, 3, 12 to 28).

    A stratum without units leaves everything unknown: NaN. With one unit, unless that is all of it, it has no variance:
    the estimates stand and the standard errors are NaN.

    Args:
        units: the sample.
        strata: that they were drawn from; their numbers of units are counted here.
        mapped_areas: (K,) area of each class in the map, in the strata's unit; reported, and not used.
        names: of the K classes.

    Raises:
        ValueError: no unit, or a stratum with more units than pixels.
    """
    n_classes, n_strata = len(names), len(strata)
    sampled = np.bincount(units.stratum, minlength=n_strata)
    pixels = np.array([stratum.pixels for stratum in strata], np.int64)
    if not len(units) or (sampled > pixels).any():
        raise ValueError(f"A stratum has no more units than pixels, and one has a unit; got {sampled} of {pixels}.")
    areas = np.array([stratum.area for stratum in strata])
    seen = units.mapped != NOT_MAPPED
    is_mapped = (units.mapped[:, None] == np.arange(n_classes)) & seen[:, None]  # (n, K)
    is_reference = (units.reference[:, None] == np.arange(n_classes)) & seen[:, None]
    agrees = (is_mapped & is_reference).any(axis=1)
    frame = _Frame(units.stratum, areas / areas.sum(), sampled, pixels)

    proportions = frame.mean((is_mapped[:, :, None] & is_reference[:, None, :]).reshape(len(units), -1))  # eq. 16
    area_shares = frame.ratios(is_reference, np.ones_like(is_reference))  # eq. 14: with x = 1 the ratio is the mean
    return AreaAdjusted(
        names=tuple(names),
        sample_counts=tuple(tuple(int(value) for value in row) for row in units.confusion(n_classes)),
        mapped_areas=tuple(float(value) for value in mapped_areas),
        area_proportions=tuple(tuple(float(value) for value in row) for row in proportions.reshape(n_classes, n_classes)),
        overall_accuracy=frame.ratios(agrees[:, None], seen[:, None])[0],  # eq. 12
        users_accuracy=frame.ratios(is_mapped & agrees[:, None], is_mapped),  # eqs. 18 and 19
        producers_accuracy=frame.ratios(is_reference & agrees[:, None], is_reference),  # eqs. 22 and 23
        areas=tuple(
            Estimate(float(areas.sum()) * share.value, float(areas.sum()) * share.standard_error) for share in area_shares
        ),
        notes=_notes(strata, sampled, pixels, is_mapped, is_reference, agrees, names),
        estimator="stehman2014",
    )


@dataclass(frozen=True, eq=False)
class _Frame:
    """How units stand for the whole: (n,) strata of the units; (H,) weights, numbers of units and of pixels."""

    stratum: IntArray
    weights: FloatArray
    sampled: IntArray
    pixels: IntArray

    def mean(self, y: NDArray[np.bool_]) -> FloatArray:
        """Stratified means of indicators (n, Q): (Q,), eqs. 2 and 3; NaN where a stratum has no unit."""
        sums = np.zeros((len(self.weights), y.shape[1]))
        np.add.at(sums, self.stratum, y)
        with np.errstate(invalid="ignore"):
            means: FloatArray = (self.weights[:, None] * (sums / self.sampled[:, None])).sum(axis=0)
        return means

    def ratios(self, y: NDArray[np.bool_], x: NDArray[np.bool_]) -> tuple[Estimate, ...]:
        """Combined ratios of indicators (n, Q) and their standard errors, eqs. 27 and 28.

        The variance of the residual y - R x within a stratum is the s_y^2 + R^2 s_x^2 - 2 R s_xy of eq. 28.
        """
        totals = self.mean(x)
        with np.errstate(divide="ignore", invalid="ignore"):
            values = self.mean(y) / totals
            residuals = y - values * x
            variances = np.zeros(len(values))
            for h, (n, size) in enumerate(zip(self.sampled, self.pixels, strict=True)):
                if n == size:
                    continue  # taken whole: nothing of it is left to chance
                own = residuals[self.stratum == h]
                spread = own.var(axis=0, ddof=1) if n > 1 else np.full(len(values), np.nan)
                variances += self.weights[h] ** 2 * (1.0 - n / size) * spread / max(n, 1)
            errors = np.sqrt(variances) / totals
        return tuple(Estimate(float(v), float(e)) for v, e in zip(values, errors, strict=True))


def _notes(
    strata: tuple[Stratum, ...],
    sampled: IntArray,
    pixels: IntArray,
    is_mapped: NDArray[np.bool_],
    is_reference: NDArray[np.bool_],
    agrees: NDArray[np.bool_],
    names: tuple[str, ...],
) -> tuple[str, ...]:
    notes = []
    for stratum, n, size in zip(strata, sampled, pixels, strict=True):
        if n == 0:
            notes.append(
                f"The stratum '{stratum.name}' has no unit with a reference. Accuracies and areas cannot be estimated; "
                "interpret at least two of its points."
            )
        elif n == 1 and size > 1:
            notes.append(
                f"The stratum '{stratum.name}' has one unit with a reference, so its variance is unknown and no interval "
                "can be given; interpret at least one more of its points."
            )
    for k, name in enumerate(names):
        mapped, right = int(is_mapped[:, k].sum()), int((is_mapped[:, k] & agrees).sum())
        if mapped and right in (0, mapped):
            notes.append(
                f"The units mapped as '{name}' are {'all right' if right else 'all wrong'}. The interval of width 0 comes "
                "from the normal approximation and is no certainty."
            )
        if not is_reference[:, k].any():
            notes.append(
                f"No unit is '{name}' in the reference: an area of 0 is estimated, which is no proof that there is none."
            )
    return tuple(notes)
