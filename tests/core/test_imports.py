"""What an import costs and what it brings along."""

from __future__ import annotations

import ast
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "pandas", "sklearn", "matplotlib", "rasterio", "geopandas", "scipy")


def loaded_after(statement: str) -> set[str]:
    program = f"import sys\n{statement}\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def best_time(*command: str) -> float:
    """Seconds of the processor that the fastest of a few runs took: how long a run lasts depends on what else runs."""
    times = []
    for _ in range(6):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return min(times)


def test_importing_core_is_quick():
    assert best_time("-c", "import core") - best_time("-c", "pass") < 0.15


@pytest.mark.parametrize(
    "module",
    [
        "core",
        "core.errors",
        "core.models.specification",
        "core.models.architectures",
        "core.jobs.schemas",
        "core.jobs.events",
        "core.jobs.runner",
        "core.jobs.stopping",
    ],
)
def test_what_describes_jobs_and_models_loads_nothing_heavy(module: str):
    assert loaded_after(f"import {module}").isdisjoint(HEAVY)


def test_the_command_line_loads_nothing_heavy_before_a_job_runs():
    assert loaded_after("import core.cli").isdisjoint({*HEAVY, "numpy"})


def test_help_is_quick():
    assert best_time("-c", "from core.cli import main; main()", "finetune", "--help") < 1.0


def test_core_imports_no_qgis():
    files = [path for path in (ROOT / "core").rglob("*.py") if "__pycache__" not in path.parts]
    assert len(files) > 50
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] not in {"qgis", "PyQt5", "PyQt6", "osgeo", "rsfusion_plugin"}, path


def test_shipped_code_has_no_asserts_and_prints_nothing():
    for path in (ROOT / "core").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not isinstance(node, ast.Assert), (path, node.lineno)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"print", "eval", "exec"}, (path, node.lineno)
