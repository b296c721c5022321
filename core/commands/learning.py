"""Commands that train models."""

from __future__ import annotations

from typing import Annotated

import typer

from core.commands.options import (
    ClassField,
    ClassSchemeOption,
    Json,
    Layer,
    Rasters,
    help_of,
    labels_of,
    switch_of,
    with_rasters,
)
from core.commands.running import execute
from core.jobs.schemas import DistilJob, FinetuneJob, Labels, PretrainJob


@with_rasters
def finetune(
    labels: Annotated[str, typer.Option(help=help_of(Labels, "path"))],
    class_field: ClassField,
    output_model: Annotated[str, typer.Option(help=help_of(FinetuneJob, "output_model"))],
    inputs: Rasters,
    layer: Layer = None,
    class_scheme: ClassSchemeOption = "auto",
    base_model: Annotated[str | None, typer.Option(help=help_of(FinetuneJob, "base_model"))] = None,
    architecture: Annotated[str, typer.Option(help=help_of(FinetuneJob, "architecture"))] = "unet_intermediate",
    encoder: Annotated[str | None, typer.Option(help=help_of(FinetuneJob, "encoder"))] = None,
    encoder_weights: Annotated[str | None, typer.Option(help=help_of(FinetuneJob, "encoder_weights"))] = None,
    encoder_keys: Annotated[str, typer.Option(help=help_of(FinetuneJob, "encoder_keys"))] = "auto",
    fusion: Annotated[str | None, typer.Option(help=help_of(FinetuneJob, "fusion"))] = None,
    size: Annotated[str | None, typer.Option(help=help_of(FinetuneJob, "size"))] = None,
    missing_inputs: Annotated[str, typer.Option(help=help_of(FinetuneJob, "missing_inputs"))] = "allow",
    mode: Annotated[str, typer.Option(help=help_of(FinetuneJob, "mode"))] = "auto",
    spread_labels: Annotated[bool, typer.Option("--spread-labels", help=help_of(FinetuneJob, "spread_labels"))] = False,
    self_training: Annotated[int, typer.Option(help=help_of(FinetuneJob, "self_training"))] = 0,
    consistency: Annotated[bool, typer.Option("--consistency", help=help_of(FinetuneJob, "consistency"))] = False,
    epochs: Annotated[int, typer.Option(help=help_of(FinetuneJob, "epochs"))] = 24,
    minutes: Annotated[float | None, typer.Option(help=help_of(FinetuneJob, "minutes"))] = None,
    seed: Annotated[int, typer.Option(help=help_of(FinetuneJob, "seed"))] = 0,
    device: Annotated[str, typer.Option(help=help_of(FinetuneJob, "device"))] = "auto",
    validation_fraction: Annotated[float, typer.Option(help=help_of(FinetuneJob, "validation_fraction"))] = 0.3,
    block_size: Annotated[float | None, typer.Option(help=help_of(FinetuneJob, "block_size"))] = None,
    report: Annotated[str | None, typer.Option(help=help_of(FinetuneJob, "report"))] = None,
    json: Json = False,
) -> None:
    """Train a model on drawn labels."""
    execute(
        {
            "kind": "finetune",
            "inputs": inputs,
            "labels": labels_of(labels, layer, class_field, class_scheme),
            "base_model": base_model,
            "architecture": architecture,
            "encoder": encoder,
            "encoder_weights": encoder_weights,
            "encoder_keys": encoder_keys,
            "fusion": fusion,
            "size": size,
            "missing_inputs": missing_inputs,
            "mode": mode,
            "spread_labels": spread_labels,
            "self_training": self_training,
            "consistency": consistency,
            "epochs": epochs,
            "minutes": minutes,
            "seed": seed,
            "device": device,
            "validation_fraction": validation_fraction,
            "block_size": block_size,
            "output_model": output_model,
            "report": report,
        },
        json,
    )


@with_rasters
def pretrain(
    output_model: Annotated[str, typer.Option(help=help_of(PretrainJob, "output_model"))],
    inputs: Rasters,
    scenes: Annotated[
        str | None,
        typer.Option(
            help="Folder of further scenes: a folder each, whose rasters have the same file names as those given; a scene may "
            "lack some of them."
        ),
    ] = None,
    labels: Annotated[str | None, typer.Option(help=help_of(PretrainJob, "labels"))] = None,
    class_field: Annotated[str | None, typer.Option(help=help_of(Labels, "class_field"))] = None,
    layer: Layer = None,
    method: Annotated[str, typer.Option(help=help_of(PretrainJob, "method"))] = "latent_targets",
    setting: Annotated[str, typer.Option(help=help_of(PretrainJob, "setting"))] = "small",
    switch: Annotated[
        list[str] | None,
        typer.Option(help="A part of the method to switch, written name=value; may be given several times."),
    ] = None,
    architecture: Annotated[str | None, typer.Option(help=help_of(PretrainJob, "architecture"))] = None,
    encoder: Annotated[str | None, typer.Option(help=help_of(PretrainJob, "encoder"))] = None,
    size: Annotated[str | None, typer.Option(help=help_of(PretrainJob, "size"))] = None,
    initial_model: Annotated[str | None, typer.Option(help=help_of(PretrainJob, "initial_model"))] = None,
    epochs: Annotated[int | None, typer.Option(help=help_of(PretrainJob, "epochs"))] = None,
    minutes: Annotated[float | None, typer.Option(help=help_of(PretrainJob, "minutes"))] = None,
    windows: Annotated[int | None, typer.Option(help=help_of(PretrainJob, "windows"))] = None,
    batch_size: Annotated[int | None, typer.Option(help=help_of(PretrainJob, "batch_size"))] = None,
    accumulation: Annotated[int, typer.Option(help=help_of(PretrainJob, "accumulation"))] = 1,
    seed: Annotated[int, typer.Option(help=help_of(PretrainJob, "seed"))] = 0,
    device: Annotated[str, typer.Option(help=help_of(PretrainJob, "device"))] = "auto",
    report: Annotated[str | None, typer.Option(help=help_of(PretrainJob, "report"))] = None,
    json: Json = False,
) -> None:
    """Train a model on unlabelled scenes."""
    if (labels is None) != (class_field is None):
        raise typer.BadParameter("--labels and --class-field belong together: give both or none.")
    execute(
        {
            "kind": "pretrain",
            "scenes": [inputs],
            "scenes_folder": scenes,
            "labels": None if labels is None else labels_of(labels, layer, class_field or "", "auto"),
            "method": method,
            "setting": setting,
            "switches": dict(switch_of(text) for text in switch or []),
            "architecture": architecture,
            "encoder": encoder,
            "size": size,
            "initial_model": initial_model,
            "epochs": epochs,
            "minutes": minutes,
            "windows": windows,
            "batch_size": batch_size,
            "accumulation": accumulation,
            "seed": seed,
            "device": device,
            "output_model": output_model,
            "report": report,
        },
        json,
    )


@with_rasters
def distil(
    model: Annotated[str, typer.Option(help=help_of(DistilJob, "model"))],
    output_model: Annotated[str, typer.Option(help=help_of(DistilJob, "output_model"))],
    inputs: Rasters,
    epochs: Annotated[int, typer.Option(help=help_of(DistilJob, "epochs"))] = 12,
    minutes: Annotated[float | None, typer.Option(help=help_of(DistilJob, "minutes"))] = None,
    windows: Annotated[int | None, typer.Option(help=help_of(DistilJob, "windows"))] = None,
    seed: Annotated[int, typer.Option(help=help_of(DistilJob, "seed"))] = 0,
    device: Annotated[str, typer.Option(help=help_of(DistilJob, "device"))] = "auto",
    json: Json = False,
) -> None:
    """Make a model of half the width that maps like a given one."""
    execute(
        {
            "kind": "distil",
            "inputs": inputs,
            "model": model,
            "epochs": epochs,
            "minutes": minutes,
            "windows": windows,
            "seed": seed,
            "device": device,
            "output_model": output_model,
        },
        json,
    )
