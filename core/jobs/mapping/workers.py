"""A map by several processes, on this machine or on many: parts of it are tasks of Dask.

Every worker reads model and rasters itself, by the paths of the job, and sends back strips as they are written. They are
put together here, so that a map does not depend on how many made it.
"""

from __future__ import annotations

import os
import platform
import secrets
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from numpy.typing import NDArray

from core.errors import RsfusionError, UsageError, WorkersError
from core.jobs.events import JobContext
from core.jobs.mapping.assembly import MapAssembly, runs_of
from core.jobs.mapping.layers import encoded_strip
from core.jobs.mapping.preparation import PreparedMap, prepare_map, promise_of
from core.jobs.process import ONE_HEAP, MemoryPromise, keep_memory
from core.jobs.schemas import MapJob
from core.scenes.grid import Window

Strips = list[tuple[Window, list[NDArray[Any]]]]

TASKS_A_WORKER = 8
"""So many at least, where there are as many strips: none is left with nothing to do for long at the end."""

STRAGGLES_AFTER = 3.0
"""A task that takes so many times as long as half of the others is given to an idle worker, too; the first answer counts."""

WORKER_SETTINGS: dict[str, Any] = {
    # Results are bytes of rasters: they are no reason to kill a worker.
    "distributed.worker.memory.terminate": False,
    # Without Dask's own MALLOC_TRIM_THRESHOLD_: with it every strip's memory is given back to the system and asked for again.
    "distributed.nanny.pre-spawn-environ": {
        **{"OMP_NUM_THREADS": 1, "MKL_NUM_THREADS": 1, "OPENBLAS_NUM_THREADS": 1},
        **dict([ONE_HEAP]),
    },
}
"""Of Dask, for workers of this machine."""

RECOUNT_SECONDS = 5.0
"""After which workers are counted again."""
CONNECTION_SECONDS = 20
"""How long a scheduler may take to answer."""
WORKER_SECONDS = 60
"""How long it may take until a worker is there."""
ANSWER_SECONDS = 60
"""How long a worker may take to send an answer that it has."""

TASK_BYTES = 64 * 2**20
"""A worker holds the strips of a task until they are fetched; a task has no more of them."""

_RETRIES = 5
_one_at_a_time = threading.Lock()
_prepared: dict[str, tuple[PreparedMap, MemoryPromise]] = {}
"""Of this worker: the run that it is busy with."""


def check_dask() -> None:
    """Raises an error where Dask is not installed."""
    try:
        import distributed  # noqa: F401
    except ImportError:
        raise UsageError(
            "Maps by several processes take Dask, which is not installed.",
            "Install it with: pip install 'rsfusion[distributed]', or map with one worker.",
        ) from None


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
        WorkersError: nobody answers at the scheduler's address, all workers are lost, or they have other versions.
        RsfusionError: what a worker reports.
    """
    with _client(prepared.job) as client:
        tasks = _Tasks(client, prepared)
        parts = _parts(missing, TASKS_A_WORKER * tasks.n_workers, sum(layer.pixel_bytes for layer in prepared.layers))
        context.info(f"{tasks.n_workers} workers map {len(parts)} parts.")
        waiting = list(reversed(parts))
        while waiting or tasks.running:
            context.check_cancelled()
            # A worker has its next task at hand, and results wait for no more than a few others.
            while waiting and len(tasks.running) < 2 * tasks.n_workers:
                tasks.submit(waiting.pop())
            if not waiting:
                tasks.help_stragglers()
            for strips in tasks.finished():
                for window, arrays in strips:
                    assembly.add_encoded(window, arrays)
                    done(window)


class _Tasks:
    """The tasks of one map.

    Args:
        client: of Dask's.
        prepared: the map.

    Attributes:
        n_workers: a few seconds ago.
        running: by future the part that it is of, and when it was handed in.
    """

    def __init__(self, client: Any, prepared: PreparedMap) -> None:
        self._client = client
        job = prepared.job.model_copy(update={"precision": prepared.precision})  # no worker tries anew
        self._payload = _with_whole_paths(job).model_dump_json()
        self._shared = prepared.shared_identity
        # Named by the run, too: a scheduler remembers results by their names, and a worker the map that it has prepared.
        self._run = secrets.token_hex(4)
        self.n_workers = max(1, self._count_workers())
        self._counted = time.monotonic()
        self.running: dict[Any, tuple[Window, float]] = {}
        self._took: list[float] = []
        self._seen_worker = time.monotonic()

    def _count_workers(self) -> int:
        return len(self._client.scheduler_info(n_workers=-1)["workers"])

    def submit(self, part: Window, workers: list[str] | None = None) -> None:
        """Hands a part to any worker, or to some."""
        name = f"map-{self._run}-{part.column}-{part.row}-{'again' if workers else 'first'}"
        given = self._run, self._payload, self._shared, part
        future = self._client.submit(map_part, *given, key=name, pure=False, retries=_RETRIES, workers=workers)
        self.running[future] = part, time.monotonic()

    def finished(self) -> Iterator[Strips]:
        """What has come in, after a little while at most; each part once, and fetched when it is asked for: the answers of all
        workers together could be larger than the memory.

        Raises:
            WorkersError: all workers are lost.
            RsfusionError: what a worker reports.
        """
        from distributed import CancelledError, wait
        from distributed import TimeoutError as NotYet

        self._recount()
        try:
            try:
                ready = wait(list(self.running), timeout=0.5, return_when="FIRST_COMPLETED").done  # type: ignore[no-untyped-call]
            except NotYet:
                self._check_workers()
                return
            self._seen_worker = time.monotonic()
            for future in ready:
                # What a part's other copy has answered is not fetched, nor does it matter that this one failed.
                if future not in self.running:
                    continue
                part, started = self.running.pop(future)
                copies = [other for other, (own, _) in self.running.items() if own == part]
                if copies and future.status != "finished":
                    continue
                try:
                    answer = _answer(future)
                except NotYet:
                    # Its worker was lost with the answer before that was fetched: it is computed anew, if anybody is left.
                    self.running[future] = part, time.monotonic()
                    self._check_workers()
                    continue
                self._took.append(time.monotonic() - started)
                for other in copies:
                    del self.running[other]
                self._client.cancel(copies, force=True)
                yield answer
        except (CancelledError, OSError) as error:
            raise WorkersError(f"The scheduler of the workers is lost: {error}.", "Start it again, and the same job.") from None

    def _recount(self) -> None:
        """Clusters grow and shrink while a map is made: a queue starts its jobs one after the other."""
        if time.monotonic() - self._counted > RECOUNT_SECONDS:
            self.n_workers, self._counted = max(1, self._count_workers()), time.monotonic()

    def _check_workers(self) -> None:
        if self._count_workers():
            self._seen_worker = time.monotonic()
        elif time.monotonic() - self._seen_worker > WORKER_SECONDS:
            raise WorkersError("All workers are lost.", "Start some again, and the same job: it goes on where it was.")

    def help_stragglers(self) -> None:
        """Gives tasks that take long to other workers, too: theirs may hang, or be much slower."""
        if not self._took or self.n_workers < 2:
            return
        longest = STRAGGLES_AFTER * statistics.median(self._took)
        parts = [part for part, _ in self.running.values()]
        late = [
            (future, part)
            for future, (part, started) in self.running.items()
            if parts.count(part) == 1 and time.monotonic() - started > longest
        ]
        if not late:
            return
        busy = self._client.processing()
        for future, part in late:
            others = [address for address, keys in busy.items() if future.key not in keys]
            if others:
                self.submit(part, others)


def _with_whole_paths(job: MapJob) -> MapJob:
    """The job with paths that mean the same in any folder."""

    def whole(path: str) -> str:
        return os.path.abspath(path) if os.path.exists(path) else path

    inputs = {role: [whole(path) for path in getattr(job.inputs, role)] for role in ("optical", "sar", "elevation", "other")}
    changed = {"model": whole(job.model), "mask": whole(job.mask) if job.mask else None}
    return job.model_copy(update={**changed, "inputs": job.inputs.model_copy(update=inputs)})


def map_part(run: str, payload: str, shared: dict[str, Any], part: Window) -> Strips | RsfusionError:
    """What a worker does: the strips of a window, as they are written; or what the user can mend, which Dask would deliver
    as a mere text."""
    try:
        # A worker with several threads would keep as many models and strips in memory as it was given tasks.
        with _one_at_a_time:
            return _strips(run, payload, shared, part)
    except RsfusionError as error:
        return type(error)(error.message, error.hint)


def _strips(run: str, payload: str, shared: dict[str, Any], part: Window) -> Strips:
    if run not in _prepared:
        _prepared.clear()
        keep_memory(is_dask_worker=True)
        prepared = prepare_map(MapJob.model_validate_json(payload), JobContext(lambda event: None))
        own = prepared.shared_identity
        other = [name for name, value in shared.items() if own[name] != value]
        if other:
            raise WorkersError(
                f"A worker on '{platform.node()}' does not share {' and '.join(other)} of this machine, so its part of the map "
                "would be another.",
                "Install the same versions, give --device cpu and --precision float32, and see that the paths lead to the same "
                "files.",
            )
        _prepared[run] = prepared, promise_of(prepared.needed_bytes)
    prepared, promise = _prepared[run]
    from core.mapping.rasters import raster_environment

    with raster_environment():
        strips = []
        for strip in prepared.engine.strips(part, prepared.allowed, reuses_memory=True):
            strips.append((strip.window, encoded_strip(prepared.layers, strip)))
            promise.keep()
        return strips


def _parts(missing: list[Window], n_tasks: int, pixel_bytes: int) -> list[Window]:
    """Strips one above the other as tasks, about as many as wanted, or more where they would be large."""
    largest = max((each.width * each.height for each in missing), default=1)
    together = max(1, min(len(missing) // n_tasks, TASK_BYTES // (largest * pixel_bytes)))
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
        WorkersError: nobody answers at the scheduler's address.
    """
    import dask
    from distributed import Client, LocalCluster

    of_this_machine = {"threads_per_worker": 1, "memory_limit": 0, "dashboard_address": None, "silence_logs": False}
    make: Any = Client  # Dask has no types
    with ExitStack() as stack:
        stack.enter_context(dask.config.set({**WORKER_SETTINGS, "distributed.comm.timeouts.connect": f"{CONNECTION_SECONDS}s"}))
        address: Any = job.scheduler
        if address is None:
            address = stack.enter_context(LocalCluster(n_workers=job.workers, **of_this_machine))  # type: ignore[no-untyped-call]
        try:
            client = stack.enter_context(make(address, timeout=CONNECTION_SECONDS, set_as_default=False))
            client.wait_for_workers(1, timeout=WORKER_SECONDS)
        except (OSError, ValueError, TimeoutError) as error:
            raise WorkersError(
                f"scheduler: no worker answers at '{job.scheduler}': {error}.", "Check the address, and that workers run there."
            ) from None
        stack.enter_context(client.as_current())
        yield client


def _answer(future: Any) -> Strips:
    """Of a task that ended.

    Raises:
        RsfusionError: it failed.
        TimeoutError: of Dask's; the answer does not come.
    """
    from distributed import KilledWorker

    try:
        answer: Strips | RsfusionError = future.result(timeout=ANSWER_SECONDS)
    except KilledWorker as error:
        raise WorkersError(
            f"A part of the map has cost several workers their lives: {error}.",
            "They may have too little memory; start fewer on a machine, and the same job.",
        ) from None
    if isinstance(answer, RsfusionError):
        raise answer
    return answer
