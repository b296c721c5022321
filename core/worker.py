"""The worker process: runs one job for QGIS and speaks events on stdout.

Started as ``python -I .../core/worker.py job.json``; ``--check`` in place of a job says hello and ends. The line ``cancel``
on stdin is the user's wish to stop, after which nothing is left behind. It also stops when its stdin closes without a word,
which is what happens when QGIS dies: then the same job can go on later from what is finished.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

CANCEL = b"cancel"

JOB_MODULES = {
    "assessment": ("accuracy", "sampling_design"),
    "change": ("detection",),
    "labelling": ("label_suggestions", "pseudolabels"),
    "learning": ("distillation", "finetune", "pretrain"),
    "mapping": ("feature_raster", "land_cover_map", "sample_scene"),
    "products": ("change", "cleaning", "polygons", "zonal_areas"),
    "scenes": ("classification",),
}
"""Of the jobs that QGIS asks for, by their room."""


def main(arguments: list[str]) -> int:
    """Runs the job in the file that is the only argument; returns the exit code."""
    # Isolated mode keeps the script's folder off the path; the package that holds this file is the one to run.
    folder = str(Path(__file__).resolve().parents[1])
    sys.path.insert(0, folder)
    import core

    # Its neighbours in the plugin's folder have names that libraries might import by mistake.
    sys.path.remove(folder)
    # Libraries print; the events keep the real stdout to themselves.
    events = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
    os.dup2(2, 1)
    # And at once: what stands in a buffer when the process ends would be lost.
    sys.stdout = sys.stderr

    from core.jobs import process

    process.begin()

    from core.jobs.events import PROTOCOL, JobContext, json_lines

    context = JobContext(json_lines(events))
    if len(arguments) != 1:
        context.send(
            {"event": "error", "kind": "UsageError", "message": "The worker takes one argument: a job file.", "hint": ""}
        )
        return 2

    from core.jobs.runner import report_failure, run_and_report
    from core.jobs.stopping import Stopper

    with Stopper(context) as stopper:
        try:
            if arguments[0] != "--check":
                threading.Thread(target=_watch_stdin, args=(stopper.stop,), daemon=True).start()
            context.send(_hello(PROTOCOL, core.__version__))
            if arguments[0] == "--check":
                _check_imports()
                return 0
            from core.jobs.schemas import read_job

            stopper.job = read_job(Path(arguments[0]))
        except (Exception, KeyboardInterrupt) as error:
            return report_failure(error, context)
        return run_and_report(stopper.job, context)


def _hello(protocol: int, version: str) -> dict[str, Any]:
    import torch

    from core.jobs.devices import choose_device, describe_device

    return {
        "event": "hello",
        "protocol": protocol,
        "version": version,
        "python": ".".join(map(str, sys.version_info[:3])),
        "torch": torch.__version__,
        "device": describe_device(choose_device("auto")),
    }


def _watch_stdin(stop: Callable[[bool], object]) -> None:
    """Stops the job when stdin says so or closes; ``stop`` is told whether the job may go on later."""
    said = b""
    # A stdin that was never open says the same as one that closes.
    with suppress(OSError):
        while CANCEL not in said.splitlines() and (read := os.read(0, 4096)):
            said += read
    stop(CANCEL not in said.splitlines())


def _check_imports() -> None:
    """Imports what jobs need, so that a broken environment is found when it is built and not with the first job.

    Not the export: its packages are no part of the plugin's environment, and its job says so itself.
    """
    for room, modules in JOB_MODULES.items():
        for module in modules:
            importlib.import_module(f"core.jobs.{room}.{module}")


if __name__ == "__main__":
    # Without the clean-up of libraries, whose threads can hang at the end: all files are closed by now.
    try:
        code = main(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    sys.stderr.flush()
    os._exit(code)
