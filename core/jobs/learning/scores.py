"""How good the trained model and the baselines are on the labels that were held out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.assessment.calibration import Calibration
from core.assessment.confusion import Accuracy, accuracy, bootstrap_interval, confusion_matrix
from core.assessment.contents import LabelPoint, LabelWorth, ModelScore, SubsetScore
from core.finetuning.estimators.label_worth import LabelTrials
from core.finetuning.evaluation import Predictions
from core.finetuning.networks.loop import TrainingResult
from core.finetuning.networks.settings import TrainingSettings
from core.jobs.events import JobContext
from core.labels.scheme import ClassScheme
from core.models.estimator_model import EstimatorModel
from core.models.fusion_model import FusionModel
from core.models.specification import ModelSpecification
from core.models.vote_model import VoteModel


@dataclass(frozen=True, eq=False)
class ScoredModel:
    """A model's row in the report with the numbers behind it."""

    row: ModelScore
    score: Accuracy
    confusion: NDArray[np.int64]  # (K, K) rows = predicted, columns = label


@dataclass(frozen=True, eq=False)
class TrainingOutcome:
    """What a training has led to.

    Attributes:
        result: of the training.
        scores: of the delivered model first, then of all else that was tried.
        subsets: see ``subset_scores``.
        calibration: see ``measured_calibration``.
        settings: of the network that is delivered, or that did best of those that are not.
        n_networks: that were trained.
        label_worth: see ``label_worth``; None where nobody asked.
    """

    result: TrainingResult
    scores: tuple[ScoredModel, ...]
    subsets: tuple[SubsetScore, ...]
    calibration: Calibration | None
    settings: TrainingSettings
    n_networks: int
    label_worth: LabelWorth | None = None

    @property
    def specification(self) -> ModelSpecification:
        """Of the delivered model."""
        model = self.result.model
        if not isinstance(model, FusionModel | EstimatorModel | VoteModel):
            raise TypeError("the model has no specification")
        return model.specification


class HeldOutScores:
    """Scores models on held-out pixels, with intervals over the blocks of ground that were held out.

    Args:
        scheme: the classes.
        block: (n_features,) the block of ground of each feature.
        seed: of the intervals.
    """

    def __init__(self, scheme: ClassScheme, block: NDArray[np.int64], seed: int) -> None:
        self._scheme = scheme
        self._block = block
        self._seed = seed

    def delivered(self, name: str, predictions: Predictions, seconds: float) -> ScoredModel:
        """The model that the job delivers."""
        return self._scored(name, predictions.predicted, predictions.classes, predictions.feature, seconds, is_delivered=True)

    def other(self, name: str, predictions: Predictions, seconds: float) -> ScoredModel:
        """Another model on the same labels."""
        return self._scored(name, predictions.predicted, predictions.classes, predictions.feature, seconds, is_delivered=False)

    def _scored(
        self,
        name: str,
        predicted: NDArray[np.int64],
        classes: NDArray[np.int64],
        feature: NDArray[np.int64],
        seconds: float,
        is_delivered: bool,
    ) -> ScoredModel:
        groups = self._block[feature]
        matrices = np.stack(
            [
                confusion_matrix(predicted[groups == group], classes[groups == group], len(self._scheme))
                for group in np.unique(groups)
            ]
        )
        confusion = matrices.sum(axis=0)
        score = accuracy(confusion, self._scheme.names)
        interval = bootstrap_interval(matrices, self._seed) if len(matrices) > 1 else None
        row = ModelScore(name, is_delivered, score.overall_accuracy, score.macro_f1, score.mean_iou, interval, seconds)
        return ScoredModel(row, score, confusion)


def subset_scores(result: TrainingResult, names: Sequence[str], scheme: ClassScheme) -> tuple[SubsetScore, ...]:
    """The model with all of its inputs, then with each set of some of them; none where it was not trained for that.

    Args:
        result: of the training.
        names: of the model's inputs, in its order.
        scheme: the classes.
    """
    if result.validation is None or not result.subsets:
        return ()

    def scored(inputs: Collection[str], predictions: Predictions, temperature: float) -> SubsetScore:
        score = accuracy(confusion_matrix(predictions.predicted, predictions.classes, len(scheme)), scheme.names)
        present = tuple(name for name in names if name in inputs)
        return SubsetScore(
            present,
            len(present) == len(names),
            len(predictions.classes),
            score.overall_accuracy,
            score.macro_f1,
            score.mean_iou,
            temperature,
        )

    complete = scored(names, result.validation, result.temperature)
    return (complete, *(scored(entry.inputs, entry.predictions, entry.temperature) for entry in result.subsets))


def label_worth(name: str, trials: LabelTrials, scheme: ClassScheme) -> LabelWorth:
    """Scores of an estimator with some of the labels, and with pixels held out at random.

    Args:
        name: of the estimator.
        trials: what it said.
        scheme: the classes.
    """

    def point(features: float, told: Predictions) -> LabelPoint:
        score = accuracy(confusion_matrix(told.predicted, told.classes, len(scheme)), scheme.names)
        return LabelPoint(features, score.overall_accuracy, score.macro_f1, score.mean_iou)

    points = tuple(point(features, told) for features, told in zip(trials.features, trials.told, strict=True))
    return LabelWorth(name, points, point(points[-1].features, trials.nearby))


def tell_label_worth(context: JobContext, worth: LabelWorth) -> None:
    """Says what scores owe to nearness, and whether more labels would help."""
    few, all_ = worth.points[-2], worth.points[-1]
    context.info(
        f"{worth.name}: overall accuracy {worth.nearby.overall_accuracy:.3f} where pixels are held out at random, "
        f"{all_.overall_accuracy:.3f} where blocks of ground are; mIoU {few.mean_iou:.3f} with {few.features:.0f} features, "
        f"{all_.mean_iou:.3f} with {all_.features:.0f}."
    )


def tell_subsets(context: JobContext, subsets: Sequence[SubsetScore]) -> None:
    """Says how good the model is with some of its inputs."""
    for row in subsets:
        if not row.is_complete:
            context.info(
                f"With {', '.join(row.inputs)} alone: overall accuracy {row.overall_accuracy:.3f}, "
                f"macro F1 {row.macro_f1:.3f}, mIoU {row.mean_iou:.3f} on the held-out labels."
            )


def tell_scores(context: JobContext, scores: Sequence[ScoredModel]) -> None:
    """Says how good every model is, and warns where a baseline is better than the first, which is delivered."""
    for entry in scores:
        row = entry.row
        context.info(
            f"{row.name}: overall accuracy {row.overall_accuracy:.3f}, macro F1 {row.macro_f1:.3f}, "
            f"mIoU {row.mean_iou:.3f} on the held-out labels."
        )
    best = max(scores, key=lambda entry: entry.row.mean_iou)
    if not best.row.is_delivered:
        context.warning(
            f"{best.row.name} agrees better with the held-out labels than the model that was written "
            f"(mIoU {best.row.mean_iou:.3f} and {scores[0].row.mean_iou:.3f}). More labels, or fewer classes, may help."
        )
