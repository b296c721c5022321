"""Two processes over gloo against one that goes through the same batches in turn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core.models.model_file import load_model
from core.pretraining.processes import AveragedBuffers, Processes, current
from tests.core.finetuning.scenes import mixed_scene
from tests.core.pretraining.together import SWITCHES, run

ROOT = Path(__file__).resolve().parents[3]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def start(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*TORCHRUN, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500, check=False
    )


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of the run of one process, and of two."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    for rank in range(2):
        (two / f"scene{rank}").mkdir()
    ended = start(["-m", "tests.core.pretraining.together", str(two), "1"])
    assert ended.returncode == 0, ended.stderr[-3000:]
    (one / "scene").mkdir()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run(mixed_scene(one / "scene", 60, 48), one, 2)
    finally:
        torch.set_num_threads(threads)
    return one, two


@pytest.mark.parametrize("method", SWITCHES)
def test_two_processes_show_the_losses_of_one_with_the_same_batches(both: tuple[Path, Path], method: str) -> None:
    one, two = (json.loads((folder / f"{method}.json").read_text()) for folder in both)
    assert one["steps"] == two["steps"] == 4
    for alone, together in zip(one["records"], two["records"], strict=True):
        assert alone["losses"] == pytest.approx(together["losses"], rel=1e-3, abs=1e-4)
        assert alone["effective_rank"] == pytest.approx(together["effective_rank"], rel=0.02)


@pytest.mark.parametrize("method", SWITCHES)
def test_all_processes_end_with_the_same_weights(both: tuple[Path, Path], method: str) -> None:
    first, second = (load_file(both[1] / f"{method}_{rank}.safetensors") for rank in range(2))
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_the_command_line_writes_one_model(tmp_path: Path) -> None:
    scene = mixed_scene(tmp_path, 60, 48)
    optical = next(path for a in scene.acquisitions if a.role == "optical" for path in a.paths)
    model = tmp_path / "model.safetensors"
    options = [
        "--optical",
        optical,
        "--optical-sensor",
        "spot6_7",
        "--output-model",
        str(model),
        "--epochs",
        "1",
        "--windows",
        "8",
        "--batch-size",
        "2",
    ]
    ended = start(["-m", "core.cli", "pretrain", *options, "--json"])
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert ended.stdout.count('"event": "result"') == 1
    training = load_model(model)[1].training
    assert (training["processes"], training["steps"]) == (2, 2)
    refused = start(["-m", "core.cli", "sample-scene", str(tmp_path / "scene"), "--json"])
    assert refused.returncode != 0
    assert "Start it without torchrun." in refused.stdout
    assert not (tmp_path / "scene").exists()


def test_what_batches_change_in_running_statistics_is_averaged() -> None:
    norm = torch.nn.BatchNorm1d(1, momentum=0.5)
    frozen = torch.nn.BatchNorm1d(1).eval()
    averaged = AveragedBuffers([norm, frozen])
    for mean in (2.0, 4.0):
        norm(torch.tensor([[mean - 1], [mean + 1]]))
        averaged.take()
        assert norm.running_mean is not None
        assert norm.running_mean.item() == 0.0
    averaged.put(Processes(), 2)
    assert norm.running_mean.item() == pytest.approx(0.5 * (0.5 * 2 + 0.5 * 4))
    assert current() == Processes()
