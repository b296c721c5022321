"""What the tests of all contrastive objectives share."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from core.models.features import FeatureMap, Features, features_of
from core.models.fusion_model import FusionModel
from core.models.specification import ModelSpecification
from core.pretraining.objectives.objective import Objective, Windows
from tests.core.pretraining.models import step_of


def idle_after(objective: Objective, model: FusionModel, windows: Callable[[int], Windows], steps: int = 3) -> set[str]:
    """Names of the objective's trainable parameters without a gradient in any step."""
    idle = {name for name, parameter in objective.named_parameters() if parameter.requires_grad}
    trained = [p for module in (model, objective) for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.05)
    for number in range(steps):
        optimizer.zero_grad()
        torch.manual_seed(number)
        backward(objective(step_of(model, windows(number), number)))
        for name in list(idle):
            gradient = objective.get_parameter(name).grad
            if gradient is not None and float(gradient.abs().max()) > 1e-7:
                idle.remove(name)
        optimizer.step()
        objective.after_step(model, number / steps)
    return idle


def backward(terms: dict[str, Tensor]) -> None:
    """Gradients of a step's sum."""
    torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]


def assert_sound(objective: Objective, model: FusionModel, terms: dict[str, Tensor]) -> None:
    """All terms are scalars, and all numbers and gradients are finite."""
    assert all(term.shape == () and bool(torch.isfinite(term)) for term in terms.values())
    if terms:
        backward(terms)
    assert_finite(parameter.grad for module in (model, objective) for parameter in module.parameters())
    assert_finite(objective.buffers())
    assert all(np.isfinite(value) for value in objective.monitors().values())


def assert_finite(tensors: Iterable[Tensor | None]) -> None:
    assert all(bool(torch.isfinite(each).all()) for each in tensors if each is not None)


def state_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_unchanged(module: nn.Module, before: dict[str, Tensor]) -> None:
    """To the bit."""
    after = module.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def fields(wanted: ModelSpecification, side: int = 32, batch: int = 4, seed: int = 0) -> Windows:
    """Windows of fields of eight reference pixels that all modalities see, each in its own way, with a little noise."""
    source = np.random.default_rng(seed)
    kinds = source.integers(0, 6, (batch, side // 8, side // 8))
    looks = np.random.default_rng(9)
    values = {}
    for entry in wanted.modalities:
        colours = looks.standard_normal((len(entry.bands), 6))
        own = 8 * entry.finer // entry.coarser
        image = np.kron(colours[:, kinds].swapaxes(0, 1), np.ones((own, own)))
        image += 0.05 * source.standard_normal(image.shape)
        values[entry.name] = torch.from_numpy(image.astype(np.float32))
    geography = torch.tensor([[52.0, 13.0, 10.0]], dtype=torch.float64).repeat(batch, 1)
    return Windows(values, geography)


def shared_ground(wanted: ModelSpecification, side: int, batch: int, seed: int) -> Windows:
    """Windows of smooth ground that every modality sees as its own mixture, every place unlike any other."""
    source, looks = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(9)
    ground = torch.randn(batch, 3, side // 4, side // 4, generator=source)
    values = {}
    for entry in wanted.modalities:
        own = side * entry.finer // entry.coarser
        mixture = torch.randn(len(entry.bands), 3, generator=looks)
        seen = torch.einsum("kc,bchw->bkhw", mixture, functional.interpolate(ground, size=(own, own), mode="bilinear"))
        values[entry.name] = seen + 0.05 * torch.randn(seen.shape, generator=source)
    return Windows(values, torch.tensor([[52.0, 13.0, 10.0]], dtype=torch.float64).repeat(batch, 1))


def vectors(rows: list[list[float]], own: dict[str, list[list[float]]] | None = None) -> Features:
    """Features of one place, the vectors given; a row of zeros is unknown."""
    return features_of([place(rows)], {name: place(each) for name, each in (own or {}).items()})


def place(rows: list[list[float]]) -> FeatureMap:
    values = torch.tensor(rows)[:, :, None, None]
    return FeatureMap(values, (values != 0).any(dim=1, keepdim=True).float(), 16)
