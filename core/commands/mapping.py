"""Commands that write rasters: maps, features, a simulated scene."""

from __future__ import annotations

from typing import Annotated

import typer

from core.commands.options import (
    ROLES,
    Json,
    Rasters,
    extent_of,
    help_of,
    with_rasters,
)
from core.commands.running import execute
from core.jobs.schemas import ExportJob, FeaturesJob, MapJob, SampleSceneJob


def sample_scene(
    output: Annotated[str, typer.Argument(help=help_of(SampleSceneJob, "output"))],
    size: Annotated[int, typer.Option(help=help_of(SampleSceneJob, "size"))] = 500,
    seed: Annotated[int, typer.Option(help=help_of(SampleSceneJob, "seed"))] = 0,
    json: Json = False,
) -> None:
    """Write a simulated scene with rasters, truth and polygons."""
    execute({"kind": "sample-scene", "output": output, "size": size, "seed": seed}, json)


@with_rasters
def features(
    model: Annotated[str, typer.Option(help=help_of(FeaturesJob, "model"))],
    output: Annotated[str, typer.Option(help=help_of(FeaturesJob, "output"))],
    inputs: Rasters,
    components: Annotated[int, typer.Option(help=help_of(FeaturesJob, "components"))] = 0,
    picture: Annotated[bool, typer.Option("--picture", help=help_of(FeaturesJob, "picture"))] = False,
    extent: Annotated[
        str | None, typer.Option(help=help_of(FeaturesJob, "extent") + " Written left,right,bottom,top [EPSG:code].")
    ] = None,
    overlap: Annotated[float, typer.Option(help=help_of(FeaturesJob, "overlap"))] = 0.25,
    device: Annotated[str, typer.Option(help=help_of(FeaturesJob, "device"))] = "auto",
    format: Annotated[str, typer.Option(help=help_of(FeaturesJob, "format"))] = "gtiff",
    json: Json = False,
) -> None:
    """Write what a model knows of each pixel, before it says a class."""
    execute(
        {
            "kind": "features",
            "inputs": inputs,
            "model": model,
            "components": components,
            "picture": picture,
            "extent": extent_of(extent),
            "overlap": overlap,
            "device": device,
            "format": format,
            "output": output,
        },
        json,
    )


@with_rasters
def map_scene(
    model: Annotated[str, typer.Option(help=help_of(MapJob, "model"))],
    output: Annotated[str, typer.Option(help=help_of(MapJob, "output"))],
    inputs: Rasters,
    extent: Annotated[
        str | None, typer.Option(help=help_of(MapJob, "extent") + " Written left,right,bottom,top [EPSG:code].")
    ] = None,
    mask: Annotated[str | None, typer.Option(help=help_of(MapJob, "mask"))] = None,
    overlap: Annotated[float, typer.Option(help=help_of(MapJob, "overlap"))] = 0.25,
    device: Annotated[str, typer.Option(help=help_of(MapJob, "device"))] = "auto",
    missing_inputs: Annotated[str, typer.Option(help=help_of(MapJob, "missing_inputs"))] = "allow",
    format: Annotated[str, typer.Option(help=help_of(MapJob, "format"))] = "gtiff",
    precision: Annotated[str, typer.Option(help=help_of(MapJob, "precision"))] = "auto",
    workers: Annotated[int, typer.Option(help=help_of(MapJob, "workers"))] = 1,
    scheduler: Annotated[str | None, typer.Option(help=help_of(MapJob, "scheduler"))] = None,
    confidence: Annotated[str | None, typer.Option(help=help_of(MapJob, "confidence"))] = None,
    probabilities: Annotated[str | None, typer.Option(help=help_of(MapJob, "probabilities"))] = None,
    entropy: Annotated[str | None, typer.Option(help=help_of(MapJob, "entropy"))] = None,
    margin: Annotated[str | None, typer.Option(help=help_of(MapJob, "margin"))] = None,
    novelty: Annotated[str | None, typer.Option(help=help_of(MapJob, "novelty"))] = None,
    contributions: Annotated[str | None, typer.Option(help=help_of(MapJob, "contributions"))] = None,
    json: Json = False,
) -> None:
    """Map a scene with a model."""
    execute(
        {
            "kind": "map",
            "inputs": inputs,
            "model": model,
            "extent": extent_of(extent),
            "mask": mask,
            "overlap": overlap,
            "device": device,
            "missing_inputs": missing_inputs,
            "format": format,
            "precision": precision,
            "workers": workers,
            "scheduler": scheduler,
            "output": output,
            "confidence": confidence,
            "probabilities": probabilities,
            "entropy": entropy,
            "margin": margin,
            "novelty": novelty,
            "contributions": contributions,
        },
        json,
    )


@with_rasters
def export(
    model: Annotated[str, typer.Option(help=help_of(ExportJob, "model"))],
    output: Annotated[str, typer.Option(help=help_of(ExportJob, "output"))],
    inputs: Rasters,
    stac: Annotated[str | None, typer.Option(help=help_of(ExportJob, "stac"))] = None,
    int8: Annotated[bool, typer.Option("--int8", help=help_of(ExportJob, "int8"))] = False,
    json: Json = False,
) -> None:
    """Write a model as an ONNX graph, which other software runs without torch."""
    execute(
        {
            "kind": "export",
            "model": model,
            "output": output,
            "stac": stac,
            "int8": int8,
            "inputs": inputs if any(inputs[role] for role in ROLES) else None,
        },
        json,
    )
