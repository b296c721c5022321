"""Our own recipe: latent targets, for any sensors, any of them missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from core.models.fusion_model import FusionModel
from core.models.specification import ModelSpecification
from core.pretraining.masking import MaskSettings
from core.pretraining.objectives.latent_targets import LatentTargets
from core.pretraining.objectives.objective import Objective
from core.pretraining.patch_decoder import Level
from core.pretraining.recipes.recipe import Recipe
from core.pretraining.settings import PretrainingSettings


@dataclass(frozen=True)
class LatentTargetsRecipe(Recipe):
    """See ``core.pretraining.objectives.latent_targets``.

    Attributes:
        loss: ``contrast`` or ``cosine``.
        ratio: part of the patches that is hidden.
        withheld: probability that one modality of a window is hidden as a whole.
        decoder: whether the model's own decoder is trained, too.
        pixels: weight of the targets of single pixels beside those of patches, where the decoder is trained; the claim
            ``latent`` of ``scripts/benchmarks/ablations.py`` measures what they are worth.
        circumstances: whether day of the year and pixel size of each modality are inputs of the pre-training. Fine-tuning
            and maps withhold them: of one scene they say nothing, and of another they would be what no label was for.
    """

    loss: Literal["contrast", "cosine"] = "contrast"
    ratio: float = 0.5
    withheld: float = 0.25
    decoder: bool = True
    pixels: float = 1.0
    circumstances: bool = True

    @classmethod
    def settings(cls, setting: str) -> PretrainingSettings:
        if setting == "paper":
            return PretrainingSettings(epochs=300, batch_size=64, learning_rate=4e-4, weight_decay=0.02)
        return PretrainingSettings(epochs=40, batch_size=16, window_size=48, learning_rate=1e-3)

    def specification(self, specification: ModelSpecification) -> ModelSpecification:
        return specification.model_copy(update={"has_circumstances": self.circumstances})

    def objective(self, model: FusionModel) -> Objective:
        masks = MaskSettings(ratio=self.ratio, withheld=self.withheld)
        level: Level = "dense" if self.decoder else "tokens"
        return LatentTargets(model, masks, level=level, loss=self.loss, pixels=self.pixels if self.decoder else 0.0)
