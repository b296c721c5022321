"""Dense alignment of sensors: what two sensors see of one place is told from what they see of other places."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from core.models.features import FeatureMap
from core.models.fusion_model import FusionModel
from core.pretraining.info_nce import soft_contrast
from core.pretraining.objectives.objective import Objective, Step, Windows
from core.pretraining.projections import AlignmentHead, unit
from core.pretraining.teachers import FrozenTeacher
from core.pretraining.view_pairs import pooled_channels, within


@dataclass(frozen=True)
class DenseAlignmentSettings:
    """Which dense alignment.

    Attributes:
        tokens: places drawn a step (inferred); all of them as published.
        channels: of the heads; 1024 as published.
        temperature, target_temperature: of the similarities of unit vectors, and of those that make the soft targets
            (inferred; the published 1 is of vectors of length 32).
        own_share: part of each target that is its own place, whatever is similar (inferred). With none, and unit vectors,
            all vectors being the same is a way to say what is wanted, and small models fell into it within ten steps.
        label_smoothing: part of each target that is spread evenly; 0.3 as published, where batches are large and targets
            nearly certain. Beside ``own_share`` it left little to learn.
        dropout, weight: as published.
        radius_m: None = the same place in the other windows of the batch is what a place is told from, as published.
            Otherwise all drawn places of all windows but those of its own window within this distance on the ground are
            (inferred); so a batch of one window can be learned from.
        most: places compared at once, with a radius.
    """

    tokens: int = 64
    channels: int = 256
    temperature: float = 0.1
    target_temperature: float = 0.1
    own_share: float = 0.5
    label_smoothing: float = 0.0
    dropout: float = 0.2
    radius_m: float | None = None
    most: int = 2048
    weight: float = 0.1


class DenseAlignment(Objective):
    """The multi-sensor alignment of dense features (MSAD) of X-STARS (Marsocci and Audebert 2025, arXiv:2405.09922).

    Each modality alone, without any view, goes through the model. At each place, u = h_1(p(F_a)) and v = h_2(p(F_b)) of
    length one give

        Z = V U^T / t,  T = softmax((U U^T + V V^T) / (2 t_t)),  L = (CE(Z, T) + CE(Z^T, T)) / 2,

    T mixed with the identity (inferred) and smoothed, mean over places, sum over pairs of modalities. With ``old``, that
    modality is encoded by a copy of the model as it was at the start, so that the new ones are drawn to what is known and
    it is not forgotten (their continual mode).

    Other than in the released code, by intention: the loss has a gradient; the heads are parameters to be trained; unit
    vectors and temperatures take the place of products of some thousand, which leave no target soft; features are
    normalised once; the copy is in evaluation mode; other places may be negatives; modalities are named; all places are
    one product. Targets are taken as given (no gradient) and not transposed with Z, so that their rows sum to one
    (inferred).

    Terms: ``dense_alignment``; nothing where fewer than two modalities, or not the old one, are in the batch.

    Args:
        model: that will learn; with ``old``, as it was trained before.
        settings: of the alignment.
        old: name of the modality that the model knows already.

    Raises:
        ValueError: the model has no such modality.
    """

    def __init__(self, model: FusionModel, settings: DenseAlignmentSettings | None = None, old: str | None = None) -> None:
        super().__init__()
        if old is not None and old not in model.modalities:
            raise ValueError(f"expected one of {', '.join(model.modalities)} as the old modality; got {old}")
        self.settings = chosen = settings or DenseAlignmentSettings()
        self.old = old
        self.teacher = None if old is None else FrozenTeacher(model)
        self.shared = AlignmentHead(pooled_channels(model), chosen.channels, chosen.dropout)
        self.heads = torch.nn.ModuleList(AlignmentHead(chosen.channels, chosen.channels, chosen.dropout) for _ in range(2))
        self._last: tuple[Tensor, Tensor] | None = None

    def forward(self, step: Step) -> dict[str, Tensor]:
        pairs = self.pairs(step)
        if not pairs:
            return {}
        levels = {name: self._features(step, name) for name in dict.fromkeys(name for pair in pairs for name in pair)}
        level = next(iter(levels.values()))
        places = self._draw(level, step.generator)
        apart = self._apart(step, level, places)
        losses = [self._loss(levels[one], levels[other], places, apart) for one, other in pairs]
        return {"dense_alignment": self.settings.weight * torch.stack(losses).sum()}

    def monitors(self) -> dict[str, float]:
        """How often a place of the last step found its partner."""
        return {} if self._last is None else {"retrieval": retrieval_accuracy(*self._last)}

    def pairs(self, step: Step) -> list[tuple[str, str]]:
        """The modalities to align, each pair in the model's order but the old one first."""
        names = [name for name in step.model.modalities if name in step.windows.values]
        if self.old is None:
            return list(combinations(names, 2))
        return [(self.old, name) for name in names if name != self.old] if self.old in names else []

    def _features(self, step: Step, name: str) -> FeatureMap:
        """What the model, or the copy, makes of one modality alone."""
        windows = Windows({name: step.windows.values[name]}, step.windows.geography)
        model = step.model if self.teacher is None or name != self.old else self.teacher.module
        return within(step, model.features(windows.values, geography=windows.geography).levels[-1])

    def _draw(self, level: FeatureMap, generator: torch.Generator) -> Tensor:
        """(n,) places of the grid, the same in all windows."""
        count = level.values.shape[-2] * level.values.shape[-1]
        most = self.settings.tokens
        if self.settings.radius_m is not None:
            most = min(most, max(1, self.settings.most // len(level.values)))
        return torch.randperm(count, generator=generator)[:most].to(level.values.device)

    def _apart(self, step: Step, level: FeatureMap, places: Tensor) -> Tensor | None:
        """(1, B n, B n) bool of the pairs of places that may be negatives of each other; None without a radius."""
        if self.settings.radius_m is None:
            return None
        resolution = step.windows.geography[:, 2].to(places.device).float()
        resolution = torch.where(resolution.isnan(), step.model.specification.resolution_m, resolution)
        columns = level.values.shape[-1]
        at = torch.stack([places // columns, places % columns], dim=1).float() * level.stride
        metres = (at[:, None] - at[None]).norm(dim=2)[None] * resolution[:, None, None]
        count, each = len(resolution), len(places)
        apart = torch.ones(count, each, count, each, dtype=torch.bool, device=places.device)
        window = torch.arange(count, device=places.device)
        apart[window, :, window] = metres > self.settings.radius_m
        return apart.view(1, count * each, count * each)

    def _loss(self, one: FeatureMap, other: FeatureMap, places: Tensor, apart: Tensor | None) -> Tensor:
        """The loss of a pair of modalities."""
        known = _tokens(one.known, places)[..., 0] * _tokens(other.known, places)[..., 0] > 0
        first = unit(self.heads[0](self.shared(_tokens(one.values, places))), dim=2)
        second = unit(self.heads[1](self.shared(_tokens(other.values, places))), dim=2)
        self._last = first[known].detach(), second[known].detach()
        if apart is None:
            # (B, n, C) -> (n, B, C): a place is told from the same place elsewhere.
            first, second, known = first.transpose(0, 1), second.transpose(0, 1), known.T
        else:
            first, second, known = first.flatten(0, 1)[None], second.flatten(0, 1)[None], known.flatten()[None]
        return soft_alignment(first, second, known, apart, self.settings)


def soft_alignment(
    first: Tensor, second: Tensor, known: Tensor, apart: Tensor | None, settings: DenseAlignmentSettings
) -> Tensor:
    """The equation of ``DenseAlignment``.

    Args:
        first, second: (G, R, C) unit vectors of two modalities in groups of rows that are compared.
        known: (G, R) bool; other rows neither count nor are candidates.
        apart: (G, R, R) bool of the candidates beside a row's own; all by default.
        settings: temperatures and smoothing.

    Returns:
        A scalar; exactly zero where there is no other candidate.
    """
    candidates = known[:, :, None] & known[:, None]
    if apart is not None:
        candidates = candidates & apart
    candidates = candidates | torch.eye(known.shape[1], dtype=torch.bool, device=known.device)
    # Finite, so that a target of zero times it is zero.
    lowest = -1e9
    with torch.autocast(first.device.type, enabled=False):
        logits = (second @ first.mT / settings.temperature).masked_fill(~candidates, lowest)
        own = (first @ first.mT + second @ second.mT).detach() / 2
        targets = (own / settings.target_temperature).masked_fill(~candidates, lowest).softmax(dim=-1)
        itself = torch.eye(known.shape[1], dtype=targets.dtype, device=known.device)
        targets = (1 - settings.own_share) * targets + settings.own_share * itself
        even = candidates.to(logits.dtype)
        even = even / even.sum(dim=-1, keepdim=True)
        targets = (1 - settings.label_smoothing) * targets + settings.label_smoothing * even
        return soft_contrast(logits, targets, known.to(logits.dtype))


def retrieval_accuracy(first: Tensor, second: Tensor) -> float:
    """How often a patch of one sensor finds its partner of the other among all patches, mean of both directions.

    Args:
        first, second: (N, C) features of the same patches in the same order, of any length.

    Returns:
        Part of the patches whose partner has the highest cosine; 1 / N by chance, 0 without patches.
    """
    if not len(first):
        return 0.0
    similar = unit(first) @ unit(second).T
    own = torch.arange(len(first), device=first.device)
    found = (similar.argmax(dim=1) == own).float().mean() + (similar.argmax(dim=0) == own).float().mean()
    return float(found / 2)


def _tokens(values: Tensor, places: Tensor) -> Tensor:
    """(B, n, C) of some places."""
    return values.flatten(2)[:, :, places].transpose(1, 2)
