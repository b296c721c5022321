"""Consistency: on unlabelled pixels a network is to say, of a varied view, what its averaged weights are sure of in a calm one.

The teacher is the average of the network's weights (mean teacher, Tarvainen and Valpola 2017, arXiv:1703.01780); only its sure
answers count, as hard labels, and only the network's view is varied (FixMatch, Sohn et al. 2020, arXiv:2001.07685). Both see
the same window under the same symmetry, so that their pixels are the same ground.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.finetuning.networks.sampling import Batch

SURE = 0.95
"""Probability from which the teacher is believed, as FixMatch does."""

RAMP = 0.5
"""Part of the steps over which the term grows to its whole weight: at first the average knows nothing. Inferred."""


def consistency_loss(scores: Tensor, teacher: nn.Module, batch: Batch) -> Tensor:
    """How far a network is from the sure answers of its teacher, on average over all unlabelled pixels.

    Args:
        scores: (B, n_classes, H, W) of the network on the varied view.
        teacher: in evaluation mode.
        batch: with the calm view.
    """
    device = scores.device
    with torch.no_grad():
        shares = teacher({name: values.to(device) for name, values in batch.calm.items()}).float().softmax(dim=1)
        confidence, answers = shares.max(dim=1)
    unlabelled = batch.unlabelled.to(device)
    sure = unlabelled & (confidence >= SURE)
    losses: Tensor = functional.cross_entropy(scores, answers, reduction="none")
    mean: Tensor = (losses * sure).sum() / unlabelled.sum().clamp(min=1)
    return mean


def consistency_weight(step: int, steps: int) -> float:
    """The weight of the term at a step: the Gaussian ramp of Tarvainen and Valpola, up to 1.

    Args:
        step: from 0.
        steps: of the whole training.
    """
    part = min(1.0, step / max(1.0, RAMP * steps))
    return math.exp(-5.0 * (1.0 - part) ** 2)
