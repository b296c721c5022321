"""System 2: a masked autoencoder with cross-attention and cross-modality, and contrast between two scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from core.errors import UsageError
from core.models.fusion_model import FusionModel
from core.models.specification import FusionName, ModelSpecification
from core.pretraining.masking import MaskSettings
from core.pretraining.objectives.cross_scale_contrast import CrossScaleContrast, CrossScaleMae, CrossScaleSettings
from core.pretraining.objectives.masked_reconstruction import MaskedReconstruction
from core.pretraining.objectives.objective import Objective
from core.pretraining.recipes.recipe import Recipe
from core.pretraining.settings import PretrainingSettings

_FUSIONS: dict[tuple[bool, bool], FusionName] = {
    (True, True): "cross_attention_and_modality",
    (True, False): "cross_attention",
    (False, True): "cross_modality",
    (False, False): "joint_tokens",
}


@dataclass(frozen=True)
class CrossScaleMaeRecipe(Recipe):
    """After "Multimodal RSI fusion based on self-supervised pre-training and cross-scale contrastive learning" (Fudan
    University, Journal of Infrared and Millimeter Waves, 2024221): the modules' roles, the weight of the contrast and
    the ratio of the crop are theirs; the ratio of the mask, and that it is the same for all modalities, are inferred.

    Attributes:
        cross_attention: whether modalities ask each other before the encoder (CAF).
        cross_modality: whether they do behind it (CMF).
        contrast: whether two scales are told to agree.
        weight: of the contrast.
        least_ratio, most_ratio: of the crop.
        crop_ratio_of: ``side`` or ``area``.
        pools_inside_crop: whether the whole window is pooled over the crop's ground alone, so that the same ground is
            compared (ours).
        mask_ratio: part of the patches that is hidden.
        queue: earlier vectors as negatives; for small batches.
        decoder_width, decoder_depth: channels and blocks of each modality's decoder.
    """

    cross_attention: bool = True
    cross_modality: bool = True
    contrast: bool = True
    weight: float = 0.5
    least_ratio: float = 0.4
    most_ratio: float = 0.6
    crop_ratio_of: Literal["side", "area"] = "side"
    pools_inside_crop: bool = False
    mask_ratio: float = 0.75
    queue: int = 1024
    decoder_width: int = 128
    decoder_depth: int = 2

    def check_switches(self) -> None:
        if self.least_ratio > self.most_ratio:
            raise UsageError(
                f"The smallest crop ({self.least_ratio:g}) is larger than the largest ({self.most_ratio:g}).",
                "Set least_ratio to no more than most_ratio.",
            )

    @classmethod
    def as_published(cls) -> Self:
        return cls(queue=0, decoder_width=192, decoder_depth=4)

    @classmethod
    def settings(cls, setting: str) -> PretrainingSettings:
        if setting == "paper":
            return PretrainingSettings(epochs=100, batch_size=256, window_size=128, learning_rate=1.5e-4, second_moment=0.95)
        return PretrainingSettings(epochs=60, batch_size=16, window_size=32, learning_rate=5e-4)

    def specification(self, specification: ModelSpecification) -> ModelSpecification:
        # With another encoder's own fusion asked for, the switches of this method have nothing to switch.
        if specification.fusion not in _FUSIONS.values():
            return specification
        return specification.model_copy(update={"fusion": _FUSIONS[self.cross_attention, self.cross_modality]})

    def check(self, specification: ModelSpecification) -> None:
        if specification.fusion not in _FUSIONS.values() and not (self.cross_attention and self.cross_modality):
            raise UsageError(
                f"The model's fusion is '{specification.fusion}', which has neither of the modules that are switched off.",
                "Leave out 'cross_attention' and 'cross_modality', or the architecture.",
            )

    def objective(self, model: FusionModel) -> Objective:
        masks = MaskSettings("consistent", self.mask_ratio)
        reconstruction = MaskedReconstruction(model, masks, width=self.decoder_width, depth=self.decoder_depth)
        if not self.contrast:
            return reconstruction
        settings = CrossScaleSettings(
            self.least_ratio,
            self.most_ratio,
            self.crop_ratio_of,
            weight=self.weight,
            pools_inside_crop=self.pools_inside_crop,
            queue=self.queue,
        )
        return CrossScaleMae(reconstruction, CrossScaleContrast(model, settings, masks))
