"""How sure class probabilities are, pixel by pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def confidence(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """(rows, columns) probability of the likeliest class.

    Args:
        probabilities: (n_classes, rows, columns) that sum to one.
    """
    return np.asarray(probabilities.max(axis=0), np.float32)


def entropy(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """(rows, columns) Shannon's entropy as part of the largest possible: 0 = one class for certain, 1 = all alike.

    Args:
        probabilities: (n_classes, rows, columns) that sum to one.
    """
    logarithms = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    return np.asarray(-(probabilities * logarithms).sum(axis=0) / np.log(len(probabilities)), np.float32)


def margin(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """(rows, columns) how far the likeliest class is ahead of the next, from 0 to 1.

    Args:
        probabilities: (n_classes, rows, columns) that sum to one, of two classes or more.
    """
    first_two = np.partition(probabilities, -2, axis=0)[-2:]
    return np.asarray(first_two[1] - first_two[0], np.float32)
