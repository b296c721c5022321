"""Writing a class raster that was made from others."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import core
from core.jobs.events import JobContext
from core.jobs.outputs import Staging
from core.jobs.provenance import creation_time
from core.labels.scheme import NODATA_CODE, ClassScheme
from core.mapping.class_raster import CLASSES_TAG, ClassRaster
from core.mapping.rasters import StripWriter, check_space
from core.mapping.sidecars import ClassAreas, scheme_colormap, write_class_sidecars
from core.scenes.categorical import auxiliary_path, style_path
from core.scenes.grid import Grid
from core.scenes.raster_file import open_raster

_OF_THE_MODEL = ("RSFUSION_MODEL", "RSFUSION_MODEL_SHA256")


def provenance_tags(maps: Mapping[str, ClassRaster], settings: Mapping[str, Any]) -> dict[str, str]:
    """What a file made from maps says of its origin.

    Args:
        maps: that were read, by what they are called in the job. The model of a single one is passed on.
        settings: what was asked for.
    """
    tags = {
        "RSFUSION_VERSION": core.__version__,
        "RSFUSION_CREATED": creation_time(),
        "RSFUSION_INPUTS": json.dumps({key: [Path(entry.path).name] for key, entry in maps.items()}),
        "RSFUSION_SETTINGS": json.dumps(dict(settings)),
    }
    if len(maps) == 1:
        with open_raster(next(iter(maps.values())).path) as dataset:
            own = dataset.tags()
        tags.update({key: own[key] for key in _OF_THE_MODEL if key in own})
    return tags


def write_class_map(
    output: Path,
    grid: Grid,
    scheme: ClassScheme,
    tags: Mapping[str, str],
    strips: Iterable[tuple[int, NDArray[np.uint8]]],
    staging: Staging,
    context: JobContext,
) -> ClassAreas:
    """Writes a class raster with its style and attribute table, and puts all that is staged in place with it.

    Args:
        output: the raster's place.
        grid: of the raster.
        scheme: what its codes mean.
        tags: provenance; the classes are added.
        strips: first row and (rows, columns) codes, from north to south.
        staging: files that belong to the raster; its own are added.
        context: of the job; nothing stops it once the raster is whole.

    Returns:
        Pixels and areas of the codes.

    Raises:
        OutputError: the disk is full, or a file cannot be written.
    """
    # Classes shrink to less than half, and overviews add a third.
    check_space(output, int(grid.width * grid.height * 0.5 * 4 / 3))
    areas = ClassAreas(grid)
    classes = json.dumps([asdict(entry) for entry in scheme.classes])
    with StripWriter(
        output,
        grid,
        1,
        "uint8",
        NODATA_CODE,
        descriptions=("land cover",),
        tags={**tags, CLASSES_TAG: classes},
        colormap=scheme_colormap(scheme),
    ) as writer:
        for row, codes in strips:
            areas.add(codes, row)
            writer.write(codes[None], row)
        writer.finish()
        with staging.writing(output) as temporary:
            style, auxiliary = write_class_sidecars(temporary, scheme, areas.counts, areas.hectares)
        staging.add(style, style_path(output))
        staging.add(auxiliary, auxiliary_path(output))
        context.commit()
    staging.put_in_place()
    return areas


def tell_areas(context: JobContext, scheme: ClassScheme, before: ClassAreas | None, after: ClassAreas) -> None:
    """Says the area of every class, and what it was before."""
    earlier = before.hectares if before is not None else None
    now = after.hectares
    for entry in scheme.classes:
        if entry.code not in now and not (earlier and entry.code in earlier):
            continue
        was = f" (before: {earlier.get(entry.code, 0.0):.2f} ha)" if earlier is not None else ""
        context.info(f"{entry.name}: {now.get(entry.code, 0.0):.2f} ha{was}.")
