"""What a job may say, and how it is stopped."""

from __future__ import annotations

import io
import json
import threading
import time
from types import SimpleNamespace

import pytest

from core.errors import Cancelled, LabelError
from core.jobs import runner, stopping
from core.jobs.events import JobContext, json_lines
from core.jobs.runner import report_failure
from core.jobs.stopping import Stopper


@pytest.fixture
def told() -> list[dict]:
    return []


@pytest.fixture
def context(told: list[dict]) -> JobContext:
    return JobContext(told.append)


def test_progress_never_falls_and_stays_within_one(context, told):
    for fraction in (0.1, 0.5, 0.3, 2.0, 0.9):
        context.progress(fraction, "work")
    assert [event["fraction"] for event in told] == [0.1, 0.5, 0.5, 1.0, 1.0]


def test_a_part_of_the_job(context, told):
    report = context.part(0.2, 0.6)
    report(0.0, "begin")
    report(0.5, "middle")
    report(1.0, "end")
    assert [event["fraction"] for event in told] == [0.2, 0.4, 0.6]


def test_cancelling_stops_at_the_next_step(context):
    context.progress(0.1, "work")
    context.cancel()
    with pytest.raises(Cancelled):
        context.progress(0.2, "work")
    with pytest.raises(Cancelled):
        context.commit()
    assert context.is_cancelled
    assert not context.is_resumable


def test_cancelling_comes_too_late_after_the_commit(context, told):
    context.commit()
    context.cancel(resumable=True)
    context.progress(1.0, "Done")
    assert not context.is_cancelled
    assert not context.is_resumable
    assert told[-1]["fraction"] == 1.0


def test_lines_are_strict_json():
    stream = io.StringIO()
    write = json_lines(stream)
    write({"event": "log", "level": "info", "text": "two\nlines, é"})
    assert json.loads(stream.getvalue()) == {"event": "log", "level": "info", "text": "two\nlines, é"}
    assert stream.getvalue().count("\n") == 1
    with pytest.raises(ValueError):
        write({"event": "progress", "fraction": float("nan")})


def failure(error: BaseException) -> tuple[int, dict]:
    told: list[dict] = []
    code = report_failure(error, JobContext(told.append))
    return code, told[-1]


def test_errors_of_the_user_and_of_ours():
    assert failure(LabelError("No labels.", "Draw some.")) == (
        1,
        {"event": "error", "kind": "LabelError", "message": "No labels.", "hint": "Draw some."},
    )
    code, event = failure(KeyError("x"))
    assert code == 1
    assert event["kind"] == "KeyError"
    assert "defect" in event["hint"]
    assert "KeyError" in event["traceback"]
    for wish in (Cancelled(), KeyboardInterrupt()):
        assert failure(wish) == (130, {"event": "cancelled"})


def test_a_full_disk_and_a_full_memory_are_no_defects():
    import errno

    import torch

    code, event = failure(OSError(errno.ENOSPC, "No space left on device", "/data/map.tif"))
    assert (code, event["kind"]) == (1, "OutputError")
    assert "/data/map.tif" in event["message"]
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    for error in (MemoryError(), caught.value, torch.OutOfMemoryError("CUDA out of memory.")):
        code, event = failure(error)
        assert (code, event["kind"], event["message"]) == (1, "RsfusionError", "The memory is full.")
        assert "traceback" not in event


def test_nobody_who_listens_is_no_failure():
    def closed(event):
        raise BrokenPipeError

    assert report_failure(LabelError("x"), JobContext(closed)) == 1
    assert report_failure(BrokenPipeError(), JobContext(closed)) == 130


def test_a_job_that_looks_at_its_context_is_only_asked(context, monkeypatch):
    monkeypatch.setattr(stopping, "PATIENCE_SECONDS", 5.0)
    with Stopper(context) as stopper:
        stopper.stop()
        deadline = time.monotonic() + 4
        while not context.is_cancelled and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(Cancelled):
            context.check_cancelled()


def test_a_long_step_is_interrupted(context, monkeypatch):
    monkeypatch.setattr(stopping, "PATIENCE_SECONDS", 0.2)
    started = time.monotonic()
    with Stopper(context) as stopper:
        threading.Timer(0.1, stopper.stop).start()
        with pytest.raises(KeyboardInterrupt):
            time.sleep(10)
    assert time.monotonic() - started < 5


def test_a_job_that_puts_its_files_in_place_is_left_alone(context, monkeypatch):
    monkeypatch.setattr(stopping, "PATIENCE_SECONDS", 0.1)
    with Stopper(context) as stopper:
        context.commit()
        stopper.stop()
        time.sleep(0.5)
    assert not context.is_cancelled


def test_a_step_that_hears_nothing_is_abandoned_without_a_trace(tmp_path):
    """In a process of its own, which ends."""
    import subprocess
    import sys

    from tests.core.jobs.running import ROOT

    program = f"""
import threading, time
from core.jobs import stopping
from core.jobs.events import JobContext
from core.jobs.schemas import MapJob
stopping.PATIENCE_SECONDS, stopping.GRACE_SECONDS = 0.2, 0.5
folder = {str(tmp_path)!r}
job = MapJob(inputs={{"optical": ["a.tif"]}}, model="m.safetensors", output=folder + "/map.tif")
with stopping.Stopper(JobContext(print)) as stopper:
    stopper.job = job
    open(folder + "/.map.tif.0123abcd.part", "w").close()
    open(folder + "/map.tif", "w").close()
    stopper.stop()
    while True:
        try:
            time.sleep(1)
        except KeyboardInterrupt:
            pass
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60)
    assert done.returncode == 130
    assert [path.name for path in tmp_path.iterdir()] == ["map.tif"]


def test_signals_are_given_back(context):
    import signal

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Stopper(context):
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_result_that_nobody_reads_is_a_result(monkeypatch):
    monkeypatch.setattr(runner, "run_job", lambda job, context: {})

    def closed(event):
        raise BrokenPipeError

    assert runner.run_and_report(SimpleNamespace(), JobContext(closed)) == 0
