"""The command that finds change between the images of two dates."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from core.commands.options import (
    Json,
    Layer,
    Rasters,
    help_of,
    labels_of,
    with_rasters,
)
from core.commands.running import execute
from core.jobs.schemas import DetectChangeJob, Labels


def _after(role: str) -> Any:
    return typer.Option(help=help_of(DetectChangeJob, f"after_{role}") + " May be given several times.")


@with_rasters
def detect_change(
    output: Annotated[str, typer.Option(help=help_of(DetectChangeJob, "output"))],
    inputs: Rasters,
    after_optical: Annotated[list[str] | None, _after("optical")] = None,
    after_sar: Annotated[list[str] | None, _after("sar")] = None,
    after_elevation: Annotated[list[str] | None, _after("elevation")] = None,
    after_other: Annotated[list[str] | None, _after("other")] = None,
    after_sentinel2_offset: Annotated[str, typer.Option(help=help_of(DetectChangeJob, "after_sentinel2_offset"))] = "auto",
    labels: Annotated[str | None, typer.Option(help=help_of(Labels, "path"))] = None,
    class_field: Annotated[str | None, typer.Option(help=help_of(Labels, "class_field"))] = None,
    layer: Layer = None,
    unchanged: Annotated[str, typer.Option(help=help_of(DetectChangeJob, "unchanged"))] = "unchanged",
    mode: Annotated[str, typer.Option(help=help_of(DetectChangeJob, "mode"))] = "auto",
    base_model: Annotated[str | None, typer.Option(help=help_of(DetectChangeJob, "base_model"))] = None,
    epochs: Annotated[int, typer.Option(help=help_of(DetectChangeJob, "epochs"))] = 24,
    no_change_probability: Annotated[float, typer.Option(help=help_of(DetectChangeJob, "no_change_probability"))] = 0.001,
    seed: Annotated[int, typer.Option(help=help_of(DetectChangeJob, "seed"))] = 0,
    device: Annotated[str, typer.Option(help=help_of(DetectChangeJob, "device"))] = "auto",
    probability: Annotated[str | None, typer.Option(help=help_of(DetectChangeJob, "probability"))] = None,
    variates: Annotated[str | None, typer.Option(help=help_of(DetectChangeJob, "variates"))] = None,
    report: Annotated[str | None, typer.Option(help=help_of(DetectChangeJob, "report"))] = None,
    json: Json = False,
) -> None:
    """Find change between the images of two dates, from labels of change or without any."""
    if (labels is None) != (class_field is None):
        raise typer.BadParameter("--labels and --class-field belong together: give both or none.")
    execute(
        {
            "kind": "detect-change",
            "inputs": inputs,
            "after_optical": after_optical or [],
            "after_sar": after_sar or [],
            "after_elevation": after_elevation or [],
            "after_other": after_other or [],
            "after_sentinel2_offset": after_sentinel2_offset,
            "labels": labels_of(labels, layer, class_field, "auto") if labels and class_field else None,
            "unchanged": unchanged,
            "mode": mode,
            "base_model": base_model,
            "epochs": epochs,
            "no_change_probability": no_change_probability,
            "seed": seed,
            "device": device,
            "output": output,
            "probability": probability,
            "variates": variates,
            "report": report,
        },
        json,
    )
