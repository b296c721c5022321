"""Self-training: what is believed, where it may come from, and that each part of a cross-validation does it by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from core.finetuning.estimators.self_training import SelfTraining, self_trained, sure_answers
from core.finetuning.estimators.training import EstimatorTraining, estimator_specification
from core.finetuning.training_data import BLOCK, TrainingData
from core.models.specification import EstimatorName, EstimatorSpecification
from core.models.specify import specify_model
from core.scenes.scene import Scene
from tests.core.finetuning.scenes import labels_at, mixed_scene

BOXES = [(30 + 24 * (i % 4), 30 + 30 * (i // 4), 36 + 24 * (i % 4), 36 + 30 * (i // 4)) for i in range(12)]
FOLD = np.arange(12) // 2 % 3


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return mixed_scene(tmp_path_factory.mktemp("self"))


@pytest.fixture(scope="module")
def data(scene: Scene) -> TrainingData:
    return TrainingData(scene, labels_at(scene.grid, BOXES, [i % 2 for i in range(12)]), 96)


def training_of(data: TrainingData, rounds: int, neighbourhoods: bool = False) -> EstimatorTraining:
    estimator = EstimatorSpecification(kind="forest", neighbourhoods=neighbourhoods)
    specification = estimator_specification(specify_model(data.scene, "unet_early", 2), estimator)
    return EstimatorTraining(specification, data, FOLD == 0, self_training=SelfTraining(rounds, FOLD))


def test_only_sure_answers_count_and_no_class_outgrows_its_labels() -> None:
    shares = np.array([[0.95, 0.05], [0.6, 0.4], [0.02, 0.98], [0.01, 0.99], [0.03, 0.97], [0.92, 0.08]])
    rows, answers = sure_answers(shares, np.array([1, 4]), 1.0, np.array([0, 9, 0, 0, 2]))
    assert rows.tolist() == [0, 2, 4, 5], "of three of the last class the first and the last"
    assert answers.tolist() == [1, 4, 4, 1]
    # Twice as hot, 0.95 is 0.81: sure by its looks alone.
    rows, _ = sure_answers(shares, np.array([1, 4]), 2.0, np.array([9] * 5))
    assert rows.tolist() == [3]


def test_unlabelled_pixels_move_the_border_to_where_there_are_none() -> None:
    """Two clouds, of which the labels know one corner each: the border moves to the gap between the clouds."""
    generator = np.random.default_rng(0)
    clouds = np.concatenate([generator.normal(0, 0.3, (300, 1)), generator.normal(4, 0.3, (300, 1))]).astype(np.float32)
    rows = np.array([[-0.5], [-0.4], [-0.6], [3.4], [3.5], [3.3]], np.float32)
    classes = np.array([0, 0, 0, 1, 1, 1])
    weights = np.ones(6, np.float32)
    fitted: list[int] = []

    def fit(rows: Any, classes: Any, weights: Any) -> Any:
        fitted.append(len(rows))
        return LogisticRegression(C=1.0).fit(rows, classes, sample_weight=weights)

    def border(model: Any) -> float:
        return float(-model.intercept_[0] / model.coef_[0, 0])

    plain = self_trained(fit, rows, classes, weights, clouds, 0, 1.0)
    trained = self_trained(fit, rows, classes, weights, clouds, 3, 1.0)
    assert fitted == [6, 6, 12, 12, 12], "as many of each class as are drawn, chosen anew in each round"
    assert abs(border(trained) - 2) < abs(border(plain) - 2)
    same = self_trained(fit, rows, classes, weights, np.full((9, 1), border(plain), np.float32), 3, 1.0)
    assert border(same) == border(plain), "nothing is sure"


def test_no_drawn_pixel_is_ever_taken(data: TrainingData) -> None:
    """Neither of what is learned from, nor of what is held out, nor of what this part of the labels leaves out."""
    drawn = {tuple(pixel) for pixel in data.pixels[:, :2].tolist()}
    for part in (data, data.only(np.arange(12) < 3)):
        found = part.unlabelled(2000)
        assert 500 < len(found) <= 2000
        assert not drawn & {tuple(pixel) for pixel in found[:, :2].tolist()}
        assert len({tuple(pixel) for pixel in found.tolist()}) == len(found)
        assert (found[:, 2:] == -1).all()
    boxes = np.array(BOXES[:3])
    for column, row in found[:, :2].tolist():
        outside = np.maximum(np.maximum(boxes[:, 0] - column, column - boxes[:, 2] + 1), 0)
        beside = np.maximum(np.maximum(boxes[:, 1] - row, row - boxes[:, 3] + 1), 0)
        assert np.maximum(outside, beside).min() < 2 * BLOCK


def test_unlabelled_pixels_have_their_surroundings(data: TrainingData) -> None:
    """What a forest sees of one does not depend on which blocks were kept."""
    training = training_of(data, 1, neighbourhoods=True)
    wide = TrainingData(data.scene, data.labels, 240)
    more = training_of(wide, 1, neighbourhoods=True)
    shown = {tuple(p): r for p, r in zip(wide.unlabelled(10_000).tolist(), more._rows[more._is_unlabelled], strict=True)}
    pixels, rows = data.unlabelled(10_000).tolist(), training._rows[training._is_unlabelled]
    common = [number for number, pixel in enumerate(pixels) if tuple(pixel) in shown]
    assert len(common) > 100
    for number in common:
        assert rows[number] == pytest.approx(shown[tuple(pixels[number])], abs=1e-4)


def test_folds_train_themselves_and_their_labels_calibrate_nothing(data: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    training = training_of(data, 2)
    learned: list[set[int]] = []
    fit = training._fit

    def watched(model: Any, number: int, among: np.ndarray, temperature: float | None) -> Any:
        learned.append(set(training._feature[among].tolist()))
        assert not (among & training._is_unlabelled).any()
        return fit(model, number, among, temperature)

    monkeypatch.setattr(training, "_fit", watched)
    said = training.cross_validated("logistic", FOLD)
    assert np.bincount(said.feature).tolist() == np.bincount(data.pixels[:, 3]).tolist()
    assert len(learned) == 6, "three parts, before self-training and with it"
    for features, number in zip(learned, [0, 0, 1, 1, 2, 2], strict=False):
        assert features <= set(range(12))
        assert len({int(FOLD[feature]) for feature in features}) == 2, number
    plain = training._plain["logistic"]
    before = training._temperature("logistic", 1)
    plain.scores[FOLD[plain.feature] == 1] *= -3
    assert training._temperature("logistic", 1) == before
    assert training._temperature("logistic") != before


@pytest.mark.parametrize("kind", ["forest", "boosting", "logistic"])
def test_one_seed_gives_one_model_and_rounds_another(
    data: TrainingData, kind: EstimatorName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.finetuning.estimators.training.TREES", 5)
    monkeypatch.setattr("core.finetuning.estimators.training.ROUNDS", 5)
    monkeypatch.setattr("core.finetuning.estimators.self_training.CONFIDENCE", 0.5)
    first, again, none = (training_of(data, rounds).model(kind) for rounds in (2, 2, 0))
    programs = [bytes(model.state_dict()["programs.0"].numpy()) for model in (first, again, none)]
    assert programs[0] == programs[1]
    assert programs[0] != programs[2]
