"""The job that gives polygons or grid cells the classes that they have as wholes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import core
from core.assessment.contents import SceneReport
from core.assessment.report import write_scene_report
from core.assessment.scene_scores import given_classes
from core.errors import ModelFileError, RasterError
from core.jobs.devices import choose_device, describe_device
from core.jobs.events import JobContext
from core.jobs.inputs import raster_paths
from core.jobs.mapping.preparation import RESOLUTION_TOLERANCE, window_of
from core.jobs.models.inputs import model_on_scene
from core.jobs.outputs import Staging, check_outputs
from core.jobs.provenance import creation_time, input_names, software
from core.jobs.scenes.training import TrainedScenes, start_scenes, train_scenes
from core.jobs.schemas import ClassifyScenesJob
from core.labels.scene_labels import Units, grid_units, read_units, touching_extent
from core.mapping.unit_descriptors import describe_units
from core.mapping.unit_layer import unit_table, write_units
from core.models.architectures import title_of
from core.models.model_file import ModelCard, class_cards, file_digest, load_model, save_model
from core.models.scene_model import SceneModel
from core.scenes.categorical import style_path
from core.scenes.scene import Scene


def run_classify_scenes(job: ClassifyScenesJob, context: JobContext) -> dict[str, Any]:
    """Runs the job; see ``core.jobs.runner``."""
    given = [job.training.path if job.training else None, job.units, job.base_model, job.model]
    check_outputs(job, [*raster_paths(job.inputs), *filter(None, given)])
    device = choose_device(job.device)
    context.progress(0.0, "Reading the rasters and the polygons")
    trained: TrainedScenes | None = None
    if job.training is not None:
        start = start_scenes(job, job.training, context)
        scene, model, allows_missing = start.scene, start.model, start.allows_missing
    else:
        scene, model, card = _given(job, Path(job.model or ""), context)
        allows_missing = card.allows_missing
    units = _units(job, scene, context)
    described = describe_units(model, scene, units, device, context.part(0.02, 0.3), allows_missing)
    known = described.pixels > 0
    if not known.any():
        raise RasterError("Nothing was classified: no unit has data.", "Check nodata values, the units and the extent.")
    if job.training is not None:
        training = describe_units(model, scene, start.labels.units, device, context.part(0.3, 0.6), allows_missing)
        trained = train_scenes(job, start, training, described.rows[known], context)
        model, card = trained.model, trained.card
        _tell(trained, context)
    shares = np.full((len(units), len(card.scheme)), np.nan)
    shares[known] = model.probabilities(described.rows[known])
    threshold = float(model.threshold) if model.is_multi_label else None
    classes = given_classes(np.nan_to_num(shares), threshold) & known[:, None]
    table = unit_table(units, card.scheme, shares, described.valid_share, classes if model.is_multi_label else None)
    context.info(f"{int(known.sum())} of {len(units)} units were classified by {title_of(card.specification)}.")
    counts = (*classes.sum(axis=0).tolist(), int((~known).sum()))
    _write(job, context, scene, card, units, table, trained, counts)
    context.progress(1.0, "Done")
    scores = trained.scores if trained else None
    return {
        "OUTPUT": job.output,
        "OUTPUT_MODEL": job.output_model or "",
        "REPORT": (job.report or "") if trained else "",
        "CLASSIFIER_USED": title_of(card.specification),
        "TOP1": round(scores.top1, 4) if scores else "",
        "TOP3": round(scores.top3, 4) if scores else "",
        "MACRO_F1": round(scores.macro_f1, 4) if scores else "",
        "MAP": round(scores.mean_average_precision, 4) if scores else "",
        "VALIDATION_UNITS": scores.n_units if scores else "",
        "DEVICE_USED": describe_device(device),
    }


def _given(job: ClassifyScenesJob, path: Path, context: JobContext) -> tuple[Scene, SceneModel, ModelCard]:
    """The scene with the inputs of a model that was given, and the model."""
    loaded, card = load_model(path)
    scene: Scene | None = None
    if isinstance(loaded, SceneModel):
        scene, loaded, card = model_on_scene(loaded, card, job.inputs, context, card.allows_missing)
    if scene is None or not isinstance(loaded, SceneModel):
        raise ModelFileError(
            f"The model '{path}' is '{title_of(card.specification)}', which says nothing of whole scenes.",
            "Give a model that 'Classify scenes' has written; others can be its base model.",
        )
    ratio = scene.grid.resolution_m() / card.resolution_m
    if not 1 / RESOLUTION_TOLERANCE < ratio < RESOLUTION_TOLERANCE:
        context.warning(
            f"The scene's pixels are {scene.grid.resolution_m():.3g} m and those of the model's training "
            f"{card.resolution_m:.3g} m: spreads and quantiles of other pixels are not the same. Set the resolution to that "
            "of the training."
        )
    return scene, loaded, card


def _units(job: ClassifyScenesJob, scene: Scene, context: JobContext) -> Units:
    """What is to be classified: polygons that touch the extent, or cells."""
    window = scene.grid.window if job.extent is None else window_of(job.extent, scene.grid)
    if job.units is None:
        return grid_units(scene.grid, window, job.cell_size)
    units, remarks = read_units(job.units, scene.grid)
    for remark in remarks:
        context.warning(remark)
    return units if job.extent is None else touching_extent(units, scene.grid, window)


def _tell(trained: TrainedScenes, context: JobContext) -> None:
    for note in trained.notes:
        context.info(note)
    for warning in trained.warnings:
        context.warning(warning)
    for row in trained.candidates:
        context.info(
            f"{row.name}: log loss {row.log_loss:.3f}, mean average precision {row.mean_average_precision:.3f} in the "
            f"cross-validation{'; used' if row.is_chosen else ''}."
        )
    scores = trained.scores
    context.info(
        f"Held out, {scores.n_units} polygons: top-1 {scores.top1:.3f}, top-3 {scores.top3:.3f}, macro F1 "
        f"{scores.macro_f1:.3f}, mean average precision {scores.mean_average_precision:.3f}."
    )


def _write(
    job: ClassifyScenesJob,
    context: JobContext,
    scene: Scene,
    card: ModelCard,
    units: Units,
    table: dict[str, Any],
    trained: TrainedScenes | None,
    counts: tuple[int, ...],
) -> None:
    """Writes layer, style, report and model, and puts them in place together."""
    context.progress(0.96, "Writing the layer")
    output = Path(job.output)
    with Staging() as staging:
        with staging.writing(output) as temporary:
            staging.add(style_path(temporary), style_path(output))
            write_units(temporary, output.stem, units, table, card.scheme, _tags(job, card, scene), creation_time())
        if job.report and trained is not None:
            with staging.writing(Path(job.report)) as temporary:
                write_scene_report(temporary, _report(job, scene, trained, counts))
        elif job.report:
            context.warning("No report is written: it tells of a training, and a model was given.")
        context.commit()
        if job.output_model and trained is not None:
            save_model(Path(job.output_model), trained.model, card)
        staging.put_in_place()


def _tags(job: ClassifyScenesJob, card: ModelCard, scene: Scene) -> dict[str, str]:
    settings = job.model_dump(
        include={"multi_label", "extent", "cell_size", "seed", "validation_fraction"}
        if job.training
        else {"extent", "cell_size"}
    )
    tags = {
        "RSFUSION_VERSION": core.__version__,
        "RSFUSION_CREATED": creation_time(),
        "RSFUSION_INPUTS": json.dumps(input_names(scene)),
        "RSFUSION_SETTINGS": json.dumps(settings),
        "RSFUSION_CLASSES": json.dumps([entry.model_dump() for entry in class_cards(card.scheme)]),
    }
    if job.training is not None:
        tags["RSFUSION_LABELS"] = Path(job.training.path).name
    for key, path in (("MODEL", job.model), ("BASE_MODEL", job.base_model)):
        if path:
            tags |= {f"RSFUSION_{key}": Path(path).name, f"RSFUSION_{key}_SHA256": file_digest(Path(path))}
    return tags


def _report(job: ClassifyScenesJob, scene: Scene, trained: TrainedScenes, counts: tuple[int, ...]) -> SceneReport:
    training: NDArray[np.int64] = trained.labels.classes[~trained.split.validation].sum(axis=0)
    settings: dict[str, Any] = {
        "validation fraction": job.validation_fraction,
        "seed": job.seed,
        "units": Path(job.units).name if job.units else f"cells of {job.cell_size or 'the default size'}",
        "base model": Path(job.base_model).name if job.base_model else "none",
        "several classes": "yes" if trained.labels.is_multi_label else "no",
    }
    return SceneReport(
        title=f"Scenes of {Path(job.output).name}",
        created=creation_time(),
        lines=trained.notes,
        scores=trained.scores,
        candidates=trained.candidates,
        scheme=trained.labels.scheme,
        is_multi_label=trained.labels.is_multi_label,
        threshold=trained.threshold,
        n_training=tuple(training.tolist()),
        confusion=trained.confusion,
        units=counts,
        warnings=trained.warnings,
        settings=settings,
        provenance={
            **{name: ", ".join(files) for name, files in input_names(scene).items()},
            "training": Path(job.training.path).name if job.training else "",
            **software(),
        },
    )
