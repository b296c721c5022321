"""Several estimators as one model: the mean of their probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from core.models.estimator_model import LEAST_SHARE, EstimatorModel
from core.models.features import Values
from core.models.specification import ModelSpecification

MEMBER = "members.{}."
TEMPERATURES = "temperatures"


class VoteModel(nn.Module):
    """What several estimators say on average, each as sure as it deserves.

    A regression and a forest err in different ways, and their mean seldom errs much more than the better of both. A
    regression on few labels is too sure of itself and would outvote the others, so each is calibrated before.

    Args:
        specification: with an estimator that is a vote.

    Attributes:
        temperatures: (members,) by which the scores of each are divided.
        step, radius: as for ``FusionModel``.
    """

    def __init__(self, specification: ModelSpecification) -> None:
        super().__init__()
        if specification.estimator is None or specification.estimator.kind != "vote":
            raise ValueError("the specification is of no vote")
        self.specification = specification
        self.members = nn.ModuleList(
            EstimatorModel(specification.model_copy(update={"estimator": member})) for member in specification.estimator.members
        )
        self.temperatures = torch.ones(len(self.members))
        self.step = math.lcm(*(member.step for member in self._each()))
        radii = [member.radius for member in self._each()]
        self.radius = None if None in radii else max(radius for radius in radii if radius is not None)

    def _each(self) -> list[EstimatorModel]:
        return [member for member in self.members if isinstance(member, EstimatorModel)]

    def forward(self, values: Values, margin: int = 0) -> Tensor:
        """(B, n_classes, H, W) logarithms of the mean probabilities. See ``FusionModel.forward``."""
        temperatures = self.temperatures.tolist()
        said = [member(values, margin) / own for member, own in zip(self.members, temperatures, strict=True)]
        shares = torch.stack([torch.softmax(each, dim=1) for each in said])
        return shares.mean(dim=0).clamp_min(LEAST_SHARE).log()

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """See ``EstimatorModel.state_dict``, of each member."""
        state = {
            MEMBER.format(number) + name: tensor
            for number, member in enumerate(self._each())
            for name, tensor in member.state_dict().items()
        }
        return {TEMPERATURES: self.temperatures, **state}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """See ``state_dict``.

        Raises:
            RuntimeError: not the weights of such a model.
        """
        prefixes = [MEMBER.format(number) for number in range(len(self.members))]
        unknown = [name for name in state if name != TEMPERATURES and not name.startswith(tuple(prefixes))]
        if strict and unknown:
            raise RuntimeError(f"Error in the vote:\n'{unknown[0]}' belongs to no member")
        temperatures = state.get(TEMPERATURES, self.temperatures)
        if temperatures.shape != self.temperatures.shape or not bool((temperatures > 0).all()):
            raise RuntimeError("Error in the vote:\nthe temperatures are not those of its members")
        self.temperatures = temperatures.clone()
        for prefix, member in zip(prefixes, self._each(), strict=True):
            own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
            member.load_state_dict(own, strict=strict, assign=assign)
        return None
