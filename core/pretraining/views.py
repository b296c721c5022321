"""Views of a window: one geometric transform for all modalities, and its map, by which features are brought together.

A transform is an affine map from the view to the window it was cut from, both in coordinates of -1 to 1 from edge to
edge (x to the east, y to the south). All modalities of a window cover the same ground, so that one map serves them all
at whatever resolution, and features at whatever stride.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from core.models.features import FeatureMap
from core.pretraining.objectives.objective import Windows


@dataclass(frozen=True)
class ViewSettings:
    """What a view may be.

    Attributes:
        least_side, most_side: of the crop as a part of the window's side; 1 and 1 = no crop.
        turns: whether views are turned by quarters and flipped.
        shift: largest shift as a part of the window's side, to each side; what comes in from outside is missing.
        gain, offset: largest factor above and below 1, and largest addition in standard deviations, of each band of an
            optical modality.
        noise: in standard deviations, of every pixel of what is not optical.
    """

    least_side: float = 1.0
    most_side: float = 1.0
    turns: bool = True
    shift: float = 0.0
    gain: float = 0.0
    offset: float = 0.0
    noise: float = 0.0


def draw_maps(count: int, settings: ViewSettings, generator: torch.Generator) -> Tensor:
    """(B, 2, 3) float64 maps from views to their windows.

    Shifts are whole sixteenths of the window's side, so that features of such windows are shifted by whole places.
    """
    side = torch.empty(count, dtype=torch.float64).uniform_(settings.least_side, settings.most_side, generator=generator)
    free = 1 - side
    centre = torch.empty(count, 2, dtype=torch.float64).uniform_(-1, 1, generator=generator) * free[:, None]
    if settings.shift:
        steps = math.floor(settings.shift * 16)
        drawn = torch.randint(-steps, steps + 1, (count, 2), generator=generator)
        centre = centre + drawn.double() / 8
    turn = torch.eye(2, dtype=torch.float64).repeat(count, 1, 1)
    if settings.turns:
        quarter = torch.randint(4, (count,), generator=generator)
        flip = torch.randint(2, (count,), generator=generator).double() * 2 - 1
        cosine, sine = _COSINES[quarter], _COSINES[(quarter + 3) % 4]
        turn = torch.stack([torch.stack([cosine * flip, -sine], 1), torch.stack([sine * flip, cosine], 1)], 1)
    return torch.cat([turn * side[:, None, None], centre[:, :, None]], dim=2)


_COSINES = torch.tensor([1.0, 0.0, -1.0, 0.0], dtype=torch.float64)
"""Of the quarters of a turn, exactly."""


def view_of(windows: Windows, maps: Tensor, shrink: int = 1) -> Windows:
    """The windows seen through maps; nearest pixels where nothing is resized, so that values stay what was measured.

    Args:
        windows: to look at.
        maps: (B, 2, 3).
        shrink: by which the sides of the views are divided; every modality's are multiples of it.
    """
    scales = maps[:, :, :2].abs().sum(dim=2)
    is_resized = shrink > 1 or bool(((scales - 1).abs() > 1e-9).any())
    seen = {
        name: warp(values, maps, is_smooth=is_resized, size=(values.shape[-2] // shrink, values.shape[-1] // shrink))
        for name, values in windows.values.items()
    }
    return Windows(seen, windows.geography)


def vary(values: Tensor, kind: str, deviation: Tensor, settings: ViewSettings, generator: torch.Generator) -> Tensor:
    """Radiometry of one modality varied, missing pixels as before.

    Args:
        values: (B, C, h, w) physical.
        kind: of the sensor.
        deviation: (C,) standard deviation of each band.
        settings: of the views.
        generator: on the CPU.
    """
    spread = deviation.view(1, -1, 1, 1)
    if kind == "optical":
        shape = (len(values), values.shape[1], 1, 1)
        gain = torch.empty(shape).uniform_(-settings.gain, settings.gain, generator=generator).to(values.device)
        offset = torch.empty(shape).uniform_(-settings.offset, settings.offset, generator=generator).to(values.device)
        return values * (1 + gain) + offset * spread
    if not settings.noise:
        return values
    drawn = torch.randn(values.shape, generator=generator).to(values.device)
    return values + settings.noise * spread * drawn


def warp(values: Tensor, maps: Tensor, *, is_smooth: bool = True, size: tuple[int, int] | None = None) -> Tensor:
    """(B, C, h, w) seen through maps on a grid of the same size or another; NaN outside, and where NaN weighs half or
    more."""
    shape = [*values.shape[:2], *(size or values.shape[-2:])]
    grid = functional.affine_grid(maps, shape, align_corners=False).to(values)
    mode = "bilinear" if is_smooth else "nearest"
    known = torch.isfinite(values)
    # An infinite value would outweigh everything beside it.
    filled = torch.where(known, values, 0.0)
    share = functional.grid_sample(known.to(values.dtype), grid, mode=mode, padding_mode="zeros", align_corners=False)
    total = functional.grid_sample(filled, grid, mode=mode, padding_mode="zeros", align_corners=False)
    return torch.where(share >= 0.5, total / share.clamp_min(1e-6), torch.nan)


def aligned_features(features: FeatureMap, own: Tensor, wanted: Tensor, *, is_smooth: bool = True) -> FeatureMap:
    """Features of one view brought onto the grid of another view of the same windows.

    Args:
        features: of the first view.
        own: (B, 2, 3) map of the first view.
        wanted: (B, 2, 3) map of the other view.
        is_smooth: interpolates; else the nearest feature is taken.

    Returns:
        Unknown where the other view shows what the first does not.
    """
    maps = composed(inverse(own), wanted)
    missing = torch.where(features.known > 0, features.values, torch.nan)
    warped = warp(missing, maps, is_smooth=is_smooth)
    known = torch.isfinite(warped[:, :1]).to(features.values.dtype)
    return FeatureMap(torch.nan_to_num(warped), known, features.stride)


def composed(outer: Tensor, inner: Tensor) -> Tensor:
    """(B, 2, 3): first ``inner``, then ``outer``."""
    linear = outer[:, :, :2] @ inner[:, :, :2]
    moved = (outer[:, :, :2] @ inner[:, :, 2:]) + outer[:, :, 2:]
    return torch.cat([linear, moved], dim=2)


def inverse(maps: Tensor) -> Tensor:
    """(B, 2, 3) maps the other way."""
    linear = torch.linalg.inv(maps[:, :, :2])
    return torch.cat([linear, -(linear @ maps[:, :, 2:])], dim=2)
