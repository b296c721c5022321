"""Self-distillation: of a small crop, tell what an average of oneself says of a large one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core.models.fusion_model import FusionModel
from core.pretraining.objectives.objective import Objective, Step, Windows
from core.pretraining.processes import current
from core.pretraining.projections import DinoHead
from core.pretraining.teachers import EmaTeacher
from core.pretraining.view_pairs import encode_all, is_anything_known, pooled_channels, seen
from core.pretraining.views import ViewSettings, draw_maps

LEAST_SIDE = 16
"""Of a local crop in reference pixels: below this an encoder has a place or none left."""

GLOBAL_VIEWS = ViewSettings(least_side=math.sqrt(0.4), most_side=1.0, gain=0.2, offset=0.2, noise=0.1)
LOCAL_VIEWS = ViewSettings(least_side=math.sqrt(0.05), most_side=math.sqrt(0.4), gain=0.2, offset=0.2, noise=0.1)
"""Parts of the area of 0.4 to 1 and of 0.05 to 0.4, as published. The side is drawn evenly where theirs draws the area;
gain, offset and noise stand for their jitter, grey and solarisation, which are of photographs (inferred)."""


@dataclass(frozen=True)
class SelfDistillationSettings:
    """Which self-distillation.

    Attributes:
        out_channels, hidden, bottleneck: of the head; 65536, 2048 and 256 as published.
        teacher_temperature, student_temperature: as published; the published warm-up of the former is left out.
        centre_momentum: as published.
        momentum, final_momentum: of the teacher; as published.
        n_local: local crops; 8 as published.
        global_views, local_views: geometry and radiometry of the crops.
        is_apart: each modality alone in place of the fused window, as X-STARS does with its sensors; the loss is the mean
            over modalities.
        weight: of the term.
    """

    out_channels: int = 4096
    hidden: int = 512
    bottleneck: int = 256
    teacher_temperature: float = 0.04
    student_temperature: float = 0.1
    centre_momentum: float = 0.9
    momentum: float = 0.996
    final_momentum: float = 1.0
    n_local: int = 4
    global_views: ViewSettings = GLOBAL_VIEWS
    local_views: ViewSettings = LOCAL_VIEWS
    is_apart: bool = False
    weight: float = 1.0


class SelfDistillation(Objective):
    """DINO (Caron et al. 2021, arXiv:2104.14294, equations 1 to 4), the first term of X-STARS (Marsocci and Audebert
    2025, arXiv:2405.09922):

        L = mean over g in 2 global crops, v in all crops but g of  -softmax((t(g) - c) / 0.04) . log softmax(s(v) / 0.1),
        c <- 0.9 c + 0.1 mean of t over the step's global crops.

    Inferred: pooled features where theirs is the class token; the teacher in evaluation mode; local crops of half the
    window's side where that leaves 16 pixels, else of the whole side; pairs weigh nothing where either crop shows nothing.

    Terms: ``self_distillation``; nothing where none of ``names`` is in the batch.

    Args:
        model: that will learn.
        settings: of the distillation.
        names: of the modalities to use, as the new sensor alone in X-STARS' continual mode; all by default.
    """

    centre: Tensor

    def __init__(
        self,
        model: FusionModel,
        settings: SelfDistillationSettings | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.settings = chosen = settings or SelfDistillationSettings()
        self.names = tuple(model.modalities if names is None else names)
        self.head = DinoHead(pooled_channels(model), chosen.out_channels, chosen.hidden, chosen.bottleneck)
        self.teacher = EmaTeacher(model, chosen.momentum, chosen.final_momentum)
        self.head_teacher = EmaTeacher(self.head, chosen.momentum, chosen.final_momentum)
        self.register_buffer("centre", torch.zeros(chosen.out_channels))
        self._taught: list[Tensor] = []
        self._monitors: dict[str, Tensor] = {}

    def forward(self, step: Step) -> dict[str, Tensor]:
        names = [name for name in self.names if name in step.windows.values]
        groups = [[name] for name in names] if self.settings.is_apart else [names] if names else []
        losses = [self._loss(step, group) for group in groups]
        return {"self_distillation": self.settings.weight * torch.stack(losses).mean()} if losses else {}

    @torch.no_grad()
    def after_step(self, model: FusionModel, done: float) -> None:
        self.teacher.update(model, done)
        self.head_teacher.update(self.head, done)
        taught = current().all_rows(torch.cat(self._taught) if self._taught else self.centre.new_zeros(0, len(self.centre)))
        if len(taught):
            self.centre.lerp_(taught.mean(dim=0), 1 - self.settings.centre_momentum)
        self._taught = []

    def monitors(self) -> dict[str, float]:
        """Of the last step, as parts of the highest entropy: that of the teacher's answers (1 = it says nothing, 0 = it is
        sure), and that of their mean (0 = it says the same of everything)."""
        return {name: float(value) for name, value in self._monitors.items()}

    def _loss(self, step: Step, names: list[str]) -> Tensor:
        """The loss of some of the modalities."""
        windows = Windows({name: step.windows.values[name] for name in names}, step.windows.geography)
        whole = [self._crop(step, windows, self.settings.global_views) for _ in range(2)]
        shrink = shrink_of(step.model, windows)
        local = [self._crop(step, windows, self.settings.local_views, shrink) for _ in range(self.settings.n_local)]
        taught, known = self._taught_of(whole)
        told, is_seen = [], []
        for views in [whole, *([local] if local else [])]:
            features = encode_all(step.model, views)
            told += list(self.head(features.pooled).chunk(len(views)))
            is_seen += list(is_anything_known(features.levels[-1]).chunk(len(views)))
        total, weight = taught.new_zeros(()), taught.new_zeros(())
        for number, (target, target_known) in enumerate(zip(taught.chunk(2), known.chunk(2), strict=True)):
            for other, (scores, scores_known) in enumerate(zip(told, is_seen, strict=True)):
                if other == number:
                    continue
                rows = (target_known & scores_known).to(target.dtype)
                logarithms = (scores / self.settings.student_temperature).log_softmax(dim=1)
                total = total - ((target * logarithms).sum(dim=1) * rows).sum()
                weight = weight + rows.sum()
        return total / weight.clamp_min(1.0)

    @torch.no_grad()
    def _taught_of(self, views: list[Windows]) -> tuple[Tensor, Tensor]:
        """(2 B, out_channels) probabilities of the teacher, and (2 B,) whether it saw anything."""
        features = encode_all(self.teacher.module, views)
        known = is_anything_known(features.levels[-1])
        scores: Tensor = self.head_teacher(features.pooled)
        if self.training:
            self._taught.append(scores[known])
        target = ((scores - self.centre) / self.settings.teacher_temperature).softmax(dim=1)
        if bool(known.any()):
            highest = math.log(target.shape[1])
            self._monitors = {
                "teacher_entropy": _entropy(target[known]).mean() / highest,
                "teacher_variety": _entropy(target[known].mean(dim=0)) / highest,
            }
        return target, known

    def _crop(self, step: Step, windows: Windows, views: ViewSettings, shrink: int = 1) -> Windows:
        return seen(step, windows, draw_maps(len(windows), views, step.generator), views, shrink)


def shrink_of(model: FusionModel, windows: Windows) -> int:
    """By how much the sides of local crops are divided: two where every modality's can be and enough is left."""
    for name, values in windows.values.items():
        entry = model.modalities[name]
        sides = values.shape[-2:]
        # Half a window is a whole number of reference pixels, too.
        if any(side % 2 or side * entry.coarser % (2 * entry.finer) for side in sides):
            return 1
        if min(sides) * entry.coarser // (2 * entry.finer) < LEAST_SIDE:
            return 1
    return 2


def _entropy(probabilities: Tensor) -> Tensor:
    """Over the last dimension."""
    return -(probabilities * probabilities.clamp_min(1e-12).log()).sum(dim=-1)
