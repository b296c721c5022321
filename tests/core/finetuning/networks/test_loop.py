"""Training from end to end on the simulated scene: the same to the bit, better than chance, and resumed after a kill."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.errors import Cancelled
from core.finetuning.evaluation import balanced_log_loss, calibrated_log_loss, fit_temperature, predict_labelled
from core.finetuning.networks import loop
from core.finetuning.networks.loop import TrainingResult
from core.finetuning.training_data import TrainingData
from core.models.model_file import load_model, read_tensors
from tests.core.finetuning.training import IDENTITY, SETTINGS, Prepared, run, write

SHORT = replace(SETTINGS, epochs=1, windows_per_epoch=6)
ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="module")
def finished(simulated: Prepared, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingResult, Path, Path]:
    """An uninterrupted run, its checkpoint and its model file."""
    folder = tmp_path_factory.mktemp("finished")
    result = run(simulated, folder / "checkpoint.safetensors")
    write(folder / "model.safetensors", simulated, result)
    return result, folder / "checkpoint.safetensors", folder / "model.safetensors"


def weights(result: TrainingResult) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in result.model.state_dict().items()}


def curves(result: TrainingResult) -> list[str]:
    """The records as text: what was not measured is NaN, which equals nothing."""
    return [repr(record) for record in result.records]


def epochs_in(checkpoint: Path) -> int:
    """Whole epochs that a checkpoint holds."""
    return len(json.loads(read_tensors(checkpoint)[1])["records"]) if checkpoint.is_file() else 0


def test_training_learns(simulated: Prepared, finished: tuple[TrainingResult, Path, Path]) -> None:
    result = finished[0]
    assert [record.epoch for record in result.records] == [1, 2, 3]
    assert result.records[-1].training_loss < 0.9 * result.records[0].training_loss
    assert result.validation is not None
    chance = 1 / len(np.unique(result.validation.classes))
    assert result.records[result.best_epoch - 1].validation_macro_f1 > 1.5 * chance
    assert (result.validation.predicted == result.validation.classes).mean() > 2 * chance


def test_the_result_is_the_best_epoch_and_nothing_else(
    simulated: Prepared, finished: tuple[TrainingResult, Path, Path]
) -> None:
    result, validation = finished[0], finished[0].validation
    losses = {record.epoch: record.validation_loss for record in result.records if math.isfinite(record.validation_loss)}
    assert list(losses) == [2, 3]
    assert result.best_epoch == min(losses, key=lambda epoch: losses[epoch])
    assert validation is not None
    assert calibrated_log_loss(validation) == min(losses.values())
    assert simulated.validation[validation.feature].all()
    labelled = simulated.data.pixels
    assert len(validation.classes) == simulated.validation[labelled[:, 3]].sum()
    assert result.temperature == fit_temperature(validation)
    assert balanced_log_loss(validation, result.temperature) >= min(losses.values())
    assert not result.model.training
    again = predict_labelled(result.model, simulated.specification, simulated.data, simulated.validation, torch.device("cpu"))
    np.testing.assert_array_equal(again.scores, validation.scores)


def test_same_seed_same_bits_and_another_seed_another_model(
    simulated: Prepared, finished: tuple[TrainingResult, Path, Path], tmp_path: Path
) -> None:
    torch.manual_seed(99)
    np.random.seed(99)
    before = torch.random.get_rng_state()
    again = run(simulated, tmp_path / "again")
    assert weights(again) == weights(finished[0])
    assert curves(again) == curves(finished[0])
    assert again.temperature == finished[0].temperature
    assert torch.equal(torch.random.get_rng_state(), before)
    first, other = (run(simulated, tmp_path / str(seed), settings=replace(SHORT, seed=seed)) for seed in (1, 2))
    assert weights(first) != weights(other)


def test_a_stopped_run_goes_on_with_the_same_bits(
    simulated: Prepared, finished: tuple[TrainingResult, Path, Path], tmp_path: Path
) -> None:
    checkpoint, whole_epochs = tmp_path / "checkpoint", 1

    def stop(part: float, phase: str) -> None:
        # In the middle of the next epoch.
        if part > (whole_epochs + 0.4) / SETTINGS.epochs:
            raise Cancelled

    with pytest.raises(Cancelled):
        run(simulated, checkpoint, stop)
    assert epochs_in(checkpoint) == whole_epochs
    steps = Counter[bool]()
    result = run(simulated, checkpoint, lambda part, phase: steps.update([bool(phase)]))
    assert steps[False] == (SETTINGS.epochs - whole_epochs) * SETTINGS.steps_per_epoch
    assert weights(result) == weights(finished[0])
    assert curves(result) == curves(finished[0])


def test_a_killed_program_goes_on_with_the_same_bytes(
    sample: Any, simulated: Prepared, finished: tuple[TrainingResult, Path, Path], tmp_path: Path
) -> None:
    checkpoint, model = tmp_path / "checkpoint.safetensors", tmp_path / "model.safetensors"
    program = [sys.executable, "-m", "tests.core.finetuning.training", str(sample.folder), str(model), str(checkpoint)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    # Slow steps leave the time to kill it between two epochs.
    with subprocess.Popen([*program, "0.2"], cwd=ROOT, env=environment) as process:
        deadline = time.monotonic() + 100
        while epochs_in(checkpoint) < 1 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert 1 <= epochs_in(checkpoint) < SETTINGS.epochs
    assert not model.exists()
    result = run(simulated, checkpoint)
    assert write(model, simulated, result) == finished[2].read_bytes()
    assert load_model(model)[1].temperature == finished[0].temperature


def test_a_finished_run_is_not_trained_again(simulated: Prepared, finished: tuple[TrainingResult, Path, Path]) -> None:
    steps: list[float] = []
    result = run(simulated, finished[1], lambda part, phase: steps.append(part))
    assert steps == []
    assert weights(result) == weights(finished[0])


@pytest.fixture(scope="module")
def short(simulated: Prepared, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """One epoch of one step."""
    return run(simulated, tmp_path_factory.mktemp("short") / "checkpoint", settings=SHORT)


@pytest.mark.parametrize("what", ["another identity", "damaged", "no checkpoint", "empty"])
def test_what_is_no_checkpoint_of_this_run_is_ignored(
    simulated: Prepared,
    finished: tuple[TrainingResult, Path, Path],
    short: TrainingResult,
    tmp_path: Path,
    what: str,
) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    content = {
        "another identity": finished[1].read_bytes(),
        "damaged": finished[1].read_bytes()[:-100],
        "no checkpoint": finished[2].read_bytes(),
        "empty": b"",
    }[what]
    checkpoint.write_bytes(content)
    result = run(simulated, checkpoint, identity="another run" if "identity" in what else IDENTITY, settings=SHORT)
    assert len(result.records) == 1
    assert weights(result) == weights(short)
    assert epochs_in(checkpoint) == 1


def test_training_ends_when_patience_does(simulated: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The first half of nine epochs is scored at the second and the fourth.
    losses = iter([3.0, 2.0, 2.5, 2.0])
    monkeypatch.setattr(loop, "calibrated_log_loss", lambda _: next(losses))
    settings = replace(SETTINGS, epochs=9, windows_per_epoch=6, patience=2)
    checkpoint = tmp_path / "checkpoint"
    result = run(simulated, checkpoint, settings=settings)
    scored = [(r.epoch, r.validation_loss) for r in result.records if math.isfinite(r.validation_loss)]
    assert scored == [(2, 3.0), (4, 2.0), (5, 2.5), (6, 2.0)]
    assert len(result.records) == result.best_epoch + settings.patience == 6
    assert curves(run(simulated, checkpoint, settings=settings)) == curves(result)


def test_without_held_out_labels_the_last_epoch_counts(simulated: Prepared, tmp_path: Path) -> None:
    settings = replace(SETTINGS, epochs=2, windows_per_epoch=6, patience=0)
    everything = replace(simulated, validation=np.zeros_like(simulated.validation))
    result = run(everything, tmp_path / "checkpoint", settings=settings)
    assert result.best_epoch == len(result.records) == 2
    assert result.validation is None
    assert result.temperature == 1
    assert all(math.isnan(record.validation_loss) for record in result.records)
    again = run(everything, tmp_path / "checkpoint", settings=settings)
    assert weights(again) == weights(result)


def test_held_out_labels_do_not_teach(simulated: Prepared, short: TrainingResult, tmp_path: Path) -> None:
    """Turning every held-out label into another class changes no weight after one epoch."""
    data = simulated.data
    held = simulated.validation[data._feature] & (data._feature >= 0)
    before = data._classes.copy()
    try:
        data._classes[held] = (data._classes[held] + 1) % len(simulated.labels.scheme)
        turned = run(simulated, tmp_path / "turned", settings=SHORT)
    finally:
        data._classes[...] = before
    assert weights(turned) == weights(short)


def test_a_model_that_may_miss_inputs_is_measured_with_each_set_of_them(simulated: Prepared, tmp_path: Path) -> None:
    lenient = replace(simulated, data=TrainingData(simulated.data.scene, simulated.labels, reach=64, allows_missing=True))
    result = run(lenient, tmp_path / "checkpoint", settings=replace(SHORT, modality_dropout=0.5))
    assert [subset.inputs for subset in result.subsets] == [{"sentinel2_l2a"}, {"sentinel1"}]
    for subset in result.subsets:
        chosen = simulated.validation
        again = predict_labelled(
            result.model, simulated.specification, lenient.data, chosen, torch.device("cpu"), subset.inputs
        )
        np.testing.assert_array_equal(again.scores, subset.predictions.scores)
        assert balanced_log_loss(again, subset.temperature) <= balanced_log_loss(again)
    first, second = (subset.predictions.scores.mean() for subset in result.subsets)
    assert first != second
    again = run(lenient, tmp_path / "again", settings=replace(SHORT, modality_dropout=0.5))
    assert weights(again) == weights(result)


def test_a_model_that_needs_all_inputs_is_not_measured_without_some(finished: tuple[TrainingResult, Path, Path]) -> None:
    assert finished[0].subsets == ()
