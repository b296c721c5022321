"""System 5: a masked autoencoder over sets of images of one place, whose masks follow an anchor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from core.models.fusion_model import FusionModel
from core.models.specification import ModelSpecification
from core.pretraining.masking import AnchorChoice, MaskSettings
from core.pretraining.objectives.masked_reconstruction import MaskedReconstruction
from core.pretraining.objectives.objective import Objective
from core.pretraining.recipes.recipe import Recipe
from core.pretraining.settings import PretrainingSettings


@dataclass(frozen=True)
class AnchorAwareMaeRecipe(Recipe):
    """After Zhang et al. (2024, arXiv:2406.08079): anchor-aware masks and the geographic encoding are theirs; their
    mathematics, the ratio and the recipe are inferred.

    Attributes:
        anchor: whether masks follow an anchor; otherwise they are drawn for each modality alone.
        anchor_choice: ``random`` among the modalities with data, or the ``finest``.
        geography: whether latitude, longitude and resolution are inputs of the pre-training. Fine-tuning and maps withhold
            them: on one scene coordinates become a way to learn labels by heart.
        mask_ratio: part of the patches that is hidden.
        decoder_width, decoder_depth: channels and blocks of each modality's decoder.
    """

    anchor: bool = True
    anchor_choice: AnchorChoice = "random"
    geography: bool = True
    mask_ratio: float = 0.75
    decoder_width: int = 128
    decoder_depth: int = 2

    @classmethod
    def as_published(cls) -> Self:
        return cls(decoder_width=512, decoder_depth=8)

    @classmethod
    def settings(cls, setting: str) -> PretrainingSettings:
        if setting == "paper":
            return PretrainingSettings(epochs=400, batch_size=256, window_size=224, learning_rate=1.5e-4, second_moment=0.95)
        return PretrainingSettings(epochs=60, batch_size=16, window_size=32, learning_rate=5e-4)

    def specification(self, specification: ModelSpecification) -> ModelSpecification:
        return specification.model_copy(update={"has_geography": self.geography})

    def objective(self, model: FusionModel) -> Objective:
        masks = MaskSettings("anchor" if self.anchor else "independent", self.mask_ratio, anchor=self.anchor_choice)
        return MaskedReconstruction(model, masks, width=self.decoder_width, depth=self.decoder_depth)
