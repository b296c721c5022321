"""The job that makes a model of half the width which says what a given one says."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import core
from core.assessment.confusion import accuracy, confusion_matrix
from core.errors import ModelFileError, RasterError, UsageError
from core.jobs.devices import choose_device, describe_device
from core.jobs.events import JobContext
from core.jobs.inputs import raster_paths, scene_for_model
from core.jobs.outputs import check_outputs, check_training_space, checkpoint_path, keeping_checkpoint
from core.jobs.provenance import creation_time, input_names, run_identity, software
from core.jobs.schemas import DistilJob
from core.mapping.engine import MappingEngine
from core.models.architectures import title_of
from core.models.fusion_model import FusionModel
from core.models.model_file import ModelCard, file_digest, load_model, load_novelty, save_model
from core.models.registry import build_model, count_parameters, model_step, receptive_radius
from core.models.specification import ModelSpecification
from core.models.specify import with_half_width
from core.pretraining.loop import PretrainingResult, pretrain
from core.pretraining.objectives.distillation import Distillation
from core.pretraining.scene_windows import SceneWindows
from core.pretraining.settings import PretrainingSettings
from core.scenes.division import divided
from core.scenes.grid import Window, aligned
from core.scenes.reading import SceneReader, usable_pixels
from core.scenes.scene import Scene

HELD_OUT = 0.2
"""Part of the scene, along its longer side, that nothing is learned on: there the two models are compared."""

MOST_COMPARED = 1024
"""Side in pixels of the largest part that is compared."""

WELL_COVERED = 0.5
"""Part of the ground that is compared which has to be mapped."""

FEW_ALIKE = 0.95
"""Part of the pixels with the same class below which the user is warned."""

BATCH_SIZE = 4
LEARNING_RATE = 2e-3


@dataclass(frozen=True)
class Comparison:
    """What two models say of the same ground.

    Attributes:
        confusion: (n_classes, n_classes), the second's classes in rows, the first's in columns.
        speed: megapixels a second of the first, and of the second.
        is_apart: whether nothing was learned on that ground.
    """

    confusion: NDArray[np.int64]
    speed: tuple[float, float]
    is_apart: bool

    @property
    def alike(self) -> float:
        """Part of the pixels with the same class."""
        return float(np.trace(self.confusion) / self.confusion.sum())


def run_distil(job: DistilJob, context: JobContext) -> dict[str, Any]:
    """Runs the job; see ``core.jobs.runner``."""
    inputs = [*raster_paths(job.inputs), job.model]
    check_outputs(job, inputs)
    device = choose_device(job.device)
    context.info(f"Device: {describe_device(device)}.")
    context.progress(0.0, "Reading the model and the rasters")
    loaded, card = load_model(Path(job.model))
    teacher = _teacher(loaded, card, job.model)
    half = with_half_width(card.specification)
    # All inputs have to be shown: what is never seen is never learned.
    scene, seen = scene_for_model(job.inputs, card.specification, context)
    if seen != card.specification:
        raise UsageError(
            "These rasters are of other sensors or another pixel size than the model was trained on.",
            "Give rasters like those of its training.",
        )
    student = _student(half, teacher, job.seed)
    settings = _settings(job, half)
    parts = divided(scene, HELD_OUT, settings.window_size)
    learned, kept = parts or (scene, scene)
    window = _compared_window(kept, card.allows_missing)
    context.info(
        f"Model: {title_of(half)} of half the width, {count_parameters(student):,} parameters in place of "
        f"{count_parameters(teacher):,}."
    )
    windows = SceneWindows([learned], half, settings.window_size, settings.batch_size)
    path, checkpoint = Path(job.output_model), checkpoint_path(Path(job.output_model))
    check_training_space(path, student)
    identity = run_identity([job.model_dump(), asdict(settings), half.model_dump(), torch.get_num_threads()], inputs)
    if checkpoint.is_file():
        context.info("A training of this model was interrupted; it goes on from there, if nothing has changed since.")
    with keeping_checkpoint(checkpoint, context):
        objective = Distillation(teacher, card.temperature, card.allows_missing)
        told = context.part(0.03, 0.9)
        result = pretrain(student, objective, windows, settings, device, checkpoint, identity, told)
        context.progress(0.9, "Comparing the two models")
        new = _card(job, card, half, scene, settings, result)
        comparison = _compare([(teacher, card), (result.model, new)], kept, window, parts is not None, device, context)
        new = new.model_copy(update={"scores": _scores(comparison, new, Path(job.model).name)})
        context.commit()
        save_model(path, result.model, new, load_novelty(Path(job.model), card))
    context.progress(1.0, "Done")
    _tell(comparison, context)
    return {
        "OUTPUT_MODEL": str(path),
        "AGREEMENT": round(comparison.alike, 4),
        "SPEED_RATIO": round(comparison.speed[1] / comparison.speed[0], 2),
        "DEVICE_USED": describe_device(device),
    }


def _teacher(model: torch.nn.Module, card: ModelCard, path: str) -> FusionModel:
    """Raises:
    ModelFileError: no network of pixels with classes.
    """
    if not isinstance(model, FusionModel) or card.specification.head != "dense" or not card.classes:
        raise ModelFileError(
            f"'{path}' is no network that maps pixels to classes; only such a network can be distilled.",
            "Forests and regressions are small already. Train a network with --mode scratch.",
        )
    if model.is_linear:
        raise ModelFileError(
            f"'{path}' is a linear model: its network was no better on the held-out labels, and says nothing.",
            "Map with it as it is; it is as fast as it can be.",
        )
    return model


def _student(half: ModelSpecification, teacher: FusionModel, seed: int) -> FusionModel:
    """A network of half the width with the teacher's linear models, which see the rasters' statistics alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        student = build_model(half)
    if student.linear is not None and teacher.linear is not None:
        student.linear.load_state_dict(teacher.linear.state_dict())
    return student


def _settings(job: DistilJob, half: ModelSpecification) -> PretrainingSettings:
    step = model_step(half)
    side = 128 if receptive_radius(half) is not None else half.window
    return PretrainingSettings(
        epochs=job.epochs,
        minutes=job.minutes,
        windows_per_epoch=job.windows,
        batch_size=BATCH_SIZE,
        window_size=-(-side // step) * step,
        learning_rate=LEARNING_RATE,
        weight_decay=0.0,
        seed=job.seed,
    )


def _compared_window(scene: Scene, allows_missing: bool) -> Window:
    """A part of a scene that is for the most part mapped, else the best; it is looked for before anything is learned.

    Raises:
        RasterError: there is none.
    """
    best, share = None, 0.0
    with SceneReader(scene) as reader:
        for piece in scene.grid.window.pieces(MOST_COMPARED):
            values = reader.read(aligned(scene.grid, piece, scene.step))
            found = float(usable_pixels(values, scene.acquisitions, allows_missing=allows_missing).mean())
            if found > share:
                best, share = piece, found
            if found >= WELL_COVERED:
                break
    if best is None:
        raise RasterError(
            "The part of the scene that the two models are to be compared on has no data.", "Give rasters that cover the scene."
        )
    return best


def _compare(
    models: list[tuple[FusionModel, ModelCard]],
    scene: Scene,
    window: Window,
    is_apart: bool,
    device: torch.device,
    context: JobContext,
) -> Comparison:
    """Maps the same ground with two models."""
    engines = [MappingEngine(model.to(device).eval(), card, scene, device) for model, card in models]
    for _ in engines[1].strips(window):  # so that both find the rasters read
        context.check_cancelled()
    found, speeds = [], []
    for number, engine in enumerate(engines):
        context.progress(0.92 + 0.04 * number, f"Mapping with the {('large', 'small')[number]} model")
        started = time.perf_counter()
        found.append([(strip.likeliest[0], strip.mapped) for strip in engine.strips(window)])
        speeds.append(window.width * window.height / 1e6 / (time.perf_counter() - started))
    n_classes = len(models[0][1].classes)
    counts = np.zeros((n_classes, n_classes), np.int64)
    for (first, is_mapped), (second, _) in zip(*found, strict=True):
        counts += confusion_matrix(second[is_mapped], first[is_mapped], n_classes)
    return Comparison(counts, (speeds[0], speeds[1]), is_apart)


def _card(
    job: DistilJob,
    card: ModelCard,
    half: ModelSpecification,
    scene: Scene,
    settings: PretrainingSettings,
    result: PretrainingResult,
) -> ModelCard:
    training = {
        "distilled_from": Path(job.model).name,
        "distilled_from_sha256": file_digest(Path(job.model)),
        "source": "Hinton et al. 2015, arXiv:1503.02531",
        "inputs": input_names(scene),
        "settings": asdict(settings),
        "steps": result.steps,
        "teacher": card.training,
        "software": software(),
    }
    changed = {"specification": half, "software_version": core.__version__, "created": creation_time(), "training": training}
    return card.model_copy(update=changed)


def _scores(comparison: Comparison, card: ModelCard, name: str) -> dict[str, Any]:
    # Speeds differ between two runs, and the same run is to give the same bytes: they are told, and not written.
    told = accuracy(comparison.confusion, card.scheme.names)
    return {
        "measured": f"how far its map is that of the model it was distilled from, on {_ground(comparison)}. That is no "
        "accuracy: assess the map, or ask the labels again",
        "models": [
            {
                "name": f"agreement with {name}",
                "overall_accuracy": round(told.overall_accuracy, 4),
                "macro_f1": round(told.macro_f1, 4),
                "mean_iou": round(told.mean_iou, 4),
            }
        ],
    }


def _ground(comparison: Comparison) -> str:
    return (
        "ground that it did not learn on"
        if comparison.is_apart
        else "the ground that it learned on, which is too small to divide"
    )


def _tell(comparison: Comparison, context: JobContext) -> None:
    first, second = comparison.speed
    context.info(
        f"{comparison.alike:.1%} of {int(comparison.confusion.sum())} pixels get the same class, on {_ground(comparison)}; "
        f"{second:.3g} megapixels a second in place of {first:.3g}."
    )
    if comparison.alike < FEW_ALIKE:
        context.warning(
            "The small model often says something else than the large one. Train it for more epochs, or on more ground, or "
            "stay with the large one."
        )
