"""How honest probabilities are: whether, of the pixels told with a confidence of 0.8, four in five are right.

The confidence of a pixel is the probability of its most probable class, as in Guo et al. (2017), *On calibration of modern
neural networks*, ICML, arXiv:1706.04599. Pixels count alike, so a large polygon counts for more than a small one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 15
"""As in the paper's experiments."""


@dataclass(frozen=True)
class Reliability:
    """The points of a reliability curve, a value a bin of confidence, from the lowest bin to the highest.

    Attributes:
        confidence: mean confidence of the bin's pixels, 0..1; NaN where the bin is empty.
        accuracy: share of them whose most probable class is the label, 0..1; NaN where the bin is empty.
        count: pixels.
    """

    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    count: tuple[int, ...]

    @property
    def expected_error(self) -> float:
        """Expected calibration error, 0..1: the mean over the pixels of how far accuracy and confidence of their bin lie
        apart (Guo et al. 2017, equation 3); NaN without pixels."""
        pixels = sum(self.count)
        bins = zip(self.confidence, self.accuracy, self.count, strict=True)
        gaps = [count * abs(accuracy - confidence) for confidence, accuracy, count in bins if count]
        return math.fsum(gaps) / pixels if pixels else math.nan


@dataclass(frozen=True)
class Calibration:
    """How honest the probabilities of a trained model are, before and after temperature scaling.

    Attributes:
        before: at temperature 1.
        after: at temperatures that were fitted without the pixels they are used on.
        same_pixels_error: expected calibration error at the model's temperature, on the pixels that it was fitted on.
        temperature: the model's.
        blocks: of ground that the pixels lie in.
        is_cross_validated: whether the pixels are all those of a cross-validation, not those held out once.
    """

    before: Reliability
    after: Reliability
    same_pixels_error: float
    temperature: float
    blocks: int
    is_cross_validated: bool

    @property
    def expected_error(self) -> float:
        """Of the probabilities that the model gives, as far as that can be known."""
        return self.after.expected_error

    @property
    def pixels(self) -> int:
        """That it was measured on."""
        return sum(self.after.count)


def reliability(probabilities: NDArray[np.floating], classes: NDArray[np.integer], n_bins: int = BINS) -> Reliability:
    """The reliability curve over bins of equal width, of which bin m holds the confidences in ((m - 1) / M, m / M].

    Args:
        probabilities: (n, K), 0..1, of each class.
        classes: (n,) the labels, 0 to K - 1.
        n_bins: M.

    Raises:
        ValueError: shapes that do not fit, no bin, or probabilities that are none.
    """
    probabilities, classes = np.asarray(probabilities, np.float64), np.asarray(classes)
    if probabilities.ndim != 2 or classes.shape != probabilities.shape[:1]:
        raise ValueError(f"Probabilities are (n, K) and labels (n,); got {probabilities.shape} and {classes.shape}.")
    if n_bins < 1:
        raise ValueError(f"At least one bin is needed; got {n_bins}.")
    if not ((probabilities >= 0) & (probabilities <= 1 + 1e-6)).all():
        raise ValueError("Probabilities lie between 0 and 1.")
    confidence = probabilities.max(axis=1)
    is_right = probabilities.argmax(axis=1) == classes
    place = np.digitize(confidence, np.arange(1, n_bins) / n_bins, right=True)
    count = np.bincount(place, minlength=n_bins)
    return Reliability(
        _means(np.bincount(place, confidence, n_bins), count),
        _means(np.bincount(place, is_right, n_bins), count),
        tuple(int(value) for value in count),
    )


def _means(sums: NDArray[np.number], count: NDArray[np.integer]) -> tuple[float, ...]:
    return tuple(float(total / n) if n else math.nan for total, n in zip(sums, count, strict=True))
