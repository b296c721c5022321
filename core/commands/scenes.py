"""The command that classifies polygons and grid cells as wholes."""

from __future__ import annotations

from typing import Annotated

import typer

from core.commands.options import (
    ClassSchemeOption,
    Json,
    Layer,
    Rasters,
    extent_of,
    help_of,
    labels_of,
    with_rasters,
)
from core.commands.running import execute
from core.jobs.schemas import ClassifyScenesJob, Labels


@with_rasters
def scenes(
    output: Annotated[str, typer.Option(help=help_of(ClassifyScenesJob, "output"))],
    inputs: Rasters,
    training: Annotated[str | None, typer.Option(help=help_of(Labels, "path"))] = None,
    class_field: Annotated[str | None, typer.Option(help=help_of(Labels, "class_field"))] = None,
    layer: Layer = None,
    class_scheme: ClassSchemeOption = "auto",
    multi_label: Annotated[str, typer.Option(help=help_of(ClassifyScenesJob, "multi_label"))] = "auto",
    units: Annotated[str | None, typer.Option(help=help_of(ClassifyScenesJob, "units"))] = None,
    extent: Annotated[
        str | None, typer.Option(help=help_of(ClassifyScenesJob, "extent") + " Written left,right,bottom,top [EPSG:code].")
    ] = None,
    cell_size: Annotated[float | None, typer.Option(help=help_of(ClassifyScenesJob, "cell_size"))] = None,
    base_model: Annotated[str | None, typer.Option(help=help_of(ClassifyScenesJob, "base_model"))] = None,
    model: Annotated[str | None, typer.Option(help=help_of(ClassifyScenesJob, "model"))] = None,
    validation_fraction: Annotated[float, typer.Option(help=help_of(ClassifyScenesJob, "validation_fraction"))] = 0.3,
    seed: Annotated[int, typer.Option(help=help_of(ClassifyScenesJob, "seed"))] = 0,
    device: Annotated[str, typer.Option(help=help_of(ClassifyScenesJob, "device"))] = "auto",
    output_model: Annotated[str | None, typer.Option(help=help_of(ClassifyScenesJob, "output_model"))] = None,
    report: Annotated[str | None, typer.Option(help=help_of(ClassifyScenesJob, "report"))] = None,
    json: Json = False,
) -> None:
    """Give polygons or grid cells the classes that they have as wholes."""
    if (training is None) != (class_field is None):
        raise typer.BadParameter("--training and --class-field belong together.")
    execute(
        {
            "kind": "classify-scenes",
            "inputs": inputs,
            "training": labels_of(training, layer, class_field, class_scheme) if training and class_field else None,
            "multi_label": multi_label,
            "units": units,
            "extent": extent_of(extent),
            "cell_size": cell_size,
            "base_model": base_model,
            "model": model,
            "validation_fraction": validation_fraction,
            "seed": seed,
            "device": device,
            "output": output,
            "output_model": output_model,
            "report": report,
        },
        json,
    )
