"""Commands that write rasters: maps, features, a simulated scene."""

from __future__ import annotations

from typing import Annotated

import typer

from core.commands.options import (
    Elevation,
    ElevationSensor,
    Json,
    Optical,
    OpticalSensor,
    Other,
    OtherSensor,
    Resolution,
    Sar,
    SarSensor,
    Sentinel2OffsetOption,
    extent_of,
    help_of,
    inputs_of,
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


def features(
    model: Annotated[str, typer.Option(help=help_of(FeaturesJob, "model"))],
    output: Annotated[str, typer.Option(help=help_of(FeaturesJob, "output"))],
    optical: Optical = None,
    sar: Sar = None,
    elevation: Elevation = None,
    other: Other = None,
    optical_sensor: OpticalSensor = "auto",
    sar_sensor: SarSensor = "auto",
    elevation_sensor: ElevationSensor = "auto",
    other_sensor: OtherSensor = "auto",
    resolution: Resolution = None,
    sentinel2_offset: Sentinel2OffsetOption = "auto",
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
    inputs = inputs_of(locals())
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


def map_scene(
    model: Annotated[str, typer.Option(help=help_of(MapJob, "model"))],
    output: Annotated[str, typer.Option(help=help_of(MapJob, "output"))],
    optical: Optical = None,
    sar: Sar = None,
    elevation: Elevation = None,
    other: Other = None,
    optical_sensor: OpticalSensor = "auto",
    sar_sensor: SarSensor = "auto",
    elevation_sensor: ElevationSensor = "auto",
    other_sensor: OtherSensor = "auto",
    resolution: Resolution = None,
    sentinel2_offset: Sentinel2OffsetOption = "auto",
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
    inputs = inputs_of(locals())
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


def export(
    model: Annotated[str, typer.Option(help=help_of(ExportJob, "model"))],
    output: Annotated[str, typer.Option(help=help_of(ExportJob, "output"))],
    stac: Annotated[str | None, typer.Option(help=help_of(ExportJob, "stac"))] = None,
    int8: Annotated[bool, typer.Option("--int8", help=help_of(ExportJob, "int8"))] = False,
    optical: Optical = None,
    sar: Sar = None,
    elevation: Elevation = None,
    other: Other = None,
    optical_sensor: OpticalSensor = "auto",
    sar_sensor: SarSensor = "auto",
    elevation_sensor: ElevationSensor = "auto",
    other_sensor: OtherSensor = "auto",
    resolution: Resolution = None,
    sentinel2_offset: Sentinel2OffsetOption = "auto",
    json: Json = False,
) -> None:
    """Write a model as an ONNX graph, which other software runs without torch."""
    inputs = inputs_of(locals()) if optical or sar or elevation or other else None
    execute({"kind": "export", "model": model, "output": output, "stac": stac, "int8": int8, "inputs": inputs}, json)
