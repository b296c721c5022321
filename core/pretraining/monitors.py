"""What shows whether pre-training goes well: spread and rank of the features, and what each modality counts for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.models.features import FeatureMap
from core.models.fusion.asymmetric_attention import AsymmetricAttention
from core.models.fusion.transfer_gate import TransferGate
from core.models.fusion_model import FusionModel
from core.pretraining.objectives.objective import Windows

MOST_PLACES = 2048
"""Of which the features are looked at: enough for the rank of some hundred dimensions."""

LEAST_SPREAD = 0.01
"""Of unit features, times the root of their dimensions: one for features in every direction, zero for one point. Contrast that
went well in the end fell to 0.016 on the way on ``s1s2_scenes/282D``, while its loss went down all the time."""

LEAST_RANK = 1.5

SHUT, OPEN = 0.05, 0.95
"""A transfer gate beyond these has stopped to choose."""


@dataclass(frozen=True)
class FeatureHealth:
    """How varied the features of some windows are.

    Attributes:
        spread: standard deviation of unit features over places, times the root of their dimensions: 1 where they point
            anywhere, 0 where all are the same.
        effective_rank: exponential of the entropy of the singular values (Roy and Vetterli 2007), 1 to the dimensions.
        dependence: by modality, how far the features move when its windows are exchanged, against how far those of two
            windows lie apart; 0 = it is ignored.
        fusion: of asymmetric attention: ``given by <modality>``, the length of what is added to the main stream as a part of
            the main stream's, at the stage where that is most (near 0 = the modality is ignored inside the network);
            ``transfer gates``, their mean opening; ``stuck gates``, the part of them that is shut or open for good.
    """

    spread: float
    effective_rank: float
    dependence: dict[str, float]
    fusion: dict[str, float] = field(default_factory=dict)

    @property
    def is_collapsed(self) -> bool:
        """See ``has_collapsed``."""
        return has_collapsed(self.spread, self.effective_rank)


def has_collapsed(spread: float, rank: float) -> bool:
    """Whether features of this spread and effective rank all look alike: whatever the loss says, nothing was learned."""
    return spread < LEAST_SPREAD or rank < LEAST_RANK


@torch.no_grad()
def look_at(model: FusionModel, windows: Windows) -> FeatureHealth:
    """Features of windows, in evaluation mode; the model is left in the mode that it was in."""
    was_training = model.training
    model.eval()
    try:
        with _heard(model) as fusion:
            level = model.features(windows.values, dates=windows.dates, geography=windows.geography).levels[-1]
        features = places(level)
        dependence = {name: _dependence(model, windows, name, level) for name in windows.names}
    finally:
        model.train(was_training)
    return FeatureHealth(spread_of(features), effective_rank(features), dependence, fusion)


@contextmanager
def _heard(model: FusionModel) -> Iterator[dict[str, float]]:
    """Fills in ``FeatureHealth.fusion`` while the model is asked; nothing of it where the fusion is another."""
    given: dict[str, float] = {}
    gates: list[Tensor] = []
    handles = []
    for path, module in model.fusion.named_modules():
        if isinstance(module, AsymmetricAttention):
            name = path.rsplit(".", 1)[-1]

            def weigh(
                module: nn.Module, seen: tuple[FeatureMap, FeatureMap], told: tuple[Tensor, ...], name: str = name
            ) -> None:
                length = float(told[0].norm() / seen[0].values.norm().clamp_min(1e-12))
                given[name] = max(given.get(name, 0.0), length)

            handles.append(module.register_forward_hook(weigh))
        elif isinstance(module, TransferGate):
            handles.append(module.second.register_forward_hook(lambda module, seen, told: gates.append(torch.sigmoid(told))))
    found: dict[str, float] = {}
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
    found.update({f"given by {name}": length for name, length in given.items()})
    if gates:
        every = torch.cat([gate.flatten() for gate in gates])
        found["transfer gates"] = float(every.mean())
        found["stuck gates"] = float(((every < SHUT) | (every > OPEN)).float().mean())


def places(level: FeatureMap) -> Tensor:
    """(n, C) features of the known places, at most ``MOST_PLACES``, evenly chosen."""
    features = level.values.movedim(1, -1)[level.known[:, 0] > 0]
    if len(features) > MOST_PLACES:
        features = features[torch.linspace(0, len(features) - 1, MOST_PLACES, device=features.device).long()]
    return features


def spread_of(features: Tensor) -> float:
    """See ``FeatureHealth.spread``."""
    if len(features) < 2:
        return 0.0
    unit = functional.normalize(features, dim=1)
    return float(unit.std(dim=0).mean() * features.shape[1] ** 0.5)


def effective_rank(features: Tensor) -> float:
    """See ``FeatureHealth.effective_rank``."""
    if len(features) < 2:
        return 1.0
    values = torch.linalg.svdvals((features - features.mean(dim=0)).double())
    part = values / values.sum().clamp_min(1e-12)
    return float(torch.exp(-(part * part.clamp_min(1e-12).log()).sum()))


def _dependence(model: FusionModel, windows: Windows, name: str, level: FeatureMap) -> float:
    """How far features move when one modality is that of the next window."""
    if len(windows) < 2:
        return 0.0
    exchanged = {n: values.roll(1, 0) if n == name else values for n, values in windows.values.items()}
    other = model.features(exchanged, dates=windows.dates, geography=windows.geography).levels[-1]
    moved = (other.values - level.values).square().mean().sqrt()
    apart = (level.values.roll(1, 0) - level.values).square().mean().sqrt()
    return float(moved / apart.clamp_min(1e-12))
