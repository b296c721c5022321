"""Where a label would teach a model most: units of ground that it doubts, no two of them alike, no two in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from core.mapping.uncertainty import entropy

POOL = 30
"""So many times the places wanted are looked at, the most doubtful ones: the beta of Zhdanov (2019), who tried 10 and 50.
Simulated on two scenes with five seeds each, 30 was better than 10 and no worse than 50."""

KEPT = 4
"""Times the pool that is kept of the scene while it is searched."""

STRANGE = 2.0
"""Distance from the labelled ground, in units of what is familiar, beyond which ground is strange: the model has not seen
such."""

STRANGE_SHARE = 0.1
"""Of the places, at most so many on strange ground."""

APART = 2.0
"""Places lie at least so many diameters of a unit from each other."""


@dataclass(frozen=True, eq=False)
class Units:
    """Pieces of ground that could be labelled.

    Attributes:
        shapes: (n,) polygons.
        centres: (n, 2) x and y on the ground.
        diameters: (n,) of a circle of the same area, in the same units.
        probabilities: (n, n_classes) mean over the unit's pixels.
        novelty: (n,) mean distance from the labelled ground, in units of what is familiar.
        features: (n, d) where units lie that look alike.
    """

    shapes: NDArray[Any]
    centres: NDArray[np.float64]
    diameters: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    novelty: NDArray[np.float64]
    features: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.shapes)

    def some(self, rows: NDArray[Any]) -> Units:
        """Those of some rows."""
        return Units(
            self.shapes[rows],
            self.centres[rows],
            self.diameters[rows],
            self.probabilities[rows],
            self.novelty[rows],
            self.features[rows],
        )


def joined(parts: Sequence[Units]) -> Units:
    """All units of several parts of the ground."""
    names = ("shapes", "centres", "diameters", "probabilities", "novelty", "features")
    return Units(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def doubt(units: Units) -> NDArray[np.float64]:
    """(n,) from 0 to 1: the entropy of a unit's mean probabilities."""
    return entropy(units.probabilities.T.astype(np.float32)).astype(np.float64)


def candidates(units: Units, count: int) -> NDArray[np.int64]:
    """(m,) rows of ``units`` among which ``choose_places`` finds what it finds among all, but for groups cut anew: the most
    doubtful and the strangest."""
    doubtful = np.argsort(-doubt(units), kind="stable")[: KEPT * POOL * count]
    return np.union1d(doubtful, _strange(units)[: POOL * count])


def _strange(units: Units) -> NDArray[np.int64]:
    """Rows of strange ground, the strangest first."""
    rows = np.flatnonzero(units.novelty > STRANGE)
    return rows[np.argsort(-units.novelty[rows], kind="stable")]


def choose_places(units: Units, count: int, seed: int) -> NDArray[np.int64]:
    """The units to label next: a few on strange ground, then the most doubtful first.

    Of the most doubtful units so many groups of look-alikes are made as places are wanted, the doubtful ones weighing more,
    and of each group the one nearest to its middle is taken (Zhdanov 2019, arXiv:1901.05954, algorithm 1). The most doubtful
    of a group is often one of a kind, and its label says little of others: simulated, it was hardly better than a random one.

    A model can be sure of ground unlike any that was labelled, so some places are kept for that. They are few, because
    strange ground is mostly rare: simulated with all places there first, the next map was worse than from random ones.

    Args:
        units: to choose from.
        count: places wanted; fewer are found where the ground has not enough apart from each other.
        seed: of the groups.

    Returns:
        (m,) rows of ``units``.
    """
    doubts = doubt(units)
    order = np.argsort(-doubts, kind="stable")
    chosen: list[int] = []
    _take_middles(_strange(units)[: POOL * count], np.ones(len(units)), int(STRANGE_SHARE * count), units, seed, chosen)
    is_strange = len(chosen)
    _take_middles(order[: POOL * count], np.maximum(doubts, 1e-6), count - is_strange, units, seed, chosen)
    # Groups whose units all lie beside places that were taken leave some over.
    for _ in range(count - len(chosen)):
        _take_first(order, units, chosen)
    rows = np.array(chosen, np.int64)
    rest = rows[is_strange:]
    return np.concatenate([rows[:is_strange], rest[np.argsort(-doubts[rest], kind="stable")]])


def _take_middles(
    pool: NDArray[np.int64], weights: NDArray[np.float64], count: int, units: Units, seed: int, chosen: list[int]
) -> None:
    """Adds of each of so many groups of a pool the unit nearest to its middle that lies apart from all that were chosen."""
    groups = min(count, len(np.unique(units.features[pool], axis=0)))
    if not groups:
        return
    features = units.features[pool]
    found = KMeans(groups, n_init=4, random_state=seed).fit(features, sample_weight=weights[pool])
    distances = np.linalg.norm(features - found.cluster_centers_[found.labels_], axis=1)
    for group in range(groups):
        own = np.flatnonzero(found.labels_ == group)
        _take_first(pool[own[np.argsort(distances[own], kind="stable")]], units, chosen)


def _take_first(rows: NDArray[np.int64], units: Units, chosen: list[int]) -> None:
    """Adds the first of some rows that lies apart from all that were chosen."""
    for row in rows.tolist():
        if not chosen:
            chosen.append(row)
            return
        distances = np.hypot(*(units.centres[chosen] - units.centres[row]).T)
        if (distances >= APART * np.maximum(units.diameters[chosen], units.diameters[row])).all():
            chosen.append(row)
            return


def reason(probabilities: NDArray[np.float64], novelty: float, names: Sequence[str]) -> str:
    """Why a unit was chosen, in words.

    Args:
        probabilities: (n_classes,) of the unit.
        novelty: its distance from the labelled ground.
        names: of the classes.
    """
    first, second = np.argsort(-probabilities, kind="stable")[:2]
    if novelty > STRANGE:
        return f"unlike all labels ({novelty:.1f} times as far as most of them); the model says {names[first]}"
    return f"undecided: {names[first]} {probabilities[first]:.0%}, {names[second]} {probabilities[second]:.0%}"
