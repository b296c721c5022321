"""The job that maps a scene with a model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import RasterError
from core.jobs.devices import describe_device
from core.jobs.events import JobContext
from core.jobs.inputs import raster_paths
from core.jobs.mapping.assembly import MapAssembly, runs_of
from core.jobs.mapping.layers import stage_sidecars
from core.jobs.mapping.pace import Pace
from core.jobs.mapping.preparation import PreparedMap, prepare_map, promise_of
from core.jobs.mapping.workers import check_dask, map_with_workers
from core.jobs.outputs import Staging, check_outputs, keeping_strips, remove_half_done
from core.jobs.schemas import MAP_LAYERS, MapJob
from core.labels.scheme import NODATA_CODE
from core.mapping.engine import MappingEngine
from core.mapping.journal import StripJournal
from core.mapping.sidecars import ClassAreas
from core.models.model_file import ModelCard
from core.scenes.grid import Window


def run_map(job: MapJob, context: JobContext) -> dict[str, Any]:
    """Runs the job; see ``core.jobs.runner``."""
    inputs = [*raster_paths(job.inputs), job.model, *([job.mask] if job.mask else [])]
    check_outputs(job, inputs)
    if job.workers > 1 or job.scheduler:
        check_dask()
    context.progress(0.0, "Reading the model and the rasters")
    prepared = prepare_map(job, context)
    context.info(f"Device: {describe_device(prepared.device)}.")
    panels, tags, output = prepared.panels, dict(prepared.tags), Path(job.output)
    _announce(prepared, panels, context)
    facts = {"created": tags["RSFUSION_CREATED"], "panels": [asdict(panel) for panel in panels]}
    with keeping_strips(output, context), Staging() as staging, StripJournal(output, prepared.identity, facts) as journal:
        if journal.is_second_run:
            remove_half_done(job, keep_checkpoint=True)  # what the killed process had begun to write
        _tell_journal(journal, context)
        tags["RSFUSION_CREATED"] = journal.facts["created"]
        # With another number of threads the map would be cut otherwise, and the strips that are there would be of no use.
        panels = [Window(**panel) for panel in journal.facts["panels"]]
        rows = prepared.engine.strip_rows(prepared.window)
        scheme, layers = prepared.card.scheme, prepared.layers
        with MapAssembly(layers, scheme, prepared.grid, panels, rows, journal, tags, job.format) as assembly:
            _map_missing(prepared, assembly, context)
            context.progress(0.97, "Finishing the rasters")
            assembly.finish()
            _check_mapped(assembly.areas, prepared.allows_missing)
            stage_sidecars(staging, layers, scheme, assembly.areas)
            context.commit()
        staging.put_in_place()
    context.progress(1.0, "Done")
    _tell(context, prepared.card, assembly.areas)
    _tell_subsets(context, prepared.engine, assembly.subsets)
    return {
        "OUTPUT": job.output,
        **{key.upper(): getattr(job, key) or "" for key in MAP_LAYERS},
        "DEVICE_USED": describe_device(prepared.device),
    }


def _map_missing(prepared: PreparedMap, assembly: MapAssembly, context: JobContext) -> None:
    """Maps what an interrupted run has not mapped yet, here or in several processes."""
    missing, whole = assembly.missing(), prepared.window.width * prepared.window.height
    pace = Pace(whole, prepared.device)
    pace.skip(whole - sum(each.width * each.height for each in missing))

    def done(window: Window) -> None:
        context.progress(0.02 + 0.94 * pace.done(window), pace.text("Mapping"))

    if prepared.job.workers > 1 or prepared.job.scheduler:
        map_with_workers(prepared, missing, assembly, done, context)
        return
    promise = promise_of(prepared.needed_bytes)
    for strip in prepared.engine.strips(runs_of(missing), prepared.allowed, reuses_memory=True):
        assembly.add(strip)
        done(strip.window)
        promise.keep()


def _announce(prepared: PreparedMap, panels: list[Window], context: JobContext) -> None:
    grid, tiling = prepared.grid, prepared.engine.tiling
    needed = prepared.needed_bytes / 2**20
    parts = f" {len(panels)} parts side by side," if len(panels) > 1 else ""
    context.info(
        f"Map: {grid.width} x {grid.height} pixels in{parts} tiles of {tiling.tile}, overlapping by {tiling.overlap}; needs "
        f"about {needed:.0f} MiB above the model{' in each process' if prepared.job.workers > 1 else ''}."
    )


def _tell_journal(journal: StripJournal, context: JobContext) -> None:
    if journal.changed:
        context.warning(
            f"An unfinished map lies beside the output, but {' and '.join(journal.changed)} changed since: it is mapped anew."
        )
    elif journal.count:
        context.info(f"{journal.count} finished parts of an interrupted run are taken over.")


def _check_mapped(areas: ClassAreas, allows_missing: bool) -> None:
    if not any(count for code, count in areas.counts.items() if code != NODATA_CODE):
        where = "any raster that shows the ground" if allows_missing else "every raster of the model"
        raise RasterError(
            f"Nothing was mapped: no pixel asked for has data in {where}.",
            "Check nodata values, and that the rasters, the extent and the mask overlap.",
        )


def _tell_subsets(context: JobContext, engine: MappingEngine, counts: np.ndarray[Any, np.dtype[np.int64]]) -> None:
    """Says which part of the map rests on which inputs, where it is not one for all."""
    present = np.flatnonzero(counts)
    if len(present) < 2:
        return
    for number in present[np.argsort(-counts[present], kind="stable")]:
        names = ", ".join(engine.inputs.names(int(number)))
        context.info(f"{counts[number] / counts.sum():.1%} of the map rests on {names}.")


def _tell(context: JobContext, card: ModelCard, areas: ClassAreas) -> None:
    counts, hectares = areas.counts, areas.hectares
    total = sum(counts.values())
    for entry in card.scheme.classes:
        if entry.code in counts:
            context.info(f"{entry.name}: {counts[entry.code]} pixels, {hectares[entry.code]:.1f} ha.")
    empty = counts.get(NODATA_CODE, 0)
    if empty:
        context.info(f"Not mapped: {empty} of {total} pixels ({empty / total:.1%}).")
