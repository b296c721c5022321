"""What pre-training showed, epoch by epoch."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class PretrainingRecord:
    """One epoch.

    Attributes:
        epoch: counted from 1.
        losses: mean of each weighted term.
        spread, effective_rank, dependence: see ``core.pretraining.monitors.FeatureHealth``.
        monitors: what the objective shows of its health.
    """

    epoch: int
    losses: dict[str, float]
    spread: float
    effective_rank: float
    dependence: dict[str, float] = field(default_factory=dict)
    monitors: dict[str, float] = field(default_factory=dict)
