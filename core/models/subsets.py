"""The sets of a model's inputs that a map can rest on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional

from core.models.features import Values
from core.models.specification import ModelSpecification
from core.scenes.scene import shows_ground

LISTED = 4
"""Up to so many inputs, all sets of them are listed."""


def proper_subsets(specification: ModelSpecification) -> list[frozenset[str]]:
    """The sets of some, but not all, of a model's inputs that a map can rest on, small ones first.

    With more than ``LISTED`` inputs only those of one, and of all but one: there are too many others to look at.
    """
    modalities = specification.modalities
    roles = [modality.role for modality in modalities]
    counts = range(1, len(modalities)) if len(modalities) <= LISTED else (1, len(modalities) - 1)
    return [
        frozenset(modality.name for modality in chosen)
        for count in counts
        for chosen in combinations(modalities, count)
        if any(shows_ground(modality.role, roles) for modality in chosen)
    ]


def subset_numbers(names: Sequence[str], subsets: Sequence[frozenset[str]]) -> list[int]:
    """The number of the set of inputs that each combination of bits stands for; zero, all of them, where it is not listed.

    Args:
        names: bit i stands for the i-th of them.
        subsets: as ``input_subsets`` makes them.
    """
    numbers = {subset: number for number, subset in enumerate(subsets)}
    combinations_of_bits = range(2 ** len(names))
    members = (frozenset(name for bit, name in enumerate(names) if bits >> bit & 1) for bits in combinations_of_bits)
    return [numbers.get(subset, 0) for subset in members]


def input_subsets(specification: ModelSpecification) -> tuple[frozenset[str], ...]:
    """All inputs, then ``proper_subsets``."""
    return (frozenset(modality.name for modality in specification.modalities), *proper_subsets(specification))


def mapped_pixels(values: Values, specification: ModelSpecification, size: tuple[int, int], allows_missing: bool) -> Tensor:
    """(B, H, W) bool, where a map can be made: every input is there, or, if some may be missing, one that shows the ground.

    Args:
        values: by modality (B, C, h, w), each on its own scale, NaN = missing.
        specification: of the model.
        size: H, W of the reference grid.
        allows_missing: whether the model has learned to do without some of its inputs.
    """
    roles = [entry.role for entry in specification.modalities]
    there = {}
    for entry in specification.modalities:
        if entry.name in values:
            whole = torch.isfinite(values[entry.name]).all(dim=1, keepdim=True).float()
            # At least half of what lies below a pixel, as ``core.scenes.reading.valid_pixels`` has it.
            share = functional.interpolate(whole, size=size, mode="area" if entry.finer > 1 else "nearest")
            there[entry.name] = share[:, 0] >= 0.5
    if not allows_missing and len(there) < len(roles):
        raise ValueError("the model needs all of its inputs")
    chosen = [
        there[entry.name]
        for entry in specification.modalities
        if entry.name in there and (not allows_missing or shows_ground(entry.role, roles))
    ]
    if not chosen:
        raise ValueError("no input that shows the ground was given")
    stacked = torch.stack(chosen)
    return stacked.any(dim=0) if allows_missing else stacked.all(dim=0)
