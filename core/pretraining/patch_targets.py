"""Frozen random projections of patches: targets that cost nothing, never move, and cannot collapse."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.models.blocks import box_sums
from core.models.specification import ModalitySpecification
from core.models.stems.channels import is_relief
from core.pretraining.patches import band_groups, normalised_patches, pixel_patches, standardised, target_side

SPREAD_FLOOR = 1e-4
"""A part of a target that varies less than this between patches, in variance, tells nothing."""

MEANS, SPREADS, TEXTURE = 1.0, 0.5, 0.5
"""Weights of the parts of a target: classes of land cover differ in their means first, and most of a texture is noise."""

LEAST_MOMENTUM = 0.01
"""Of the running statistics, which start as plain averages."""


class RunningStandardisation(nn.Module):
    """Standardises vectors by running statistics of what it has seen, without anything to train.

    Within one scene all patches lie close together in the statistics of their sensor; without this, their projections
    would nearly be one vector.

    Args:
        channels: of the vectors.
    """

    mean: Tensor
    square: Tensor
    seen: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("square", torch.ones(channels))
        self.register_buffer("seen", torch.zeros(()))

    @torch.no_grad()
    def forward(self, rows: Tensor) -> Tensor:
        """(n, channels)."""
        if self.training and len(rows):
            self.seen += 1
            momentum = max(1 / float(self.seen), LEAST_MOMENTUM)
            self.mean += momentum * (rows.mean(dim=0) - self.mean)
            self.square += momentum * (rows.square().mean(dim=0) - self.square)
        variance = (self.square - self.mean.square()).clamp_min(0.0)
        return (rows - self.mean) / (variance + SPREAD_FLOOR).sqrt()


class PatchTargets(nn.Module):
    """A unit vector for every patch of one modality.

    A patch is described by the mean of each band, by its spread, by its texture (its pixels, normalised within groups
    of bands), and by mean and spread of the means around it. Each part is standardised, and has a weight that does not
    depend on how many values it has. A fixed random matrix brings them to few dimensions, which keeps their angles
    nearly (Johnson and Lindenstrauss 1984); a layer normalisation without weights and unit length follow. That frozen
    random projections of patches are good targets is from OlmoEarth, whose reports were not at hand in full; all else
    about these is ours.

    Args:
        entry: of the modality.
        patch: side in reference pixels.
        channels: of the vectors.
        contexts: odd sides, in patches, of the squares around a patch.
        seed: of the matrix, with the modality's name.
    """

    projection: Tensor

    def __init__(
        self,
        entry: ModalitySpecification,
        patch: int,
        channels: int = 64,
        contexts: tuple[int, ...] = (3,),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.entry, self.patch, self.contexts = entry, patch, contexts
        bands, side = len(entry.bands), target_side(entry, patch)
        self.has_texture = side > 1
        weights = [(bands, MEANS), *[(bands, MEANS), (bands, SPREADS)] * len(contexts)]
        if self.has_texture:
            weights += [(bands, SPREADS), (bands * side**2, TEXTURE)]
        total = sum(size for size, _ in weights)
        self.standardisation = RunningStandardisation(total)
        generator = torch.Generator().manual_seed(zlib.crc32(f"{entry.name} {seed}".encode()))
        scale = torch.cat([torch.full((size, 1), weight * size**-0.5) for size, weight in weights])
        self.register_buffer("projection", scale * torch.randn(total, channels, generator=generator))

    @torch.no_grad()
    def forward(self, values: Tensor, known: Tensor) -> Tensor:
        """(n, channels) for the n known patches, window by window and row by row.

        Args:
            values: (B, C, h, w) physical, NaN = missing.
            known: (B, rows, columns) bool.
        """
        parts = self._described(standardised(values, self.entry), known)
        rows = self.standardisation(torch.cat(parts, dim=1))
        projected = rows @ self.projection
        return functional.normalize(functional.layer_norm(projected, projected.shape[1:]), dim=1)

    def _described(self, values: Tensor, known: Tensor) -> list[Tensor]:
        """Parts (n, size) of the known patches, in the order of the weights."""
        pixels = pixel_patches(values, self.entry, self.patch, (known.shape[1], known.shape[2]))
        counts = torch.isfinite(pixels[:, :, :, :1]).to(values.dtype)
        total = counts.sum((4, 5)).clamp_min(1.0)
        filled = torch.nan_to_num(pixels)
        mean = filled.sum((4, 5)) / total
        share = known[:, None].to(values.dtype)
        grid = mean.permute(0, 3, 1, 2) * share
        if is_relief(self.entry):
            # Far above the sea, squares of heights would have lost what differs.
            centre = grid.sum((2, 3), keepdim=True) / share.sum((2, 3), keepdim=True).clamp_min(1.0)
            grid = (grid - centre) * share
        parts = [grid]
        sums = (box_sums(tensor, self.contexts) for tensor in (share, grid, grid.square()))
        for near, around, squares in zip(*sums, strict=True):
            near = near.clamp_min(1.0)
            average = around / near
            variance = (squares / near - average.square()).clamp_min(0.0)
            parts += [average, (variance + 1e-4).log()]
        if is_relief(self.entry):
            # Heights only count against their surroundings, as at the model's entrance.
            widest = parts[-2]
            parts = [part - widest if number == 0 or number % 2 else part for number, part in enumerate(parts)]
        parts = [part.permute(0, 2, 3, 1)[known] for part in parts]
        if self.has_texture:
            deviation = ((filled - mean[..., None, None]).square() * counts).sum((4, 5)) / total
            texture, _ = normalised_patches(pixels[known], band_groups(self.entry))
            parts += [(deviation[known] + 1e-4).log(), texture.flatten(1)]
        return parts
