"""Runs one job in the worker process and relays what it says.

The worker is ``<python> -I <core>/worker.py <job.json>``. It writes one JSON object a line to stdout, the first being
``hello``. It stops when its stdin says ``cancel``, and leaves nothing; also when its stdin closes without that, which
happens when QGIS dies: no worker stays behind, but what it has finished does. Whatever it prints besides goes to a log
whose end appears in the error.
"""

import contextlib
import json
import os
import queue
import time
from collections import namedtuple

from .child import (
    POLL_SECONDS,
    OutputLog,
    clean_environment,
    close_quietly,
    describe_exit,
    kill_group,
    read_lines,
    start_child,
)
from .errors import WorkerCancelledError, WorkerError

PROTOCOL = 1
"""The version of the events that this plugin understands; the same number stands in ``core/jobs/events.py``."""

CANCEL_GRACE_SECONDS = 10.0
"""How long a cancelled worker has to remove its half-written files before it is killed."""

HELLO_SECONDS = 180.0
"""How long a worker may take to say hello: a first import of torch from a cold, scanned disk takes a minute."""

_EXIT_SECONDS = 15.0
"""How long a worker may take to end after its last event."""

_EVENTS = frozenset({"hello", "progress", "log", "result", "error", "cancelled"})

Worker = namedtuple("Worker", ["python", "script"])
Worker.__doc__ = """How the worker is started.

Attributes:
    python: path of the Python of the worker's environment.
    script: path of ``core/worker.py``.
"""


class Listener:
    """Receives what the worker says. This one receives it in silence."""

    def hello(self, event):
        """The worker has started: ``version``, ``python``, ``torch``, ``device``."""

    def progress(self, fraction, phase):
        """``fraction`` 0..1 of the whole job, never falling; ``phase`` a short text."""

    def log(self, level, text):
        """``level`` is ``info`` or ``warning``."""

    def is_cancelled(self):
        """Whether the user wants the job to stop; asked ten times a second."""
        return False


def run_job(worker, job, folder, listener, log_path=None, grace_seconds=CANCEL_GRACE_SECONDS):
    """Runs a job to its end.

    Args:
        worker: a ``Worker``.
        job: the job as plain data, as ``core/jobs/schemas.py`` has it.
        folder: an existing folder for the job's file.
        listener: a ``Listener``.
        log_path: where to keep what the worker prints.
        grace_seconds: how long a cancelled worker may take to stop before it is killed.

    Returns:
        The outputs of the job: key to path, number or text.

    Raises:
        WorkerError: the worker could not be run, broke the protocol, died or reported an error.
        WorkerCancelledError: the listener's ``is_cancelled`` answered yes.
    """
    path = os.path.join(folder, "job.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(job, file, ensure_ascii=False, indent=1, allow_nan=False)
    conversation = _Conversation(worker, [path], folder, listener, OutputLog(log_path), grace_seconds)
    return conversation.run("result")["outputs"]


def check_worker(worker, listener, log_path=None):
    """Starts the worker only to hear its ``hello``, which it says after importing all that it needs.

    Returns:
        The event: ``protocol``, ``version``, ``python``, ``torch``, ``device``.

    Raises:
        WorkerError: the worker could not be run, broke the protocol or died.
        WorkerCancelledError: the listener's ``is_cancelled`` answered yes.
    """
    conversation = _Conversation(worker, ["--check"], None, listener, OutputLog(log_path), CANCEL_GRACE_SECONDS)
    return conversation.run("hello")


class _Conversation:
    """One worker from its start to its end; ``run`` is called once."""

    def __init__(self, worker, arguments, folder, listener, log, grace_seconds):
        self._worker = worker
        self._arguments = arguments
        self._folder = folder
        self._listener = listener
        self._log = log
        self._grace_seconds = grace_seconds
        self._events = queue.Queue()
        self._process = None
        self._hello = None
        self._last = None  # the event that ended the job: result, error or cancelled
        self._fraction = 0.0
        self._ended_by_us = False  # it gave its last event and then did not end

    def run(self, wanted):
        """Listens until the worker has ended, and answers the event named ``wanted``."""
        if not os.path.isfile(self._worker.script):
            raise WorkerError("The worker's program '{}' is missing.".format(self._worker.script), "Install the plugin again.")
        # -X utf8: the job's paths and the worker's messages are not bound to the code page of Windows.
        command = [self._worker.python, "-I", "-X", "utf8", self._worker.script] + self._arguments
        self._process = start_child(command, clean_environment(os.environ), self._folder)
        readers = [
            read_lines(self._process.stdout, self._receive),
            read_lines(self._process.stderr, self._log.add),
        ]
        try:
            self._listen()
            self._finish(readers)
        finally:
            if self._process.poll() is None:
                kill_group(self._process)
                self._process.wait()
            for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
                close_quietly(stream)
            self._log.close()
        return self._answer(wanted)

    def _receive(self, line):
        """Takes one line of stdout: an event, or something that a library has printed."""
        try:
            event = json.loads(line.decode("utf-8"))
        except ValueError:
            event = None
        if isinstance(event, dict) and event.get("event") in _EVENTS:
            self._events.put(event)
        else:
            self._log.add(line)

    def _listen(self):
        """Handles events until the job's last one, or until the process has ended."""
        started = time.monotonic()
        while self._last is None:
            if self._listener.is_cancelled():
                self._stop()
            try:
                self._handle(self._events.get(timeout=POLL_SECONDS))
            except queue.Empty:
                if self._process.poll() is not None:
                    return
                if self._hello is None and time.monotonic() - started > HELLO_SECONDS:
                    raise self._error(
                        "'{}' did not answer within {:.0f} s.".format(self._worker.python, HELLO_SECONDS),
                        "Is it the Python of a worker environment?",
                    ) from None

    def _handle(self, event):
        kind = event["event"]
        if kind == "hello":
            self._greet(event)
        elif self._hello is None and kind != "error":
            raise self._mismatch("sent '{}' before 'hello'".format(kind))
        elif kind == "progress":
            fraction = event.get("fraction")
            if isinstance(fraction, (int, float)):
                self._fraction = max(self._fraction, min(1.0, float(fraction)))
            self._listener.progress(self._fraction, str(event.get("phase", "")))
        elif kind == "log":
            self._listener.log(str(event.get("level", "info")), str(event.get("text", "")))
        else:
            self._last = event

    def _greet(self, event):
        if event.get("protocol") != PROTOCOL:
            raise self._mismatch("speaks protocol {}".format(event.get("protocol")))
        self._hello = event
        self._listener.hello(event)

    def _mismatch(self, what):
        return self._error(
            "The worker {}, and this plugin understands protocol {}.".format(what, PROTOCOL),
            "'{}' and the plugin are of different versions: install the plugin again.".format(self._worker.script),
        )

    def _stop(self):
        """Cancels: asks first, and kills after the grace time."""
        # It may have ended already, or have been asked before.
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(b"cancel\n")
        close_quietly(self._process.stdin)
        deadline = time.monotonic() + self._grace_seconds
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        raise WorkerCancelledError()

    def _finish(self, readers):
        """Lets the worker end by itself, and takes what it still had to say."""
        deadline = time.monotonic() + _EXIT_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            if self._listener.is_cancelled():
                self._stop()
            time.sleep(0.02)
        if self._process.poll() is None:
            self._ended_by_us = True
        if self._process.returncode != 0:
            # Also where the worker itself is gone: what it had started may live on, and holds the pipes open.
            kill_group(self._process)
            self._process.wait()
        for reader in readers:
            reader.join(2.0)
        while self._last is None and not self._events.empty():
            self._handle(self._events.get())

    def _answer(self, wanted):
        code = self._process.returncode
        last = self._last or {"event": ""}
        if last["event"] == "cancelled":
            raise WorkerCancelledError()
        if last["event"] == "error":
            # A message of ours says it all; only a defect needs the traceback and what was printed before it.
            traceback = str(last.get("traceback") or "")
            details = "\n".join(part for part in (traceback, self._log_note()) if part) if traceback else ""
            hint = str(last.get("hint", ""))
            if last.get("kind") in ("ModuleNotFoundError", "ImportError"):
                hint = self._incomplete()
            raise WorkerError(str(last.get("message", "The job failed.")), hint, details)
        if wanted == "hello" and self._hello is not None and code == 0:
            return self._hello
        has_outputs = last["event"] == "result" and isinstance(last.get("outputs"), dict)
        if wanted == "result" and has_outputs and (code == 0 or self._ended_by_us):
            return last
        raise self._error("The worker ended without a result: {}.".format(describe_exit(code)), self._death_hint())

    def _death_hint(self):
        tail = self._log.tail()
        if "ModuleNotFoundError" in tail or "ImportError" in tail:
            return self._incomplete()
        if "MemoryError" in tail or "killed" in describe_exit(self._process.returncode):
            return "Close other programs, or work on a smaller area."
        return ""

    def _incomplete(self):
        return (
            "The environment of '{}' lacks packages: run the algorithm 'Set up the worker environment'"
            " (rsfusion:setupenvironment)."
        ).format(self._worker.python)

    def _error(self, message, hint=""):
        return WorkerError(message, hint, self._log_note())

    def _log_note(self):
        tail = self._log.tail()
        if not tail:
            return ""
        where = " (all of it is in '{}')".format(self._log.path) if self._log.path else ""
        return "The end of the worker's output{}:\n{}".format(where, tail)
