"""From labels of change to what maps it, and what that is worth on labels that it has not seen."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from core.assessment.calibration import Calibration
from core.assessment.contents import TrainingReport
from core.errors import LabelError
from core.finetuning.change.estimators import (
    ChangeCandidate,
    ChangeFeatures,
    ChangeVote,
    cross_validated_change,
    fit_change_vote,
    labelled_change,
)
from core.finetuning.change.network import ChangeNetwork
from core.jobs.change.network_training import trained_network
from core.jobs.change.preview import ChangePreview
from core.jobs.events import JobContext
from core.jobs.inputs import read_job_labels
from core.jobs.learning.calibration import calibration_of, tell_calibration
from core.jobs.learning.report import calibration_lines
from core.jobs.learning.scores import HeldOutScores, ScoredModel, tell_scores
from core.jobs.provenance import creation_time, software
from core.jobs.schemas import DetectChangeJob, Labels
from core.labels.blocks import FOLDS, Split, spatial_folds, spatial_split
from core.labels.label_set import LabelSet
from core.labels.rasterizing import count_pixels, finish_report
from core.labels.scheme import ClassScheme
from core.labels.schemes import listed
from core.labels.style import entries_for
from core.mapping.sidecars import ClassAreas
from core.models.fusion_model import FusionModel
from core.models.model_file import ModelCard
from core.scenes.date_pair import DatePair

UNCHANGED_COLOUR = "#e3e3de"

OPTIMISTIC = (
    "Scores on drawn labels are no accuracy of the map: people draw what is plain to see. Take reference points of the map "
    "before you publish an area of change."
)


@dataclass(frozen=True, eq=False)
class TrainedChange:
    """What was learned from labels.

    Attributes:
        model: that maps: a vote that is fitted on all labels, or a network that is clearly better.
        network: that was trained beside the vote; None where none was.
        labels: of change.
        unchanged: index of the class that means no change; None where no class does.
        split: the blocks of ground of the cross-validation.
        scores: of the model first, then of all else that was tried: of the cross-validation, or with a network on the blocks
            that it has not learned from either.
        calibration: of the model that maps; None where it could not be measured.
        warnings: what may be wrong.
        seconds: that it took.
    """

    model: ChangeVote | ChangeNetwork
    network: ChangeNetwork | None
    labels: LabelSet
    unchanged: int | None
    split: Split
    scores: tuple[ScoredModel, ...]
    calibration: Calibration | None
    warnings: tuple[str, ...]
    seconds: float


def train_change(
    job: DetectChangeJob,
    wanted: Labels,
    base: tuple[FusionModel, ModelCard] | None,
    pair: DatePair,
    features: ChangeFeatures,
    context: JobContext,
) -> TrainedChange:
    """Reads the labels, cross-validates every estimator over blocks of ground, trains a network where the job asks for one, and
    makes what maps.

    Raises:
        LabelError: labels of fewer than two classes, or all of a class in one place.
        SensorError: the base model needs what the two dates do not have in common.
    """
    started = time.perf_counter()
    labels = _with_pale_unchanged(job, wanted, read_job_labels(wanted, pair.grid))
    unchanged = _unchanged_class(job, labels.scheme, context)
    counts = count_pixels(labels, pair.grid)
    labels = replace(labels, report=finish_report(labels, counts))
    warnings = labels.report.remarks()
    data = labelled_change(features, labels, pair.grid, context.part(0.3, 0.35))
    if data.without_data:
        warnings.append(f"{data.without_data} labelled pixels lie where a date has no data; they are ignored.")
    for warning in warnings:
        context.warning(warning)
    counts = replace(
        counts,
        features=np.bincount(data.feature, minlength=len(labels)),
        classes=np.bincount(data.classes, minlength=len(labels.scheme)),
    )
    split = spatial_split(labels, pair.grid, 1 / FOLDS, job.seed, counts=counts)
    for note in split.notes:
        context.info(note)
    fold = spatial_folds(labels, split, job.seed, counts)
    columns, n_classes = features.columns, len(labels.scheme)
    candidates = cross_validated_change(data, columns, fold, n_classes, job.seed, context.part(0.35, 0.42))
    network = None
    if job.trains_network:
        network = trained_network(job, base, pair, features.alteration, labels, split, fold, data, candidates, context)
    model: ChangeVote | ChangeNetwork
    calibration = None
    if network is not None and network.is_clearly_better:
        model, result = network, network.result
        if result.calibration is not None:
            calibration = calibration_of(result.calibration, result.temperature, False, split.block, job.seed)
    else:
        context.progress(0.54, "Fitting on all labels")
        model = fit_change_vote(data, columns, n_classes, job.seed, candidates)
        calibration = calibration_of(candidates[0].said, model.temperature, True, split.block, job.seed)
    scored = _scored(candidates, network, HeldOutScores(labels.scheme, split.block, job.seed))
    return TrainedChange(
        model,
        network,
        labels,
        unchanged,
        split,
        scored,
        calibration,
        tuple(warnings),
        time.perf_counter() - started,
    )


def _scored(
    candidates: Sequence[ChangeCandidate], network: ChangeNetwork | None, scores: HeldOutScores
) -> tuple[ScoredModel, ...]:
    """Scores of what maps, then of all else, on the same pixels."""
    told = list(candidates)
    if network is not None:
        vote, *others = network.beside
        own = ChangeCandidate(network.prepared.name, network.held_out, network.seconds)
        told = [own, vote, *others] if network.is_clearly_better else [vote, own, *others]
    first, *rest = told
    return (
        scores.delivered(first.name, first.said, first.seconds),
        *(scores.other(each.name, each.said, each.seconds) for each in rest),
    )


def _unchanged_class(job: DetectChangeJob, scheme: ClassScheme, context: JobContext) -> int | None:
    """The index of the class that means no change; None where the labels have none.

    Raises:
        LabelError: it has to be known and is not.
    """
    index = unchanged_index(scheme, job.unchanged)
    if index is not None:
        return index
    text = f"No class of the labels is called '{job.unchanged}'; they are {listed(scheme.names)}."
    hint = "Name the class that means no change in 'unchanged'."
    if job.probability:
        raise LabelError(f"{text} So the probability of change is not known.", hint)
    context.warning(f"{text} So the area of change is not known. {hint}")
    return None


def _with_pale_unchanged(job: DetectChangeJob, wanted: Labels, labels: LabelSet) -> LabelSet:
    """Unless the labels have colours of their own, what has not changed is pale, so that what has stands out."""
    index = unchanged_index(labels.scheme, job.unchanged)
    if index is None or wanted.classes or entries_for(wanted.path, wanted.layer, wanted.class_field):
        return labels
    classes = list(labels.scheme.classes)
    classes[index] = replace(classes[index], colour=UNCHANGED_COLOUR)
    return replace(labels, scheme=replace(labels.scheme, classes=tuple(classes)))


def unchanged_index(scheme: ClassScheme, wanted: str) -> int | None:
    """The index of the class that means no change, by its name or its value in the field; None where there is none."""
    key = wanted.strip().casefold()
    found = (
        i for i, entry in enumerate(scheme.classes) if key in (entry.name.strip().casefold(), entry.value.strip().casefold())
    )
    return next(found, None)


def tell_change_scores(trained: TrainedChange, context: JobContext) -> None:
    """Says what the map is worth on labels that were not learned from, class by class."""
    if trained.network is not None:
        context.info(network_sentence(trained.network))
    tell_scores(context, trained.scores)
    score = trained.scores[0].score
    for name, f1, users, producers in zip(score.names, score.f1, score.users_accuracy, score.producers_accuracy, strict=True):
        if np.isfinite(f1):
            context.info(f"{name}: F1 {f1:.3f}, user's accuracy {users:.3f}, producer's accuracy {producers:.3f}.")
    tell_calibration(context, trained.calibration)
    context.warning(OPTIMISTIC)


def network_sentence(network: ChangeNetwork) -> str:
    """Whether a network maps, and why."""
    if network.is_clearly_better:
        return "The network was clearly better than the vote on the labels held out, and makes the map."
    return "The network was not clearly better than the vote on the labels held out; the vote makes the map."


def _how_scored(trained: TrainedChange) -> tuple[str, ...]:
    if trained.network is None:
        return (
            "Every score is of a cross-validation over blocks of ground: each block was told by estimators that had not "
            "learned from it. What made the map has learned from all labels.",
        )
    sentence = (
        "Every score is of the blocks of ground that neither the network nor, in a cross-validation, the estimators had "
        "learned from; they chose the network's epoch, too."
    )
    return network_sentence(trained.network), sentence


def change_report(
    job: DetectChangeJob, pair: DatePair, trained: TrainedChange, areas: ClassAreas, preview: ChangePreview
) -> TrainingReport:
    """The contents of the report."""
    delivered, split, labels = trained.scores[0], trained.split, trained.labels
    hectares, names = areas.hectares, [Path(path).name for path in (*pair.before.paths, *pair.after.paths)]
    return TrainingReport(
        title=f"Change between two dates: {Path(job.output).stem}",
        created=creation_time(),
        summary_lines=(
            f"{delivered.row.name} over {', '.join(pair.band_names)}, {len(labels.scheme)} classes, {len(labels)} features.",
            *_how_scored(trained),
            *(f"{entry.name}: {hectares.get(entry.code, 0.0):.2f} ha in the map." for entry in labels.scheme.classes),
        ),
        rows=tuple(entry.row for entry in trained.scores),
        accuracy=delivered.score,
        confusion=delivered.confusion,
        scheme=labels.scheme,
        label_lines=tuple(
            f"{name}: {features} features, {pixels} pixels."
            for name, features, pixels in zip(
                labels.scheme.names, labels.report.features_per_class, labels.report.pixels_per_class, strict=True
            )
        ),
        calibration=trained.calibration,
        calibration_lines=calibration_lines(trained.calibration),
        imagery=preview.imagery(),
        map_codes=preview.codes,
        input_lines=(
            *pair.before.notes,
            *pair.after.notes,
            *pair.notes,
            "The imagery beside the map is that of the second date.",
        ),
        split_lines=(f"Blocks of {split.block_size_m:.0f} m in {FOLDS} parts.", *split.notes),
        warnings=(*trained.warnings, OPTIMISTIC),
        curves=trained.network.result.records if trained.network else (),
        best_epoch=trained.model.result.best_epoch if isinstance(trained.model, ChangeNetwork) else None,
        settings={"seed": job.seed, **(asdict(trained.network.prepared.settings) if trained.network else {})},
        provenance={
            "images": names,
            "labels": Path(job.labels.path).name if job.labels else "",
            **({"base model": Path(job.base_model).name} if job.base_model else {}),
            **software(),
        },
    )
