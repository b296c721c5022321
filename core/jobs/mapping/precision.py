"""Whether a network maps with numbers of 16 bits: where that is faster, and where it says the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch

from core.jobs.events import JobContext
from core.mapping.engine import MappingEngine
from core.models.fusion_model import FusionModel
from core.scenes.scene import Scene

Precision = Literal["float32", "bfloat16"]

LEAST_ALIKE = 0.995
"""Part of the pixels that have to keep their class."""

LEAST_PIXELS = 1 << 22
"""Of a scene, for a trial: a smaller one is mapped sooner than tried. It counts the scene and not the extent that is asked for,
so that the map of an extent is a part of the map of the scene."""

PLACES = ((0.25, 0.25), (0.25, 0.75), (0.5, 0.5), (0.75, 0.25), (0.75, 0.75))
"""Of the trial, in parts of the scene."""

LEAST_TRIED = 10_000
"""Pixels of a trial. Where tiles share half of their sides or more it has fewer, and there is none."""

MakeEngine = Callable[[Precision, bool], MappingEngine]
"""Of a precision, and whether it is for a trial: then without what stands beside the classes."""


def has_bfloat16() -> bool:
    """Whether this processor computes with 16 bits, and not merely takes them."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def choose_precision(
    model: FusionModel, scene: Scene, device: torch.device, make: MakeEngine, context: JobContext
) -> Precision:
    """The numbers that a scene is mapped with.

    Args:
        model: that maps.
        scene: that is mapped.
        device: that is computed on.
        make: an engine for the scene.
        context: told of the trial.
    """
    is_large = scene.grid.width * scene.grid.height >= LEAST_PIXELS
    if model.is_linear or not (is_large and device.type == "cpu" and has_bfloat16()):
        return "float32"
    alike = part_alike(make("float32", True), make("bfloat16", True), scene, context)
    if alike is None:
        return "float32"
    is_fine = alike >= LEAST_ALIKE
    context.info(
        f"With numbers of 16 bits {alike:.2%} of the pixels of a trial get the same class: the map is made with "
        f"{'them' if is_fine else '32 bits'}."
    )
    return "bfloat16" if is_fine else "float32"


def part_alike(first: MappingEngine, second: MappingEngine, scene: Scene, context: JobContext) -> float | None:
    """Part of the pixels of some places to which two engines give the same class; None where too few are mapped."""
    same = total = 0
    for down, across in PLACES:
        window = first.within_a_tile(int(down * scene.grid.height), int(across * scene.grid.width))
        window = window.intersection(scene.grid.window)
        if window.is_empty:
            continue
        context.check_cancelled()
        for one, other in zip(first.strips(window), second.strips(window), strict=True):
            same += int((one.likeliest[0] == other.likeliest[0])[one.mapped].sum())
            total += int(one.mapped.sum())
    return same / total if total >= LEAST_TRIED else None
