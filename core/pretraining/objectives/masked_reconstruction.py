"""Masked reconstruction: say what the hidden patches of each modality look like."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from core.models.features import Features
from core.models.fusion_model import FusionModel
from core.pretraining.masking import Masks, MaskSettings, draw_masks, hide, patch_of
from core.pretraining.objectives.objective import Objective, Step
from core.pretraining.patch_decoder import Level, PatchDecoders
from core.pretraining.patches import band_groups, normalised_patches, pixel_patches, standardised, target_side


@dataclass(frozen=True, eq=False)
class Encoded:
    """A batch with a part of it hidden, and what the model made of the rest."""

    masks: Masks
    features: Features


class MaskedReconstruction(Objective):
    """The masked autoencoder of systems 2 and 5, over any encoder and fusion.

        L = 1/M sum_m w_m mean over masked patches of (x^ - norm(x))^2

    Separate decoders for the modalities are from "Multimodal RSI fusion based on self-supervised pre-training and
    cross-scale contrastive learning" (Fudan University, Journal of Infrared and Millimeter Waves, 2024221) and the
    anchor-aware masks from A2-MAE (Zhang et al. 2024, arXiv:2406.08079). Inferred: the target normalised per patch (He
    et al. 2022, arXiv:2111.06377, section 4.1) and, as for A2-MAE's inferred form, per group of bands; the weight of the
    anchor. The mean over modalities keeps thirteen bands from drowning two. Missing pixels are neither in the loss nor
    in the normalisation.

    Args:
        model: that will be trained.
        masks: how they are drawn.
        patch: side in reference pixels; by default what ``patch_of`` says.
        level: see ``PatchDecoders``.
        width, depth: of the decoders.
        anchor_weight: of the windows of which a modality is the anchor, for the mask policy ``anchor``.
        weight: of the whole.
    """

    def __init__(
        self,
        model: FusionModel,
        masks: MaskSettings | None = None,
        *,
        patch: int | None = None,
        level: Level = "tokens",
        width: int = 128,
        depth: int = 2,
        anchor_weight: float = 2.0,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.masks = masks or MaskSettings()
        self.patch = patch or patch_of(model)
        self.anchor_weight, self.weight = anchor_weight, weight
        self.decoders = PatchDecoders(model, model.modalities, level, width, depth)
        self.outputs = nn.ModuleDict(
            {
                name: nn.Linear(width, len(entry.bands) * target_side(entry, self.patch) ** 2)
                for name, entry in model.modalities.items()
            }
        )

    def forward(self, step: Step) -> dict[str, Tensor]:
        """``reconstruction <modality>`` of each modality of which anything is masked."""
        return self.losses(step, self.encoded(step))

    def encoded(self, step: Step) -> Encoded:
        """Draws masks and encodes what they leave visible."""
        windows, model = step.windows, step.model
        masks = draw_masks(windows, model.modalities, self.patch, self.masks, step.generator)
        hidden = hide(windows.values, masks, model.modalities)
        return Encoded(masks, model.features(hidden, geography=windows.geography))

    def losses(self, step: Step, encoded: Encoded) -> dict[str, Tensor]:
        """The terms, of a batch that is encoded already."""
        masks = encoded.masks
        merged = self.decoders.merged(step.model, encoded.features)
        decoded = self.decoders(encoded.features, merged, masks, step.windows.geography)
        losses = {}
        for name, tokens in decoded.items():
            entry, masked = step.model.modalities[name], masks.masked[name]
            values = standardised(step.windows.values[name], entry)
            pixels = pixel_patches(values, entry, self.patch, masks.size)[masked]
            target, counts = normalised_patches(pixels, band_groups(entry))
            weights = 1 + (self.anchor_weight - 1) * masks.is_anchor(name).to(target.dtype)
            rows = masked.flatten(1).sum(dim=1)
            predicted = self.outputs[name](tokens).view(target.shape)
            losses[name] = patch_loss(predicted, target, counts, weights.repeat_interleave(rows))
        return {f"reconstruction {name}": self.weight * loss / len(losses) for name, loss in losses.items()}


def patch_loss(predicted: Tensor, target: Tensor, counts: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean over patches of each patch's mean squared error over what counts; zero where nothing does.

    Args:
        predicted, target, counts: (n, C, s, s).
        weights: (n,).
    """
    error = ((predicted - target).square() * counts).sum((1, 2, 3))
    total = counts.sum((1, 2, 3))
    has_any = (total > 0).to(error.dtype)
    return (weights * error / total.clamp_min(1.0)).sum() / has_any.sum().clamp_min(1.0)
