"""Child processes: a clean environment, a process group of their own, and an end that leaves nobody behind."""

import os
import signal
import subprocess  # nosec B404 # running the worker's Python is what this package is for
import threading
from collections import deque

from .errors import WorkerError

_REMOVED_PREFIXES = ("PYTHON", "GDAL_", "OGR_", "PROJ_", "CPL_", "VSI_", "QT_", "QGIS_", "QML", "OSGEO", "DYLD_")
_REMOVED_NAMES = frozenset(
    {
        "GDAL",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "GEOTIFF_CSV",
        "VIRTUAL_ENV",
        "CONDA_PREFIX",
        # Left over by the launcher of QGIS on macOS; it makes a virtual environment look for the wrong base.
        "__PYVENV_LAUNCHER__",
        # pip would install elsewhere than into the environment that is being built.
        "PIP_TARGET",
        "PIP_PREFIX",
        "PIP_USER",
        "PIP_ROOT",
    }
)

POLL_SECONDS = 0.1
"""How often somebody who waits for a child looks whether the user has cancelled."""

_LOG_LIMIT_BYTES = 20 * 1024 * 1024
"""A worker that prints for ever must not fill the disk."""

_LONGEST_LINE_BYTES = 1024 * 1024
"""A longer line is read in pieces: output without any line break must not fill the memory."""


def clean_environment(environment):
    """The environment variables that the worker gets: those of QGIS without what would send Python, GDAL, PROJ or Qt
    to the files of QGIS. Paths, proxies, temporary folders and pip's settings stay.
    """
    return {
        name: value
        for name, value in environment.items()
        if not name.upper().startswith(_REMOVED_PREFIXES) and name.upper() not in _REMOVED_NAMES
    }


def start_child(command, environment, folder=None, merge_errors=False):
    """Starts a process at the head of its own process group, without a console window, with pipes for all it says.

    Args:
        command: program and arguments.
        environment: all environment variables of the child.
        folder: its current folder.
        merge_errors: whether stderr goes where stdout goes.

    Raises:
        WorkerError: there is no such program, or it cannot be run.
    """
    options = {}
    if os.name == "nt":
        options["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
    else:
        options["start_new_session"] = True
    try:
        return subprocess.Popen(  # nosec B603 # a list of arguments and no shell: nothing in a path is interpreted
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merge_errors else subprocess.PIPE,
            env=environment,
            cwd=folder,
            **options,
        )
    except OSError as error:
        raise WorkerError(
            "'{}' cannot be started: {}.".format(command[0], error.strerror or error),
            "Check the path of the worker's Python in the Processing settings of RS Fusion, or run the algorithm"
            " 'Set up the worker environment'.",
        ) from None


def kill_group(process):
    """Ends a process and whatever it has started, at once."""
    if os.name == "nt":
        system_root = os.environ.get("SYSTEMROOT", r"C:\Windows")
        subprocess.run(  # nosec B603 # Windows' own program by its full path, with a number as its only variable part
            [os.path.join(system_root, "System32", "taskkill.exe"), "/F", "/T", "/PID", str(process.pid)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            creationflags=subprocess.CREATE_NO_WINDOW,
            check=False,
        )
        if process.poll() is None:
            process.kill()
        return
    try:
        # The group has the number of its first process, and lives on while any of its members does.
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    except PermissionError:
        # macOS answers so for a group whose members have all ended but were not waited for.
        process.kill()


def close_quietly(stream):
    """Closes a pipe whose other end may be gone already."""
    try:
        stream.close()
    except OSError:
        return


def describe_exit(code):
    """An exit code in words; on POSIX a negative one is the signal that ended the process."""
    if code is None:
        return "it is still running"
    if code >= 0:
        return "exit code {}".format(code)
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = str(-code)
    if name == "SIGKILL":
        return "killed (SIGKILL), as the system does when memory runs out"
    return "ended by signal {}".format(name)


class OutputLog:
    """Keeps what a child prints: all of it, up to a limit, in a file, and the end of it in memory.

    Args:
        path: the log file; None, or a path that cannot be written, for no file.
    """

    def __init__(self, path=None):
        self.path = None
        self._file = None
        self._written = 0
        self._tail = deque(maxlen=200)
        self._lock = threading.Lock()
        if path is not None:
            try:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                self._file = open(path, "wb")  # noqa: SIM115 # closed by close()
                self.path = path
            except OSError:
                self._file = None  # the end in memory is what an error message shows; it does without the file

    def add(self, line):
        """Keeps one line of bytes. May be called from any thread."""
        with self._lock:
            self._tail.append(line[:2000])
            if self._file is None or self._written > _LOG_LIMIT_BYTES:
                return
            try:
                self._file.write(line)
                self._file.flush()
            except (OSError, ValueError):
                self._file = None  # a full disk stops the log, not the job
            self._written += len(line)

    def tail(self, lines=30):
        """The last lines as text."""
        with self._lock:
            last = list(self._tail)[-lines:]
        return "\n".join(line.decode("utf-8", "replace").rstrip() for line in last).strip()

    def close(self):
        with self._lock:
            if self._file is not None:
                close_quietly(self._file)
                self._file = None


def read_lines(stream, receive):
    """Starts a thread that hands every line of a pipe to ``receive`` and ends with the pipe."""

    def read():
        while True:
            try:
                line = stream.readline(_LONGEST_LINE_BYTES)
            except (OSError, ValueError):
                return  # closed under the reader, when the child was killed
            if not line:
                return
            receive(line)

    thread = threading.Thread(target=read, name="rsfusion-worker-pipe", daemon=True)
    thread.start()
    return thread
