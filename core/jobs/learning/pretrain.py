"""The job that trains a model on unlabelled scenes."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

import core
from core.assessment.contents import PretrainingReport
from core.assessment.report import write_pretraining_report
from core.errors import UsageError
from core.finetuning.evaluation import context_reach
from core.finetuning.networks.linear_probe import LinearProbe
from core.finetuning.training_data import TrainingData
from core.jobs.devices import choose_device, describe_device
from core.jobs.events import JobContext
from core.jobs.inputs import raster_paths, read_job_labels, scene_for_model, scene_of
from core.jobs.outputs import Staging, check_outputs, check_training_space, checkpoint_path, keeping_checkpoint
from core.jobs.provenance import creation_time, input_names, run_identity, software
from core.jobs.schemas import Inputs, PretrainJob
from core.labels.blocks import spatial_split
from core.models.architectures import title_of
from core.models.fusion_model import FusionModel
from core.models.model_file import ModelCard, load_model, save_model
from core.models.registry import build_model, count_parameters, model_step, receptive_radius
from core.models.specification import ModelSpecification
from core.models.specify import specify_for_scenes, with_inputs_of
from core.pretraining.launch import started_processes
from core.pretraining.loop import PretrainingResult, pretrain
from core.pretraining.methods import METHODS
from core.pretraining.monitors import has_collapsed
from core.pretraining.processes import joined
from core.pretraining.recipes.build import make_recipe
from core.pretraining.recipes.recipe import Recipe
from core.pretraining.scene_windows import SceneWindows
from core.pretraining.settings import PretrainingSettings
from core.scenes.scene import Scene

PROBE_FRACTION = 0.3
"""Of the labels, held out in spatial blocks."""

WEAK_DEPENDENCE = 0.02
"""Below it an input hardly moves the features, and the user is told."""


def run_pretrain(job: PretrainJob, context: JobContext) -> dict[str, Any]:
    """Runs the job; see ``core.jobs.runner``."""
    started = time.perf_counter()
    job = job.model_copy(update={"scenes": [*job.scenes, *_scenes_in_folder(job, context)]})
    inputs = [path for scene in job.scenes for path in raster_paths(scene)]
    inputs += [job.initial_model] if job.initial_model else []
    inputs += [job.labels.path] if job.labels else []
    check_outputs(job, inputs)
    device = choose_device(job.device)
    context.info(f"Device: {describe_device(device)}.")
    context.progress(0.0, "Reading the rasters")
    recipe = make_recipe(job.method, job.setting, job.switches)
    if getattr(recipe, "continual_from", "") and job.initial_model is None:
        raise UsageError(
            "continual_from keeps what a given model says of its sensor, and no model was given.",
            "Give the model to go on from, or leave 'continual_from' empty.",
        )
    model, specification, scenes = _prepare(job, recipe, context)
    settings = _settings(job, recipe, specification)
    windows = SceneWindows(scenes, specification, settings.window_size, settings.batch_size)
    with torch.random.fork_rng():
        torch.manual_seed(job.seed)
        objective = recipe.objective(model)
    heads = sum(p.numel() for p in objective.parameters() if p.requires_grad)
    context.info(f"Model: {title_of(specification)}, {count_parameters(model):,} parameters, and {heads:,} for training only.")
    context.info(
        f"{METHODS[job.method].title}: windows of {settings.window_size} pixels, {settings.batch_size} a batch, from "
        f"{len(scenes)} scene{'s' if len(scenes) > 1 else ''}."
    )
    if specification.has_circumstances:
        context.info(_days_known(scenes))
    path, checkpoint = Path(job.output_model), checkpoint_path(Path(job.output_model))
    check_training_space(path, model)
    identity = run_identity(
        [job.model_dump(), asdict(settings), specification.model_dump(), torch.get_num_threads(), started_processes()], inputs
    )
    if checkpoint.is_file():
        context.info("A training of this model was interrupted; it goes on from there, if nothing has changed since.")
    probe = _probe(job, scenes[0], specification, device, context) if job.labels else None
    with joined(device) as processes:
        if processes.count > 1:
            context.info(f"{processes.count} processes train together: each step of the optimiser takes a batch of each.")
        kept = keeping_checkpoint(checkpoint, context) if processes.is_main else nullcontext()
        with kept:
            told = context.part(0.03, 0.95)
            result = pretrain(model, objective, windows, settings, device, checkpoint, identity, told, probe)
            if not processes.is_main:
                return {}
            seconds = time.perf_counter() - started
            card = _card(job, recipe, specification, scenes, settings, result, processes.count)
            with Staging() as staging:
                if job.report:
                    with staging.writing(Path(job.report)) as temporary:
                        write_pretraining_report(temporary, _report(card, result, seconds))
                context.commit()
                save_model(path, result.model, card)
                staging.put_in_place()
    context.progress(1.0, "Done")
    _tell(result, context)
    return {
        "OUTPUT_MODEL": str(path),
        "REPORT": job.report or "",
        "EFFECTIVE_RANK": round(result.records[-1].effective_rank, 2),
        "DEVICE_USED": describe_device(device),
    }


def _scenes_in_folder(job: PretrainJob, context: JobContext) -> list[Inputs]:
    """The scenes of a folder, by the file names of the first scene.

    Raises:
        UsageError: no such folder, or none of its folders holds such a file.
    """
    if job.scenes_folder is None:
        return []
    folder, first = Path(job.scenes_folder), job.scenes[0]
    if not folder.is_dir():
        raise UsageError(f"scenes_folder: '{folder}' is no folder.", "Give a folder that holds a folder for each scene.")
    known = {Path(path).resolve() for path in raster_paths(first)}
    found = []
    for each in sorted(entry for entry in folder.iterdir() if entry.is_dir()):
        own = {
            role: [str(each / Path(path).name) for path in getattr(first, role) if (each / Path(path).name).is_file()]
            for role in ("optical", "sar", "elevation", "other")
        }
        paths = [Path(path).resolve() for files in own.values() for path in files]
        if not paths:
            context.info(f"'{each.name}' has no raster with such a name; it is not used.")
        elif not known.issuperset(paths):
            found.append(first.model_copy(update=own))
    if not found:
        names = ", ".join(Path(path).name for path in raster_paths(first))
        raise UsageError(
            f"scenes_folder: no folder in '{folder}' holds any of {names}.",
            "Name the rasters of all scenes alike: the file names of the first scene are looked for.",
        )
    return found


def _days_known(scenes: tuple[Scene, ...]) -> str:
    """Of how many rasters the day is known that the model is told."""
    dates = [source.date for scene in scenes for acquisition in scene.acquisitions for source in acquisition.files]
    known = sorted({date.isoformat() for date in dates if date is not None})
    if not known:
        return "No raster or its name says on which day it was taken; the model learns without."
    shown = ", ".join(known[:6]) + (", ..." if len(known) > 6 else "")
    return f"The day is known of {sum(date is not None for date in dates)} of {len(dates)} rasters: {shown}."


def _prepare(
    job: PretrainJob, recipe: Recipe, context: JobContext
) -> tuple[FusionModel, ModelSpecification, tuple[Scene, ...]]:
    """The model, and the scenes with its names."""
    if job.initial_model is None:
        scenes = tuple(scene_of(inputs, context) for inputs in job.scenes)
        method = METHODS[job.method]
        is_its_own = not (job.architecture or job.encoder)
        size = job.size or (method.encoder_size(job.setting) if is_its_own else None)
        architecture = job.architecture or method.architecture
        specification, scenes = specify_for_scenes(scenes, architecture, encoder=job.encoder, size=size)
        specification = recipe.specification(specification)
        if is_its_own and job.setting == "paper" and method.paper_patch:
            specification = specification.model_copy(update={"finest": method.paper_patch})
        if receptive_radius(specification) is None:
            # It is used with windows of the size that it was trained on, whole steps of the model.
            window = _whole_steps(recipe.settings(job.setting).window_size, specification)
            specification = specification.model_copy(update={"window": window})
        recipe.check(specification)
        with torch.random.fork_rng():
            torch.manual_seed(job.seed)
            return build_model(specification), specification, scenes
    if job.architecture or job.encoder or job.size:
        raise UsageError("The model to go on from brings its own architecture.", "Leave out architecture, encoder and size.")
    loaded, card = load_model(Path(job.initial_model))
    if not isinstance(loaded, FusionModel):
        kind = "none" if card.specification.estimator is None else card.specification.estimator.kind
        raise UsageError(
            f"'{job.initial_model}' holds no network to go on from but other kinds of models ({kind}).",
            "Give a network: one that was pre-trained, or fine-tuned with --mode scratch, partial, full, linear or adapters.",
        )
    found = [scene_for_model(inputs, card.specification, context, True, True) for inputs in job.scenes]
    scenes = tuple(scene for scene, _ in found)
    if any(own != found[0][1] for _, own in found):
        raise UsageError(
            "The scenes show the model other sensors or pixel sizes than each other.",
            "Go on from a model with scenes that are alike.",
        )
    specification = with_inputs_of(found[0][1], scenes)
    specification = specification.model_copy(update={"head": "embedding", "n_classes": 1, "has_shortcut": False})
    wanted = recipe.specification(specification)
    if wanted.has_circumstances and not specification.has_circumstances:
        # What is added to features can be learned at any time.
        specification = specification.model_copy(update={"has_circumstances": True})
    if wanted != specification:
        own, asked = specification.model_dump(), wanted.model_dump()
        parts = [f"{name} {asked[name]} and not {own[name]}" for name in own if own[name] != asked[name]]
        raise UsageError(
            f"The method's switches ask for other parts than '{job.initial_model}' has: {', '.join(parts)}.",
            "Set the switches to what the model has, such as geography=false, or train from scratch.",
        )
    recipe.check(specification)
    with torch.random.fork_rng():
        torch.manual_seed(job.seed)
        model = build_model(specification)
    own = {name: value for name, value in loaded.state_dict().items() if name in model.state_dict()}
    fitting = {name: value for name, value in own.items() if value.shape == model.state_dict()[name].shape}
    model.load_state_dict(fitting, strict=False)
    return model, specification, scenes


def _probe(
    job: PretrainJob, scene: Scene, specification: ModelSpecification, device: torch.device, context: JobContext
) -> LinearProbe:
    """Asks the features for the classes of labels on the first scene.

    Raises:
        RsfusionError: the labels cannot be used.
    """
    if job.labels is None:
        raise ValueError("the job has no labels")
    labels = read_job_labels(job.labels, scene.grid)
    data = TrainingData(scene, labels, context_reach(specification), allows_missing=len(specification.modalities) > 1)
    split = spatial_split(labels, scene.grid, PROBE_FRACTION, job.seed)
    context.info(
        f"{len(labels)} labels tell after each round what a linear model makes of the features, {int(split.validation.sum())} "
        "of them held out to be scored on. Nothing is trained on them."
    )
    return LinearProbe(data, split.validation, device)


def _whole_steps(size: int, specification: ModelSpecification) -> int:
    step = model_step(specification)
    return -(-size // step) * step


def _settings(job: PretrainJob, recipe: Recipe, specification: ModelSpecification) -> PretrainingSettings:
    settings = recipe.settings(job.setting)
    # A model that sees its whole window is used with windows of the size that it was trained on.
    wanted = settings.window_size if receptive_radius(specification) is not None else specification.window
    return replace(
        settings,
        window_size=_whole_steps(wanted, specification),
        epochs=job.epochs or settings.epochs,
        batch_size=job.batch_size or settings.batch_size,
        accumulation=job.accumulation,
        windows_per_epoch=job.windows or settings.windows_per_epoch,
        minutes=job.minutes,
        seed=job.seed,
    )


def _card(
    job: PretrainJob,
    recipe: Recipe,
    specification: ModelSpecification,
    scenes: tuple[Scene, ...],
    settings: PretrainingSettings,
    result: PretrainingResult,
    processes: int,
) -> ModelCard:
    # Seconds differ between two runs, and the same run is to give the same bytes: they go to the report alone.
    return ModelCard(
        software_version=core.__version__,
        specification=specification,
        resolution_m=specification.resolution_m,
        class_scheme="",
        classes=(),
        training={
            "method": job.method,
            "setting": job.setting,
            "switches": asdict(recipe),
            "source": METHODS[job.method].source,
            "scenes": [input_names(scene) for scene in scenes],
            "settings": asdict(settings),
            "steps": result.steps,
            "processes": processes,
            "initial_model": Path(job.initial_model).name if job.initial_model else None,
            "software": software(),
        },
        scores={
            "measured": "health of the features on windows of the training scenes; nothing was trained on labels",
            "epochs": [_rounded(asdict(record)) for record in result.records],
        },
        allows_missing=len(specification.modalities) > 1,
        has_trained_decoder=result.trains_decoder,
        created=creation_time(),
    )


def _report(card: ModelCard, result: PretrainingResult, seconds: float) -> PretrainingReport:
    training = card.training
    names = [sorted({name for files in scene.values() for name in files}) for scene in training["scenes"]]
    return PretrainingReport(
        title=f"Pre-training: {METHODS[training['method']].title}",
        created=card.created,
        records=result.records,
        seconds=seconds,
        lines=(
            f"{title_of(card.specification)}, {result.steps} steps on {len(names)} scene{'s' if len(names) > 1 else ''} "
            "without labels.",
            *(f"Scene {number}: {', '.join(files)}." for number, files in enumerate(names, 1)),
        ),
        warnings=tuple(_doubts(result)),
        settings={**training["settings"], **training["switches"]},
        provenance={"method": training["source"], **training["software"]},
    )


def _doubts(result: PretrainingResult) -> list[str]:
    """What the user should know before the model is built upon."""
    last = result.records[-1]
    lines = []
    if has_collapsed(last.spread, last.effective_rank):
        # A run of few epochs is over before it is stopped for that.
        lines.append(
            "The features have collapsed: at the end nearly all places look alike. Train longer, give more scenes, or choose "
            "another method."
        )
    return lines + [
        f"{name} hardly counts: the features are nearly the same whatever it shows."
        for name, value in last.dependence.items()
        if value < WEAK_DEPENDENCE and len(last.dependence) > 1
    ]


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    return round(value, 5) if isinstance(value, float) else value


def _tell(result: PretrainingResult, context: JobContext) -> None:
    last = result.records[-1]
    context.info(
        f"{result.steps} steps; features with effective rank {last.effective_rank:.1f} and spread {last.spread:.2f} "
        "(0 = all places alike, 1 = as different as can be)."
    )
    for name, value in last.dependence.items():
        context.info(f"{name}: exchanging it moves the features by {value:.0%} of their distance between windows.")
    if last.monitors:
        context.info("; ".join(f"{name} {value:.2f}" for name, value in last.monitors.items()) + ".")
    for line in _doubts(result):
        context.warning(line)
