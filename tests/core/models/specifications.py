"""Specifications of models over every kind of input, and inputs for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from core.models.registry import build_model, model_step
from core.models.specification import BandSpecification, ModalitySpecification, ModelSpecification


def modality(name: str, count: int = 1, role: str = "optical", sensor: str = "", **options: Any) -> ModalitySpecification:
    """A modality of ``count`` bands; the kind follows from the role."""
    bands = tuple(BandSpecification(name=f"b{i}", mean=0.1 * i, standard_deviation=0.5 + 0.1 * i) for i in range(count))
    return ModalitySpecification(name=name, role=role, sensor=sensor or name, kind=role, bands=bands, **options)


MODALITY_SETS = {
    "one": (modality("aerial_rgb", 3),),
    "usual": (
        modality("sentinel2_l2a", 12),
        modality("sentinel1", 2, "sar"),
        modality("dsm", 1, "elevation", finer=4),
    ),
    "coarser": (modality("spot", 4), modality("thermal", 1, "other", coarser=3), modality("dem", 1, "elevation", coarser=2)),
    "odd": (modality("single", 1), modality("five", 5, "other"), modality("height_above_ground", 1, "elevation", finer=3)),
}


def specification(architecture: str = "unet_early", modalities: str = "one", **options: Any) -> ModelSpecification:
    """A model small enough to be tried in milliseconds."""
    options = {"n_classes": 5, "width": 4} | options
    return ModelSpecification(architecture=architecture, modalities=MODALITY_SETS[modalities], **options)


def side_of(wanted: ModelSpecification, least: int = 24) -> int:
    """The smallest side of at least that many pixels that the model takes."""
    step = model_step(wanted)
    return -(-least // step) * step


def inputs(
    wanted: ModelSpecification, height: int, width: int, batch: int = 1, seed: int = 0, missing: float = 0.0
) -> dict[str, Tensor]:
    """Random physical values by modality, a part of them NaN."""
    generator = torch.Generator().manual_seed(seed)
    values = {}
    for entry in wanted.modalities:
        shape = (height * entry.finer // entry.coarser, width * entry.finer // entry.coarser)
        drawn = torch.randn(batch, len(entry.bands), *shape, generator=generator)
        drawn[torch.rand(drawn.shape, generator=generator) < missing] = torch.nan
        values[entry.name] = drawn
    return values


def random_model(wanted: ModelSpecification, seed: int = 0) -> nn.Module:
    """A model as training might leave it, whose scores vary: running statistics are those of random inputs."""
    torch.manual_seed(seed)
    model = build_model(wanted)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # The plain average of what it sees, which is one batch.
    side = side_of(wanted, 48)
    values = inputs(wanted, side, side, 2, seed, missing=0.05)
    for entry in wanted.modalities:
        mean = torch.tensor([band.mean for band in entry.bands]).view(-1, 1, 1)
        deviation = torch.tensor([band.standard_deviation for band in entry.bands]).view(-1, 1, 1)
        values[entry.name] = values[entry.name] * (16 if entry.kind == "elevation" else deviation) + mean
    head = model.get_submodule("head.classifier")
    with torch.no_grad():
        model.train()(values)
        spread = model.eval()(values).std()
        for parameter in head.parameters():
            parameter.div_(spread)
    return model
