"""Who, what and when, for every file that a job writes."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import core
from core.scenes.raster_file import files_of
from core.scenes.scene import Scene, SourceFile


def creation_time() -> str:
    """Now in UTC, ISO 8601 to the second; ``SOURCE_DATE_EPOCH`` instead of now where it is set.

    The variable is the convention of reproducible builds: with it two runs give the same bytes.
    """
    fixed = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.fromtimestamp(int(fixed), UTC) if fixed else datetime.now(UTC)
    return moment.isoformat(timespec="seconds")


def input_names(scene: Scene) -> dict[str, list[str]]:
    """File names by acquisition, without their folders, which say more of the user than of the data."""
    return {acquisition.name: [Path(path).name for path in acquisition.paths] for acquisition in scene.acquisitions}


def software() -> dict[str, str]:
    """Versions that a result depends on."""
    from importlib.metadata import version

    names = ("torch", "rasterio", "pyproj", "scikit-learn", "onnxruntime", "numpy")
    return {"rsfusion": core.__version__, "python": platform.python_version(), **{name: version(name) for name in names}}


def file_state(path: str) -> list[int] | None:
    """Size and time of change of a file; None for what is no file of this machine."""
    if path.startswith("/vsizip/"):
        path = path.removeprefix("/vsizip/").partition(".zip")[0] + ".zip"
    status = os.stat(path) if os.path.exists(path) else None
    return [status.st_size, status.st_mtime_ns] if status else None


def source_state(source: SourceFile) -> list[Any]:
    """What tells a raster from another one of the same name: of its files the size and time of change; of what lies elsewhere,
    and has neither, the values looked at before anything is read.
    """
    states = [file_state(path) for path in files_of(source.raster.path)]
    if None not in states:
        return states
    description = source.raster.description
    digest = hashlib.sha256(b"" if description.sample is None else np.ascontiguousarray(description.sample).tobytes())
    digest.update(json.dumps([source.raster.width, source.raster.height, description.tags], default=str).encode())
    return [*states, digest.hexdigest()]


def run_identity(parts: Iterable[Any], paths: Iterable[str]) -> str:
    """A digest of everything that a run depends on: plain values, and files by name, size and time of change."""
    files = [[path, *(file_state(path) or [])] for path in paths]
    text = json.dumps([list(parts), files, software()], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
