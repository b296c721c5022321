"""Commands that make labels, or say where to make the next."""

from __future__ import annotations

from typing import Annotated

import typer

from core.commands.options import (
    Json,
    Rasters,
    extent_of,
    help_of,
    with_rasters,
)
from core.commands.running import execute
from core.jobs.schemas import PseudolabelsJob, SuggestLabelsJob


@with_rasters
def pseudolabels(
    output: Annotated[str, typer.Option(help=help_of(PseudolabelsJob, "output"))],
    inputs: Rasters,
    count: Annotated[int, typer.Option(help=help_of(PseudolabelsJob, "count"))] = 30,
    minimum_pixels: Annotated[int, typer.Option(help=help_of(PseudolabelsJob, "minimum_pixels"))] = 9,
    extent: Annotated[
        str | None, typer.Option(help=help_of(PseudolabelsJob, "extent") + " Written left,right,bottom,top [EPSG:code].")
    ] = None,
    json: Json = False,
) -> None:
    """Draw polygons where spectral indices are sure of water, vegetation, bare ground or built-up."""
    execute(
        {
            "kind": "pseudolabels",
            "inputs": inputs,
            "count": count,
            "minimum_pixels": minimum_pixels,
            "extent": extent_of(extent),
            "output": output,
        },
        json,
    )


@with_rasters
def suggest(
    model: Annotated[str, typer.Option(help=help_of(SuggestLabelsJob, "model"))],
    output: Annotated[str, typer.Option(help=help_of(SuggestLabelsJob, "output"))],
    inputs: Rasters,
    existing_labels: Annotated[str | None, typer.Option(help=help_of(SuggestLabelsJob, "existing_labels"))] = None,
    count: Annotated[int, typer.Option(help=help_of(SuggestLabelsJob, "count"))] = 10,
    unit_pixels: Annotated[int, typer.Option(help=help_of(SuggestLabelsJob, "unit_pixels"))] = 64,
    extent: Annotated[
        str | None, typer.Option(help=help_of(SuggestLabelsJob, "extent") + " Written left,right,bottom,top [EPSG:code].")
    ] = None,
    seed: Annotated[int, typer.Option(help=help_of(SuggestLabelsJob, "seed"))] = 0,
    device: Annotated[str, typer.Option(help=help_of(SuggestLabelsJob, "device"))] = "auto",
    json: Json = False,
) -> None:
    """Say where to label next: places that a model doubts, no two of them alike."""
    execute(
        {
            "kind": "suggest-labels",
            "inputs": inputs,
            "model": model,
            "existing_labels": existing_labels,
            "count": count,
            "unit_pixels": unit_pixels,
            "extent": extent_of(extent),
            "seed": seed,
            "device": device,
            "output": output,
        },
        json,
    )
