"""How much a linear model can tell of the classes from a model's features, while these are still being learned."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from core.finetuning.evaluation import predict_labelled
from core.finetuning.training_data import TrainingData, thinned
from core.models.feature_model import FeatureModel
from core.models.fusion_model import FusionModel

MOST_PIXELS = 300
"""Of a class and part, spread evenly over its labels: more would say the same and take longer."""


class LinearProbe:
    """Logistic regression on frozen features of labelled pixels, scored on labels held out (Alain and Bengio 2016,
    arXiv:1610.01644).

    The labels are only asked, and never train the features.

    Args:
        data: blocks around the labels.
        validation: (n_features,) bool, the labels that are scored.
        device: the model's.
    """

    def __init__(self, data: TrainingData, validation: NDArray[np.bool_], device: torch.device) -> None:
        self._device = device
        held_out = validation[data.pixels[:, 3]]
        self._learn, self._score = (_part(data, mask) for mask in (~held_out, held_out))

    def __call__(self, model: FusionModel) -> float:
        """Macro F1 over the classes that are held out; NaN where fewer than two classes are left to learn from."""
        was_training = model.training
        features = FeatureModel(model.eval(), uses_decoder=False).eval()
        specification = model.specification.model_copy(update={"n_classes": features.n_features})
        every = np.ones(len(self._learn.labels), bool)
        try:
            learn, score = (
                predict_labelled(features, specification, data, every, self._device) for data in (self._learn, self._score)
            )
        finally:
            model.train(was_training)
        if len(np.unique(learn.classes)) < 2 or not len(score.classes):
            return float("nan")
        regression = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=300))
        with warnings.catch_warnings():
            # A curve over epochs needs no last digit.
            warnings.simplefilter("ignore", ConvergenceWarning)
            regression.fit(learn.scores, learn.classes)
        present = np.unique(score.classes)
        predicted = regression.predict(score.scores)
        return float(f1_score(score.classes, predicted, labels=present, average="macro", zero_division=0.0))


def _part(data: TrainingData, chosen: NDArray[np.bool_]) -> TrainingData:
    """The same blocks with some of the labelled pixels, at most ``MOST_PIXELS`` of a class."""
    part = copy.copy(data)
    part.pixels = thinned(data.pixels[chosen], MOST_PIXELS)
    return part
