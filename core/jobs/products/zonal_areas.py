"""The job that measures the classes of a map in zones."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from core.folders import write_text
from core.jobs.events import JobContext
from core.jobs.outputs import Staging, check_outputs
from core.jobs.products.class_maps import provenance_tags
from core.jobs.schemas import ZonalAreasJob
from core.jobs.vector_files import LayerWriter
from core.labels.scheme import NODATA_CODE, ClassScheme
from core.labels.schemes import listed
from core.mapping.class_raster import open_class_raster
from core.mapping.zones import Zones, outside, read_zones, zone_areas
from core.scenes.grid import Grid

TOTAL, NODATA = "total_ha", "nodata_ha"
_TAKEN = ("fid", "geom", TOTAL, NODATA)
"""Names of fields that a GeoPackage or this table has already."""


def run_areas(job: ZonalAreasJob, context: JobContext) -> dict[str, Any]:
    """Runs the job; see ``core.jobs.runner``."""
    check_outputs(job, [job.map, job.zones.path])
    context.progress(0.0, "Reading the map and the zones")
    raster = open_class_raster(job.map, fewest_classes=1)
    zones = read_zones(job.zones.path, job.zones.layer, job.zones.id_field, raster.grid)
    hectares = zone_areas(raster, zones, context.part(0.05, 0.9))
    classes = hectares[:, list(raster.scheme.codes)]
    identity = job.zones.id_field
    names = [f"zone_{identity}" if identity.lower() in _TAKEN else identity]
    names += column_names(raster.scheme, names)
    columns = [zones.identities, *classes.T, classes.sum(axis=1), hectares[:, NODATA_CODE]]
    output = Path(job.output)
    with Staging() as staging:
        with staging.writing(output) as temporary:
            if output.suffix.lower() == ".csv":
                write_text(temporary, table_text(names, columns))
            else:
                tags = provenance_tags({"map": raster}, {"zones": Path(job.zones.path).name, "id_field": identity})
                writer = LayerWriter(temporary, output.stem, zones.crs, "MultiPolygon", tags)
                rounded = [columns[0], *(np.round(column, 6) for column in columns[1:])]
                writer.write(_multipolygons(zones.geometries), names, rounded)
        context.commit()
        staging.put_in_place()
    context.progress(1.0, "Done")
    _tell(zones, raster.grid, hectares, context)
    return {"OUTPUT": job.output, "N_ZONES": len(zones.identities), "TOTAL_HECTARES": round(float(classes.sum()), 4)}


def column_names(scheme: ClassScheme, taken: Sequence[str]) -> list[str]:
    """The names of the areas' columns, which no two letters' case alone tells apart."""
    used = {name.casefold() for name in (*taken, *_TAKEN)}
    names = []
    for entry in scheme.classes:
        name = entry.name.replace(" ", "_") + "_ha"
        if name.casefold() in used:
            name = f"{entry.name.replace(' ', '_')}_{entry.code}_ha"
        used.add(name.casefold())
        names.append(name)
    return [*names, TOTAL, NODATA]


def table_text(names: Sequence[str], columns: Sequence[NDArray[Any]]) -> str:
    """A table as comma-separated values; areas in hectares to the square metre."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(names)
    for row in zip(*columns, strict=True):
        writer.writerow([_identity_text(row[0]), *(f"{value:.4f}" for value in row[1:])])
    return stream.getvalue()


def _identity_text(value: Any) -> Any:
    """A zone's name for a table; whole numbers became fractions where some are missing."""
    if isinstance(value, float):
        return "" if math.isnan(value) else int(value) if value.is_integer() else value
    return "" if value is None else value


def _multipolygons(geometries: NDArray[Any]) -> NDArray[Any]:
    is_polygon = shapely.get_type_id(geometries) == shapely.GeometryType.POLYGON
    result = geometries.copy()
    result[is_polygon] = [shapely.multipolygons([shape]) for shape in geometries[is_polygon]]
    result[shapely.get_type_id(result) != shapely.GeometryType.MULTIPOLYGON] = None
    return result


def _tell(zones: Zones, grid: Grid, hectares: NDArray[np.float64], context: JobContext) -> None:
    apart, partly = outside(zones, grid)
    is_empty = shapely.is_empty(zones.projected)
    has_nothing = hectares.sum(axis=1) == 0
    for concerned, told in (
        (is_empty, "have no polygon that the map's system could hold, and all their areas are zero"),
        (zones.repaired, "cross themselves, and were repaired"),
        (apart & ~is_empty, "lie outside the map, and all their areas are zero"),
        (partly, "lie on the map in part; what is beyond it is not counted"),
        (~apart & has_nothing, "hold no pixel's centre, and all their areas are zero"),
    ):
        if concerned.any():
            names = listed(zones.identities[concerned].tolist(), most=5)
            context.warning(f"{int(concerned.sum())} zones {told}: {names}.")
    context.info(f"{len(apart)} zones, {hectares[:, 1:].sum():.2f} ha mapped and {hectares[:, 0].sum():.2f} ha not.")
