"""Specifications of models over every kind of input, and inputs for them."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from core.models.architectures import ARCHITECTURES, ArchitectureName
from core.models.fusion_model import FusionModel
from core.models.registry import build_model, model_step
from core.models.specification import (
    SIZES,
    BandSpecification,
    EncoderName,
    FusionName,
    ModalitySpecification,
    ModelSpecification,
    StemName,
)

STEMS: tuple[StemName, ...] = get_args(StemName)
ENCODERS: tuple[EncoderName, ...] = get_args(EncoderName)
FUSIONS: tuple[FusionName, ...] = get_args(FusionName)

EVERY_COMBINATION = pytest.mark.parametrize(("stem", "encoder", "fusion"), list(itertools.product(STEMS, ENCODERS, FUSIONS)))
"""Of the parts before the head."""

EVERY_PAIR = pytest.mark.parametrize(
    ("stem", "encoder", "fusion"),
    [
        *itertools.product(STEMS, ENCODERS, ("intermediate",)),
        *itertools.product(("per_sensor",), ENCODERS, [fusion for fusion in FUSIONS if fusion != "intermediate"]),
    ],
)
"""Every stem with every encoder, and every encoder with every fusion: for what no stem and fusion could do together."""


def modality(name: str, count: int = 1, role: str = "optical", sensor: str = "", **options: Any) -> ModalitySpecification:
    """A modality of ``count`` bands; the kind follows from the role, and the physics from the kind."""
    bands = tuple(
        BandSpecification(name=f"b{i}", mean=0.1 * i, standard_deviation=0.5 + 0.1 * i, **_physics(role, i))
        for i in range(count)
    )
    return ModalitySpecification(name=name, role=role, sensor=sensor or name, kind=role, bands=bands, **options)


def _physics(role: str, number: int) -> dict[str, Any]:
    if role == "sar":
        return {"polarization": ("VV", "VH", "HH", "HV")[number % 4], "orbit": "ascending"}
    return {"center_nm": 450.0 + 90 * number, "fwhm_nm": 20.0 + 10 * number} if role == "optical" else {}


MODALITY_SETS = {
    "one": (modality("aerial_rgb", 3),),
    "usual": (
        modality("sentinel2_l2a", 12),
        modality("sentinel1", 2, "sar"),
        modality("dsm", 1, "elevation", finer=4),
    ),
    "coarser": (modality("spot", 4), modality("thermal", 1, "other", coarser=3), modality("dem", 1, "elevation", coarser=2)),
    "odd": (modality("single", 1), modality("five", 5, "other"), modality("height_above_ground", 1, "elevation", finer=3)),
    "three": (
        modality("optical", 4),
        modality("sar", 2, "sar", coarser=2),
        modality("dsm", 1, "elevation", finer=2),
    ),
}


def specification(architecture: ArchitectureName = "unet_early", modalities: str = "one", **options: Any) -> ModelSpecification:
    """A model of the registry, small enough to be tried in milliseconds where its encoder is ``unet``."""
    entry = ARCHITECTURES[architecture]
    parts = {"stem": entry.stem, "encoder": entry.encoder, "size": entry.size, "fusion": entry.fusion}
    options = {"n_classes": 5, "width": 4} | parts | options
    return ModelSpecification(architecture=architecture, modalities=MODALITY_SETS[modalities], **options)


def combination(
    stem: StemName, encoder: EncoderName, fusion: FusionName, modalities: str = "three", **options: Any
) -> ModelSpecification:
    """A model of chosen parts, its encoder of the smallest size."""
    finest = {"resnet": 1}.get(encoder)
    dense = options.get("head", "dense") == "dense" and not options.get("has_dates")
    # As the product makes them: with the linear model beside the network.
    has_shortcut = stem == "statistics" and dense
    options = {"n_classes": 5, "width": 4, "depth": 1, "finest": finest, "has_shortcut": has_shortcut} | options
    return ModelSpecification(
        architecture="tried",
        stem=stem,
        encoder=encoder,
        size=SIZES[encoder][0],
        fusion=fusion,
        modalities=MODALITY_SETS[modalities],
        **options,
    )


def side_of(wanted: ModelSpecification, least: int = 24) -> int:
    """The smallest side of at least that many pixels that needs no filling up."""
    step = model_step(wanted)
    return -(-least // step) * step


def inputs(
    wanted: ModelSpecification, height: int, width: int, batch: int = 1, seed: int = 0, missing: float = 0.0, dates: int = 0
) -> dict[str, Tensor]:
    """Random physical values by modality, a part of them NaN; with an axis of dates if a number of them is given."""
    generator = torch.Generator().manual_seed(seed)
    values = {}
    for entry in wanted.modalities:
        shape = (len(entry.bands), height * entry.finer // entry.coarser, width * entry.finer // entry.coarser)
        drawn = torch.randn(batch, *([dates] if dates else []), *shape, generator=generator)
        drawn[torch.rand(drawn.shape, generator=generator) < missing] = torch.nan
        values[entry.name] = drawn
    return values


def random_model(wanted: ModelSpecification, seed: int = 0, least: int = 48) -> FusionModel:
    """A model as training might leave it, whose scores vary: running statistics are those of random inputs, and nothing
    that starts closed is closed."""
    torch.manual_seed(seed)
    model = build_model(wanted)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # The plain average of what it sees, which is one batch.
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.2)
        for name, buffer in model.named_buffers():
            if name.startswith("linear.") and buffer.is_floating_point():
                buffer.normal_(0, 0.2)
    side = side_of(wanted, least)
    values = inputs(wanted, side, side, 2, seed, missing=0.05)
    for entry in wanted.modalities:
        mean = torch.tensor([band.mean for band in entry.bands]).view(-1, 1, 1)
        deviation = torch.tensor([band.standard_deviation for band in entry.bands]).view(-1, 1, 1)
        values[entry.name] = values[entry.name] * (16 if entry.kind == "elevation" else deviation) + mean
    after = {"after": {name: each.roll(1, -1) for name, each in values.items()}} if wanted.head == "change" else {}
    head = model.get_submodule("head.classifier")
    with torch.no_grad():
        model.train()(values, **after)
        spread = model.eval()(values, **after).std()
        for parameter in head.parameters():
            parameter.div_(spread)
    return model
