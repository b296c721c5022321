"""A model of change that takes both dates as one set of inputs: whatever trains and maps other models then serves it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.models.fusion_model import FusionModel
from core.models.specification import ModelSpecification
from core.scenes.date_pair import LATER


def pair_specification(specification: ModelSpecification, names: tuple[str, ...]) -> ModelSpecification:
    """What a model of change takes in where both dates are one scene, in the order of ``DatePair.scene``.

    Args:
        specification: of the network, which knows the inputs of one date.
        names: of those of its inputs that both dates have.
    """
    first = [entry for entry in specification.modalities if entry.name in names]
    later = [entry.model_copy(update={"name": entry.name + LATER}) for entry in first]
    return specification.model_copy(update={"modalities": (*first, *later)})


class PairModel(nn.Module):
    """Change scores from the inputs of both dates in one mapping.

    The second date is shown in the light of the first, so that what is alike in the whole image is no change.

    Args:
        network: with the head of change.
        light: by input of the first date, gain and offset (C,) each of the second date's bands; see
            ``Alteration.light_of_first``.
    """

    def __init__(self, network: FusionModel, light: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]) -> None:
        super().__init__()
        self.network = network
        self.names = tuple(light)
        for name, (gain, offset) in light.items():
            # Kept beside the weights and moved with them to the device.
            for what, values in (("gain", gain), ("offset", offset)):
                self.register_buffer(f"{what}_{name}", torch.from_numpy(values.astype(np.float32))[:, None, None])

    def forward(self, values: Mapping[str, Tensor]) -> Tensor:
        """(B, n_classes, H, W) scores; see ``FusionModel.forward``.

        Args:
            values: of the first date by input; of the second by input and ``LATER``.
        """
        before = {name: values[name] for name in self.names}
        after = {name: self._lit(name, values[name + LATER]) for name in self.names}
        scores: Tensor = self.network(before, after=after)
        return scores

    def _lit(self, name: str, values: Tensor) -> Tensor:
        return torch.as_tensor(values * self.get_buffer(f"gain_{name}") + self.get_buffer(f"offset_{name}"))
