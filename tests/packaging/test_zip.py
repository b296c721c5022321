"""The plugin's zip: what is in it, that its bytes are reproducible, and that the plugin site would take it."""

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load_packager():
    spec = importlib.util.spec_from_file_location("package", ROOT / "scripts" / "package.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The zip, built as a release is."""
    target = tmp_path_factory.mktemp("dist") / "rsfusion_plugin.zip"
    answer = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "package.py"), str(target)], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return target


@pytest.fixture(scope="module")
def unpacked(built, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder)
    return folder / "rsfusion"


def test_the_zip_has_one_top_folder_and_only_what_belongs_there(built):
    with zipfile.ZipFile(built) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {"rsfusion"}
    for name in names:
        parts = name.split("/")
        assert not any(part.startswith(".") or part in ("__pycache__", "tests") for part in parts), name
        assert not name.endswith((".pyc", ".safetensors", ".tif")), name
    needed = "metadata.txt LICENSE __init__.py worker/requirements.lock core/worker.py core/errors.py icons/provider.svg"
    assert {"rsfusion/" + name for name in needed.split()} <= set(names)
    assert any(name.startswith("rsfusion/core/resources/") for name in names)
    assert built.stat().st_size < 25_000_000


def test_the_same_files_give_the_same_bytes(built, tmp_path):
    packager = load_packager()
    files = packager.packaged_files(ROOT)
    packager.write_zip(tmp_path / "again.zip", files)
    assert (tmp_path / "again.zip").read_bytes() == built.read_bytes()
    # Another time and another order of the file system change nothing.
    source = tmp_path / "copy"
    for name, path in reversed(files):
        copy = source / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
        os.utime(copy, (1, 1))
    packager.write_zip(tmp_path / "third.zip", [(name, source / name) for name, _ in files])
    assert (tmp_path / "third.zip").read_bytes() == built.read_bytes()


def test_a_missing_part_is_named_and_nothing_is_written(tmp_path):
    packager = load_packager()
    with pytest.raises(FileNotFoundError, match="cannot do without"):
        packager.packaged_files(tmp_path)


def test_dot_files_and_caches_are_left_out(tmp_path):
    packager = load_packager()
    wanted = ["rsfusion_plugin/metadata.txt", "rsfusion_plugin/__init__.py", "LICENSE", "requirements/worker.lock"]
    wanted += ["core/__init__.py", "core/worker.py", "core/resources/a.json"]
    unwanted = ["core/__pycache__/a.pyc", "core/.hidden", "rsfusion_plugin/tests/test_a.py", "core/a.tif.aux.xml"]
    for name in wanted + unwanted:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    names = [name for name, _ in packager.packaged_files(tmp_path)]
    assert names == sorted(
        "rsfusion/" + name
        for name in (
            "LICENSE",
            "__init__.py",
            "core/__init__.py",
            "core/resources/a.json",
            "core/worker.py",
            "metadata.txt",
            "worker/requirements.lock",
        )
    )


def test_bandit_finds_nothing(unpacked):
    answer = subprocess.run(
        [sys.executable, "-m", "bandit", "-r", ".", "-f", "json", "-q"],
        cwd=unpacked,
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(answer.stdout)
    problems = ["{filename}:{line_number} {test_id} {issue_text}".format(**result) for result in found["results"]]
    assert not problems, "\n".join(problems)
    assert not found["errors"]
    assert found["metrics"]["_totals"]["loc"] > 1000


def test_every_exception_from_bandit_is_single_and_has_its_reason(unpacked):
    """Behind the rule's number, or in the comment above it."""
    for path in unpacked.rglob("*.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            if "nosec" in line:
                note = line.partition("nosec")[2].split()
                assert note, f"{path}:{number} names no rule"
                assert note[0].startswith("B"), f"{path}:{number} names no rule"
                above = lines[number - 2].strip()
                assert len(note) > 4 or above.startswith("#"), f"{path}:{number} gives no reason"


def test_detect_secrets_finds_nothing(unpacked):
    answer = subprocess.run(
        [sys.executable, "-m", "detect_secrets", "scan", "--all-files"],
        cwd=unpacked,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(answer.stdout)
    assert len(found["plugins_used"]) > 20
    problems = [
        "{}:{} {}".format(path, entry["line_number"], entry["type"])
        for path, entries in found["results"].items()
        for entry in entries
    ]
    assert not problems, "\n".join(problems)
