"""Commands that go on from a finished map."""

from __future__ import annotations

from typing import Annotated

import typer

from core.commands.options import Json, help_of
from core.commands.running import execute
from core.jobs.schemas import ChangeMapJob, CleanMapJob, VectorizeMapJob, ZonalAreasJob, Zones


def clean(
    map_: Annotated[str, typer.Option("--map", help=help_of(CleanMapJob, "map"))],
    output: Annotated[str, typer.Option(help=help_of(CleanMapJob, "output"))],
    minimum_area: Annotated[float, typer.Option(help=help_of(CleanMapJob, "minimum_area"))] = 0.5,
    unit: Annotated[str, typer.Option(help=help_of(CleanMapJob, "unit"))] = "hectares",
    connectedness: Annotated[str, typer.Option(help=help_of(CleanMapJob, "connectedness"))] = "4",
    majority: Annotated[int, typer.Option(help=help_of(CleanMapJob, "majority"))] = 1,
    keep: Annotated[list[str] | None, typer.Option(help=help_of(CleanMapJob, "keep") + " May be given several times.")] = None,
    json: Json = False,
) -> None:
    """Remove specks and small patches from a map."""
    execute(
        {
            "kind": "clean-map",
            "map": map_,
            "minimum_area": minimum_area,
            "unit": unit,
            "connectedness": connectedness,
            "majority": majority,
            "keep": keep or [],
            "output": output,
        },
        json,
    )


def vectorize(
    map_: Annotated[str, typer.Option("--map", help=help_of(VectorizeMapJob, "map"))],
    output: Annotated[str, typer.Option(help=help_of(VectorizeMapJob, "output"))],
    polygons: Annotated[str, typer.Option(help=help_of(VectorizeMapJob, "polygons"))] = "patches",
    simplify: Annotated[float, typer.Option(help=help_of(VectorizeMapJob, "simplify"))] = 0.0,
    json: Json = False,
) -> None:
    """Make polygons of the classes of a map."""
    execute({"kind": "vectorize-map", "map": map_, "polygons": polygons, "simplify": simplify, "output": output}, json)


def areas(
    map_: Annotated[str, typer.Option("--map", help=help_of(ZonalAreasJob, "map"))],
    zones: Annotated[str, typer.Option(help=help_of(Zones, "path"))],
    id_field: Annotated[str, typer.Option(help=help_of(Zones, "id_field"))],
    output: Annotated[str, typer.Option(help=help_of(ZonalAreasJob, "output"))],
    layer: Annotated[str | None, typer.Option(help=help_of(Zones, "layer"))] = None,
    json: Json = False,
) -> None:
    """Measure the area of each class of a map in zones."""
    asked = {"path": zones, "layer": layer, "id_field": id_field}
    execute({"kind": "zonal-areas", "map": map_, "zones": asked, "output": output}, json)


def change(
    before: Annotated[str, typer.Option(help=help_of(ChangeMapJob, "before"))],
    after: Annotated[str, typer.Option(help=help_of(ChangeMapJob, "after"))],
    output: Annotated[str, typer.Option(help=help_of(ChangeMapJob, "output"))],
    matrix: Annotated[str | None, typer.Option(help=help_of(ChangeMapJob, "matrix"))] = None,
    summary: Annotated[str | None, typer.Option(help=help_of(ChangeMapJob, "summary"))] = None,
    json: Json = False,
) -> None:
    """Compare two maps of one place: what became of each class. The difference has the errors of both maps."""
    job = {"kind": "change-map", "before": before, "after": after, "output": output, "matrix": matrix, "summary": summary}
    execute(job, json)
