"""From a job's inputs to a scene."""

from __future__ import annotations

from collections.abc import Mapping

from core.errors import SensorError
from core.jobs.events import JobContext
from core.jobs.schemas import Inputs
from core.models.specification import ModelSpecification
from core.scenes.scene import Scene, SceneRequest, build_scene, select
from core.sensors import Role


def scene_of(inputs: Inputs, context: JobContext, sensors: Mapping[Role, str] | None = None) -> Scene:
    """The scene that the inputs make; what was found out about them goes to the user.

    Args:
        inputs: of the job.
        context: to speak to.
        sensors: takes the place of ``auto``, by role.
    """
    wanted: dict[Role, str] = {
        "optical": inputs.optical_sensor,
        "sar": inputs.sar_sensor,
        "elevation": inputs.elevation_sensor,
        "other": inputs.other_sensor,
    }
    for role, sensor in (sensors or {}).items():
        if wanted[role] == "auto":
            wanted[role] = sensor
    scene = build_scene(
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
    for note in scene.notes:
        context.info(note)
    for warning in scene.warnings:
        context.warning(warning)
    grid = scene.grid
    context.info(f"Map grid: {grid.width} x {grid.height} pixels of {grid.resolution_m():.3g} m.")
    return scene


def scene_for_model(inputs: Inputs, specification: ModelSpecification, context: JobContext) -> Scene:
    """The scene with the model's inputs, bands and scales.

    Where a raster does not say what it is, the model's own sensor for that input is tried.

    Raises:
        SensorError: the model needs what the rasters lack.
    """
    try:
        scene = scene_of(inputs, context)
    except SensorError:
        known: dict[Role, list[str]] = {}
        for modality in specification.modalities:
            known.setdefault(modality.role, []).append(modality.sensor)
        scene = scene_of(inputs, context, {role: names[0] for role, names in known.items() if len(names) == 1})
    needed = [
        (modality.name, modality.role, modality.sensor, modality.band_names, modality.scale)
        for modality in specification.modalities
    ]
    return select(scene, needed)
