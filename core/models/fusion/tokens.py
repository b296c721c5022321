"""Tokens of several modalities, and attention between them at one place or everywhere."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from core.models.attention import Attention
from core.models.features import FeatureMap


@dataclass(frozen=True, eq=False)
class TokenSet:
    """Tokens of one modality.

    Attributes:
        values: (B, N, C), row by row.
        known: (B, N) bool.
    """

    values: Tensor
    known: Tensor


def token_set(state: FeatureMap) -> TokenSet:
    """A feature map's places as tokens."""
    return TokenSet(state.values.flatten(2).transpose(1, 2), state.known.flatten(1) > 0)


def as_map(tokens: Tensor, state: FeatureMap) -> FeatureMap:
    """Tokens back on the grid of a feature map, zero where nothing is known."""
    values = tokens.transpose(1, 2).reshape(state.values.shape)
    return replace(state, values=values * state.known)


def attend(attention: Attention, queries: Tensor, keys: list[TokenSet], is_local: bool) -> Tensor:
    """Queries of one modality over the keys of others.

    Args:
        attention: a cross-attention.
        queries: (B, N, C).
        keys: of each modality asked; none gives zeros.
        is_local: only keys of the query's own place, as for feature maps whose places are too many to compare all;
            otherwise keys of every place.

    Returns:
        (B, N, C).
    """
    if not keys:
        return torch.zeros_like(queries)
    if is_local:
        batch, places, channels = queries.shape
        values = torch.stack([each.values for each in keys], dim=2).flatten(0, 1)
        known = torch.stack([each.known for each in keys], dim=2).flatten(0, 1)
        answer = attention(queries.reshape(batch * places, 1, channels), values, known)
        return torch.as_tensor(answer.view(batch, places, channels))
    values = torch.cat([each.values for each in keys], dim=1)
    known = torch.cat([each.known for each in keys], dim=1)
    return torch.as_tensor(
        attention(queries, values, None if not torch.compiler.is_exporting() and bool(known.all()) else known)
    )


def mean_of_modalities(maps: list[FeatureMap]) -> FeatureMap:
    """The mean over the modalities that are known at a place."""
    if len(maps) == 1:
        return replace(maps[0], registers=None)
    count = torch.stack([each.known for each in maps]).sum(dim=0)
    total = torch.stack([each.values for each in maps]).sum(dim=0)
    known = (count > 0).to(total.dtype)
    return FeatureMap(total / count.clamp_min(1.0), known, maps[0].stride)
