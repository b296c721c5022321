"""From a modality's physical values to the channels that kernels are applied to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from core.models.blocks import NORMALISED_LIMIT, box_sums
from core.models.features import AffineMap
from core.models.products import convolve
from core.models.specification import ModalitySpecification
from core.models.stems.affine_maps import apply_maps
from core.models.stems.neighbourhoods import STATISTICS_WINDOWS, NeighbourhoodStatistics, is_swift

MANY_BANDS = 32
"""With more bands than this, the statistics of each would cost more than the network, and say the same over and over."""

COMPONENTS = 24

RELIEF = ((9, 5.0), (33, 20.0))
"""Neighbourhoods, in pixels of the map or of the modality if that is coarser, and the height in metres that counts as
one in each: trees and houses, then slopes and valleys."""


STATISTICS_RADIUS = max(STATISTICS_WINDOWS) // 2
"""Pixels that the statistics of neighbourhoods look far."""


class BandChannels(nn.Module):
    """Normalised bands, each seen in several views: its value, its spread below a pixel, its neighbourhoods' statistics.

    Elevation above the sea enters as relief, its difference from the neighbourhood's mean, so that a model cannot
    learn the height of one valley floor by heart; height above ground is a property of the thing itself and enters as
    it is.

    Bands are kept in alphabetical order whatever the order of the specification, so that weights belong to bands and
    not to positions.

    Args:
        specification: of the modality.
        on_reference_grid: bring finer modalities to the reference grid by mean and spread, coarser ones by
            interpolation; otherwise values stay on their own grid.
        has_statistics: add mean and standard deviation of neighbourhoods.
        reduces_many: bring more than ``MANY_BANDS`` bands down to ``COMPONENTS`` mixtures of them first.
    """

    mean: Tensor
    inverse_deviation: Tensor

    def __init__(
        self,
        specification: ModalitySpecification,
        *,
        on_reference_grid: bool,
        has_statistics: bool,
        reduces_many: bool = False,
    ) -> None:
        super().__init__()
        self.bands = tuple(sorted(specification.band_names))
        self.given = specification.band_names
        self.scale = specification.scale
        self.is_relief = is_relief(specification)
        self.on_reference_grid = on_reference_grid
        self.statistics = NeighbourhoodStatistics() if has_statistics else None
        ordered = sorted(specification.bands, key=lambda band: band.name)
        mean = torch.tensor([band.mean for band in ordered], dtype=torch.float32)
        # Divided by NumPy: on the meta device a division of tensors makes torch load its compiler, a second and 70 MiB.
        inverse = 1 / np.array([band.standard_deviation for band in ordered], np.float32)
        self.register_buffer("mean", mean.view(1, -1, 1, 1), persistent=False)
        self.register_buffer("inverse_deviation", torch.tensor(inverse.tolist()).view(1, -1, 1, 1), persistent=False)
        many = reduces_many and len(self.bands) > MANY_BANDS and not self.is_relief
        self.mixtures: Tensor | None
        self.register_buffer("mixtures", _cosines(specification) if many else None, persistent=False)
        self.count = COMPONENTS if many else len(self.bands)
        self.views = view_names(self.is_relief, on_reference_grid and self.scale.finer > 1, has_statistics)

    def index(self, bands: Sequence[str] | None) -> list[int]:
        """Which of ``self.bands`` a tensor with these bands holds, in the order of ``self.bands``.

        Raises:
            ValueError: a band that the modality does not have, or one twice.
        """
        names = self.given if bands is None else tuple(bands)
        unknown = [name for name in names if name not in self.bands]
        if unknown or len(set(names)) != len(names) or not names:
            raise ValueError(f"expected some of the bands {', '.join(self.bands)}, each once; got {', '.join(names)}")
        return [self.bands.index(name) for name in sorted(names)]

    def forward(self, values: Tensor, bands: Sequence[str] | None = None) -> tuple[Tensor, Tensor]:
        """Channels and where they are known; see ``bases``.

        Returns:
            (B, views * C, h, w), the bands of the first view first and zero where nothing is known; (B, 1, h, w). Where
            bands are mixed, C is the number of mixtures.
        """
        bases, known = self.bases(values, bands)
        return (bases if self.statistics is None else self.statistics(bases, known)), known

    def mapped(self, bases: Tensor, known: Tensor, maps: Sequence[AffineMap], dtype: torch.dtype | None) -> list[Tensor]:
        """What affine maps make of the channels of these bases, (B, D, h, w) of each, the first in numbers of that kind where
        one is given."""
        if self.statistics is None:
            return apply_maps(bases, maps, dtype)
        if is_swift(bases):
            return self.statistics.mapped(bases, known, maps, dtype)
        return apply_maps(self.statistics(bases, known), maps, dtype)

    def bases(self, values: Tensor, bands: Sequence[str] | None = None) -> tuple[Tensor, Tensor]:
        """What statistics are made of, and where it is known.

        Args:
            values: (B, C, H * finer / coarser, W * finer / coarser) physical, NaN = missing.
            bands: names of the C bands given; those of the specification by default.

        Returns:
            (B, C, h, w) or, with the spread of finer pixels, (B, 2 * C, h, w), zero where nothing is known; (B, 1, h, w).
        """
        names = self.given if bands is None else tuple(bands)
        index = self.index(names)
        order = sorted(range(len(names)), key=lambda number: names[number])
        if order != list(range(len(names))):
            values = values[:, order]
        # A sum is finite where all of them are, and needs no copy of hundreds of bands.
        known = torch.isfinite(values.sum(dim=1, keepdim=True)).to(values.dtype)
        finer, coarser = self.scale.finer, self.scale.coarser
        # Nor may a pixel that lacks one height count with its others in the surroundings.
        values = relief(values.masked_fill(known == 0, torch.nan), finer) if self.is_relief else self._normalised(values, index)
        values = values * known
        if self.mixtures is not None:
            values = convolve(values, self.mixtures[:, index, None, None])
        if self.on_reference_grid and coarser > 1:
            values, known = enlarged(values, known, coarser)
        if self.on_reference_grid and finer > 1:
            values, known = _mean_and_spread(values, known, finer)
        return values, known

    def _normalised(self, values: Tensor, index: list[int]) -> Tensor:
        # In place: the hundreds of bands of a spectrometer cost more than the network otherwise.
        normalised = (values - self.mean[:, index]).mul_(self.inverse_deviation[:, index])
        return normalised.clamp_(-NORMALISED_LIMIT, NORMALISED_LIMIT).nan_to_num_(nan=0.0)


def _cosines(specification: ModalitySpecification) -> Tensor:
    """(COMPONENTS, C) smooth waves over the bands in the order of their wavelengths, for bands in alphabetical order.

    Spectra are smooth, so that their first cosines hold most of what the principal components would.
    """
    names = [band.name for band in specification.bands]
    places = {name: number for number, name in enumerate(names)}
    if all(band.center_nm is not None for band in specification.bands):
        ordered = sorted(specification.bands, key=lambda band: (band.center_nm or 0.0, band.name))
        places = {band.name: number for number, band in enumerate(ordered)}
    phase = torch.tensor([(places[name] + 0.5) / len(names) for name in sorted(names)])
    waves = torch.cos(torch.pi * torch.arange(COMPONENTS)[:, None] * phase[None])
    return waves / waves.square().sum(dim=1, keepdim=True).sqrt()


def view_names(has_relief: bool, has_spread: bool, has_statistics: bool) -> tuple[str, ...]:
    """The names of the views of a band, in the order of ``BandChannels``."""
    names = [f"relief{window}" for window, _ in RELIEF] if has_relief else ["value"]
    if has_spread:
        names = [f"{name}{suffix}" for suffix in ("", "/spread") for name in names]
    if has_statistics:
        parts = ["", *(f"/{statistic}{window}" for window in STATISTICS_WINDOWS for statistic in ("mean", "deviation"))]
        names = [f"{name}{part}" for part in parts for name in names]
    return tuple(names)


def enlarged(values: Tensor, known: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Values on a finer grid, interpolated between what is known."""
    share = functional.interpolate(known, scale_factor=float(factor), mode="bilinear", align_corners=False)
    values = functional.interpolate(values * known, scale_factor=float(factor), mode="bilinear", align_corners=False)
    known = (share > 0).to(values.dtype)
    return values / share.clamp_min(1e-6) * known, known


def _mean_and_spread(values: Tensor, known: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Mean and spread of the pixels that make one of the map, so that texture below a pixel survives."""
    share = functional.avg_pool2d(known, factor)
    known = (share > 0).to(values.dtype)
    mean = functional.avg_pool2d(values, factor) / share.clamp_min(1e-6)
    variance = functional.avg_pool2d(values.square(), factor) / share.clamp_min(1e-6) - mean.square()
    return torch.cat([mean, (variance.clamp_min(0.0) + 1e-6).sqrt() * known], dim=1), known


def channels_radius(specification: ModalitySpecification, *, has_statistics: bool) -> int:
    """Reference pixels around a pixel that its channels look at; an upper bound."""
    own = max(window for window, _ in RELIEF) // 2 if is_relief(specification) else 0
    scale = specification.scale
    # Interpolation reaches to the next coarse pixel.
    radius = (own + (scale.coarser > 1)) * scale.coarser
    return radius + (STATISTICS_RADIUS if has_statistics else 0)


def is_relief(specification: ModalitySpecification) -> bool:
    """Whether heights above the sea enter, which only count against their surroundings."""
    return specification.kind == "elevation" and specification.sensor != "height_above_ground"


def relief(heights: Tensor, finer: int) -> Tensor:
    """Heights above the mean of the surroundings, one channel for each neighbourhood of ``RELIEF``.

    Args:
        heights: (B, C, H, W) metres, NaN = missing.
        finer: pixels of ``heights`` along one of those that neighbourhoods are counted in.

    Returns:
        (B, C * 2, H, W); zero where the height is missing.
    """
    present = torch.isfinite(heights)
    known = present.to(heights.dtype)
    # A float32 holds a height of 8000 m to half a millimetre, but sums of many no longer: centre them first. The lowest and
    # the highest are the same in any order, while a mean's last bits depend on how many threads share its sum.
    lowest = heights.masked_fill(~present, torch.inf).amin((2, 3), keepdim=True)
    highest = heights.masked_fill(~present, -torch.inf).amax((2, 3), keepdim=True)
    centre = torch.where(lowest <= highest, lowest + (highest - lowest) / 2, torch.zeros_like(lowest))
    centred = torch.where(present, heights - centre, torch.zeros_like(heights))
    coarse, share = (centred, known) if finer == 1 else (functional.avg_pool2d(each, finer) for each in (centred, known))
    windows = [window for window, _ in RELIEF]
    parts = []
    for total, count, (_, metres) in zip(box_sums(coarse, windows), box_sums(share, windows), RELIEF, strict=True):
        mean = total / count.clamp_min(1e-6)
        if finer > 1:
            mean = mean.repeat_interleave(finer, dim=2).repeat_interleave(finer, dim=3)
        difference = (centred - mean) / metres
        # The logarithm keeps a cliff from drowning a hedge.
        parts.append(torch.where(present, difference.sign() * difference.abs().log1p(), torch.zeros_like(difference)))
    return torch.cat(parts, dim=1)
