"""What passes between stems, encoders, fusions and heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional

from core.models.products import is_plain
from core.models.specification import ModalitySpecification

Values = Mapping[str, Tensor]
"""By modality (B, C, h, w), each on its own scale."""


def size_of(values: Values, modalities: Mapping[str, ModalitySpecification]) -> tuple[int, int]:
    """Rows and columns of a window in reference pixels.

    Raises:
        ValueError: no modality, an unknown one, or shapes that do not belong together.
    """
    unknown = [name for name in values if name not in modalities]
    if unknown or not values:
        raise ValueError(f"expected some of {', '.join(modalities)}; got {', '.join(values) or 'nothing'}")
    sizes = {
        name: tuple(side * modalities[name].coarser // modalities[name].finer for side in given.shape[-2:])
        for name, given in values.items()
    }
    first = next(iter(sizes.values()))
    is_cut = any(
        side * modalities[name].coarser % modalities[name].finer for name in values for side in values[name].shape[-2:]
    )
    if is_cut or any(size != first for size in sizes.values()):
        raise ValueError(f"the modalities cover different windows, in reference pixels: {sizes}")
    return first[0], first[1]


AffineMap = tuple[Tensor, Tensor]
"""Weights (D, C) and offsets (D,)."""


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """Features on a grid, and where they rest on data.

    Attributes:
        values: (B, C, h, w) float32, exactly zero where ``known`` is.
        known: (B, 1, h, w) float32, 1 where any pixel beneath was measured, else 0.
        stride: reference pixels from one feature to the next.
        registers: (B, R, C) tokens of no place, such as a transformer's class token; None where there are none.
        is_whole: all of it is known for sure: then nothing has to be masked, which is a good part of what a map costs.
    """

    values: Tensor
    known: Tensor
    stride: int
    registers: Tensor | None = None
    is_whole: bool = False

    def to(self, dtype: torch.dtype) -> FeatureMap:
        """The same in other numbers."""
        registers = None if self.registers is None else self.registers.to(dtype)
        return replace(self, values=self.values.to(dtype), known=self.known.to(dtype), registers=registers)

    def masked(self, values: Tensor) -> FeatureMap:
        """Other values on the same grid, zero where nothing is known."""
        return replace(self, values=values if self.is_whole else zero_where_unknown(values, self.known))

    def cut(self, margin: int) -> FeatureMap:
        """Without so many reference pixels along each edge, a multiple of the stride; registers stay as they are."""
        if not margin:
            return self
        values, known = (inner_part(each, margin // self.stride) for each in (self.values, self.known))
        return replace(self, values=values, known=known)

    def coarser(self, values: Tensor) -> FeatureMap:
        """Values on the grid of twice the stride."""
        known = self.known[..., ::2, ::2] if self.is_whole else coarser_known(self.known, 2)
        return FeatureMap(values, known, 2 * self.stride, self.registers, is_whole=self.is_whole).masked(values)


@dataclass(frozen=True, eq=False)
class Features:
    """What an encoder or a fusion returns.

    Attributes:
        levels: feature maps, finest first.
        pooled: (B, C) mean over the known places of the last level.
        by_modality: the last level of each modality before they were merged; empty of an encoder, and where a fusion
            never holds them apart.
    """

    levels: tuple[FeatureMap, ...]
    pooled: Tensor
    by_modality: Mapping[str, FeatureMap] = field(default_factory=dict)

    @property
    def tokens(self) -> Tensor:
        """(B, h * w, C) the last level as a sequence, row by row."""
        return self.levels[-1].values.flatten(2).transpose(1, 2)

    def of_modality(self, name: str) -> FeatureMap:
        """The last level of one modality, or what it was merged into."""
        return self.by_modality.get(name, self.levels[-1])

    @property
    def strides(self) -> tuple[int, ...]:
        return tuple(level.stride for level in self.levels)


def zero_where_unknown(values: Tensor, known: Tensor) -> Tensor:
    """(B, C, H, W), zero where (B, 1, H, W) is."""
    if not is_plain(values) or not values.is_contiguous(memory_format=torch.channels_last) or values.shape[1] == 1:
        return values * known
    # Products with one number for all channels of a place take many times as long, in 16 bits above all.
    answer = values.clone(memory_format=torch.channels_last)
    unknown = torch.nonzero(known.flatten() == 0)[:, 0]
    answer.permute(0, 2, 3, 1).view(-1, values.shape[1]).index_fill_(0, unknown, 0.0)
    return answer


def inner_part(values: Tensor, edge: int) -> Tensor:
    """(..., H, W) without so many rows and columns along each edge."""
    return values[..., edge : values.shape[-2] - edge, edge : values.shape[-1] - edge] if edge else values


def features_of(levels: list[FeatureMap], by_modality: Mapping[str, FeatureMap] | None = None) -> Features:
    """Features with their pooled vector."""
    return Features(tuple(levels), masked_mean(levels[-1]), by_modality or {})


def masked_mean(level: FeatureMap) -> Tensor:
    """(B, C) mean over the known places; zero where there is none."""
    total = level.known.sum((2, 3)).clamp_min(1.0)
    return level.values.sum((2, 3)) / total


def coarser_known(known: Tensor, factor: int) -> Tensor:
    """Where a grid ``factor`` times as coarse has anything known beneath it."""
    return known if factor == 1 else functional.max_pool2d(known, factor, ceil_mode=True)


def is_whole(known: Tensor) -> bool:
    """Whether everything is known, where it matters to ask: a mask is then left out, and nothing changes. Where gradients or
    operations are recorded, masks stay."""
    return not torch.is_grad_enabled() and not torch.compiler.is_exporting() and bool(known.all())


def any_known(maps: list[FeatureMap]) -> Tensor:
    """(B, 1, h, w) where any of the maps rests on data."""
    return torch.stack([each.known for each in maps]).amax(dim=0)
