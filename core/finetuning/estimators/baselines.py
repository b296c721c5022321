"""The classical baselines that stand beside every model: two random forests and logistic regression.

They see the same labels, the same split and the same rasters, in physical units on the reference grid.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from joblib import parallel_config
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from core.finetuning.training_data import BLOCK, Arrays, TrainingData
from core.scenes.grid import Window, aligned
from core.scenes.scene import Scene

NEIGHBOURHOODS = (5, 9, 17)
"""Side lengths in pixels of the squares whose mean and standard deviation are features."""

TREES = 200

FeatureSet = Literal["pixels", "neighbourhoods"]


@dataclass(frozen=True)
class Baseline:
    """One baseline.

    Attributes:
        name: as reports show it.
        features: what it sees of a pixel.
        make: an untrained estimator from a seed.
    """

    name: str
    features: FeatureSet
    make: Callable[[int], Any]


def _forest(seed: int) -> RandomForestClassifier:
    return RandomForestClassifier(TREES, class_weight="balanced", n_jobs=-1, random_state=seed)


def _logistic(seed: int) -> Any:
    estimator = LogisticRegression(class_weight="balanced", max_iter=2000, random_state=seed)
    # Forests take missing values as they are. The scaler divides by nothing where a feature is missing everywhere.
    return make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler(), estimator)


BASELINES = (
    Baseline("Random forest on pixels", "pixels", _forest),
    Baseline("Random forest on pixels and neighbourhoods", "neighbourhoods", _forest),
    Baseline("Logistic regression on pixels", "pixels", _logistic),
)


@dataclass(frozen=True, eq=False)
class BaselineResult:
    """What a baseline said of the held-out pixels.

    Attributes:
        name: of the baseline.
        predicted, classes, feature: (n,) predicted class, label and feature of each held-out pixel.
        seconds: for training and prediction.
    """

    name: str
    predicted: NDArray[np.int64]
    classes: NDArray[np.int64]
    feature: NDArray[np.int64]
    seconds: float


def pixel_features(values: Arrays, scene: Scene) -> NDArray[np.float32]:
    """All bands on the reference grid: finer ones averaged, coarser ones repeated.

    Args:
        values: by acquisition (bands, rows, columns) on its own scale, NaN = missing.
        scene: that they were read from.

    Returns:
        (n_features, rows, columns) float32, NaN = missing.
    """
    parts = []
    for acquisition in scene.acquisitions:
        array = values[acquisition.name]
        finer, coarser = acquisition.scale.finer, acquisition.scale.coarser
        if finer > 1:
            bands, rows, columns = array.shape
            cells = array.reshape(bands, rows // finer, finer, columns // finer, finer)
            present = np.isfinite(cells)
            total = np.where(present, cells, 0).sum(axis=(2, 4), dtype=np.float64)
            with np.errstate(invalid="ignore"):
                array = (total / present.sum(axis=(2, 4))).astype(np.float32)
        elif coarser > 1:
            array = array.repeat(coarser, axis=1).repeat(coarser, axis=2)
        parts.append(array)
    return np.concatenate(parts)


def neighbourhood_features(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """The pixels with the mean and standard deviation of their neighbourhoods; missing pixels do not count.

    Args:
        pixels: (n_features, rows, columns) float32, NaN = missing.

    Returns:
        (n_features * 7, rows, columns) float32.
    """
    present = np.isfinite(pixels)
    centre = np.where(present.any(axis=(1, 2)), np.nansum(pixels, axis=(1, 2)) / np.maximum(present.sum((1, 2)), 1), 0)
    # Centred before squaring: the spread of a few metres at a height of thousands drowns in the rounding otherwise.
    centred = np.where(present, pixels - centre[:, None, None], 0).astype(np.float64)
    parts = [pixels]
    for side in NEIGHBOURHOODS:
        size = (0, side, side)
        share = np.maximum(uniform_filter(present.astype(np.float64), size, mode="constant"), 1e-9)
        mean = uniform_filter(centred, size, mode="constant") / share
        variance = uniform_filter(centred**2, size, mode="constant") / share - mean**2
        parts += [(mean + centre[:, None, None]).astype(np.float32), np.sqrt(np.maximum(variance, 0)).astype(np.float32)]
    return np.concatenate(parts)


@dataclass(frozen=True, eq=False)
class LabelledFeatures:
    """Feature vectors of labelled pixels.

    Attributes:
        pixels, neighbourhoods: (n, n_features) float32.
        classes, feature: (n,) label and source feature.
    """

    pixels: NDArray[np.float32]
    neighbourhoods: NDArray[np.float32]
    classes: NDArray[np.int64]
    feature: NDArray[np.int64]

    def of(self, features: FeatureSet) -> NDArray[np.float32]:
        return self.pixels if features == "pixels" else self.neighbourhoods


def labelled_features(data: TrainingData) -> LabelledFeatures:
    """Feature vectors of every labelled pixel that has data."""
    grid = data.scene.grid
    blocks = {aligned(grid, Window(column, row, 1, 1), BLOCK) for column, row in data.pixels[:, :2].tolist()}
    pixels, neighbourhoods, classes, feature = [], [], [], []
    for block in sorted(blocks, key=lambda window: (window.row, window.column)):
        # A whole block around it is more than the widest neighbourhood needs, and fits every coarser modality.
        around = block.padded(BLOCK)
        seen = data.window(around)
        inner = block.slices_within(around)
        known = seen.feature[inner] >= 0
        values = pixel_features(seen.values, data.scene)
        wide = neighbourhood_features(values)
        pixels.append(values[:, inner[0], inner[1]][:, known].T)
        neighbourhoods.append(wide[:, inner[0], inner[1]][:, known].T)
        classes.append(seen.classes[inner][known].astype(np.int64))
        feature.append(seen.feature[inner][known].astype(np.int64))
    return LabelledFeatures(
        np.concatenate(pixels), np.concatenate(neighbourhoods), np.concatenate(classes), np.concatenate(feature)
    )


def run_baselines(
    samples: LabelledFeatures, validation: NDArray[np.bool_], seed: int, progress: Callable[[float, str], None]
) -> list[BaselineResult]:
    """Trains every baseline on the training part and asks it about the held-out part.

    Args:
        samples: of all labelled pixels.
        validation: (n_features,) bool, the features held out.
        seed: of the forests.
        progress: told the part done, and in which phase; raises to stop.
    """
    held_out = validation[samples.feature]
    results = []
    for number, baseline in enumerate(BASELINES):
        progress(number / len(BASELINES), f"Baseline: {baseline.name.lower()}")
        started = time.perf_counter()
        features = samples.of(baseline.features)
        estimator = baseline.make(seed)
        estimator.fit(features[~held_out], samples.classes[~held_out])
        # Threads would add up the trees' votes in the order in which they end, and a tie could fall either way.
        with parallel_config(backend="sequential"):
            predicted = np.asarray(estimator.predict(features[held_out]), dtype=np.int64)
        seconds = time.perf_counter() - started
        results.append(BaselineResult(baseline.name, predicted, samples.classes[held_out], samples.feature[held_out], seconds))
    return results
