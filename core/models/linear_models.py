"""Linear models over the statistics of the stems, beside the network: one for each set of inputs that may be there.

A linear model fitted on all inputs is poor on some of them: on the scenes tried its weights for one sensor lean on those
for the others. Each set therefore has a model of its own, and each pixel gets that of the inputs which it has.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from core.models.features import LinearInput
from core.models.products import convolve, convolve_onto
from core.models.subsets import subset_numbers

_MOST_WAITING = 12
"""Channels that are worth a convolution of their own."""


class ModalityWeights(nn.Module):
    """What one modality has in each of the models.

    Attributes:
        weight: (S, K, C) of S models, K classes and C channels.
        centre: (C,) the channels' means, which add nothing: so does a band that is not given.
    """

    weight: Tensor
    centre: Tensor

    def __init__(self, n_models: int, n_classes: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(n_models, n_classes, channels))
        self.register_buffer("centre", torch.zeros(channels))


class LinearModels(nn.Module):
    """Class scores straight from the stems' channels, by models that were fitted beforehand and are not trained.

    Args:
        channels: by modality, of its stem.
        subsets: the sets of modalities, all of them first. Sets that are not listed get the first model, to which what is
            missing adds nothing.
        n_classes: scores put out.

    Attributes:
        intercept: (S, K) of each model.
        network: (S,) how much the network's scores count beside each.
    """

    intercept: Tensor
    network: Tensor
    table: Tensor

    def __init__(self, channels: Mapping[str, int], subsets: Sequence[frozenset[str]], n_classes: int) -> None:
        super().__init__()
        self.names = tuple(channels)
        self.parts = nn.ModuleDict({name: ModalityWeights(len(subsets), n_classes, count) for name, count in channels.items()})
        self.register_buffer("intercept", torch.zeros(len(subsets), n_classes))
        self.register_buffer("network", torch.ones(len(subsets)))
        self.register_buffer("table", torch.tensor(subset_numbers(self.names, subsets)), persistent=False)

    def part(self, name: str) -> ModalityWeights:
        """What a modality has in each of the models."""
        part = self.parts[name]
        if not isinstance(part, ModalityWeights):
            raise TypeError(f"'{name}' has no weights.")
        return part

    @torch.no_grad()
    def scale(self, weight: float) -> None:
        """Multiplies what all models say."""
        self.intercept.mul_(weight)
        for name in self.names:
            self.part(name).weight.mul_(weight)

    @torch.no_grad()
    def set_share(self, number: int, source: LinearModels, linear: float, network: float) -> None:
        """How much of a model, as another holds it, and of the network counts where its inputs are there."""
        self.network[number] = network
        self.intercept[number] = linear * source.intercept[number]
        for name in self.names:
            self.part(name).weight[number] = linear * source.part(name).weight[number]

    def number_of(self, names: Iterable[str]) -> int:
        """Which model says something of places where these modalities are known."""
        bits = sum(1 << bit for bit, name in enumerate(self.names) if name in set(names))
        return int(self.table[bits])

    def affine(self, number: int, name: str, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """What a model multiplies some channels of a modality with and adds to them, (K, C) and (K,)."""
        part, own = self.part(name), list(rows)
        weight = part.weight[number][:, own]
        return weight, -(weight @ part.centre[own])

    def forward(self, inputs: Mapping[str, LinearInput]) -> tuple[Tensor, Tensor]:
        """Scores (B, K, H, W), and how much the network's count beside them, (B, 1, H, W) or (1, 1, 1, 1).

        Args:
            inputs: by modality, those that are there.
        """
        if all(given.is_whole for given in inputs.values()):
            number = self.number_of(inputs)
            return self._scores(number, inputs), self.network[number].view(1, 1, 1, 1)
        first = next(iter(inputs.values()))
        bits = torch.zeros_like(first.known, dtype=torch.int64)
        for bit, name in enumerate(self.names):
            if name in inputs:
                bits += (inputs[name].known > 0).to(torch.int64) << bit
        models = self.table[bits]
        # A graph does the same whatever the values are.
        occurring = list(range(len(self.network))) if torch.compiler.is_exporting() else torch.unique(models).tolist()
        total = self._scores(occurring[0], inputs)
        for number in occurring[1:]:
            total = torch.where(models == number, self._scores(number, inputs), total)
        return total, self.network[models] if len(occurring) > 1 else self.network[occurring[0]].view(1, 1, 1, 1)

    def _scores(self, number: int, inputs: Mapping[str, LinearInput]) -> Tensor:
        total = self.intercept[number].view(1, -1, 1, 1)
        for name in self.names:
            if name in inputs:
                given = inputs[name]
                if given.answer is not None and given.answer[0] == number:
                    scores = given.answer[1]
                else:
                    scores = apply_affine(given.parts(), [self.affine(number, name, given.rows)])[0]
                total = total + (scores if given.is_whole else scores * given.known)
        return total


def apply_affine(parts: Iterable[Tensor], maps: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """What affine maps make of channels that come some at a time, so that they need not all be in memory at once.

    Args:
        parts: (B, C, H, W) each.
        maps: weights (D, all C) and offsets (D,) of each.

    Returns:
        (B, D, H, W) of each map.
    """
    weight, offset = (torch.cat(both) for both in zip(*maps, strict=True)) if len(maps) > 1 else maps[0]
    total, start = None, 0
    for part in _grouped(parts):
        stop = start + part.shape[1]
        own = weight[:, start:stop, None, None]
        total = convolve(part, own, offset) if total is None else convolve_onto(total, part, own)
        start = stop
    if total is None:
        raise ValueError("no channels")
    if len(maps) == 1:
        return [total]
    # Each in memory of its own: one may be needed longer than the others.
    edges = [0, *itertools.accumulate(len(each) for each, _ in maps)]
    return [total[:, a:b].contiguous(memory_format=torch.channels_last) for a, b in itertools.pairwise(edges)]


def _grouped(parts: Iterable[Tensor]) -> Iterator[Tensor]:
    """Parts of few channels side by side: to add to what is there takes as long for few as for many."""
    waiting: list[Tensor] = []
    for part in parts:
        waiting.append(part)
        if sum(each.shape[1] for each in waiting) >= _MOST_WAITING:
            yield waiting[0] if len(waiting) == 1 else torch.cat(waiting, dim=1)
            waiting = []
    if waiting:
        yield torch.cat(waiting, dim=1)
