"""What labels are worth: whether more of them would help, and how much scores owe to nearness."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from core.finetuning.estimators.candidates import Candidate
from core.finetuning.estimators.training import Chosen
from core.finetuning.evaluation import Predictions

SHARES = (0.25, 0.5, 1.0)
"""Parts of the labels that are learned from; each takes a cross-validation."""


@dataclass(frozen=True, eq=False)
class LabelTrials:
    """What an estimator says of labels that it has not learned from, in several settings.

    Attributes:
        features: number of features learned from, in the mean over the parts of the cross-validation; ascending.
        told: of the same held-out blocks for each of them.
        nearby: where single pixels are held out at random in place of blocks, so that others of the same feature are learned
            from.
    """

    features: tuple[float, ...]
    told: tuple[Predictions, ...]
    nearby: Predictions


def try_labels(
    candidate: Candidate, fold: NDArray[np.int64], classes: NDArray[np.int64], seed: int, progress: Callable[[float, str], None]
) -> LabelTrials:
    """Cross-validates an estimator on fewer of the labels, and on single pixels held out at random.

    Each smaller part of the labels lies in the next, with the same share of every class.

    Args:
        candidate: an estimator, or several that vote.
        fold: (n_features,) of ``spatial_folds``.
        classes: (n_features,) of the labels.
        seed: of which are left out.
        progress: told the part done, and in which phase; raises to stop.
    """
    place = np.random.default_rng(seed).permutation(len(classes))
    parts = np.unique(fold[fold >= 0])
    features, told = [], []
    for number, share in enumerate(SHARES):
        progress(number / (len(SHARES) + 1), "Measuring what fewer labels are worth")
        learned = partial(_first, place, classes, share)
        told.append(candidate.cross_validated if share == 1 else candidate.cross_validated_on(fold, learned))
        features.append(float(np.mean([np.count_nonzero(learned(fold != part)) for part in parts])))
    progress(len(SHARES) / (len(SHARES) + 1), "Measuring what nearness is worth")
    return LabelTrials(tuple(features), tuple(told), candidate.randomly_validated(fold, seed))


def _first(place: NDArray[np.int64], classes: NDArray[np.int64], share: float, open_: Chosen) -> Chosen:
    """(n_features,) the first part of the open features of each class, at least one.

    Args:
        place: (n_features,) of each in their order.
        classes: (n_features,).
        share: of each class.
        open_: (n_features,) bool, those to choose from.
    """
    chosen = np.zeros(len(classes), bool)
    for number in np.unique(classes[open_]):
        own = np.flatnonzero(open_ & (classes == number))
        own = own[np.argsort(place[own])]
        chosen[own[: math.ceil(share * len(own))]] = True
    return chosen
