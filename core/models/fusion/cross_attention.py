"""CAF, cross-attention fusion: before the encoder, each modality asks the others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from core.models.attention import Attention, FeedForward, heads_for
from core.models.fusion.base import Streams
from core.models.fusion.tokens import TokenSet, as_map, attend, token_set


class CrossAttention(nn.Module):
    """Cross-attention of every modality to all others, then a feed-forward that they share.

        x_m <- x_m + CA_m(LN x_m, {LN x_n, n != m}),  then  x <- x + MLP(LN x)

    After "Multimodal RSI fusion based on self-supervised pre-training and cross-scale contrastive learning" (Fudan
    University, Journal of Infrared and Millimeter Waves, 2024221). That modalities exchange by cross-attention before
    the encoder is from the paper; the block's inside follows Fus-MAE (arXiv:2401.02764). With a single modality only
    the feed-forward is left. The paper counts it as the first of twelve blocks; here it comes before all of them.

    Args:
        names: of the modalities.
        channels: of the tokens.
        is_local: see ``core.models.fusion.tokens.attend``.
    """

    def __init__(self, names: Sequence[str], channels: int, is_local: bool) -> None:
        super().__init__()
        self.is_local = is_local
        heads = heads_for(channels)
        self.norms = nn.ModuleDict({name: nn.LayerNorm(channels, eps=1e-6) for name in names})
        # Alone, a modality has no one to ask.
        asking = names if len(names) > 1 else ()
        self.attentions = nn.ModuleDict({name: Attention(channels, heads, is_cross=True) for name in asking})
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = FeedForward(channels)

    def forward(self, streams: Streams) -> Streams:
        """Feature maps (B, channels, h, w) of any subset of the modalities, in and out; registers pass unchanged."""
        sets = {name: token_set(stream) for name, stream in streams.items()}
        normed = {name: TokenSet(self.norms[name](each.values), each.known) for name, each in sets.items()}
        fused = {}
        for name, stream in streams.items():
            tokens = sets[name].values
            others = [each for other, each in normed.items() if other != name]
            if others:
                attention = self.attentions[name]
                if not isinstance(attention, Attention):
                    raise TypeError(f"'{name}' has no attention.")
                tokens = tokens + attend(attention, normed[name].values, others, self.is_local)
            tokens = tokens + self.mlp(self.norm(tokens))
            fused[name] = as_map(torch.as_tensor(tokens), stream)
        return fused
