"""A map by several processes, on this machine or on many: parts of it are tasks of Dask.

Every worker reads model and rasters itself, by the paths of the job, and sends back strips as they are written. They are
put together here, so that a map does not depend on how many made it.
"""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from numpy.typing import NDArray

from core.errors import RsfusionError, UsageError
from core.jobs.events import JobContext
from core.jobs.map_assembly import MapAssembly, runs_of
from core.jobs.map_layers import encoded_strip
from core.jobs.map_preparation import PreparedMap, prepare_map
from core.jobs.schemas import MapJob
from core.scenes.grid import Window

Strips = list[tuple[Window, list[NDArray[Any]]]]

TASKS_A_WORKER = 8
"""So many at least, where there are as many strips: none is left with nothing to do for long at the end."""

STRAGGLES_AFTER = 3.0
"""A task that takes so many times as long as half of the others is given to an idle worker, too; the first answer counts."""

CONNECTION_SECONDS = 20
"""How long a scheduler may take to answer."""
WORKER_SECONDS = 60
"""How long it may take until a worker is there."""

_RETRIES = 5
_prepared: dict[str, PreparedMap] = {}
"""Of this worker: the map that it is busy with."""


def map_with_workers(
    prepared: PreparedMap, missing: list[Window], assembly: MapAssembly, done: Callable[[Window], None], context: JobContext
) -> None:
    """Has workers map strips.

    Args:
        prepared: the map.
        missing: windows of its strips.
        assembly: takes them.
        done: is told of every strip.
        context: of the job; a cancelled one leaves no process behind.

    Raises:
        UsageError: Dask is not installed, or nobody answers at the scheduler's address.
        RsfusionError: what a worker reports, or all workers are lost.
    """
    with _client(prepared.job) as client:
        n_workers = max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
        parts = _parts(missing, TASKS_A_WORKER * n_workers)
        context.info(f"{n_workers} workers map {len(parts)} parts.")
        payload, run = prepared.job.model_dump_json(), secrets.token_hex(4)
        waiting = list(reversed(parts))
        running: dict[Any, tuple[Window, float]] = {}
        finished: set[Window] = set()
        took: list[float] = []
        while len(finished) < len(parts):
            context.check_cancelled()
            # A worker has its next task at hand, and results wait for no more than a few others.
            while waiting and len(running) < 2 * n_workers:
                part = waiting.pop()
                running[_submit(client, run, payload, part, 0)] = part, time.monotonic()
            if not waiting:
                _help_stragglers(client, run, payload, running, finished, took, n_workers)
            for future in _ready(running):
                part, started = running.pop(future)
                strips = _result(future)
                if part in finished:
                    continue
                finished.add(part)
                took.append(time.monotonic() - started)
                for window, arrays in strips:
                    assembly.add_encoded(window, arrays)
                    done(window)
        client.cancel(list(running), force=True)


def map_part(payload: str, part: Window) -> Strips | RsfusionError:
    """What a worker does: the strips of a window, as they are written; or what the user can mend, which Dask would deliver
    as a mere text."""
    try:
        return _strips(payload, part)
    except RsfusionError as error:
        return type(error)(error.message, error.hint)


def _strips(payload: str, part: Window) -> Strips:
    prepared = _prepared.get(payload)
    if prepared is None:
        _prepared.clear()
        prepared = _prepared[payload] = prepare_map(MapJob.model_validate_json(payload), JobContext(lambda event: None))
    from core.mapping.rasters import raster_environment

    with raster_environment():
        strips = prepared.engine.strips(part, prepared.allowed, reuses_memory=True)
        return [(strip.window, encoded_strip(prepared.layers, strip)) for strip in strips]


def _parts(missing: list[Window], n_tasks: int) -> list[Window]:
    """Strips one above the other as tasks, about as many as wanted."""
    together = max(1, len(missing) // n_tasks)
    parts = []
    for run in runs_of(missing):
        own = [each for each in missing if each.column == run.column and run.row <= each.row < run.stop_row]
        for first in range(0, len(own), together):
            some = own[first : first + together]
            parts.append(Window(run.column, some[0].row, run.width, some[-1].stop_row - some[0].row))
    return parts


@contextmanager
def _client(job: MapJob) -> Iterator[Any]:
    """A client of the scheduler of the job, or of workers of this machine that end with it.

    Raises:
        UsageError: Dask is not installed, or nobody answers at the scheduler's address.
    """
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError:
        raise UsageError(
            "Maps by several processes take Dask, which is not installed.",
            "Install it with: pip install 'rsfusion[distributed]', or map with one worker.",
        ) from None
    # Results are bytes of rasters: they are neither spilt to disk nor a reason to kill a worker.
    settings = {"distributed.worker.memory.terminate": False, "distributed.comm.timeouts.connect": f"{CONNECTION_SECONDS}s"}
    of_this_machine = {"threads_per_worker": 1, "memory_limit": 0, "dashboard_address": None, "silence_logs": False}
    make: Any = Client  # Dask has no types
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(settings))
        address: Any = job.scheduler
        if address is None:
            address = stack.enter_context(LocalCluster(n_workers=job.workers, **of_this_machine))  # type: ignore[no-untyped-call]
        try:
            client = stack.enter_context(make(address, timeout=CONNECTION_SECONDS, set_as_default=False))
            client.wait_for_workers(1, timeout=WORKER_SECONDS)
        except (OSError, ValueError, TimeoutError) as error:
            raise UsageError(
                f"scheduler: no worker answers at '{job.scheduler}': {error}.", "Check the address, and that workers run there."
            ) from None
        stack.enter_context(client.as_current())
        yield client


def _submit(client: Any, run: str, payload: str, part: Window, turn: int, workers: list[str] | None = None) -> Any:
    # Named by the run, too: a scheduler remembers results by their names.
    name = f"map-{run}-{part.column}-{part.row}-{turn}"
    return client.submit(map_part, payload, part, key=name, pure=False, retries=_RETRIES, workers=workers)


def _ready(running: dict[Any, tuple[Window, float]]) -> list[Any]:
    """The futures that are done, waiting a little for one; a cancelled job does not wait longer."""
    from distributed import TimeoutError as NotYet
    from distributed import wait

    try:
        return list(wait(list(running), timeout=0.5, return_when="FIRST_COMPLETED").done)  # type: ignore[no-untyped-call]
    except NotYet:
        return []


def _result(future: Any) -> Strips:
    """Of a task that ended.

    Raises:
        RsfusionError: it failed.
    """
    from distributed import KilledWorker

    try:
        answer: Strips | RsfusionError = future.result()
    except KilledWorker as error:
        raise RsfusionError(
            f"A part of the map has cost several workers their lives: {error}.",
            "They may have too little memory; start fewer on a machine.",
        ) from None
    if isinstance(answer, RsfusionError):
        raise answer
    return answer


def _help_stragglers(
    client: Any,
    run: str,
    payload: str,
    running: dict[Any, tuple[Window, float]],
    finished: set[Window],
    took: list[float],
    n_workers: int,
) -> None:
    """Gives tasks that take long to other workers, too: theirs may hang, or be much slower."""
    if not took or n_workers < 2:
        return
    longest = STRAGGLES_AFTER * statistics.median(took)
    parts = [part for part, _ in running.values()]
    late = [
        (future, part)
        for future, (part, started) in running.items()
        if parts.count(part) == 1 and part not in finished and time.monotonic() - started > longest
    ]
    if not late:
        return
    busy = client.processing()
    for future, part in late:
        others = [address for address, keys in busy.items() if future.key not in keys]
        if others:
            running[_submit(client, run, payload, part, 1, others)] = part, time.monotonic()
