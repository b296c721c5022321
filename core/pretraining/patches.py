"""Patches of pixels and of features on the lattice that masks are drawn on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from core.models.features import FeatureMap
from core.models.fusion.early import EarlyFusion
from core.models.fusion_model import FusionModel
from core.models.heads import SceneHead
from core.models.specification import ModalitySpecification
from core.models.stems.channels import RELIEF, is_relief
from core.pretraining.masking import pixels_along
from core.pretraining.view_pairs import dense_channels, own_channels, pooled_channels

LIMIT = 6.0
"""Standardised values are cut here, as at a model's entrance: a glint is no target."""

MOST_PIXELS = 32
"""Along a patch of a target: a metre-scale modality beside a 10 m one would have ten thousands of values otherwise."""

LEAST_SPREAD = 0.03
"""In standard deviations of the sensor: what varies less than this within a patch is noise, and is not blown up."""

LEAST_PIXELS = 4
"""Measured pixels that a patch needs for its own mean and spread to say anything; fewer only where it has fewer."""

GROUP_ENDS_NM = (720.0, 1000.0, 3000.0)
"""Visible light with the foot of the red edge, the near infrared with its plateau, the short-wave infrared; then the
thermal. Within these, bands of a scene go together; across them, vegetation and water set them apart."""


@dataclass(frozen=True)
class FeatureChannels:
    """How many channels the features of a model have.

    Attributes:
        merged: of the last level.
        own: of the last level of each modality, where a fusion holds them apart.
        dense: of the decoder's map; None where the model has no decoder.
    """

    merged: int
    own: dict[str, int]
    dense: int | None


def feature_channels(model: FusionModel) -> FeatureChannels:
    """Of a model, whatever its head."""
    own = {} if isinstance(model.fusion, EarlyFusion) else dict.fromkeys(model.modalities, own_channels(model))
    dense = None if isinstance(model.head, SceneHead) else dense_channels(model)
    return FeatureChannels(pooled_channels(model), own, dense)


def on_lattice(level: FeatureMap, patch: int, size: tuple[int, int]) -> FeatureMap:
    """Features on a lattice of patches: the mean of those known on a patch's ground, repeated where one covers several.

    Args:
        level: of any stride.
        patch: side in reference pixels.
        size: rows and columns of the lattice.
    """
    common = math.gcd(level.stride, patch)
    repeats, pool = level.stride // common, patch // common
    values, known = level.values, level.known
    if repeats > 1:
        values, known = (each.repeat_interleave(repeats, 2).repeat_interleave(repeats, 3) for each in (values, known))
    more = [pool * wanted - given for wanted, given in zip(size, values.shape[-2:], strict=True)]
    values, known = (functional.pad(each, (0, more[1], 0, more[0])) for each in (values, known))
    if pool > 1:
        share = functional.avg_pool2d(known, pool)
        values = functional.avg_pool2d(values, pool) / share.clamp_min(1e-6)
        known = (share > 0).to(values.dtype)
    return FeatureMap(values, known, patch)


def standardised(values: Tensor, entry: ModalitySpecification) -> Tensor:
    """Physical values (B, C, h, w) by the statistics of their bands; NaN wherever any band is missing, as such pixels do
    not count for the stems either. Heights above the sea count in units of a few metres, as only their differences
    tell anything."""
    values = values.masked_fill(~torch.isfinite(values).all(dim=1, keepdim=True), torch.nan)
    if is_relief(entry):
        return values / RELIEF[0][1]
    mean = values.new_tensor([band.mean for band in entry.bands]).view(1, -1, 1, 1)
    deviation = values.new_tensor([band.standard_deviation for band in entry.bands]).view(1, -1, 1, 1)
    return ((values - mean) / deviation).clamp(-LIMIT, LIMIT)


def target_side(entry: ModalitySpecification, patch: int) -> int:
    """Pixels along a patch of a target: a modality's own, or the mean of a few where these are too many."""
    side = pixels_along(patch, entry)
    return next(side // factor for factor in range(1, side + 1) if side % factor == 0 and side // factor <= MOST_PIXELS)


def pixel_patches(values: Tensor, entry: ModalitySpecification, patch: int, size: tuple[int, int]) -> Tensor:
    """(B, rows, columns, C, s, s) patches of (B, C, h, w); NaN where missing, and beyond the window.

    Args:
        values: of a modality on its own grid.
        entry: of the modality.
        patch: side in reference pixels.
        size: rows and columns of the lattice.
    """
    own, side = pixels_along(patch, entry), target_side(entry, patch)
    rows, columns = size
    more = (rows * own - values.shape[-2], columns * own - values.shape[-1])
    padded = functional.pad(values, (0, more[1], 0, more[0]), value=torch.nan)
    factor = own // side
    if factor > 1:
        known = torch.isfinite(padded).to(values.dtype)
        share = functional.avg_pool2d(known, factor)
        total = functional.avg_pool2d(torch.nan_to_num(padded), factor)
        padded = torch.where(share > 0, total / share.clamp_min(1e-6), torch.nan)
    split = padded.view(len(values), values.shape[1], rows, side, columns, side)
    return split.permute(0, 2, 4, 1, 3, 5)


def band_groups(entry: ModalitySpecification) -> tuple[tuple[int, ...], ...]:
    """Numbers of the bands that are normalised together, because they go together.

    That targets are normalised within groups of correlated bands follows MAESTRO, and A2-MAE in its inferred form; the
    groups are ours: by wavelength where bands have one, each band alone where they are polarisations, heights or
    indices, and all together otherwise.
    """
    if entry.kind in ("sar", "elevation", "index", "other"):
        return tuple((number,) for number in range(len(entry.bands)))
    groups: dict[int, list[int]] = {}
    for number, band in enumerate(entry.bands):
        center = band.center_nm
        place = len(GROUP_ENDS_NM) + 1 if center is None else sum(center >= end for end in GROUP_ENDS_NM)
        groups.setdefault(place, []).append(number)
    return tuple(tuple(groups[place]) for place in sorted(groups))


def normalised_patches(pixels: Tensor, groups: tuple[tuple[int, ...], ...]) -> tuple[Tensor, Tensor]:
    """Patches with zero mean and unit spread in each group of bands, and where they count.

    Args:
        pixels: (n, C, s, s) standardised, NaN = missing.
        groups: numbers of the bands that share a mean and a spread.

    Returns:
        (n, C, s, s) zero where missing; (n, C, s, s) 1 where it counts, else 0: measured pixels, of patches with enough
        of them.
    """
    counts = torch.isfinite(pixels)
    enough = counts[:, :1].sum((2, 3), keepdim=True) >= min(LEAST_PIXELS, pixels[0, 0].numel())
    counts = counts & enough
    target = torch.zeros_like(pixels)
    for group in groups:
        chosen = list(group)
        known = counts[:, chosen].to(pixels.dtype)
        values = torch.where(counts[:, chosen], pixels[:, chosen], 0.0)
        total = known.sum((1, 2, 3), keepdim=True).clamp_min(1.0)
        centred = (values - values.sum((1, 2, 3), keepdim=True) / total) * known
        variance = centred.square().sum((1, 2, 3), keepdim=True) / total
        target[:, chosen] = centred / (variance + LEAST_SPREAD**2).sqrt()
    return target, counts.to(pixels.dtype)
