"""What the architectures and all other combinations of parts cost over stated inputs, so that a user can choose."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

import torch

from core.errors import UsageError
from core.models.architectures import ARCHITECTURES, ArchitectureName, Parts, choose_parts
from core.models.costs import forward_cost
from core.models.fusion_model import FusionModel
from core.models.registry import any_model
from core.models.specification import SIZES, BandSpecification, FusionName, ModalitySpecification, ModelSpecification
from core.scenes.grid import nearest_scale
from core.sensors import get_sensor

N_CLASSES = 10
"""Of the models that are measured: the head's last layer is a small part of any of them."""


@dataclass(frozen=True)
class Level:
    """One level of the features that the head reads: reference pixels from one to the next, and channels."""

    stride: int
    channels: int


@dataclass(frozen=True)
class CatalogueEntry:
    """One model.

    Attributes:
        specification: of the model.
        parameters: trainable values.
        gflop_per_megapixel: of a forward pass over a million reference pixels, in thousand million floating-point
            operations; a multiplication and an addition count as two.
        levels: of the fused features, finest first.
        reach: reference pixels around a pixel that have a say in its class, an upper bound; None where the model looks
            at whole windows.
    """

    specification: ModelSpecification
    parameters: int
    gflop_per_megapixel: float
    levels: tuple[Level, ...]
    reach: int | None


def catalogue_entry(specification: ModelSpecification) -> CatalogueEntry:
    """Measures a model with one small forward pass."""
    cost = forward_cost(specification)
    with torch.device("meta"):
        model = any_model(specification)
    levels: tuple[Level, ...] = ()
    if isinstance(model, FusionModel):
        levels = tuple(Level(*pair) for pair in zip(model.fusion.strides, model.fusion.channels, strict=True))
    return CatalogueEntry(specification, cost.parameters, cost.flops_per_pixel / 1000, levels, model.radius)


def named_specifications(modalities: Sequence[ModalitySpecification], resolution_m: float) -> list[ModelSpecification]:
    """The models of the registry over some inputs, in its order."""
    return [_specification(name, choose_parts(name), modalities, resolution_m) for name in ARCHITECTURES]


def all_specifications(modalities: Sequence[ModalitySpecification], resolution_m: float) -> list[ModelSpecification]:
    """Every combination of stem, encoder, size and fusion over some inputs: with the stem that belongs to each encoder,
    and with kernels generated for any sensor."""
    chosen: tuple[ArchitectureName, ...] = (next(iter(ARCHITECTURES)), "unet_any_sensor")
    return [_specification(name, parts, modalities, resolution_m) for name in chosen for parts in _combinations(name)]


def _combinations(architecture: ArchitectureName) -> Iterator[Parts]:
    for encoder, sizes in SIZES.items():
        for size in sizes:
            for fusion in get_args(FusionName):
                yield choose_parts(architecture, encoder, fusion, size)


def _specification(
    architecture: ArchitectureName, parts: Parts, modalities: Sequence[ModalitySpecification], resolution_m: float
) -> ModelSpecification:
    return ModelSpecification(
        architecture=architecture,
        stem=parts.stem,
        encoder=parts.encoder,
        size=parts.size,
        fusion=parts.fusion,
        has_shortcut=parts.stem == "statistics",
        modalities=tuple(modalities),
        n_classes=N_CLASSES,
        resolution_m=resolution_m,
    )


def stated_modalities(text: str, resolution_m: float) -> tuple[ModalitySpecification, ...]:
    """Inputs from what a user writes.

    Args:
        text: names of sensors between commas, each with its pixel size in metres behind an @ where that is not the
            map's: ``sentinel2_l2a,sentinel1,dsm@2.5``.
        resolution_m: pixel size of the map in metres.

    Raises:
        SensorError: there is no such sensor.
        UsageError: a sensor without bands of its own, one that is given twice, or a pixel size that is none.
    """
    entries = [_modality(entry.strip(), resolution_m) for entry in text.split(",")]
    names = [entry.name for entry in entries]
    if len(set(names)) < len(names):
        raise UsageError(f"'{text}' names a sensor twice.", "Name each of them once.")
    return tuple(entries)


def _modality(text: str, resolution_m: float) -> ModalitySpecification:
    name, separator, size = text.partition("@")
    sensor = get_sensor(name)
    if not sensor.bands:
        hint = "Name a sensor with bands of its own, or describe a model that was trained, with --model."
        raise UsageError(f"The bands of '{name}' are those of a file.", hint)
    scale = nearest_scale(resolution_m, _metres(size, text) if separator else resolution_m)
    return ModalitySpecification(
        name=sensor.name,
        role=sensor.role,
        sensor=sensor.name,
        kind=sensor.kind,
        bands=tuple(
            # The cost does not depend on the statistics.
            BandSpecification(
                name=band.name,
                mean=0.0,
                standard_deviation=1.0,
                center_nm=band.center_nm,
                fwhm_nm=band.fwhm_nm,
                polarization=band.polarization if sensor.kind == "sar" else None,
            )
            for band in sensor.bands
        ),
        finer=scale.finer,
        coarser=scale.coarser,
    )


def _metres(size: str, text: str) -> float:
    try:
        metres = float(size)
    except ValueError:
        metres = math.nan
    if not (math.isfinite(metres) and metres > 0):
        raise UsageError(f"'{text}': '{size}' is no pixel size.", "Write metres, as in dsm@2.5.")
    return metres
