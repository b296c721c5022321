"""Finding and building the worker's Python."""

import json
import os
import subprocess
import textwrap
import venv
from pathlib import Path

import pytest

from rsfusion_plugin.worker import build, environment
from rsfusion_plugin.worker.build import build_environment, count_packages, find_base_python
from rsfusion_plugin.worker.environment import MARKER, environment_python, is_complete, lock_hash
from rsfusion_plugin.worker.errors import WorkerCancelledError, WorkerError
from rsfusion_plugin.worker.process import Listener

GOOD_WORKER = """
import json
print(json.dumps(dict(event="hello", protocol=1, version="0", python="3", torch="2", device="cpu")))
"""


class Recorder(Listener):
    def __init__(self, cancel=False):
        self.steps, self.logs, self._cancel = [], [], cancel

    def progress(self, fraction, phase):
        self.steps.append((fraction, phase))

    def log(self, level, text):
        self.logs.append((level, text))

    def is_cancelled(self):
        return self._cancel


@pytest.fixture
def lock(tmp_path):
    path = tmp_path / "worker.lock"
    path.write_text("# nothing to install\n")
    return str(path)


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "worker.py"
    path.write_text(GOOD_WORKER)
    return str(path)


@pytest.fixture
def finished(tmp_path, lock, script):
    """The folder of a small, finished environment: a real one, but without any package, not even pip."""
    folder = tmp_path / "data" / ("environment-" + lock_hash(lock)[:12])
    venv.create(folder, symlinks=True, with_pip=False)
    marker = {"state": "complete", "lock": lock_hash(lock), "python": "3.11"}
    (folder / MARKER).write_text(json.dumps(marker))
    return folder


def executable(path, text="#!/bin/sh\nexit 0\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_the_setting_comes_first_then_the_variable(tmp_path):
    first, second = executable(tmp_path / "a" / "python"), executable(tmp_path / "b" / "python")
    assert environment.named_python(first, {"RSFUSION_PYTHON": second}).path == first
    found = environment.named_python("", {"RSFUSION_PYTHON": second})
    assert found.path == second
    assert "RSFUSION_PYTHON" in found.origin
    assert environment.named_python("  ", {}) is None


def test_a_named_python_that_is_missing_is_an_error_and_no_other_is_taken(tmp_path):
    second = executable(tmp_path / "b" / "python")
    with pytest.raises(WorkerError, match=r"'/nowhere/python', named by the setting .* is not a file"):
        environment.named_python("/nowhere/python", {"RSFUSION_PYTHON": second})


def test_the_folder_of_an_environment_stands_for_its_python(finished):
    assert environment.named_python(str(finished), {}).path == environment_python(str(finished))


def test_the_managed_environment_is_found_when_complete(tmp_path, finished, lock):
    data = str(tmp_path / "data")
    assert environment.managed_python(data, lock).path == environment_python(str(finished))


@pytest.mark.parametrize(
    "marker", [{"state": "building", "lock": None}, {"state": "complete", "lock": "of another version"}, None]
)
def test_an_unfinished_or_old_environment_is_not_used(tmp_path, finished, lock, marker):
    if marker is None:
        (finished / MARKER).write_text("{ half a marker")
    else:
        marker["lock"] = marker["lock"] or lock_hash(lock)
        (finished / MARKER).write_text(json.dumps(marker))
    assert not is_complete(str(finished), lock)
    with pytest.raises(WorkerError, match="incomplete or belongs to another version") as caught:
        environment.managed_python(str(tmp_path / "data"), lock)
    assert "rsfusion:setupenvironment" in caught.value.hint


def test_without_any_environment_the_setup_is_named(tmp_path, lock):
    with pytest.raises(WorkerError, match="not set up yet") as caught:
        environment.managed_python(str(tmp_path / "nothing"), lock)
    assert "Set up the worker environment" in caught.value.hint


def test_the_lock_hash_does_not_depend_on_line_ends(tmp_path):
    (tmp_path / "a").write_bytes(b"six==1\nattrs==2\n")
    (tmp_path / "b").write_bytes(b"six==1\r\nattrs==2\r\n")
    (tmp_path / "c").write_bytes(b"six==2\nattrs==2\n")
    assert lock_hash(tmp_path / "a") == lock_hash(tmp_path / "b") != lock_hash(tmp_path / "c")


def test_core_and_the_lock_are_found_installed_and_in_a_checkout(tmp_path):
    plugin = tmp_path / "rsfusion_plugin"
    plugin.mkdir()
    with pytest.raises(WorkerError, match="lacks the package 'core'"):
        environment.worker_script(str(plugin))
    with pytest.raises(WorkerError, match="list of packages"):
        environment.lock_file(str(plugin))
    for base, lock_name in ((tmp_path, "requirements/worker.lock"), (plugin, "worker/requirements.lock")):
        executable(base / "core" / "__init__.py", "")
        executable(base / lock_name, "six\n")
        assert environment.worker_script(str(plugin)) == str(base / "core" / "worker.py")
        assert environment.lock_file(str(plugin)) == str(base / lock_name)


def test_packages_are_counted(tmp_path):
    path = tmp_path / "lock"
    path.write_text("# a comment\n--extra-index-url https://example.org\nattrs==23.1 \\\n    --hash=sha256:aa\ntorch==2\n\n")
    assert count_packages(str(path)) == 2


def test_the_systems_python_can_build_an_environment():
    base = find_base_python(build.candidate_pythons())
    assert base.version >= (3, 11)
    answer = subprocess.run([base.path, "-c", "import ensurepip, venv"], check=False)
    assert answer.returncode == 0


def test_unfit_pythons_are_named_with_what_they_lack(tmp_path):
    old = executable(tmp_path / "old", '#!/bin/sh\necho \'{"version": [3, 8], "missing": []}\'\n')
    bare = executable(tmp_path / "bare", '#!/bin/sh\necho \'{"version": [3, 12], "missing": ["ensurepip"]}\'\n')
    odd = executable(tmp_path / "odd", "#!/bin/sh\necho hello\n")
    with pytest.raises(WorkerError, match=r"No Python 3\.11 or later") as caught:
        find_base_python([old, bare, odd, "/nowhere/python"])
    assert f"'{old}' is Python 3.8" in caught.value.hint
    assert "python3-venv" in caught.value.hint
    good = executable(tmp_path / "good", '#!/bin/sh\necho \'{"version": [3, 12], "missing": []}\'\n')
    assert find_base_python([old, good]).path == good


def test_a_finished_environment_is_only_checked(finished, lock, script):
    listener = Recorder()
    python = build_environment(str(finished), lock, script, listener, candidates=[])
    assert python == environment_python(str(finished))
    assert any("up to date" in text for _, text in listener.logs)


def test_a_folder_with_other_files_is_left_alone(tmp_path, lock, script):
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(WorkerError, match="not a worker environment; nothing was changed"):
        build_environment(str(folder), lock, script, Recorder())
    assert (folder / "thesis.txt").read_text() == "years of work"
    with pytest.raises(WorkerError, match="is a file"):
        build_environment(str(folder / "thesis.txt"), lock, script, Recorder())


def test_a_folder_that_cannot_be_made_is_named(tmp_path, lock, script):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(WorkerError, match="cannot be written"):
        build_environment(str(blocked / "environment"), lock, script, Recorder())


def test_cancelling_leaves_nothing(tmp_path, lock, script):
    folder = tmp_path / "environment"
    with pytest.raises(WorkerCancelledError):
        build_environment(str(folder), lock, script, Recorder(cancel=True))
    assert not folder.exists()


@pytest.mark.slow
def test_an_environment_is_really_built_after_a_crash_and_then_reused(tmp_path, script):
    lock = tmp_path / "worker.lock"
    lock.write_text("six==1.17.0\n")
    folder = tmp_path / "an environment with ä"
    folder.mkdir()
    (folder / MARKER).write_text(json.dumps({"state": "building"}))
    (folder / "left over").write_text("by the crash")
    Path(script).write_text("import six\n" + GOOD_WORKER)
    listener = Recorder()
    log = tmp_path / "logs" / "setup.log"
    python = build_environment(str(folder), str(lock), script, listener, log_path=str(log))
    assert not (folder / "left over").exists()
    assert is_complete(str(folder), str(lock))
    answer = subprocess.run([python, "-I", "-c", "import six; print(six.__file__)"], capture_output=True, text=True)
    assert answer.stdout.startswith(str(folder))
    assert "include-system-site-packages = false" in (folder / "pyvenv.cfg").read_text()
    fractions = [fraction for fraction, _ in listener.steps]
    assert fractions == sorted(fractions)
    assert "Fetching six (1 of 1)" in [phase for _, phase in listener.steps]
    assert "six" in log.read_text()
    before = os.stat(folder / MARKER).st_mtime_ns
    again = Recorder()
    assert build_environment(str(folder), str(lock), script, again, candidates=[]) == python
    assert os.stat(folder / MARKER).st_mtime_ns == before


@pytest.mark.slow
def test_a_failed_download_says_what_pip_said_and_leaves_nothing(tmp_path, script, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    lock = tmp_path / "worker.lock"
    lock.write_text("six==1.17.0\n")
    folder = tmp_path / "environment"
    with pytest.raises(WorkerError, match="Building the environment failed") as caught:
        build_environment(str(folder), str(lock), script, Recorder())
    assert "No matching distribution found for six" in caught.value.details
    assert not folder.exists()


@pytest.mark.slow
def test_a_worker_that_does_not_start_makes_no_finished_environment(tmp_path, lock, script):
    Path(script).write_text(textwrap.dedent("import a_package_that_the_lock_forgot"))
    folder = tmp_path / "environment"
    with pytest.raises(WorkerError, match="without a result") as caught:
        build_environment(str(folder), lock, script, Recorder())
    assert "a_package_that_the_lock_forgot" in caught.value.details
    assert not folder.exists()


def test_only_programs_named_python_are_candidates():
    """``sys.executable`` is QGIS on Windows and macOS; only files named python are ever run."""
    assert all("python" in os.path.basename(path) for path in build.candidate_pythons())
