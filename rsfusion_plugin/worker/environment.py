"""Where the worker's Python is, and where the plugin keeps what the worker needs.

The environment is looked for in this order: the setting ``rsfusion/worker_python``, the environment variable
``RSFUSION_PYTHON``, the environment that the algorithm 'Set up the worker environment' has built. Never
``sys.executable``: on Windows and macOS that is QGIS itself.
"""

import hashlib
import json
import os
from collections import namedtuple

from .errors import WorkerError
from .process import Worker

VARIABLE = "RSFUSION_PYTHON"
"""The environment variable with the path of the worker's Python."""

MARKER = "rsfusion-environment.json"
"""A file inside an environment of ours. It says that the folder may be deleted, and whether it is complete."""

SET_UP_HINT = (
    "Run the algorithm 'Set up the worker environment' (rsfusion:setupenvironment) once, or name a Python that has"
    " the worker's packages in the Processing settings of RS Fusion or in the environment variable RSFUSION_PYTHON."
)

_PLUGIN_FOLDER = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))

FoundPython = namedtuple("FoundPython", ["path", "origin"])
FoundPython.__doc__ = """A Python for the worker.

Attributes:
    path: of the executable.
    origin: which of the places named it, in words.
"""


def core_folder(plugin_folder=_PLUGIN_FOLDER):
    """The folder that holds the package ``core``: the plugin's own in an installed plugin, its parent in a checkout.

    Raises:
        WorkerError: there is none.
    """
    for folder in (plugin_folder, os.path.dirname(plugin_folder)):
        if os.path.isfile(os.path.join(folder, "core", "__init__.py")):
            return folder
    raise WorkerError("The plugin in '{}' lacks the package 'core'.".format(plugin_folder), "Install the plugin again.")


def worker_script(plugin_folder=_PLUGIN_FOLDER):
    """The path of the worker's program."""
    return os.path.join(core_folder(plugin_folder), "core", "worker.py")


def lock_file(plugin_folder=_PLUGIN_FOLDER):
    """The list of exact package versions that the environment is built from.

    Raises:
        WorkerError: there is none.
    """
    installed = os.path.join(plugin_folder, "worker", "requirements.lock")
    checkout = os.path.join(os.path.dirname(plugin_folder), "requirements", "worker.lock")
    for path in (installed, checkout):
        if os.path.isfile(path):
            return path
    raise WorkerError("The list of packages '{}' is missing.".format(installed), "Install the plugin again.")


def lock_hash(path):
    """The SHA-256 of a lock file, the same whatever its line ends are."""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read().replace(b"\r\n", b"\n")).hexdigest()


def managed_folder(data_folder, lock_path):
    """The folder of the environment that belongs to a lock file. A new lock file gets a new folder, so an environment
    in use by another version of the plugin is never changed under it.

    Args:
        data_folder: where the plugin keeps its data.
        lock_path: the lock file.
    """
    return os.path.join(data_folder, "environment-" + lock_hash(lock_path)[:12])


def environment_python(folder):
    """The Python inside a virtual environment."""
    if os.name == "nt":
        return os.path.join(folder, "Scripts", "python.exe")
    return os.path.join(folder, "bin", "python")


def read_marker(folder):
    """What the marker of an environment says; empty where there is none or it cannot be read."""
    try:
        with open(os.path.join(folder, MARKER), encoding="utf-8") as file:
            marker = json.load(file)
    except (OSError, ValueError):
        return {}
    return marker if isinstance(marker, dict) else {}


def is_complete(folder, lock_path):
    """Whether an environment was built to its end from just this lock file."""
    marker = read_marker(folder)
    return (
        marker.get("state") == "complete"
        and marker.get("lock") == lock_hash(lock_path)
        and os.path.isfile(environment_python(folder))
    )


def named_python(setting, environment):
    """The Python that the user has named; None where none is named.

    Args:
        setting: the user's setting, possibly empty.
        environment: the environment variables.

    Returns:
        A ``FoundPython``. Whether its packages are complete is known only after it has run.

    Raises:
        WorkerError: the one that is named does not exist.
    """
    for path, origin in (
        (setting, "the setting 'Python of the worker environment'"),
        (environment.get(VARIABLE, ""), "the environment variable " + VARIABLE),
    ):
        path = os.path.expanduser(path.strip())
        if not path:
            continue
        if os.path.isdir(path) and os.path.isfile(environment_python(path)):
            path = environment_python(path)  # the folder of an environment is as good as its Python
        if not os.path.isfile(path):
            raise WorkerError("'{}', named by {}, is not a file.".format(path, origin), SET_UP_HINT)
        return FoundPython(os.path.abspath(path), origin)
    return None


def managed_python(data_folder, lock_path):
    """The Python of the environment that 'Set up the worker environment' has built.

    Raises:
        WorkerError: it has built none, not to the end, or for another version of the plugin.
    """
    folder = managed_folder(data_folder, lock_path)
    if is_complete(folder, lock_path):
        return FoundPython(environment_python(folder), "the environment built by 'Set up the worker environment'")
    if any(name.startswith("environment-") for name in _names(data_folder)):
        raise WorkerError("The worker environment is incomplete or belongs to another version.", SET_UP_HINT)
    raise WorkerError("The worker environment is not set up yet.", SET_UP_HINT)


def find_worker(setting, environment, data_folder):
    """The worker to run jobs with, and where its Python was found.

    Args:
        setting: the user's setting, possibly empty.
        environment: the environment variables.
        data_folder: where the plugin keeps its data.

    Returns:
        ``(Worker, origin)``.

    Raises:
        WorkerError: no Python is set up, the one that is named does not exist, or the plugin is not complete.
    """
    found = named_python(setting, environment) or managed_python(data_folder, lock_file())
    return Worker(found.path, worker_script()), found.origin


def _names(folder):
    try:
        return os.listdir(folder)
    except OSError:
        return []
