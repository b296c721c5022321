"""Linear models over the statistics of the stems, beside the network: one for each set of inputs that may be there.

A linear model fitted on all inputs is poor on some of them: on the scenes tried its weights for one sensor lean on those
for the others. Each set therefore has a model of its own, and each pixel gets that of the inputs which it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from core.models.features import LinearInput
from core.models.products import is_plain
from core.models.subsets import subset_numbers


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
        total: Tensor | None = None
        intercept = self.intercept[number].view(1, -1, 1, 1)
        for name in self.names:
            if name in inputs:
                given = inputs[name]
                if given.answer is not None and given.answer[0] == number:
                    scores = given.answer[1]
                else:
                    scores = given.mapped([self.affine(number, name, given.rows)])[0]
                scores = scores if given.is_whole else scores * given.known
                total = intercept + scores if total is None else total.add_(scores) if is_plain(scores) else total + scores
        return intercept if total is None else total
