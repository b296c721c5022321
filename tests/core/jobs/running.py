"""Ways to run jobs, and to make rasters that are wrong in one respect."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
RSFUSION = [sys.executable, "-c", "from core.cli import main; main()"]
EPOCH = "1700000000"
"""``SOURCE_DATE_EPOCH`` of everything that is compared byte for byte."""


def strict_json(line: str) -> Any:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    return json.loads(line, parse_constant=refuse)


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every file below a folder, hidden ones included, with its bytes; folders have None."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@dataclass
class Told:
    """What a job said and how it ended."""

    code: int
    events: list[dict[str, Any]] = field(default_factory=list)
    stderr: str = ""

    @property
    def last(self) -> dict[str, Any]:
        return self.events[-1]

    @property
    def outputs(self) -> dict[str, Any]:
        assert self.last["event"] == "result", self.last
        return self.last["outputs"]

    @property
    def message(self) -> str:
        assert self.last["event"] == "error", self.last
        return f"{self.last['message']} {self.last['hint']}"

    def texts(self, level: str) -> str:
        return "\n".join(event["text"] for event in self.events if event["event"] == "log" and event["level"] == level)

    @property
    def fractions(self) -> list[float]:
        return [event["fraction"] for event in self.events if event["event"] == "progress"]


def run_here(job: dict[str, Any], on_event: Callable[[Any, dict[str, Any]], None] | None = None) -> Told:
    """Runs a job in this process, with strict JSON as on the wire.

    Args:
        job: plain data.
        on_event: called with the job's context and every event.
    """
    from core.jobs.events import JobContext
    from core.jobs.runner import report_failure, run_and_report
    from core.jobs.schemas import parse_job

    told = Told(0)

    def sink(event: dict[str, Any]) -> None:
        told.events.append(strict_json(json.dumps(event, allow_nan=False)))
        if on_event is not None:
            on_event(context, event)

    context = JobContext(sink)
    try:
        parsed = parse_job(job)
    except Exception as error:
        told.code = report_failure(error, context)
        return told
    told.code = run_and_report(parsed, context)
    return told


def run_command(*arguments: str, **options: Any) -> Told:
    """Runs ``rsfusion ARGUMENTS --json`` in a process of its own."""
    done = subprocess.run(
        [*RSFUSION, *arguments, "--json"],
        cwd=options.pop("cwd", ROOT),
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE", "SOURCE_DATE_EPOCH": EPOCH},
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )
    return Told(done.returncode, [strict_json(line) for line in done.stdout.splitlines()], done.stderr)


def check_refused(job: dict[str, Any], folder: Path, *words: str, code: int = 1) -> Told:
    """Runs a job that has to fail: a clear error with these words, and not a byte below the folder changes."""
    before = snapshot(folder)
    told = run_here(job)
    assert told.code == code, told.events[-1]
    assert "traceback" not in told.last, told.last["traceback"]
    for word in words:
        assert word in told.message, (word, told.message)
    assert told.last["hint"] or code == 2, told.last
    assert snapshot(folder) == before
    return told


@dataclass(frozen=True)
class Trained:
    """A model and what was said while it was trained.

    Attributes:
        model, report: paths.
        job: plain data.
        told: by ``rsfusion finetune --json``.
    """

    model: Path
    report: Path
    job: dict[str, Any]
    told: Told


def rewrite_raster(
    source: Path, target: Path, change: Callable[[Any, dict[str, Any]], Any] | None = None, **profile: Any
) -> str:
    """A copy of a raster with other values or another profile; names of bands and tags stay.

    Args:
        source, target: paths.
        change: gets the values and the profile, returns the values to write.
        profile: entries that replace the source's.
    """
    import rasterio

    with rasterio.open(source) as dataset:
        values, settings = dataset.read(), {**dataset.profile, **profile}
        names, tags = dataset.descriptions, dataset.tags()
    if change is not None:
        values = change(values, settings)
    settings.update(count=values.shape[0], height=values.shape[1], width=values.shape[2], dtype=values.dtype)
    for key in ("predictor", "compress", "tiled", "blockxsize", "blockysize", "interleave"):
        settings.pop(key, None)
    with rasterio.open(target, "w", **settings) as dataset:
        dataset.write(values)
        if len(names) == values.shape[0]:
            dataset.descriptions = names
        dataset.update_tags(**tags)
    return str(target)
