"""The estimators that stand beside the network, and which of all is delivered."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.finetuning.estimators import EstimatorTraining, estimator_specification
from core.finetuning.evaluation import Predictions, calibrated_log_loss, fit_temperature, is_clearly_better, predict_labelled
from core.finetuning.loop import TrainingResult, without_inputs
from core.finetuning.training_data import TrainingData
from core.models.architectures import title_of
from core.models.estimator_model import EstimatorModel
from core.models.fusion_model import FusionModel
from core.models.specification import EstimatorName, EstimatorSpecification, ModelSpecification

KINDS: tuple[EstimatorName, ...] = ("forest", "boosting", "logistic")


@dataclass(frozen=True, eq=False)
class Candidate:
    """A fitted estimator and what it says of the held-out labels.

    Attributes:
        name: in reports.
        kind: of the estimator.
        training: that it was fitted by.
        estimator: scikit-learn's, fitted on what is not held out and has all inputs.
        predictions: of the held-out pixels.
        seconds: to fit and to ask it.
    """

    name: str
    kind: EstimatorName
    training: EstimatorTraining
    estimator: Any
    predictions: Predictions
    seconds: float

    def model(self) -> EstimatorModel:
        """As it is delivered."""
        return self.training.model(self.kind, self.estimator)


def fit_candidates(
    network: ModelSpecification,
    data: TrainingData,
    validation: NDArray[np.bool_],
    seed: int,
    base: FusionModel | None,
    uses_decoder: bool,
    kinds: Sequence[EstimatorName],
    progress: Callable[[float, str], None],
) -> list[Candidate]:
    """Some kinds of estimator on pixels, on pixels and neighbourhoods, and on these beside a base model's features.

    Args:
        network: specification of the network beside them.
        data: blocks around the labels.
        validation: (n_features,) bool, the features held out.
        seed: of everything random.
        base: a model that was trained before; not changed.
        uses_decoder: whether its decoder was trained, too.
        kinds: of estimators.
        progress: told the part done, and in which phase; raises to stop.
    """
    seen = [EstimatorSpecification(kind="forest", neighbourhoods=around) for around in (False, True)]
    if base is not None:
        both = {"neighbourhoods": True, "base_features": True, "uses_decoder": uses_decoder}
        seen.append(EstimatorSpecification(kind="forest", **both))
    candidates = []
    for number, estimator in enumerate(seen):
        progress(number / len(seen), "Reading the features of the labelled pixels")
        specification = estimator_specification(network, estimator)
        training = EstimatorTraining(specification, data, validation, base, seed)
        for kind in kinds:
            progress((number + 0.5) / len(seen), f"Fitting: {kind}")
            started = time.perf_counter()
            fitted = training.fitted(kind)
            predictions = training.predictions(fitted)
            seconds = time.perf_counter() - started
            name = title_of(training.specification(kind))
            candidates.append(Candidate(name, kind, training, fitted, predictions, seconds))
    return candidates


def best_of(candidates: Sequence[Candidate]) -> Candidate:
    """The one whose calibrated log loss on the held-out labels is the lowest."""
    return min(candidates, key=lambda candidate: calibrated_log_loss(candidate.predictions))


def replaces(candidate: Candidate, network: TrainingResult) -> bool:
    """Whether an estimator is to be delivered in place of a network: unless that is clearly better."""
    if network.validation is None:
        return True
    return not is_clearly_better(network.validation, candidate.predictions)


def as_result(
    candidate: Candidate,
    data: TrainingData,
    validation: NDArray[np.bool_],
    network: TrainingResult | None,
    progress: Callable[[float, str], None],
) -> TrainingResult:
    """An estimator as what a training has led to.

    Args:
        candidate: that is delivered.
        data, validation: as for ``fit_candidates``.
        network: trained beside it, whose epochs the report shows.
        progress: told the part done, and in which phase; raises to stop.
    """
    progress(0.0, "Fitting with some of the inputs")
    model = candidate.model()
    # Where inputs are missing the model has other estimators than the candidate had.
    seen = predict_labelled(model, model.specification, data, validation, torch.device("cpu"))
    subsets = without_inputs(model, None, model.specification, data, validation, torch.device("cpu"), progress)
    temperature = fit_temperature(seen)
    records = () if network is None else network.records
    return TrainingResult(model, records, 0, seen, temperature, None, subsets)
