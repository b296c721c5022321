"""The contents of a training's report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import shapely
import torch
from numpy.typing import NDArray

from core.assessment.calibration import Calibration
from core.assessment.contents import DrawnLabel, SubsetScore, TrainingReport
from core.assessment.quicklook import imagery_picture
from core.jobs.devices import describe_device
from core.jobs.learning.calibration import not_measured
from core.jobs.learning.preparation import PreparedTraining
from core.jobs.learning.scores import TrainingOutcome
from core.jobs.provenance import software
from core.jobs.schemas import FinetuneJob
from core.mapping.engine import MappingEngine
from core.models.estimator_model import EstimatorModel
from core.models.fusion_model import FusionModel
from core.models.model_file import ModelCard
from core.models.vote_model import VoteModel
from core.scenes.grid import Grid, Window
from core.scenes.scene import Scene

PREVIEW_SIDE = 640
"""Longest side, in pixels, of the piece of map that the report shows."""


def training_report(
    job: FinetuneJob,
    prepared: PreparedTraining,
    outcome: TrainingOutcome,
    card: ModelCard,
    seconds: float,
    device: torch.device,
) -> TrainingReport:
    """The contents of the report.

    Args:
        job: that was run.
        prepared: what training started from.
        outcome: of the training.
        card: of the delivered model.
        seconds: that the job has taken.
        device: that it computed on.
    """
    result, scores = outcome.result, outcome.scores
    imagery, codes, drawn = _preview(prepared, result.model, card, device)
    split, scene = prepared.split, prepared.scene
    held_out = int(split.validation.sum())
    return TrainingReport(
        title=f"Training report: {Path(job.output_model).stem}",
        created=card.created,
        summary_lines=(
            f"{scores[0].row.name} over {', '.join(a.sensor.title for a in scene.acquisitions)}, "
            f"{len(prepared.labels.scheme)} classes, trained on {len(prepared.labels) - held_out} features.",
            f"Scored on {held_out} features that lie in other blocks of ground.",
            f"{best_epoch_sentence(outcome)} The whole job took {seconds:.0f} seconds on {describe_device(device)}.",
        ),
        rows=tuple(entry.row for entry in scores),
        accuracy=scores[0].score,
        confusion=scores[0].confusion,
        scheme=prepared.labels.scheme,
        missing_inputs=_with_titles(outcome.subsets, scene),
        calibration=outcome.calibration,
        calibration_lines=calibration_lines(outcome.calibration),
        label_worth=outcome.label_worth,
        curves=result.records,
        best_epoch=result.best_epoch if isinstance(result.model, FusionModel) else None,
        imagery=imagery,
        map_codes=codes,
        drawn_labels=drawn,
        label_lines=prepared.label_lines,
        input_lines=(*scene.notes, *_missing_lines(prepared)),
        split_lines=(
            f"Blocks of {split.block_size_m:.0f} m; {held_out} of {len(prepared.labels)} features are held out.",
            _chosen_by(result.model),
            *split.notes,
        ),
        warnings=(*scene.warnings, *prepared.warnings),
        settings={
            **asdict(outcome.settings),
            "spread labels": job.spread_labels,
            "self-training rounds": job.self_training,
            "validation fraction": job.validation_fraction,
            "device": str(device),
        },
        provenance={**card.training["inputs"], "labels": Path(job.labels.path).name, **software()},
    )


def _chosen_by(model: torch.nn.Module) -> str:
    """What the held-out labels were used for, beside the scores."""
    if isinstance(model, FusionModel):
        return (
            "The held-out labels also chose the epoch and the temperature of the delivered model, so its scores are "
            "slightly too good, as are those of whatever was chosen among many."
        )
    return (
        "The scores are those of the same estimator without the held-out labels; the one that was delivered has learned from "
        "all labels. It and its temperature were chosen in a cross-validation over blocks of all labels, so the scores "
        "are slightly too good for what was chosen, and slightly too bad for fewer labels."
    )


def calibration_lines(calibration: Calibration | None) -> tuple[str, ...]:
    """On what the probabilities were measured, and how."""
    if calibration is None:
        return (f"Of these labels, {not_measured()}",)
    how = (
        "each told by estimators that did not learn from its part of a cross-validation over blocks"
        if calibration.is_cross_validated
        else "all held out, which also chose the epoch"
    )
    return (
        f"Measured on {calibration.pixels} labelled pixels in {calibration.blocks} blocks of ground, {how}.",
        f"The model divides its class scores by a temperature of {calibration.temperature:.2f}, which was fitted on these "
        f"pixels; with it the error on them is {calibration.same_pixels_error:.3f}. For the number after scaling, which owes "
        "nothing to that, the blocks were dealt into two halves, and each was scaled by a temperature fitted on the other.",
        "The temperature has the lowest log loss where every class counts alike, and stays near 1 where few features speak "
        "for another, while in this error every pixel counts alike: scaling can make it larger.",
    )


def _with_titles(subsets: Sequence[SubsetScore], scene: Scene) -> tuple[SubsetScore, ...]:
    """The scores with the names of sensors that people know."""
    titles = {acquisition.name: acquisition.sensor.title for acquisition in scene.acquisitions}
    return tuple(replace(row, inputs=tuple(titles[name] for name in row.inputs)) for row in subsets)


def _missing_lines(prepared: PreparedTraining) -> tuple[str, ...]:
    if prepared.data.allows_missing or len(prepared.specification.modalities) == 1:
        return ()
    return ("The model needs all of its inputs: where one of them has no data, its map is left empty.",)


def best_epoch_sentence(outcome: TrainingOutcome) -> str:
    """Which epoch the model is from, or what it is in place of a network."""
    result = outcome.result
    if isinstance(result.model, EstimatorModel | VoteModel):
        delivered = outcome.scores[0].row.name
        if not result.records:
            return f"{delivered} told the labels best among its kind in a cross-validation over blocks; no network was trained."
        better = f"{delivered[0].lower()}{delivered[1:]}"
        tried = "The network was not" if outcome.n_networks == 1 else f"None of {outcome.n_networks} networks was"
        return f"{tried} clearly better on the held-out labels than the {better}, which is the model."
    if result.best_epoch == 0:
        return (
            f"None of {len(result.records)} epochs was clearly better on the held-out labels than the linear model that "
            "training starts from; the model is that one."
        )
    weight = result.linear_weight
    if weight is None:
        beside = ""
    elif weight == 0:
        beside = "; the network alone"
    else:
        beside = f"; the network, and {weight:g} of the linear model's scores"
    return f"Best of {len(result.records)} epochs: {result.best_epoch}{beside}."


def _preview(
    prepared: PreparedTraining, model: torch.nn.Module, card: ModelCard, device: torch.device
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], tuple[DrawnLabel, ...]]:
    """Imagery and map of the scene, or of the middle of its labels where the scene is large, and the labels there."""
    grid = prepared.scene.grid
    boxes = shapely.bounds(prepared.labels.geometries)
    x, y = np.median((boxes[:, 0] + boxes[:, 2]) / 2), np.median((boxes[:, 1] + boxes[:, 3]) / 2)
    width, height = min(grid.width, PREVIEW_SIDE), min(grid.height, PREVIEW_SIDE)
    column = int(np.clip((x - grid.left) / grid.pixel_width - width / 2, 0, grid.width - width))
    row = int(np.clip((grid.top - y) / grid.pixel_height - height / 2, 0, grid.height - height))
    window = Window(column, row, width, height)
    codes = np.zeros(window.shape, np.uint8)
    table = np.array(card.scheme.codes, np.uint8)
    engine = MappingEngine(model, card, prepared.scene, device)
    for strip in engine.strips(window):
        rows = slice(strip.window.row - row, strip.window.stop_row - row)
        codes[rows] = np.where(strip.mapped, table[strip.probabilities.argmax(axis=0)], 0)
    return imagery_picture(prepared.scene, grid.crop(window)), codes, _drawn_labels(prepared, grid.crop(window))


def _drawn_labels(prepared: PreparedTraining, grid: Grid) -> tuple[DrawnLabel, ...]:
    """The labels that touch the ground of a picture."""
    labels, drawn = prepared.labels, []
    for number in shapely.STRtree(labels.geometries).query(shapely.box(*grid.bounds)).tolist():
        parts = shapely.get_parts(labels.geometries[number])
        outlines = [part if shapely.get_dimensions(part) == 0 else part.boundary for part in parts]
        rings = [shapely.get_coordinates(ring) for outline in outlines for ring in shapely.get_parts(outline)]
        corner, size = np.array([grid.left, grid.top]), np.array([grid.pixel_width, -grid.pixel_height])
        code = labels.scheme.codes[labels.class_index[number]]
        held_out = bool(prepared.split.validation[number])
        drawn.append((number, DrawnLabel(code, held_out, tuple((ring - corner) / size for ring in rings))))
    return tuple(label for _, label in sorted(drawn, key=lambda entry: entry[0]))
