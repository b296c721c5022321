"""How many units a stratified sample of reference needs, and how they are shared among the strata.

The size follows Cochran (1977), *Sampling Techniques*, eq. 5.25, which Olofsson et al. (2014), *Remote Sensing of
Environment* 148, 42-57, give as eq. 13. The shares are those of their section 5.2. Per stratum h of N_h pixels with the
weight W_h and an expected user's accuracy U_h, the expected standard deviation of a unit is S_h = sqrt(U_h (1 - U_h)).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Allocation = Literal["balanced", "proportional", "equal", "optimal"]

FEWEST_UNITS = 2
"""A stratum with fewer units has no variance, and then the whole map has no interval."""


def needed_size(weights: FloatArray, pixels: IntArray, users_accuracies: FloatArray, target: float) -> int:
    """Units that give overall accuracy a standard error of ``target``, Cochran (1977) eq. 5.25.

    n = (sum W_h S_h)^2 / (target^2 + sum W_h S_h^2 / N). Without the second term of the denominator, which tells in small
    maps only, it is eq. 13 of Olofsson et al. (2014). It is exact for the optimal allocation; others need some more.

    Args:
        weights: (H,) shares of the whole area, summing to 1.
        pixels: (H,) pixels.
        users_accuracies: (H,) expected, between 0 and 1.
        target: standard error of overall accuracy, above 0.
    """
    variances = users_accuracies * (1.0 - users_accuracies)
    spread = float((weights * np.sqrt(variances)).sum()) ** 2
    exact = spread / (target**2 + float((weights * variances).sum()) / int(pixels.sum()))
    # Without the trim a size that is a whole number but for rounding would be one too many.
    return int(np.ceil(round(exact, 6)))


def needed_for_allocation(
    weights: FloatArray,
    pixels: IntArray,
    users_accuracies: FloatArray,
    target: float,
    allocation: Allocation,
    minimum: int,
) -> int:
    """Units that give overall accuracy a standard error of ``target`` when they are shared by a rule; see ``allocate``.

    The error falls with the number of units, all but for the rounding to whole ones.
    """
    low, high = int(smallest_shares(pixels, allocation, minimum).sum()), int(pixels.sum())

    def suffices(size: int) -> bool:
        units = allocate(size, pixels, weights, users_accuracies, allocation, minimum)
        return expected_standard_error(units, pixels, weights, users_accuracies) <= target

    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle + 1, high)
    return low


def allocate(
    size: int, pixels: IntArray, weights: FloatArray, users_accuracies: FloatArray, allocation: Allocation, minimum: int
) -> IntArray:
    """Units of each stratum, (H,), which sum to ``size`` as far as the strata have room.

    ``proportional`` shares by area, ``equal`` alike, ``optimal`` by W_h S_h (Neyman; Cochran 1977, eq. 5.26). ``balanced``
    shares by area, but gives each stratum at least ``minimum`` (Olofsson et al. 2014, section 5.2). Every stratum gets at
    least ``FEWEST_UNITS``. A stratum that is smaller than its share is taken whole, and the others share the rest.

    Args:
        size: of the whole sample; at least the sum of the smallest shares.
        pixels: (H,) of each stratum, at least 1.
        weights: (H,) shares of the whole area.
        users_accuracies: (H,) expected, between 0 and 1.
        allocation: the rule.
        minimum: of ``balanced``.
    """
    scores = {
        "balanced": weights,
        "proportional": weights,
        "equal": np.ones(len(weights)),
        "optimal": weights * np.sqrt(users_accuracies * (1.0 - users_accuracies)),
    }[allocation]
    return _shared(size, scores, smallest_shares(pixels, allocation, minimum), pixels)


def smallest_shares(pixels: IntArray, allocation: Allocation, minimum: int) -> IntArray:
    """Units that each stratum gets in any case, (H,); see ``allocate``."""
    lowest = minimum if allocation == "balanced" else FEWEST_UNITS
    shares: IntArray = np.minimum(max(lowest, FEWEST_UNITS), pixels)
    return shares


def _shared(size: int, scores: FloatArray, lower: IntArray, upper: IntArray) -> IntArray:
    """Whole numbers between the bounds whose sum is ``size``, in proportion to the scores wherever no bound holds."""
    # The sum of the bounded shares rises in straight pieces with the factor that multiplies the scores.
    factors = np.unique(np.concatenate([lower / scores, upper / scores]))
    sums = np.clip(factors[:, None] * scores, lower, upper).sum(axis=1)
    shares = np.clip(np.interp(size, sums, factors) * scores, lower, upper)
    # Rounding errors must not cost a unit where a share is a whole number.
    units = np.floor(shares + 1e-9).astype(np.int64)
    left = min(size, int(upper.sum())) - int(units.sum())
    order = np.argsort(-(shares - units), kind="stable")
    units[order[: max(left, 0)]] += 1
    bounded: IntArray = np.minimum(units, upper)
    return bounded


def expected_standard_error(units: IntArray, pixels: IntArray, weights: FloatArray, users_accuracies: FloatArray) -> float:
    """Standard error of overall accuracy that a sample will have if the expectations hold.

    Cochran (1977) eq. 5.7, the variance of a stratified mean, with the finite population correction.

    Args:
        units, pixels, weights, users_accuracies: (H,) of the strata, every one with a unit.
    """
    variances = users_accuracies * (1.0 - users_accuracies)
    return float(np.sqrt((weights**2 * variances / units * (1.0 - units / pixels)).sum()))
