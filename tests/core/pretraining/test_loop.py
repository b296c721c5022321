"""The loop: the same twice, the same after a kill, another with another seed; it stops when features collapse."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from core.errors import TrainingError
from core.models.registry import build_model
from core.models.specify import specify_for_scenes
from core.pretraining.loop import PretrainingResult, pretrain, rate_at
from core.pretraining.objectives.objective import Objective, Step
from core.pretraining.recipes.build import make_recipe
from core.pretraining.scene_windows import SceneWindows
from core.pretraining.settings import PretrainingSettings
from tests.core.finetuning.scenes import mixed_scene

SETTINGS = PretrainingSettings(
    epochs=2, windows_per_epoch=8, batch_size=2, window_size=24, learning_rate=1e-2, seed=3, accumulation=2
)
METHOD = "latent_targets"


class StoppedError(Exception):
    """In place of a kill."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return mixed_scene(tmp_path_factory.mktemp("scene"), 60, 48)


def run(scene, checkpoint: Path, *, stop_after=None, identity="this run", memory=2**30, objective=None, **changed):
    specification, scenes = specify_for_scenes([scene], "unet_intermediate")
    specification = specification.model_copy(update={"width": 4, "depth": 1})
    settings = PretrainingSettings(**{**SETTINGS.__dict__, **changed})
    torch.manual_seed(settings.seed)
    model = build_model(specification)
    made = make_recipe(METHOD).objective(model) if objective is None else objective(model)
    windows = SceneWindows(scenes, specification, settings.window_size, settings.batch_size, memory)
    steps = []

    def progress(part: float, phase: str) -> None:
        steps.append(part)
        if stop_after is not None and len(steps) == stop_after:
            raise StoppedError

    return pretrain(model, made, windows, settings, torch.device("cpu"), checkpoint, identity, progress)


def state(result: PretrainingResult) -> dict[str, torch.Tensor]:
    return result.model.state_dict()


def equal(one: PretrainingResult, other: PretrainingResult) -> bool:
    pairs = zip(state(one).items(), state(other).items(), strict=True)
    return all(name == other_name and torch.equal(a, b) for (name, a), (other_name, b) in pairs)


@pytest.fixture(scope="module")
def whole(scene, tmp_path_factory):
    return run(scene, tmp_path_factory.mktemp("whole") / "checkpoint")


def test_a_run_says_what_it_showed(whole):
    assert whole.steps == 4
    assert [record.epoch for record in whole.records] == [1, 2]
    for record in whole.records:
        assert all(math.isfinite(value) for value in record.losses.values())
        assert record.effective_rank > 1.5
        assert set(record.dependence) == {"spot6_7", "generic", "dsm"}
    assert whole.trains_decoder
    assert not whole.model.training
    assert all(parameter.requires_grad for parameter in whole.model.parameters())


def test_the_same_seed_gives_the_same_weights_and_another_does_not(whole, scene, tmp_path):
    assert equal(whole, run(scene, tmp_path / "a"))
    assert not equal(whole, run(scene, tmp_path / "b", seed=4))


@pytest.mark.parametrize("memory", [2**30, 60_000])
@pytest.mark.parametrize("stop_after", [2, 3])
def test_a_stopped_run_goes_on_to_the_same_end(scene, tmp_path, monkeypatch, stop_after, memory):
    """At the end of an epoch, where its record is kept, and within one, from the last checkpoint."""
    monkeypatch.setattr("core.pretraining.loop.CHECKPOINT_SECONDS", 0.0)
    straight = run(scene, tmp_path / "straight", memory=memory)
    with pytest.raises(StoppedError):
        run(scene, tmp_path / "broken", stop_after=stop_after, memory=memory)
    assert (tmp_path / "broken").is_file()
    resumed = run(scene, tmp_path / "broken", memory=memory)
    assert equal(straight, resumed)
    assert straight.records == resumed.records


def test_another_runs_checkpoint_is_not_taken(whole, scene, tmp_path):
    with pytest.raises(StoppedError):
        run(scene, tmp_path / "checkpoint", stop_after=3, identity="another")
    assert equal(whole, run(scene, tmp_path / "checkpoint"))


def test_every_trained_parameter_moves_heads_included(scene, tmp_path):
    kept = {}

    def objective(model):
        made = make_recipe(METHOD).objective(model)
        kept["objective"] = made
        kept["before"] = {
            name: value.detach().clone()
            for name, value in torch.nn.ModuleDict({"model": model, "objective": made}).named_parameters()
        }
        return made

    result = run(scene, tmp_path / "checkpoint", objective=objective, epochs=3)
    after = dict(torch.nn.ModuleDict({"model": result.model, "objective": kept["objective"]}).named_parameters())
    still = [name for name, value in kept["before"].items() if torch.equal(value, after[name])]
    # The layer of the classes is made anew by whoever fine-tunes.
    assert all(name.startswith("model.head.classifier") for name in still)


class Collapsing(Objective):
    """Wants every feature to be the same."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, step: Step) -> dict[str, torch.Tensor]:
        for parameter in step.model.fusion.parameters():
            parameter.data.zero_()
        return {"nothing": (self.weight - 1).square()}


class NotANumber(Collapsing):
    def forward(self, step: Step) -> dict[str, torch.Tensor]:
        return {"nothing": self.weight / 0.0 * 0.0}


def test_collapsed_features_stop_the_run(scene, tmp_path):
    with pytest.raises(TrainingError, match="collapsed: for 4 epochs"):
        run(scene, tmp_path / "checkpoint", objective=Collapsing, epochs=5)
    with pytest.raises(TrainingError, match="no number in step 1"):
        run(scene, tmp_path / "other", objective=NotANumber)


class Idle(Collapsing):
    def forward(self, step: Step) -> dict[str, torch.Tensor]:
        return {"nothing": 0.0 * self.weight}


class Silent(Collapsing):
    def forward(self, step: Step) -> dict[str, torch.Tensor]:
        return {}


@pytest.mark.parametrize("objective", [Idle, Silent])
def test_an_epoch_with_nothing_to_learn_from_stops_the_run(scene, tmp_path, objective):
    with pytest.raises(TrainingError, match="nothing to learn from in a whole epoch"):
        run(scene, tmp_path / "checkpoint", objective=objective)


def test_minutes_end_a_run(scene, tmp_path):
    result = run(scene, tmp_path / "checkpoint", minutes=0.02, epochs=10_000)
    assert result.steps >= 1
    assert result.records[-1].epoch <= 10_000


def test_the_rate_rises_and_falls():
    assert rate_at(0.05, 0.1) == pytest.approx(0.5)
    assert rate_at(0.1, 0.1) == pytest.approx(1)
    assert rate_at(0.55, 0.1) == pytest.approx(0.5)
    assert rate_at(1.0, 0.1) == pytest.approx(0)
    assert rate_at(0.0, 0.1) > 0
