"""From polygons with classes to a classifier of scenes, and what it is worth on polygons that it has not seen."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import core
from core.assessment.confusion import confusion_matrix
from core.assessment.contents import SceneCandidate
from core.assessment.scene_scores import SceneScores, given_classes, scene_scores
from core.errors import LabelError, ModelFileError
from core.finetuning.estimators.scene_classifiers import (
    CANDIDATES,
    FittedClassifier,
    Tried,
    best_of,
    best_threshold,
    fit_classifier,
    try_candidates,
)
from core.finetuning.networks.start import without_classes
from core.jobs.events import JobContext
from core.jobs.inputs import scene_for_model, scene_of
from core.jobs.provenance import creation_time, input_names, software
from core.jobs.schemas import ClassifyScenesJob, Labels
from core.labels.blocks import Split, spatial_split
from core.labels.scene_labels import SceneLabels, Units, read_scene_labels
from core.labels.schemes import listed
from core.labels.style import entries_for
from core.mapping.unit_descriptors import UnitDescriptors
from core.models.architectures import title_of
from core.models.fusion_model import FusionModel
from core.models.heads import SceneHead
from core.models.model_file import ModelCard, class_cards, load_model
from core.models.scene_descriptors import FloatArray, Layout
from core.models.scene_model import SceneModel
from core.models.specification import EstimatorSpecification, ModelSpecification
from core.models.specify import specify_model
from core.scenes.scene import Scene

FEW_POLYGONS = 10
"""A class with fewer polygons to learn from is remarked upon: its scores, and its probabilities, are hardly known."""


@dataclass(frozen=True, eq=False)
class SceneStart:
    """What a training starts from: the scene, the polygons, and a model without estimators."""

    scene: Scene
    labels: SceneLabels
    model: SceneModel
    allows_missing: bool


@dataclass(frozen=True, eq=False)
class TrainedScenes:
    """A classifier and what it is worth.

    Attributes:
        model: fitted on all polygons.
        card: of the model.
        labels: the polygons with data.
        split: which of them were held out.
        scores: of a classifier fitted on the others, on those.
        confusion: (K, K) of the same, rows = said; None where units may have several classes.
        candidates: all that were tried.
        threshold: None where a unit has one class.
        notes: sentences for the user.
        warnings: what may be wrong.
    """

    model: SceneModel
    card: ModelCard
    labels: SceneLabels
    split: Split
    scores: SceneScores
    confusion: NDArray[np.int64] | None
    candidates: tuple[SceneCandidate, ...]
    threshold: float | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def start_scenes(job: ClassifyScenesJob, training: Labels, context: JobContext) -> SceneStart:
    """Reads rasters, base model and polygons, and builds the model.

    Raises:
        RsfusionError: one of them cannot be used.
    """
    base = load_model(Path(job.base_model)) if job.base_model else None
    if base is None:
        scene, allows_missing = scene_of(job.inputs, context), True
    else:
        if not isinstance(base[0], FusionModel) or isinstance(base[0].head, SceneHead):
            raise ModelFileError(
                f"The base model '{job.base_model}' is '{title_of(base[1].specification)}', which has no features of pixels.",
                "Give a model of 'Pre-train on unlabelled scenes', or a network of 'Fine-tune on labels'.",
            )
        allows_missing = base[1].allows_missing
        scene, found = scene_for_model(job.inputs, base[1].specification, context, allows_missing)
    labels = read_scene_labels(
        training.path,
        training.class_field,
        scene.grid,
        layer=training.layer,
        entries=training.classes or entries_for(training.path, training.layer, training.class_field),
        class_scheme=training.class_scheme,
        multi_label=job.multi_label,
    )
    if labels.separator == "," and job.multi_label == "auto":
        context.warning(
            f"Commas in '{training.class_field}' were taken to separate classes: {listed(list(labels.scheme.names))}. If they "
            "belong to the names, say that polygons have one class (--multi-label no)."
        )
    specification = specify_model(scene, "unet_early", len(labels.scheme)) if base is None else found
    changed = {
        "head": "scene",
        "n_classes": len(labels.scheme),
        "has_shortcut": False,
        "estimator": _estimator(base, labels.is_multi_label),
    }
    # A base model's last layer is not taken over: what stands in its place shall be the same each time.
    with torch.random.fork_rng():
        torch.manual_seed(job.seed)
        model = SceneModel(specification.model_copy(update=changed)).eval()
    if base is not None and model.base is not None:
        model.base.load_state_dict(without_classes(base[0].state_dict()), strict=False)
    return SceneStart(scene, labels, model, allows_missing)


def _estimator(base: tuple[torch.nn.Module, ModelCard] | None, multi_label: bool) -> EstimatorSpecification:
    # The kind is known only when the candidates have been compared.
    uses_decoder = base is not None and base[1].has_trained_decoder
    return EstimatorSpecification(
        kind="logistic", base_features=base is not None, uses_decoder=uses_decoder, multi_label=multi_label
    )


def train_scenes(
    job: ClassifyScenesJob,
    start: SceneStart,
    described: UnitDescriptors,
    wanted: FloatArray,
    context: JobContext,
) -> TrainedScenes:
    """Compares the classifiers on blocks of ground and fits the best one.

    Args:
        job, start: what is asked for.
        described: the polygons of the training.
        wanted: (M, columns) of the units to classify; a model that is written knows all sets of inputs, one that is not
            only those of these units.
        context: to speak to.

    Raises:
        LabelError: too few polygons with data, or all of a class in one place.
    """
    remarks = start.labels.report.remarks()
    labels, rows, pixels, gaps = _with_data(start.labels, described)
    split = spatial_split(
        labels.of_rarest_class(),
        start.scene.grid,
        job.validation_fraction,
        job.seed,
        counts=labels.counts(pixels),
        joins_near=False,
    )
    learned, multi = ~split.validation, labels.is_multi_label
    model, classes, layout = start.model, labels.classes, start.model.layout
    tried = try_candidates(
        rows[learned], classes[learned], split.block[learned], layout, multi, job.seed, context.part(0.6, 0.9)
    )
    best = best_of(tried, multi)
    said = next((each for each in tried if each.candidate is best), None)
    threshold = None
    if multi:
        threshold = 0.5 if said is None else best_threshold(said.probabilities, classes[learned])

    def held_out(fitted: FittedClassifier, limit: float | None) -> SceneScores:
        shares = fitted.probabilities(rows[~learned])
        return scene_scores(shares, classes[~learned], given_classes(shares, limit), labels.scheme.names)

    fits = {
        candidate.name: fit_classifier(
            candidate, rows[learned], classes[learned], layout, multi, job.seed, _occurring(layout, rows[~learned])
        )
        for candidate in (CANDIDATES if tried else (best,))
    }
    candidates = tuple(_row(each, each.candidate is best, held_out, fits, classes[learned], multi) for each in tried)
    scores = held_out(fits[best.name], threshold)
    listed = range(len(layout.subsets)) if job.output_model and start.allows_missing else _occurring(layout, wanted)
    final = fit_classifier(best, rows, classes, layout, multi, job.seed, listed)
    model = _of_kind(model, final)
    final.put_into(model, 0.5 if threshold is None else threshold)
    several = f", which '{labels.separator}' separates, {classes.sum() / len(labels):.2g} in the mean" if multi else ""
    notes = (
        f"A polygon has {'several classes' if multi else 'one class'}{several}.",
        f"{len(labels)} polygons of {len(labels.scheme)} classes, {int(learned.sum())} to learn from and "
        f"{scores.n_units} held out in blocks of {split.block_size_m:g} m; polygons that touch may lie in different parts.",
        f"{best.name}{' on one class against the rest' if multi else ''}, over {rows.shape[1]} values of each polygon.",
    )
    warnings = (*remarks, *gaps, *split.notes, *_few(labels, learned), *([] if tried else [_UNTRIED]))
    confusion = None
    if not multi:
        shares = fits[best.name].probabilities(rows[~learned])
        confusion = confusion_matrix(shares.argmax(axis=1), classes[~learned].argmax(axis=1), len(labels.scheme))
    card = _card(job, start, model.specification, labels, split, scores, candidates)
    return TrainedScenes(model, card, labels, split, scores, confusion, candidates, threshold, notes, warnings)


def _occurring(layout: Layout, rows: FloatArray) -> list[int]:
    """The sets of inputs that rows have."""
    found: list[int] = np.unique(layout.numbers(rows)).tolist()
    return found


_UNTRIED = "The polygons to learn from lie in one block of ground, so that classifiers could not be compared."


def _of_kind(model: SceneModel, fitted: FittedClassifier) -> SceneModel:
    """The same model with the kind of estimator that was chosen."""
    specification = model.specification
    kind = model.estimator.model_copy(update={"kind": fitted.kind})
    chosen = SceneModel(specification.model_copy(update={"estimator": kind})).eval()
    chosen.load_state_dict(model.state_dict(), strict=False)
    return chosen


def _row(
    tried: Tried,
    is_chosen: bool,
    held_out: Any,
    fits: dict[str, FittedClassifier],
    classes: NDArray[np.bool_],
    is_multi_label: bool,
) -> SceneCandidate:
    limit = best_threshold(tried.probabilities, classes) if is_multi_label else None
    return SceneCandidate(
        tried.candidate.name,
        is_chosen,
        tried.log_loss,
        tried.mean_average_precision,
        held_out(fits[tried.candidate.name], limit),
        tried.seconds,
    )


def _with_data(
    labels: SceneLabels, described: UnitDescriptors
) -> tuple[SceneLabels, NDArray[np.float64], NDArray[np.int64], list[str]]:
    """The polygons with data, their descriptors and pixels, and a remark on the others."""
    known = described.pixels > 0
    if known.all():
        return labels, described.rows, described.pixels, []
    gaps = [f"{int((~known).sum())} of {len(labels)} polygons lie where no raster has data and were left out."]
    units = Units(labels.units.geometries[known], labels.units.ids[known], labels.units.crs)
    classes = labels.classes[known]
    present = classes.any(axis=0)
    if present.sum() < 2:
        raise LabelError(
            f"Of the polygons of '{labels.source}' only those of {int(present.sum())} class have data.",
            "Check nodata values, or draw polygons where the rasters have data.",
        )
    kept = SceneLabels(units, classes, labels.scheme, labels.separator, labels.report, labels.source)
    return kept, described.rows[known], described.pixels[known], gaps


def _few(labels: SceneLabels, learned: NDArray[np.bool_]) -> list[str]:
    counts = labels.classes[learned].sum(axis=0)
    return [
        f"The class '{name}' has {count} polygons to learn from; fewer than {FEW_POLYGONS} teach little, and its scores "
        "may be chance."
        for name, count in zip(labels.scheme.names, counts.tolist(), strict=True)
        if count < FEW_POLYGONS
    ]


def _card(
    job: ClassifyScenesJob,
    start: SceneStart,
    specification: ModelSpecification,
    labels: SceneLabels,
    split: Split,
    scores: SceneScores,
    candidates: tuple[SceneCandidate, ...],
) -> ModelCard:
    numbers = {"top1", "top3", "macro_f1", "mean_average_precision", "micro_average_precision"}
    return ModelCard(
        software_version=core.__version__,
        specification=specification,
        resolution_m=round(start.scene.grid.resolution_m(), 6),
        class_scheme=labels.scheme.name,
        classes=class_cards(labels.scheme),
        training={
            "inputs": input_names(start.scene),
            "labels": Path(job.training.path).name if job.training else "",
            "class_field": job.training.class_field if job.training else "",
            "base_model": Path(job.base_model).name if job.base_model else None,
            "seed": job.seed,
            "polygons": len(labels),
            "polygons_held_out": int(split.validation.sum()),
            "block_size_m": split.block_size_m,
            "candidate": next((each.name for each in candidates if each.is_chosen), None),
            "software": software(),
        },
        scores={
            "measured": "agreement with polygons held out in spatial blocks of the training scene, of the same classifier "
            "fitted on the others; the one in this file was fitted on all",
            "units": scores.n_units,
            **{key: round(value, 4) for key, value in asdict(scores).items() if key in numbers},
        },
        allows_missing=start.allows_missing,
        created=creation_time(),
    )
