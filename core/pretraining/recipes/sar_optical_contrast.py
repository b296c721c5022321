"""System 3: contrast of windows and of super-pixels, with early, intermediate and late fusion."""

from __future__ import annotations

from dataclasses import dataclass

from core.errors import UsageError
from core.labels.superpixels import SuperpixelMethod
from core.models.fusion_model import FusionModel
from core.models.specification import ModelSpecification
from core.pretraining.objectives.image_contrast import ImageContrastSettings
from core.pretraining.objectives.objective import Objective
from core.pretraining.objectives.sar_optical_contrast import SarOpticalContrast
from core.pretraining.objectives.superpixel_contrast import SuperpixelContrastSettings
from core.pretraining.recipes.recipe import Recipe
from core.pretraining.settings import PretrainingSettings
from core.pretraining.view_pairs import PairSettings
from core.pretraining.views import ViewSettings


@dataclass(frozen=True)
class SarOpticalRecipe(Recipe):
    """After Chen and Bruzzone (2022, TGRS 60:5406011) and their code (MIT, read).

    Attributes:
        image: whether windows are told apart; without, modalities are not either.
        superpixel: whether super-pixels are.
        one_pixel: one pixel of a super-pixel stands for it, as in the released code, in place of its mean.
        shift: largest shift of a view, as a part of its side; 0.2 as published.
        segments: how super-pixels are cut; ``felzenszwalb`` as published, or ``slic``.
    """

    image: bool = True
    superpixel: bool = True
    one_pixel: bool = False
    shift: float = 0.2
    segments: SuperpixelMethod = "felzenszwalb"

    @classmethod
    def settings(cls, setting: str) -> PretrainingSettings:
        if setting == "paper":
            return PretrainingSettings(epochs=700, batch_size=1000, window_size=16, learning_rate=3e-3, weight_decay=1e-4)
        return PretrainingSettings(epochs=80, batch_size=64, window_size=32, learning_rate=1e-3, weight_decay=1e-4)

    def objective(self, model: FusionModel) -> Objective:
        if not self.image and not self.superpixel:
            raise UsageError("Both terms of the method are switched off.", "Leave 'image' or 'superpixel' on.")
        image, superpixel = self.terms()
        pair = PairSettings(ViewSettings(shift=self.shift), self.is_between_modalities)
        return SarOpticalContrast(model, image if self.image else None, superpixel if self.superpixel else None, pair)

    @property
    def is_between_modalities(self) -> bool:
        """Whether the two views are the modalities."""
        return False

    def terms(self) -> tuple[ImageContrastSettings, SuperpixelContrastSettings]:
        """The settings of both terms."""
        return (
            ImageContrastSettings(),
            SuperpixelContrastSettings(samples_one_place=self.one_pixel, method=self.segments),
        )


@dataclass(frozen=True)
class EarlyRecipe(SarOpticalRecipe):
    """Views are two versions of all bands stacked."""


@dataclass(frozen=True)
class IntermediateRecipe(SarOpticalRecipe):
    """As the early one, and inside each view the modalities are told to agree.

    Attributes:
        cross_modal: whether that term is there.
    """

    cross_modal: bool = True

    def terms(self) -> tuple[ImageContrastSettings, SuperpixelContrastSettings]:
        return ImageContrastSettings(has_cross_modal=self.cross_modal), super().terms()[1]


@dataclass(frozen=True)
class LateRecipe(SarOpticalRecipe):
    """Views are the modalities themselves."""

    @property
    def is_between_modalities(self) -> bool:
        return True

    def check(self, specification: ModelSpecification) -> None:
        if len(specification.modalities) < 2:
            raise UsageError(
                "Late fusion learns from what two sensors see of one place, and one was given.",
                "Give a second one, or choose 'sar_optical_contrast_early'.",
            )

    def terms(self) -> tuple[ImageContrastSettings, SuperpixelContrastSettings]:
        return (
            ImageContrastSettings(channels=64),
            SuperpixelContrastSettings(channels=64, samples_one_place=self.one_pixel, method=self.segments),
        )
