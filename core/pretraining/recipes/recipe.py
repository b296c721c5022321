"""What every recipe is: a choice of parts, with switches for what the papers ablate."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, fields
from typing import Any, Self, get_args, get_type_hints

from core.errors import UsageError
from core.models.fusion_model import FusionModel
from core.models.specification import ModelSpecification
from core.pretraining.objectives.objective import Objective
from core.pretraining.settings import PretrainingSettings

_MOST = math.inf
_NEARLY_ALL = 0.99
RANGES: dict[str, tuple[float, float]] = {
    "mask_ratio": (0.01, _NEARLY_ALL),
    "ratio": (0.01, _NEARLY_ALL),
    "least_ratio": (0.05, 1.0),
    "most_ratio": (0.05, 1.0),
    "withheld": (0.0, 1.0),
    "shift": (0.0, _NEARLY_ALL),
    "momentum": (0.0, 1.0),
    "weight": (0.0, _MOST),
    "pixels": (0.0, _MOST),
    "radius_m": (0.0, _MOST),
    "queue": (0, 2**20),
    "tokens": (1, 2**20),
    "outputs": (2, 2**20),
    "local_crops": (0, 64),
    "decoder_width": (16, 2048),
    "decoder_depth": (1, 24),
}
"""From and to what a switch that is a number may be set, in all recipes that have it; a weight below zero would teach the
opposite, and a queue of negatives takes memory."""


@dataclass(frozen=True)
class Recipe:
    """A way of pre-training. Its fields are its switches; the defaults are those for a few scenes and one computer."""

    @classmethod
    def as_published(cls) -> Self:
        """The recipe with the paper's values."""
        return cls()

    @classmethod
    @abstractmethod
    def settings(cls, setting: str) -> PretrainingSettings:
        """Of the loop: ``small`` or ``paper``."""

    def specification(self, specification: ModelSpecification) -> ModelSpecification:
        """The model as the recipe needs it, where switches change its parts."""
        return specification

    def check(self, specification: ModelSpecification) -> None:
        """Raises an error before anything is trained.

        Raises:
            UsageError: the model lacks what the recipe needs.
        """

    @abstractmethod
    def objective(self, model: FusionModel) -> Objective:
        """The losses, with their heads."""

    def switched(self, switches: dict[str, Any]) -> Self:
        """The recipe with some fields set.

        Raises:
            UsageError: no such switch, or a value of another kind or out of its range; the message lists them all.
        """
        known = {field.name: getattr(self, field.name) for field in fields(self)}
        listed = ", ".join(f"{name} ({value})" for name, value in known.items()) or "none"
        changed = {}
        for name, value in switches.items():
            if name not in known:
                raise UsageError(f"The method has no switch '{name}'.", f"It has: {listed}.")
            changed[name] = _as_kind_of(known[name], value, name)
            choices = get_args(get_type_hints(type(self))[name])
            if choices and changed[name] not in choices:
                raise UsageError(f"The switch '{name}' is not '{value}'.", f"Choose one of {', '.join(choices)}.")
        recipe = type(self)(**(known | changed))
        recipe.check_switches()
        return recipe

    def check_switches(self) -> None:
        """Raises an error where switches do not go together.

        Raises:
            UsageError: they do not.
        """


def _as_kind_of(own: Any, value: Any, name: str) -> Any:
    """A switch's value from text or number, of the kind of its default."""
    text = str(value).strip().lower()
    if isinstance(own, bool):
        if text not in ("true", "false", "1", "0", "1.0", "0.0", "yes", "no"):
            raise UsageError(f"The switch '{name}' is on or off, not '{value}'.", "Write true or false.")
        return text in ("true", "1", "1.0", "yes")
    if isinstance(own, int | float):
        try:
            number = type(own)(float(text))
        except (ValueError, OverflowError):
            raise UsageError(f"The switch '{name}' is a number, not '{value}'.") from None
        low, high = RANGES[name]
        # Written so that it holds of what is no number, too.
        if not (low <= number <= high and math.isfinite(number)):
            upto = f"between {low:g} and {high:g}" if math.isfinite(high) else f"{low:g} or more"
            raise UsageError(f"The switch '{name}' is {upto}, not {value}.", f"Leave it out for {own:g}.")
        return number
    return str(value)
