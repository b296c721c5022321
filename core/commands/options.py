"""Options that several commands have, and how they become parts of a job."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from core.jobs.schemas import Inputs, Labels


def help_of(schema: Any, name: str) -> str:
    return str(schema.model_fields[name].description)


ROLES = ("optical", "sar", "elevation", "other")
"""The inputs that are lists of rasters."""

Rasters = dict[str, Any]
"""The inputs of a job, as ``with_rasters`` gives them to a command."""

ClassField = Annotated[str, typer.Option(help=help_of(Labels, "class_field"))]
Layer = Annotated[str | None, typer.Option(help=help_of(Labels, "layer"))]
ClassSchemeOption = Annotated[str, typer.Option(help=help_of(Labels, "class_scheme"))]
Json = Annotated[bool, typer.Option("--json", help="Print events, one JSON object a line, instead of progress bars.")]


def with_rasters(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options that say which rasters to read, in the place of its parameter ``inputs``, which gets what
    they say."""
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        parameters.extend(_RASTER_OPTIONS if parameter.name == "inputs" else [parameter])

    @functools.wraps(command)
    def filled(**given: Any) -> None:
        inputs = {name: given.pop(name) for name in Inputs.model_fields}
        # Lists that were not given are empty.
        command(**given, inputs=inputs | {role: inputs[role] or [] for role in ROLES})

    named = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    filled.__signature__ = inspect.Signature(named, return_annotation=None)  # type: ignore[attr-defined]
    filled.__annotations__ = {parameter.name: parameter.annotation for parameter in named}
    return filled


def _raster_option(name: str) -> inspect.Parameter:
    several = " May be given several times." if name in ROLES else ""
    option = typer.Option(help=help_of(Inputs, name) + several)
    kind: Any = list[str] | None if name in ROLES else float | None if name == "resolution" else str
    default = None if name in ROLES else Inputs.model_fields[name].default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])


_RASTER_OPTIONS = [_raster_option(name) for name in Inputs.model_fields]


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
