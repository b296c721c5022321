"""From what an encoder made of the visible part to what should be said of the masked patches of one modality."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from core.models.attention import TransformerBlock, heads_for
from core.models.encoders.vit import position_codes
from core.models.features import FeatureMap, Features
from core.models.fusion_model import FusionModel
from core.models.geography import GeographicEncoding
from core.pretraining.masking import Masks
from core.pretraining.patches import feature_channels, on_lattice

Level = Literal["tokens", "dense"]


class PatchDecoder(nn.Module):
    """A few narrow transformer blocks over all patches of a window, for one modality.

    The decoder of a masked autoencoder (He et al. 2022, arXiv:2111.06377, section 3): mask tokens where the modality is
    hidden, positions, blocks. What each place is given is ours: the merged features, the modality's own where a fusion
    holds them apart, and a mask token where the modality is not seen, so that a place which another modality shows is
    predicted from it. A2-MAE adds a code of the geography (its decoder is inferred).

    Args:
        merged, own: channels of the features; own = 0 where there are none.
        width: of the blocks.
        depth: number of blocks.
        has_geography: place and resolution are added.
    """

    def __init__(self, merged: int, own: int, width: int, depth: int, has_geography: bool) -> None:
        super().__init__()
        self.merged = nn.Sequential(nn.LayerNorm(merged), nn.Linear(merged, width))
        self.own = nn.Sequential(nn.LayerNorm(own), nn.Linear(own, width)) if own else None
        self.mask_token = nn.Parameter(0.02 * torch.randn(width))
        self.geography = GeographicEncoding(width) if has_geography else None
        self.blocks = nn.ModuleList(TransformerBlock(width, heads_for(width)) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(
        self, merged: FeatureMap, own: FeatureMap | None, masked: Tensor, visible: Tensor, geography: Tensor, spacing_m: float
    ) -> Tensor:
        """Decodes.

        Args:
            merged, own: features on the lattice.
            masked, visible: (B, rows, columns) bool, of the modality.
            geography: (B, 3), see ``Windows``.
            spacing_m: metres from one patch to the next.

        Returns:
            (n, width), a row for each masked patch.
        """
        batch, rows, columns = masked.shape
        tokens = self.merged(_sequence(merged.values)) * _sequence(merged.known)
        seen = merged.known[:, 0] > 0
        if self.own is not None and own is not None:
            tokens = tokens + self.own(_sequence(own.values)) * _sequence(own.known)
            seen = seen | (own.known[:, 0] > 0)
        tokens = tokens + self.mask_token * ~visible.flatten(1)[:, :, None]
        tokens = tokens + _sequence(position_codes(tokens.shape[2], rows, columns, spacing_m, tokens.device)).to(tokens.dtype)
        if self.geography is not None:
            tokens = tokens + self.geography(geography)[:, None]
        # What was never measured is not asked either.
        known = (seen | masked).flatten(1)
        among = None if bool(known.all()) else known
        for block in self.blocks:
            tokens = block(tokens, among)
        return torch.as_tensor(self.norm(tokens.view(batch, rows, columns, -1)[masked]))


class PatchDecoders(nn.Module):
    """A patch decoder for each of some modalities of a model.

    Args:
        model: whose features are decoded.
        names: of the modalities.
        level: ``tokens`` takes the last level of the fusion, as masked autoencoders do; ``dense`` the map of the
            model's own decoder, which is then trained as well.
        width, depth: see ``PatchDecoder``.

    Raises:
        ValueError: the model has no decoder for ``dense``.
    """

    def __init__(self, model: FusionModel, names: Iterable[str], level: Level, width: int, depth: int) -> None:
        super().__init__()
        channels = feature_channels(model)
        if level == "dense" and channels.dense is None:
            raise ValueError("a model with a head of scenes has no dense features; choose the level 'tokens'")
        self.level = level
        self.resolution_m = model.specification.resolution_m
        has_geography = model.specification.has_geography
        merged = channels.dense if level == "dense" and channels.dense is not None else channels.merged
        own = channels.own if level == "tokens" else {}
        self.decoders = nn.ModuleDict(
            {name: PatchDecoder(merged, own.get(name, 0), width, depth, has_geography) for name in names}
        )

    def merged(self, model: FusionModel, features: Features) -> FeatureMap:
        """The merged features that are decoded, on their own grid."""
        return model.dense(features) if self.level == "dense" else features.levels[-1]

    def forward(self, features: Features, merged: FeatureMap, masks: Masks, geography: Tensor) -> dict[str, Tensor]:
        """By modality with anything masked, (n, width) for its masked patches, row by row of each window.

        Args:
            features: of what is visible.
            merged: see ``merged``.
            masks: what is hidden.
            geography: (B, 3), see ``Windows``.
        """
        merged = on_lattice(merged, masks.patch, masks.size)
        spacing_m = masks.patch * self.resolution_m
        decoded = {}
        for name, decoder in self.decoders.items():
            if name not in masks.masked or not bool(masks.masked[name].any()):
                continue
            level = features.by_modality.get(name) if self.level == "tokens" else None
            own = None if level is None else on_lattice(level, masks.patch, masks.size)
            decoded[name] = decoder(merged, own, masks.masked[name], masks.visible(name), geography, spacing_m)
        return decoded


def _sequence(values: Tensor) -> Tensor:
    """(B, h * w, C) of (B, C, h, w)."""
    return values.flatten(2).transpose(1, 2)
