"""How sure class probabilities are, pixel by pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ROWS_AT_ONCE = 16
"""Few enough that what is compared stays in the processor's cache."""


def likeliest(probabilities: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """(rows, columns) the likeliest class, the first of several that are alike, and its probability.

    Args:
        probabilities: (n_classes, rows, columns) that sum to one; at most 256 classes.
    """
    shape = probabilities.shape[1:]
    best, highest = np.zeros(shape, np.uint8), probabilities[0].copy()
    for row in range(0, shape[0], _ROWS_AT_ONCE):
        rows = slice(row, row + _ROWS_AT_ONCE)
        for index in range(1, len(probabilities)):
            values = probabilities[index, rows]
            # Indexes grow, so that the largest of those that were ahead is the last.
            ahead = (values > highest[rows]).view(np.uint8) * np.uint8(index)
            np.maximum(best[rows], ahead, out=best[rows])
            np.maximum(highest[rows], values, out=highest[rows])
    return best, highest


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
