"""One pydantic schema a job: what the plugin, the command line and a file ask for.

The descriptions are the help texts of the command line. Nothing here imports torch, rasterio or pandas.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from core.errors import UsageError
from core.jobs.schemas.assessment import AccuracyJob, SamplingDesignJob
from core.jobs.schemas.change import DetectChangeJob
from core.jobs.schemas.inputs import ClassEntry, Extent, Inputs, Labels
from core.jobs.schemas.labelling import PseudolabelsJob, SuggestLabelsJob
from core.jobs.schemas.learning import BASE_MODES, DistilJob, FinetuneJob, ModeName, PretrainJob
from core.jobs.schemas.mapping import MAP_LAYERS, ExportJob, FeaturesJob, MapJob, SampleSceneJob
from core.jobs.schemas.products import ChangeMapJob, CleanMapJob, VectorizeMapJob, ZonalAreasJob, Zones
from core.jobs.schemas.scenes import ClassifyScenesJob

__all__ = [
    "BASE_MODES",
    "MAP_LAYERS",
    "AccuracyJob",
    "AnyJob",
    "ChangeMapJob",
    "ClassEntry",
    "ClassifyScenesJob",
    "CleanMapJob",
    "DetectChangeJob",
    "DistilJob",
    "ExportJob",
    "Extent",
    "FeaturesJob",
    "FinetuneJob",
    "Inputs",
    "Labels",
    "MapJob",
    "ModeName",
    "PretrainJob",
    "PseudolabelsJob",
    "SampleSceneJob",
    "SamplingDesignJob",
    "SuggestLabelsJob",
    "VectorizeMapJob",
    "ZonalAreasJob",
    "Zones",
    "describe",
    "parse_job",
    "read_job",
]

AnyJob = (
    SampleSceneJob
    | PretrainJob
    | FinetuneJob
    | DistilJob
    | MapJob
    | FeaturesJob
    | ExportJob
    | AccuracyJob
    | SamplingDesignJob
    | SuggestLabelsJob
    | PseudolabelsJob
    | ClassifyScenesJob
    | CleanMapJob
    | VectorizeMapJob
    | ZonalAreasJob
    | ChangeMapJob
    | DetectChangeJob
)
Job = Annotated[AnyJob, Field(discriminator="kind")]
_ADAPTER: TypeAdapter[AnyJob] = TypeAdapter(Job)


def parse_job(value: Any) -> AnyJob:
    """A job from the plain data of its JSON file.

    Raises:
        UsageError: a key is missing, unknown or out of range; the message names it.
    """
    try:
        return _ADAPTER.validate_python(value)
    except ValidationError as error:
        raise UsageError(describe(error)) from None


def read_job(path: Path) -> AnyJob:
    """A job from its JSON file.

    Raises:
        UsageError: the file is missing, is not JSON, or is no job.
    """
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"The job file '{path}' cannot be read: {error.strerror}.") from None
    except ValidationError as error:
        raise UsageError(f"'{path}' is not a job: {describe(error)}") from None


def describe(error: ValidationError) -> str:
    """What pydantic found, a line a field, without its addresses and codes."""
    lines = []
    for entry in error.errors(include_url=False, include_context=False):
        place = ".".join(str(part) for part in entry["loc"]) or "job"
        given = entry["input"]
        shown = f" (got {given!r})" if isinstance(given, str | int | float) and entry["type"] != "json_invalid" else ""
        lines.append(f"{place}: {entry['msg'].removeprefix('Value error, ')}{shown}")
    return "; ".join(lines)
