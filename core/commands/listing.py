"""Commands that tell what there is: architectures, methods, the version."""

from __future__ import annotations

from json import dumps
from typing import Annotated

import typer

import core
from core.errors import RsfusionError


def models(
    every: Annotated[
        bool, typer.Option("--all", help="Measure every combination of encoder, size and fusion; takes some minutes.")
    ] = False,
    modalities: Annotated[
        str,
        typer.Option(
            help="Sensors that the cost is stated for, between commas, each with @ and its pixel size in metres where that is "
            "not the map's."
        ),
    ] = "sentinel2_l2a,sentinel1,dem",
    resolution: Annotated[float, typer.Option(help="Pixel size in metres of the map that the cost is stated for.")] = 10.0,
    model: Annotated[str | None, typer.Option(help="Model file (.safetensors) to describe instead.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """List the architectures, when to use which, and what they cost; or describe a model file."""
    from core.jobs.models.listing import model_data, model_text, models_data, models_text

    try:
        data = models_data(modalities, resolution, every) if model is None else model_data(model)
    except RsfusionError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(error.exit_code) from None
    text = model_text if model is not None else models_text
    typer.echo(dumps(data, indent=1) if json else text(data))


def methods(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """List the ways of pre-training, when to use which, and what of each can be switched."""
    from core.jobs.models.methods import methods_data, methods_text

    data = methods_data()
    typer.echo(dumps(data, indent=1) if json else methods_text(data))


def version() -> None:
    """Print the version."""
    typer.echo(core.__version__)
