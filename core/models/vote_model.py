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


class VoteModel(nn.Module):
    """What several estimators say on average.

    A regression and a forest err in different ways, and their mean seldom errs more than the better of both: on the scenes
    tried it was the choice that held on all (``scripts/benchmarks/few_labels.py``).

    Args:
        specification: with an estimator that is a vote.

    Attributes:
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
        self.step = math.lcm(*(member.step for member in self._each()))
        radii = [member.radius for member in self._each()]
        self.radius = None if None in radii else max(radius for radius in radii if radius is not None)

    def _each(self) -> list[EstimatorModel]:
        return [member for member in self.members if isinstance(member, EstimatorModel)]

    def forward(self, values: Values) -> Tensor:
        """(B, n_classes, H, W) logarithms of the mean probabilities. See ``FusionModel.forward``."""
        shares = torch.stack([torch.softmax(member(values), dim=1) for member in self.members])
        return shares.mean(dim=0).clamp_min(LEAST_SHARE).log()

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """See ``EstimatorModel.state_dict``, of each member."""
        return {
            MEMBER.format(number) + name: tensor
            for number, member in enumerate(self._each())
            for name, tensor in member.state_dict().items()
        }

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """See ``state_dict``.

        Raises:
            RuntimeError: not the weights of such a model.
        """
        prefixes = [MEMBER.format(number) for number in range(len(self.members))]
        unknown = [name for name in state if not name.startswith(tuple(prefixes))]
        if strict and unknown:
            raise RuntimeError(f"Error in the vote:\n'{unknown[0]}' belongs to no member")
        for prefix, member in zip(prefixes, self._each(), strict=True):
            own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
            member.load_state_dict(own, strict=strict, assign=assign)
        return None
