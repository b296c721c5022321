"""How well scenes were classified as wholes, with one class each or with several.

A class *occurs* where a unit of the reference has it. Average precision and F1 are means over the classes that occur;
F1 counts those, too, that were only said, with 0. What is not defined is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score


@dataclass(frozen=True)
class SceneScores:
    """Scores of units, per class in the order of ``names``; NaN where a score is not defined.

    Attributes:
        names: of the K classes.
        n_units: units compared.
        top1: share of the units whose most probable class is one of theirs.
        top3: share of the units of whose three most probable classes at least one is theirs.
        macro_f1: mean over the classes that occur or were said.
        mean_average_precision: macro, the mean over the classes that occur.
        micro_average_precision: over all pairs of unit and class together.
        f1, average_precision: of each class.
        support: units of the reference with each class.
    """

    names: tuple[str, ...]
    n_units: int
    top1: float
    top3: float
    macro_f1: float
    mean_average_precision: float
    micro_average_precision: float
    f1: tuple[float, ...]
    average_precision: tuple[float, ...]
    support: tuple[int, ...]


def scene_scores(
    probabilities: NDArray[np.floating], truth: NDArray[np.bool_], said: NDArray[np.bool_], names: tuple[str, ...]
) -> SceneScores:
    """Compares what was said of units with their reference.

    Args:
        probabilities: (N, K) of each class; of equal ones the first class counts as the more probable.
        truth: (N, K) bool, each unit has one class or several.
        said: (N, K) bool, the classes that were given to a unit.
        names: of the K classes.

    Raises:
        ValueError: no units, units without a class, or shapes that differ.
    """
    if not (probabilities.shape == truth.shape == said.shape) or truth.shape[1:] != (len(names),):
        raise ValueError(f"Expected (N, {len(names)}) each; got {probabilities.shape}, {truth.shape} and {said.shape}.")
    if not len(truth) or not truth.any(axis=1).all():
        raise ValueError("Every unit of the reference has a class, and there is at least one unit.")
    order = np.argsort(-probabilities, axis=1, kind="stable")
    hits = np.take_along_axis(truth, order, axis=1)
    occurs = truth.any(axis=0)
    precision = np.full(len(names), np.nan)
    for index in np.flatnonzero(occurs):
        precision[index] = average_precision_score(truth[:, index], probabilities[:, index])
    f1 = np.array([f1_score(truth[:, index], said[:, index], zero_division=np.nan) for index in range(len(names))])
    return SceneScores(
        names=names,
        n_units=len(truth),
        top1=float(hits[:, 0].mean()),
        top3=float(hits[:, :3].any(axis=1).mean()),
        macro_f1=float(np.nanmean(f1)),
        mean_average_precision=float(np.nanmean(precision)),
        micro_average_precision=float(average_precision_score(truth.ravel(), probabilities.ravel())),
        f1=tuple(f1.tolist()),
        average_precision=tuple(precision.tolist()),
        support=tuple(truth.sum(axis=0).tolist()),
    )


def given_classes(probabilities: NDArray[np.floating], threshold: float | None) -> NDArray[np.bool_]:
    """(N, K) bool: the most probable class of each unit, and of several labels all from a threshold on.

    Args:
        probabilities: (N, K).
        threshold: None where a unit has one class.
    """
    first = np.zeros(probabilities.shape, bool)
    first[np.arange(len(first)), probabilities.argmax(axis=1)] = True
    return first if threshold is None else first | (probabilities >= threshold)
