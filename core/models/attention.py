"""Attention between tokens, some of which may be missing."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, arXiv:1706.03762, equation 1).

    Missing keys have no influence: a query without any key gets exactly zero.

    Args:
        channels: of queries, keys and output.
        heads: number of heads; the channels are a multiple of it.
        is_cross: keys come from other tokens than queries, and have a projection of their own.
    """

    def __init__(self, channels: int, heads: int, is_cross: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.is_cross = is_cross
        if is_cross:
            self.q = nn.Linear(channels, channels)
            self.kv = nn.Linear(channels, 2 * channels)
        else:
            self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, queries: Tensor, keys: Tensor | None, known: Tensor | None) -> Tensor:
        """Attends.

        Args:
            queries: (B, N, C).
            keys: (B, K, C); the queries themselves where it is None.
            known: (B, K) bool, which keys exist; all where it is None.

        Returns:
            (B, N, C).
        """
        if self.is_cross:
            if keys is None:
                raise ValueError("cross-attention needs keys")
            parts = [self.q(queries), *self.kv(keys).chunk(2, dim=-1)]
        else:
            parts = list(self.qkv(queries).chunk(3, dim=-1))
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        if known is None:
            mixed = functional.scaled_dot_product_attention(query, key, value)
            return torch.as_tensor(self.proj(mixed.transpose(1, 2).flatten(2)))
        # A row without any key would be a division by zero: it looks at all of them, and is taken back below.
        has_any = known.any(dim=1)
        mask = (known | ~has_any[:, None])[:, None, None, :]
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        answer = self.proj(mixed.transpose(1, 2).flatten(2))
        return torch.where(has_any[:, None, None], answer, torch.zeros_like(answer))


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, channels: int, ratio: int = 4) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, ratio * channels)
        self.fc2 = nn.Linear(ratio * channels, channels)

    def forward(self, values: Tensor) -> Tensor:
        return torch.as_tensor(self.fc2(functional.gelu(self.fc1(values))))


class TransformerBlock(nn.Module):
    """Self-attention and feed-forward with normalisation before each (Dosovitskiy et al. 2021, arXiv:2010.11929,
    equations 2 and 3); layers are named as in timm."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attn = Attention(channels, heads)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = FeedForward(channels)

    def forward(self, tokens: Tensor, known: Tensor | None) -> Tensor:
        tokens = tokens + self.attn(self.norm1(tokens), None, known)
        return torch.as_tensor(tokens + self.mlp(self.norm2(tokens)))


def heads_for(channels: int, wanted: int = 4) -> int:
    """The largest number of heads of at most ``wanted`` that divides the channels."""
    return next(heads for heads in range(wanted, 0, -1) if channels % heads == 0)
