"""Contrast of windows and of super-pixels, of the same two views."""

from __future__ import annotations

from torch import Tensor

from core.models.fusion_model import FusionModel
from core.pretraining.objectives.image_contrast import ImageContrast, ImageContrastSettings
from core.pretraining.objectives.objective import Objective, Step
from core.pretraining.objectives.superpixel_contrast import SuperpixelContrast, SuperpixelContrastSettings
from core.pretraining.view_pairs import PairSettings, draw_pair, encode_pair


class SarOpticalContrast(Objective):
    """The whole loss of Chen and Bruzzone (2022, TGRS 60:5406011, arXiv:2103.05543), each view encoded once:

        early:         dense + global,
        intermediate:  dense + global + cross-modal of view 1 + cross-modal of view 2,
        late:          dense + global between the modalities (``pair.between_modalities``),

    all with a weight of one. At few labels their pixel terms alone lose to the image term alone; so both are on.

    Terms: those of ``ImageContrast`` and ``SuperpixelContrast``.

    Args:
        model: that will learn.
        image: settings of the contrast of windows; None = without.
        superpixel: settings of the contrast of super-pixels; None = without.
        pair: of the views.

    Raises:
        ValueError: neither is wanted, or super-pixels of a model without a decoder.
    """

    def __init__(
        self,
        model: FusionModel,
        image: ImageContrastSettings | None,
        superpixel: SuperpixelContrastSettings | None,
        pair: PairSettings | None = None,
    ) -> None:
        super().__init__()
        if image is None and superpixel is None:
            raise ValueError("expected a contrast of windows, of super-pixels, or both; got neither")
        self.pair = pair or PairSettings()
        self.image = None if image is None else ImageContrast(model, image, self.pair)
        self.superpixel = None if superpixel is None else SuperpixelContrast(model, superpixel, self.pair)

    @property
    def parts(self) -> list[ImageContrast | SuperpixelContrast]:
        return [part for part in (self.image, self.superpixel) if part is not None]

    def forward(self, step: Step) -> dict[str, Tensor]:
        pair = encode_pair(step.model, draw_pair(step, self.pair))
        return {name: term for part in self.parts for name, term in part.terms(step, pair).items()}

    def after_step(self, model: FusionModel, done: float) -> None:
        for part in self.parts:
            part.after_step(model, done)

    def monitors(self) -> dict[str, float]:
        return {name: value for part in self.parts for name, value in part.monitors().items()}
