"""How honest the probabilities of a trained model are, on labels that it has not learned from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from core.assessment.calibration import Calibration, reliability
from core.finetuning.evaluation import Predictions, fit_temperature
from core.finetuning.networks.loop import TrainingResult
from core.jobs.events import JobContext
from core.models.fusion_model import FusionModel

LEAST_PIXELS = 50
"""Of fewer, the bins of a reliability curve hold a handful each, and the error is that of chance."""


def measured_calibration(result: TrainingResult, block: NDArray[np.int64], seed: int) -> Calibration | None:
    """How honest the probabilities of the delivered model of a training are; see ``calibration_of``."""
    if result.calibration is None:
        return None
    return calibration_of(result.calibration, result.temperature, not isinstance(result.model, FusionModel), block, seed)


def calibration_of(
    told: Predictions, temperature: float, is_cross_validated: bool, block: NDArray[np.int64], seed: int
) -> Calibration | None:
    """How honest the probabilities of a model are.

    Its temperature was fitted on the only pixels there are to measure it on, and looks better on them than elsewhere. So
    the blocks of ground are dealt into two halves; what is measured on each half is scaled by the temperature of the other.
    What else was chosen on these pixels, such as the epoch or the members of a vote and their temperatures, is not undone.

    Args:
        told: what the model said of pixels that it had not learned from, before its temperature, which was fitted on them.
        temperature: of the model.
        is_cross_validated: whether they are those of a cross-validation.
        block: (n_features,) the block of ground of each feature.
        seed: of the halves.

    Returns:
        None where it cannot be measured: with fewer than ``LEAST_PIXELS`` pixels or two blocks of ground, or where a half has
        one class only, on which no temperature can be fitted.
    """
    if len(told.classes) < LEAST_PIXELS:
        return None
    ground = block[told.feature]
    is_second = _second_half(ground, told.classes, seed)
    halves = [_rows(told, is_second == half) for half in (False, True)]
    if min(len(np.unique(half.classes)) for half in halves) < 2:
        return None
    of_other_half = np.where(is_second, fit_temperature(halves[0]), fit_temperature(halves[1]))
    scores = told.scores.astype(np.float64)
    return Calibration(
        before=reliability(softmax(scores, axis=1), told.classes),
        after=reliability(softmax(scores / of_other_half[:, None], axis=1), told.classes),
        same_pixels_error=reliability(softmax(scores / temperature, axis=1), told.classes).expected_error,
        temperature=temperature,
        blocks=len(np.unique(ground)),
        is_cross_validated=is_cross_validated,
    )


def _second_half(ground: NDArray[np.int64], classes: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """(n,) whether a pixel is in the second half of the blocks; both have about as much of each class.

    Args:
        ground: (n,) the block of each pixel.
        classes: (n,) the label of each pixel.
        seed: of the order among blocks of a size.
    """
    blocks, place = np.unique(ground, return_inverse=True)
    counts = np.zeros((len(blocks), int(classes.max()) + 1))
    np.add.at(counts, (place.reshape(-1), classes), 1)
    shares = counts / np.maximum(counts.sum(axis=0), 1)
    order = np.random.default_rng(seed).permutation(len(blocks))
    # The large ones first: the small ones then make up for what they leave uneven.
    order = order[np.argsort(-shares[order].sum(axis=1), kind="stable")]
    sums = np.zeros((2, counts.shape[1]))
    is_second = np.zeros(len(blocks), bool)
    for number in order:
        # Where there is less of the block's own classes, then where there is less of all.
        half = min((0, 1), key=lambda each: (float(sums[each] @ shares[number]), float(sums[each].sum())))
        sums[half] += shares[number]
        is_second[number] = bool(half)
    return np.asarray(is_second[place.reshape(-1)])


def _rows(predictions: Predictions, rows: NDArray[np.bool_]) -> Predictions:
    return Predictions(predictions.scores[rows], predictions.classes[rows], predictions.feature[rows])


def tell_calibration(context: JobContext, calibration: Calibration | None) -> None:
    """Says how honest the probabilities are, or that nobody knows."""
    if calibration is None:
        context.info(f"Expected calibration error: {not_measured()}")
        return
    context.info(
        f"Expected calibration error of the probabilities: {calibration.expected_error:.3f}, and "
        f"{calibration.before.expected_error:.3f} before temperature scaling, on {calibration.pixels} labelled pixels in "
        f"{calibration.blocks} blocks of ground."
    )


def not_measured() -> str:
    """Why there may be no number."""
    return (
        f"it could not be measured. It takes {LEAST_PIXELS} labelled pixels that were not learned from, in blocks of ground "
        "that can be dealt into two halves of at least two classes each."
    )
