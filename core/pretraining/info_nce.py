"""InfoNCE, once for all objectives that tell samples apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class ContrastSettings:
    """Which form of InfoNCE.

    Attributes:
        temperature: t, by which similarities are divided.
        negative_share: tau_plus of the debiased form (Chuang et al. 2020, arXiv:2007.00224, equation 8): the part of the
            negatives that are of the anchor's own class; 0 = not debiased.
        hardness: beta of hard negatives (Robinson et al. 2021, arXiv:2010.04592, equation 4): similar negatives weigh
            more; 0 = all alike.
    """

    temperature: float = 0.5
    negative_share: float = 0.0
    hardness: float = 0.0


def info_nce(
    first: Tensor,
    second: Tensor,
    settings: ContrastSettings,
    *,
    queue: Tensor | None = None,
) -> Tensor:
    """Tells which row of one view belongs to which row of the other, both ways.

    Without a queue, the negatives of a row are all other rows of both views (N = 2 B - 2), as in SimCLR (Chen et al.
    2020, arXiv:2002.05709, equation 1) and in the code of Chen and Bruzzone (2022), whose form with both options is

        L = mean -log(p / (p + G)),  G = max((R - tau_plus N p) / (1 - tau_plus), N exp(-1 / t)),
        R = N sum_j n_j^(1 + beta) / sum_j n_j^beta,  p = exp(a b / t),  n_j = exp(a x_j / t).

    R is written there as a weighted sum over a mean of weights, which is the same. With a queue, the negatives are the
    queue's rows alone, as in MoCo (He et al. 2020, arXiv:1911.05722, equation 1), and ``second`` passes no gradient on.

    Args:
        first, second: (B, C) unit vectors; rows of the same number belong together.
        settings: of the form.
        queue: (K, C) unit vectors that belong to none of the rows.

    Returns:
        A scalar; exactly zero, with a gradient of zero, where there is no negative.
    """
    # In half precision, similarities divided by a small temperature would be off by more than the losses differ.
    with torch.autocast(first.device.type, enabled=False):
        if queue is not None:
            positive = (first * second.detach()).sum(dim=1) / settings.temperature
            # Without a row the mean would be no number.
            return _loss(positive, first @ queue.T / settings.temperature, settings) if len(first) else first.sum()
        positive = (first * second).sum(dim=1) / settings.temperature
        if len(first) < 2:
            return 0.0 * positive.sum()
        return _loss(positive.repeat(2), _negatives(first, second) / settings.temperature, settings)


def _negatives(first: Tensor, second: Tensor) -> Tensor:
    """(2 B, 2 B - 2) similarities of every row of both views to all rows but itself and its partner."""
    rows, both = len(first), torch.cat([first, second])
    numbers = torch.arange(2 * rows, device=both.device) % rows
    is_negative = numbers[:, None] != numbers[None]
    return (both @ both.T)[is_negative].view(2 * rows, 2 * rows - 2)


def _loss(positive: Tensor, negatives: Tensor, settings: ContrastSettings) -> Tensor:
    """Mean over rows; everything in logarithms, so that small temperatures do not overflow."""
    count = negatives.shape[1]
    hardness, share = settings.hardness, settings.negative_share
    total = torch.logsumexp(negatives, dim=1)
    if hardness:
        weighted = torch.logsumexp((1 + hardness) * negatives, dim=1)
        total = math.log(count) + weighted - torch.logsumexp(hardness * negatives, dim=1)
    if share:
        # Scaled by the larger of the two, so that the difference is of numbers near one.
        scale = torch.maximum(total, positive).detach()
        left = ((total - scale).exp() - share * count * (positive - scale).exp()) / (1 - share)
        least = torch.full_like(total, math.log(count) - 1 / settings.temperature)
        # The logarithm of nothing has no gradient; below the least, none is wanted.
        total = torch.maximum(left.clamp_min(torch.finfo(left.dtype).tiny).log() + scale, least)
    return functional.softplus(total - positive).mean()


def soft_contrast(logits: Tensor, targets: Tensor, rows: Tensor | None = None) -> Tensor:
    """Cross-entropy of logits against soft targets whose rows sum to one, both ways; the mean over rows.

    Args:
        logits: (..., B, B) similarities of the rows of one view to those of the other, divided by a temperature.
        targets: (..., B, B), of similarities that are symmetric.
        rows: (..., B) weight of each row; all alike by default.
    """
    one = -(targets * logits.log_softmax(dim=-1)).sum(dim=-1)
    other = -(targets * logits.mT.log_softmax(dim=-1)).sum(dim=-1)
    both = 0.5 * (one + other)
    if rows is None:
        return both.mean()
    return (both * rows).sum() / rows.sum().clamp_min(1.0)
