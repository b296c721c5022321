"""The vision transformer (Dosovitskiy et al. 2021, arXiv:2010.11929) over patches of any size.

Positions are codes of metres on the ground, so that patches of sensors of different resolution which show the same
place carry nearly the same code. Scale-MAE (Reed et al. 2023, arXiv:2212.14532) scales positions by the ground sample
distance; wavelengths spaced from decimetres to kilometres are our form of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core.models.attention import TransformerBlock
from core.models.encoders.encoder import Encoder
from core.models.features import FeatureMap
from core.models.fourier import fourier_features
from core.models.specification import SizeName
from core.models.stems.kernels import StemGeometry

VITS: dict[SizeName, tuple[int, int, int]] = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12)}
"""Channels, blocks and heads."""

LEVELS = 4
POSITION_WAVELENGTHS_M = (0.4, 40000.0)


class ViTEncoder(Encoder):
    """Four levels of one stride, after each quarter of the blocks.

    Args:
        size: see ``VITS``.
        patch: side of a patch in reference pixels.
        resolution_m: pixel size of the reference grid in metres.
    """

    def __init__(self, size: SizeName, patch: int, resolution_m: float) -> None:
        super().__init__()
        channels, blocks, heads = VITS[size]
        self.geometry = StemGeometry(channels, patch, patch)
        self.channels = (channels,) * LEVELS
        self.strides = (patch,) * LEVELS
        self.radius = None
        self.resolution_m = resolution_m
        self.cls_token = nn.Parameter(torch.zeros(1, 1, channels))
        self.patch_bias = nn.Parameter(torch.zeros(channels))
        self.blocks = nn.ModuleList(TransformerBlock(channels, heads) for _ in range(blocks))
        self.norms = nn.ModuleList(nn.LayerNorm(channels, eps=1e-6) for _ in range(LEVELS))
        nn.init.normal_(self.cls_token, std=0.02)

    def enter(self, embedded: FeatureMap) -> FeatureMap:
        values = embedded.values + self.patch_bias[:, None, None] + self.positions(embedded.values)
        registers = self.cls_token.expand(len(values), -1, -1)
        return FeatureMap(values * embedded.known, embedded.known, embedded.stride, registers)

    def positions(self, values: Tensor) -> Tensor:
        """(1, C, h, w) codes of the metres from the window's north-west corner."""
        channels, rows, columns = values.shape[1:]
        code = position_codes(channels, rows, columns, self.geometry.stride * self.resolution_m, values.device)
        return code.to(values.dtype)

    def step(self, number: int, state: FeatureMap) -> FeatureMap:
        tokens, known = tokens_of(state)
        each = len(self.blocks) // LEVELS
        packing = None if known is None else packing_of(known)
        packed, among = (tokens, known) if packing is None else packing.taken(tokens)
        for block in self.blocks[number * each : (number + 1) * each]:
            packed = block(packed, among)
        return map_of(packed if packing is None else packing.put_back(packed, tokens), state)

    def early_parts(self) -> list[nn.Module]:
        return list(self.blocks)[: -len(self.blocks) // LEVELS]

    def blocks_in_order(self) -> list[list[nn.Module]]:
        order: list[list[nn.Module]] = [[block] for block in self.blocks]
        each = len(order) // LEVELS
        for number, norm in enumerate(self.norms):
            order[(number + 1) * each - 1].append(norm)
        return order

    def export(self, number: int, state: FeatureMap) -> FeatureMap:
        normed = self.norms[number](state.values.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return state.masked(normed)


def tokens_of(state: FeatureMap) -> tuple[Tensor, Tensor | None]:
    """Registers and places as one sequence (B, R + h * w, C), and which of them exist; None where all do."""
    tokens = state.values.flatten(2).transpose(1, 2)
    known = state.known.flatten(1) > 0
    if state.registers is not None:
        tokens = torch.cat([state.registers, tokens], dim=1)
        registers = torch.ones(state.registers.shape[:2], dtype=torch.bool, device=known.device)
        known = torch.cat([registers, known], dim=1)
    # Without a mask torch has a faster way, which a scene without gaps should get.
    return tokens, None if not torch.compiler.is_exporting() and bool(known.all()) else known


def map_of(tokens: Tensor, state: FeatureMap) -> FeatureMap:
    """A sequence as ``tokens_of`` made it, back on the grid of a state."""
    count = 0 if state.registers is None else state.registers.shape[1]
    values = tokens[:, count:].transpose(1, 2).reshape(state.values.shape)
    registers = tokens[:, :count] if count else None
    return FeatureMap(values * state.known, state.known, state.stride, registers)


def position_codes(channels: int, rows: int, columns: int, spacing_m: float, device: torch.device) -> Tensor:
    """(1, C, h, w) float64 codes of the metres from the north-west corner to the places of a grid of that spacing."""
    count = -(-channels // 4)
    parts = []
    for size in (rows, columns):
        metres = (torch.arange(size, dtype=torch.float64, device=device) + 0.5) * spacing_m
        parts.append(fourier_features(metres, count, *POSITION_WAVELENGTHS_M))
    south = parts[0][:, None].expand(rows, columns, -1)
    east = parts[1][None].expand(rows, columns, -1)
    return torch.cat([south, east], dim=-1)[..., :channels].permute(2, 0, 1)[None]


@dataclass(frozen=True, eq=False)
class Packing:
    """Which tokens of each sequence are computed at all, as a masked autoencoder leaves out what is masked (He et al.
    2022, arXiv:2111.06377, section 3); that sequences may differ in how many is ours.

    Attributes:
        places: (B, L) long, of the tokens taken from each sequence, those that exist first.
        known: (B, L) bool, which of them exist; None where all do.
    """

    places: Tensor
    known: Tensor | None

    def taken(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, L, C) of (B, N, C) tokens, and which exist."""
        return tokens.gather(1, self._index(tokens)), self.known

    def put_back(self, packed: Tensor, tokens: Tensor) -> Tensor:
        """(B, N, C) tokens with the packed ones in their places; those that were left out stay as they are."""
        return tokens.scatter(1, self._index(tokens), packed)

    def _index(self, tokens: Tensor) -> Tensor:
        return self.places[:, :, None].expand(-1, -1, tokens.shape[2])


def packing_of(known: Tensor) -> Packing | None:
    """How to leave out unknown tokens (B, N) bool; None where the fullest sequence lacks less than an eighth: taking
    tokens out and putting them back would cost what it saves."""
    if torch.compiler.is_exporting():
        return None  # a graph does the same whatever is known
    counts = known.sum(dim=1)
    longest = int(counts.max())
    if 8 * longest > 7 * known.shape[1]:
        return None
    places = known.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :longest]
    among = torch.arange(longest, device=known.device) < counts[:, None]
    return Packing(places, None if not torch.compiler.is_exporting() and bool(among.all()) else among)
