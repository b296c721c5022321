"""Builds the worker's environment: a virtual environment without the system's packages, filled from the lock file."""

import glob
import json
import os
import queue
import re
import shutil
import subprocess  # nosec B404 # looking at a Python's version means running it
import sys
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
from .environment import MARKER, environment_python, is_complete, lock_hash, read_marker
from .errors import WorkerCancelledError, WorkerError
from .process import Worker, check_worker

MINIMUM_PYTHON = (3, 11)
"""The oldest Python that ``core`` runs on."""

BasePython = namedtuple("BasePython", ["path", "version"])
BasePython.__doc__ = """A Python that can build an environment: its path, and its version as ``(major, minor)``."""

_PROBE = (
    "import json, sys\n"
    "missing = []\n"
    "for name in ('venv', 'ensurepip'):\n"
    "    try: __import__(name)\n"
    "    except ImportError: missing.append(name)\n"
    "print(json.dumps({'version': list(sys.version_info[:2]), 'missing': missing}))\n"
)

_PROBE_SECONDS = 30


def candidate_pythons():
    """Paths where a Python may be, the likeliest first; those beside the Python library that QGIS uses come first."""
    names = ["python3"] + ["python3.{}".format(minor) for minor in range(14, MINIMUM_PYTHON[1] - 1, -1)] + ["python"]
    paths = []
    prefixes = [sys.exec_prefix, sys.prefix, sys.base_prefix]
    if os.name == "nt":
        paths += [os.path.join(prefix, "python.exe") for prefix in prefixes]
        roots = [os.environ.get("OSGEO4W_ROOT", ""), os.path.dirname(os.path.dirname(sys.exec_prefix))]
        for root in filter(None, roots):
            paths += sorted(glob.glob(os.path.join(root, "apps", "Python3*", "python.exe")), reverse=True)
    else:
        # In the bundle of QGIS for macOS the programs stand beside QGIS itself.
        folders = [os.path.join(prefix, "bin") for prefix in prefixes]
        folders += [os.path.dirname(sys.executable or ""), os.path.join(os.path.dirname(sys.executable or ""), "bin")]
        folders += ["/opt/homebrew/bin", "/usr/local/bin", "/usr/bin"]
        paths += [os.path.join(folder, name) for folder in folders if folder for name in names]
    paths += [path for path in map(shutil.which, names) if path]
    unique = []
    for path in paths:
        if os.path.isfile(path) and path not in unique:
            unique.append(path)
    return unique


def find_base_python(candidates):
    """The first of several Pythons that is new enough and can build an environment.

    Raises:
        WorkerError: there is none; the hint tells what each one lacks.
    """
    wanted = ".".join(map(str, MINIMUM_PYTHON))
    notes = []
    seen = set()
    for path in candidates:
        real = os.path.realpath(path)
        if real in seen:
            continue
        seen.add(real)
        found = _probe(path)
        if found is None:
            continue
        version, missing = tuple(found["version"]), found["missing"]
        if version < MINIMUM_PYTHON:
            notes.append("'{}' is Python {}.{}".format(path, *version))
        elif missing:
            notes.append("'{}' lacks {} (on Debian and Ubuntu: apt install python3-venv)".format(path, missing[0]))
        else:
            return BasePython(path, version)
    raise WorkerError(
        "No Python {} or later was found to build the worker environment with.".format(wanted),
        "Install one from python.org, or from your system's packages, and run this again."
        + (" Looked at: {}.".format("; ".join(notes)) if notes else ""),
    )


def _probe(path):
    """The version and the missing modules of what may be a Python; None where it is none."""
    options = {"creationflags": subprocess.CREATE_NO_WINDOW} if os.name == "nt" else {}
    try:
        answer = subprocess.run(  # nosec B603 # a list of arguments and no shell; the program is a Python that we found
            [path, "-I", "-c", _PROBE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=clean_environment(os.environ),
            timeout=_PROBE_SECONDS,
            check=True,
            **options,
        )
        found = json.loads(answer.stdout.decode("utf-8"))
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return found if isinstance(found, dict) and {"version", "missing"} <= set(found) else None


def build_environment(folder, lock_path, script, listener, candidates=None, log_path=None):
    """Builds the environment, or finds it built already.

    A folder that was left half built by a crash is built anew; one that is cancelled or fails is removed.

    Args:
        folder: where to build it; missing, empty, or an earlier environment of ours.
        lock_path: file with the exact versions, as pip reads it.
        script: path of ``core/worker.py``, which the finished environment must be able to start.
        listener: a ``process.Listener``.
        candidates: Pythons to build it with; those of the machine by default.
        log_path: where to keep what pip prints.

    Returns:
        The path of the environment's Python.

    Raises:
        WorkerError: no Python to build with, a folder with other content, a failed download, a worker that does not
            start.
        WorkerCancelledError: the listener's ``is_cancelled`` answered yes.
    """
    python = environment_python(folder)
    if is_complete(folder, lock_path):
        listener.log("info", "The environment in '{}' is up to date.".format(folder))
        listener.progress(0.9, "Checking the worker")
        try:
            check_worker(Worker(python, script), listener)
            return python
        except WorkerError as error:
            listener.log("warning", "It does not work and is built anew: {}".format(error))
    _refuse_foreign(folder)
    base = find_base_python(candidate_pythons() if candidates is None else candidates)
    listener.log("info", "Building with '{}' (Python {}.{}).".format(base.path, *base.version))
    _clear(folder)
    log = OutputLog(log_path)
    try:
        _write_marker(folder, lock_path, base, "building")
        listener.progress(0.02, "Creating the environment")
        _run([base.path, "-I", "-m", "venv", folder], folder, listener, log)
        _install(python, folder, lock_path, listener, log)
        listener.progress(0.95, "Checking the worker")
        check_worker(Worker(python, script), listener)
        _write_marker(folder, lock_path, base, "complete")
    except OSError as error:
        _remove(folder)
        raise WorkerError(
            "The environment cannot be written to '{}': {}.".format(folder, error.strerror or error),
            "It needs up to 10 GB. Choose another FOLDER, or make room.",
        ) from None
    except (WorkerError, WorkerCancelledError):
        _remove(folder)
        raise
    finally:
        log.close()
    return python


def _refuse_foreign(folder):
    """Stops at a folder that holds something else than an environment of ours.

    Raises:
        WorkerError: it does.
    """
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise WorkerError("'{}' is a file.".format(folder), "Name a folder for the environment.")
    if os.path.isdir(folder) and os.listdir(folder) and not read_marker(folder):
        raise WorkerError(
            "'{}' holds files that are not a worker environment; nothing was changed.".format(folder),
            "Name an empty folder, or one that does not exist.",
        )


def _clear(folder):
    """Removes an earlier environment of ours.

    Raises:
        WorkerError: it cannot be removed.
    """
    if read_marker(folder):
        _remove(folder)
        if os.path.exists(folder):
            raise WorkerError(
                "The old environment in '{}' cannot be removed.".format(folder), "Close the programs that use it."
            )


def _remove(folder):
    shutil.rmtree(folder, ignore_errors=True)


def _write_marker(folder, lock_path, base, state):
    os.makedirs(folder, exist_ok=True)
    marker = {"state": state, "lock": lock_hash(lock_path), "python": "{}.{}".format(*base.version)}
    temporary = os.path.join(folder, MARKER + ".tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(marker, file)
    os.replace(temporary, os.path.join(folder, MARKER))


def count_packages(lock_path):
    """How many packages a lock file names."""
    with open(lock_path, encoding="utf-8") as file:
        # Options start with a dash; hashes and continued lines are indented.
        return sum(1 for line in file if line[:1].isalnum())


def _install(python, folder, lock_path, listener, log):
    """Downloads and installs the packages; a package counts when pip starts to fetch it."""
    packages = max(1, count_packages(lock_path))
    fetched = set()

    def hear(line):
        # pip says "Collecting six==1.17.0" for an index, and "Processing /a/six-1.17.0.whl" for a folder of wheels.
        if line.startswith(("Collecting ", "Processing ")):
            what = line.split()[1]
            name = os.path.basename(what).split("-")[0] if line[0] == "P" else re.split(r"[=<>!~;\[]", what)[0]
            fetched.add(name)
            share = min(1.0, len(fetched) / packages)
            listener.progress(0.05 + 0.65 * share, "Fetching {} ({} of {})".format(name, len(fetched), packages))
        elif line.startswith("Installing collected packages"):
            listener.progress(0.72, "Installing the packages")
        elif line.lstrip().startswith("Downloading ") and "MB" in line:
            listener.log("info", line.strip())

    # Only wheels: the set-up code of a source package is never run.
    command = [python, "-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    command += ["--progress-bar", "off", "--only-binary", ":all:", "--requirement", lock_path]
    _run(command, folder, listener, log, hear)


def _run(command, folder, listener, log, hear=None):
    """Runs a program to its end.

    Raises:
        WorkerError: it failed; the details are the end of what it said.
        WorkerCancelledError: the listener's ``is_cancelled`` answered yes. The program is killed: the caller throws
            away what it was making.
    """
    lines = queue.Queue()
    process = start_child(command, clean_environment(os.environ), folder, merge_errors=True)
    close_quietly(process.stdin)

    def receive(line):
        log.add(line)
        lines.put(line.decode("utf-8", "replace"))

    reader = read_lines(process.stdout, receive)
    try:
        while reader.is_alive() or not lines.empty():
            if listener.is_cancelled():
                raise WorkerCancelledError()
            try:
                line = lines.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            if hear is not None:
                hear(line)
        process.wait()
    finally:
        if process.poll() != 0:
            kill_group(process)
            process.wait()
        close_quietly(process.stdout)
    if process.returncode != 0:
        raise WorkerError(
            "Building the environment failed ('{}', {}).".format(" ".join(command[1:5]), describe_exit(process.returncode)),
            "It needs the internet (or a proxy set in HTTPS_PROXY) and up to 10 GB of disk space.",
            log.tail(),
        )
