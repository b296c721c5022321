"""The worker as the plugin starts it: what it says, how it stops, and where it may lie."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import core
from core import worker
from core.jobs.events import PROTOCOL
from core.jobs.outputs import checkpoint_path
from tests.core.jobs.running import ROOT, snapshot, strict_json

WORKER = ROOT / "core" / "worker.py"

CHECKPOINT = checkpoint_path(Path("model.safetensors")).name


def start(*arguments: str | Path, script: Path = WORKER, cwd: Path = ROOT) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-I", "-X", "utf8", str(script), *map(str, arguments)],
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def finish(process: subprocess.Popen[str], timeout: float = 120) -> tuple[list[dict[str, Any]], str]:
    """Leaves stdin open until the worker ends by itself; returns its events and its stderr."""
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdin is not None
    try:
        events = [strict_json(line) for line in process.stdout]
        stderr = process.stderr.read()
        process.wait(timeout=timeout)
    finally:
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()
    return events, stderr


def events_until(process: subprocess.Popen[str], text: str) -> list[dict[str, Any]]:
    assert process.stdout is not None
    events = []
    for line in process.stdout:
        events.append(strict_json(line))
        if text in line:
            return events
    raise AssertionError(f"'{text}' was never said: {events[-1:]}")


def write_job(folder: Path, job: dict[str, Any]) -> Path:
    path = folder / "job.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    return path


@pytest.fixture
def endless(finetune_job: dict[str, Any], tmp_path: Path) -> Path:
    """The file of a training that does not end by itself within the test."""
    return write_job(tmp_path, {**finetune_job, "epochs": 10000})


def check_hello(event: dict[str, Any]) -> None:
    assert event == {
        "event": "hello",
        "protocol": PROTOCOL,
        "version": core.__version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        "torch": torch.__version__,
        "device": event["device"],
    }
    assert event["device"].startswith(("cpu (", "cuda", "mps"))


def test_a_job(tmp_path):
    process = start(write_job(tmp_path, {"kind": "sample-scene", "output": str(tmp_path / "scene"), "size": 64, "seed": 3}))
    events, _ = finish(process)
    assert process.returncode == 0
    check_hello(events[0])
    assert events[-1]["event"] == "result"
    assert events[-1]["outputs"]["OUTPUT"] == str(tmp_path / "scene")
    assert all(Path(path).exists() for path in events[-1]["outputs"].values())
    fractions = [event["fraction"] for event in events if event["event"] == "progress"]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_check_says_hello_and_ends_without_a_job():
    """Also with a stdin that is closed: nobody cancels a check that way."""
    process = start("--check")
    assert process.stdin is not None
    process.stdin.close()
    events, _ = finish(process)
    assert process.returncode == 0
    assert len(events) == 1
    check_hello(events[0])


def test_a_check_imports_the_modules_of_all_jobs():
    runner = (ROOT / "core" / "jobs" / "runner.py").read_text()
    of_jobs = set(re.findall(r"from (core\.jobs\.\w+\.\w+) import run_", runner)) - {"core.jobs.models.export"}
    assert of_jobs == {f"core.jobs.{room}.{name}" for room, names in worker.JOB_MODULES.items() for name in names}
    told = subprocess.run(
        [sys.executable, "-c", "import sys; from core import worker; worker._check_imports(); print(*sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert of_jobs | {"rasterio", "sklearn", "geopandas", "skimage"} <= set(told.stdout.split())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("none.json", None),
        ("text.json", b"not JSON"),
        ("binary.json", bytes(range(256))),
        ("other.json", b'{"kind": "bake"}'),
        ("unknown.json", b'{"kind": "sample-scene", "output": "x", "flavour": 1}'),
    ],
)
def test_a_job_file_that_is_none(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    process = start(tmp_path / name)
    events, stderr = finish(process)
    assert process.returncode == 2
    assert [event["event"] for event in events] == ["hello", "error"]
    assert events[-1]["kind"] == "UsageError"
    assert name in events[-1]["message"]
    assert "traceback" not in events[-1]
    assert "Traceback" not in stderr


def test_arguments_that_are_none():
    for arguments in ((), ("a", "b")):
        process = start(*arguments)
        events, _ = finish(process)
        assert process.returncode == 2
        assert [event["event"] for event in events] == ["error"]


def test_a_failed_job(tmp_path, map_job):
    (tmp_path / "out" / "map.tif").write_bytes(b"old")
    process = start(write_job(tmp_path, {**map_job, "inputs": {"optical": [str(tmp_path / "none.tif")]}}))
    events, _ = finish(process)
    assert process.returncode == 1
    assert events[-1]["event"] == "error"
    assert events[-1]["kind"] == "RasterError"
    assert "none.tif" in events[-1]["message"]
    assert snapshot(tmp_path / "out") == {"map.tif": b"old"}


def test_what_libraries_print_does_not_disturb_the_events(tmp_path):
    """A package that prints on import, through Python and past it, stands in for torch and GDAL in a bad mood."""
    copy = tmp_path / "plugin"
    shutil.copytree(ROOT / "core", copy / "core", ignore=shutil.ignore_patterns("__pycache__"))
    noisy = copy / "core" / "scenes" / "simulate.py"
    noise = "\nimport os\nprint('{\"event\": \"result\"}')\nos.write(1, b'\\xff no text')\nos.system('echo from a child')\n"
    noisy.write_text(noisy.read_text(encoding="utf-8") + noise, encoding="utf-8")
    job = write_job(tmp_path, {"kind": "sample-scene", "output": str(tmp_path / "scene"), "size": 64})
    process = start(job, script=copy / "core" / "worker.py")
    assert process.stderr is not None
    process.stderr.reconfigure(errors="replace")
    events, stderr = finish(process)
    assert process.returncode == 0
    assert [event["event"] for event in events].count("result") == 1
    assert "OUTPUT" in events[-1]["outputs"]
    for text in ('{"event": "result"}', "no text", "from a child"):
        assert text in stderr


def test_the_package_that_runs_is_the_one_beside_the_worker(tmp_path):
    """From a folder with an odd name, in isolated mode, though another core is installed; neighbours are not imported."""
    copy = tmp_path / 'plug-in d\'été "ü" %20'
    shutil.copytree(ROOT / "core", copy / "core", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "core" / "__init__.py").write_text('__version__ = "0.0.copy"\n')
    for neighbour in ("settings.py", "texts.py", "typing_extensions.py", "affine.py"):
        (copy / neighbour).write_text("raise SystemExit('a neighbour was imported')\n")
    folder = tmp_path / 'jobs d\'été "ü"'
    folder.mkdir()
    scene = folder / "scène"
    job = write_job(folder, {"kind": "sample-scene", "output": str(scene), "size": 64})
    process = start(job, script=copy / "core" / "worker.py", cwd=folder)
    events, stderr = finish(process)
    assert process.returncode == 0, (events[-1], stderr)
    assert events[0]["version"] == "0.0.copy"
    assert events[-1]["outputs"]["OUTPUT"] == str(scene)


@pytest.mark.parametrize("moment", ["Fitting: forest", "epoch 2 of"])
@pytest.mark.parametrize("wish", ["cancel\n", ""], ids=["cancelled", "closed"])
def test_stdin_stops_the_job(endless, tmp_path, moment, wish):
    """The user's wish leaves nothing behind; a stdin that closes without it leaves what the same job goes on from."""
    (tmp_path / "out" / "model.safetensors").write_bytes(b"old model")
    process = start(endless)
    assert process.stdin is not None
    events_until(process, moment)
    asked = time.monotonic()
    process.stdin.write(wish)
    process.stdin.close()
    assert process.stdout is not None
    last = [strict_json(line) for line in process.stdout][-1]
    assert process.wait(timeout=60) == 130
    assert time.monotonic() - asked < 8
    assert last == {"event": "cancelled"}
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    left = snapshot(tmp_path / "out")
    assert left.pop("model.safetensors") == b"old model"
    assert set(left) == ({CHECKPOINT} if not wish and "epoch" in moment else set())
    process.stdout.close()
    process.stderr.close()


def test_closing_stdin_before_the_job_is_read(tmp_path):
    """During the import of torch, which takes seconds on a cold disk."""
    job = write_job(tmp_path, {"kind": "sample-scene", "output": str(tmp_path / "scene"), "size": 2000})
    process = start(job)
    assert process.stdin is not None
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert set(snapshot(tmp_path)) == {"job.json"}


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_the_worker_ends_when_its_parent_dies(endless, tmp_path):
    """The parent is killed without a chance to say anything."""
    program = (
        "import subprocess, sys\n"
        f"worker = subprocess.Popen([sys.executable, '-I', {str(WORKER)!r}, {str(endless)!r}],"
        " stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)\n"
        "print(worker.pid, flush=True)\n"
        "for line in worker.stdout:\n"
        "    print(line, end='', flush=True)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    events_until(parent, "epoch 2 of")
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 15
    while is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_running(worker)
    assert set(snapshot(tmp_path / "out")) == {CHECKPOINT}


def is_running(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    # Whoever adopts orphans may be slow to collect them.
    return "\nState:\tZ" not in Path(f"/proc/{number}/status").read_text() if Path(f"/proc/{number}").exists() else True
