"""The command line: the jobs of ``core.jobs.schemas`` as commands, with the same keys.

Exit codes: 0 done, 1 failed, 2 wrong use, 130 cancelled.
"""

from __future__ import annotations

import os
import sys
from json import dumps
from pathlib import Path
from typing import Annotated, Any

import typer

import core
from core.errors import RsfusionError
from core.jobs.events import Event, JobContext, Sink, errors_only, json_lines
from core.jobs.schemas import (
    AccuracyJob,
    FeaturesJob,
    FinetuneJob,
    Inputs,
    Labels,
    MapJob,
    PretrainJob,
    SampleSceneJob,
    parse_job,
    read_job,
)
from core.jobs.threads import yield_while_waiting
from core.pretraining.launch import rank

app = typer.Typer(
    name="rsfusion",
    help="Land-cover maps from whatever sensors see the ground.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _help(schema: Any, name: str) -> str:
    return str(schema.model_fields[name].description)


def _inputs_option(name: str) -> Any:
    return typer.Option(help=_help(Inputs, name) + " May be given several times.")


Optical = Annotated[list[str] | None, _inputs_option("optical")]
Sar = Annotated[list[str] | None, _inputs_option("sar")]
Elevation = Annotated[list[str] | None, _inputs_option("elevation")]
Other = Annotated[list[str] | None, _inputs_option("other")]
OpticalSensor = Annotated[str, typer.Option(help=_help(Inputs, "optical_sensor"))]
SarSensor = Annotated[str, typer.Option(help=_help(Inputs, "sar_sensor"))]
ElevationSensor = Annotated[str, typer.Option(help=_help(Inputs, "elevation_sensor"))]
OtherSensor = Annotated[str, typer.Option(help=_help(Inputs, "other_sensor"))]
Resolution = Annotated[float | None, typer.Option(help=_help(Inputs, "resolution"))]
Sentinel2OffsetOption = Annotated[str, typer.Option(help=_help(Inputs, "sentinel2_offset"))]
ClassField = Annotated[str, typer.Option(help=_help(Labels, "class_field"))]
Layer = Annotated[str | None, typer.Option(help=_help(Labels, "layer"))]
ClassSchemeOption = Annotated[str, typer.Option(help=_help(Labels, "class_scheme"))]
Json = Annotated[bool, typer.Option("--json", help="Print events, one JSON object a line, instead of progress bars.")]


@app.command("sample-scene")
def sample_scene(
    output: Annotated[str, typer.Argument(help=_help(SampleSceneJob, "output"))],
    size: Annotated[int, typer.Option(help=_help(SampleSceneJob, "size"))] = 500,
    seed: Annotated[int, typer.Option(help=_help(SampleSceneJob, "seed"))] = 0,
    json: Json = False,
) -> None:
    """Write a simulated scene with rasters, truth and polygons."""
    _execute({"kind": "sample-scene", "output": output, "size": size, "seed": seed}, json)


@app.command()
def finetune(
    labels: Annotated[str, typer.Option(help=_help(Labels, "path"))],
    class_field: ClassField,
    output_model: Annotated[str, typer.Option(help=_help(FinetuneJob, "output_model"))],
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
    layer: Layer = None,
    class_scheme: ClassSchemeOption = "auto",
    base_model: Annotated[str | None, typer.Option(help=_help(FinetuneJob, "base_model"))] = None,
    architecture: Annotated[str, typer.Option(help=_help(FinetuneJob, "architecture"))] = "unet_intermediate",
    encoder: Annotated[str | None, typer.Option(help=_help(FinetuneJob, "encoder"))] = None,
    encoder_weights: Annotated[str | None, typer.Option(help=_help(FinetuneJob, "encoder_weights"))] = None,
    encoder_keys: Annotated[str, typer.Option(help=_help(FinetuneJob, "encoder_keys"))] = "auto",
    fusion: Annotated[str | None, typer.Option(help=_help(FinetuneJob, "fusion"))] = None,
    size: Annotated[str | None, typer.Option(help=_help(FinetuneJob, "size"))] = None,
    missing_inputs: Annotated[str, typer.Option(help=_help(FinetuneJob, "missing_inputs"))] = "allow",
    mode: Annotated[str, typer.Option(help=_help(FinetuneJob, "mode"))] = "auto",
    epochs: Annotated[int, typer.Option(help=_help(FinetuneJob, "epochs"))] = 24,
    seed: Annotated[int, typer.Option(help=_help(FinetuneJob, "seed"))] = 0,
    device: Annotated[str, typer.Option(help=_help(FinetuneJob, "device"))] = "auto",
    validation_fraction: Annotated[float, typer.Option(help=_help(FinetuneJob, "validation_fraction"))] = 0.3,
    block_size: Annotated[float | None, typer.Option(help=_help(FinetuneJob, "block_size"))] = None,
    report: Annotated[str | None, typer.Option(help=_help(FinetuneJob, "report"))] = None,
    json: Json = False,
) -> None:
    """Train a model on drawn labels."""
    inputs = _inputs(locals())
    _execute(
        {
            "kind": "finetune",
            "inputs": inputs,
            "labels": _labels(labels, layer, class_field, class_scheme),
            "base_model": base_model,
            "architecture": architecture,
            "encoder": encoder,
            "encoder_weights": encoder_weights,
            "encoder_keys": encoder_keys,
            "fusion": fusion,
            "size": size,
            "missing_inputs": missing_inputs,
            "mode": mode,
            "epochs": epochs,
            "seed": seed,
            "device": device,
            "validation_fraction": validation_fraction,
            "block_size": block_size,
            "output_model": output_model,
            "report": report,
        },
        json,
    )


@app.command()
def pretrain(
    output_model: Annotated[str, typer.Option(help=_help(PretrainJob, "output_model"))],
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
    scenes: Annotated[
        str | None,
        typer.Option(
            help="Folder of further scenes: a folder each, whose rasters have the same file names as those given; a scene may "
            "lack some of them."
        ),
    ] = None,
    labels: Annotated[str | None, typer.Option(help=_help(PretrainJob, "labels"))] = None,
    class_field: Annotated[str | None, typer.Option(help=_help(Labels, "class_field"))] = None,
    layer: Layer = None,
    method: Annotated[str, typer.Option(help=_help(PretrainJob, "method"))] = "latent_targets",
    setting: Annotated[str, typer.Option(help=_help(PretrainJob, "setting"))] = "small",
    switch: Annotated[
        list[str] | None,
        typer.Option(help="A part of the method to switch, written name=value; may be given several times."),
    ] = None,
    architecture: Annotated[str | None, typer.Option(help=_help(PretrainJob, "architecture"))] = None,
    encoder: Annotated[str | None, typer.Option(help=_help(PretrainJob, "encoder"))] = None,
    size: Annotated[str | None, typer.Option(help=_help(PretrainJob, "size"))] = None,
    initial_model: Annotated[str | None, typer.Option(help=_help(PretrainJob, "initial_model"))] = None,
    epochs: Annotated[int | None, typer.Option(help=_help(PretrainJob, "epochs"))] = None,
    minutes: Annotated[float | None, typer.Option(help=_help(PretrainJob, "minutes"))] = None,
    windows: Annotated[int | None, typer.Option(help=_help(PretrainJob, "windows"))] = None,
    batch_size: Annotated[int | None, typer.Option(help=_help(PretrainJob, "batch_size"))] = None,
    accumulation: Annotated[int, typer.Option(help=_help(PretrainJob, "accumulation"))] = 1,
    seed: Annotated[int, typer.Option(help=_help(PretrainJob, "seed"))] = 0,
    device: Annotated[str, typer.Option(help=_help(PretrainJob, "device"))] = "auto",
    report: Annotated[str | None, typer.Option(help=_help(PretrainJob, "report"))] = None,
    json: Json = False,
) -> None:
    """Train a model on unlabelled scenes."""
    if (labels is None) != (class_field is None):
        raise typer.BadParameter("--labels and --class-field belong together: give both or none.")
    _execute(
        {
            "kind": "pretrain",
            "scenes": [_inputs(locals())],
            "scenes_folder": scenes,
            "labels": None if labels is None else _labels(labels, layer, class_field or "", "auto"),
            "method": method,
            "setting": setting,
            "switches": dict(_switch(text) for text in switch or []),
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


@app.command()
def features(
    model: Annotated[str, typer.Option(help=_help(FeaturesJob, "model"))],
    output: Annotated[str, typer.Option(help=_help(FeaturesJob, "output"))],
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
    components: Annotated[int, typer.Option(help=_help(FeaturesJob, "components"))] = 0,
    picture: Annotated[bool, typer.Option("--picture", help=_help(FeaturesJob, "picture"))] = False,
    extent: Annotated[
        str | None, typer.Option(help=_help(FeaturesJob, "extent") + " Written left,right,bottom,top [EPSG:code].")
    ] = None,
    overlap: Annotated[float, typer.Option(help=_help(FeaturesJob, "overlap"))] = 0.25,
    device: Annotated[str, typer.Option(help=_help(FeaturesJob, "device"))] = "auto",
    format: Annotated[str, typer.Option(help=_help(FeaturesJob, "format"))] = "gtiff",
    json: Json = False,
) -> None:
    """Write what a model knows of each pixel, before it says a class."""
    inputs = _inputs(locals())
    _execute(
        {
            "kind": "features",
            "inputs": inputs,
            "model": model,
            "components": components,
            "picture": picture,
            "extent": _extent(extent),
            "overlap": overlap,
            "device": device,
            "format": format,
            "output": output,
        },
        json,
    )


@app.command("map")
def map_scene(
    model: Annotated[str, typer.Option(help=_help(MapJob, "model"))],
    output: Annotated[str, typer.Option(help=_help(MapJob, "output"))],
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
        str | None, typer.Option(help=_help(MapJob, "extent") + " Written left,right,bottom,top [EPSG:code].")
    ] = None,
    mask: Annotated[str | None, typer.Option(help=_help(MapJob, "mask"))] = None,
    overlap: Annotated[float, typer.Option(help=_help(MapJob, "overlap"))] = 0.25,
    device: Annotated[str, typer.Option(help=_help(MapJob, "device"))] = "auto",
    missing_inputs: Annotated[str, typer.Option(help=_help(MapJob, "missing_inputs"))] = "allow",
    format: Annotated[str, typer.Option(help=_help(MapJob, "format"))] = "gtiff",
    confidence: Annotated[str | None, typer.Option(help=_help(MapJob, "confidence"))] = None,
    probabilities: Annotated[str | None, typer.Option(help=_help(MapJob, "probabilities"))] = None,
    json: Json = False,
) -> None:
    """Map a scene with a model."""
    inputs = _inputs(locals())
    _execute(
        {
            "kind": "map",
            "inputs": inputs,
            "model": model,
            "extent": _extent(extent),
            "mask": mask,
            "overlap": overlap,
            "device": device,
            "missing_inputs": missing_inputs,
            "format": format,
            "output": output,
            "confidence": confidence,
            "probabilities": probabilities,
        },
        json,
    )


@app.command()
def assess(
    map_: Annotated[str, typer.Option("--map", help=_help(AccuracyJob, "map"))],
    reference: Annotated[str, typer.Option(help=_help(Labels, "path"))],
    class_field: ClassField,
    layer: Layer = None,
    report: Annotated[str | None, typer.Option(help=_help(AccuracyJob, "report"))] = None,
    json: Json = False,
) -> None:
    """Compare a map with reference polygons or points."""
    _execute(
        {
            "kind": "accuracy",
            "map": map_,
            "reference": _labels(reference, layer, class_field, "auto"),
            "report": report,
        },
        json,
    )


@app.command()
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
    from core.jobs.model_listing import model_data, model_text, models_data, models_text

    try:
        data = models_data(modalities, resolution, every) if model is None else model_data(model)
    except RsfusionError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(error.exit_code) from None
    text = model_text if model is not None else models_text
    typer.echo(dumps(data, indent=1) if json else text(data))


@app.command()
def methods(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """List the ways of pre-training, when to use which, and what of each can be switched."""
    from core.jobs.method_listing import methods_data, methods_text

    data = methods_data()
    typer.echo(dumps(data, indent=1) if json else methods_text(data))


@app.command()
def run(
    job: Annotated[Path, typer.Argument(help="JSON file with a job, as the other commands and QGIS make it.")],
    json: Json = False,
) -> None:
    """Run a job from its file."""
    _execute(job, json)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(core.__version__)


def _inputs(options: dict[str, Any]) -> dict[str, Any]:
    """The inputs among a command's options; lists that were not given are empty."""
    roles = ("optical", "sar", "elevation", "other")
    return {name: options[name] or [] if name in roles else options[name] for name in Inputs.model_fields}


def _switch(text: str) -> tuple[str, str]:
    """A switch as it is written: ``name=value``."""
    name, is_given, value = text.partition("=")
    if not is_given:
        raise typer.BadParameter(f"'{text}' is not name=value.")
    return name.strip(), value.strip()


def _labels(path: str, layer: str | None, class_field: str, class_scheme: str) -> dict[str, Any]:
    return {"path": path, "layer": layer, "class_field": class_field, "class_scheme": class_scheme}


def _extent(text: str | None) -> dict[str, Any] | None:
    """An extent as QGIS writes it: ``left,right,bottom,top [EPSG:code]``."""
    if text is None:
        return None
    numbers, _, crs = text.partition("[")
    try:
        left, right, bottom, top = (float(part) for part in numbers.split(","))
    except ValueError:
        raise typer.BadParameter(f"'{text}' is not left,right,bottom,top [EPSG:code].") from None
    # One bracket only: a system in WKT ends in brackets of its own.
    crs = crs.strip().removesuffix("]").strip()
    if not crs:
        raise typer.BadParameter(f"'{text}' lacks its coordinate reference system: left,right,bottom,top [EPSG:code].")
    return {"left": left, "right": right, "bottom": bottom, "top": top, "crs": crs}


class _ProgressBar:
    """A sink that draws a bar for progress and prints what is said above it."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=100, bar_format="{percentage:3.0f}% |{bar:24}| {elapsed} {desc}", file=sys.stderr)

    def __call__(self, event: Event) -> None:
        match event["event"]:
            case "progress":
                if event["phase"]:
                    self._bar.set_description_str(event["phase"], refresh=False)
                self._bar.update(100 * event["fraction"] - self._bar.n)
            case "log":
                prefix = "Warning: " if event["level"] == "warning" else ""
                self._bar.write(prefix + event["text"], file=sys.stderr)
            case "result":
                self._bar.close()
                for key, value in event["outputs"].items():
                    if value != "":
                        typer.echo(f"{key}: {value}")
            case "error":
                self._bar.close()
                typer.echo(event.get("traceback", ""), err=True, nl=False)
                typer.echo(f"Error: {event['message']} {event['hint']}".rstrip(), err=True)
            case "cancelled":
                self._bar.close()
                typer.echo("Cancelled.", err=True)


def _execute(job: dict[str, Any] | Path, as_json: bool) -> None:
    """Runs a job and ends the process with its exit code. Ctrl-C stops it."""
    from core.jobs.runner import report_failure, run_and_report
    from core.jobs.stopping import Stopper

    sink = _json_sink() if as_json else _ProgressBar()
    # Of processes that train together one speaks, unless another fails.
    context = JobContext(sink if rank() == 0 else errors_only(sink))
    try:
        with Stopper(context) as stopper:
            try:
                stopper.job = read_job(job) if isinstance(job, Path) else parse_job(job)
            except (Exception, KeyboardInterrupt) as error:
                raise typer.Exit(report_failure(error, context)) from None
            code = run_and_report(stopper.job, context)
    except KeyboardInterrupt:
        code = 130
    raise typer.Exit(code)


def _json_sink() -> Sink:
    # A job's paths are not bound to the code page of a Windows console, nor to valid text.
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    return json_lines(sys.stdout)


def main() -> None:
    """Entry point of the command ``rsfusion``."""
    yield_while_waiting()
    try:
        app()
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever read the events has gone; Python would complain once more about it at its own end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
