"""Agreement of a map with its reference, unit by unit: the confusion matrix and what follows from it.

A confusion matrix here is (K, K) with the map's class in the rows and the reference's in the columns, as in Olofsson et
al. (2014), *Remote Sensing of Environment* 148, 42-57. Classes are indices 0 to K - 1 in the order of the scheme.

Write ``n_k`` for the diagonal, ``mapped_k`` for a row's sum and ``support_k`` for a column's. Then

- user's accuracy ``n_k / mapped_k``: how much of what is mapped as k is k;
- producer's accuracy ``n_k / support_k``: how much of what is k is mapped as k;
- F1 ``2 n_k / (mapped_k + support_k)`` and IoU ``n_k / (mapped_k + support_k - n_k)``.

A class is *present* where it occurs in the reference or in the map (``mapped_k + support_k > 0``). Macro-F1 and mean
IoU are plain means over the classes present. So a class that the map invents, or misses altogether, counts with 0, and
a class that occurs on neither side has NaN and does not count at all. What would be 0 / 0 is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

RESAMPLES = 2000
_DRAWS_AT_A_TIME = 50
"""Enough for the second decimal of a 95 % percentile interval; more changes the third."""


@dataclass(frozen=True)
class Accuracy:
    """Scores of one confusion matrix; per class in the order of ``names``, NaN where a score is not defined.

    Attributes:
        names: of the K classes.
        overall_accuracy: share of the units whose classes agree.
        macro_f1, mean_iou: means over the classes present (see the module).
        kappa: Cohen's; NaN where only one class occurs on both sides.
        users_accuracy, producers_accuracy, f1, iou: 0..1.
        support: units of the reference.
        mapped: units of the map.
    """

    names: tuple[str, ...]
    overall_accuracy: float
    macro_f1: float
    mean_iou: float
    kappa: float
    users_accuracy: tuple[float, ...]
    producers_accuracy: tuple[float, ...]
    f1: tuple[float, ...]
    iou: tuple[float, ...]
    support: tuple[int, ...]
    mapped: tuple[int, ...]

    @property
    def n_units(self) -> int:
        """Units compared."""
        return sum(self.support)

    @property
    def present(self) -> tuple[bool, ...]:
        """Whether a class occurs in the reference or in the map."""
        return tuple(support + mapped > 0 for support, mapped in zip(self.support, self.mapped, strict=True))

    @property
    def not_validated(self) -> tuple[str, ...]:
        """Names of the classes without a single unit of reference."""
        return tuple(name for name, support in zip(self.names, self.support, strict=True) if support == 0)


@dataclass(frozen=True)
class AccuracyInterval:
    """95 % intervals, each as (low, high); NaN where there are fewer than two groups.

    Attributes:
        overall_accuracy, macro_f1, mean_iou: the intervals.
        n_groups: independent groups that they rest on.
    """

    overall_accuracy: tuple[float, float]
    macro_f1: tuple[float, float]
    mean_iou: tuple[float, float]
    n_groups: int


def confusion_matrix(mapped: NDArray[np.integer], reference: NDArray[np.integer], n_classes: int) -> IntArray:
    """Counts the pairs of classes.

    Args:
        mapped: class indices of the map, whole numbers of any shape; negative = ignored.
        reference: class indices of the reference, same shape; negative = ignored.
        n_classes: K.

    Returns:
        (K, K) int64, rows = map, columns = reference.

    Raises:
        ValueError: shapes that differ, values that are no whole numbers, or an index of K or above.
    """
    mapped, reference = np.asarray(mapped), np.asarray(reference)
    if n_classes < 1:
        raise ValueError(f"A confusion matrix needs at least one class; got {n_classes}.")
    if mapped.shape != reference.shape:
        raise ValueError(f"Map and reference have one shape; got {mapped.shape} and {reference.shape}.")
    for name, values in (("map", mapped), ("reference", reference)):
        if not np.issubdtype(values.dtype, np.integer):
            raise ValueError(f"Class indices are whole numbers; the {name} is {values.dtype}.")
        if values.size and int(values.max()) >= n_classes:
            raise ValueError(f"Class indices lie below {n_classes}; the {name} has {int(values.max())}.")
    used = (mapped >= 0) & (reference >= 0)
    pairs = mapped[used].astype(np.int64) * n_classes + reference[used].astype(np.int64)
    return np.bincount(pairs, minlength=n_classes * n_classes).reshape(n_classes, n_classes).astype(np.int64)


def accuracy(confusion: NDArray[np.integer], names: tuple[str, ...]) -> Accuracy:
    """Scores of a confusion matrix.

    Args:
        confusion: (K, K) counts, rows = map, columns = reference.
        names: of the K classes.

    Raises:
        ValueError: not square, negative or not whole counts, or another number of names.
    """
    counts = checked_counts(confusion)
    if len(names) != len(counts):
        raise ValueError(f"{len(counts)} classes need as many names; got {len(names)}.")
    diagonal, mapped, support = np.diagonal(counts), counts.sum(axis=1), counts.sum(axis=0)
    overall, macro_f1, mean_iou = _summary_scores(counts)
    f1, iou = _class_scores(counts)
    n = int(counts.sum())
    chance = float((mapped / n * (support / n)).sum()) if n else 0.0
    return Accuracy(
        names=tuple(names),
        overall_accuracy=float(overall),
        macro_f1=float(macro_f1),
        mean_iou=float(mean_iou),
        kappa=(float(overall) - chance) / (1.0 - chance) if n and np.count_nonzero(mapped + support) > 1 else np.nan,
        users_accuracy=_floats(_ratio(diagonal, mapped)),
        producers_accuracy=_floats(_ratio(diagonal, support)),
        f1=_floats(f1),
        iou=_floats(iou),
        support=tuple(int(value) for value in support),
        mapped=tuple(int(value) for value in mapped),
    )


def bootstrap_interval(groups: NDArray[np.integer], seed: int, n_resamples: int = RESAMPLES) -> AccuracyInterval:
    """95 % percentile intervals from resampling whole groups with replacement (the cluster bootstrap).

    Pixels of one polygon resemble each other, so intervals from single pixels are far too narrow; a group is what was
    drawn independently, a polygon or a spatial block. Groups without a unit are left out. Macro-F1 and mean IoU of a
    resample are those over the classes present in it. With fewer than about ten groups the intervals are still somewhat
    narrow, which is a property of the method (Efron and Tibshirani 1993, *An Introduction to the Bootstrap*, ch. 13).

    Args:
        groups: (G, K, K) counts, one confusion matrix a group.
        seed: of the resampling.
        n_resamples: resamples to draw.

    Raises:
        ValueError: another shape, negative or not whole counts, or no resample.
    """
    groups = np.asarray(groups)
    if groups.ndim != 3 or groups.shape[1] != groups.shape[2]:
        raise ValueError(f"Groups have the shape (G, K, K); got {groups.shape}.")
    if n_resamples < 1:
        raise ValueError(f"At least one resample is needed; got {n_resamples}.")
    if not np.issubdtype(groups.dtype, np.integer) or (groups.size and groups.min() < 0):
        raise ValueError("The counts of a group are whole numbers of 0 or more.")
    groups = groups[groups.sum(axis=(1, 2)) > 0].astype(np.float64)
    n_groups, n_classes = groups.shape[:2]
    if n_groups < 2:
        unknown = (float("nan"), float("nan"))
        return AccuracyInterval(unknown, unknown, unknown, n_groups)
    generator = np.random.default_rng(seed)
    # How often each group is drawn; a product with the groups then sums the drawn matrices. In float64 for its fast
    # product, which is exact for counts. Some at a time: all draws of a hundred thousand points would take gigabytes.
    flat, part = groups.reshape(n_groups, -1), np.full(n_groups, 1.0 / n_groups)
    sizes = [min(_DRAWS_AT_A_TIME, n_resamples - first) for first in range(0, n_resamples, _DRAWS_AT_A_TIME)]
    sums = [generator.multinomial(n_groups, part, size=size).astype(np.float64) @ flat for size in sizes]
    resamples = np.concatenate(sums).reshape(n_resamples, n_classes, n_classes)
    bounds = [np.percentile(scores, (2.5, 97.5)) for scores in _summary_scores(resamples)]
    overall, macro_f1, mean_iou = ((float(low), float(high)) for low, high in bounds)
    return AccuracyInterval(overall, macro_f1, mean_iou, n_groups)


def checked_counts(counts: NDArray[np.integer]) -> IntArray:
    """The counts of a confusion matrix as (K, K) int64.

    Raises:
        ValueError: not square, negative, or not whole numbers.
    """
    counts = np.asarray(counts)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.shape[0] < 1:
        raise ValueError(f"A confusion matrix is square, (K, K); got {counts.shape}.")
    if not np.issubdtype(counts.dtype, np.integer):
        raise ValueError(f"Counts are whole numbers; got {counts.dtype}.")
    if counts.min() < 0:
        raise ValueError(f"Counts are 0 or more; got {int(counts.min())}.")
    return counts.astype(np.int64)


def _class_scores(counts: IntArray | FloatArray) -> tuple[FloatArray, FloatArray]:
    """F1 and IoU, (..., K), of confusion matrices (..., K, K)."""
    diagonal = np.diagonal(counts, axis1=-2, axis2=-1)
    both = counts.sum(axis=-1) + counts.sum(axis=-2)
    return _ratio(2 * diagonal, both), _ratio(diagonal, both - diagonal)


def _summary_scores(counts: IntArray | FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Overall accuracy, macro-F1 and mean IoU, each (...), of confusion matrices (..., K, K)."""
    overall = _ratio(np.trace(counts, axis1=-2, axis2=-1), counts.sum(axis=(-2, -1)))
    f1, iou = _class_scores(counts)
    return overall, _mean_of_present(f1), _mean_of_present(iou)


def _mean_of_present(scores: FloatArray) -> FloatArray:
    """Mean of the numbers along the last axis; NaN where there is none, without numpy's warning."""
    present = np.isfinite(scores)
    return _ratio(np.where(present, scores, 0.0).sum(axis=-1), present.sum(axis=-1))


def _ratio(numerator: NDArray[np.number], denominator: NDArray[np.number]) -> FloatArray:
    """Quotient with NaN where the denominator is 0."""
    quotient = np.full(np.shape(denominator), np.nan)
    np.divide(numerator, denominator, out=quotient, where=np.asarray(denominator) > 0)
    return quotient


def _floats(values: FloatArray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
