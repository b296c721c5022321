"""Commands that say how good a map is, or draw the sample that will say it."""

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
from core.jobs.schemas import AccuracyJob, Labels, SamplingDesignJob


def sample(
    map_: Annotated[str, typer.Option("--map", help=help_of(SamplingDesignJob, "map"))],
    output: Annotated[str, typer.Option(help=help_of(SamplingDesignJob, "output"))],
    expected_accuracy: Annotated[str, typer.Option(help=help_of(SamplingDesignJob, "expected_accuracy"))] = "0.8",
    target_standard_error: Annotated[float, typer.Option(help=help_of(SamplingDesignJob, "target_standard_error"))] = 0.01,
    size: Annotated[int | None, typer.Option(help=help_of(SamplingDesignJob, "size"))] = None,
    allocation: Annotated[str, typer.Option(help=help_of(SamplingDesignJob, "allocation"))] = "balanced",
    minimum: Annotated[int, typer.Option(help=help_of(SamplingDesignJob, "minimum"))] = 50,
    minimum_distance: Annotated[float, typer.Option(help=help_of(SamplingDesignJob, "minimum_distance"))] = 0.0,
    seed: Annotated[int, typer.Option(help=help_of(SamplingDesignJob, "seed"))] = 0,
    json: Json = False,
) -> None:
    """Draw a stratified random sample of points from a map, to be interpreted as its reference."""
    execute(
        {
            "kind": "sampling-design",
            "map": map_,
            "expected_accuracy": expected_accuracy,
            "target_standard_error": target_standard_error,
            "size": size,
            "allocation": allocation,
            "minimum": minimum,
            "minimum_distance": minimum_distance,
            "seed": seed,
            "output": output,
        },
        json,
    )


def assess(
    map_: Annotated[str, typer.Option("--map", help=help_of(AccuracyJob, "map"))],
    reference: Annotated[str, typer.Option(help=help_of(Labels, "path"))],
    class_field: ClassField,
    layer: Layer = None,
    strata_field: Annotated[str | None, typer.Option(help=help_of(AccuracyJob, "strata_field"))] = None,
    strata: Annotated[str | None, typer.Option(help=help_of(AccuracyJob, "strata"))] = None,
    report: Annotated[str | None, typer.Option(help=help_of(AccuracyJob, "report"))] = None,
    json: Json = False,
) -> None:
    """Compare a map with reference polygons or points."""
    execute(
        {
            "kind": "accuracy",
            "map": map_,
            "reference": labels_of(reference, layer, class_field, "auto"),
            "strata_field": strata_field,
            "strata": strata,
            "report": report,
        },
        json,
    )
