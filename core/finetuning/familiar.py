"""What the labelled pixels look like, so that a map can say where the ground looks like none of them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf

from core.finetuning.evaluation import predict_labelled
from core.finetuning.training_data import TrainingData, thinned_rows
from core.models.novelty import FAMILIAR, Novelty
from core.models.pixel_rows import RowsAndBits
from core.models.specification import EstimatorSpecification, ModelSpecification
from core.models.subsets import subset_numbers

MOST_PIXELS = 5000
"""Of a class, evenly over its labels."""

LEAST_VARIANCE = 1e-4
"""Added to each column's variance, in squared deviations of the sensor: a class drawn on two polygons has no spread where
both are equal, and everything else would seem infinitely far."""


def fit_novelty(specification: ModelSpecification, data: TrainingData, held_out: NDArray[np.bool_]) -> Novelty:
    """Measures the classes' means and common covariance on what is learned from, and the unit on what is held out.

    The covariance is shrunk towards a multiple of the identity (Ledoit and Wolf 2004, J. Multivariate Analysis
    88:365-411), since few polygons do not determine one.

    Args:
        specification: of the model.
        data: blocks around the labels.
        held_out: (n_features,) bool, those that are not learned from.
    """
    novelty = Novelty(specification).eval()
    rows, bits, classes, feature = _rows(novelty, specification, data)
    learned = ~held_out[feature]
    everything = len(novelty.subsets[0])
    complete = bits == 2**everything - 1
    used = np.flatnonzero(learned & complete)
    if len(np.unique(classes[used])) < len(np.unique(classes[learned])):
        # Where classes have pixels with gaps only, these have to do, with what is missing at its mean.
        used = np.flatnonzero(learned)
    used = used[thinned_rows(np.stack([used, used, classes[used], feature[used]], axis=1), MOST_PIXELS)]
    residuals = []
    for number in np.unique(classes[used]):
        own = rows[used[classes[used] == number]].astype(np.float64)
        novelty.means[number] = torch.from_numpy(own.mean(axis=0))
        residuals.append(own - own.mean(axis=0))
    shrunk = LedoitWolf(assume_centered=True).fit(np.concatenate(residuals)).covariance_
    novelty.covariance.copy_(torch.from_numpy(shrunk + LEAST_VARIANCE * np.eye(len(shrunk))))
    names = list(novelty.pixels.counts)
    numbers = subset_numbers(names, novelty.subsets)
    asked = held_out[feature] if held_out[feature].any() else learned
    for number, subset in enumerate(novelty.subsets if data.allows_missing else novelty.subsets[:1]):
        present = sum(1 << bit for bit, name in enumerate(names) if name in subset)
        has_all = asked & (bits & present == present)
        if numbers[present] == number and has_all.any():
            found = novelty.raw_distances(torch.from_numpy(rows[has_all]), present).numpy()
            novelty.unit[number] = float(np.quantile(found, FAMILIAR))
    if not torch.isfinite(novelty.unit[0]):
        # No held-out pixel has all inputs.
        whole = torch.from_numpy(rows[used])
        novelty.unit[0] = float(np.quantile(novelty.raw_distances(whole, 2**everything - 1).numpy(), FAMILIAR))
    return novelty


def _rows(
    novelty: Novelty, specification: ModelSpecification, data: TrainingData
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Of every labelled pixel what is seen of it, the bits of its inputs, its class and its feature."""
    channels = sum(novelty.pixels.counts.values())
    # Windows as small as those of a forest on pixels: the model's own may be large.
    shown = specification.model_copy(
        update={
            "estimator": EstimatorSpecification(kind="forest"),
            "head": "dense",
            "has_shortcut": False,
            "has_dates": False,
            "n_classes": channels + 1,
        }
    )
    every = np.ones(len(data.labels), bool)
    said = predict_labelled(RowsAndBits(novelty.pixels), shown, data, every, torch.device("cpu"))
    return said.scores[:, :-1], said.scores[:, -1].astype(np.int64), said.classes, said.feature
