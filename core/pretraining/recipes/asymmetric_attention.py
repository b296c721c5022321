"""System 1: contrast of windows, through asymmetric attention and transfer gates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from core.errors import UsageError
from core.models.fusion_model import FusionModel
from core.models.specification import ModelSpecification
from core.pretraining.info_nce import ContrastSettings
from core.pretraining.objectives.image_contrast import ImageContrast, ImageContrastSettings
from core.pretraining.objectives.objective import Objective
from core.pretraining.recipes.recipe import Recipe
from core.pretraining.settings import PretrainingSettings
from core.pretraining.view_pairs import PairSettings
from core.pretraining.views import ViewSettings

VIEWS = ViewSettings(least_side=0.45, most_side=1.0, gain=0.2, offset=0.2, noise=0.05)
"""The published area of a crop is not known; MoCo-v2's is 0.2 to 1 of the image, which is this side (inferred)."""


@dataclass(frozen=True)
class AsymmetricAttentionRecipe(Recipe):
    """After Xu et al. (2023, Remote Sensing 15:5682): the streams, the attention and the gate are theirs; the loss is
    inferred from the first self-supervised method that the paper names, MoCo-v2 (arXiv:2003.04297).

    Attributes:
        asymmetry: whether the optical stream alone receives; otherwise both do.
        transfer_gate: whether gates choose what is handed on.
        kind: ``moco``, ``simsiam`` or ``nt_xent``.
        queue: length, of ``moco``.
        momentum: of the teacher of ``moco``.
    """

    asymmetry: bool = True
    transfer_gate: bool = True
    kind: Literal["moco", "simsiam", "nt_xent"] = "moco"
    queue: int = 1024
    momentum: float = 0.99

    def check_switches(self) -> None:
        if self.kind == "moco" and not self.queue:
            raise UsageError(
                "With 'moco' the negatives come from the queue, which has no place.", "Set queue to 1 or more, or another kind."
            )

    @classmethod
    def as_published(cls) -> Self:
        return cls(queue=65536, momentum=0.999)

    @classmethod
    def settings(cls, setting: str) -> PretrainingSettings:
        if setting == "paper":
            # Of MoCo-v2: SGD's rate does not carry over to AdamW.
            return PretrainingSettings(epochs=200, batch_size=256, window_size=224, learning_rate=1e-3, weight_decay=1e-4)
        # At 1e-3 one of three draws lost all but one direction of its features on ``s1s2_scenes/282D``; at this rate none of
        # four did, told without a label.
        return PretrainingSettings(epochs=60, batch_size=32, window_size=32, learning_rate=3e-4)

    def specification(self, specification: ModelSpecification) -> ModelSpecification:
        direction = "auxiliary_to_main" if self.asymmetry else "both"
        return specification.model_copy(update={"attention_direction": direction, "has_transfer_gate": self.transfer_gate})

    def check(self, specification: ModelSpecification) -> None:
        if specification.fusion != "asymmetric_attention" and not (self.asymmetry and self.transfer_gate):
            raise UsageError(
                f"The model's fusion is '{specification.fusion}', which has no asymmetric attention to switch off.",
                "Leave out 'asymmetry' and 'transfer_gate', or the architecture.",
            )

    def objective(self, model: FusionModel) -> Objective:
        contrast = ImageContrastSettings(
            kind=self.kind, contrast=ContrastSettings(0.2), queue=self.queue, momentum=self.momentum
        )
        return ImageContrast(model, contrast, PairSettings(VIEWS))
