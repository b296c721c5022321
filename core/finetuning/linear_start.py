"""The linear model that a network with a shortcut starts from.

A few polygons determine a regularised linear model over the statistics of neighbourhoods well, and a network's hundred
thousand weights badly: so the former is fitted first, and the latter learns what to add to it.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from core.finetuning.evaluation import windows_around
from core.finetuning.training_data import TrainingData
from core.models.fusion_model import FusionModel
from core.models.specification import ModelSpecification
from core.models.stems.channels import channels_radius
from core.models.stems.stem import LinearShortcut, StatisticsStem

INVERSE_REGULARISATION = 0.01
"""Of the logistic regression over standardised statistics; between 0.003 and 0.03 little changed on the scenes tried."""

LEAST_SPREAD = 1e-6

MOST_PIXELS = 5000
"""Of a class; more of them change a linear model no longer."""


def fit_linear_start(
    model: FusionModel, specification: ModelSpecification, data: TrainingData, features: NDArray[np.bool_]
) -> None:
    """Fits the shortcut on the labels of some features, and lets the network start by adding nothing.

    Args:
        model: with a shortcut; changed in place.
        specification: of the model.
        data: blocks around the labels.
        features: (n_features,) bool, those to learn from.
    """
    pixels = _thinned(data.pixels[features[data.pixels[:, 3]]])
    shortcuts = {entry.name: _shortcut(model, entry.name) for entry in specification.modalities}
    parts = _channels(model, specification, data, pixels)
    columns = np.concatenate(list(parts.values()), axis=1)
    mean = np.where(np.isfinite(columns).any(axis=0), np.nan_to_num(np.nanmean(columns, axis=0)), 0.0)
    spread = np.maximum(np.nan_to_num(np.nanstd(columns, axis=0)), LEAST_SPREAD)
    # Where an input is missing its channels count as their mean, as in the model, where they then add nothing.
    standardised = np.nan_to_num((columns - mean) / spread)
    estimator = LogisticRegression(C=INVERSE_REGULARISATION, class_weight="balanced", max_iter=3000)
    estimator.fit(standardised, pixels[:, 2])
    present, coefficients, intercepts = estimator.classes_, estimator.coef_, estimator.intercept_
    if len(present) == 2:
        # One line of numbers stands for both classes.
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2
    weights = np.zeros((specification.n_classes, columns.shape[1]))
    weights[present] = coefficients / spread
    # A class without labels in the training part should never win.
    intercept = np.full(specification.n_classes, intercepts.min() - 10.0)
    intercept[present] = intercepts
    first = 0
    for name, part in parts.items():
        own = slice(first, first + part.shape[1])
        shortcuts[name].weight.copy_(torch.from_numpy(weights[:, own]))
        shortcuts[name].bias.copy_(torch.from_numpy(-weights[:, own] @ mean[own]))
        first = own.stop
    model.intercept.copy_(torch.from_numpy(intercept).view(-1, 1, 1))
    torch.nn.init.zeros_(model.head.classifier.weight)
    if model.head.classifier.bias is not None:
        torch.nn.init.zeros_(model.head.classifier.bias)


def _thinned(pixels: NDArray[np.int64]) -> NDArray[np.int64]:
    """At most ``MOST_PIXELS`` of each class, evenly over the list."""
    kept = []
    for index in np.unique(pixels[:, 2]):
        rows = np.flatnonzero(pixels[:, 2] == index)
        kept.append(rows[np.linspace(0, len(rows) - 1, min(len(rows), MOST_PIXELS)).round().astype(int)])
    return np.asarray(pixels[np.sort(np.concatenate(kept))])


def _shortcut(model: FusionModel, name: str) -> LinearShortcut:
    stem = model.stems[name]
    if not isinstance(stem, StatisticsStem) or stem.shortcut is None:
        raise TypeError(f"The input '{name}' has no shortcut.")
    return stem.shortcut


@torch.no_grad()
def _channels(
    model: FusionModel, specification: ModelSpecification, data: TrainingData, pixels: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """By modality (n, channels) float64 of labelled pixels, NaN where the input is missing."""
    margin = max(channels_radius(entry, has_statistics=True) for entry in specification.modalities) + 1
    collected: dict[str, NDArray[np.float64]] = {}
    for piece, around in windows_around(pixels, margin, specification, data.scene.grid):
        rows, columns = pixels[piece, 1] - around.row, pixels[piece, 0] - around.column
        for name, values in data.window(around).values.items():
            stem = model.stems[name]
            if not isinstance(stem, StatisticsStem):
                raise TypeError(f"The input '{name}' has no statistics.")
            channels, known = stem.channels(torch.from_numpy(values)[None])
            seen = torch.where(known > 0, channels, torch.nan)[0, :, rows, columns].T.double().numpy()
            collected.setdefault(name, np.empty((len(pixels), seen.shape[1])))[piece] = seen
    return collected
