"""What a model says about labelled pixels, each seen with the surroundings that it has in a map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import nn

from core.finetuning.training_data import BLOCK, TrainingData
from core.scenes.grid import Window, aligned

CONTEXT = BLOCK
"""Reference pixels around a block that are shown to the model with it."""


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


def predict_labelled(model: nn.Module, data: TrainingData, features: NDArray[np.bool_], device: torch.device) -> Predictions:
    """Scores of all pixels of some features.

    Args:
        model: in evaluation mode.
        data: blocks around the labels.
        features: (n_features,) bool.
        device: the model's.
    """
    chosen = data.pixels[features[data.pixels[:, 3]]]
    blocks = {aligned(data.scene.grid, Window(column, row, 1, 1), BLOCK) for column, row in chosen[:, :2].tolist()}
    scores, classes, feature = [], [], []
    for block in sorted(blocks, key=lambda window: (window.row, window.column)):
        around = block.padded(CONTEXT)
        seen = data.window(around)
        inputs = {name: torch.from_numpy(values)[None].to(device) for name, values in seen.values.items()}
        with torch.inference_mode():
            output = model(inputs)[0].float().cpu().numpy()
        inner = block.slices_within(around)
        known = (seen.feature[inner] >= 0) & features[seen.feature[inner]]
        scores.append(output[:, inner[0], inner[1]][:, known].T)
        classes.append(seen.classes[inner][known].astype(np.int64))
        feature.append(seen.feature[inner][known].astype(np.int64))
    return Predictions(np.concatenate(scores), np.concatenate(classes), np.concatenate(feature))


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
