"""Which inputs are there at each pixel, and what that means for the map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from core.models.model_file import ModelCard, subset_key
from core.scenes.scene import shows_ground


class InputSubsets:
    """Numbers the sets of inputs that can be there at a pixel: bit i stands for the model's i-th input.

    Args:
        card: of the model.
    """

    def __init__(self, card: ModelCard) -> None:
        modalities = card.specification.modalities
        self._names = [modality.name for modality in modalities]
        roles = [modality.role for modality in modalities]
        telling = [shows_ground(role, roles) for role in roles]
        count = 2 ** len(modalities)
        members = [[bool(number >> bit & 1) for bit in range(len(modalities))] for number in range(count)]
        self._complete = np.array([all(row) for row in members])
        self._enough = np.array([any(t and m for t, m in zip(telling, row, strict=True)) for row in members])
        self.temperatures: NDArray[np.float32] = np.array([self._temperature(card, n) for n in range(count)], np.float32)

    def names(self, number: int) -> list[str]:
        """The inputs of a set."""
        return [name for bit, name in enumerate(self._names) if number >> bit & 1]

    def without(self, subset: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
        """The sets that are left of some where an input is withheld."""
        return np.bitwise_and(subset, ~self.bit(name))

    def _temperature(self, card: ModelCard, number: int) -> float:
        # A set that was not measured is no surer than the least sure that was.
        worst = max([card.temperature, *card.temperatures.values()])
        names = self.names(number)
        return card.temperature if len(names) == len(self._names) else card.temperatures.get(subset_key(names), worst)

    def bit(self, name: str) -> np.uint8:
        """The number of the set of one input."""
        return np.uint8(1 << self._names.index(name))

    def is_enough(self, subset: NDArray[np.uint8], allows_missing: bool) -> NDArray[np.bool_]:
        """Where a map can be made: all inputs there, or, if that is allowed, one that shows the ground."""
        return np.asarray(np.take(self._enough if allows_missing else self._complete, subset))
