"""Linear models over the statistics of the stems, beside the network: one for each set of inputs that may be there.

A linear model fitted on all inputs is poor on some of them: on the scenes tried its weights for one sensor lean on those
for the others. Each set therefore has a model of its own, and each pixel gets that of the inputs which it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core.models.features import AffineMap, LinearInput, is_whole
from core.models.subsets import subset_numbers


@dataclass(frozen=True, eq=False)
class LinearQuestion:
    """Which of the linear models are asked.

    Attributes:
        numbers: of the models.
        models: (B, 1, H, W) the number of the model that counts at each place; None where it is the same everywhere.
    """

    numbers: list[int]
    models: Tensor | None


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

    def question(self, known: Mapping[str, Tensor]) -> LinearQuestion:
        """Which models have to be asked.

        Args:
            known: by modality, those that are there, (B, 1, H, W), 1 or 0.
        """
        if all(is_whole(each) for each in known.values()):
            bits = sum(1 << bit for bit, name in enumerate(self.names) if name in known)
            return LinearQuestion([int(self.table[bits])], None)
        found = torch.zeros_like(next(iter(known.values())), dtype=torch.int64)
        for bit, name in enumerate(self.names):
            if name in known:
                found += (known[name] > 0).to(torch.int64) << bit
        models = self.table[found]
        if torch.compiler.is_exporting():
            # A graph does the same whatever the values are.
            return LinearQuestion(list(range(len(self.network))), models)
        # Of places of which nothing is known nothing is said.
        occurring = torch.bincount(found.flatten(), minlength=len(self.table))[1:].nonzero().flatten() + 1
        return LinearQuestion(sorted(set(self.table[occurring].tolist())) or [0], models)

    def maps(self, name: str, rows: Sequence[int], question: LinearQuestion) -> list[AffineMap]:
        """What each of the models that are asked multiplies some channels of a modality with, and adds to them."""
        part, own = self.part(name), list(rows)
        weights = [part.weight[number][:, own] for number in question.numbers]
        return [(weight, -(weight @ part.centre[own])) for weight in weights]

    def forward(self, inputs: Mapping[str, LinearInput], question: LinearQuestion) -> tuple[Tensor, Tensor]:
        """Scores (B, K, H, W), and how much the network's count beside them, (B, 1, H, W) or (1, 1, 1, 1).

        Args:
            inputs: by modality, those that are there.
            question: that they were asked.
        """
        first, *others = question.numbers
        total = self._scores(0, first, inputs)
        if question.models is None:
            return total, self.network[first].view(1, 1, 1, 1)
        for position, number in enumerate(others, start=1):
            total = torch.where(question.models == number, self._scores(position, number, inputs), total)
        if first:
            # The first model counts nowhere but where nothing is known: there it says the same whatever is asked elsewhere.
            total = torch.where(question.models == 0, self.intercept[0].view(1, -1, 1, 1), total)
        return total, self.network[question.models]

    def _scores(self, position: int, number: int, inputs: Mapping[str, LinearInput]) -> Tensor:
        total = self.intercept[number].view(1, -1, 1, 1)
        for name in self.names:
            if name in inputs:
                given = inputs[name]
                scores = given.answers[position]
                total = total + (scores if given.is_whole else scores * given.known)
        return total
