"""Consistency on unlabelled pixels: what counts, that both views show the same ground, and exact resuming."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.errors import Cancelled
from core.finetuning.networks.consistency import SURE, consistency_loss, consistency_weight
from core.finetuning.networks.sampling import Batch, WindowSampler
from core.finetuning.networks.settings import TrainingSettings
from core.jobs.schemas import parse_job
from tests.core.finetuning.training import SETTINGS, Prepared, run

ON = replace(SETTINGS, epochs=2, windows_per_epoch=18, consistency=True)


class Says(nn.Module):
    """A teacher that always says the same."""

    def __init__(self, scores: Tensor) -> None:
        super().__init__()
        self.scores = scores

    def forward(self, values: dict[str, Tensor]) -> Tensor:
        return self.scores


def test_only_sure_answers_on_unlabelled_pixels_count() -> None:
    # Sure of the first class, sure of the second, undecided, and sure where somebody drew.
    said = torch.tensor([[9.0, 0.0, 0.5, 9.0], [0.0, 9.0, 0.0, 0.0]]).view(1, 2, 1, 4)
    unlabelled = torch.tensor([True, True, True, False]).view(1, 1, 4)
    batch = Batch({}, torch.full((1, 1, 4), -1), torch.ones(1, 1, 4), {"x": torch.zeros(1, 1, 1, 4)}, unlabelled)
    scores = torch.zeros(1, 2, 1, 4, requires_grad=True)
    loss = consistency_loss(scores, Says(said), batch)
    assert float(loss) == pytest.approx(2 * np.log(2) / 3, rel=1e-5)
    loss.backward()
    assert scores.grad is not None
    assert scores.grad[0, :, 0, 2:].abs().sum() == 0
    assert (scores.grad[0, 0, 0, :2] * torch.tensor([-1.0, 1.0]) > 0).all()
    agreeing = consistency_loss(said.clone(), Says(said), batch)
    assert float(agreeing) < 1e-3
    nobody = replace(batch, unlabelled=torch.zeros(1, 1, 4, dtype=torch.bool))
    assert float(consistency_loss(scores, Says(said), nobody)) == 0
    assert 0.5 < SURE < 1


def test_the_weight_grows_to_one_by_half_of_the_training() -> None:
    weights = [consistency_weight(step, 100) for step in range(100)]
    assert weights[0] < 0.01
    assert weights[50:] == [1.0] * 50
    assert (np.diff(weights[:51]) > 0).all()


def test_both_views_show_the_same_ground(simulated: Prepared) -> None:
    settings = TrainingSettings(batch_size=6, window_size=32, radiometric_strength=0.0, modality_dropout=0.0, consistency=True)
    sampler = WindowSampler(simulated.data, ~simulated.validation, simulated.specification, settings)
    batch = sampler.batch(np.random.default_rng(3))
    assert batch.calm.keys() == batch.values.keys()
    for name, values in batch.values.items():
        assert torch.equal(torch.nan_to_num(values), torch.nan_to_num(batch.calm[name]))
    assert batch.unlabelled.any()
    assert not (batch.unlabelled & (batch.classes >= 0)).any()
    varied = replace(settings, radiometric_strength=0.3)
    other = WindowSampler(simulated.data, ~simulated.validation, simulated.specification, varied).batch(
        np.random.default_rng(3)
    )
    assert not torch.equal(torch.nan_to_num(other.values["sentinel1"]), torch.nan_to_num(other.calm["sentinel1"]))
    off = replace(varied, consistency=False)
    plain = WindowSampler(simulated.data, ~simulated.validation, simulated.specification, off).batch(np.random.default_rng(3))
    assert torch.equal(plain.classes, other.classes), "the windows are the same with and without"
    assert plain.calm == {}
    assert not plain.unlabelled.any()


def test_no_drawn_pixel_is_asked_about_even_if_it_is_held_out(simulated: Prepared) -> None:
    """A window that shows two features, of which one is learned from: neither is asked about."""
    settings = TrainingSettings(batch_size=16, window_size=64, modality_dropout=0.0, consistency=True)
    one = np.arange(len(simulated.labels)) == 0
    some = WindowSampler(simulated.data, one, simulated.specification, settings).batch(np.random.default_rng(0))
    every = WindowSampler(simulated.data.only(one), one, simulated.specification, settings).batch(np.random.default_rng(0))
    assert torch.equal(some.classes, every.classes)
    assert not (some.unlabelled & (some.classes >= 0)).any()
    assert some.unlabelled.sum() < every.unlabelled.sum(), "without the other labels more is nobody's"


def weights(result: Any) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in result.model.state_dict().items()}


def test_it_changes_the_network_and_goes_on_with_the_same_bits(
    simulated: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # After a few steps an average is sure of nothing.
    monkeypatch.setattr("core.finetuning.networks.consistency.SURE", 0.1)
    whole = run(simulated, tmp_path / "whole", settings=ON)
    plain = run(simulated, tmp_path / "plain", settings=replace(ON, consistency=False))
    assert weights(whole) != weights(plain)

    def stop(part: float, phase: str) -> None:
        if part > 1.4 / ON.epochs:
            raise Cancelled

    with pytest.raises(Cancelled):
        run(simulated, tmp_path / "stopped", stop, settings=ON)
    again = run(simulated, tmp_path / "stopped", settings=ON)
    assert weights(again) == weights(whole)


def test_what_trains_no_network_is_refused() -> None:
    from core.errors import UsageError

    job = {
        "kind": "finetune",
        "inputs": {"optical": ["/a.tif"]},
        "labels": {"path": "/l.gpkg", "class_field": "class"},
        "output_model": "/m.safetensors",
        "consistency": True,
    }
    with pytest.raises(UsageError, match="trains none"):
        parse_job({**job, "mode": "forest"})
    assert parse_job({**job, "mode": "auto"}).kind == "finetune"
