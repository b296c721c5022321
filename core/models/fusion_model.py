"""The model: stems, a fusion with its encoders, a head."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.models.circumstances import CircumstancesEncoding
from core.models.dates import DatePooling, pool_dates
from core.models.decoders.build import decoder_maker
from core.models.features import FeatureMap, Features, Values, is_whole, size_of
from core.models.fusion.base import Fusion, Streams
from core.models.fusion.build import build_fusion
from core.models.geography import GeographicEncoding
from core.models.heads import DenseHead, EmbeddingHead, SceneHead, difference
from core.models.linear_models import LinearModels, LinearTally
from core.models.products import is_plain
from core.models.specification import ModalitySpecification, ModelSpecification
from core.models.stems.band_codes import BandCodes
from core.models.stems.channels import STATISTICS_RADIUS, channels_radius
from core.models.stems.stem import GeneratedStem, PerSensorStem, StatisticsStem
from core.models.subsets import input_subsets


@dataclass(frozen=True)
class _Asked:
    """What of a model is computed.

    Attributes:
        linear: what its linear models say.
        network: what its network says.
        spared: reference pixels along each edge that only stems look at.
        bands: see ``FusionModel.forward``.
    """

    linear: bool = False
    network: bool = True
    spared: int = 0
    bands: Mapping[str, Sequence[str]] | None = None


class FusionModel(nn.Module):
    """Physical values of any subset of a model's modalities to what its head says.

    What is missing has no influence: a modality that is left out, that is not present in a sample, or whose pixels are
    NaN counts as nothing, and not as zero metres or no reflectance.

    Args:
        specification: of the model.
    """

    def __init__(self, specification: ModelSpecification) -> None:
        super().__init__()
        self.specification = specification
        self.modalities = {entry.name: entry for entry in specification.modalities}
        self.fusion: Fusion = build_fusion(specification)
        geometry = self.fusion.geometry
        is_generated = specification.stem == "generated"
        self.generator = BandCodes(geometry.channels, geometry.kernel) if is_generated else None
        self.stems = nn.ModuleDict({entry.name: self.make_stem(entry) for entry in specification.modalities})
        names = list(self.modalities) if specification.has_dates else []
        self.date_poolings = nn.ModuleDict({name: DatePooling(geometry.channels) for name in names})
        self.geography = GeographicEncoding(geometry.channels) if specification.has_geography else None
        names = list(self.modalities) if specification.has_circumstances else []
        self.circumstances = nn.ModuleDict({name: CircumstancesEncoding(geometry.channels) for name in names})
        self.linear = self._make_linear() if specification.has_shortcut else None
        self.uses_shortcut = specification.has_shortcut
        """Switched off while the network learns by itself."""
        self.computing = torch.float32
        """What fusion and head compute in; see ``core.models.inference``."""
        self.head: DenseHead | SceneHead = self._make_head()
        coarser = [entry.coarser for entry in specification.modalities]
        self.step = math.lcm(*self.fusion.encoder_strides, geometry.stride, *coarser)

    @property
    def is_linear(self) -> bool:
        """Whether the fitted linear models are all that the scores come from."""
        bias = self.head.classifier.bias
        silent = not bool(self.head.classifier.weight.any()) and (bias is None or not bool(bias.any()))
        return self.linear is not None and silent

    @property
    def radius(self) -> int | None:
        """Reference pixels around a pixel beyond which nothing can change its scores, an upper bound; None where the
        whole window does."""
        if self.fusion.radius is None or self.head.radius is None or isinstance(self.head, SceneHead):
            return None
        stems = max(self._stem_radius(entry) for entry in self.specification.modalities)
        finest = self.head.stride
        return stems + self.fusion.radius + self.head.radius + (finest if finest > 1 else 0)

    def _stem_radius(self, entry: ModalitySpecification) -> int:
        stem = self.stems[entry.name]
        has_statistics = isinstance(stem, StatisticsStem | GeneratedStem) and stem.channels.statistics is not None
        kernel = self.fusion.geometry.kernel // 2
        if isinstance(stem, PerSensorStem):
            # Strided kernels of finer pixels reach into the next one; coarser pixels count as many of the map.
            kernel = kernel * entry.coarser + (entry.coarser if entry.coarser > 1 else 0) + len(stem.strides)
        return channels_radius(entry, has_statistics=has_statistics) + kernel

    def make_stem(self, modality: ModalitySpecification) -> nn.Module:
        """A stem for a modality; a generated one has no weights of its own and takes the model's."""
        geometry = self.fusion.geometry
        if self.generator is not None:
            return GeneratedStem(modality, geometry, self.generator, self.specification.resolution_m)
        if self.specification.stem == "per_sensor":
            return PerSensorStem(modality, geometry)
        return StatisticsStem(modality, geometry, self.specification.statistics_dropout)

    def _make_linear(self) -> LinearModels:
        stems = {name: stem for name, stem in self.stems.items() if isinstance(stem, StatisticsStem)}
        channels = {name: len(stem.channels.views) * stem.channels.count for name, stem in stems.items()}
        return LinearModels(channels, input_subsets(self.specification), self.specification.n_classes)

    def _make_head(self) -> DenseHead | SceneHead:
        specification, fusion = self.specification, self.fusion
        if specification.head == "scene":
            return SceneHead(fusion.channels, specification.n_classes)
        kind = EmbeddingHead if specification.head == "embedding" else DenseHead
        return kind(fusion.channels, fusion.strides, decoder_maker(specification), specification.n_classes)

    def forward(
        self,
        values: Values,
        *,
        after: Values | None = None,
        dates: Values | None = None,
        geography: Tensor | None = None,
        present: Values | None = None,
        bands: Mapping[str, Sequence[str]] | None = None,
        after_dates: Values | None = None,
        after_present: Values | None = None,
        margin: int = 0,
    ) -> Tensor:
        """Class scores, embeddings or change scores.

        Change is told from what both times show: an input that one of them lacks, wholly or at a place, would be a
        change of its own.

        Args:
            values: by modality (B, C, h, w), or (B, T, C, h, w) with dates, float32 on its own scale in physical units,
                NaN = missing. A modality may be left out.
            after: the same of the later time, for the change head.
            dates: by modality (B, T) days since the start of any year, NaN = unknown.
            geography: (B, 3) float64 latitude, longitude, resolution in metres; NaN = unknown.
            present: by modality (B,) bool, False = the sample lacks it, whatever its values are.
            bands: by modality, the names of the bands given, where these are not all in the specification's order. To
                the linear models beside a network a band that is not given adds nothing.
            after_dates, after_present: of the later time.
            margin: reference pixels along each edge that nobody asks about. The answer is that of the rest within the
                whole, and costs less than the whole.

        Returns:
            (B, n_classes, H, W) on the reference grid, less the margin, or (B, n_classes) of the scene head.

        Raises:
            ValueError: no modality, an unknown one, or shapes that do not belong together.
        """
        height, width = self.size_of(values)
        if self.specification.head == "change":
            if after is None:
                raise ValueError("a model of change needs the values of the later date")
            values, after = shown_twice(_as_present(values, present), _as_present(after, after_present))
            present = None
        asked = replace(self._asked(margin), bands=bands)
        streams, tally = self._streams(values, dates, geography, present, asked)
        edge, inside = margin - asked.spared, (height - 2 * margin, width - 2 * margin)
        linear, share = (None, None) if tally is None else tally.result()
        if linear is not None and not asked.network:
            return _within(linear, edge, inside)
        features = self._fused(streams)
        if after is not None:
            later = self.features(after, dates=after_dates, geography=geography, bands=bands)
            features = difference(features, later)
        if isinstance(self.head, SceneHead):
            scene: Tensor = self.head(features)
            return scene.float()
        # What is padded for the sake of the levels is cut off in the end; a graph is asked about sides that need none.
        is_even = torch.compiler.is_exporting() or (height % self.step == 0 and width % self.step == 0)
        answer: Tensor = self.head(features, edge if is_even else 0).float()
        answer = answer if is_even else _within(answer, edge, inside)
        if linear is not None and share is not None:
            if edge or not is_even:
                linear, share = (_within(each, edge, inside) for each in (linear, share))
            # In place where nobody asks for gradients: these are as large as what went in.
            answer = answer.mul_(share).add_(linear) if is_plain(answer) else share * answer + linear
        return answer

    def linear_scores(self, values: Values) -> Tensor:
        """What the linear models alone say; see ``forward``.

        Raises:
            TypeError: the model has none.
        """
        if self.linear is None:
            raise TypeError("the model has no linear models")
        height, width = self.size_of(values)
        _, tally = self._streams(values, None, None, None, _Asked(linear=True, network=False))
        if tally is None:
            raise TypeError("the model has no linear models")
        return _within(tally.result()[0], 0, (height, width))

    def features(
        self,
        values: Values,
        *,
        dates: Values | None = None,
        geography: Tensor | None = None,
        present: Values | None = None,
        bands: Mapping[str, Sequence[str]] | None = None,
    ) -> Features:
        """What the fusion makes of the values; see ``forward``."""
        return self._fused(self._streams(values, dates, geography, present, _Asked(bands=bands))[0])

    def _fused(self, streams: Streams) -> Features:
        """What the fusion makes of streams."""
        features: Features = self.fusion(streams)
        return features

    def spared(self, margin: int) -> int:
        """Reference pixels along each edge that are looked at by stems alone where nobody asks about a margin."""
        return self._asked(margin).spared

    def _asked(self, margin: int) -> _Asked:
        """What is computed for the scores beyond a margin."""
        linear = self.linear is not None and self.uses_shortcut
        network = not linear or self.training or torch.compiler.is_exporting() or not self.is_linear
        stems = [stem for stem in self.stems.values() if isinstance(stem, StatisticsStem)]
        is_plain_map = self.specification.head == "dense" and not self.specification.has_dates and not self.training
        if not margin or len(stems) < len(self.stems) or not is_plain_map or any(not stem.keeps_pixels for stem in stems):
            return _Asked(linear, network)
        parts = (self.fusion.radius, self.head.radius) if network else ()
        if any(part is None for part in parts):
            return _Asked(linear, network)
        # Beyond what is seen from the rest, in steps, so that pooled pixels stay the same ones.
        seen = STATISTICS_RADIUS + sum(part or 0 for part in parts)
        return _Asked(linear, network, max(0, margin - seen) // self.step * self.step)

    def dense(self, features: Features) -> FeatureMap:
        """What the decoder makes of features: a map of the finest stride.

        Raises:
            TypeError: the head has none.
        """
        if isinstance(self.head, SceneHead):
            raise TypeError("the head of scenes has no decoder")
        return self.head.dense(features)

    def _streams(
        self,
        values: Values,
        dates: Values | None,
        geography: Tensor | None,
        present: Values | None,
        asked: _Asked = _Asked(),
    ) -> tuple[Streams, LinearTally | None]:
        """What the stems make of the values, by modality, for the network; and what linear models said on the way, where any
        were asked."""
        size = self.size_of(values)
        streams: Streams = {}
        values = _as_present(values, present)
        seen = {name: None if asked.bands is None else asked.bands.get(name) for name in self._seen(values)}
        padded = {name: self._one_date(name, values[name], size) for name in seen}
        linear = self.linear if asked.linear else None
        dtype = None if self.computing == torch.float32 else self.computing
        if linear is None:
            for name, own in seen.items():
                stream = self._pooled(name, self._stem(name, padded[name], own, asked.spared), values[name], dates)
                streams[name] = stream if dtype is None else stream.to(dtype)
            tally = None
        else:
            stems = {name: stem for name, stem in self.stems.items() if isinstance(stem, StatisticsStem)}
            # Where which inputs are known says which models to ask, before the channels are made.
            begun = {name: stems[name].begin(padded[name], own).cut(asked.spared) for name, own in seen.items()}
            question = linear.question({name: each.known for name, each in begun.items()})
            tally = LinearTally(linear, question)
            for name in seen:
                stem, bases = stems[name], begun.pop(name)
                rows, is_known = stem.rows(bases.index), is_whole(bases.known)
                for numbers in linear.asked(name, question) or [[]]:
                    maps = linear.maps(name, rows, numbers)
                    if asked.network and name not in streams:
                        streams[name], answers = stem.finish(bases, maps, dtype)
                    else:
                        answers = stem.answers(bases, maps)
                    tally.add(numbers, answers, bases.known, is_known)
            if not asked.network:
                return {}, tally
        if self.geography is not None:
            some = next(iter(streams.values())).values
            unknown = torch.full((len(some), 3), torch.nan, dtype=torch.float64, device=some.device)
            code = self.geography(unknown if geography is None else geography)[:, :, None, None]
            streams = {name: stream.masked(stream.values + code) for name, stream in streams.items()}
        for name in self.circumstances:
            if name in streams:
                code = self._circumstances(name, streams[name], dates, geography)[:, :, None, None]
                streams[name] = streams[name].masked(streams[name].values + code)
        return streams, tally

    def _stem(self, name: str, values: Tensor, bands: Sequence[str] | None, spared: int) -> FeatureMap:
        """What a stem makes of a modality's values, without so many reference pixels along each edge."""
        stem = self.stems[name]
        if isinstance(stem, StatisticsStem) and spared:
            return stem.finish(stem.begin(values, bands).cut(spared))[0]
        stream: FeatureMap = stem(values, bands)
        return stream

    def _circumstances(self, name: str, stream: FeatureMap, dates: Values | None, geography: Tensor | None) -> Tensor:
        """(B, C) of a modality; of several dates the pooling knows, and here none counts."""
        entry = self.modalities[name]
        unknown = torch.full((len(stream.values),), torch.nan, dtype=torch.float64, device=stream.values.device)
        given = None if dates is None else dates.get(name)
        days = unknown if given is None or given.shape[1] != 1 else given[:, 0]
        resolution = unknown if geography is None else geography[:, 2] * entry.coarser / entry.finer
        return torch.as_tensor(self.circumstances[name](days, resolution))

    def _one_date(self, name: str, values: Tensor, size: tuple[int, int]) -> Tensor:
        """(B * T, C, h, w) of a modality, padded."""
        count = values.shape[1] if values.ndim == 5 else 0
        if count > 1 and not self.specification.has_dates:
            raise ValueError(f"'{name}' has {count} dates, and the model was made for one")
        return self._padded(values.flatten(0, 1) if count else values, self.modalities[name], size)

    def _pooled(self, name: str, stream: FeatureMap, values: Tensor, dates: Values | None) -> FeatureMap:
        """One map of the dates of a modality."""
        if not self.specification.has_dates:
            return stream
        pooling = self.date_poolings[name]
        if not isinstance(pooling, DatePooling):
            raise TypeError(f"'{name}' has no pooling of dates.")
        count = values.shape[1] if values.ndim == 5 else 1
        return pool_dates(pooling, stream, max(count, 1), None if dates is None else dates.get(name))

    def size_of(self, values: Values) -> tuple[int, int]:
        """Rows and columns of the window in reference pixels.

        Raises:
            ValueError: see ``forward``.
        """
        return size_of(values, self.modalities)

    def _seen(self, values: Values) -> list[str]:
        """The modalities of which anything is known in the batch; the first one given where nothing is at all."""

        def is_seen(name: str) -> bool:
            rows = values[name]
            # A few pixels mostly answer it, without a pass over all bands.
            return bool(torch.isfinite(rows[..., ::16, ::16]).any()) or bool(torch.isfinite(rows).any())

        given = [name for name in self.modalities if name in values]
        if torch.compiler.is_exporting():
            return given  # a graph does the same whatever the values are
        return [name for name in given if is_seen(name)] or given[:1]

    def _padded(self, values: Tensor, entry: ModalitySpecification, size: tuple[int, int]) -> Tensor:
        """Values filled up with missing ones to sides that every level divides."""
        if torch.compiler.is_exporting():
            return values  # a graph is asked about sides that are multiples of the step
        more = [-side % self.step * entry.finer // entry.coarser for side in size]
        return functional.pad(values, (0, more[1], 0, more[0]), value=torch.nan) if any(more) else values


def _within(values: Tensor, edge: int, size: tuple[int, int]) -> Tensor:
    """(B, C, *size) of a map behind so many rows and columns; as it is where it is the same everywhere."""
    if values.shape[-2:] == (1, 1) != size:
        return values
    return values[:, :, edge : edge + size[0], edge : edge + size[1]]


def _as_present(values: Values, present: Values | None) -> dict[str, Tensor]:
    """Values with NaN where a sample lacks a modality."""
    shown = dict(values)
    for name, rows in (present or {}).items():
        if name in shown:
            absent = ~rows.to(shown[name].device).view(-1, *[1] * (shown[name].ndim - 1))
            shown[name] = shown[name].masked_fill(absent, torch.nan)
    return shown


def shown_twice(before: Values, after: Values) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What two times have in common: the modalities of both, NaN where either has no value at a place.

    Args:
        before, after: by modality (B, C, h, w) or (B, T, C, h, w); the numbers of dates may differ.

    Raises:
        ValueError: they have no modality in common.
    """
    names = [name for name in before if name in after]
    if not names:
        raise ValueError(f"nothing is seen at both times: {', '.join(before)}; {', '.join(after)}")
    times: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
    for name in names:
        unknown = [_unknown(values[name]) for values in (before, after)]
        either = unknown[0] | unknown[1]
        for time, values in zip(times, (before, after), strict=True):
            given = values[name]
            time[name] = given.masked_fill(either if given.ndim == 4 else either[:, None], torch.nan)
    return times


def _unknown(values: Tensor) -> Tensor:
    """(B, 1, h, w) where no date shows all bands."""
    missing = ~torch.isfinite(values).all(dim=-3, keepdim=True)
    return missing.all(dim=1) if values.ndim == 5 else missing
