"""The job that trains a model on drawn labels and says how good it is beside the classical baselines."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import shapely
import torch

import core
from core.assessment.calibration import Calibration
from core.assessment.contents import LabelWorth, SubsetScore
from core.assessment.report import write_training_report
from core.finetuning.estimators.candidates import KINDS, Candidate, as_result, best_of, fit_candidates, replaces
from core.finetuning.estimators.label_worth import try_labels
from core.finetuning.familiar import fit_novelty
from core.jobs.devices import choose_device, describe_device
from core.jobs.events import JobContext
from core.jobs.inputs import raster_paths
from core.jobs.learning.calibration import measured_calibration, tell_calibration
from core.jobs.learning.network_trials import best_network, settings_to_try, train_networks
from core.jobs.learning.preparation import PreparedTraining, prepare_training
from core.jobs.learning.report import best_epoch_sentence, training_report
from core.jobs.learning.scores import (
    HeldOutScores,
    TrainingOutcome,
    label_worth,
    subset_scores,
    tell_label_worth,
    tell_scores,
    tell_subsets,
)
from core.jobs.outputs import Staging, check_outputs, check_training_space, checkpoint_path, keeping_checkpoint
from core.jobs.provenance import creation_time, input_names, run_identity, software
from core.jobs.schemas import FinetuneJob
from core.models.model_file import ModelCard, class_cards, save_model, subset_key


def run_finetune(job: FinetuneJob, context: JobContext) -> dict[str, Any]:
    """Runs the job; see ``core.jobs.runner``."""
    started = time.perf_counter()
    inputs = [*raster_paths(job.inputs), job.labels.path, *filter(None, (job.base_model, job.encoder_weights))]
    check_outputs(job, inputs)
    device = choose_device(job.device)
    context.info(f"Device: {describe_device(device)}.")
    prepared = prepare_training(job, context)
    model_path = Path(job.output_model)
    checkpoint = checkpoint_path(model_path)
    check_training_space(model_path, prepared.model, len(settings_to_try(job, prepared)))
    with keeping_checkpoint(checkpoint, context):
        outcome = _train_and_score(job, prepared, device, checkpoint, inputs, started, context)
        card = _card(job, prepared, outcome)
        with Staging() as staging:
            if job.report:
                context.progress(0.93, "Mapping a piece for the report")
                seconds = time.perf_counter() - started
                report = training_report(job, prepared, outcome, card, seconds, device)
                with staging.writing(Path(job.report)) as temporary:
                    write_training_report(temporary, report)
            context.commit()
            save_model(
                model_path,
                outcome.result.model,
                card,
                fit_novelty(card.specification, prepared.data, prepared.split.validation),
            )
            staging.put_in_place()
    context.progress(1.0, "Done")
    context.info(best_epoch_sentence(outcome))
    tell_scores(context, outcome.scores)
    tell_subsets(context, outcome.subsets)
    tell_calibration(context, outcome.calibration)
    if outcome.label_worth is not None:
        tell_label_worth(context, outcome.label_worth)
    delivered, calibration = outcome.scores[0].score, outcome.calibration
    return {
        "OUTPUT_MODEL": str(model_path),
        "REPORT": job.report or "",
        "MODEL_USED": outcome.scores[0].row.name,
        "OVERALL_ACCURACY": round(delivered.overall_accuracy, 4),
        "MACRO_F1": round(delivered.macro_f1, 4),
        # Empty where it could not be measured, as what is not defined is among other jobs' outputs.
        "EXPECTED_CALIBRATION_ERROR": round(calibration.expected_error, 4) if calibration else "",
        "DEVICE_USED": describe_device(device),
    }


def _train_and_score(
    job: FinetuneJob,
    prepared: PreparedTraining,
    device: torch.device,
    checkpoint: Path,
    inputs: Sequence[str],
    started: float,
    context: JobContext,
) -> TrainingOutcome:
    """What is delivered, and the scores of it and of all else on the same held-out pixels."""
    scores = HeldOutScores(prepared.labels.scheme, prepared.split.block, job.seed)
    is_network = job.mode not in KINDS
    candidates = fit_candidates(
        prepared.specification,
        prepared.data,
        prepared.fold,
        job.seed,
        prepared.base,
        prepared.uses_decoder,
        # Boosted trees take the longest, and with few labels they never led.
        KINDS if job.mode == "boosting" else tuple(kind for kind in KINDS if kind != "boosting"),
        context.part(0.08, 0.2 if is_network else 0.9),
        job.self_training,
    )
    others = [scores.other(each.name, each.held_out, each.seconds) for each in candidates]
    identity = _identity(job, prepared, inputs)
    networks = train_networks(job, prepared, device, checkpoint, identity, started, context) if is_network else []
    network = best_network(networks) if networks else None
    names = [acquisition.name for acquisition in prepared.scene.acquisitions]
    best = best_of([each for each in candidates if job.mode in ("auto", each.kind)]) if job.mode in ("auto", *KINDS) else None
    if best is not None and (network is None or replaces(best, network.result)):
        result = as_result(best, network.result if network else None, context.part(0.9, 0.92))
        delivered = scores.delivered(best.name, result.validation or best.held_out, best.seconds)
        rest = [row for row, each in zip(others, candidates, strict=True) if each is not best]
    else:
        if network is None or network.result.validation is None:
            raise RuntimeError("The split holds out nothing.")
        result, rest = network.result, others
        delivered = scores.delivered(network.title, network.result.validation, network.seconds)
    beside = [
        scores.other(each.title, each.result.validation, each.seconds)
        for each in networks
        if each.result is not result and each.result.validation is not None
    ]
    rest = [*beside, *rest]
    calibration = measured_calibration(result, prepared.split.block, job.seed)
    worth = _label_worth(job, prepared, best or best_of(candidates), context) if job.report else None
    subsets = subset_scores(result, names, prepared.labels.scheme)
    settings = network.settings if network else prepared.settings
    return TrainingOutcome(result, (delivered, *rest), subsets, calibration, settings, len(networks), worth)


def _label_worth(job: FinetuneJob, prepared: PreparedTraining, candidate: Candidate, context: JobContext) -> LabelWorth:
    """Of the estimator that is delivered, or that stands beside the network: networks take too long to train so often."""
    classes = prepared.labels.class_index
    trials = try_labels(candidate, prepared.fold, classes, job.seed, context.part(0.92, 0.93))
    return label_worth(candidate.name, trials, prepared.labels.scheme)


def _identity(job: FinetuneJob, prepared: PreparedTraining, inputs: Sequence[str]) -> str:
    shapes = hashlib.sha256(b"".join(shapely.to_wkb(prepared.labels.geometries))).hexdigest()
    classes = prepared.labels.class_index.tolist()
    parts = [job.model_dump(), asdict(prepared.settings), shapes, classes, prepared.specification.model_dump()]
    return run_identity([*parts, torch.get_num_threads()], inputs)


def _card(job: FinetuneJob, prepared: PreparedTraining, outcome: TrainingOutcome) -> ModelCard:
    result = outcome.result
    return ModelCard(
        software_version=core.__version__,
        specification=outcome.specification,
        resolution_m=round(prepared.scene.grid.resolution_m(), 6),
        class_scheme=prepared.labels.scheme.name,
        classes=class_cards(prepared.labels.scheme),
        training={
            "inputs": input_names(prepared.scene),
            "labels": Path(job.labels.path).name,
            "class_field": job.labels.class_field,
            "base_model": Path(job.base_model).name if job.base_model else None,
            "encoder_weights": Path(job.encoder_weights).name if job.encoder_weights else None,
            "mode": job.mode,
            "spread_labels": job.spread_labels,
            "self_training": job.self_training,
            "settings": asdict(outcome.settings),
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
                for entry in outcome.scores
            ],
            "missing_inputs": [_subset_data(row) for row in outcome.subsets],
            "calibration": _calibration_data(outcome.calibration) if outcome.calibration else None,
        },
        temperature=result.temperature,
        temperatures={subset_key(entry.inputs): round(entry.temperature, 6) for entry in result.subsets},
        allows_missing=prepared.data.allows_missing,
        created=creation_time(),
    )


def _calibration_data(calibration: Calibration) -> dict[str, Any]:
    return {
        "pixels": calibration.pixels,
        "blocks": calibration.blocks,
        "expected_calibration_error": round(calibration.expected_error, 4),
        "before_scaling": round(calibration.before.expected_error, 4),
        "on_pixels_of_the_fit": round(calibration.same_pixels_error, 4),
    }


def _subset_data(row: SubsetScore) -> dict[str, Any]:
    return {
        "inputs": list(row.inputs),
        "pixels": row.pixels,
        "overall_accuracy": round(row.overall_accuracy, 4),
        "macro_f1": round(row.macro_f1, 4),
        "mean_iou": round(row.mean_iou, 4),
        "temperature": round(row.temperature, 4),
    }
