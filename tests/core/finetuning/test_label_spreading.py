"""Labels spread within super-pixels: where they may go, what they weigh, and that nothing of it is ever scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from core.finetuning.estimators.training import EstimatorTraining, estimator_specification
from core.finetuning.evaluation import predict_labelled
from core.finetuning.label_spreading import spread_labels
from core.finetuning.networks.loop import _label_loss
from core.finetuning.networks.sampling import WindowSampler
from core.finetuning.networks.settings import TrainingSettings
from core.finetuning.training_data import TrainingData, WeightedPixels
from core.labels.blocks import GAP_PIXELS
from core.models.specification import EstimatorName, EstimatorSpecification
from core.models.specify import specify_model
from core.scenes.grid import Window
from core.scenes.scene import Scene, SceneRequest, build_scene
from tests.core.finetuning.scenes import labels_at, write_raster

FIELD, FIELDS = 16, 9
"""Side of the scene's square fields, and how many there are along it."""


def patchwork(folder: Path) -> Scene:
    """Square fields of one colour each, with a little noise, over a second raster that is missing in the east."""
    generator = np.random.default_rng(2)
    colours = generator.uniform(0.05, 0.6, (4, FIELDS, FIELDS)).repeat(FIELD, 1).repeat(FIELD, 2)
    optical = colours + generator.normal(0, 0.005, colours.shape)
    optical[:, :40, 100:] = np.nan
    return build_scene(
        SceneRequest({"optical": [write_raster(folder / "optical.tif", optical, 10)]}, {"optical": "spot6_7"})  # type: ignore[arg-type]
    )


def in_field(column: int, row: int, first: int = 4, stop: int = 8) -> tuple[int, int, int, int]:
    return (FIELD * column + first, FIELD * row + first, FIELD * column + stop, FIELD * row + stop)


BOXES = (
    in_field(0, 0),
    in_field(2, 0),
    in_field(4, 2),
    in_field(6, 6),
    in_field(0, 6),
    # Two classes in one field, and one class in two groups in another.
    in_field(2, 3, 2, 4),
    in_field(2, 3, 6, 8),
    in_field(4, 5, 2, 4),
    in_field(4, 5, 6, 8),
)
CLASSES = (0, 1, 0, 1, 0, 0, 1, 1, 1)
GROUP = np.array([0, 1, 2, 3, 4, 5, 5, 6, 7])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    scene = patchwork(tmp_path_factory.mktemp("patchwork"))
    return TrainingData(scene, labels_at(scene.grid, BOXES, CLASSES), 96)


@pytest.fixture(scope="module")
def spread(data: TrainingData) -> WeightedPixels:
    return spread_labels(data, specify_model(data.scene, "unet_early", 2), GROUP)


def held_in(pixels: np.ndarray, column: int, row: int) -> np.ndarray:
    return np.asarray((pixels[:, 0] // FIELD == column) & (pixels[:, 1] // FIELD == row))


def test_a_label_stays_in_its_field_and_weighs_its_share(data: TrainingData, spread: WeightedPixels) -> None:
    assert len(spread) > len(data.pixels) / 2
    columns, rows, classes, feature = spread.pixels.T
    assert (classes == np.array(CLASSES)[feature]).all()
    assert set(feature.tolist()) >= {0, 1, 2, 3, 4}
    boxes = np.array(BOXES)[feature]
    own = (columns // FIELD == boxes[:, 0] // FIELD) & (rows // FIELD == boxes[:, 1] // FIELD)
    # SLIC's borders are a pixel off here and there.
    assert own.mean() > 0.95
    assert ((spread.weights > 0) & (spread.weights < 1)).all()
    for number in range(5):
        drawn = int((data.pixels[:, 3] == number).sum())
        assert spread.weights[feature == number].sum() < drawn, "what was not drawn outweighs what was"


def test_nothing_spreads_from_a_segment_of_two_classes(data: TrainingData) -> None:
    """Both labels of a pair lie so near that one super-pixel holds a part of each."""
    scene = data.scene
    boxes = [(3, 3, 5, 8), (5, 3, 7, 8), in_field(6, 6)]
    for classes, crosses in (((0, 1, 1), False), ((0, 0, 1), True)):
        near = TrainingData(scene, labels_at(scene.grid, boxes, classes), 96)
        found = spread_labels(near, specify_model(scene, "unet_early", 2), np.array([0, 0, 1]))
        inside = held_in(found.pixels, 0, 0)
        assert inside.any() == crosses
        assert (found.pixels[:, 3] == 2).any()


def test_nothing_spreads_into_other_ground(data: TrainingData, spread: WeightedPixels) -> None:
    grid = data.scene.grid
    for group in np.unique(GROUP):
        others = np.zeros(grid.shape, bool)
        drawn = data.pixels[GROUP[data.pixels[:, 3]] != group]
        others[drawn[:, 1], drawn[:, 0]] = True
        distance = distance_transform_edt(~others)
        own = spread.pixels[GROUP[spread.pixels[:, 3]] == group]
        assert (distance[own[:, 1], own[:, 0]] > GAP_PIXELS + 1).all()


def test_no_segment_of_two_groups_spreads(data: TrainingData) -> None:
    """The same labels in one group do spread: it is the groups that keep them."""
    scene = data.scene
    boxes = [(3, 3, 5, 5), (7, 7, 9, 9), in_field(6, 6)]
    labels = labels_at(scene.grid, boxes, (0, 0, 1))
    specification = specify_model(scene, "unet_early", 2)
    amounts = []
    for groups in ([0, 0, 1], [0, 2, 1]):
        found = spread_labels(TrainingData(scene, labels, 96), specification, np.array(groups))
        amounts.append(int((found.pixels[:, 3] < 2).sum()))
    assert amounts[1] < amounts[0]


def test_no_pixel_under_a_shape_or_without_data_is_taken(data: TrainingData, spread: WeightedPixels) -> None:
    drawn = {tuple(pixel) for pixel in data.pixels[:, :2].tolist()}
    assert not drawn & {tuple(pixel) for pixel in spread.pixels[:, :2].tolist()}
    some = data.only(np.array([True] * 3 + [False] * 6))
    fewer = spread_labels(some, specify_model(data.scene, "unet_early", 2), GROUP)
    assert set(fewer.pixels[:, 3].tolist()) == {0, 1, 2}
    assert not drawn & {tuple(pixel) for pixel in fewer.pixels[:, :2].tolist()}, "the others are drawn, too"
    assert np.isfinite(data.window(Window(0, 0, 144, 144)).values["spot6_7"][:, spread.pixels[:, 1], spread.pixels[:, 0]]).all()


def test_it_is_the_same_twice(data: TrainingData, spread: WeightedPixels) -> None:
    again = spread_labels(data, specify_model(data.scene, "unet_early", 2), GROUP)
    assert again.pixels.tobytes() == spread.pixels.tobytes()
    assert again.weights.tobytes() == spread.weights.tobytes()


def test_windows_show_it_with_its_weight_and_nothing_of_it_is_scored(data: TrainingData, spread: WeightedPixels) -> None:
    wide = data.with_spread(spread)
    window = wide.window(Window(0, 0, 144, 144))
    columns, rows = spread.pixels[:, 0], spread.pixels[:, 1]
    assert (window.classes[rows, columns] == spread.pixels[:, 2]).all()
    assert (window.feature[rows, columns] == spread.pixels[:, 3]).all()
    assert (window.weight[rows, columns] == spread.weights).all()
    plain = data.window(Window(0, 0, 144, 144))
    assert (plain.weight == 1).all()
    assert (plain.classes >= 0).sum() == len(data.pixels)
    assert (window.weight[plain.classes >= 0] == 1).all()
    assert (wide.pixels == data.pixels).all()
    some = wide.only(np.arange(len(BOXES)) == 2)
    assert set(some.spread.pixels[:, 3].tolist()) == {2}
    assert set(np.unique(some.window(Window(0, 0, 144, 144)).feature).tolist()) == {-1, 2}


def test_a_sampler_shows_no_spread_pixel_of_what_is_held_out(data: TrainingData, spread: WeightedPixels) -> None:
    wide = data.with_spread(spread)
    learned = np.arange(len(BOXES)) == 0
    settings = TrainingSettings(batch_size=8, window_size=48, radiometric_strength=0.0)
    specification = specify_model(data.scene, "unet_early", 2)
    batch = WindowSampler(wide, learned, specification, settings).batch(np.random.default_rng(0))
    assert set(batch.classes.unique().tolist()) == {-1, 0}
    assert (batch.weights[batch.classes >= 0] < 1).any()


def test_the_loss_counts_each_pixel_by_its_weight() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 3, 4, 4, generator=generator)
    classes = torch.randint(-1, 3, (2, 4, 4), generator=generator)
    balance = torch.tensor([0.5, 1.0, 2.0])
    ones = torch.ones(2, 4, 4)
    plain = torch.nn.functional.cross_entropy(scores, classes, weight=balance, ignore_index=-1, label_smoothing=0.05)
    assert _label_loss(scores, classes, ones, balance, 0.05) == pytest.approx(float(plain), rel=1e-5)
    assert _label_loss(scores, classes, ones / 3, balance, 0.05) == pytest.approx(float(plain), rel=1e-5)
    half = ones.clone()
    half[0] = 0
    alone = torch.nn.functional.cross_entropy(scores[1:], classes[1:], weight=balance, ignore_index=-1, label_smoothing=0.05)
    assert _label_loss(scores, classes, half, balance, 0.05) == pytest.approx(float(alone), rel=1e-5)


def training_of(data: TrainingData, held_out: np.ndarray) -> EstimatorTraining:
    network = specify_model(data.scene, "unet_early", 2)
    return EstimatorTraining(estimator_specification(network, EstimatorSpecification(kind="forest")), data, held_out)


@pytest.mark.parametrize("kind", ["forest", "boosting", "logistic"])
def test_estimators_learn_from_it_and_are_asked_about_drawn_pixels(
    data: TrainingData, spread: WeightedPixels, kind: EstimatorName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.finetuning.estimators.training.TREES", 5)
    wide = data.with_spread(spread)
    held_out = np.isin(np.arange(len(BOXES)), (2, 3))
    training = training_of(wide, held_out)
    said = next(iter(training.told_by_inputs(kind).values()))
    plain = predict_labelled(training.model(kind), training.specification(kind), data, held_out, torch.device("cpu"))
    assert (said.feature == plain.feature).all()
    assert (said.classes == plain.classes).all()
    fold = np.where(held_out, 0, 1)
    told = training.cross_validated(kind, fold)
    assert np.bincount(told.feature).tolist() == np.bincount(data.pixels[:, 3]).tolist(), "only what was drawn is scored"


def test_a_fold_learns_from_no_spread_pixel_of_its_own(
    data: TrainingData, spread: WeightedPixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[int]] = []
    training = training_of(data.with_spread(spread), np.zeros(len(BOXES), bool))
    fit = training._fit

    def watched(model: Any, number: int, among: np.ndarray, temperature: float | None) -> Any:
        seen.append(set(training._feature[among].tolist()))
        return fit(model, number, among, temperature)

    monkeypatch.setattr(training, "_fit", watched)
    fold = np.array([0, 1, 2, 0, 1, 2, 2, 0, 1])
    training.cross_validated("logistic", fold)
    for number, features in enumerate(seen):
        assert not any(fold[feature] == number for feature in features)
        assert (training._weights[np.isin(training._feature, list(features))] < 1).any()


def test_weights_balance_the_classes() -> None:
    """A class of many faint rows and one of few full rows count alike: the regression of one feature is even between."""
    from sklearn.linear_model import LogisticRegression

    from core.finetuning.estimators.training import _fit_weighted

    rows = np.array([[0.0]] * 100 + [[1.0]] * 10, np.float32)
    classes = np.array([0] * 100 + [1] * 10)
    weights = np.array([0.1] * 100 + [1.0] * 10, np.float32)
    fitted = _fit_weighted(LogisticRegression(class_weight="balanced", C=1.0), rows, classes, weights)
    even = LogisticRegression(C=1.0).fit(np.array([[0.0]] * 10 + [[1.0]] * 10), [0] * 10 + [1] * 10)
    assert fitted.coef_ == pytest.approx(even.coef_, rel=1e-3)
    assert fitted.predict_proba([[0.5]])[0, 0] == pytest.approx(0.5, abs=1e-4)
