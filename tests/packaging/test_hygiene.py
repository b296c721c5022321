"""Who may import whom, read from the source: nothing is run."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "rsfusion_plugin"

ONLY_IN_THE_WORKER = {
    "affine",
    "core",
    "geopandas",
    "jinja2",
    "joblib",
    "matplotlib",
    "numpy",
    "pandas",
    "pydantic",
    "pyogrio",
    "pyproj",
    "rasterio",
    "safetensors",
    "scipy",
    "shapely",
    "skimage",
    "sklearn",
    "torch",
    "tqdm",
    "typer",
}
FREE_OF_QGIS = ("worker", "algorithms/choices.py", "algorithms/command_line.py")


def python_files(folder):
    files = sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)
    assert files
    return files


def imported(path):
    """Top-level names of all imports of a file; a relative one is ``.``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield name.name.split(".")[0], node.lineno
        elif isinstance(node, ast.ImportFrom):
            yield ("." if node.level else node.module.split(".")[0]), node.lineno


@pytest.mark.parametrize("path", python_files(PLUGIN), ids=lambda path: str(path.relative_to(PLUGIN)))
def test_the_plugin_imports_nothing_that_only_the_worker_has(path):
    for name, line in imported(path):
        assert name not in ONLY_IN_THE_WORKER | {"multiprocessing", "PyQt5", "PyQt6", "rsfusion_plugin"}, (path, line)


@pytest.mark.parametrize("name", FREE_OF_QGIS)
def test_what_needs_no_qgis_imports_none(name):
    target = PLUGIN / name
    for path in python_files(target) if target.is_dir() else [target]:
        assert "qgis" not in {found for found, _ in imported(path)}, path


def test_core_imports_no_qgis():
    for path in python_files(ROOT / "core"):
        assert {"qgis", "PyQt5", "PyQt6", "rsfusion_plugin"}.isdisjoint(name for name, _ in imported(path)), path


def test_the_plugin_keeps_to_the_syntax_of_python_39():
    for path in [*python_files(PLUGIN), ROOT / "scripts" / "package.py"]:
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))


def test_enumerations_are_fully_scoped():
    """``QgsProcessing.TypeRaster`` is gone in QGIS 4, ``QgsProcessing.SourceType.TypeRaster`` is not."""
    allowed = {"TEMPORARY_OUTPUT"}
    for path in python_files(PLUGIN):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and (node.value.id.startswith("Qgs") or node.value.id in ("Qt", "Qgis"))
                and node.attr[0].isupper()
            ):
                parents = [
                    other
                    for other in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                    if isinstance(other, ast.Attribute)
                    and isinstance(other.value, ast.Attribute)
                    and ast.dump(other.value) == ast.dump(node)
                ]
                is_class = node.attr in ("LayerDetails", "SaveVectorOptions")
                assert parents or is_class or node.attr in allowed, (path, node.lineno, node.attr)


def test_no_dialogs_prints_or_generated_resources():
    for path in python_files(PLUGIN):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("print", "eval", "exec"), (path, node.lineno)
            assert not isinstance(node, ast.Assert), (path, node.lineno)
            if isinstance(node, ast.Name):
                assert node.id != "QMessageBox", (path, node.lineno)
