"""Models and windows so small that every combination of parts can be trained for a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from core.models.fusion_model import FusionModel
from core.models.registry import build_model
from core.models.specification import EncoderName, FusionName, ModelSpecification, StemName
from core.pretraining.objectives.objective import Objective, Step, Windows
from tests.core.models.specifications import combination, inputs


def small_specification(
    encoder: EncoderName, fusion: FusionName, modalities: str = "three", stem: StemName | None = None, **options: Any
) -> ModelSpecification:
    """Of the parts named, the stem fitting the encoder unless one is given."""
    chosen: StemName = stem or ("statistics" if encoder == "unet" else "per_sensor")
    return combination(chosen, encoder, fusion, modalities, **options)


def small_model(wanted: ModelSpecification, seed: int = 0) -> FusionModel:
    """In training mode."""
    torch.manual_seed(seed)
    return build_model(wanted).train()


def small_windows(wanted: ModelSpecification, side: int = 32, batch: int = 2, seed: int = 0, missing: float = 0.0) -> Windows:
    """Random windows, a part of the pixels NaN; the place of the last of several is unknown."""
    geography = torch.tensor([[52.0, 13.0, 10.0]], dtype=torch.float64).repeat(batch, 1)
    if batch > 1:
        geography[-1] = torch.nan
    return Windows(inputs(wanted, side, side, batch, seed, missing), geography)


def step_of(model: FusionModel, windows: Windows, seed: int = 0) -> Step:
    """A step with a generator of its own."""
    return Step(model, windows, torch.Generator().manual_seed(seed))


def idle_parameters(wanted: ModelSpecification, make: Callable[[FusionModel], Objective]) -> set[str]:
    """Names of the parameters of a model and an objective without a gradient in any of three steps.

    In double precision: a gradient that is zero but for rounding has not learned. Pixels are missing, and one modality
    is in one of the steps.
    """
    model = small_model(wanted).double()
    objective = make(model).train().double()
    both = torch.nn.ModuleDict({"model": model, "objective": objective})
    optimizer = torch.optim.SGD(both.parameters(), lr=0.05)
    idle = {name for name, parameter in both.named_parameters() if parameter.requires_grad}
    for number in range(3):
        windows = small_windows(wanted, 32, 3, number, missing=0.002)
        values = {name: each.double() for name, each in windows.values.items()}
        if number == 1 and len(values) > 1:
            del values[next(reversed(values))]
        terms = objective(step_of(model, Windows(values, windows.geography), number))
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        objective.after_step(model, number / 3)
        idle -= {name for name, parameter in both.named_parameters() if parameter.grad is not None and parameter.grad.any()}
    return idle


def assert_fits_any_input(encoder: EncoderName, make: Callable[[FusionModel], Objective]) -> None:
    """One to three modalities, finer and coarser, one of them absent or of one window, gaps, one window, small windows:
    losses are finite, and so are their gradients."""
    for modalities in ("one", "coarser", "odd"):
        wanted = small_specification(encoder, "intermediate", modalities)
        model = small_model(wanted)
        objective = make(model).train()
        least = max(16, 2 * model.step)
        for batch, side in ((1, least), (2, least + 6), (2, 36)):
            side += -side % 6
            windows = small_windows(wanted, side, batch, missing=0.01)
            values = dict(windows.values)
            if len(values) > 1 and batch == 2:
                values[next(iter(values))][0] = torch.nan
                if side == 36:
                    del values[next(reversed(values))]
            terms = objective(step_of(model, Windows(values, windows.geography)))
            assert terms
            assert all(torch.isfinite(term) and term.ndim == 0 for term in terms.values())
            both = [*model.parameters(), *objective.parameters()]
            gradients = torch.autograd.grad(torch.stack(list(terms.values())).sum(), both, allow_unused=True)
            assert all(torch.isfinite(gradient).all() for gradient in gradients if gradient is not None)
            objective.after_step(model, 0.5)
