"""System 4: self-distillation of each sensor, and dense alignment between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from torch import Tensor, nn

from core.errors import UsageError
from core.models.fusion_model import FusionModel
from core.models.specification import ModelSpecification
from core.pretraining.objectives.dense_alignment import DenseAlignment, DenseAlignmentSettings
from core.pretraining.objectives.objective import Objective, Step
from core.pretraining.objectives.self_distillation import SelfDistillation, SelfDistillationSettings
from core.pretraining.recipes.recipe import Recipe
from core.pretraining.settings import PretrainingSettings


@dataclass(frozen=True)
class CrossSensorAlignmentRecipe(Recipe):
    """After Marsocci and Audebert (2025, JSTARS 18:12278; their code, read), with an alignment that has a gradient.

    Attributes:
        distillation: whether each sensor learns from its own views (DINO).
        alignment: whether the sensors are told to agree, place by place (MSAD).
        continual_from: name of the old sensor's input: what the given model says of it is kept, and the others are drawn
            to it; from scratch where it is empty.
        weight: of the alignment; 0.1 as published.
        tokens: places compared a step.
        outputs: of the distillation's head.
        local_crops: of the distillation.
        radius_m: places closer than so many metres are no negatives of each other, as neighbours that look alike; 0 = all
            are.

    Of the paper's code are left out: label smoothing, the schedule of the weight decay, the first epoch with a frozen last
    layer, and hidden layers of 2048 and 1024 in the heads. Its rate of 5e-4 is for 256 windows a step.
    """

    distillation: bool = True
    alignment: bool = True
    continual_from: str = ""
    weight: float = 0.1
    tokens: int = 64
    outputs: int = 4096
    local_crops: int = 2
    radius_m: float = 0.0

    @classmethod
    def as_published(cls) -> Self:
        return cls(outputs=65536, local_crops=8, tokens=196)

    @classmethod
    def settings(cls, setting: str) -> PretrainingSettings:
        if setting == "paper":
            return PretrainingSettings(
                epochs=400, batch_size=4, window_size=224, learning_rate=5e-4 * 4 / 256, weight_decay=0.04, gradient_limit=3.0
            )
        return PretrainingSettings(epochs=60, batch_size=16, window_size=32, learning_rate=5e-4, weight_decay=0.04)

    def check(self, specification: ModelSpecification) -> None:
        names = [entry.name for entry in specification.modalities]
        if len(names) < 2 and self.alignment:
            raise UsageError("Alignment needs two sensors, and one was given.", "Give a second one.")
        if self.continual_from and self.continual_from not in names:
            raise UsageError(
                f"continual_from: the model has no input '{self.continual_from}'.", f"Choose one of {', '.join(names)}."
            )
        if not self.distillation and not self.alignment:
            raise UsageError("Both terms of the method are switched off.", "Leave 'distillation' or 'alignment' on.")

    def objective(self, model: FusionModel) -> Objective:
        old = self.continual_from or None
        names = [name for name in model.modalities if name != old]
        parts: list[Objective] = []
        if self.distillation:
            settings = SelfDistillationSettings(out_channels=self.outputs, n_local=self.local_crops, is_apart=True)
            parts.append(SelfDistillation(model, settings, names))
        if self.alignment:
            alignment = DenseAlignmentSettings(tokens=self.tokens, weight=self.weight, radius_m=self.radius_m or None)
            parts.append(DenseAlignment(model, alignment, old))
        return _Sum(parts)


class _Sum(Objective):
    """Several objectives at once."""

    def __init__(self, parts: list[Objective]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def _each(self) -> list[Objective]:
        return [part for part in self.parts if isinstance(part, Objective)]

    def forward(self, step: Step) -> dict[str, Tensor]:
        return {name: term for part in self._each() for name, term in part(step).items()}

    def after_step(self, model: FusionModel, done: float) -> None:
        for part in self._each():
            part.after_step(model, done)

    def monitors(self) -> dict[str, float]:
        return {name: value for part in self._each() for name, value in part.monitors().items()}
