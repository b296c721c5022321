"""What became of each class between two maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.errors import UsageError
from core.labels.scheme import ClassScheme, LandCoverClass
from core.labels.schemes import listed
from core.scenes.categorical import red_green_blue

_MOST_CODES = 255
_PALE = 0.7
"""How far the colour of what stayed goes towards white, so that what changed stands out."""
_OF_BEFORE = 0.25
"""Part of the class before in the colour of a change, which tells apart changes to one class."""


@dataclass(frozen=True, eq=False)
class CommonClasses:
    """The classes of two maps by name.

    Attributes:
        names, colours: of all classes that one of the two has, those of the first map first.
        before, after: (256,) int64, code of the first and of the second map to index; -1 = nodata.
        only_before, only_after: names that the other map lacks.
    """

    names: tuple[str, ...]
    colours: tuple[str, ...]
    before: NDArray[np.int64]
    after: NDArray[np.int64]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]


def common_classes(before: ClassScheme, after: ClassScheme) -> CommonClasses:
    """Matches the classes of two maps by their names, whatever their codes and the case of letters.

    Raises:
        UsageError: no name is in both.
    """
    index: dict[str, int] = {}
    names: list[str] = []
    colours: list[str] = []
    tables = []
    for scheme in (before, after):
        table = np.full(256, -1, np.int64)
        for entry in scheme.classes:
            key = _key(entry.name)
            if key not in index:
                index[key] = len(names)
                names.append(entry.name)
                colours.append(entry.colour)
            table[entry.code] = index[key]
        tables.append(table)
    first, second = {_key(name) for name in before.names}, {_key(name) for name in after.names}
    if first.isdisjoint(second):
        raise UsageError(
            f"The two maps have no class name in common: {listed(before.names)} and {listed(after.names)}.",
            "Give both maps the same class names, in a style saved beside them.",
        )
    return CommonClasses(
        tuple(names),
        tuple(colours),
        tables[0],
        tables[1],
        tuple(name for name in before.names if _key(name) not in second),
        tuple(name for name in after.names if _key(name) not in first),
    )


def _key(name: str) -> str:
    return " ".join(name.split()).casefold()


class TransitionAreas:
    """Ground area of every pair of classes, gathered strip by strip.

    Args:
        n_classes: of both maps together.
        row_areas_m2: (rows,) of a pixel.
    """

    def __init__(self, n_classes: int, row_areas_m2: NDArray[np.float64]) -> None:
        self._n_classes = n_classes
        self._row_areas = row_areas_m2
        self._square_metres = np.zeros(n_classes * n_classes)
        self.missing_m2 = 0.0

    def add(self, before: NDArray[np.int64], after: NDArray[np.int64], row: int) -> None:
        """Counts a strip of class indices, -1 = nodata; ``row`` is the raster's row of its first row."""
        # Row after row in one order: the sum must not depend on how the rows came in strips.
        for offset, (one, other) in enumerate(zip(before, after, strict=True)):
            both = (one >= 0) & (other >= 0)
            pairs = one[both] * self._n_classes + other[both]
            area = float(self._row_areas[row + offset])
            counts = np.bincount(pairs, minlength=len(self._square_metres))
            self._square_metres += counts * area
            self.missing_m2 += area * int(both.size - both.sum())

    @property
    def hectares(self) -> NDArray[np.float64]:
        """(K, K) from the row's class to the column's."""
        return self._square_metres.reshape(self._n_classes, self._n_classes) / 10_000


def transition_scheme(classes: CommonClasses, hectares: NDArray[np.float64]) -> tuple[ClassScheme, NDArray[np.uint8]]:
    """The codes of a raster of transitions: of those that occur, what stayed first, then by class before and after.

    Where there are more than 255, the smallest ones share the last code.

    Args:
        classes: of the two maps.
        hectares: (K, K) of each transition.

    Returns:
        The scheme, and (K, K) codes; 0 = does not occur.
    """
    pairs = sorted(
        ((int(one), int(other)) for one, other in np.argwhere(hectares > 0)), key=lambda pair: (pair[0] != pair[1], pair)
    )
    own_code = pairs
    if len(pairs) > _MOST_CODES:
        largest = sorted(pairs, key=lambda pair: (-hectares[pair], pair))[: _MOST_CODES - 1]
        own_code = [pair for pair in pairs if pair in set(largest)]
    codes = np.zeros(hectares.shape, np.uint8)
    entries = []
    for code, (one, other) in enumerate(own_code, 1):
        codes[one, other] = code
        if one == other:
            name, colour = f"{classes.names[one]}, unchanged", _mixed(classes.colours[one], "#ffffff", _PALE)
        else:
            name = f"{classes.names[one]} -> {classes.names[other]}"
            colour = _mixed(classes.colours[other], classes.colours[one], _OF_BEFORE)
        entries.append(LandCoverClass(code, name, colour, str(code)))
    if len(own_code) < len(pairs):
        for pair in pairs:
            codes[pair] = codes[pair] or _MOST_CODES
        entries.append(LandCoverClass(_MOST_CODES, "Other changes", "#808080", str(_MOST_CODES)))
    return ClassScheme("transitions", tuple(entries)), codes


def _mixed(colour: str, other: str, part: float) -> str:
    mixed = [
        round((1 - part) * one + part * two) for one, two in zip(red_green_blue(colour), red_green_blue(other), strict=True)
    ]
    return "#" + "".join(f"{value:02x}" for value in mixed)
