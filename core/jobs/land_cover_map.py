"""The job that maps a scene with a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyproj.exceptions import CRSError

import core
from core.errors import ModelFileError, RasterError, UsageError
from core.jobs.devices import choose_device, describe_device
from core.jobs.events import JobContext
from core.jobs.inputs import raster_paths
from core.jobs.map_assembly import MapAssembly, assembly_bytes, runs_of
from core.jobs.map_layers import Layer, layers_of, stage_sidecars
from core.jobs.model_inputs import model_on_scene, required_novelty
from core.jobs.outputs import Staging, check_outputs, keeping_strips, remove_half_done
from core.jobs.pace import Pace
from core.jobs.provenance import creation_time, file_state, input_names, software
from core.jobs.schemas import MAP_LAYERS, Extent, MapJob
from core.labels.scheme import NODATA_CODE
from core.mapping.area import PolygonMask, extent_window
from core.mapping.engine import MappingEngine
from core.mapping.journal import StripJournal
from core.mapping.sidecars import ClassAreas
from core.models.model_file import ModelCard, class_cards, file_digest, load_model
from core.scenes.grid import Bounds, Grid, Window, parsed_crs
from core.scenes.scene import Scene

RESOLUTION_TOLERANCE = 1.25
"""A scene this many times finer or coarser than the training scene is mapped with a warning."""

MAP_BYTES = 540 * 2**20
"""Wider maps are made in several parts side by side, so that they need no more memory than this above the model, where one
column of tiles needs no more."""


def run_map(job: MapJob, context: JobContext) -> dict[str, Any]:
    """Runs the job; see ``core.jobs.runner``."""
    inputs = [*raster_paths(job.inputs), job.model, *([job.mask] if job.mask else [])]
    check_outputs(job, inputs)
    device = choose_device(job.device)
    context.info(f"Device: {describe_device(device)}.")
    context.progress(0.0, "Reading the model and the rasters")
    model, card = load_model(Path(job.model))
    if not card.classes:
        raise ModelFileError(
            f"The model '{job.model}' knows no classes yet: it was trained without labels.",
            "Fine-tune it on labels first, with this model as the base model.",
        )
    if card.specification.head != "dense":
        raise ModelFileError(
            f"The model '{job.model}' has a head of the kind '{card.specification.head}', which says no class of a pixel.",
            "Give a model that was fine-tuned on labels.",
        )
    allows_missing = card.allows_missing and job.missing_inputs == "allow"
    scene, model, card = model_on_scene(model, card, job.inputs, context, allows_missing)
    _check_resolution(scene, card, context)
    window = scene.grid.window if job.extent is None else window_of(job.extent, scene.grid)
    allowed = PolygonMask(Path(job.mask), scene.grid) if job.mask else None
    novelty = None
    if job.novelty:
        novelty = required_novelty(job.model, card, "Train it again, or map without the layer of novelty.").to(device)
    engine = MappingEngine(
        model.to(device),
        card,
        scene,
        device,
        job.overlap,
        allows_missing,
        novelty=novelty,
        has_contributions=_asks_each_input(job, card),
    )
    grid = scene.grid.crop(window)
    layers = layers_of(job, card)
    panels = panels_of(engine, layers, window)
    needed = map_bytes(engine, layers, panels, window)
    parts = f" {len(panels)} parts side by side," if len(panels) > 1 else ""
    context.info(
        f"Map: {grid.width} x {grid.height} pixels in{parts} tiles of {engine.tiling.tile}, overlapping by "
        f"{engine.tiling.overlap}; needs about {needed / 2**20:.0f} MiB above the model."
    )
    output = Path(job.output)
    tags = _tags(job, card, scene)
    facts = {"created": tags["RSFUSION_CREATED"]}
    with keeping_strips(output, context), Staging() as staging:
        with StripJournal(output, _identity(job, tags, scene, window, layers, device), facts) as journal:
            if journal.is_second_run:
                remove_half_done(job, keep_checkpoint=True)  # what the killed process had begun to write
            _tell_journal(journal, context)
            tags["RSFUSION_CREATED"] = journal.facts["created"]
            rows = engine.strip_rows(window)
            with MapAssembly(layers, card.scheme, grid, panels, rows, journal, tags, job.format) as assembly:
                pace = Pace(window.width * window.height, device)
                missing = assembly.missing()
                pace.skip(window.width * window.height - sum(each.width * each.height for each in missing))
                for part in runs_of(missing):
                    for strip in engine.strips(part, allowed, reuses_memory=True):
                        assembly.add(strip)
                        context.progress(0.02 + 0.94 * pace.done(strip.window), pace.text("Mapping"))
                context.progress(0.97, "Finishing the rasters")
                assembly.finish()
                _check_mapped(assembly.areas, allows_missing)
                stage_sidecars(staging, layers, card.scheme, assembly.areas)
                context.commit()
            staging.put_in_place()
    context.progress(1.0, "Done")
    _tell(context, card, assembly.areas)
    _tell_subsets(context, engine, assembly.subsets)
    return {
        "OUTPUT": job.output,
        **{key.upper(): getattr(job, key) or "" for key in MAP_LAYERS},
        "DEVICE_USED": describe_device(device),
    }


def panels_of(engine: MappingEngine, layers: list[Layer], window: Window) -> list[Window]:
    """The parts of a map that are made one after the other."""
    return engine.panels(window, MAP_BYTES - assembly_bytes(layers, window.width, engine.tiling.stride))


def map_bytes(engine: MappingEngine, layers: list[Layer], panels: list[Window], window: Window) -> int:
    """Bytes above the model that a map takes at the peak."""
    return engine.memory_bytes(panels[0].width) + assembly_bytes(layers, window.width, engine.tiling.stride)


def _identity(
    job: MapJob, tags: dict[str, str], scene: Scene, window: Window, layers: list[Layer], device: torch.device
) -> dict[str, Any]:
    """What the strips of a map depend on, by names that the user understands."""
    files = [path for entry in scene.acquisitions for path in entry.paths]
    if job.mask:
        files.append(job.mask)
    grid = scene.grid.crop(window)
    return {
        "the model": tags["RSFUSION_MODEL_SHA256"],
        **{f"'{path}'": file_state(path) for path in files},
        "the inputs": {entry.name: list(entry.paths) for entry in scene.acquisitions},
        "the extent or the resolution": [grid.crs, *grid.transform, grid.width, grid.height],
        "the settings": tags["RSFUSION_SETTINGS"],
        "the layers": [layer.key for layer in layers],
        "the device": device.type,
        "the software": software(),
    }


def _tell_journal(journal: StripJournal, context: JobContext) -> None:
    if journal.changed:
        context.warning(
            f"An unfinished map lies beside the output, but {' and '.join(journal.changed)} changed since: it is mapped anew."
        )
    elif journal.count:
        context.info(f"{journal.count} finished parts of an interrupted run are taken over.")


def _asks_each_input(job: MapJob, card: ModelCard) -> bool:
    """Whether what each input contributes is asked for.

    Raises:
        UsageError: the model cannot do without any of its inputs.
    """
    if not job.contributions:
        return False
    if len(card.specification.modalities) < 2:
        raise UsageError(
            f"The model '{job.model}' has one input, which contributes everything.", "Map without the layer of contributions."
        )
    if not card.allows_missing:
        raise UsageError(
            f"The model '{job.model}' has not learned to map without some of its inputs, so what each contributes is unknown.",
            "Train it with missing inputs allowed, or map without the layer of contributions.",
        )
    return True


def window_of(extent: Extent, grid: Grid) -> Window:
    """The part of a grid that an extent asks for.

    Raises:
        UsageError: its coordinate reference system is none.
    """
    try:
        parsed_crs(extent.crs)
    except CRSError:
        raise UsageError(
            f"extent.crs: '{extent.crs}' is no coordinate reference system.", "Write it as EPSG:code or as WKT."
        ) from None
    return extent_window(grid, Bounds(extent.left, extent.bottom, extent.right, extent.top), extent.crs)


def _check_mapped(areas: ClassAreas, allows_missing: bool) -> None:
    if not any(count for code, count in areas.counts.items() if code != NODATA_CODE):
        where = "any raster that shows the ground" if allows_missing else "every raster of the model"
        raise RasterError(
            f"Nothing was mapped: no pixel asked for has data in {where}.",
            "Check nodata values, and that the rasters, the extent and the mask overlap.",
        )


def _tags(job: MapJob, card: ModelCard, scene: Scene) -> dict[str, str]:
    settings = job.model_dump(include={"overlap", "format", "extent", "missing_inputs"}) | {"resolution": job.inputs.resolution}
    settings["mask"] = Path(job.mask).name if job.mask else None
    return {
        "RSFUSION_VERSION": core.__version__,
        "RSFUSION_CREATED": creation_time(),
        "RSFUSION_MODEL": Path(job.model).name,
        "RSFUSION_MODEL_SHA256": file_digest(Path(job.model)),
        "RSFUSION_INPUTS": json.dumps(input_names(scene)),
        "RSFUSION_SETTINGS": json.dumps(settings),
        "RSFUSION_CLASSES": json.dumps([entry.model_dump() for entry in class_cards(card.scheme)]),
    }


def _tell_subsets(context: JobContext, engine: MappingEngine, counts: np.ndarray[Any, np.dtype[np.int64]]) -> None:
    """Says which part of the map rests on which inputs, where it is not one for all."""
    present = np.flatnonzero(counts)
    if len(present) < 2:
        return
    for number in present[np.argsort(-counts[present], kind="stable")]:
        names = ", ".join(engine.inputs.names(int(number)))
        context.info(f"{counts[number] / counts.sum():.1%} of the map rests on {names}.")


def _check_resolution(scene: Scene, card: ModelCard, context: JobContext) -> None:
    ratio = scene.grid.resolution_m() / card.resolution_m
    if not 1 / RESOLUTION_TOLERANCE < ratio < RESOLUTION_TOLERANCE:
        context.warning(
            f"The map's pixels are {scene.grid.resolution_m():.3g} m and the model was trained at "
            f"{card.resolution_m:.3g} m: what it learned of shapes and texture may not hold. Set the resolution to "
            f"{card.resolution_m:.3g} m to map as it was trained."
        )


def _tell(context: JobContext, card: ModelCard, areas: ClassAreas) -> None:
    counts, hectares = areas.counts, areas.hectares
    total = sum(counts.values())
    for entry in card.scheme.classes:
        if entry.code in counts:
            context.info(f"{entry.name}: {counts[entry.code]} pixels, {hectares[entry.code]:.1f} ha.")
    empty = counts.get(NODATA_CODE, 0)
    if empty:
        context.info(f"Not mapped: {empty} of {total} pixels ({empty / total:.1%}).")
