"""Two views of the same windows, and their features: what the contrastive objectives start from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from core.models.encoders.encoder import Encoder
from core.models.features import FeatureMap, Features, features_of
from core.models.fusion_model import FusionModel
from core.models.heads import SceneHead
from core.models.stems.channels import RELIEF, is_relief
from core.pretraining.objectives.objective import Step, Windows
from core.pretraining.views import ViewSettings, draw_maps, vary, view_of


@dataclass(frozen=True)
class PairSettings:
    """How the two views come about.

    Attributes:
        views: geometry and radiometry of each. By default flips, turns and shifts of up to a fifth of the side, as Chen
            and Bruzzone (2022, TGRS 60:5406011) have them in their code; theirs are flips alone.
        between_modalities: the first view is a view of the first modality, the second the others as they were measured:
            the late form of Chen and Bruzzone. Windows of one modality get two views of it.
    """

    views: ViewSettings = field(default_factory=lambda: ViewSettings(shift=0.2))
    between_modalities: bool = False


@dataclass(frozen=True, eq=False)
class ViewPair:
    """Two views of a batch of windows, and their maps to the windows.

    Attributes:
        first, second: the views.
        first_maps, second_maps: (B, 2, 3); see ``core.pretraining.views``.
    """

    first: Windows
    second: Windows
    first_maps: Tensor
    second_maps: Tensor


@dataclass(frozen=True, eq=False)
class FeaturePair:
    """A pair of views with the features of each."""

    views: ViewPair
    first: Features
    second: Features


def draw_pair(step: Step, settings: PairSettings) -> ViewPair:
    """Two views of the windows of a step."""
    windows, count = step.windows, len(step.windows)
    if settings.between_modalities and len(windows.names) > 1:
        main = next(name for name in step.model.modalities if name in windows.values)
        first = Windows({main: windows.values[main]}, windows.geography)
        others = {name: values for name, values in windows.values.items() if name != main}
        maps = draw_maps(count, settings.views, step.generator)
        unmoved = torch.eye(2, 3, dtype=torch.float64).repeat(count, 1, 1)
        return ViewPair(seen(step, first, maps, settings.views), Windows(others, windows.geography), maps, unmoved)
    both = [draw_maps(count, settings.views, step.generator) for _ in range(2)]
    views = [seen(step, windows, maps, settings.views) for maps in both]
    return ViewPair(views[0], views[1], both[0], both[1])


def seen(step: Step, windows: Windows, maps: Tensor, settings: ViewSettings, shrink: int = 1) -> Windows:
    """Windows through maps, their radiometry varied."""
    view = view_of(windows, maps, shrink)
    if not (settings.gain or settings.offset or settings.noise):
        return view
    varied = {}
    for name, values in view.values.items():
        entry = step.model.modalities[name]
        # Heights above the sea enter against their surroundings: the scene's own spread would drown these.
        spreads = [RELIEF[0][1] if is_relief(entry) else band.standard_deviation for band in entry.bands]
        deviation = torch.tensor(spreads, device=values.device)
        varied[name] = vary(values, entry.kind, deviation, settings, step.generator)
    return Windows(varied, view.geography)


def encode_pair(model: FusionModel, pair: ViewPair) -> FeaturePair:
    """The features of both views. Views of the same modalities go through the model in one batch."""
    first, second = pair.first, pair.second
    if first.names != second.names:
        one = model.features(first.values, geography=first.geography)
        return FeaturePair(pair, one, model.features(second.values, geography=second.geography))
    parts = parted(encode_all(model, [first, second]), 2)
    return FeaturePair(pair, parts[0], parts[1])


def encode_all(model: FusionModel, views: list[Windows]) -> Features:
    """Views of the same modalities and size as one batch, the first view's windows first."""
    values = {name: torch.cat([view.values[name] for view in views]) for name in views[0].names}
    return model.features(values, geography=torch.cat([view.geography for view in views]))


def parted(features: Features, count: int) -> list[Features]:
    """Features of a batch of views as features of each."""
    levels = [_chunks(level, count) for level in features.levels]
    own = {name: _chunks(level, count) for name, level in features.by_modality.items()}
    return [
        features_of([level[number] for level in levels], {name: parts[number] for name, parts in own.items()})
        for number in range(count)
    ]


def _chunks(level: FeatureMap, count: int) -> list[FeatureMap]:
    registers = [None] * count if level.registers is None else list(level.registers.chunk(count))
    parts = zip(level.values.chunk(count), level.known.chunk(count), registers, strict=True)
    whole = replace(level, is_whole=False)
    return [replace(whole, values=values, known=known, registers=own) for values, known, own in parts]


def is_anything_known(level: FeatureMap) -> Tensor:
    """(B,) bool: whether any place of a window rests on data."""
    return level.known.flatten(1).amax(dim=1) > 0


def within(step: Step, level: FeatureMap) -> FeatureMap:
    """Features of the windows without what the model filled them up with: maps are of the windows alone.

    Exact where a window's sides are multiples of the stride.
    """
    name, values = next(iter(step.windows.values.items()))
    entry = step.model.modalities[name]
    sides = [side * entry.coarser // entry.finer for side in values.shape[-2:]]
    rows, columns = (-(-side // level.stride) for side in sides)
    return replace(level, values=level.values[:, :, :rows, :columns], known=level.known[:, :, :rows, :columns], is_whole=False)


def pooled_channels(model: FusionModel) -> int:
    """Of ``Features.pooled``."""
    return model.fusion.channels[-1]


def own_channels(model: FusionModel) -> int:
    """Of what the fusion holds of each modality."""
    encoder = next(module for module in model.fusion.modules() if isinstance(module, Encoder))
    return encoder.channels[-1]


def dense_channels(model: FusionModel) -> int:
    """Of ``FusionModel.dense``.

    Raises:
        ValueError: the head is of scenes.
    """
    if isinstance(model.head, SceneHead):
        raise ValueError("the head of scenes has no decoder, and contrast of places needs one")
    return model.head.classifier.in_channels
