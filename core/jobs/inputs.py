"""From a job's inputs to a scene."""

from __future__ import annotations

from collections.abc import Mapping

from core.errors import SensorError
from core.jobs.events import JobContext
from core.jobs.schemas import Inputs, Labels
from core.labels.label_set import LabelSet
from core.labels.reading import read_labels
from core.labels.scheme import ClassScheme
from core.labels.style import entries_for
from core.models.specification import ModelSpecification
from core.models.specify import specify_for_other_sensors
from core.scenes.grid import Grid
from core.scenes.scene import Scene, SceneRequest, build_scene, select
from core.sensors import Role


def raster_paths(inputs: Inputs) -> list[str]:
    """The paths of all rasters, role by role."""
    return [*inputs.optical, *inputs.sar, *inputs.elevation, *inputs.other]


def read_job_labels(
    labels: Labels, grid: Grid, scheme: ClassScheme | None = None, *, extends: bool = False, fewest_classes: int = 2
) -> LabelSet:
    """The labels of a job: names and colours from the job, else from the style kept with the file.

    Args:
        labels: of the job.
        grid: of the scene.
        scheme: classes that are fixed already; style and class scheme do not count then.
        extends, fewest_classes: see ``read_labels``.
    """
    entries = labels.classes or entries_for(labels.path, labels.layer, labels.class_field)
    return read_labels(
        labels.path,
        labels.class_field,
        grid,
        layer=labels.layer,
        entries=entries,
        class_scheme=labels.class_scheme,
        scheme=scheme,
        extends=extends,
        fewest_classes=fewest_classes,
    )


def scene_of(inputs: Inputs, context: JobContext) -> Scene:
    """The scene that the inputs make; what was found out about them goes to the user.

    Raises:
        RsfusionError: a raster cannot be used, or the resolution is far from that of all rasters.
    """
    return _told(_read_scene(inputs, {}), context)


def _read_scene(inputs: Inputs, sensors: Mapping[Role, str]) -> Scene:
    """The scene; ``sensors`` take the place of ``auto``, by role."""
    wanted: dict[Role, str] = {
        "optical": inputs.optical_sensor,
        "sar": inputs.sar_sensor,
        "elevation": inputs.elevation_sensor,
        "other": inputs.other_sensor,
    }
    wanted |= {role: sensor for role, sensor in sensors.items() if wanted[role] == "auto"}
    return build_scene(
        SceneRequest(
            paths={
                "optical": inputs.optical,
                "sar": inputs.sar,
                "elevation": inputs.elevation,
                "other": inputs.other,
            },
            sensors=wanted,
            resolution=inputs.resolution,
            sentinel2_offset=inputs.sentinel2_offset,
        )
    )


def _told(scene: Scene, context: JobContext) -> Scene:
    for note in scene.notes:
        context.info(note)
    for warning in scene.warnings:
        context.warning(warning)
    grid = scene.grid
    context.info(f"Map grid: {grid.width} x {grid.height} pixels of {grid.resolution_m():.3g} m.")
    return scene


def scene_for_model(
    inputs: Inputs,
    specification: ModelSpecification,
    context: JobContext,
    allows_missing: bool = False,
    keeps_others: bool = False,
) -> tuple[Scene, ModelSpecification]:
    """The scene with the model's inputs, bands and scales; and the model's specification for these inputs.

    Where a raster does not say what it is, the model's own sensor for that input is tried. The specification is the
    model's own, but for models that take other sensors than those of their training. ``keeps_others`` leaves further
    rasters in the scene, which the specification does not know.

    Raises:
        SensorError: the model needs what the rasters lack.
    """
    try:
        scene = _read_scene(inputs, {})
    except SensorError:
        known: dict[Role, list[str]] = {}
        for modality in specification.modalities:
            known.setdefault(modality.role, []).append(modality.sensor)
        scene = _read_scene(inputs, {role: names[0] for role, names in known.items() if len(names) == 1})
    # An estimator knows the bands that it was fitted on, whatever the network beside it could take.
    if specification.stem == "generated" and specification.estimator is None:
        own, specification = specification, specify_for_other_sensors(specification, scene)
        for before, after in zip(own.modalities, specification.modalities, strict=True):
            if before != after:
                context.info(
                    f"In place of {before.sensor} ({', '.join(before.band_names)}) the model sees {after.sensor} "
                    f"({', '.join(after.band_names)}), through kernels for their wavelengths."
                )
    if specification.stem == "generated" or specification.encoder == "vit":
        # Kernels and positions are made for metres, and need no weights of their own for another pixel size.
        specification = specification.model_copy(update={"resolution_m": round(scene.grid.resolution_m(), 6)})
    needed = [
        (modality.name, modality.role, modality.sensor, modality.band_names, modality.scale)
        for modality in specification.modalities
    ]
    return _told(select(scene, needed, allows_missing, keeps_others), context), specification
