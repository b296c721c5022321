"""A small simulated scene and a model trained on it, shared by the tests of jobs and programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.core.jobs.running import EPOCH, Trained, run_command


@pytest.fixture(autouse=True)
def _fixed_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The simulated scene, for reading only."""
    from core.scenes.simulate import write_scene

    return write_scene(tmp_path_factory.mktemp("sample") / "scene", size=128, seed=1)


@pytest.fixture(scope="session")
def few_labels(sample: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four polygons each of three classes, where only the way of a training matters and not its result."""
    import geopandas

    frame = geopandas.read_file(sample.labels)
    path = tmp_path_factory.mktemp("few") / "few.gpkg"
    frame[frame["class"].isin(["Water", "Crops", "Trees"])].groupby("class").head(4).to_file(path, driver="GPKG")
    return path


@pytest.fixture(scope="session")
def trained(sample: Any, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A model of Sentinel-2 and Sentinel-1, trained for two epochs on the command line."""
    folder = tmp_path_factory.mktemp("trained")
    model, report = folder / "model.safetensors", folder / "report.html"
    arguments = ["--optical", str(sample.optical), "--sar", str(sample.sar), "--labels", str(sample.labels)]
    arguments += [
        "--class-field",
        "class",
        "--mode",
        "scratch",
        "--epochs",
        "2",
        "--output-model",
        str(model),
        "--report",
        str(report),
    ]
    told = run_command("finetune", *arguments)
    assert told.code == 0, told.stderr
    job = {
        "kind": "finetune",
        "inputs": {"optical": [str(sample.optical)], "sar": [str(sample.sar)]},
        "labels": {"path": str(sample.labels), "class_field": "class"},
        "mode": "scratch",
        "epochs": 2,
        "output_model": str(model),
        "report": str(report),
    }
    return Trained(model, report, job, told)


@pytest.fixture(scope="session")
def network(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that says something, whatever it is: two epochs leave little but the linear model."""
    from core.models.model_file import load_model, load_novelty, save_model

    path = tmp_path_factory.mktemp("network") / "large.safetensors"
    model, card = load_model(trained.model)
    with torch.no_grad():
        model.linear.scale(0.2)
        generator = torch.Generator().manual_seed(3)
        model.head.classifier.weight.copy_(torch.randn(model.head.classifier.weight.shape, generator=generator))
    save_model(path, model, card, load_novelty(trained.model, card))
    return path


@pytest.fixture
def map_job(sample: Any, trained: Trained, tmp_path: Path) -> dict[str, Any]:
    """A job that maps the scene to ``out/map.tif`` below the test's folder."""
    (tmp_path / "out").mkdir()
    return {
        "kind": "map",
        "inputs": dict(trained.job["inputs"]),
        "model": str(trained.model),
        "output": str(tmp_path / "out" / "map.tif"),
        "overlap": 0.0,  # small tiles: quick where nothing but the way of a map matters
    }


@pytest.fixture
def finetune_job(sample: Any, few_labels: Path, tmp_path: Path) -> dict[str, Any]:
    """A job that trains the smallest model for one epoch, to ``out/model.safetensors`` below the test's folder."""
    (tmp_path / "out").mkdir()
    return {
        "kind": "finetune",
        "inputs": {"optical": [str(sample.optical)]},
        "labels": {"path": str(few_labels), "class_field": "class"},
        "architecture": "unet_early",
        "mode": "scratch",
        "epochs": 1,
        "output_model": str(tmp_path / "out" / "model.safetensors"),
        "report": str(tmp_path / "out" / "report.html"),
    }
