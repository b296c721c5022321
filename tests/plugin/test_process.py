"""The worker process under faults. Every worker here is a real process that runs a small script."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from rsfusion_plugin.worker.child import OutputLog, clean_environment, describe_exit
from rsfusion_plugin.worker.errors import WorkerCancelledError, WorkerError
from rsfusion_plugin.worker.process import Listener, Worker, check_worker, run_job

ROOT = Path(__file__).resolve().parents[2]

HEAD = """
import json, os, signal, sys, threading, time
def say(**event):
    sys.stdout.write(json.dumps(event) + "\\n")
    sys.stdout.flush()
def hello(protocol=1):
    say(event="hello", protocol=protocol, version="0.1.0", python="3", torch="2", device="cpu")
"""


class Recorder(Listener):
    """Remembers what it hears; wants to cancel ``cancel_after`` seconds after the first progress."""

    def __init__(self, cancel_after=None):
        self.greeting, self.steps, self.logs = None, [], []
        self._cancel_after = cancel_after
        self._since = None

    def hello(self, event):
        self.greeting = event

    def progress(self, fraction, phase):
        self.steps.append((fraction, phase))
        self._since = self._since or time.monotonic()

    def log(self, level, text):
        self.logs.append((level, text))

    def is_cancelled(self):
        return (
            self._cancel_after is not None and self._since is not None and time.monotonic() - self._since >= self._cancel_after
        )


@pytest.fixture
def worker(tmp_path):
    """A worker that runs the lines given."""

    def make(body, folder=None):
        script = (folder or tmp_path) / "worker.py"
        script.write_text(HEAD + textwrap.dedent(body), encoding="utf-8")
        return Worker(sys.executable, str(script))

    return make


def is_running(pid):
    """Whether a process lives; a dead one that nobody has waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until(condition, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def test_a_job_runs_and_its_words_arrive(worker, tmp_path):
    subject = worker(
        """
        hello()
        job = json.load(open(sys.argv[1], encoding="utf-8"))
        say(event="progress", fraction=0.25, phase="reading")
        say(event="log", level="warning", text="a cloud")
        say(event="progress", fraction=0.1, phase="mapping")
        say(event="progress", fraction=1.0, phase="mapping")
        say(event="result", outputs={"OUTPUT": job["output"], "isolated": sys.flags.isolated})
        """
    )
    listener = Recorder()
    outputs = run_job(subject, {"output": "Bäume in Łódź.tif"}, str(tmp_path), listener)
    assert outputs == {"OUTPUT": "Bäume in Łódź.tif", "isolated": 1}
    assert listener.greeting["version"] == "0.1.0"
    assert listener.steps == [(0.25, "reading"), (0.25, "mapping"), (1.0, "mapping")]
    assert listener.logs == [("warning", "a cloud")]


def test_an_error_of_the_job_is_its_message_and_hint(worker, tmp_path):
    subject = worker(
        """
        print("a library warns", file=sys.stderr)
        hello()
        say(event="error", message="'a.tif' has no CRS.", hint="Assign one.", kind="RasterError")
        sys.exit(1)
        """
    )
    with pytest.raises(WorkerError) as caught:
        run_job(subject, {}, str(tmp_path), Recorder())
    assert str(caught.value) == "'a.tif' has no CRS. Assign one."
    assert caught.value.details == ""


def test_a_defect_shows_its_traceback(worker, tmp_path):
    subject = worker(
        """
        print("just before", file=sys.stderr)
        hello()
        say(event="error", message="boom", hint="", kind="ZeroDivisionError", traceback="Traceback: line 7")
        sys.exit(1)
        """
    )
    with pytest.raises(WorkerError) as caught:
        run_job(subject, {}, str(tmp_path), Recorder())
    assert "Traceback: line 7" in caught.value.details
    assert "just before" in caught.value.details


def test_a_worker_that_dies_tells_its_exit_code_and_last_words(worker, tmp_path):
    subject = worker("hello(); sys.stderr.write('the disk fell out\\n'); sys.exit(7)")
    with pytest.raises(WorkerError, match="exit code 7") as caught:
        run_job(subject, {}, str(tmp_path), Recorder(), str(tmp_path / "logs" / "worker.log"))
    assert "the disk fell out" in caught.value.details
    assert "worker.log" in caught.value.details
    assert (tmp_path / "logs" / "worker.log").read_text() == "the disk fell out\n"


def test_a_killed_worker_is_told_from_a_failed_one(worker, tmp_path):
    subject = worker("hello(); os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(WorkerError, match="SIGKILL") as caught:
        run_job(subject, {}, str(tmp_path), Recorder())
    assert "smaller area" in caught.value.hint


def test_a_success_without_a_result_is_an_error(worker, tmp_path):
    with pytest.raises(WorkerError, match="without a result"):
        run_job(worker("hello()"), {}, str(tmp_path), Recorder())


def test_a_result_does_not_hide_a_crash_after_it(worker, tmp_path):
    subject = worker("hello(); say(event='result', outputs={}); sys.exit(3)")
    with pytest.raises(WorkerError, match="exit code 3"):
        run_job(subject, {}, str(tmp_path), Recorder())


def test_garbage_on_stdout_is_logged_and_harms_nothing(worker, tmp_path):
    subject = worker(
        """
        print("Downloading weights...")
        hello()
        sys.stdout.flush(); os.write(1, b"\\xff\\xfe\\x00 not text\\n"); os.write(1, b"x" * 3000000 + b"\\n")
        print("[1, 2]"); print('{"no": "event"}'); print('{"event": "unheard of"}'); print("{")
        say(event="progress", fraction="much", phase="odd")
        say(event="result", outputs={"OUTPUT": "a"})
        """
    )
    log = tmp_path / "worker.log"
    assert run_job(subject, {}, str(tmp_path), Recorder(), str(log)) == {"OUTPUT": "a"}
    text = log.read_bytes()
    assert b"Downloading weights..." in text
    assert b'{"event": "unheard of"}' in text
    assert len(text) > 3000000


def test_a_megabyte_on_stderr_does_not_block(worker, tmp_path):
    subject = worker(
        """
        hello()
        for number in range(20000):
            sys.stderr.write("warning %06d: a raster is not what it seems to be\\n" % number)
        sys.stderr.flush()
        say(event="result", outputs={"OUTPUT": "a"})
        """
    )
    log = tmp_path / "worker.log"
    assert run_job(subject, {}, str(tmp_path), Recorder(), str(log)) == {"OUTPUT": "a"}
    assert log.stat().st_size > 1000000


def test_cancelling_says_so_on_stdin_and_the_worker_stops(worker, tmp_path):
    subject = worker(
        """
        hello()
        say(event="progress", fraction=0.5, phase="mapping")
        said = sys.stdin.read()
        open(sys.argv[1] + ".tidy", "w").write(said)
        say(event="cancelled")
        sys.exit(130)
        """
    )
    start = time.monotonic()
    with pytest.raises(WorkerCancelledError):
        run_job(subject, {}, str(tmp_path), Recorder(cancel_after=0.1))
    assert time.monotonic() - start < 2.0
    assert (tmp_path / "job.json.tidy").read_text() == "cancel\n"


def test_a_worker_that_ignores_cancelling_is_killed_with_its_children(worker, tmp_path):
    subject = worker(
        """
        import subprocess
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        open(sys.argv[1] + ".pids", "w").write("%d %d" % (os.getpid(), child.pid))
        hello()
        say(event="progress", fraction=0.5, phase="mapping")
        while True: time.sleep(1)
        """
    )
    start = time.monotonic()
    with pytest.raises(WorkerCancelledError):
        run_job(subject, {}, str(tmp_path), Recorder(cancel_after=0.1), grace_seconds=0.5)
    assert time.monotonic() - start < 5.0
    pids = [int(pid) for pid in (tmp_path / "job.json.pids").read_text().split()]
    assert len(pids) == 2
    assert wait_until(lambda: not any(map(is_running, pids)), 3.0)


def test_the_children_of_a_crashed_worker_end_too(worker, tmp_path):
    subject = worker(
        """
        import subprocess
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        open(sys.argv[1] + ".pid", "w").write(str(child.pid))
        hello()
        os._exit(9)
        """
    )
    start = time.monotonic()
    with pytest.raises(WorkerError, match="exit code 9"):
        run_job(subject, {}, str(tmp_path), Recorder())
    assert time.monotonic() - start < 10.0
    child = int((tmp_path / "job.json.pid").read_text())
    assert wait_until(lambda: not is_running(child), 3.0)


@pytest.mark.slow
def test_a_worker_that_does_not_end_after_its_result_is_ended(worker, tmp_path, monkeypatch):
    monkeypatch.setattr("rsfusion_plugin.worker.process._EXIT_SECONDS", 0.5)
    subject = worker("hello(); say(event='result', outputs={'OUTPUT': 'a'}); time.sleep(60)")
    assert run_job(subject, {}, str(tmp_path), Recorder()) == {"OUTPUT": "a"}


def test_another_protocol_is_refused_by_its_number(worker, tmp_path):
    subject = worker("hello(protocol=99); say(event='result', outputs={})")
    with pytest.raises(WorkerError, match="speaks protocol 99, and this plugin understands protocol 1"):
        run_job(subject, {}, str(tmp_path), Recorder())


def test_an_event_before_hello_is_refused(worker, tmp_path):
    subject = worker("say(event='progress', fraction=0.1, phase='early'); time.sleep(60)")
    with pytest.raises(WorkerError, match="sent 'progress' before 'hello'"):
        run_job(subject, {}, str(tmp_path), Recorder())


def test_a_program_that_never_says_hello_is_given_up(worker, tmp_path, monkeypatch):
    monkeypatch.setattr("rsfusion_plugin.worker.process.HELLO_SECONDS", 0.5)
    with pytest.raises(WorkerError, match="did not answer"):
        run_job(worker("time.sleep(60)"), {}, str(tmp_path), Recorder())


def test_a_missing_module_sends_to_the_setup(worker, tmp_path):
    with pytest.raises(WorkerError) as caught:
        run_job(worker("import torch_of_another_world"), {}, str(tmp_path), Recorder())
    assert "Set up the worker environment" in caught.value.hint
    assert "torch_of_another_world" in caught.value.details


def test_a_missing_module_that_the_worker_reports_itself_sends_there_too(worker, tmp_path):
    subject = worker(
        """
        say(event="error", message="No module named 'torch'", hint="Report it.", kind="ModuleNotFoundError",
            traceback="Traceback: import torch")
        sys.exit(1)
        """
    )
    with pytest.raises(WorkerError, match="No module named 'torch'") as caught:
        run_job(subject, {}, str(tmp_path), Recorder())
    assert "Set up the worker environment" in caught.value.hint
    assert "Traceback" in caught.value.details


def test_a_missing_python_is_named(worker, tmp_path):
    script = worker("hello()").script
    with pytest.raises(WorkerError, match="'/nowhere/python' cannot be started: No such file") as caught:
        run_job(Worker("/nowhere/python", script), {}, str(tmp_path), Recorder())
    assert "Set up the worker environment" in caught.value.hint
    with pytest.raises(WorkerError, match="cannot be started: Permission denied"):
        run_job(Worker(script, script), {}, str(tmp_path), Recorder())


def test_a_missing_script_is_named(tmp_path):
    with pytest.raises(WorkerError, match=r"'/nowhere/worker\.py' is missing"):
        run_job(Worker(sys.executable, "/nowhere/worker.py"), {}, str(tmp_path), Recorder())


@pytest.mark.parametrize("name", ["with a space", 'd\'Été "quoted"', "Łódź ä ß 東京", "-dash $HOME `id` ;&|"])
def test_any_path_works(worker, tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    subject = worker(
        "hello(); say(event='result', outputs={'OUTPUT': json.load(open(sys.argv[1], encoding='utf-8'))['o']})", folder
    )
    python = folder / "python"
    python.symlink_to(sys.executable)
    job = {"o": str(folder / "out.tif")}
    assert run_job(Worker(str(python), subject.script), job, str(folder), Recorder()) == {"OUTPUT": job["o"]}


def test_the_check_asks_only_for_hello(worker):
    subject = worker("assert sys.argv[1:] == ['--check'], sys.argv\nhello()")
    assert check_worker(subject, Recorder())["torch"] == "2"


def test_no_worker_outlives_its_parent(worker, tmp_path):
    """QGIS is killed: the worker sees its stdin close."""
    subject = worker(
        """
        open(sys.argv[1] + ".pid", "w").write(str(os.getpid()))
        hello()
        open(sys.argv[1] + ".heard", "w").write(repr(sys.stdin.read()))
        sys.exit(130)
        """
    )
    program = textwrap.dedent(
        """
        import sys
        sys.path.insert(0, {root!r})
        from rsfusion_plugin.worker.process import Listener, Worker, run_job
        run_job(Worker(sys.executable, {script!r}), {{}}, {folder!r}, Listener())
        """
    ).format(root=str(ROOT), script=subject.script, folder=str(tmp_path))
    parent = subprocess.Popen([sys.executable, "-c", program])
    pid_file = tmp_path / "job.json.pid"
    try:
        assert wait_until(lambda: pid_file.exists() and pid_file.read_text(), 10.0)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    pid = int(pid_file.read_text())
    assert wait_until(lambda: not is_running(pid), 5.0)
    # Nobody has cancelled: what the job has finished may stay.
    assert (tmp_path / "job.json.heard").read_text() == "''"


def test_the_environment_is_cleaned_of_what_belongs_to_qgis():
    kept = {
        "PATH": "/bin",
        "HOME": "/home/a",
        "TMPDIR": "/tmp",
        "HTTPS_PROXY": "http://proxy:3128",
        "no_proxy": "localhost",
        "PIP_INDEX_URL": "https://mirror/simple",
        "SSL_CERT_FILE": "/etc/ca.pem",
        "AWS_PROFILE": "maps",
        "RSFUSION_PYTHON": "/a/python",
    }
    removed = {
        "PYTHONHOME": "x",
        "PYTHONPATH": "x",
        "GDAL_DATA": "x",
        "GDAL_DRIVER_PATH": "x",
        "PROJ_LIB": "x",
        "PROJ_DATA": "x",
        "QT_PLUGIN_PATH": "x",
        "QGIS_PREFIX_PATH": "x",
        "LD_LIBRARY_PATH": "x",
        "LD_PRELOAD": "x",
        "DYLD_LIBRARY_PATH": "x",
        "OSGEO4W_ROOT": "x",
        "__PYVENV_LAUNCHER__": "x",
        "PIP_TARGET": "x",
        "VIRTUAL_ENV": "x",
    }
    assert clean_environment(dict(kept, **removed)) == kept


def test_the_worker_gets_the_cleaned_environment(worker, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/qgis/python")
    monkeypatch.setenv("GDAL_DATA", "/qgis/gdal")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/qgis/lib")
    subject = worker("hello(); say(event='result', outputs=dict(os.environ))")
    seen = run_job(subject, {}, str(tmp_path), Recorder())
    assert {"PYTHONPATH", "GDAL_DATA", "LD_LIBRARY_PATH"}.isdisjoint(seen)
    assert seen["PATH"] == os.environ["PATH"]


def test_the_worker_leads_its_own_process_group(worker, tmp_path):
    subject = worker("hello(); say(event='result', outputs={'group': os.getpgrp(), 'pid': os.getpid()})")
    outputs = run_job(subject, {}, str(tmp_path), Recorder())
    assert outputs["group"] == outputs["pid"] != os.getpgrp()


def test_a_log_that_cannot_be_written_harms_nothing(worker, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    subject = worker("sys.stderr.write('words\\n'); hello(); say(event='result', outputs={})")
    assert run_job(subject, {}, str(tmp_path), Recorder(), str(blocked / "logs" / "worker.log")) == {}


def test_the_log_keeps_its_end_and_stops_growing(tmp_path, monkeypatch):
    monkeypatch.setattr("rsfusion_plugin.worker.child._LOG_LIMIT_BYTES", 100)
    log = OutputLog(str(tmp_path / "log"))
    for number in range(1000):
        log.add(b"line %d\n" % number)
    log.close()
    assert log.tail(2) == "line 998\nline 999"
    assert (tmp_path / "log").stat().st_size < 120


def test_exit_codes_in_words():
    assert describe_exit(2) == "exit code 2"
    assert "SIGSEGV" in describe_exit(-11)
    assert "memory" in describe_exit(-9)


def test_a_job_is_strict_json(worker, tmp_path):
    subject = worker("hello(); say(event='result', outputs={})")
    with pytest.raises(ValueError):
        run_job(subject, {"resolution": float("nan")}, str(tmp_path), Recorder())
    run_job(subject, {"resolution": 1.5}, str(tmp_path), Recorder())
    assert json.loads((tmp_path / "job.json").read_text()) == {"resolution": 1.5}
