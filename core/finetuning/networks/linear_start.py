"""The linear models that a network with a shortcut starts from.

A few polygons determine a regularised linear model over the statistics of neighbourhoods well, and a network's hundred
thousand weights badly: so the former is fitted first, and the latter learns what to add to it.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from core.finetuning.evaluation import windows_around
from core.finetuning.training_data import TrainingData, thinned
from core.models.fusion_model import FusionModel
from core.models.specification import ModelSpecification
from core.models.stems.channels import channels_radius
from core.models.stems.stem import StatisticsStem
from core.models.subsets import input_subsets

INVERSE_REGULARISATION = 0.01
"""Of the logistic regression over standardised statistics; between 0.003 and 0.03 little changed on the scenes tried."""

LEAST_SPREAD = 1e-6

MOST_PIXELS = 5000
"""Of a class; more of them change a linear model no longer."""


def fit_linear_start(
    model: FusionModel, specification: ModelSpecification, data: TrainingData, features: NDArray[np.bool_]
) -> None:
    """Fits the linear models on the labels of some features, and lets the network start by adding nothing.

    There is one for each set of inputs; where labels need all inputs, the one for all of them alone.

    Args:
        model: with a shortcut; changed in place.
        specification: of the model.
        data: blocks around the labels.
        features: (n_features,) bool, those to learn from.
    """
    linear = model.linear
    if linear is None:
        raise TypeError("The model has no linear models.")
    pixels = thinned(data.pixels[features[data.pixels[:, 3]]], MOST_PIXELS)
    parts = _channels(model, specification, data, pixels)
    centres, spreads = {}, {}
    for name, part in parts.items():
        # A channel that is missing everywhere has no mean.
        filled = np.where(np.isfinite(part).any(axis=0), part, 0.0)
        centres[name] = np.nanmean(filled, axis=0)
        spreads[name] = np.maximum(np.nanstd(filled, axis=0), LEAST_SPREAD)
        linear.part(name).centre.copy_(torch.from_numpy(centres[name]))
    # Where an input is missing its channels count as their mean, as in the model, where they then add nothing.
    standardised = {name: np.nan_to_num((part - centres[name]) / spreads[name]) for name, part in parts.items()}
    has = {name: np.isfinite(part).any(axis=1) for name, part in parts.items()}
    for number, subset in enumerate(input_subsets(specification)):
        if number and not data.allows_missing:
            break
        names = [name for name in parts if name in subset]
        if not names:
            # A base model may know inputs that this scene does not have.
            continue
        rows = np.all([has[name] for name in names], axis=0)
        if len(np.unique(pixels[rows, 2])) < len(np.unique(pixels[:, 2])):
            # Where classes have pixels with gaps only, these have to do.
            rows = np.ones(len(pixels), bool)
        columns = np.concatenate([standardised[name][rows] for name in names], axis=1)
        weights, intercept = _fitted(columns, pixels[rows, 2], specification.n_classes)
        first = 0
        for name in names:
            own = slice(first, first + parts[name].shape[1])
            linear.part(name).weight[number] = torch.from_numpy(weights[:, own] / spreads[name])
            first = own.stop
        linear.intercept[number] = torch.from_numpy(intercept)
    torch.nn.init.zeros_(model.head.classifier.weight)
    if model.head.classifier.bias is not None:
        torch.nn.init.zeros_(model.head.classifier.bias)


def _fitted(
    columns: NDArray[np.float64], classes: NDArray[np.int64], n_classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n_classes, n_columns) weights and (n_classes,) intercepts of a regularised logistic regression."""
    estimator = LogisticRegression(C=INVERSE_REGULARISATION, class_weight="balanced", max_iter=3000)
    estimator.fit(columns, classes)
    present, coefficients, intercepts = estimator.classes_, estimator.coef_, estimator.intercept_
    if len(present) == 2:
        # One line of numbers stands for both classes.
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2
    weights = np.zeros((n_classes, columns.shape[1]))
    weights[present] = coefficients
    # A class without labels in the training part should never win.
    intercept = np.full(n_classes, intercepts.min() - 10.0)
    intercept[present] = intercepts
    return weights, intercept


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
