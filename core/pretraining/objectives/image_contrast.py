"""Contrast of whole windows: two views of a window agree, and differ from other windows."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.models.features import Features, masked_mean
from core.models.fusion.early import EarlyFusion
from core.models.fusion_model import FusionModel
from core.pretraining.info_nce import ContrastSettings, info_nce
from core.pretraining.monitors import effective_rank, spread_of
from core.pretraining.objectives.objective import Objective, Step
from core.pretraining.processes import current
from core.pretraining.projections import VectorHead, unit
from core.pretraining.teachers import EmaTeacher
from core.pretraining.view_pairs import (
    FeaturePair,
    PairSettings,
    draw_pair,
    encode_pair,
    is_anything_known,
    own_channels,
    pooled_channels,
)

ImageContrastKind = Literal["nt_xent", "moco", "simsiam"]


@dataclass(frozen=True)
class ImageContrastSettings:
    """Which contrast of windows.

    Attributes:
        kind: ``nt_xent``: the rest of the batch are the negatives; ``moco``: a queue of earlier windows, as the average
            of the model sees them; ``simsiam``: no negatives, for batches of a few windows.
        contrast: form of InfoNCE; by default the debiased one with hard negatives of Chen and Bruzzone, whose values these
            are. MoCo-v2 has a temperature of 0.2 and neither.
        channels: of the embeddings; 128 as published.
        own_channels: of the embeddings of single modalities; 64 as published.
        queue: length, of ``moco``; 65536 as published, 4096 for small data (inferred).
        momentum: of the teacher of ``moco``; 0.999 as published, 0.99 with a short queue (inferred).
        has_cross_modal: adds the contrast of the modalities' own embeddings within each view, where the fusion holds
            them apart.
        weight, cross_modal_weight: of the terms.
    """

    kind: ImageContrastKind = "nt_xent"
    contrast: ContrastSettings = field(default_factory=lambda: ContrastSettings(0.5, 0.1, 1.0))
    channels: int = 128
    own_channels: int = 64
    queue: int = 4096
    momentum: float = 0.99
    has_cross_modal: bool = False
    weight: float = 1.0
    cross_modal_weight: float = 1.0


class ImageContrast(Objective):
    """Contrast of pooled features of two views.

    The global term of Chen and Bruzzone (2022, TGRS 60:5406011, arXiv:2103.05543; equations by their code) and, with
    ``moco`` or ``simsiam``, the loss proposed for asymmetric attention fusion (Xu et al. 2023, DOI 10.3390/rs15245682,
    whose own loss is inferred from their first citation):

        nt_xent:  info_nce(u, v) over the batch,
        moco:     (info_nce(q_1, k_2; queue) + info_nce(q_2, k_1; queue)) / 2   (He et al. 2020, arXiv:1911.05722),
        simsiam:  1 - (cos(h(z_1), stop(z_2)) + cos(h(z_2), stop(z_1))) / 2     (Chen and He 2021, arXiv:2011.10566).

    Both directions of ``moco``, and one batch normalisation over both views, are ours. The cross-modal term is that of
    the intermediate form of Chen and Bruzzone: info_nce of the modalities' own embeddings, a head each, summed over both
    views; with more than two modalities the mean over their pairs (inferred). A window of which a view, or a modality,
    shows nothing is left out.

    Terms: ``image``, ``cross_modal``.

    Args:
        model: that will learn.
        settings: of the contrast.
        pair: of the views.
    """

    queue: Tensor
    queue_place: Tensor

    def __init__(
        self,
        model: FusionModel,
        settings: ImageContrastSettings | None = None,
        pair: PairSettings | None = None,
    ) -> None:
        super().__init__()
        self.settings, self.pair = settings or ImageContrastSettings(), pair or PairSettings()
        width, has_predictor = self.settings.channels, self.settings.kind == "simsiam"
        self.head = VectorHead(pooled_channels(model), width, normalises_output=has_predictor)
        # A bottleneck, as published.
        self.predictor = VectorHead(width, width, hidden=max(1, width // 4)) if has_predictor else None
        names = self._held_apart(model) if self.settings.has_cross_modal else []
        own = own_channels(model)
        self.own_heads = nn.ModuleDict({name: VectorHead(own, self.settings.own_channels) for name in names})
        self.teacher: EmaTeacher[FusionModel] | None = None
        self.head_teacher: EmaTeacher[VectorHead] | None = None
        if self.settings.kind == "moco":
            momentum = self.settings.momentum
            self.teacher = EmaTeacher(model, momentum, momentum)
            self.head_teacher = EmaTeacher(self.head, momentum, momentum)
            self.register_buffer("queue", unit(torch.randn(self.settings.queue, width)))
            self.register_buffer("queue_place", torch.zeros((), dtype=torch.int64))
        self._keys: list[Tensor] = []
        self._last: Tensor | None = None

    def _held_apart(self, model: FusionModel) -> list[str]:
        """The modalities of which a view can show several, each by itself."""
        if isinstance(model.fusion, EarlyFusion):
            return []
        # The first is alone in its view.
        names = list(model.modalities)[1:] if self.pair.between_modalities else list(model.modalities)
        return names if len(names) > 1 else []

    def forward(self, step: Step) -> dict[str, Tensor]:
        return self.terms(step, encode_pair(step.model, draw_pair(step, self.pair)))

    def terms(self, step: Step, pair: FeaturePair) -> dict[str, Tensor]:
        """The losses of views that are encoded already."""
        terms = {"image": self.settings.weight * self._image(pair)}
        cross_modal = [term for term in (self._cross_modal(view) for view in (pair.first, pair.second)) if term is not None]
        if cross_modal:
            terms["cross_modal"] = self.settings.cross_modal_weight * torch.stack(cross_modal).sum()
        return terms

    def after_step(self, model: FusionModel, done: float) -> None:
        if self.teacher is not None and self.head_teacher is not None:
            self.teacher.update(model, done)
            self.head_teacher.update(self.head, done)
            self._enqueue()

    def monitors(self) -> dict[str, float]:
        """Spread and rank of the last embeddings; see ``core.pretraining.monitors``."""
        if self._last is None:
            return {}
        return {"image_spread": spread_of(self._last), "image_rank": effective_rank(self._last)}

    def _image(self, pair: FeaturePair) -> Tensor:
        """The loss between the views."""
        rows = is_anything_known(pair.first.levels[-1]) & is_anything_known(pair.second.levels[-1])
        # Both views at once, so that a batch of one window has two rows to be normalised by.
        projected = self.head(torch.cat([pair.first.pooled[rows], pair.second.pooled[rows]]))
        self._last = projected.detach()
        if self.predictor is not None:
            return _simsiam(self.predictor(projected), projected.detach())
        first, second = unit(projected).chunk(2)
        if self.teacher is None:
            return info_nce(first, second, self.settings.contrast)
        first_keys, second_keys = self._teach(pair, rows)
        if self.training:
            self._keys += [first_keys, second_keys]
        one = info_nce(first, second_keys, self.settings.contrast, queue=self.queue)
        return 0.5 * (one + info_nce(second, first_keys, self.settings.contrast, queue=self.queue))

    @torch.no_grad()
    def _teach(self, pair: FeaturePair, rows: Tensor) -> tuple[Tensor, Tensor]:
        """What the averages of model and head make of the views."""
        if self.teacher is None or self.head_teacher is None:
            raise RuntimeError("Only 'moco' has a teacher.")
        taught = encode_pair(self.teacher.module, pair.views)
        both = torch.cat([taught.first.pooled[rows], taught.second.pooled[rows]])
        keys = unit(self.head_teacher(both)).chunk(2)
        return keys[0], keys[1]

    @torch.no_grad()
    def _enqueue(self) -> None:
        """Puts the step's keys in the place of the oldest."""
        own = torch.cat(self._keys) if self._keys else self.queue[:0]
        keys = current().all_rows(own)[-len(self.queue) :]
        places = (self.queue_place + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue[places] = keys
        self.queue_place.copy_((self.queue_place + len(keys)) % len(self.queue))
        self._keys = []

    def _cross_modal(self, view: Features) -> Tensor | None:
        """Contrast of the modalities within a view; None where fewer than two are held apart."""
        names = [name for name in self.own_heads if name in view.by_modality]
        losses = []
        for one, other in combinations(names, 2):
            levels = view.by_modality[one], view.by_modality[other]
            rows = is_anything_known(levels[0]) & is_anything_known(levels[1])
            vectors = [
                unit(self.own_heads[name](masked_mean(level)[rows])) for name, level in zip((one, other), levels, strict=True)
            ]
            losses.append(info_nce(vectors[0], vectors[1], self.settings.contrast))
        return torch.stack(losses).mean() if losses else None


def _simsiam(predicted: Tensor, projected: Tensor) -> Tensor:
    """One minus the cosine of what is predicted of one view to what the other is, both ways; zero without rows."""
    if not len(predicted):
        return predicted.sum()
    first, second = projected.chunk(2)
    similar = functional.cosine_similarity(predicted.float(), torch.cat([second, first]).float(), dim=1)
    return 1 - similar.mean()
