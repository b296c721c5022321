"""The worker process: runs one job for QGIS and speaks events on stdout.

Started as ``python -I .../core/worker.py job.json``; ``--check`` in place of a job says hello and ends. It stops when
its stdin closes: that is how the plugin cancels, and what happens when QGIS dies.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

GRACE_SECONDS = 30.0
"""A step that does not come to its end within this time after a cancellation is abandoned with the process."""


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

    from core.jobs.threads import yield_while_waiting

    yield_while_waiting()

    from core.jobs.events import PROTOCOL, JobContext, json_lines

    context = JobContext(json_lines(events))
    if len(arguments) != 1:
        context.send(
            {"event": "error", "kind": "UsageError", "message": "The worker takes one argument: a job file.", "hint": ""}
        )
        return 2
    if arguments[0] != "--check":
        threading.Thread(target=_watch_stdin, args=(context.cancel,), daemon=True).start()

    from core.jobs.runner import report_failure, run_and_report

    try:
        import torch

        from core.jobs.devices import choose_device, describe_device
        from core.jobs.schemas import read_job

        context.send(
            {
                "event": "hello",
                "protocol": PROTOCOL,
                "version": core.__version__,
                "python": ".".join(map(str, sys.version_info[:3])),
                "torch": torch.__version__,
                "device": describe_device(choose_device("auto")),
            }
        )
        if arguments[0] == "--check":
            _check_imports()
            return 0
        job = read_job(Path(arguments[0]))
    except Exception as error:
        return report_failure(error, context)
    return run_and_report(job, context)


def _watch_stdin(cancel: Callable[[], None]) -> None:
    while True:
        try:
            if not os.read(0, 4096):
                break
        except OSError:
            break

    cancel()
    time.sleep(GRACE_SECONDS)
    os._exit(130)


def _check_imports() -> None:
    """Imports what jobs need, so that a broken environment is found when it is built and not with the first job."""
    import core.jobs.accuracy_assessment
    import core.jobs.finetune
    import core.jobs.land_cover_map
    import core.jobs.sample_scene  # noqa: F401


if __name__ == "__main__":
    # Without the clean-up of libraries, whose threads can hang at the end: all files are closed by now.
    code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)
