"""CMF, cross-modality fusion: after the encoder, each modality asks all, itself included."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from core.models.attention import Attention, FeedForward, heads_for
from core.models.fusion.base import Streams
from core.models.fusion.tokens import TokenSet, as_map, attend, token_set


class CrossModality(nn.Module):
    """Each modality queries the features of all modalities, then passes a feed-forward of its own.

        z_m <- z_m + CA_m(LN z_m, LN [z_1; ...; z_M]),  then  z_m <- z_m + MLP_m(LN z_m)

    From the same paper as ``core.models.fusion.cross_attention``; that the keys are those of all modalities is its
    wording, the equations are inferred. One normalisation serves queries and keys of all modalities, so that they stay
    comparable (ours).

    Args:
        names: of the modalities.
        channels: of the tokens.
        is_local: see ``core.models.fusion.tokens.attend``.
    """

    def __init__(self, names: Sequence[str], channels: int, is_local: bool) -> None:
        super().__init__()
        self.is_local = is_local
        heads = heads_for(channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.attentions = nn.ModuleDict({name: Attention(channels, heads, is_cross=True) for name in names})
        self.norms = nn.ModuleDict({name: nn.LayerNorm(channels, eps=1e-6) for name in names})
        self.mlps = nn.ModuleDict({name: FeedForward(channels) for name in names})

    def forward(self, streams: Streams) -> Streams:
        """Feature maps (B, channels, h, w) of any subset of the modalities, in and out."""
        sets = {name: token_set(stream) for name, stream in streams.items()}
        normed = {name: TokenSet(self.norm(each.values), each.known) for name, each in sets.items()}
        fused = {}
        for name, stream in streams.items():
            attention = self.attentions[name]
            if not isinstance(attention, Attention):
                raise TypeError(f"'{name}' has no attention.")
            tokens = sets[name].values + attend(attention, normed[name].values, list(normed.values()), self.is_local)
            tokens = tokens + self.mlps[name](self.norms[name](tokens))
            fused[name] = as_map(torch.as_tensor(tokens), stream)
        return fused
