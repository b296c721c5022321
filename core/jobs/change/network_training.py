"""From a job and what estimators say to a trained network of change."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import shapely
import torch
from numpy.typing import NDArray

from core.errors import UsageError
from core.finetuning.change.estimators import ChangeCandidate, LabelledChange
from core.finetuning.change.network import ChangeNetwork, prepare_change_network, train_change_network
from core.jobs.devices import choose_device, describe_device
from core.jobs.events import JobContext
from core.jobs.inputs import raster_paths
from core.jobs.outputs import checkpoint_path
from core.jobs.provenance import run_identity
from core.jobs.schemas import DetectChangeJob
from core.labels.blocks import Split
from core.labels.label_set import LabelSet
from core.models.alteration import Alteration
from core.models.architectures import title_of
from core.models.fusion_model import FusionModel
from core.models.model_file import ModelCard, load_model
from core.models.registry import count_parameters
from core.scenes.date_pair import DatePair


def base_of(job: DetectChangeJob) -> tuple[FusionModel, ModelCard] | None:
    """The base model of a job, if it has one.

    Raises:
        UsageError: it is no network.
        ModelFileError: it cannot be read.
    """
    if job.base_model is None:
        return None
    model, card = load_model(Path(job.base_model))
    if not isinstance(model, FusionModel):
        raise UsageError(
            f"The base model '{job.base_model}' is '{title_of(card.specification)}', which has no network to start from.",
            "Give a model of 'Pre-train on unlabelled scenes', or one that was fine-tuned with mode 'scratch' or 'full'.",
        )
    return model, card


def trained_network(
    job: DetectChangeJob,
    base: tuple[FusionModel, ModelCard] | None,
    pair: DatePair,
    alteration: Alteration,
    labels: LabelSet,
    split: Split,
    fold: NDArray[np.int64],
    labelled: LabelledChange,
    candidates: Sequence[ChangeCandidate],
    context: JobContext,
) -> ChangeNetwork:
    """Trains a network beside the estimators.

    Args:
        job: that asks for it.
        base: of ``base_of``.
        pair: the two dates.
        alteration: fitted on them.
        labels: of change.
        split, fold: which labels are held out, and the parts of the estimators' cross-validation.
        labelled: what the estimators have learned from.
        candidates: what they say in their cross-validation, the vote first.
        context: of the job.
    """
    device = choose_device(job.device)
    prepared = prepare_change_network(pair, alteration, labels, base, job.epochs, job.seed, context.part(0.42, 0.44))
    for note in prepared.pair.before.notes[len(pair.before.notes) :]:
        context.info(note)
    context.info(
        f"Network: {prepared.name}, {count_parameters(prepared.model):,} parameters, on {describe_device(device)}; its weights "
        + (f"start from '{job.base_model}'." if job.base_model else "start from nothing.")
    )
    return train_change_network(
        prepared,
        split.validation,
        labelled,
        candidates,
        fold,
        device,
        checkpoint_path(Path(job.output)),
        _identity(job, labels, asdict(prepared.settings)),
        context.part(0.44, 0.54),
    )


def _identity(job: DetectChangeJob, labels: LabelSet, settings: dict[str, object]) -> str:
    shapes = hashlib.sha256(b"".join(shapely.to_wkb(labels.geometries))).hexdigest()
    inputs = [*raster_paths(job.inputs), *raster_paths(job.after_inputs), *filter(None, [job.base_model])]
    parts = [job.model_dump(), settings, shapes, labels.class_index.tolist(), torch.get_num_threads()]
    return run_identity(parts, inputs)
