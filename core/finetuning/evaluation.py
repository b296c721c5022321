"""What a model says about labelled pixels, each seen with the surroundings that it has in a map."""

from __future__ import annotations

import math
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

PIECE = 128
"""Side of the pieces, in reference pixels, that large features are shown in."""

SIDE_STEP = 32
"""Windows have sides of a multiple of this, so that few sizes occur: the first convolution of a new size is slow."""


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
) -> Predictions:
    """Scores of all pixels of some features.

    Args:
        model: in evaluation mode.
        specification: of the model.
        data: blocks around the labels.
        features: (n_features,) bool.
        device: the model's.
    """
    chosen = data.pixels[features[data.pixels[:, 3]]]
    step = math.lcm(SIDE_STEP, model_step(specification))
    margin = receptive_radius(specification)
    scores = np.empty((len(chosen), specification.n_classes), np.float32)
    keys = np.stack([chosen[:, 3], chosen[:, 0] // PIECE, chosen[:, 1] // PIECE], axis=1)
    _, piece_of = np.unique(keys, axis=0, return_inverse=True)
    order = np.argsort(piece_of, kind="stable")
    for piece in np.split(order, np.flatnonzero(np.diff(piece_of[order])) + 1):
        columns, rows = chosen[piece, 0], chosen[piece, 1]
        around = _window_around(columns, rows, margin, step, data.scene.grid, model_step(specification))
        seen = data.window(around)
        inputs = {name: torch.from_numpy(values)[None].to(device) for name, values in seen.values.items()}
        with torch.inference_mode():
            output = model(inputs)[0].float().cpu().numpy()
        scores[piece] = output[:, rows - around.row, columns - around.column].T
    return Predictions(scores, chosen[:, 2].copy(), chosen[:, 3].copy())


def context_reach(specification: ModelSpecification) -> int:
    """Reference pixels around a label that ``predict_labelled`` shows to the model."""
    return receptive_radius(specification) + math.lcm(SIDE_STEP, model_step(specification))


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
    scores = predictions.scores.astype(np.float64) / temperature
    scores -= scores.max(axis=1, keepdims=True)
    log_probability = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    losses = -log_probability[np.arange(len(scores)), predictions.classes]
    counts = np.bincount(predictions.classes)
    present = np.flatnonzero(counts)
    return float(np.mean([losses[predictions.classes == index].mean() for index in present]))


def fit_temperature(predictions: Predictions) -> float:
    """The temperature that makes the probabilities of held-out pixels honest (Guo et al. 2017, arXiv:1706.04599).

    Pixels of every class count alike, as in training.
    """
    found = minimize_scalar(
        lambda logarithm: balanced_log_loss(predictions, float(np.exp(logarithm))), bounds=(-2.0, 2.0), method="bounded"
    )
    return float(np.exp(found.x))
