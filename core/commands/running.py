"""Runs the job of a command, and shows how it goes on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from core.commands.options import Json
from core.jobs.events import Event, JobContext, Sink, errors_only, json_lines
from core.jobs.schemas import parse_job, read_job
from core.pretraining.launch import rank


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


def execute(job: dict[str, Any] | Path, as_json: bool) -> None:
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


def run(
    job: Annotated[Path, typer.Argument(help="JSON file with a job, as the other commands and QGIS make it.")],
    json: Json = False,
) -> None:
    """Run a job from its file."""
    execute(job, json)
