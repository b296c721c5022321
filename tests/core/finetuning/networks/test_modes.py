"""Training with adapters and with decaying rates: resumed to the bit, averaged, and delivered as an ordinary model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import Cancelled
from core.finetuning.networks import loop
from core.finetuning.networks.linear_start import fit_linear_start
from core.finetuning.networks.loop import TrainingResult, train
from core.finetuning.networks.start import start_model
from core.models.model_file import load_model, read_tensors
from tests.core.finetuning.networks.test_loop import ROOT, curves, epochs_in, weights
from tests.core.finetuning.training import IDENTITY, MODES, Prepared, run, write

BY_PARTS = pytest.mark.parametrize("mode", ["adapters", "layer decay"])


@pytest.fixture(scope="module")
def finished(simulated: Prepared, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[TrainingResult, bytes]]:
    """Uninterrupted runs and their model files."""
    folder = tmp_path_factory.mktemp("modes")
    results = {mode: run(simulated, folder / mode, settings=MODES[mode]) for mode in ("adapters", "layer decay")}
    return {mode: (result, write(folder / "model", simulated, result)) for mode, result in results.items()}


@BY_PARTS
def test_a_stopped_run_goes_on_with_the_same_bits(
    simulated: Prepared, finished: dict[str, tuple[TrainingResult, bytes]], tmp_path: Path, mode: str
) -> None:
    def stop(part: float, phase: str) -> None:
        if part > 1.4 / MODES[mode].epochs:
            raise Cancelled

    with pytest.raises(Cancelled):
        run(simulated, tmp_path / "checkpoint", stop, settings=MODES[mode])
    assert epochs_in(tmp_path / "checkpoint") == 1
    result = run(simulated, tmp_path / "checkpoint", settings=MODES[mode])
    assert weights(result) == weights(finished[mode][0])
    assert curves(result) == curves(finished[mode][0])
    again = run(simulated, tmp_path / "again", settings=MODES[mode])
    assert weights(again) == weights(result)


@BY_PARTS
def test_a_killed_program_goes_on_with_the_same_bytes(
    sample: Any, simulated: Prepared, finished: dict[str, tuple[TrainingResult, bytes]], tmp_path: Path, mode: str
) -> None:
    checkpoint, model = tmp_path / "checkpoint.safetensors", tmp_path / "model.safetensors"
    program = [sys.executable, "-m", "tests.core.finetuning.training", str(sample.folder), str(model), str(checkpoint)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    # Slow steps leave the time to kill it between two epochs.
    with subprocess.Popen([*program, "0.2", mode], cwd=ROOT, env=environment) as process:
        deadline = time.monotonic() + 100
        while epochs_in(checkpoint) < 1 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert 1 <= epochs_in(checkpoint) < MODES[mode].epochs
    result = run(simulated, checkpoint, settings=MODES[mode])
    assert write(model, simulated, result) == finished[mode][1]
    assert load_model(model)[0].state_dict().keys() == result.model.state_dict().keys()


def test_adapters_are_in_the_checkpoint_and_not_in_the_model(
    simulated: Prepared, finished: dict[str, tuple[TrainingResult, bytes]], tmp_path: Path
) -> None:
    started = start_model(simulated.specification, MODES["adapters"].seed, None, simulated.labels.scheme).state_dict()
    result = finished["adapters"][0]
    own = result.model.state_dict()
    assert result.best_epoch > 0
    assert list(own) == list(started)
    assert all(parameter.requires_grad for parameter in result.model.parameters())
    moved = {name for name, value in own.items() if not torch.equal(value, started[name])}
    assert any(name.startswith("fusion.encoders.") for name in moved)
    assert any(name.startswith("head.decoder.") for name in moved)
    assert not any("running" in name for name in moved if name.startswith("fusion."))
    assert not any(name.startswith("stems.") for name in moved)
    run(simulated, tmp_path / "checkpoint", settings=replace(MODES["adapters"], epochs=1))
    kept = read_tensors(tmp_path / "checkpoint")[0]
    assert {name.split("/")[0] for name in kept if name.endswith(".down")} == {"model"}
    assert {name for name in kept if name.startswith("best/")} == {f"best/{name}" for name in started}


def test_the_average_is_of_the_weights_that_adapters_make(
    simulated: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the average of what the model was after every step, kept in another way."""
    seen: list[dict[str, torch.Tensor]] = []
    averaged = loop._average

    def listen(average: torch.nn.Module, model: torch.nn.Module, kept: float) -> None:
        before = {name: value.clone() for name, value in average.state_dict().items()}
        averaged(average, model, kept)
        weight = model.get_submodule("fusion.encoders.sentinel1.stages.0.second.1").weight.detach()
        name = "fusion.encoders.sentinel1.stages.0.second.1.weight"
        after = average.state_dict()[name]
        torch.testing.assert_close(after, kept * before[name] + (1 - kept) * weight)
        seen.append({"after": after.clone(), "weight": weight.clone()})

    monkeypatch.setattr(loop, "_average", listen)
    run(simulated, tmp_path / "checkpoint", settings=replace(MODES["adapters"], epochs=1))
    assert len(seen) == MODES["adapters"].steps_per_epoch
    assert not torch.equal(seen[-1]["after"], seen[-1]["weight"])
    assert not torch.equal(seen[0]["after"], seen[-1]["after"])


@BY_PARTS
def test_beside_linear_models_a_network_is_trained_in_parts(simulated: Prepared, tmp_path: Path, mode: str) -> None:
    specification = simulated.specification.model_copy(update={"has_shortcut": True})

    def once(checkpoint: Path, stop_at: float = 2.0) -> TrainingResult:
        def progress(part: float, phase: str) -> None:
            if part > stop_at:
                raise Cancelled

        model = start_model(specification, 0, None, simulated.labels.scheme)
        fit_linear_start(model, specification, simulated.data, ~simulated.validation)
        settings, device = replace(MODES[mode], epochs=2, windows_per_epoch=12), torch.device("cpu")
        held_out = simulated.validation
        return train(model, specification, simulated.data, held_out, settings, device, checkpoint, IDENTITY, progress)

    whole = once(tmp_path / "whole")
    with pytest.raises(Cancelled):
        once(tmp_path / "stopped", 0.7)
    assert weights(once(tmp_path / "stopped")) == weights(whole)
    started = start_model(specification, 0, None, simulated.labels.scheme)
    assert list(whole.model.state_dict()) == list(started.state_dict())
