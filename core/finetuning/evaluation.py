"""What a model says about labelled pixels, each seen with the surroundings that it has in a map."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import nn

from core.finetuning.training_data import TrainingData
from core.models.registry import model_step, receptive_radius
from core.models.specification import ModelSpecification
from core.scenes.grid import Grid, Window, aligned
from core.scenes.reading import usable_pixels

PIECE = 128
"""Side of the pieces, in reference pixels, that large features are shown in."""

SIDE_STEP = 32
"""Windows have sides of a multiple of this, so that few sizes occur: the first convolution of a new size is slow."""


DELIVERED, COMPARED = 1.0, 2.0
"""How far the logarithm of a temperature is likely to lie from 0: of a model that is delivered, and where models, or members
of a vote, are compared at the temperature that suits each best. Measured on four scenes with 3, 10 and 30 polygons a class
(``scripts/benchmarks/temperatures.py``): limits between 0.5 and 2 are alike, better than none at few polygons and better than a
temperature of 1 at many."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Scores of labelled pixels.

    Attributes:
        scores: (n, n_classes) float32, before the softmax.
        classes: (n,) int64, the label.
        feature: (n,) int64, the feature it comes from.
    """

    scores: NDArray[np.float32]
    classes: NDArray[np.int64]
    feature: NDArray[np.int64]

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(n,) the class with the highest score."""
        return np.asarray(self.scores.argmax(axis=1), dtype=np.int64)


def predict_labelled(
    model: nn.Module,
    specification: ModelSpecification,
    data: TrainingData,
    features: NDArray[np.bool_],
    device: torch.device,
    inputs: Collection[str] | None = None,
) -> Predictions:
    """Scores of all pixels of some features.

    Args:
        model: in evaluation mode.
        specification: of the model.
        data: blocks around the labels.
        features: (n_features,) bool.
        device: the model's.
        inputs: names of those that the model is shown; all by default. Pixels that none of them covers are left out.
    """
    chosen = data.pixels[features[data.pixels[:, 3]]]
    margin = receptive_radius(specification)
    scores = np.empty((len(chosen), specification.n_classes), np.float32)
    usable = np.ones(len(chosen), bool)
    if margin is None:
        pieces = _tiles(chosen, specification.window, data.scene.grid, model_step(specification))
    else:
        pieces = windows_around(chosen, margin, specification, data.scene.grid)
    for piece, around in pieces:
        columns, rows = chosen[piece, 0], chosen[piece, 1]
        seen = {name: values for name, values in data.window(around).values.items() if inputs is None or name in inputs}
        if inputs is not None:
            covered = usable_pixels(seen, data.scene.acquisitions, allows_missing=True)
            usable[piece] = covered[rows - around.row, columns - around.column]
        tensors = {name: torch.from_numpy(values)[None].to(device) for name, values in seen.items()}
        with torch.inference_mode():
            output = model(tensors)[0].float().cpu().numpy()
        scores[piece] = output[:, rows - around.row, columns - around.column].T
    return Predictions(scores[usable], chosen[usable, 2], chosen[usable, 3])


def context_reach(specification: ModelSpecification) -> int:
    """Reference pixels around a label that ``predict_labelled`` shows to the model."""
    radius = receptive_radius(specification)
    if radius is None:
        return specification.window + model_step(specification)
    return radius + math.lcm(SIDE_STEP, model_step(specification))


def windows_around(
    pixels: NDArray[np.int64], margin: int, specification: ModelSpecification, grid: Grid
) -> Iterator[tuple[NDArray[np.int64], Window]]:
    """Rows of ``pixels`` that are shown together, and a window that shows them with a margin; each pixel once.

    Features of one piece of ground share a window where that is smaller than a window each: small polygons close to
    each other would otherwise have the same surroundings computed again and again.

    Args:
        pixels: (n, 4) as ``TrainingData.pixels``.
        margin: reference pixels.
        specification: of the model whose lattice the windows lie on.
        grid: of the scene.
    """
    lattice_step = model_step(specification)
    step = math.lcm(SIDE_STEP, lattice_step)
    ground = np.stack([pixels[:, 0] // PIECE, pixels[:, 1] // PIECE], axis=1)
    for together in _groups(ground):
        joint = _window_around(pixels[together, 0], pixels[together, 1], margin, step, grid, lattice_step)
        apart = [together[rows] for rows in _groups(pixels[together, 3:4])]
        windows = [_window_around(pixels[rows, 0], pixels[rows, 1], margin, step, grid, lattice_step) for rows in apart]
        if joint.width * joint.height <= sum(window.width * window.height for window in windows):
            yield together, joint
        else:
            yield from zip(apart, windows, strict=True)


def _tiles(pixels: NDArray[np.int64], side: int, grid: Grid, lattice_step: int) -> Iterator[tuple[NDArray[np.int64], Window]]:
    """As ``windows_around`` for models with a global view: windows of the size of a map's tiles, the pixels in their middle."""
    tile = -(-side // lattice_step) * lattice_step
    half = max(1, tile // 2)
    for together in _groups(np.stack([pixels[:, 0] // half, pixels[:, 1] // half], axis=1)):
        column, row = (int(pixels[together, axis].min()) for axis in (0, 1))
        corner = aligned(grid, Window(column // half * half - tile // 4, row // half * half - tile // 4, 1, 1), lattice_step)
        # Brought to the lattice, the corner lies up to a step too far north-west.
        spare = tile + lattice_step if tile // 4 + half + lattice_step > tile else tile
        yield together, Window(corner.column, corner.row, spare, spare)


def _groups(keys: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Row numbers of equal keys, in the order of the keys."""
    _, group = np.unique(keys, axis=0, return_inverse=True)
    group = group.reshape(-1)
    order = np.argsort(group, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(group[order])) + 1) if len(order) else []


def _window_around(
    columns: NDArray[np.int64], rows: NDArray[np.int64], margin: int, step: int, grid: Grid, lattice_step: int
) -> Window:
    """A window around pixels with its corner on the lattice and sides of a multiple of ``step``."""
    first = Window(int(columns.min()) - margin, int(rows.min()) - margin, 1, 1)
    corner = aligned(grid, first, lattice_step)
    width = int(columns.max()) + margin + 1 - corner.column
    height = int(rows.max()) + margin + 1 - corner.row
    return Window(corner.column, corner.row, -(-width // step) * step, -(-height // step) * step)


def balanced_log_loss(predictions: Predictions, temperature: float = 1.0) -> float:
    """Mean negative log probability of the label, every class that occurs counting alike."""
    return float(_weighted_losses(predictions, temperature).sum())


def _weighted_losses(predictions: Predictions, temperature: float) -> NDArray[np.float64]:
    """(n,) what each pixel adds to the balanced log loss."""
    scores = predictions.scores.astype(np.float64) / temperature
    scores -= scores.max(axis=1, keepdims=True)
    log_probability = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    losses = -log_probability[np.arange(len(scores)), predictions.classes]
    counts = np.bincount(predictions.classes)
    return np.asarray(losses / (np.count_nonzero(counts) * counts[predictions.classes]))


def is_clearly_better(candidate: Predictions, start: Predictions, errors: float = 1.0) -> bool:
    """Whether a model's calibrated log loss is lower than that of another by more than so many standard errors of the
    difference over the held-out features; with one it is the rule of Breiman et al. (1984, section 3.4.3) for the simpler
    of two models.

    Args:
        candidate, start: of the same pixels in the same order.
        errors: standard errors that it has to be lower by.
    """
    own, other = (_weighted_losses(each, fit_temperature(each, COMPARED)) for each in (candidate, start))
    gains = other - own
    by_feature = np.bincount(np.unique(start.feature, return_inverse=True)[1], gains)
    error = np.sqrt(len(by_feature) * by_feature.var(ddof=1)) if len(by_feature) > 1 else 0.0
    return bool(by_feature.sum() > errors * error)


def calibrated_log_loss(predictions: Predictions) -> float:
    """The log loss at the temperature that suits the predictions best: it is fitted anyhow before a model is delivered, and
    a model should not be chosen for its modesty."""
    return balanced_log_loss(predictions, fit_temperature(predictions, COMPARED))


def fit_temperature(predictions: Predictions, spread: float = DELIVERED) -> float:
    """The temperature that makes the probabilities of held-out pixels honest (Guo et al. 2017, arXiv:1706.04599).

    Pixels of every class count alike, as in training. Few polygons say little of a temperature: where all of their pixels
    are told right, it would make a model certain of everything. So its logarithm is taken to be normally distributed around
    0 before they are seen, and as many labels are counted as there are features, since the pixels of one resemble each
    other (inferred; the mode of the posterior).

    Args:
        predictions: of held-out pixels.
        spread: standard deviation of the logarithm.
    """
    features = len(np.unique(predictions.feature))

    def cost(logarithm: float) -> float:
        return features * balanced_log_loss(predictions, float(np.exp(logarithm))) + logarithm**2 / (2 * spread**2)

    return float(np.exp(minimize_scalar(cost, bounds=(-2.0, 2.0), method="bounded").x))
