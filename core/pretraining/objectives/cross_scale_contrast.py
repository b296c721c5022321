"""Cross-scale contrast: the same ground at two scales should say the same, in every modality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.models.features import FeatureMap, Features
from core.models.fusion_model import FusionModel
from core.pretraining.info_nce import ContrastSettings, info_nce
from core.pretraining.masking import MaskSettings, draw_masks, hide, patch_of
from core.pretraining.objectives.masked_reconstruction import MaskedReconstruction
from core.pretraining.objectives.objective import Objective, Step, Windows
from core.pretraining.patches import feature_channels
from core.pretraining.processes import current
from core.pretraining.projections import VectorHead
from core.pretraining.views import view_of

MERGED = "merged"
"""Stands for all modalities where a fusion does not hold them apart."""


@dataclass(frozen=True)
class CrossScaleSettings:
    """The contrast of system 2.

    Attributes:
        least_ratio, most_ratio: of the crop to the window (published: 0.4 and 0.6, drawn evenly).
        crop_ratio_of: whether that is a ratio of sides or of areas (not published).
        temperature: of NT-Xent (inferred).
        weight: lambda (published: 0.5).
        pools_inside_crop: whether the whole window is pooled over the crop's ground alone (ours): what is compared is
            then the same ground.
        queue: vectors of earlier batches that take the place of the batch's own as negatives (ours, for small
            batches); 0 = none.
        channels: of the vectors that are compared.
    """

    least_ratio: float = 0.4
    most_ratio: float = 0.6
    crop_ratio_of: Literal["side", "area"] = "side"
    temperature: float = 0.5
    weight: float = 0.5
    pools_inside_crop: bool = False
    queue: int = 0
    channels: int = 128


class CrossScaleContrast(Objective):
    """NT-Xent between a window and a crop of it that is enlarged to the window's size.

        L = lambda / M sum_m NTXent(u_m, v_m)

    u_m and v_m are projected unit vectors of the means over the visible places of modality m, of the window and of the
    crop. After "Multimodal RSI fusion based on self-supervised pre-training and cross-scale contrastive learning"
    (Fudan University, Journal of Infrared and Millimeter Waves, 2024221): that each modality is contrasted, the range
    of the ratio and the weight are published; the form is inferred from Cross-Scale MAE (Tang et al. 2023,
    arXiv:2401.15855), as are temperature and pooling. The crop has masks of its own draw: with the same, the contrast
    would be about which patches were seen. The crop's resolution, which is finer, is told to models that take it.

    A window in which a modality is not seen does not count for that modality. With fewer than two windows and no queue
    the loss is zero.

    Args:
        model: that will be trained.
        settings: of the contrast.
        masks: how they are drawn, of both scales; None shows everything.
        patch: side in reference pixels; by default what ``patch_of`` says.
    """

    def __init__(
        self,
        model: FusionModel,
        settings: CrossScaleSettings | None = None,
        masks: MaskSettings | None = None,
        *,
        patch: int | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings or CrossScaleSettings()
        self.masks = masks
        self.patch = patch or patch_of(model)
        channels = feature_channels(model)
        each = channels.own or {MERGED: channels.merged}
        self.heads = nn.ModuleDict({name: VectorHead(count, self.settings.channels) for name, count in each.items()})
        for name in each if self.settings.queue else ():
            self.register_buffer(f"queue_{name}", torch.zeros(self.settings.queue, self.settings.channels))
        self._pending: dict[str, list[Tensor]] = {}

    def forward(self, step: Step) -> dict[str, Tensor]:
        """``cross-scale <modality>``."""
        return self.losses(step, self._encoded(step, step.windows))

    def losses(self, step: Step, features: Features) -> dict[str, Tensor]:
        """The terms, of windows whose whole is encoded already."""
        maps, sides = draw_crops(len(step.windows), self.settings, step.generator)
        crop = view_of(step.windows, maps)
        geography = crop.geography.clone()
        geography[:, 2] *= sides.to(geography)
        cropped = self._encoded(step, Windows(crop.values, geography))
        height, width = _size(step.model, step.windows)
        names = [
            name for name in self.heads if name == MERGED or {name} <= set(features.by_modality) & set(cropped.by_modality)
        ]
        losses = {}
        for name in names:
            whole, part = features.of_modality(name), cropped.of_modality(name)
            weights = whole.known
            if self.settings.pools_inside_crop:
                weights = weights * inside_crop(whole, maps, height, width)
            losses[name] = self._loss(name, *_pooled(whole, weights), *_pooled(part, part.known))
        return {f"cross-scale {name}": self.settings.weight * loss / len(losses) for name, loss in losses.items()}

    def after_step(self, model: FusionModel, done: float) -> None:
        """Moves the queues on."""
        for name in self.heads if self.settings.queue else ():
            queue = self.get_buffer(f"queue_{name}")
            own = torch.cat([queue[:0], *self._pending.get(name, [])])
            # The newest stand first; rows not yet filled are zero, which no unit vector is.
            queue.copy_(torch.cat([current().all_rows(own), queue])[: len(queue)])
        self._pending = {}

    def _encoded(self, step: Step, windows: Windows) -> Features:
        values = windows.values
        if self.masks is not None:
            masks = draw_masks(windows, step.model.modalities, self.patch, self.masks, step.generator)
            values = hide(values, masks, step.model.modalities)
        return step.model.features(values, geography=windows.geography)

    def _loss(self, name: str, whole: Tensor, has_whole: Tensor, part: Tensor, has_part: Tensor) -> Tensor:
        """NT-Xent of one modality, over the windows that show it at both scales."""
        both = has_whole & has_part
        head = self.heads[name]
        u, v = (functional.normalize(head(each[both]), dim=1, eps=1e-6) for each in (whole, part))
        contrast = ContrastSettings(self.settings.temperature)
        if not self.settings.queue:
            return info_nce(u, v, contrast) if len(u) else 0.0 * whole.sum()
        queue = self.get_buffer(f"queue_{name}")
        self._pending.setdefault(name, []).append(v.detach().to(queue.dtype))
        held = int(queue.any(dim=1).sum())
        if not held or not len(u):
            return 0.0 * (u.sum() + v.sum())
        queue = queue[:held].to(u.dtype)
        return 0.5 * (info_nce(u, v, contrast, queue=queue) + info_nce(v, u, contrast, queue=queue))


class CrossScaleMae(Objective):
    """System 2 as a whole: reconstruction and 0.5 times the contrast, over one encoding of the window.

    Args:
        reconstruction: of the window.
        contrast: whose own masks are drawn for the crop alone.
    """

    def __init__(self, reconstruction: MaskedReconstruction, contrast: CrossScaleContrast) -> None:
        super().__init__()
        self.reconstruction = reconstruction
        self.contrast = contrast

    def forward(self, step: Step) -> dict[str, Tensor]:
        """The terms of both."""
        encoded = self.reconstruction.encoded(step)
        return self.reconstruction.losses(step, encoded) | self.contrast.losses(step, encoded.features)

    def after_step(self, model: FusionModel, done: float) -> None:
        self.contrast.after_step(model, done)


def draw_crops(count: int, settings: CrossScaleSettings, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(B, 2, 3) float64 maps from crops to their windows, and (B,) the crops' sides as parts of the windows'."""
    ratio = torch.empty(count, dtype=torch.float64)
    ratio.uniform_(settings.least_ratio, settings.most_ratio, generator=generator)
    sides = ratio if settings.crop_ratio_of == "side" else ratio.sqrt()
    centre = torch.empty(count, 2, dtype=torch.float64).uniform_(-1, 1, generator=generator) * (1 - sides)[:, None]
    linear = torch.eye(2, dtype=torch.float64) * sides[:, None, None]
    return torch.cat([linear, centre[:, :, None]], dim=2), sides


def _pooled(level: FeatureMap, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(B, C) means with weights (B, 1, h, w), and (B,) bool where there are any."""
    total = weights.sum((2, 3))
    return (level.values * weights).sum((2, 3)) / total.clamp_min(1e-6), total[:, 0] > 0


def inside_crop(level: FeatureMap, maps: Tensor, height: int, width: int) -> Tensor:
    """(B, 1, h, w) which places' centres lie on the crop's ground."""
    device, dtype = level.values.device, level.values.dtype
    rows, columns = (
        (torch.arange(count, device=device, dtype=torch.float64) + 0.5) * level.stride / size * 2 - 1
        for count, size in zip(level.values.shape[-2:], (height, width), strict=True)
    )
    boxes = maps.to(device)
    east = (columns[None] - boxes[:, 0, 2:]).abs() <= boxes[:, 0, :1]
    south = (rows[None] - boxes[:, 1, 2:]).abs() <= boxes[:, 1, 1:2]
    return (south[:, :, None] & east[:, None]).to(dtype)[:, None]


def _size(model: FusionModel, windows: Windows) -> tuple[int, int]:
    """Rows and columns of the windows in reference pixels."""
    name, values = next(iter(windows.values.items()))
    entry = model.modalities[name]
    rows, columns = (side * entry.coarser // entry.finer for side in values.shape[-2:])
    return rows, columns
