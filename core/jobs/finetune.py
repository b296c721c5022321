"""The job that trains a model on drawn labels and says how good it is beside the classical baselines."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import torch
from numpy.typing import NDArray

import core
from core.assessment.confusion import Accuracy, accuracy, bootstrap_interval, confusion_matrix
from core.assessment.contents import ModelScore, TrainingReport
from core.assessment.quicklook import imagery_picture
from core.assessment.report import write_training_report
from core.finetuning.baselines import BaselineResult, labelled_features, run_baselines
from core.finetuning.evaluation import context_reach
from core.finetuning.loop import TrainingResult, train
from core.finetuning.settings import TrainingSettings
from core.finetuning.specify import specify_model
from core.finetuning.start import start_model
from core.finetuning.training_data import TrainingData
from core.jobs.devices import choose_device, describe_device
from core.jobs.events import JobContext
from core.jobs.inputs import scene_for_model, scene_of
from core.jobs.provenance import creation_time, input_names, run_identity, software
from core.jobs.schemas import FinetuneJob, Labels
from core.labels.blocks import Split, spatial_split
from core.labels.label_set import LabelSet
from core.labels.rasterizing import count_pixels, finish_report
from core.labels.reading import read_labels
from core.labels.scheme import ClassScheme
from core.labels.style import entries_for
from core.mapping.engine import MappingEngine
from core.mapping.rasters import check_output
from core.models.model_file import ModelCard, class_cards, load_model, save_model
from core.models.registry import count_parameters
from core.models.specification import ModelSpecification
from core.scenes.grid import Grid, Window
from core.scenes.scene import Scene

PREVIEW_SIDE = 640
"""Longest side, in pixels, of the piece of map that the report shows."""

ARCHITECTURE_TITLES = {
    "unet_early": "U-Net, early fusion",
    "unet_intermediate": "U-Net, intermediate fusion",
}


@dataclass(frozen=True, eq=False)
class _Prepared:
    """What training starts from."""

    scene: Scene
    labels: LabelSet
    split: Split
    specification: ModelSpecification
    model: torch.nn.Module
    label_lines: tuple[str, ...]


def run_finetune(job: FinetuneJob, context: JobContext) -> dict[str, Any]:
    """Runs the job; see ``core.jobs.runner``."""
    started = time.perf_counter()
    model_path = Path(job.output_model)
    inputs = _input_paths(job)
    for output in filter(None, (job.output_model, job.report)):
        check_output(Path(output), inputs)
    device = choose_device(job.device)
    context.info(f"Device: {describe_device(device)}.")
    context.progress(0.0, "Reading the rasters and the labels")
    prepared = _prepare(job, context)
    settings = _settings(job, prepared)
    data = TrainingData(
        prepared.scene,
        prepared.labels,
        max(settings.window_size, context_reach(prepared.specification)),
        lambda part: context.progress(0.02 + 0.06 * part, "Reading the surroundings of the labels"),
    )
    validation = prepared.split.validation
    samples = labelled_features(data)
    baselines = run_baselines(samples, validation, job.seed, context.part(0.08, 0.2))
    del samples
    checkpoint = model_path.with_name(f".{model_path.name}.checkpoint.safetensors")
    identity = _identity(job, prepared, settings, inputs)
    try:
        training_started = time.perf_counter()
        result = train(
            prepared.model,
            prepared.specification,
            data,
            validation,
            settings,
            device,
            checkpoint,
            identity,
            context.part(0.2, 0.92),
        )
        seconds = time.perf_counter() - training_started
        scores = _scores(job, prepared, result, baselines, seconds)
        card = _card(job, prepared, settings, result, scores)
        context.progress(0.93, "Mapping a piece for the report")
        report = _report(job, prepared, result, scores, card, settings, started, device) if job.report else None
        save_model(model_path, result.model, card)
        if job.report and report is not None:
            write_training_report(Path(job.report), report)
    finally:
        # Only a killed run leaves its checkpoint, to go on from; whoever cancels wants nothing left behind.
        checkpoint.unlink(missing_ok=True)
    context.progress(1.0, "Done")
    _tell(context, scores)
    delivered = scores[0]
    return {
        "OUTPUT_MODEL": str(model_path),
        "REPORT": job.report or "",
        "OVERALL_ACCURACY": round(delivered.score.overall_accuracy, 4),
        "MACRO_F1": round(delivered.score.macro_f1, 4),
        "DEVICE_USED": describe_device(device),
    }


def read_job_labels(labels: Labels, grid: Grid, scheme: ClassScheme | None = None) -> LabelSet:
    """The labels of a job: names and colours from the job, else from the style kept with the file."""
    entries = labels.classes or entries_for(labels.path, labels.layer, labels.class_field)
    return read_labels(
        labels.path,
        labels.class_field,
        grid,
        layer=labels.layer,
        entries=entries,
        class_scheme=labels.class_scheme,
        scheme=scheme,
    )


def _input_paths(job: FinetuneJob) -> list[str]:
    given = job.inputs
    paths = [*given.optical, *given.sar, *given.elevation, *given.other, job.labels.path]
    return paths + ([job.base_model] if job.base_model else [])


def _prepare(job: FinetuneJob, context: JobContext) -> _Prepared:
    base = load_model(Path(job.base_model)) if job.base_model else None
    if base is None:
        scene = scene_of(job.inputs, context)
    else:
        scene = scene_for_model(job.inputs, base[1].specification, context)
    labels = read_job_labels(job.labels, scene.grid)
    counts = count_pixels(labels, scene.grid)
    labels = replace(labels, report=finish_report(labels, counts))
    split = spatial_split(labels, scene.grid, job.validation_fraction, job.seed, job.block_size, counts)
    if base is None:
        specification = specify_model(scene, job.architecture, len(labels.scheme))
    else:
        specification = base[1].specification.model_copy(update={"n_classes": len(labels.scheme)})
    model = start_model(specification, job.seed, base, labels.scheme)
    lines = tuple(_label_lines(labels))
    for line in lines:
        context.info(line)
    for remark in labels.report.remarks():
        context.warning(remark)
    for note in split.notes:
        context.info(note)
    context.info(f"Model: {ARCHITECTURE_TITLES[specification.architecture]}, {count_parameters(model):,} parameters.")
    return _Prepared(scene, labels, split, specification, model, lines)


def _label_lines(labels: LabelSet) -> list[str]:
    report = labels.report
    lines = [f"{report.features_used} of {report.features_read} features are used."]
    for name, features, pixels in zip(
        labels.scheme.names, report.features_per_class, report.pixels_per_class, strict=True
    ):
        lines.append(f"{name}: {features} features, {pixels} pixels.")
    return lines


def _settings(job: FinetuneJob, prepared: _Prepared) -> TrainingSettings:
    defaults = TrainingSettings()
    # A window a feature and epoch, so that many labels are all seen, up to ten times the usual number.
    windows = int(np.clip(len(prepared.labels), defaults.windows_per_epoch, 10 * defaults.windows_per_epoch))
    return replace(defaults, epochs=job.epochs, seed=job.seed, windows_per_epoch=windows)


def _identity(job: FinetuneJob, prepared: _Prepared, settings: TrainingSettings, inputs: Sequence[str]) -> str:
    shapes = hashlib.sha256(b"".join(shapely.to_wkb(prepared.labels.geometries))).hexdigest()
    classes = prepared.labels.class_index.tolist()
    parts = [job.model_dump(), asdict(settings), shapes, classes, prepared.specification.model_dump()]
    return run_identity([*parts, torch.get_num_threads()], inputs)


@dataclass(frozen=True, eq=False)
class _Scored:
    """A model's row in the report with the numbers behind it."""

    row: ModelScore
    score: Accuracy
    confusion: NDArray[np.int64]


def _scored(
    name: str,
    predicted: NDArray[np.int64],
    classes: NDArray[np.int64],
    groups: NDArray[np.int64],
    labels: LabelSet,
    seed: int,
    seconds: float,
    is_delivered: bool,
) -> _Scored:
    n_classes = len(labels.scheme)
    matrices = np.stack(
        [confusion_matrix(predicted[groups == group], classes[groups == group], n_classes) for group in np.unique(groups)]
    )
    confusion = matrices.sum(axis=0)
    score = accuracy(confusion, labels.scheme.names)
    interval = bootstrap_interval(matrices, seed) if len(matrices) > 1 else None
    row = ModelScore(
        name, is_delivered, score.overall_accuracy, score.macro_f1, score.mean_iou, interval, seconds
    )
    return _Scored(row, score, confusion)


def _scores(
    job: FinetuneJob,
    prepared: _Prepared,
    result: TrainingResult,
    baselines: Sequence[BaselineResult],
    seconds: float,
) -> list[_Scored]:
    """The delivered model first, then the baselines, all on the same held-out pixels."""
    held_out = result.validation
    if held_out is None:
        raise RuntimeError("The split holds out nothing.")
    name = ARCHITECTURE_TITLES[prepared.specification.architecture]
    block = prepared.split.block
    rows = [
        _scored(
            name,
            held_out.predicted,
            held_out.classes,
            block[held_out.feature],
            prepared.labels,
            job.seed,
            seconds,
            is_delivered=True,
        )
    ]
    for baseline in baselines:
        rows.append(
            _scored(
                baseline.name,
                baseline.predicted,
                baseline.classes,
                block[baseline.feature],
                prepared.labels,
                job.seed,
                baseline.seconds,
                is_delivered=False,
            )
        )
    return rows


def _card(
    job: FinetuneJob,
    prepared: _Prepared,
    settings: TrainingSettings,
    result: TrainingResult,
    scores: Sequence[_Scored],
) -> ModelCard:
    return ModelCard(
        software_version=core.__version__,
        specification=prepared.specification,
        resolution_m=round(prepared.scene.grid.resolution_m(), 6),
        class_scheme=prepared.labels.scheme.name,
        classes=class_cards(prepared.labels.scheme),
        training={
            "inputs": input_names(prepared.scene),
            "labels": Path(job.labels.path).name,
            "class_field": job.labels.class_field,
            "base_model": Path(job.base_model).name if job.base_model else None,
            "settings": asdict(settings),
            "best_epoch": result.best_epoch,
            "features": len(prepared.labels),
            "features_held_out": int(prepared.split.validation.sum()),
            "block_size_m": prepared.split.block_size_m,
            "software": software(),
        },
        scores={
            "measured": "agreement with labels held out in spatial blocks of the training scene, which also chose the epoch",
            "models": [
                {
                    "name": entry.row.name,
                    "overall_accuracy": round(entry.score.overall_accuracy, 4),
                    "macro_f1": round(entry.score.macro_f1, 4),
                    "mean_iou": round(entry.score.mean_iou, 4),
                }
                for entry in scores
            ],
        },
        temperature=result.temperature,
        created=creation_time(),
    )


def _report(
    job: FinetuneJob,
    prepared: _Prepared,
    result: TrainingResult,
    scores: Sequence[_Scored],
    card: ModelCard,
    settings: TrainingSettings,
    started: float,
    device: torch.device,
) -> TrainingReport:
    imagery, codes = _preview(prepared, result.model, card, device)
    split, scene = prepared.split, prepared.scene
    held_out = int(split.validation.sum())
    return TrainingReport(
        title=f"Training report: {Path(job.output_model).stem}",
        created=card.created,
        summary_lines=(
            f"{scores[0].row.name} over {', '.join(a.sensor.title for a in scene.acquisitions)}, "
            f"{len(prepared.labels.scheme)} classes, trained on {len(prepared.labels) - held_out} features.",
            f"Scored on {held_out} features that lie in other blocks of ground.",
            f"Best of {len(result.records)} epochs: {result.best_epoch}. "
            f"The whole job took {time.perf_counter() - started:.0f} seconds on {describe_device(device)}.",
        ),
        rows=tuple(entry.row for entry in scores),
        accuracy=scores[0].score,
        confusion=scores[0].confusion,
        scheme=prepared.labels.scheme,
        curves=result.records,
        best_epoch=result.best_epoch,
        imagery=imagery,
        map_codes=codes,
        label_lines=prepared.label_lines,
        input_lines=scene.notes,
        split_lines=(
            f"Blocks of {split.block_size_m:.0f} m; {held_out} of {len(prepared.labels)} features are held out.",
            "The held-out labels also chose the epoch and the temperature of the delivered model, so its scores are "
            "slightly too good; the baselines had no such choice.",
            *split.notes,
        ),
        warnings=(*scene.warnings, *prepared.labels.report.remarks()),
        settings={**asdict(settings), "validation fraction": job.validation_fraction, "device": str(device)},
        provenance={**card.training["inputs"], "labels": job.labels.path, **software()},
    )


def _preview(
    prepared: _Prepared, model: torch.nn.Module, card: ModelCard, device: torch.device
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Imagery and map of the scene, or of the middle of its labels where the scene is large."""
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
    return imagery_picture(prepared.scene, grid.crop(window)), codes


def _tell(context: JobContext, scores: Sequence[_Scored]) -> None:
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
