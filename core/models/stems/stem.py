"""Stems: from a modality's physical values on its own grid to features on the encoder's first grid.

Three of them, with one interface. ``statistics`` gives a network that is trained from scratch on a dozen polygons what
the best classical baseline has: the mean and spread of each pixel's neighbourhoods. ``per_sensor`` learns its own
kernels from the values alone and goes from fine pixels to coarse features by strides. ``generated`` makes its kernels
from wavelength, width and resolution of the bands, so that sensors never seen pass through the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.models.features import AffineMap, FeatureMap, coarser_known, inner_part, is_whole
from core.models.specification import ModalitySpecification
from core.models.stems.affine_maps import apply_maps
from core.models.stems.band_codes import BandCodes
from core.models.stems.channels import BandChannels, enlarged
from core.models.stems.kernels import BandKernels, StemGeometry, apply_kernel, resample_kernel

LARGEST_STRIDE = 5
"""Finer modalities are brought to the map's pixels in steps of at most this factor."""


@dataclass(frozen=True, eq=False)
class StemBases:
    """What the statistics of a modality are made of.

    Attributes:
        values: (B, C, H, W), zero where nothing is known.
        known: (B, 1, H, W) float32, 1 or 0.
        index: which of the modality's bands, or mixtures of them, these are.
    """

    values: Tensor
    known: Tensor
    index: list[int]

    def cut(self, edge: int) -> StemBases:
        """Without so many rows and columns along each edge."""
        return StemBases(inner_part(self.values, edge), inner_part(self.known, edge), self.index) if edge else self


class StatisticsStem(nn.Module):
    """Bands with the statistics of their neighbourhoods, each standardised, then one kernel for each.

    Finer modalities enter by mean and spread of the pixels below a pixel of the map, coarser ones interpolated.

    Args:
        specification: of the modality.
        geometry: that the encoder wants.
        dropout: probability that a statistic is withheld in training.
    """

    def __init__(self, specification: ModalitySpecification, geometry: StemGeometry, dropout: float = 0.0) -> None:
        super().__init__()
        self.name = specification.name
        self.geometry = geometry
        self.channels = BandChannels(specification, on_reference_grid=True, has_statistics=True, reduces_many=True)
        self.dropout = nn.Dropout2d(dropout)
        views, bands = len(self.channels.views), self.channels.count
        # Statistics differ in spread by their nature: the mean of many pixels varies less than one pixel.
        self.standardisation = KnownStandardisation(views * bands)
        self.kernels = BandKernels(geometry.channels, views, bands, geometry.kernel)

    def forward(self, values: Tensor, bands: Sequence[str] | None = None) -> FeatureMap:
        """Features of a modality; see ``BandChannels.forward`` for the arguments."""
        return self.finish(self.begin(values, bands))[0]

    @property
    def keeps_pixels(self) -> bool:
        """Whether features are those of single pixels' channels."""
        return self.geometry.kernel == 1 and self.geometry.stride == 1

    def begin(self, values: Tensor, bands: Sequence[str] | None = None) -> StemBases:
        """What the statistics are made of; see ``BandChannels.bases`` for the arguments."""
        # Mixtures of bands are all there, however few of the bands are.
        mixed = range(self.channels.count)
        index = self.channels.index(bands) if self.channels.mixtures is None else list(mixed)
        bases, known = self.channels.bases(values, bands)
        return StemBases(bases, known, index)

    def finish(
        self,
        begun: StemBases,
        maps: Sequence[AffineMap] = (),
        dtype: torch.dtype | None = None,
    ) -> tuple[FeatureMap, list[Tensor]]:
        """Features of a modality, and what affine maps make of its channels while these are at hand, (B, K, H, W) each.

        Args:
            begun: see ``begin``.
            maps: of the channels that ``rows`` names.
            dtype: of the features; by default that of the values.
        """
        bases, known, stride = begun.values, begun.known, self.geometry.stride
        rows, weight = self.rows(begun.index), self.kernels(begun.index)
        if self.training or self.geometry.kernel > 1 or stride > 1:
            channels = bases if self.channels.statistics is None else self.channels.statistics(bases, known)
            answers = apply_maps(channels, maps)
            standardised = self.dropout(self.standardisation(channels, known, rows))
            features = apply_kernel(standardised, weight, stride, self.geometry.padding_mode)
        else:
            # Channels are the largest arrays of a model: they are never all made, and it is the kernels that standardise them.
            scale, mean = self.standardisation.scale_and_mean(rows)
            kernel = weight[:, :, 0, 0] * scale
            features, *answers = self.channels.mapped(bases, known, [(kernel, -(kernel @ mean)), *maps], dtype)
        known = coarser_known(known, stride).to(features.dtype)
        return FeatureMap(features, known, stride, is_whole=is_whole(known)).masked(features), answers

    def answers(self, begun: StemBases, maps: Sequence[AffineMap]) -> list[Tensor]:
        """What affine maps alone make of the channels; see ``finish``."""
        return self.channels.mapped(begun.values, begun.known, maps, None)

    def rows(self, index: list[int]) -> list[int]:
        """The channels of some of the bands."""
        return [view * self.channels.count + band for view in range(len(self.channels.views)) for band in index]


class KnownStandardisation(nn.BatchNorm2d):
    """Channels to zero mean and unit spread by statistics of the places that are known; the others stay zero.

    Counted as zeros, a cloud over half of a scene would change how its clear pixels are scaled.

    Args:
        channels: of the maps.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=False)

    def forward(self, channels: Tensor, known: Tensor, rows: Sequence[int]) -> Tensor:  # type: ignore[override]
        """(B, C, H, W) from the same.

        Args:
            channels: zero where nothing is known.
            known: (B, 1, H, W), 1 or 0.
            rows: which of all channels these are. Some of them are scaled as they were with all of them.
        """
        if self.training and len(rows) == self.num_features:
            mean, variance = self._seen(channels, known)
            scale = (variance + self.eps).rsqrt()
        else:
            scale, mean = self.scale_and_mean(rows)
        # In place: these are the largest arrays of a model.
        scaled = (channels - mean[:, None, None]).mul_(scale[:, None, None])
        return scaled if is_whole(known) else scaled.mul_(known)

    def scale_and_mean(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """What each of some channels is multiplied with, in evaluation, after its mean is taken away."""
        if self.running_mean is None or self.running_var is None:
            raise RuntimeError("The standardisation keeps no running statistics.")
        return (self.running_var[list(rows)] + self.eps).rsqrt(), self.running_mean[list(rows)]

    @torch.no_grad()
    def _seen(self, channels: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of a batch, which go into the running ones; those where nothing is known."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            raise RuntimeError("The standardisation keeps no running statistics.")
        count = known.sum()
        if not bool(count):
            return self.running_mean, self.running_var
        mean = channels.sum((0, 2, 3)) / count
        variance = ((channels - mean[:, None, None]).square() * known).sum((0, 2, 3)) / count
        self.num_batches_tracked += 1
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * count / (count - 1).clamp_min(1.0), momentum)
        return mean, variance


class PerSensorStem(nn.Module):
    """A kernel for each band of one sensor, on the modality's own pixels.

    Finer modalities go to the map's pixels by strided convolutions, coarser ones keep their pixels as long as the
    encoder's stride allows and are interpolated as features otherwise.

    Args:
        specification: of the modality.
        geometry: that the encoder wants.
    """

    def __init__(self, specification: ModalitySpecification, geometry: StemGeometry) -> None:
        super().__init__()
        self.geometry = geometry
        self.scale = specification.scale
        self.channels = BandChannels(specification, on_reference_grid=False, has_statistics=False)
        views, bands = len(self.channels.views), len(self.channels.bands)
        strides = strides_to(self.scale.finer)
        self.reduction = nn.ModuleList()
        if strides:
            width = max(16, geometry.channels // 4)
            self.kernels = BandKernels(width, views, bands, max(3, strides[0]))
            self.reduction.extend(_Reduction(width, stride) for stride in strides[1:])
            self.norm = nn.BatchNorm2d(width)
            self.last: BandKernels | None = BandKernels(geometry.channels, 1, width, geometry.kernel)
        else:
            self.kernels = BandKernels(geometry.channels, views, bands, geometry.kernel)
            self.last = None
        self.strides = strides

    def forward(self, values: Tensor, bands: Sequence[str] | None = None) -> FeatureMap:
        """Features of a modality; see ``BandChannels.forward`` for the arguments."""
        index = self.channels.index(bands)
        channels, known = self.channels(values, bands)
        weight, geometry = self.kernels(index), self.geometry
        if self.last is not None:
            features = functional.relu(self.norm(apply_kernel(channels, weight, self.strides[0])))
            for layer in self.reduction:
                features = layer(features)
            known = coarser_known(known, self.scale.finer)
            weight = self.last(range(features.shape[1]))
            features = apply_kernel(features * known, weight, geometry.stride, geometry.padding_mode)
            known = coarser_known(known, geometry.stride)
            return FeatureMap(features * known, known, geometry.stride)
        return _on_own_pixels(channels, known, weight, geometry, self.scale.coarser)


class GeneratedStem(nn.Module):
    """Kernels made from what the bands are, for any sensor; after DOFA's weight generator (Xiong et al. 2024,
    arXiv:2403.15356), with width, resolution, polarisation and orbit beside the wavelength. The generator is ours.

    Args:
        specification: of the modality.
        geometry: that the encoder wants.
        generator: shared by all modalities of a model.
        resolution_m: pixel size of the reference grid in metres.
    """

    def __init__(
        self,
        specification: ModalitySpecification,
        geometry: StemGeometry,
        generator: BandCodes,
        resolution_m: float,
    ) -> None:
        super().__init__()
        self.geometry = geometry
        # In a tuple torch does not see it: its weights are the model's, and stand there once.
        self._generator = (generator,)
        self.channels = BandChannels(specification, on_reference_grid=True, has_statistics=geometry.kernel == 1)
        self.codes: Tensor
        codes = generator.codes(specification, self.channels.bands, self.channels.views, resolution_m)
        self.register_buffer("codes", codes, persistent=False)

    def forward(self, values: Tensor, bands: Sequence[str] | None = None) -> FeatureMap:
        """Features of a modality; see ``BandChannels.forward`` for the arguments."""
        index = self.channels.index(bands)
        channels, known = self.channels(values, bands)
        weight = self._generator[0](self.codes[:, index].flatten(0, 1))
        features = apply_kernel(channels, weight, self.geometry.stride, self.geometry.padding_mode)
        known = coarser_known(known, self.geometry.stride)
        return FeatureMap(features * known, known, self.geometry.stride)


Stem = StatisticsStem | PerSensorStem | GeneratedStem


class _Reduction(nn.Module):
    """One strided step from finer pixels towards those of the map."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.kernels = BandKernels(channels, 1, channels, max(3, stride))
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, values: Tensor) -> Tensor:
        weight = self.kernels(range(values.shape[1]))
        return functional.relu(self.norm(apply_kernel(values, weight, self.stride)))


def strides_to(factor: int) -> tuple[int, ...]:
    """Steps whose product is the factor, each of at most ``LARGEST_STRIDE`` where the factor's primes allow it."""
    steps: list[int] = []
    rest = factor
    while rest > 1:
        step = next((step for step in range(LARGEST_STRIDE, 1, -1) if rest % step == 0), rest)
        steps.append(step)
        rest //= step
    return tuple(steps)


def _on_own_pixels(channels: Tensor, known: Tensor, weight: Tensor, geometry: StemGeometry, coarser: int) -> FeatureMap:
    """Applies kernels to pixels ``coarser`` times as large as the map's, and brings the features to the stride."""
    if geometry.stride % coarser == 0:
        stride = geometry.stride // coarser
        if geometry.is_patch and coarser > 1:
            weight = resample_kernel(weight, stride)
        features = apply_kernel(channels, weight, stride, geometry.padding_mode)
        known = coarser_known(known, stride)
        return FeatureMap(features * known, known, geometry.stride)
    if geometry.is_patch:
        weight = resample_kernel(weight, 1)
    features = apply_kernel(channels, weight, 1, geometry.padding_mode)
    features, known = enlarged(features, known, coarser)
    if geometry.stride > 1:
        share = functional.avg_pool2d(known, geometry.stride)
        features = functional.avg_pool2d(features, geometry.stride) / share.clamp_min(1e-6)
        known = (share > 0).to(features.dtype)
    return FeatureMap(features * known, known, geometry.stride)
