"""Teachers: they follow or stay, never learn by gradient, and are part of what a run is resumed from."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from core.pretraining.teachers import EmaTeacher, FrozenTeacher
from tests.core.pretraining.models import small_model, small_specification, small_windows


class Parent(nn.Module):
    def __init__(self, teacher: FrozenTeacher[nn.Module]) -> None:
        super().__init__()
        self.teacher = teacher
        self.own = nn.Linear(2, 2)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))


def state_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def moved(module: nn.Module, by: float) -> None:
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            tensor.add_(by if tensor.is_floating_point() else 1)


@pytest.mark.parametrize("kind", [FrozenTeacher, EmaTeacher])
def test_a_teacher_is_in_evaluation_mode_always(kind: type[FrozenTeacher[nn.Module]]) -> None:
    parent = Parent(kind(network().train()))
    parent.train()
    assert parent.training
    assert not any(module.training for module in parent.teacher.modules())
    values = torch.randn(5, 3)
    before = state_of(parent.teacher)
    assert torch.equal(parent.teacher(values), parent.teacher(values))
    after = parent.teacher.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("kind", [FrozenTeacher, EmaTeacher])
def test_a_teacher_gets_no_gradient_and_is_not_trained(kind: type[FrozenTeacher[nn.Module]]) -> None:
    parent = Parent(kind(network()))
    assert [name for name, parameter in parent.named_parameters() if parameter.requires_grad] == ["own.weight", "own.bias"]
    said = parent.teacher(torch.randn(5, 3, requires_grad=True))
    assert not said.requires_grad
    # Nor where it is asked for a part of what it does.
    assert not parent.teacher.module(torch.randn(5, 3)).requires_grad


def test_a_teacher_is_a_copy() -> None:
    model = network()
    teacher = FrozenTeacher(model)
    before = state_of(teacher)
    moved(model, 1.0)
    assert all(torch.equal(teacher.state_dict()[name], value) for name, value in before.items())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("done", "momentum"), [(0.0, 0.9), (0.5, 0.95), (1.0, 1.0), (0.25, 1 - 0.1 * (1 + math.sqrt(0.5)) / 2)]
)
def test_the_average_moves_by_the_momentum_of_its_time(done: float, momentum: float) -> None:
    model = network()
    teacher = EmaTeacher(model, 0.9, 1.0)
    before = [parameter.clone() for parameter in model.parameters()]
    moved(model, 1.0)
    teacher.update(model, done)
    assert teacher.momentum_at(done) == pytest.approx(momentum)
    for own, start in zip(teacher.module.parameters(), before, strict=True):
        torch.testing.assert_close(own, start + (1 - momentum))


def test_buffers_are_averaged_and_those_of_the_start_forgotten_soon() -> None:
    model = nn.BatchNorm1d(1)
    teacher = EmaTeacher(model, 0.996)
    mean = model.running_mean
    assert mean is not None
    mean.fill_(1.0)
    expected, seen = 0.0, []
    for count in range(60):
        teacher.update(model)
        momentum = min(0.996, (1 + count) / (10 + count))
        expected = momentum * expected + (1 - momentum)
        seen.append(float(teacher.module.get_buffer("running_mean")))
        assert seen[-1] == pytest.approx(expected, abs=1e-6)
    assert seen[-1] > 0.99
    assert int(teacher.updates) == 60
    model(torch.randn(4, 1))
    teacher.update(model)
    assert int(teacher.module.get_buffer("num_batches_tracked")) == 1


def test_a_resumed_teacher_goes_on_to_the_bit() -> None:
    def run(teacher: EmaTeacher[nn.Sequential], model: nn.Sequential, steps: range) -> None:
        for step in steps:
            moved(model, 0.1 * (step + 1))
            teacher.update(model, step / 10)

    whole, whole_model = EmaTeacher(network()), network()
    run(whole, whole_model, range(6))
    first, model = EmaTeacher(network()), network()
    run(first, model, range(3))
    second = EmaTeacher(network())
    second.load_state_dict(first.state_dict())
    run(second, model, range(3, 6))
    assert all(torch.equal(second.state_dict()[name], value) for name, value in whole.state_dict().items())


@pytest.mark.parametrize("stem", ["statistics", "generated"])
def test_a_model_copied_stands_alone(stem: str) -> None:
    """Generated kernels are made from the copy's own weights, though their stems hold no weights."""
    wanted = small_specification("unet", "intermediate", stem=stem)  # type: ignore[arg-type]
    model, windows = small_model(wanted), small_windows(wanted, 16)
    teacher = FrozenTeacher(model)
    with torch.no_grad():
        before = teacher.module.features(windows.values).pooled
        torch.testing.assert_close(model.eval().features(windows.values).pooled, before)
        moved(model, 0.3)
        assert torch.equal(teacher.module.features(windows.values).pooled, before)
        assert not torch.equal(model.features(windows.values).pooled, before)
