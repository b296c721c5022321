"""Classifiers of whole scenes, compared on blocks of ground that they have not seen."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from core.finetuning.estimators.training import TREES, as_program
from core.models.scene_descriptors import Layout
from core.models.scene_model import SceneModel, bounded
from core.models.specification import EstimatorName

STRENGTHS = (0.01, 0.1, 1.0, 10.0)
"""Inverse regularisations of the logistic regressions that are tried: descriptors have often more columns than rows."""

FOLDS = 5
THRESHOLDS = np.round(np.arange(0.05, 0.96, 0.05), 2)

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Candidate:
    """A classifier to try.

    Attributes:
        name: as reports show it.
        kind: of estimator.
        strength: inverse regularisation of a logistic regression.
    """

    name: str
    kind: EstimatorName
    strength: float = 1.0

    def estimator(self, seed: int) -> Any:
        """An untrained one. Classes count as often as they occur, so that what it says are probabilities."""
        # On one thread: units are few, and several threads would add the trees' votes in any order.
        if self.kind == "forest":
            return RandomForestClassifier(TREES, min_samples_leaf=2, random_state=seed)
        return make_pipeline(StandardScaler(), LogisticRegression(C=self.strength, max_iter=2000))


CANDIDATES = (
    *(Candidate(f"Logistic regression, C = {strength:g}", "logistic", strength) for strength in STRENGTHS),
    Candidate("Random forest", "forest"),
)


@dataclass(frozen=True, eq=False)
class Tried:
    """A candidate and what it said of units in blocks that it was not fitted on.

    Attributes:
        candidate: the classifier.
        probabilities: (N, K) of the units, each by the classifier of the fold that it was left out of.
        log_loss: mean over the units, of several labels over the classes, too.
        mean_average_precision: over the classes that occur; NaN where none does.
        seconds: for all folds.
    """

    candidate: Candidate
    probabilities: FloatArray
    log_loss: float
    mean_average_precision: float
    seconds: float


@dataclass(frozen=True, eq=False)
class FittedClassifier:
    """A classifier on the units of a training.

    Attributes:
        kind: of estimator.
        layout: of the descriptors.
        medians: (D,) of the training's descriptors, for what is missing.
        shares: (K,) part of the units with a class.
        estimators: scikit-learn's, by the number of the set of inputs and that of the class; 0 for the one of all classes.
        is_multi_label: whether there is one for each class.
    """

    kind: EstimatorName
    layout: Layout
    medians: FloatArray
    shares: FloatArray
    estimators: dict[tuple[int, int], Any]
    is_multi_label: bool

    def probabilities(self, rows: FloatArray) -> FloatArray:
        """(N, K) of descriptors (N, D); what has no estimators of its own is looked at by those of all inputs."""
        said = np.tile(self.shares, (len(rows), 1))
        numbers = self.layout.numbers(rows)
        numbers = np.where(np.isin(numbers, [subset for subset, _ in self.estimators]), numbers, 0)
        for (subset, number), estimator in self.estimators.items():
            places = np.flatnonzero(numbers == subset)
            if not len(places):
                continue
            answer = estimator.predict_proba(self.layout.seen(rows[places], self.medians, subset))
            if self.is_multi_label:
                said[places, number] = answer[:, 1]
            else:
                said[places] = 0
                said[places[:, None], estimator.classes_] = answer
        return bounded(said, self.is_multi_label)

    def put_into(self, model: SceneModel, threshold: float) -> None:
        """Fills a model of the same columns and classes."""
        model.medians.copy_(torch.from_numpy(self.medians))
        model.shares.copy_(torch.from_numpy(self.shares))
        model.threshold.fill_(threshold)
        if not self.is_multi_label:
            model.told.fill_(False)
            model.told[torch.from_numpy(np.asarray(self.estimators[0, 0].classes_))] = True
        for (subset, number), estimator in self.estimators.items():
            model.put(subset, number, as_program(estimator, len(self.layout.columns(subset))))


def fit_classifier(
    candidate: Candidate,
    rows: FloatArray,
    classes: BoolArray,
    layout: Layout,
    is_multi_label: bool,
    seed: int,
    subsets: Sequence[int] = (0,),
) -> FittedClassifier:
    """Fits a classifier, one for each class where units may have several, and one for each set of inputs.

    Args:
        candidate: what to fit.
        rows: (N, D) descriptors, NaN = missing.
        classes: (N, K) bool.
        layout: of the descriptors.
        is_multi_label: whether a unit may have several classes.
        seed: of everything random.
        subsets: numbers of the sets of inputs; that of all inputs is fitted anyhow.
    """
    with warnings.catch_warnings():
        # Columns that no unit has have no median; they are constant then, and count for nothing.
        warnings.simplefilter("ignore", RuntimeWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        medians = np.nan_to_num(np.nanmedian(rows, axis=0), nan=0.0)
        varied = _varied(classes)
        estimators: dict[tuple[int, int], Any] = {}
        for subset in sorted({0, *subsets}):
            used = layout.has(rows, subset)
            if not np.array_equal(_varied(classes[used]), varied):
                # Where classes have units with gaps only, these have to do.
                used[:] = True
            given, truth = layout.seen(rows[used], medians, subset), classes[used]
            if is_multi_label:
                for k in np.flatnonzero(varied).tolist():
                    estimators[subset, k] = candidate.estimator(seed).fit(given, truth[:, k].astype(np.int64))
            else:
                estimators[subset, 0] = candidate.estimator(seed).fit(given, truth.argmax(axis=1))
    return FittedClassifier(candidate.kind, layout, medians, classes.mean(axis=0), estimators, is_multi_label)


def _varied(classes: BoolArray) -> BoolArray:
    """(K,) bool, classes that some units have and others have not."""
    return np.asarray(classes.any(axis=0) & ~classes.all(axis=0))


def try_candidates(
    rows: FloatArray,
    classes: BoolArray,
    blocks: NDArray[np.int64],
    layout: Layout,
    is_multi_label: bool,
    seed: int,
    progress: Callable[[float, str], None],
) -> list[Tried]:
    """Cross-validates every candidate over blocks of ground: units of one block are never in two folds.

    Args:
        rows, classes, layout, is_multi_label, seed: see ``fit_classifier``.
        blocks: (N,) of each unit.
        progress: told of the part done.

    Returns:
        In the order of ``CANDIDATES``; none where the blocks are too few to leave one out.
    """
    folds = _folds(classes, blocks, seed)
    tried = []
    for number, candidate in enumerate(CANDIDATES if folds else ()):
        started = time.perf_counter()
        said = np.zeros(classes.shape)
        for index, (learned, asked) in enumerate(folds):
            progress((number + index / len(folds)) / len(CANDIDATES), f"Trying {candidate.name.lower()}")
            subsets = np.unique(layout.numbers(rows[asked])).tolist()
            fitted = fit_classifier(candidate, rows[learned], classes[learned], layout, is_multi_label, seed, subsets)
            said[asked] = fitted.probabilities(rows[asked])
        loss = _log_loss(said, classes, is_multi_label)
        tried.append(Tried(candidate, said, loss, _average_precision(said, classes), time.perf_counter() - started))
    return tried


def best_of(tried: Sequence[Tried], is_multi_label: bool) -> Candidate:
    """The candidate of the least log loss, of several labels that of the greatest mean average precision; a well regularised
    regression where none could be tried."""
    if not tried:
        return CANDIDATES[1]
    if is_multi_label:
        return max(tried, key=lambda each: round(each.mean_average_precision, 6)).candidate
    return min(tried, key=lambda each: round(each.log_loss, 6)).candidate


def best_threshold(probabilities: FloatArray, classes: BoolArray) -> float:
    """The probability from which units have a class, one for all classes: that of the greatest macro-F1.

    Args:
        probabilities, classes: as ``Tried`` has them.
    """
    told = probabilities.any(axis=1)
    probabilities, classes = probabilities[told], classes[told]
    occurring = classes.any(axis=0)
    scores = []
    for threshold in THRESHOLDS:
        said = probabilities >= threshold
        both = (said & classes).sum(axis=0)
        f1 = 2 * both[occurring] / (said.sum(axis=0) + classes.sum(axis=0))[occurring]
        scores.append(round(float(f1.mean()), 9))
    # In the middle of those that are as good.
    good = np.flatnonzero(np.array(scores) == max(scores))
    return float(THRESHOLDS[good[len(good) // 2]])


def _folds(classes: BoolArray, blocks: NDArray[np.int64], seed: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Units to learn from and to ask about, by fold; classes spread evenly over the folds where that can be."""
    counts = np.where(classes, classes.sum(axis=0), len(classes) + 1)
    kind = counts.argmin(axis=1)
    count = min(FOLDS, len(np.unique(blocks)))
    if count < 2:
        return []
    splitter: Any = GroupKFold(count, shuffle=True, random_state=seed)
    if np.bincount(kind).max() >= count:
        splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class with fewer units than folds is left out of some of them: that is said of the classes elsewhere.
        warnings.simplefilter("ignore", UserWarning)
        folds = [(learned, asked) for learned, asked in splitter.split(kind, kind, blocks) if len(learned) and len(asked)]
    # Nothing can be learned from one class alone.
    return [fold for fold in folds if len(np.unique(kind[fold[0]])) > 1]


def _log_loss(probabilities: FloatArray, classes: BoolArray, is_multi_label: bool) -> float:
    told = probabilities.any(axis=1)
    given, truth = probabilities[told], classes[told]
    if is_multi_label:
        return float(-np.log(np.where(truth, given, 1 - given)).mean())
    return float(-np.log(given[truth]).mean())


def _average_precision(probabilities: FloatArray, classes: BoolArray) -> float:
    told = probabilities.any(axis=1)
    given, truth = probabilities[told], classes[told]
    occurring = truth.any(axis=0)
    if not occurring.any():
        return float("nan")
    return float(np.mean([average_precision_score(truth[:, k], given[:, k]) for k in np.flatnonzero(occurring)]))
