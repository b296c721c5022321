"""Distillation: a small network learns to say of unlabelled ground what a large one says of it."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from core.models.fusion_model import FusionModel
from core.models.subsets import mapped_pixels, proper_subsets
from core.pretraining.objectives.objective import Objective, Step
from core.pretraining.teachers import FrozenTeacher

WITHHELD = 0.25
"""Part of the batches of which some inputs are withheld from both, where the teacher has learned to do without. Inferred."""


class Distillation(Objective):
    """The divergence of a network's class probabilities from those of its teacher (Hinton et al. 2015, arXiv:1503.02531,
    section 2), on every pixel that is mapped.

        loss = mean KL( softmax(z_teacher / t) || softmax(z / t) )

    with t the temperature of the teacher's map where no input is missing, so that what is learned is what it says. Both see the
    same view of the same window, turned and mirrored at random (Beyer et al. 2022, arXiv:2106.05237: a consistent teacher).
    Hinton's factor of the squared temperature is left out, since no term of another scale stands beside it (inferred).

    Args:
        teacher: a model that maps classes.
        temperature: of its card.
        allows_missing: whether the teacher has learned to do without some of its inputs; then some are withheld at times.
    """

    activity: ClassVar[str] = "Distilling"
    learns_features: ClassVar[bool] = False
    trains_classifier: ClassVar[bool] = True

    def __init__(self, teacher: FusionModel, temperature: float, allows_missing: bool) -> None:
        super().__init__()
        self.teacher: FrozenTeacher[FusionModel] = FrozenTeacher(teacher)
        self.temperature = temperature
        self._allows_missing = allows_missing
        self._subsets = proper_subsets(teacher.specification) if allows_missing else []
        self._agreement = 0.0

    def forward(self, step: Step) -> dict[str, Tensor]:
        """See ``Objective``."""
        given = self._shown(step)
        expected = self.teacher(given).float()
        found = step.model(given).float()
        size = found.shape[-2], found.shape[-1]
        is_known = mapped_pixels(given, step.model.specification, size, self._allows_missing)
        if not is_known.any():
            return {}
        losses = functional.kl_div(
            functional.log_softmax(found / self.temperature, dim=1),
            functional.log_softmax(expected / self.temperature, dim=1),
            reduction="none",
            log_target=True,
        ).sum(dim=1)
        self._agreement = float((found.detach().argmax(dim=1) == expected.argmax(dim=1))[is_known].float().mean())
        return {"divergence": losses[is_known].mean()}

    def monitors(self) -> dict[str, float]:
        """The part of the last step's pixels that teacher and network give the same class."""
        return {"agreement": self._agreement}

    def _shown(self, step: Step) -> dict[str, Tensor]:
        """The windows turned and mirrored, with some inputs withheld at times."""
        drawn = torch.rand(4, generator=step.generator).tolist()
        turns = int(4 * drawn[0])
        names = set(step.windows.names)
        possible = [subset for subset in self._subsets if subset < names]
        if possible and drawn[2] < WITHHELD:
            names = set(possible[int(len(possible) * drawn[3])])
        shown = {}
        for name in step.windows.names:
            if name in names:
                values = step.windows.values[name].rot90(turns, (-2, -1))
                shown[name] = values.flip(-1) if drawn[1] < 0.5 else values
        return shown
