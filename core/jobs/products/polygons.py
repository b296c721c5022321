"""The job that makes polygons of a map."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from core.errors import UsageError
from core.folders import write_text
from core.jobs.events import JobContext
from core.jobs.outputs import Staging, check_outputs
from core.jobs.products.class_maps import provenance_tags
from core.jobs.schemas import VectorizeMapJob
from core.jobs.vector_files import LayerWriter
from core.labels.polygon_style import categorised_style
from core.mapping.class_raster import ClassRaster, open_class_raster
from core.mapping.patches import Patches, area_sizes, find_patches
from core.mapping.polygons import on_the_ground, patch_polygons, simplified
from core.scenes.categorical import style_path

CLASS_FIELD = "class"
FIELDS = (CLASS_FIELD, "name", "colour", "area_ha")

MOST_SIMPLIFIED_SIDES = 50_000_000
"""Pixel sides along all outlines that are simplified together: a border has to be seen from both of its sides. Each takes
about 100 bytes."""


def run_vectorize(job: VectorizeMapJob, context: JobContext) -> dict[str, Any]:
    """Runs the job; see ``core.jobs.runner``."""
    check_outputs(job, [job.map])
    context.progress(0.0, "Reading the map")
    raster = open_class_raster(job.map, fewest_classes=1)
    sizes, unit_m2 = area_sizes(raster.grid)
    patches = find_patches(raster.read, raster.grid, 4, sizes, context.part(0.02, 0.3))
    hectares: NDArray[np.float64] = patches.sizes.astype(np.float64) * (unit_m2 / 10_000)
    output, count = Path(job.output), 0
    tags = provenance_tags({"map": raster}, job.model_dump(include={"polygons", "simplify"}))
    geometry_type = "Polygon" if job.polygons == "patches" else "MultiPolygon"
    with Staging() as staging:
        with staging.writing(output) as temporary:
            writer = LayerWriter(temporary, output.stem, raster.grid.crs, geometry_type, tags)
            for codes, areas, shapes in _features(job, raster, patches, hectares, context):
                writer.write(on_the_ground(shapes, raster.grid), FIELDS, _columns(raster, codes, areas))
                count += len(codes)
            style = style_path(temporary)
            write_text(style, categorised_style(raster.scheme, CLASS_FIELD))
        staging.add(style, style_path(output))
        context.commit()
        staging.put_in_place()
    context.progress(1.0, "Done")
    context.info(f"{count} polygons of {len(np.unique(patches.codes)) - 1} classes, {hectares[1:].sum():.2f} ha.")
    return {"OUTPUT": job.output, "N_POLYGONS": count}


_Features = tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[Any]]


def _features(
    job: VectorizeMapJob, raster: ClassRaster, patches: Patches, hectares: NDArray[np.float64], context: JobContext
) -> Iterator[_Features]:
    """Codes, areas and shapes in pixels, some at a time."""
    drawn = patch_polygons(patches, raster.read, context.part(0.3, 0.7))
    if job.polygons == "patches" and not job.simplify:
        for numbers, shapes in drawn:
            yield patches.codes[numbers], hectares[numbers], shapes
        return
    chunks = list(drawn)
    numbers = np.concatenate([found for found, _ in chunks])
    order = np.argsort(numbers)
    numbers, shapes = numbers[order], np.concatenate([found for _, found in chunks])[order]
    if job.simplify:
        sides = int(shapely.length(shapes).sum())
        if sides > MOST_SIMPLIFIED_SIDES:
            raise UsageError(
                f"simplify: the outlines have {sides} pixel sides, and at most {MOST_SIMPLIFIED_SIDES} fit into memory.",
                "Clean the map first, cut it into parts, or leave out the simplification.",
            )
        context.progress(0.75, "Simplifying")
        shapes = simplified(shapes, job.simplify)
    context.progress(0.9, "Writing the polygons")
    if job.polygons == "patches":
        yield patches.codes[numbers], hectares[numbers], shapes
        return
    codes = patches.codes[numbers]
    present = np.unique(codes)
    areas = np.array([hectares[numbers[codes == code]].sum() for code in present])
    # Patches of one class touch by corners at most: together they are a valid shape as they stand.
    together = np.array([shapely.multipolygons(shapes[codes == code]) for code in present], dtype=object)
    yield present, areas, together


def _columns(raster: ClassRaster, codes: NDArray[np.uint8], areas: NDArray[np.float64]) -> list[NDArray[Any]]:
    entries = {entry.code: entry for entry in raster.scheme.classes}
    return [
        codes.astype(np.int32),
        np.array([entries[int(code)].name for code in codes], dtype=object),
        np.array([entries[int(code)].colour for code in codes], dtype=object),
        np.round(areas, 6),
    ]
