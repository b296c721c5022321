"""Self-training: what an estimator is sure of is taken as a label, and it is fitted once more (Scudder 1965, IEEE Trans.
Information Theory 11:363-371; Yarowsky 1995, DOI 10.3115/981658.981684)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from core.finetuning.training_data import thinned_rows

CONFIDENCE = 0.9
"""Calibrated probability above which an answer is believed, as Chen and Bruzzone relabel."""

WEIGHT = 0.5
"""Of an answer beside a drawn pixel, inferred: with as many of each class as were drawn, half of what is learned from is
known."""

MOST_UNLABELLED = 10_000
"""Pixels that are asked about, evenly over the surroundings of the labels."""

Rows = NDArray[np.float32]
Fit = Callable[[Rows, NDArray[np.int64], NDArray[np.float32]], Any]


@dataclass(frozen=True, eq=False)
class SelfTraining:
    """How estimators train themselves.

    Attributes:
        rounds: of relabelling; 0 = none.
        fold: (n_features,) of ``spatial_folds``, by which confidence is calibrated.
    """

    rounds: int
    fold: NDArray[np.int64]


def self_trained(
    fit: Fit,
    rows: Rows,
    classes: NDArray[np.int64],
    weights: NDArray[np.float32],
    unlabelled: Rows,
    rounds: int,
    temperature: float,
) -> Any:
    """An estimator that has learned from its own sure answers, too.

    In each round all unlabelled pixels are asked about anew. Of each class at most as many are believed as its labels are
    worth, evenly over the ground, so that no class outgrows the others by its own errors.

    Args:
        fit: an estimator on rows, classes and weights.
        rows, classes, weights: (n, columns), (n,) and (n,) of what is labelled.
        unlabelled: (m, columns).
        rounds: of relabelling.
        temperature: of the estimator's probabilities where nothing was relabelled.
    """
    estimator = fit(rows, classes, weights)
    worth = np.ceil(np.bincount(classes, weights)).astype(np.int64)
    for _ in range(rounds if len(unlabelled) else 0):
        chosen, answers = sure_answers(estimator.predict_proba(unlabelled), estimator.classes_, temperature, worth)
        if not len(chosen):
            break
        estimator = fit(
            np.concatenate([rows, unlabelled[chosen]]),
            np.concatenate([classes, answers]),
            np.concatenate([weights, np.full(len(chosen), WEIGHT, np.float32)]),
        )
    return estimator


def sure_answers(
    shares: NDArray[np.floating[Any]], classes: NDArray[np.int64], temperature: float, most: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which rows are believed, and their classes.

    Args:
        shares: (n, k) probabilities.
        classes: (k,) of the columns.
        temperature: that calibrates them.
        most: (n_classes,) rows of each class.
    """
    calibrated = softmax(np.log(np.maximum(shares, np.finfo(np.float32).tiny)) / temperature, axis=1)
    sure = np.flatnonzero(calibrated.max(axis=1) > CONFIDENCE)
    answers = np.asarray(classes, np.int64)[calibrated[sure].argmax(axis=1)]
    kept = [np.empty(0, np.int64)]
    for number in np.unique(answers).tolist():
        own = np.flatnonzero(answers == number)
        listed = np.stack([own, own, answers[own]], axis=1)
        kept.append(own[thinned_rows(listed, int(most[number]))])
    rows = np.sort(np.concatenate(kept))
    return sure[rows], answers[rows]
