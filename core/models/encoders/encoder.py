"""What every encoder is to the fusions around it."""

from __future__ import annotations

from abc import abstractmethod

from torch import nn

from core.models.features import FeatureMap, Features, features_of
from core.models.stems.kernels import StemGeometry


class Encoder(nn.Module):
    """Stages from a stem's output to levels, so that a fusion can step between any two of them.

    Attributes:
        geometry: of the stems before it.
        channels, strides: of each level.
        stages: a module a level, each from the last state to the next.
        radius: reference pixels around a pixel of any level that it depends on; None where that is the whole window.
    """

    geometry: StemGeometry
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    radius: int | None

    @abstractmethod
    def enter(self, embedded: FeatureMap) -> FeatureMap:
        """The state before the first stage, from a stem's output."""

    @abstractmethod
    def step(self, number: int, state: FeatureMap) -> FeatureMap:
        """The state after stage ``number``."""

    def export(self, number: int, state: FeatureMap) -> FeatureMap:
        """The level that a state stands for; states are exported as they are by default."""
        return state.masked(state.values)

    def early_parts(self) -> list[nn.Module]:
        """What comes before the last stage: what a fine-tuning of the last stage alone leaves as it is."""
        children = dict(self.named_children())
        stages = children.pop("stages")
        return [*children.values(), *list(stages.children())[:-1]]

    def blocks_in_order(self) -> list[list[nn.Module]]:
        """What follows the entrance, from the first layers to the last, in blocks that are trained at one rate."""
        return [[stage] for stage in self.get_submodule("stages").children() if any(True for _ in stage.parameters())]

    def forward(self, embedded: FeatureMap) -> Features:
        """Features of a stem's output."""
        state, levels = self.enter(embedded), []
        for number in range(len(self.strides)):
            state = self.step(number, state)
            levels.append(self.export(number, state))
        return features_of(levels)
