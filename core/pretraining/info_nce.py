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
    positive = (first * second).sum(dim=1) / settings.temperature
    if queue is not None:
        negatives = first @ queue.T / settings.temperature
        return _loss(positive, negatives, settings)
    rows = len(first)
    if rows < 2:
        return 0.0 * positive.sum()
    both = torch.cat([first, second])
    similar = both @ both.T / settings.temperature
    # Of 2 B columns, a row's own and its partner's are no negatives.
    numbers = torch.arange(2 * rows, device=both.device) % rows
    is_negative = numbers[:, None] != numbers[None]
    return _loss(positive.repeat(2), similar[is_negative].view(2 * rows, 2 * rows - 2), settings)


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
        least = (math.log(count) - 1 / settings.temperature - scale).exp()
        total = torch.maximum(left, least).log() + scale
    return functional.softplus(total - positive).mean()


def soft_contrast(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of (B, B) logits against soft targets whose rows sum to one, both ways; the mean.

    Args:
        logits: similarities of the rows of one view to those of the other, divided by a temperature.
        targets: (B, B), symmetric but for rounding.
    """
    one = functional.cross_entropy(logits, targets)
    return 0.5 * (one + functional.cross_entropy(logits.T, targets))
