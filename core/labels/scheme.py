"""Classes: their codes in the map, their names and their colours."""

from __future__ import annotations

import re
from dataclasses import dataclass

NODATA_CODE = 0
"""The value of a class raster where nothing was mapped; no class may have it."""

_COLOUR = re.compile(r"#[0-9a-f]{6}")


@dataclass(frozen=True)
class LandCoverClass:
    """One class.

    Attributes:
        code: the value in the class raster, 1 to 255.
        name: as shown to the user.
        colour: ``#rrggbb``, lower case.
        value: what the label field holds for this class, as text; the name where that is what the field holds.
    """

    code: int
    name: str
    colour: str
    value: str

    def __post_init__(self) -> None:
        if not 1 <= self.code <= 255:
            raise ValueError(f"A class code lies between 1 and 255; '{self.name}' has {self.code}.")
        if not _COLOUR.fullmatch(self.colour):
            raise ValueError(f"A colour is written #rrggbb; '{self.name}' has '{self.colour}'.")


@dataclass(frozen=True)
class ClassScheme:
    """An ordered set of classes; a model's output channel ``i`` stands for ``classes[i]``."""

    name: str
    classes: tuple[LandCoverClass, ...]

    def __post_init__(self) -> None:
        for what in ("code", "value"):
            values = [getattr(entry, what) for entry in self.classes]
            if len(set(values)) != len(values):
                raise ValueError(f"The class scheme '{self.name}' has the same {what} twice: {values}.")

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(entry.name for entry in self.classes)

    @property
    def codes(self) -> tuple[int, ...]:
        return tuple(entry.code for entry in self.classes)

    @property
    def colours(self) -> tuple[str, ...]:
        return tuple(entry.colour for entry in self.classes)
