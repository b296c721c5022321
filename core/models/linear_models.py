"""Linear models over the statistics of the stems, beside the network: one for each set of inputs that may be there.

A linear model fitted on all inputs is poor on some of them: on the scenes tried its weights for one sensor lean on those
for the others. Each set therefore has a model of its own, and each pixel gets that of the inputs which it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core.models.features import AffineMap, is_whole
from core.models.products import is_plain
from core.models.subsets import subset_numbers

MOST_ANSWERS = 48
"""Scores of a pixel that several models say at once: where inputs have gaps, most models are asked of every tile."""


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
        self.members = tuple(subsets)
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

    def asked(self, name: str, question: LinearQuestion) -> list[list[int]]:
        """Which of the models that are asked look at a modality: the others count only where it is missing. In groups, of whose
        answers there is memory for one at a time."""
        numbers = [number for number in question.numbers if number == 0 or name in self.members[number]]
        size = max(1, MOST_ANSWERS // self.intercept.shape[1])
        return [numbers[first : first + size] for first in range(0, len(numbers), size)]

    def maps(self, name: str, rows: Sequence[int], numbers: Sequence[int]) -> list[AffineMap]:
        """What each of some models multiplies some channels of a modality with, and adds to them."""
        part, own = self.part(name), list(rows)
        weights = [part.weight[number][:, own] for number in numbers]
        return [(weight, -(weight @ part.centre[own])) for weight in weights]


class LinearTally:
    """What linear models say, modality by modality: of each place only what its own model says is kept.

    Args:
        linear: the models.
        question: which of them are asked.
    """

    def __init__(self, linear: LinearModels, question: LinearQuestion) -> None:
        self._linear, self._question = linear, question
        self._total: Tensor | None = None

    def add(self, numbers: Sequence[int], answers: Sequence[Tensor], known: Tensor, is_known: bool) -> None:
        """Adds what some models say of a modality; the modalities come in the order of the models.

        Args:
            numbers: of the models, see ``LinearModels.asked``.
            answers: (B, K, H, W) of each of them.
            known: (B, 1, H, W), 1 or 0, where the modality is.
            is_known: all of it is known for sure.
        """
        models = self._question.models
        total = self._start() if self._total is None else self._total
        chosen: Tensor | None = None
        for number, answer in zip(numbers, answers, strict=True):
            if models is None or len(self._question.numbers) == 1:
                chosen = answer
            else:
                chosen = torch.where(models == number, answer, 0.0 if chosen is None else chosen)
        if chosen is None:
            return
        if not is_known:
            chosen = chosen * known
        is_own = self._total is not None and is_plain(chosen)
        self._total = total.add_(chosen) if is_own else total + chosen

    def _start(self) -> Tensor:
        """What models add to all that they are shown, (B, K, H, W) or (1, K, 1, 1)."""
        intercept, models = self._linear.intercept, self._question.models
        if models is None:
            return intercept[self._question.numbers[0]].view(1, -1, 1, 1)
        return intercept[models[:, 0]].movedim(-1, 1)

    def result(self) -> tuple[Tensor, Tensor]:
        """Scores (B, K, H, W), and how much the network's count beside them, (B, 1, H, W) or (1, 1, 1, 1).

        Raises:
            ValueError: nothing was added.
        """
        if self._total is None:
            raise ValueError("no modality was added")
        if self._question.models is None:
            return self._total, self._linear.network[self._question.numbers[0]].view(1, 1, 1, 1)
        return self._total, self._linear.network[self._question.models]
