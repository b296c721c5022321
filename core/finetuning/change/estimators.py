"""Estimators that tell kinds of change from two dates, cross-validated over blocks of ground."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from core.errors import LabelError
from core.finetuning.estimators.baselines import NEIGHBOURHOODS, neighbourhood_features
from core.finetuning.estimators.training import MOST_PIXELS, new_estimator
from core.finetuning.evaluation import Predictions, fit_temperature
from core.finetuning.training_data import thinned_rows
from core.labels.label_set import LabelSet
from core.labels.pixel_shapes import pixel_shapes
from core.labels.rasterizing import rasterize
from core.models.alteration import Alteration
from core.models.estimator_model import LEAST_SHARE
from core.models.specification import EstimatorSpecification
from core.scenes.date_pair import PairReader
from core.scenes.grid import Grid, Window

MARGIN = max(NEIGHBOURHOODS) // 2
"""Pixels around a pixel that its features look at."""

_STRIP_PIXELS = 1 << 18
"""Of a strip; on the way a pixel takes about 20 bytes a feature, and six bands have 102."""

_ROWS_AT_ONCE = 1 << 16

_LEAST_LENGTH = 0.1
"""Of a pixel's variates, in deviations of unchanged ground: two values that are the same have no logarithm."""

Progress = Callable[[float, str], None]
Columns = Literal["dates", "length", "differences", "pixels", "all"]


def feature_strips(grid: Grid) -> list[Window]:
    """Strips of whole rows, high enough that the margin of each is not most of what is read."""
    height = max(2 * MARGIN, _STRIP_PIXELS // grid.width)
    return [Window(0, row, grid.width, min(height, grid.height - row)) for row in range(0, grid.height, height)]


@dataclass(frozen=True)
class ChangeFeatures:
    """What is seen of a pixel of two dates of C bands: the bands of both, their difference with and without its sign, the
    sizes of the MAD variates, the logarithm of their length, and mean and deviation of the differences and variates around
    the pixel.

    Attributes:
        reader: of both dates.
        alteration: fitted on them.
    """

    reader: PairReader
    alteration: Alteration

    @property
    def columns(self) -> dict[Columns, NDArray[np.int64]]:
        """Indices of the features that a set has."""
        bands, variates = self.alteration.weights.shape[1:]
        differences = np.arange(2 * bands, 4 * bands + variates + 1)
        pixels = np.arange(differences[-1] + 1)
        every = np.arange(len(pixels) + 2 * len(NEIGHBOURHOODS) * (bands + variates))
        return {"dates": pixels[: 2 * bands], "length": pixels[-1:], "differences": differences, "pixels": pixels, "all": every}

    def of(self, window: Window) -> NDArray[np.float32]:
        """(F, rows, columns) float32 of a window; NaN in all features where a date lacks data."""
        around = window.padded(MARGIN)
        values = self.reader.read(around)
        difference, sizes = values[1] - values[0], np.abs(self.alteration.variates(values))
        rows, columns = window.slices_within(around)
        surroundings = neighbourhood_features(np.concatenate([difference, sizes]))[len(difference) + len(sizes) :]
        length = np.log(np.maximum(np.linalg.norm(sizes, axis=0), _LEAST_LENGTH))[None]
        parts = [values[0], values[1], difference, np.abs(difference), sizes, length, surroundings]
        features = np.concatenate([part[:, rows, columns] for part in parts])
        features[:, np.isnan(values[0, 0, rows, columns])] = np.nan
        return features


@dataclass(frozen=True, eq=False)
class LabelledChange:
    """Features of labelled pixels.

    Attributes:
        features: (n, F) float32, all finite.
        classes, feature: (n,) label, and the polygon or point that it comes from.
        place: (n, 2) column and row on the reference grid.
        without_data: labelled pixels that a date does not show.
    """

    features: NDArray[np.float32]
    classes: NDArray[np.int64]
    feature: NDArray[np.int64]
    place: NDArray[np.int64]
    without_data: int


def labelled_change(features: ChangeFeatures, labels: LabelSet, grid: Grid, progress: Progress) -> LabelledChange:
    """Reads the features of labelled pixels, of each class evenly over its labels at most ``MOST_PIXELS``.

    Raises:
        LabelError: fewer than two classes have pixels that both dates show.
    """
    strips = feature_strips(grid)
    boxes = pixel_shapes(labels, grid).boxes
    near = [s for s in strips if ((boxes[:, 1] < s.stop_row) & (boxes[:, 3] > s.row)).any()]
    found = []
    for strip in near:
        burnt = rasterize(labels, grid, strip)
        rows, columns = np.nonzero(burnt.classes >= 0)
        found.append(np.stack([columns, rows + strip.row, burnt.classes[rows, columns], burnt.feature[rows, columns]], axis=1))
    pixels = np.concatenate(found).astype(np.int64) if found else np.empty((0, 4), np.int64)
    pixels = pixels[thinned_rows(pixels, MOST_PIXELS)]
    values = np.full((len(pixels), len(features.columns["all"])), np.nan, np.float32)
    for number, strip in enumerate(near):
        progress(number / len(near), "Reading the features of the labelled pixels")
        inside = (pixels[:, 1] >= strip.row) & (pixels[:, 1] < strip.stop_row)
        if inside.any():
            # Labels are few: what lies far from those of a strip need not be read.
            first, stop = int(pixels[inside, 0].min()), int(pixels[inside, 0].max()) + 1
            top, bottom = int(pixels[inside, 1].min()), int(pixels[inside, 1].max()) + 1
            window = Window(first, top, stop - first, bottom - top)
            values[inside] = features.of(window)[:, pixels[inside, 1] - top, pixels[inside, 0] - first].T
    known = np.isfinite(values).all(axis=1)
    present = np.unique(pixels[known, 2])
    if len(present) < 2:
        names = ", ".join(f"'{labels.scheme.names[index]}'" for index in present) or "no class"
        raise LabelError(
            f"Both dates show the labels of {names} only.",
            "Draw changed and unchanged ground, or several kinds of change, where the images of both dates have data.",
        )
    return LabelledChange(values[known], pixels[known, 2], pixels[known, 3], pixels[known, :2], int((~known).sum()))


@dataclass(frozen=True)
class ChangeEstimator:
    """A kind of estimator over a set of features."""

    name: str
    kind: Literal["logistic", "forest"]
    columns: Columns
    votes: bool

    def fitted(self, features: NDArray[np.float32], classes: NDArray[np.int64], seed: int) -> Any:
        """Scikit-learn's estimator, fitted on pixels.

        Args:
            features: (n, F) of its columns.
            classes: (n,).
            seed: of everything random.
        """
        return new_estimator(EstimatorSpecification(kind=self.kind), seed, features.size).fit(features, classes)


ESTIMATORS = (
    ChangeEstimator("Logistic regression on both dates", "logistic", "dates", votes=False),
    ChangeEstimator("Random forest on both dates", "forest", "dates", votes=False),
    ChangeEstimator("Logistic regression on the length of the MAD variates", "logistic", "length", votes=True),
    ChangeEstimator("Logistic regression on differences", "logistic", "differences", votes=False),
    ChangeEstimator("Random forest on both dates and differences", "forest", "pixels", votes=True),
    ChangeEstimator("Random forest on these and neighbourhoods", "forest", "all", votes=True),
)
"""Those that vote are what is delivered; the others are what it is compared with. Measured in
``scripts/benchmarks/change.py``: one number, how much a pixel differs, is hard to beat with few labels; forests see what kind
of change it is. From ten squares a class their vote is better than any of them, and than the same without the number."""

VOTE = "Vote of a logistic regression on the length of the MAD variates and two random forests"


@dataclass(frozen=True, eq=False)
class ChangeCandidate:
    """What an estimator, or the vote, said of labelled pixels that it had not learned from.

    Attributes:
        name: in reports.
        said: log probabilities, of all pixels that a fold holds.
        seconds: to fit and to ask it in all folds.
    """

    name: str
    said: Predictions
    seconds: float


@dataclass(frozen=True, eq=False)
class ChangeVote:
    """The mean of the probabilities of fitted estimators, made honest by a temperature.

    Attributes:
        members: with the columns that each sees.
        n_classes: of the scheme.
        temperature: by which log probabilities are divided.
    """

    members: tuple[tuple[NDArray[np.int64], Any], ...]
    n_classes: int
    temperature: float

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, n_classes) float32.

        Args:
            features: (n, F), all finite.
        """
        found = np.empty((len(features), self.n_classes), np.float32)
        for first in range(0, len(features), _ROWS_AT_ONCE):
            part = slice(first, first + _ROWS_AT_ONCE)
            shares = [_shares(fitted, features[part][:, columns], self.n_classes) for columns, fitted in self.members]
            raised = np.maximum(np.mean(shares, axis=0), LEAST_SHARE) ** (1 / self.temperature)
            found[part] = raised / raised.sum(axis=1, keepdims=True)
        return found


def cross_validated_change(
    data: LabelledChange,
    columns: dict[Columns, NDArray[np.int64]],
    fold: NDArray[np.int64],
    n_classes: int,
    seed: int,
    progress: Progress,
) -> list[ChangeCandidate]:
    """What every estimator, and first the vote, says of the labels of each part in turn, learning from the others.

    Args:
        data: of all labels.
        columns: of ``ChangeFeatures``.
        fold: (n_features,) of ``spatial_folds``.
        n_classes: of the scheme.
        seed: of everything random.
        progress: told the part done, and in which phase; raises to stop.
    """
    part = fold[data.feature]
    asked = part >= 0
    candidates, voices = [], []
    for number, estimator in enumerate(ESTIMATORS):
        progress(number / len(ESTIMATORS), f"Cross-validating: {estimator.name}")
        started = time.perf_counter()
        shares = np.zeros((len(part), n_classes))
        for turn in np.unique(part[asked]):
            learned = part != turn
            fitted = estimator.fitted(data.features[learned][:, columns[estimator.columns]], data.classes[learned], seed)
            shares[~learned] = _shares(fitted, data.features[~learned][:, columns[estimator.columns]], n_classes)
        seconds = time.perf_counter() - started
        candidates.append(ChangeCandidate(estimator.name, _said(shares, data, asked), seconds))
        if estimator.votes:
            voices.append((shares, seconds))
    vote = _said(np.mean([shares for shares, _ in voices], axis=0), data, asked)
    return [ChangeCandidate(VOTE, vote, sum(seconds for _, seconds in voices)), *candidates]


def fit_change_vote(
    data: LabelledChange,
    columns: dict[Columns, NDArray[np.int64]],
    n_classes: int,
    seed: int,
    candidates: Sequence[ChangeCandidate],
) -> ChangeVote:
    """The vote, fitted on all labels; its temperature is that of the cross-validation."""
    vote = next(candidate for candidate in candidates if candidate.name == VOTE)
    members = [
        (columns[each.columns], each.fitted(data.features[:, columns[each.columns]], data.classes, seed))
        for each in ESTIMATORS
        if each.votes
    ]
    return ChangeVote(tuple(members), n_classes, fit_temperature(vote.said))


def _shares(fitted: Any, features: NDArray[np.float32], n_classes: int) -> NDArray[np.float64]:
    shares = np.zeros((len(features), n_classes))
    shares[:, fitted.classes_] = fitted.predict_proba(features)
    return shares


def _said(shares: NDArray[np.float64], data: LabelledChange, asked: NDArray[np.bool_]) -> Predictions:
    scores = np.log(np.maximum(shares[asked], LEAST_SHARE)).astype(np.float32)
    return Predictions(scores, data.classes[asked], data.feature[asked])
