"""The estimators that stand beside the network, and which of all is delivered."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from core.finetuning.estimators.self_training import SelfTraining
from core.finetuning.estimators.training import Chosen, EstimatorTraining, estimator_specification
from core.finetuning.evaluation import COMPARED, Predictions, calibrated_log_loss, fit_temperature, is_clearly_better
from core.finetuning.networks.loop import SubsetResult, TrainingResult
from core.finetuning.training_data import TrainingData
from core.models.architectures import title_of
from core.models.estimator_model import LEAST_SHARE, EstimatorModel
from core.models.fusion_model import FusionModel
from core.models.specification import EstimatorName, EstimatorSpecification, ModelSpecification
from core.models.vote_model import VoteModel

KINDS: tuple[EstimatorName, ...] = ("forest", "boosting", "logistic")

CLEARLY = 2.0
"""Standard errors by which a network has to be better than the vote: its lead is on few blocks of the labelled ground."""


LEAST_FEATURES = 10
"""Held out, without which nothing takes the place of the vote: of fewer, a standard error is mostly chance. In
``scripts/benchmarks/change.py`` a network that the few squares held out of six found clearly better was worse by 8 points of F1
on the rest of the scene (the number of features is inferred)."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """An estimator, or several that vote, and what they say of labels that they have not learned from.

    Attributes:
        specification: of its model.
        trainings: that fit its members, with the kind of each.
        cross_validated: of all labelled pixels that a part of the cross-validation holds.
        held_out: the first part alone, that no network has learned from either.
        seconds: to fit and to ask it.
        temperatures: of the members of a vote.
    """

    specification: ModelSpecification
    trainings: tuple[tuple[EstimatorTraining, EstimatorName], ...]
    cross_validated: Predictions
    held_out: Predictions
    seconds: float
    temperatures: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """In reports."""
        return title_of(self.specification)

    @property
    def kind(self) -> str:
        """Of the estimator."""
        return "" if self.specification.estimator is None else self.specification.estimator.kind

    def cross_validated_on(self, fold: NDArray[np.int64], learned: Callable[[Chosen], Chosen]) -> Predictions:
        """See ``EstimatorTraining.cross_validated``."""
        return self._said([training.cross_validated(kind, fold, learned) for training, kind in self.trainings])

    def randomly_validated(self, fold: NDArray[np.int64], seed: int) -> Predictions:
        """See ``EstimatorTraining.randomly_validated``."""
        return self._said([training.randomly_validated(kind, fold, seed) for training, kind in self.trainings])

    def _said(self, told: Sequence[Predictions]) -> Predictions:
        return told[0] if len(told) == 1 else _mean(told, self.temperatures)

    def told_by_inputs(self) -> dict[frozenset[str], Predictions]:
        """See ``EstimatorTraining.told_by_inputs``."""
        told = [training.told_by_inputs(kind) for training, kind in self.trainings]
        return {inputs: self._said([member[inputs] for member in told]) for inputs in told[0]}

    def model(self) -> EstimatorModel | VoteModel:
        """As it is delivered, fitted on all labels."""
        members = [training.model(kind) for training, kind in self.trainings]
        if len(members) == 1:
            return members[0]
        vote = VoteModel(self.specification)
        for number, member in enumerate(members):
            vote.members[number] = member
        vote.temperatures = torch.tensor(self.temperatures)
        return vote.eval()


def fit_candidates(
    network: ModelSpecification,
    data: TrainingData,
    fold: NDArray[np.int64],
    seed: int,
    base: FusionModel | None,
    uses_decoder: bool,
    kinds: Sequence[EstimatorName],
    progress: Callable[[float, str], None],
    self_training: int = 0,
) -> list[Candidate]:
    """Some kinds of estimator on pixels, on pixels and neighbourhoods, and on these beside a base model's features; last
    the vote of a logistic regression on pixels, a forest on pixels, one on pixels and neighbourhoods, and with a base model a
    logistic regression on its features, too.

    Args:
        network: specification of the network beside them.
        data: blocks around the labels.
        fold: (n_features,) of ``spatial_folds``; the network does not learn from the first part.
        seed: of everything random.
        base: a model that was trained before; not changed.
        uses_decoder: whether its decoder was trained, too.
        kinds: of estimators.
        progress: told the part done, and in which phase; raises to stop.
        self_training: rounds in which each estimator learns from its own sure answers, too.
    """
    trains_itself = SelfTraining(self_training, fold) if self_training else None
    seen = [EstimatorSpecification(kind="forest", neighbourhoods=around) for around in (False, True)]
    if base is not None:
        both = {"neighbourhoods": True, "base_features": True, "uses_decoder": uses_decoder}
        seen.append(EstimatorSpecification(kind="forest", **both))
    candidates = []
    for number, estimator in enumerate(seen):
        progress(number / len(seen), "Reading the features of the labelled pixels")
        specification = estimator_specification(network, estimator)
        training = EstimatorTraining(specification, data, fold == 0, base, seed, trains_itself)
        for kind in kinds:
            progress((number + 0.5) / len(seen), f"Fitting: {kind}")
            started = time.perf_counter()
            said = training.cross_validated(kind, fold)
            held_out = _of(said, fold == 0)
            seconds = time.perf_counter() - started
            candidates.append(Candidate(training.specification(kind), ((training, kind),), said, held_out, seconds))
    wanted: list[tuple[EstimatorName, bool, bool]] = [
        ("logistic", False, False),
        ("forest", False, False),
        ("forest", True, False),
    ]
    if base is not None:
        wanted.append(("logistic", True, True))
    members = [_find(candidates, *each) for each in wanted]
    return [*candidates, _vote(members, fold)] if None not in members else candidates


def _find(candidates: Sequence[Candidate], kind: str, neighbourhoods: bool, base_features: bool) -> Candidate | None:
    for candidate in candidates:
        estimator = candidate.specification.estimator
        if estimator and (estimator.kind, estimator.neighbourhoods, estimator.base_features) == (
            kind,
            neighbourhoods,
            base_features,
        ):
            return candidate
    return None


def _vote(members: Sequence[Candidate | None], fold: NDArray[np.int64]) -> Candidate:
    given = [member for member in members if member is not None]
    parts = tuple(m.specification.estimator for m in given if m.specification.estimator is not None)
    estimator = EstimatorSpecification(kind="vote", members=parts)
    temperatures = tuple(fit_temperature(member.cross_validated, COMPARED) for member in given)
    said = _mean([member.cross_validated for member in given], temperatures)
    specification = given[0].specification.model_copy(update={"estimator": estimator})
    trainings = tuple(part for member in given for part in member.trainings)
    seconds = sum(member.seconds for member in given)
    return Candidate(specification, trainings, said, _of(said, fold == 0), seconds, temperatures)


def _mean(told: Sequence[Predictions], temperatures: Sequence[float]) -> Predictions:
    """What a vote says; see ``VoteModel``."""
    shares = np.mean([softmax(each.scores / t, axis=1) for each, t in zip(told, temperatures, strict=True)], axis=0)
    return replace(told[0], scores=np.log(np.maximum(shares, LEAST_SHARE)).astype(np.float32))


def _of(predictions: Predictions, features: NDArray[np.bool_]) -> Predictions:
    """Those of some features."""
    rows = features[predictions.feature]
    return Predictions(predictions.scores[rows], predictions.classes[rows], predictions.feature[rows])


def best_of(candidates: Sequence[Candidate]) -> Candidate:
    """The vote; without one the lowest calibrated log loss in the cross-validation.

    Blocks of the labelled ground say little of ground that is different: in ``scripts/benchmarks/few_labels.py`` something was
    clearly better than the vote in the cross-validation (by one standard error) on 14 of 45 draws, and on all 14 it was worse
    on the rest of the scene, by 0.8 to 23.3 points of mIoU.
    """
    votes = [candidate for candidate in candidates if candidate.kind == "vote"]
    return min(votes or candidates, key=lambda candidate: calibrated_log_loss(candidate.cross_validated))


def replaces(candidate: Candidate, network: TrainingResult) -> bool:
    """Whether an estimator is to be delivered in place of a network: unless that is clearly better."""
    return network.validation is None or not may_replace(network.validation, candidate.held_out)


def may_replace(network: Predictions, vote: Predictions) -> bool:
    """Whether a network is to be delivered in place of a vote, from what both say of the same pixels in the same order."""
    return len(np.unique(vote.feature)) >= LEAST_FEATURES and is_clearly_better(network, vote, CLEARLY)


def as_result(candidate: Candidate, network: TrainingResult | None, progress: Callable[[float, str], None]) -> TrainingResult:
    """An estimator as what a training has led to: fitted on all labels, and judged by its like that has not seen the
    held-out ones.

    Args:
        candidate: that is delivered.
        network: trained beside it, whose epochs the report shows.
        progress: told the part done, and in which phase; raises to stop.
    """
    progress(0.0, "Fitting with some of the inputs")
    complete, *rest = candidate.told_by_inputs().items()
    subsets = [SubsetResult(inputs, told, fit_temperature(told)) for inputs, told in rest if len(told.classes)]
    temperature = fit_temperature(candidate.cross_validated)
    records = () if network is None else network.records
    progress(0.5, "Fitting on all labels")
    return TrainingResult(
        candidate.model(), records, 0, complete[1], temperature, None, tuple(subsets), candidate.cross_validated
    )
