"""Commands that say how good a map is."""

from __future__ import annotations

from typing import Annotated

import typer

from core.commands.options import (
    ClassField,
    Json,
    Layer,
    help_of,
    labels_of,
)
from core.commands.running import execute
from core.jobs.schemas import AccuracyJob, Labels


def assess(
    map_: Annotated[str, typer.Option("--map", help=help_of(AccuracyJob, "map"))],
    reference: Annotated[str, typer.Option(help=help_of(Labels, "path"))],
    class_field: ClassField,
    layer: Layer = None,
    report: Annotated[str | None, typer.Option(help=help_of(AccuracyJob, "report"))] = None,
    json: Json = False,
) -> None:
    """Compare a map with reference polygons or points."""
    execute(
        {
            "kind": "accuracy",
            "map": map_,
            "reference": labels_of(reference, layer, class_field, "auto"),
            "report": report,
        },
        json,
    )
