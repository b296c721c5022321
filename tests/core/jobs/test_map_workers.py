"""Maps by several processes: the bytes of one, whoever is lost on the way."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.jobs.mapping import workers
from core.jobs.mapping.workers import TASK_BYTES, _parts
from core.scenes.grid import Window
from tests.core.jobs.running import check_refused, run_here, snapshot
from tests.core.jobs.test_interrupted_map import whole, wide_job, with_outputs  # noqa: F401 - fixtures

distributed = pytest.importorskip("distributed")


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two workers of one thread, as a user would have started them."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, memory_limit=0, dashboard_address=None, silence_logs=50
    ) as made:
        yield made


def process_numbers(cluster: Any) -> list[int]:
    return [worker.pid for worker in cluster.workers.values()]


def test_two_workers_of_this_machine(
    wide_job: dict[str, Any],  # noqa: F811
    whole: dict[str, bytes | None],  # noqa: F811
    tmp_path: Path,
) -> None:
    told = run_here(with_outputs(wide_job, tmp_path) | {"workers": 2})
    assert told.code == 0, told.last
    assert "2 workers map" in told.texts("info")
    assert snapshot(tmp_path) == whole
    phases = [event["phase"] for event in told.events if event["event"] == "progress"]
    assert any(phase.startswith("Mapping: ") and " Mpx/s, " in phase for phase in phases)
    assert told.fractions == sorted(told.fractions)


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_is_lost_or_hangs_does_not_change_the_map(
    wide_job: dict[str, Any],  # noqa: F811
    whole: dict[str, bytes | None],  # noqa: F811
    tmp_path: Path,
    cluster: Any,
    number: signal.Signals,
) -> None:
    struck: list[int] = []

    def strike(context: Any, event: dict[str, Any]) -> None:
        if not struck and event["event"] == "progress" and event["phase"].startswith("Mapping"):
            struck.append(process_numbers(cluster)[0])
            os.kill(struck[0], number)

    told = run_here(with_outputs(wide_job, tmp_path) | {"scheduler": cluster.scheduler_address}, strike)
    assert struck
    if number == signal.SIGSTOP:
        os.kill(struck[0], signal.SIGCONT)
    assert told.code == 0, told.last
    assert snapshot(tmp_path) == whole


def test_workers_that_come_later_are_given_work(
    wide_job: dict[str, Any],  # noqa: F811
    whole: dict[str, bytes | None],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "RECOUNT_SECONDS", 0.0)
    counted: list[int] = []
    recount = workers._Tasks._recount
    monkeypatch.setattr(workers._Tasks, "_recount", lambda tasks: (recount(tasks), counted.append(tasks.n_workers)))
    settings = {"threads_per_worker": 1, "memory_limit": 0, "dashboard_address": None, "silence_logs": 50}
    with distributed.LocalCluster(n_workers=1, **settings) as growing:

        def grow(context: Any, event: dict[str, Any]) -> None:
            if len(growing.workers) == 1 and event["event"] == "progress" and event["phase"].startswith("Mapping"):
                growing.scale(2)
                with distributed.Client(growing) as client:
                    client.wait_for_workers(2, timeout=60)

        told = run_here(with_outputs(wide_job, tmp_path) | {"scheduler": growing.scheduler_address}, grow)
    assert told.code == 0, told.last
    assert (counted[0], counted[-1]) == (1, 2)
    assert snapshot(tmp_path) == whole


def test_what_a_worker_cannot_do_is_said_as_here(
    wide_job: dict[str, Any],  # noqa: F811
    tmp_path: Path,
    cluster: Any,
) -> None:
    raster = Path(wide_job["inputs"]["optical"][0])
    short = tmp_path / "short.tif"
    data = raster.read_bytes()
    short.write_bytes(data)
    job = with_outputs(wide_job, tmp_path / "out") | {"scheduler": cluster.scheduler_address}
    job = job | {"inputs": {**job["inputs"], "optical": [str(short)]}}

    def truncate(context: Any, event: dict[str, Any]) -> None:
        if event["event"] == "log" and "workers map" in event["text"]:
            short.write_bytes(data[: len(data) // 3])

    told = run_here(job, truncate)
    assert (told.code, told.last["kind"]) == (1, "RasterError"), told.last
    assert "short.tif" in told.message


def test_lost_workers_leave_the_strips_and_the_map_goes_on_here(
    wide_job: dict[str, Any],  # noqa: F811
    whole: dict[str, bytes | None],  # noqa: F811
    tmp_path: Path,
    cluster: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("core.jobs.mapping.workers.WORKER_SECONDS", 1)
    monkeypatch.setattr("core.jobs.mapping.workers.ANSWER_SECONDS", 2)
    monkeypatch.chdir(Path(wide_job["model"]).parent)
    job = with_outputs(wide_job, tmp_path)
    # Paths of the folder that this process is in, and the workers are not.
    near = {**job, "model": Path(job["model"]).name, "scheduler": cluster.scheduler_address}
    near["inputs"] = {**job["inputs"], "optical": [Path(job["inputs"]["optical"][0]).name]}

    def dismiss(context: Any, event: dict[str, Any]) -> None:
        if event["event"] == "progress" and event["phase"].startswith("Mapping"):
            cluster.scale(0)

    told = run_here(near, dismiss)
    assert (told.code, told.last["kind"]) == (1, "WorkersError"), told.last
    assert "is kept: the same job goes on from there" in told.texts("info")
    told = run_here({**near, "scheduler": None})
    assert told.code == 0, told.last
    assert "are taken over" in told.texts("info")
    assert snapshot(tmp_path) == whole


def test_tasks_are_no_larger_than_a_worker_can_hold() -> None:
    strips = [Window(0, 400 * number, 4000, 400) for number in range(1000)]
    parts = _parts(strips, 8, pixel_bytes=20)
    assert max(part.width * part.height * 20 for part in parts) <= TASK_BYTES
    assert sum(part.height for part in parts) == 400_000


def test_nobody_at_the_address(wide_job: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr("core.jobs.mapping.workers.CONNECTION_SECONDS", 1)
    job = with_outputs(wide_job, tmp_path) | {"scheduler": "tcp://127.0.0.1:1"}
    check_refused(job, tmp_path, "no worker answers at 'tcp://127.0.0.1:1'")


def test_without_dask_the_way_to_get_it_is_said(
    wide_job: dict[str, Any],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    check_refused(with_outputs(wide_job, tmp_path) | {"workers": 2}, tmp_path, "pip install 'rsfusion[distributed]'", code=2)
