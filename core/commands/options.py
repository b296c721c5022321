"""Options that several commands have, and how they become parts of a job."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from core.jobs.schemas import Inputs, Labels


def help_of(schema: Any, name: str) -> str:
    return str(schema.model_fields[name].description)


def inputs_option(name: str) -> Any:
    return typer.Option(help=help_of(Inputs, name) + " May be given several times.")


Optical = Annotated[list[str] | None, inputs_option("optical")]
Sar = Annotated[list[str] | None, inputs_option("sar")]
Elevation = Annotated[list[str] | None, inputs_option("elevation")]
Other = Annotated[list[str] | None, inputs_option("other")]
OpticalSensor = Annotated[str, typer.Option(help=help_of(Inputs, "optical_sensor"))]
SarSensor = Annotated[str, typer.Option(help=help_of(Inputs, "sar_sensor"))]
ElevationSensor = Annotated[str, typer.Option(help=help_of(Inputs, "elevation_sensor"))]
OtherSensor = Annotated[str, typer.Option(help=help_of(Inputs, "other_sensor"))]
Resolution = Annotated[float | None, typer.Option(help=help_of(Inputs, "resolution"))]
Sentinel2OffsetOption = Annotated[str, typer.Option(help=help_of(Inputs, "sentinel2_offset"))]
ClassField = Annotated[str, typer.Option(help=help_of(Labels, "class_field"))]
Layer = Annotated[str | None, typer.Option(help=help_of(Labels, "layer"))]
ClassSchemeOption = Annotated[str, typer.Option(help=help_of(Labels, "class_scheme"))]
Json = Annotated[bool, typer.Option("--json", help="Print events, one JSON object a line, instead of progress bars.")]


def inputs_of(options: dict[str, Any]) -> dict[str, Any]:
    """The inputs among a command's options; lists that were not given are empty."""
    roles = ("optical", "sar", "elevation", "other")
    return {name: options[name] or [] if name in roles else options[name] for name in Inputs.model_fields}


def switch_of(text: str) -> tuple[str, str]:
    """A switch as it is written: ``name=value``."""
    name, is_given, value = text.partition("=")
    if not is_given:
        raise typer.BadParameter(f"'{text}' is not name=value.")
    return name.strip(), value.strip()


def labels_of(path: str, layer: str | None, class_field: str, class_scheme: str) -> dict[str, Any]:
    return {"path": path, "layer": layer, "class_field": class_field, "class_scheme": class_scheme}


def extent_of(text: str | None) -> dict[str, Any] | None:
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
