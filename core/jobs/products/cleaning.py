"""The job that removes specks and small patches from a map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import UsageError
from core.jobs.events import JobContext
from core.jobs.outputs import Staging, check_outputs
from core.jobs.products.class_maps import provenance_tags, tell_areas, write_class_map
from core.jobs.schemas import CleanMapJob
from core.labels.scheme import NODATA_CODE, ClassScheme
from core.labels.schemes import listed
from core.mapping.class_raster import ClassRaster, open_class_raster
from core.mapping.majority import ReadCodes, majority_reader
from core.mapping.patches import Connectedness, Patches, area_sizes, find_patches, strips
from core.mapping.sidecars import ClassAreas
from core.mapping.sieve import find_borders, merge_small, smallest_size
from core.scenes.grid import Grid

CONNECTEDNESS: dict[str, Connectedness] = {"4": 4, "8": 8}


def run_clean(job: CleanMapJob, context: JobContext) -> dict[str, Any]:
    """Runs the job; see ``core.jobs.runner``."""
    check_outputs(job, [job.map])
    context.progress(0.0, "Reading the map")
    raster = open_class_raster(job.map, fewest_classes=1)
    kept = codes_of_classes(raster, job.keep)
    read: ReadCodes = raster.read
    if job.majority > 1:
        read = majority_reader(raster.read, raster.grid, job.majority, kept)
    patches, final, n_small = _sieved(job, raster.grid, read, kept, context)
    before = ClassAreas(raster.grid)

    def cleaned() -> Iterator[tuple[int, NDArray[np.uint8]]]:
        for index, window in enumerate(strips(raster.grid)):
            before.add(raster.read(window), window.row)
            codes = read(window)
            if patches is not None:
                codes = final[patches.numbers(codes, index)]
            yield window.row, codes
            context.progress(0.7 + 0.28 * window.stop_row / raster.grid.height, "Writing the map")

    settings = job.model_dump(include={"minimum_area", "unit", "connectedness", "majority", "keep"})
    with Staging() as staging:
        tags = provenance_tags({"map": raster}, settings)
        after = write_class_map(Path(job.output), raster.grid, raster.scheme, tags, cleaned(), staging, context)
    context.progress(1.0, "Done")
    if n_small:
        context.info(f"{n_small} of {len(patches or ())} patches were smaller than {job.minimum_area:g} {job.unit}.")
    tell_areas(context, raster.scheme, before, after)
    _warn_of_lost(raster.scheme, before, after, context)
    return {"OUTPUT": job.output, "SMALL_PATCHES": n_small}


def codes_of_classes(raster: ClassRaster, names: Sequence[str]) -> tuple[int, ...]:
    """The codes of classes that a user names, by name or code.

    Raises:
        UsageError: the map has no such class.
    """
    found = []
    for name in names:
        wanted = name.strip().casefold()
        matching = [entry.code for entry in raster.scheme.classes if wanted in (entry.name.casefold(), str(entry.code))]
        if not matching:
            raise UsageError(
                f"keep: the map '{raster.path}' has no class '{name}'. Its classes are {listed(raster.scheme.names)}.",
                "Name some of them.",
            )
        found += matching
    return tuple(found)


def _sieved(
    job: CleanMapJob, grid: Grid, read: ReadCodes, kept: tuple[int, ...], context: JobContext
) -> tuple[Patches | None, NDArray[np.uint8], int]:
    """The patches, the class of each in the end, and how many were too small; no patches where none has to be large."""
    nothing = np.zeros(0, np.uint8)
    if job.unit == "pixels":
        row_sizes, minimum = np.ones(grid.height, np.int64), int(np.ceil(job.minimum_area))
    else:
        row_sizes, unit = area_sizes(grid)
        minimum = smallest_size(job.minimum_area, unit)
    if minimum <= row_sizes.min():
        if job.minimum_area:
            context.info(f"Every pixel is as large as {job.minimum_area:g} {job.unit}: no patch is too small.")
        return None, nothing, 0
    patches = find_patches(read, grid, CONNECTEDNESS[job.connectedness], row_sizes, context.part(0.02, 0.3))
    is_small = (patches.sizes < minimum) & ~np.isin(patches.codes, [NODATA_CODE, *kept])
    borders = find_borders(patches, read, grid, is_small, context.part(0.3, 0.6))
    final = merge_small(patches, borders, minimum, kept, context.part(0.6, 0.7))
    return patches, final, int(is_small.sum())


def _warn_of_lost(scheme: ClassScheme, before: ClassAreas, after: ClassAreas, context: JobContext) -> None:
    lost = [
        entry.name
        for entry in scheme.classes
        if entry.code in before.counts and entry.code not in after.counts and entry.code != NODATA_CODE
    ]
    if lost:
        context.warning(f"Nothing is left of {listed(lost)}: all patches were too small. Name what has to stay in 'keep'.")
