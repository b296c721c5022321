"""Commands that make labels."""

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
from core.jobs.schemas import PseudolabelsJob


def pseudolabels(
    output: Annotated[str, typer.Option(help=help_of(PseudolabelsJob, "output"))],
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
    count: Annotated[int, typer.Option(help=help_of(PseudolabelsJob, "count"))] = 30,
    minimum_pixels: Annotated[int, typer.Option(help=help_of(PseudolabelsJob, "minimum_pixels"))] = 9,
    extent: Annotated[
        str | None, typer.Option(help=help_of(PseudolabelsJob, "extent") + " Written left,right,bottom,top [EPSG:code].")
    ] = None,
    json: Json = False,
) -> None:
    """Draw polygons where spectral indices are sure of water, vegetation, bare ground or built-up."""
    inputs = inputs_of(locals())
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
