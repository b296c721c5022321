"""What a training starts from: the scene, the labels that have data, their split, and a model."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.errors import LabelError, UsageError
from core.finetuning.estimators.candidates import KINDS
from core.finetuning.evaluation import context_reach
from core.finetuning.label_spreading import spread_labels
from core.finetuning.networks.linear_start import fit_linear_start
from core.finetuning.networks.settings import TrainedPart, TrainingSettings
from core.finetuning.networks.start import keeps_classes, start_model
from core.finetuning.training_data import TrainingData
from core.jobs.events import JobContext
from core.jobs.inputs import read_job_labels, scene_for_model, scene_of
from core.jobs.schemas import FinetuneJob
from core.labels.blocks import Split, spatial_folds, spatial_split
from core.labels.label_set import LabelSet
from core.labels.rasterizing import PixelCounts, count_pixels, finish_report
from core.labels.schemes import listed
from core.models.architectures import title_of
from core.models.fusion_model import FusionModel
from core.models.model_file import load_model
from core.models.public_weights import load_public_encoder
from core.models.registry import count_parameters
from core.models.specification import ModelSpecification
from core.models.specify import specify_model, with_classes
from core.scenes.grid import Grid
from core.scenes.scene import Scene

TRAINED_PARTS: dict[str, TrainedPart] = {"linear": "head", "partial": "last", "adapters": "adapters"}
"""What of the network each mode trains; all of it by default."""

LAYER_DECAYS = {"full": 0.8}
"""By mode, of the learning rate from part to part; none by default. It is ELECTRA's for its small and base models (Clark
et al. 2020, arXiv:2003.10555, appendix on fine-tuning). On two scenes none at all was ahead by less than the spread, see
``scripts/benchmarks/fine_tuning_modes.py``."""


@dataclass(frozen=True, eq=False)
class PreparedTraining:
    """What training starts from.

    Attributes:
        scene: with the model's inputs.
        labels: inside the scene.
        data: pixels around the labels.
        split: which labels are held out.
        fold: (n_features,) part of a cross-validation, of ``spatial_folds``.
        specification, model: of the network.
        base: the base model before its training; None without one.
        uses_decoder: whether the base model's decoder was trained.
        settings: of the training.
        label_lines: features and pixels of every class, a sentence each.
        warnings: what the user should know of the labels.
    """

    scene: Scene
    labels: LabelSet
    data: TrainingData
    split: Split
    fold: NDArray[np.int64]
    specification: ModelSpecification
    model: FusionModel
    base: FusionModel | None
    uses_decoder: bool
    settings: TrainingSettings
    label_lines: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def title(self) -> str:
        """The model's name in reports."""
        return title_of(self.specification)


def prepare_training(job: FinetuneJob, context: JobContext) -> PreparedTraining:
    """Reads what the job names and says what was found.

    Raises:
        RsfusionError: a raster, the labels or the base model cannot be used.
    """
    context.progress(0.0, "Reading the rasters and the labels")
    base = load_model(Path(job.base_model)) if job.base_model else None
    if base is not None and not isinstance(base[0], FusionModel):
        raise UsageError(
            f"The base model '{job.base_model}' is '{title_of(base[1].specification)}', which cannot be trained further.",
            "Give a model of 'Pre-train on unlabelled scenes', or one that was fine-tuned with mode 'scratch' or 'full'.",
        )
    if base is None:
        scene = scene_of(job.inputs, context)
    else:
        _check_parts(job, base[1].specification, context)
        may_lack = base[1].allows_missing and job.missing_inputs == "allow"
        scene, found = scene_for_model(job.inputs, base[1].specification, context, may_lack)
    labels, counts = _counted_labels(job, scene.grid)
    for line in _label_lines(labels):
        context.info(line)
    for remark in labels.report.remarks():
        context.warning(remark)
    if base is None:
        n_classes = len(labels.scheme)
        specification = specify_model(scene, job.architecture, n_classes, encoder=job.encoder, fusion=job.fusion, size=job.size)
    else:
        specification = with_classes(found, len(labels.scheme))
    settings = settings_for(job, job.mode, len(labels))
    data = TrainingData(
        scene,
        labels,
        max(settings.window_size, context_reach(specification)),
        lambda part: context.progress(0.02 + 0.06 * part, "Reading the surroundings of the labels"),
        job.missing_inputs == "allow" and len(specification.modalities) > 1,
    )
    with_data, gaps = _only_with_data(data, labels, counts)
    for gap in gaps:
        context.warning(gap)
    _check_two_classes(with_data, labels, data.allows_missing)
    split = spatial_split(labels, scene.grid, job.validation_fraction, job.seed, job.block_size, with_data)
    for note in split.notes:
        context.info(note)
    if job.spread_labels:
        data = _with_spread(data, specification, split, context)
    model = start_model(specification, job.seed, base, labels.scheme)
    if job.mode not in KINDS:
        if specification.has_shortcut and not keeps_classes(base, labels.scheme):
            fit_linear_start(model, specification, data, ~split.validation)
        context.info(f"Model: {title_of(specification)}, {count_parameters(model):,} parameters.")
    if job.encoder_weights:
        _load_encoder(model, job, context)
    warnings = (*labels.report.remarks(), *gaps)
    before = copy.deepcopy(model) if base is not None else None
    return PreparedTraining(
        scene,
        labels,
        data,
        split,
        spatial_folds(labels, split, job.seed, with_data),
        specification,
        model,
        before,
        base is not None and base[1].has_trained_decoder,
        settings,
        tuple(_label_lines(labels)),
        warnings,
    )


def _with_spread(data: TrainingData, specification: ModelSpecification, split: Split, context: JobContext) -> TrainingData:
    spread = spread_labels(data, specification, split.block)
    context.info(
        f"{len(spread)} pixels beside {len(data.pixels)} drawn ones take the class of their super-pixel, and count "
        f"{spread.weights.sum():.0f} pixels' worth."
    )
    return data.with_spread(spread)


def _load_encoder(model: FusionModel, job: FinetuneJob, context: JobContext) -> None:
    """Fills the encoders with a public encoder's weights, and says what became of them.

    Raises:
        ModelFileError: the weights do not fit.
    """
    loaded = load_public_encoder(model, Path(job.encoder_weights or ""), job.encoder_keys)
    context.info(
        f"From '{job.encoder_weights}': {len(loaded.loaded)} weights of the encoder; {len(loaded.fresh)} of its own start "
        f"afresh, {len(loaded.dropped)} of the file are not used."
    )
    for name, channels in loaded.bands.items():
        meant = ", ".join(band for band, channel in channels.items() if channel is None)
        if meant:
            context.info(f"{name}: no channel of the public encoder sees what these bands see, and they start alike: {meant}.")
    if not loaded.bands:
        context.warning(
            "None of the inputs could take the public encoder's first layer: choose an architecture with kernels "
            "for each sensor, such as resnet_intermediate or vit_joint_tokens."
        )


def _check_parts(job: FinetuneJob, base: ModelSpecification, context: JobContext) -> None:
    """A base model brings its own parts: weights of others cannot be made from its own.

    Raises:
        UsageError: a part was asked for that the base model does not have.
    """
    asked = {"encoder": job.encoder, "fusion": job.fusion, "size": job.size}
    wrong = [f"{part} '{wanted}'" for part, wanted in asked.items() if wanted not in (None, getattr(base, part))]
    if wrong:
        raise UsageError(
            f"Asked for were {', '.join(wrong)}, and the base model '{job.base_model}' has encoder '{base.encoder}', fusion "
            f"'{base.fusion}', size '{base.size}'.",
            "A base model keeps its parts: leave these choices out, or train without a base model.",
        )
    if job.architecture != base.architecture:
        # The default may not have been chosen at all.
        is_default = job.architecture == FinetuneJob.model_fields["architecture"].default
        tell = context.info if is_default else context.warning
        tell(f"The architecture is that of the base model, {title_of(base)}; '{job.architecture}' is not used.")


def _counted_labels(job: FinetuneJob, grid: Grid) -> tuple[LabelSet, PixelCounts]:
    labels = read_job_labels(job.labels, grid)
    counts = count_pixels(labels, grid)
    return replace(labels, report=finish_report(labels, counts)), counts


def _label_lines(labels: LabelSet) -> list[str]:
    report = labels.report
    lines = [f"{report.features_used} of {report.features_read} features are used."]
    for name, features, pixels in zip(labels.scheme.names, report.features_per_class, report.pixels_per_class, strict=True):
        lines.append(f"{name}: {features} features, {pixels} pixels.")
    return lines


def settings_for(job: FinetuneJob, mode: str, n_features: int) -> TrainingSettings:
    """Of the training of a network.

    Args:
        job: that asks for it.
        mode: what is trained: the job's, or one that it tries.
        n_features: that are labelled.
    """
    defaults = TrainingSettings()
    windows = defaults.windows_for(n_features)
    part = TRAINED_PARTS.get(mode, "all")
    return replace(
        defaults,
        epochs=job.epochs,
        seed=job.seed,
        windows_per_epoch=windows,
        trained_part=part,
        layer_decay=LAYER_DECAYS.get(mode, defaults.layer_decay),
        consistency=job.consistency,
    )


def _only_with_data(data: TrainingData, labels: LabelSet, counts: PixelCounts) -> tuple[PixelCounts, list[str]]:
    """The counts of the labelled pixels that can be learned from, and what to say of the others.

    The split has to know: labels held out where a raster has a gap would leave nothing to validate on.
    """
    features = np.bincount(data.pixels[:, 3], minlength=len(labels))
    classes = np.bincount(data.pixels[:, 2], minlength=len(labels.scheme))
    labelled = int(counts.features.sum())
    names = labels.scheme.names
    without = [names[index] for index in np.flatnonzero((classes == 0) & (counts.classes > 0))]
    where = "no raster that shows the ground has data" if data.allows_missing else "a raster has no data"
    gaps = []
    if len(data.pixels) < labelled:
        gaps.append(f"{labelled - len(data.pixels)} of {labelled} labelled pixels lie where {where}; they are ignored.")
    if without:
        gaps.append(f"Classes whose labels all lie there, so that they are not trained: {listed(without)}.")
    return replace(counts, features=features, classes=classes), gaps


def _check_two_classes(with_data: PixelCounts, labels: LabelSet, allows_missing: bool) -> None:
    if np.count_nonzero(with_data.classes) < 2:
        only = labels.scheme.names[int(with_data.classes.argmax())]
        where = "any raster that shows the ground has" if allows_missing else "every raster has"
        raise LabelError(
            f"Only the labels of '{only}' lie where {where} data.",
            "Draw labels of at least two classes where all rasters overlap, or leave out the raster that covers too little.",
        )
