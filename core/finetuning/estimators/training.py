"""Forests, boosted trees and logistic regression on labelled pixels, as models that can be delivered."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from core.finetuning.estimators.self_training import MOST_UNLABELLED, Rows, SelfTraining, self_trained
from core.finetuning.evaluation import Predictions, fit_temperature, predict_labelled
from core.finetuning.networks.start import without_classes
from core.finetuning.training_data import NO_PIXELS, TrainingData, thinned_rows
from core.models.estimator_model import LEAST_SHARE, EstimatorModel
from core.models.fusion_model import FusionModel
from core.models.pixel_rows import RowsAndBits
from core.models.specification import EstimatorName, EstimatorSpecification, ModelSpecification
from core.models.subsets import subset_numbers
from core.scenes.scene import shows_ground

TREES = 100
"""Twice as many told hardly more: on 17 draws of 3, 10 and 30 polygons a class on five real scenes mean IoU differs by
0.4 ± 1.1 points on pixels and by 0.0 ± 1.9 with neighbourhoods. They map twice as fast."""
ROUNDS = 60
BINS = 64
"""Of the values of a column. With four times as many a fit takes four times as long, for -0.6 ± 2.4 points of mean IoU on
pixels and +0.9 ± 1.9 with neighbourhoods, on the same 17 draws."""
STRENGTHS: dict[bool, float] = {False: 1.0, True: 0.01}
"""Inverse regularisation of the logistic regression, without and with the statistics of neighbourhoods: few polygons do not
determine a weight for each of those."""

MOST_PIXELS = 5000
"""Of a class, evenly over its labels."""

VALUES_A_THREAD = 200_000
"""Forests on fewer values are fitted by one thread: several would wait for each other most of the time. They are the same."""

Chosen = NDArray[np.bool_]


def estimator_specification(network: ModelSpecification, estimator: EstimatorSpecification) -> ModelSpecification:
    """The specification of an estimator over the inputs of a network.

    Args:
        network: of the same classes; a base model's where the estimator sees its features.
        estimator: the wanted one.
    """
    return network.model_copy(update={"estimator": estimator, "head": "dense", "has_shortcut": False})


class EstimatorTraining:
    """Fits estimators on the labels of a scene, and asks them about those that are held out.

    Args:
        specification: see ``estimator_specification``; its kind is not looked at.
        data: blocks around the labels.
        held_out: (n_features,) bool, those that are not learned from.
        base: whose features are seen, where the specification wants them.
        seed: of everything random.
        self_training: rounds in which estimators learn from their own sure answers, too; None = no such rounds.
    """

    def __init__(
        self,
        specification: ModelSpecification,
        data: TrainingData,
        held_out: NDArray[np.bool_],
        base: FusionModel | None = None,
        seed: int = 0,
        self_training: SelfTraining | None = None,
    ) -> None:
        self._self_training = self_training
        self._plain: dict[EstimatorName, Predictions] = {}
        self._allows_missing, self._seed = data.allows_missing, seed
        self._specification = specification
        self._base = base
        asked = held_out[data.pixels[:, 3]]
        learned = np.isin(np.arange(len(data.pixels)), np.flatnonzero(~asked)[thinned_rows(data.pixels[~asked], MOST_PIXELS)])
        spread = data.spread.some(thinned_rows(data.spread.pixels, MOST_PIXELS))
        unlabelled = data.unlabelled(MOST_UNLABELLED) if self_training is not None else NO_PIXELS.pixels
        part = copy.copy(data)
        drawn = data.pixels[asked | learned]
        part.pixels = np.concatenate([drawn, spread.pixels, unlabelled])
        counts = (len(drawn), len(spread), len(unlabelled))
        self._weights = np.concatenate([np.ones(counts[0], np.float32), spread.weights, np.ones(counts[2], np.float32)])
        self._is_drawn, _, self._is_unlabelled = (np.repeat(np.arange(3) == number, counts) for number in range(3))
        self._learned = _padded(np.concatenate([learned[asked | learned], ~held_out[spread.pixels[:, 3]]]), counts[2])
        self._asked = _padded(asked[asked | learned], counts[1] + counts[2])
        model = self._empty("forest")
        # What is held out is learned from, too, in the other turns of a cross-validation and at the end.
        own = np.flatnonzero(asked)
        spare = np.isin(np.arange(len(data.pixels)), own[thinned_rows(data.pixels[asked], MOST_PIXELS)])
        self._trainable = np.repeat([False, True, False], counts)
        self._trainable[: len(drawn)] = (learned | spare)[asked | learned]
        counted = specification.model_copy(update={"n_classes": model.n_columns + 1})
        every = np.ones(len(data.labels), bool)
        said = predict_labelled(RowsAndBits(model.rows), counted, part, every, torch.device("cpu"))
        self._rows, self._bits = said.scores[:, :-1], said.scores[:, -1].astype(np.int64)
        self._classes, self._feature = said.classes, said.feature

    def _empty(self, kind: EstimatorName) -> EstimatorModel:
        model = EstimatorModel(self.specification(kind)).eval()
        if model.base is not None and self._base is not None:
            model.base.load_state_dict(without_classes(self._base.state_dict()), strict=False)
        return model

    def specification(self, kind: EstimatorName) -> ModelSpecification:
        """Of a model with an estimator of a kind."""
        estimator = self._specification.estimator
        if estimator is None:
            raise ValueError("the specification has no estimator")
        return self._specification.model_copy(update={"estimator": estimator.model_copy(update={"kind": kind})})

    def cross_validated(
        self, kind: EstimatorName, fold: NDArray[np.int64], learned: Callable[[Chosen], Chosen] | None = None
    ) -> Predictions:
        """What estimators say of labelled pixels that they have not learned from, each part of the labels in turn.

        Args:
            kind: of the estimators.
            fold: (n_features,) of ``spatial_folds``.
            learned: given (n_features,) those that are not held out in a turn, those of them to learn from; all by default.
        """
        return self._cross_validated(kind, fold, learned, self._self_training is not None)

    def _cross_validated(
        self, kind: EstimatorName, fold: NDArray[np.int64], learned: Callable[[Chosen], Chosen] | None, trains_itself: bool
    ) -> Predictions:
        def fit(number: int, among: Chosen) -> Any:
            if learned is not None:
                among &= learned(fold != number)[self._feature]
            temperature = self._temperature(kind, number) if trains_itself else None
            return self._fit(self._empty(kind), 0, among, temperature)

        return self._in_turns(np.where(self._is_unlabelled, -1, fold[self._feature]), fit)

    def randomly_validated(self, kind: EstimatorName, fold: NDArray[np.int64], seed: int) -> Predictions:
        """As ``cross_validated``, with as many parts of pixels that were drawn at random: neighbours of most were learned
        from."""
        asked = self._is_drawn & (fold[self._feature] >= 0)
        part = np.where(asked, np.random.default_rng(seed).integers(int(fold.max()) + 1, size=len(asked)), -1)
        temperature = self._temperature(kind)
        return self._in_turns(part, lambda number, among: self._fit(self._empty(kind), 0, among, temperature))

    def _in_turns(self, part: NDArray[np.int64], fit: Callable[[int, Chosen], Any]) -> Predictions:
        """What is said of the drawn pixels of each part by what was fitted among all others.

        Args:
            part: (n_rows,) -1 = of none.
            fit: an estimator, given the number of the part that is asked and the rows that may be learned from.
        """
        shares = np.zeros((len(part), self._specification.n_classes), np.float32)
        for number in np.unique(part[part >= 0]).tolist():
            own = part == number
            shares[own & self._is_drawn] = self._shares(fit(number, self._trainable & ~own), own & self._is_drawn)
        asked = (part >= 0) & self._is_drawn
        return self._predictions(shares[asked], asked)

    def _shares(self, estimator: Any, rows: NDArray[np.bool_]) -> NDArray[np.float32]:
        shares = np.zeros((int(rows.sum()), self._specification.n_classes), np.float32)
        if len(shares):
            with threadpool_limits(1):  # as in ``_OneThread``: its threads wait for each other in telling, too
                shares[:, estimator.classes_] = estimator.predict_proba(self._rows[rows])
        return shares

    def _predictions(self, shares: NDArray[np.float32], rows: NDArray[np.bool_]) -> Predictions:
        return Predictions(np.log(np.maximum(shares, LEAST_SHARE)), self._classes[rows], self._feature[rows])

    def told_by_inputs(self, kind: EstimatorName) -> dict[frozenset[str], Predictions]:
        """What a model says of the held-out pixels with all of its inputs and, where labels may lack inputs, with some.

        Each pixel is told by the estimator of those inputs that it has; a pixel without any to rest on is left out. What a
        base model makes of a pixel is that of all inputs: only where more than ``LISTED`` inputs leave a set without an
        estimator of its own would a map show something else.

        Args:
            kind: of the estimators.
        """
        model = self._empty(kind)
        count = len(model.subsets) if self._allows_missing else 1
        temperature = self._temperature(kind)
        fitted = {number: self._fit(model, number, self._learned, temperature) for number in range(count)}
        numbers = np.array(subset_numbers(list(model.modalities), model.subsets))
        roles = [entry.role for entry in model.modalities.values()]
        telling = sum(1 << bit for bit, role in enumerate(roles) if shows_ground(role, roles))
        told = {}
        for number in range(count):
            bits = self._bits & model.bits_of(number)
            asked = self._asked & ((bits & telling > 0) | (number == 0))
            rows = self._rows[asked]
            for name, part in model.pixels.columns().items():
                rows[:, part] *= name in model.subsets[number]
            by = np.where(np.isin(numbers, list(fitted)), numbers, 0)[bits[asked]]
            shares = np.zeros((len(rows), self._specification.n_classes), np.float32)
            for each in np.unique(by):
                places = np.flatnonzero(by == each)
                columns = np.concatenate([rows[places, part] for part in model.columns_of(model.subsets[each])], axis=1)
                shares[np.ix_(places, fitted[each].classes_)] = fitted[each].predict_proba(columns)
            told[model.subsets[number]] = self._predictions(shares, asked)
        return told

    def model(self, kind: EstimatorName) -> EstimatorModel:
        """A model of an estimator and, where labels may lack inputs, of one more for each set of inputs; they have learned
        from all labels.

        Args:
            kind: of the estimators.
        """
        model = self._empty(kind)
        for number in range(len(model.subsets) if self._allows_missing else 1):
            fitted = self._fit(model, number, self._trainable, self._temperature(kind))
            columns = sum(part.stop - part.start for part in model.columns_of(model.subsets[number]))
            model.put(number, as_program(fitted, columns), fitted.classes_)
        return model

    def _temperature(self, kind: EstimatorName, without: int = -1) -> float | None:
        """What calibrates an estimator before its first round of self-training; None where there are no such rounds.

        Args:
            kind: of the estimator.
            without: a part of the cross-validation whose labels are not looked at: they are to be told.
        """
        if self._self_training is None:
            return None
        fold = self._self_training.fold
        if kind not in self._plain:
            self._plain[kind] = self._cross_validated(kind, fold, None, False)
        plain = self._plain[kind]
        rows = fold[plain.feature] != without
        return fit_temperature(Predictions(plain.scores[rows], plain.classes[rows], plain.feature[rows]))

    def _fit(self, model: EstimatorModel, number: int, among: NDArray[np.bool_], temperature: float | None) -> Any:
        """An estimator over the pixels that have all of a set of inputs; one that trains itself where a temperature says
        how sure it is."""
        subset = model.subsets[number]
        bits = model.bits_of(number)
        rows = among & (self._bits & bits == bits)
        if len(np.unique(self._classes[rows])) < len(np.unique(self._classes[among])):
            # Where classes have pixels with gaps only, these have to do.
            rows = among
        columns = np.concatenate([self._rows[:, part] for part in model.columns_of(subset)], axis=1)
        labelled = columns[rows], self._classes[rows], self._weights[rows]

        def fit(columns: Rows, classes: NDArray[np.int64], weights: NDArray[np.float32]) -> Any:
            estimator = new_estimator(model.estimator, self._seed, columns.size)
            return _fit_weighted(estimator, columns, classes, weights)

        if temperature is None or self._self_training is None:
            return fit(*labelled)
        unlabelled = columns[self._is_unlabelled & (self._bits & bits == bits)]
        return self_trained(fit, *labelled, unlabelled, self._self_training.rounds, temperature)


def new_estimator(wanted: EstimatorSpecification, seed: int, values: int) -> Any:
    """Scikit-learn's estimator, not fitted.

    Args:
        wanted: its kind, and whether it sees more of a pixel than its own values.
        seed: of everything random.
        values: that it will be fitted on.
    """
    match wanted.kind:
        case "forest":
            threads = -1 if values > VALUES_A_THREAD else 1
            return RandomForestClassifier(TREES, class_weight="balanced", n_jobs=threads, random_state=seed)
        case "boosting":
            boosting = HistGradientBoostingClassifier(
                max_iter=ROUNDS, max_bins=BINS, class_weight="balanced", early_stopping=False, random_state=seed
            )
            return _OneThread(boosting)
        case "logistic":
            strength = STRENGTHS[wanted.neighbourhoods or wanted.base_features]
            regression = LogisticRegression(C=strength, class_weight="balanced", max_iter=2000)
            return _Quiet(make_pipeline(StandardScaler(), regression))
    raise ValueError(f"a {wanted.kind} is no single estimator")


class _OneThread:
    """Fits on one thread: on the few thousand rows of labels the threads of boosting wait for each other, and two take
    longer than one."""

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def fit(
        self, rows: NDArray[np.float32], classes: NDArray[np.int64], sample_weight: NDArray[np.float64] | None = None
    ) -> Any:
        with threadpool_limits(1):
            return self.estimator.fit(rows, classes, sample_weight)


class _Quiet:
    """Fits without a word about convergence: the last digits of weights change no map."""

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def fit(
        self, rows: NDArray[np.float32], classes: NDArray[np.int64], sample_weight: NDArray[np.float64] | None = None
    ) -> Any:
        last = self.estimator.steps[-1][0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return self.estimator.fit(rows, classes, **{f"{last}__sample_weight": sample_weight})


def _fit_weighted(estimator: Any, rows: NDArray[np.float32], classes: NDArray[np.int64], weights: NDArray[np.float32]) -> Any:
    """Fits an estimator that balances the classes by their rows, so that it balances them by the weights of their rows."""
    if (weights == 1).all():
        return estimator.fit(rows, classes)
    counts, sums = np.bincount(classes), np.bincount(classes, weights)
    means = sums / np.maximum(counts, 1)
    return estimator.fit(rows, classes, sample_weight=weights / means[classes] * weights.mean(dtype=np.float64))


def _padded(rows: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    return np.concatenate([rows, np.zeros(count, bool)])


def as_program(estimator: Any, columns: int) -> bytes:
    """A fitted estimator as an ONNX graph, the same bytes for the same estimator."""
    # It takes a second to import, and only fits end here.
    from skl2onnx import to_onnx
    from skl2onnx.helpers.onnx_helper import select_model_inputs_outputs

    sample = np.zeros((1, columns), np.float32)
    graph = to_onnx(estimator, sample, name="estimator")
    # Without the dictionaries of the last node. Asked for by an option, the converter looks at every property of a forest
    # first, which takes longer than to convert it.
    label = graph.graph.output[0].name
    graph = select_model_inputs_outputs(graph, [label, "probabilities"])
    # The converter lists the operator sets in the order of a Python set, which differs from process to process.
    domains = sorted(graph.opset_import, key=lambda each: each.domain)
    del graph.opset_import[:]
    graph.opset_import.extend(domains)
    return bytes(graph.SerializeToString())
