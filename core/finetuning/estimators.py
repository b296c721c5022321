"""Forests, boosted trees and logistic regression on labelled pixels, as models that can be delivered."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from core.finetuning.evaluation import predict_labelled
from core.finetuning.training_data import TrainingData, thinned
from core.models.estimator_model import EstimatorModel
from core.models.fusion_model import FusionModel
from core.models.specification import EstimatorName, EstimatorSpecification, ModelSpecification

TREES = 200
ROUNDS = 60
STRENGTHS: dict[bool, float] = {False: 1.0, True: 0.01}
"""Inverse regularisation of the logistic regression, without and with the statistics of neighbourhoods: few polygons do not
determine a weight for each of those."""

MOST_PIXELS = 5000
"""Of a class, evenly over its labels."""


def estimator_specification(network: ModelSpecification, estimator: EstimatorSpecification) -> ModelSpecification:
    """The specification of an estimator over the inputs of a network.

    Args:
        network: of the same classes; a base model's where the estimator sees its features.
        estimator: the wanted one.
    """
    return network.model_copy(update={"estimator": estimator, "head": "dense", "has_shortcut": False})


class EstimatorTraining:
    """Fits estimators on the labels of a scene.

    Args:
        specification: see ``estimator_specification``; its kind is not looked at.
        data: blocks around the labels.
        base: whose features are seen, where the specification wants them.
        seed: of everything random.
    """

    def __init__(
        self, specification: ModelSpecification, data: TrainingData, base: FusionModel | None = None, seed: int = 0
    ) -> None:
        self._data, self._seed = copy.copy(data), seed
        self._data.pixels = thinned(data.pixels, MOST_PIXELS)
        self._specification = specification
        self._base = base
        model = self._empty("forest")
        rows = _Rows(model).eval()
        counted = specification.model_copy(update={"n_classes": model.n_columns + 1})
        every = np.ones(len(data.labels), bool)
        said = predict_labelled(rows, counted, self._data, every, torch.device("cpu"))
        self._rows, self._bits = said.scores[:, :-1], said.scores[:, -1].astype(np.int64)
        self._classes, self._feature = said.classes, said.feature

    def _empty(self, kind: EstimatorName) -> EstimatorModel:
        estimator = self._specification.estimator
        if estimator is None:
            raise ValueError("the specification has no estimator")
        wanted = self._specification.model_copy(update={"estimator": estimator.model_copy(update={"kind": kind})})
        model = EstimatorModel(wanted).eval()
        if model.base is not None and self._base is not None:
            own = {name: value for name, value in self._base.state_dict().items() if not name.startswith("head.classifier")}
            model.base.load_state_dict(own, strict=False)
        return model

    def fitted(self, kind: EstimatorName, features: NDArray[np.bool_]) -> EstimatorModel:
        """A model fitted on the labels of some features that have all inputs.

        Args:
            kind: of the estimator.
            features: (n_features,) bool, those to learn from.
        """
        model = self._empty(kind)
        self._fit(model, features, [0])
        return model

    def fit_subsets(self, model: EstimatorModel, features: NDArray[np.bool_]) -> None:
        """Where labels may lack inputs, an estimator more for each set of inputs: it sees the pixels that have all of it.

        Args:
            model: of ``fitted``; changed in place.
            features: (n_features,) bool, those to learn from.
        """
        if self._data.allows_missing:
            self._fit(model, features, range(1, len(model.subsets)))

    def _fit(self, model: EstimatorModel, features: NDArray[np.bool_], numbers: Iterable[int]) -> None:
        learned = features[self._feature]
        names = list(model.modalities)
        for number in numbers:
            subset = model.subsets[number]
            bits = sum(1 << bit for bit, name in enumerate(names) if name in subset)
            rows = learned & (self._bits & bits == bits)
            if len(np.unique(self._classes[rows])) < len(np.unique(self._classes[learned])):
                # Where classes have pixels with gaps only, these have to do.
                rows = learned
            columns = np.concatenate([self._rows[rows, part] for part in model.columns_of(subset)], axis=1)
            estimator = self._estimator(model.estimator.kind).fit(columns, self._classes[rows])
            model.put(number, as_program(estimator, columns.shape[1]), estimator.classes_)

    def _estimator(self, kind: EstimatorName) -> Any:
        match kind:
            case "forest":
                return RandomForestClassifier(TREES, class_weight="balanced", n_jobs=-1, random_state=self._seed)
            case "boosting":
                return HistGradientBoostingClassifier(
                    max_iter=ROUNDS, class_weight="balanced", early_stopping=False, random_state=self._seed
                )
            case "logistic":
                estimator = self._specification.estimator
                is_wide = estimator is not None and (estimator.neighbourhoods or estimator.base_features)
                regression = LogisticRegression(C=STRENGTHS[is_wide], class_weight="balanced", max_iter=2000)
                return _Quiet(make_pipeline(StandardScaler(), regression))


class _Quiet:
    """Fits without a word about convergence: the last digits of weights change no map."""

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def fit(self, rows: NDArray[np.float32], classes: NDArray[np.int64]) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return self.estimator.fit(rows, classes)


def as_program(estimator: Any, columns: int) -> bytes:
    """A fitted estimator as an ONNX graph, the same bytes for the same estimator."""
    # It takes a second to import, and only fits end here.
    from skl2onnx import to_onnx

    sample = np.zeros((1, columns), np.float32)
    graph = to_onnx(estimator, sample, options={"zipmap": False}, name="estimator")
    return bytes(graph.SerializeToString())


class _Rows(nn.Module):
    """What the estimators of a model see of each pixel, and in a last channel the bits of the inputs known."""

    def __init__(self, model: EstimatorModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, values: dict[str, Tensor]) -> Tensor:
        rows, bits = self.model.rows(values)
        return torch.cat([rows, bits[:, None].to(rows.dtype)], dim=1)
