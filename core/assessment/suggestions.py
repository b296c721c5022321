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

STRANGE = 2.0
"""Distance from the labelled ground, in units of what is familiar, beyond which a unit counts as doubtful whatever the model
says: it has not seen such ground."""

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
    """(n,) from 0 to 1: the entropy of a unit's mean probabilities; 1 on strange ground."""
    own = entropy(units.probabilities.T.astype(np.float32)).astype(np.float64)
    return np.where(units.novelty > STRANGE, 1.0, own)


def choose_places(units: Units, count: int, seed: int) -> NDArray[np.int64]:
    """The units to label next, the most doubtful first.

    Of the most doubtful units so many groups of look-alikes are made as places are wanted, the doubtful ones weighing more,
    and of each group the one nearest to its middle is taken (Zhdanov 2019, arXiv:1901.05954, algorithm 1). The most doubtful
    of a group is often one of a kind, and its label says little of others: simulated, it was hardly better than a random one.

    Args:
        units: to choose from.
        count: places wanted; fewer are found where the ground has not enough apart from each other.
        seed: of the groups.

    Returns:
        (m,) rows of ``units``.
    """
    doubts = doubt(units)
    order = np.argsort(-doubts, kind="stable")
    pool = order[: POOL * count]
    if not len(pool):
        return np.empty(0, np.int64)
    groups = min(count, len(np.unique(units.features[pool], axis=0)))
    weights = np.maximum(doubts[pool], 1e-6)
    found = KMeans(groups, n_init=4, random_state=seed).fit(units.features[pool], sample_weight=weights)
    distances = np.linalg.norm(units.features[pool] - found.cluster_centers_[found.labels_], axis=1)
    chosen: list[int] = []
    for group in range(groups):
        own = np.flatnonzero(found.labels_ == group)
        _take_first(pool[own[np.argsort(distances[own], kind="stable")]], units, chosen)
    # Groups whose units all lie beside places that were taken leave some over.
    for _ in range(count - len(chosen)):
        _take_first(order, units, chosen)
    rows = np.array(chosen, np.int64)
    return rows[np.argsort(-doubts[rows], kind="stable")]


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
