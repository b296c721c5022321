"""Scores of labelled pixels beside those of one big window, and the temperature that makes them honest."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import softmax

from core.finetuning import evaluation
from core.finetuning.evaluation import (
    COMPARED,
    Predictions,
    balanced_log_loss,
    context_reach,
    fit_temperature,
    is_clearly_better,
    predict_labelled,
)
from core.finetuning.training_data import TrainingData
from core.models.registry import model_step, receptive_radius
from core.scenes.grid import Window, aligned
from core.scenes.reading import SceneReader
from core.scenes.scene import Scene
from tests.core.finetuning.scenes import labels_at, specification_for
from tests.core.models.specifications import random_model


@pytest.mark.parametrize("architecture", ["unet_early", "unet_intermediate"])
@pytest.mark.parametrize("piece", [evaluation.PIECE, 16])
def test_labelled_pixels_have_the_scores_of_one_big_window(
    mixed: Scene, architecture: str, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "PIECE", piece)
    specification = specification_for(mixed, 3, architecture).model_copy(update={"depth": 1})
    labels = labels_at(mixed.grid, [(0, 0, 40, 3), (70, 55, 73, 58), (140, 120, 150, 130), (20, 20, 30, 30)], [0, 1, 2, 1])
    data = TrainingData(mixed, labels, context_reach(specification))
    model = random_model(specification)
    step, radius = model_step(specification), receptive_radius(specification)
    chosen = np.array([True, True, True, False])
    found = predict_labelled(model, specification, data, chosen, torch.device("cpu"))
    whole = aligned(mixed.grid, mixed.grid.window.padded(radius), step)
    with SceneReader(mixed) as reader:
        values = {name: torch.from_numpy(array)[None] for name, array in reader.read(whole).items()}
    with torch.inference_mode():
        scores = model(values)[0].numpy()
    pixels = data.pixels[data.pixels[:, 3] != 3]
    expected = scores[:, pixels[:, 1] - whole.row, pixels[:, 0] - whole.column].T
    # Heights are centred on the mean of their window first, so the last bits of a float differ.
    np.testing.assert_allclose(found.scores, expected, atol=5e-5)
    np.testing.assert_allclose(softmax(found.scores, axis=1), softmax(expected, axis=1), atol=1e-5)
    np.testing.assert_array_equal(found.classes, pixels[:, 2])
    np.testing.assert_array_equal(found.feature, pixels[:, 3])
    np.testing.assert_array_equal(found.predicted, expected.argmax(axis=1))
    assert np.ptp(expected, axis=0).min() > 0.01


@pytest.mark.parametrize("pixels", [[(0, 0)], [(17, 5), (99, 5)], [(148, 3), (149, 129)]])
def test_windows_around_pixels_are_aligned_wide_enough_and_inside_the_data(mixed: Scene, pixels: list[tuple[int, int]]) -> None:
    specification = specification_for(mixed, 3)
    step = model_step(specification)
    side, radius = math.lcm(evaluation.SIDE_STEP, step), receptive_radius(specification)
    columns, rows = np.array(pixels).T
    window = evaluation._window_around(columns, rows, radius, side, mixed.grid, step)
    anchor = mixed.grid.anchor()
    assert (window.column + anchor[0]) % step == (window.row + anchor[1]) % step == 0
    assert window.width % side == window.height % side == 0
    reach = context_reach(specification)
    box = Window(int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1)
    assert box.padded(radius).intersection(window) == box.padded(radius)
    assert window.intersection(box.padded(reach)) == window


def predictions(scores: np.ndarray, classes: np.ndarray) -> Predictions:
    return Predictions(scores.astype(np.float32), classes.astype(np.int64), np.arange(len(classes)))


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_a_known_temperature_is_found_again(temperature: float) -> None:
    generator = np.random.default_rng(0)
    honest = generator.normal(0, 2, (20000, 4))
    probabilities = np.exp(honest) / np.exp(honest).sum(axis=1, keepdims=True)
    classes = (probabilities.cumsum(axis=1) < generator.random((20000, 1))).sum(axis=1)
    found = fit_temperature(predictions(honest * temperature, classes))
    assert abs(math.log(found / temperature)) < 0.05


def test_temperature_stays_in_its_bounds_where_all_is_right_or_all_is_wrong() -> None:
    right = predictions(np.eye(3)[[0, 1, 2]] * 50, np.arange(3))
    wrong = predictions(np.eye(3)[[1, 2, 0]] * 50, np.arange(3))
    assert math.exp(-2) <= fit_temperature(right) < 1 < fit_temperature(wrong) <= math.exp(2)


def test_few_features_say_little_of_a_temperature() -> None:
    """Two hundred pixels that are all told right: of three polygons, of thirty, of two hundred."""
    classes = np.arange(200) % 2
    scores = np.where(np.eye(2)[classes] > 0, 1.5, 0.0)
    few, more, all_apart = (
        fit_temperature(replace(predictions(scores, classes), feature=np.arange(200) % n)) for n in (3, 30, 200)
    )
    assert 1 > few > 0.5 > more > all_apart
    assert fit_temperature(predictions(scores, classes), COMPARED) < all_apart


def test_log_loss_counts_classes_alike_and_survives_large_scores() -> None:
    scores = np.log(np.array([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]))
    classes = np.array([0, 0, 0, 1])
    expected = (-math.log(0.5) - math.log(0.8)) / 2
    assert balanced_log_loss(predictions(scores, classes)) == pytest.approx(expected, rel=1e-6)
    assert balanced_log_loss(predictions(scores + 1e4, classes)) == pytest.approx(expected, rel=1e-2)
    assert balanced_log_loss(predictions(np.array([[1e5, 0.0]]), np.array([1]))) == pytest.approx(1e5)


def test_pixels_that_the_inputs_shown_do_not_cover_are_left_out(mixed: Scene) -> None:
    specification = specification_for(mixed, 3)
    labels = labels_at(mixed.grid, [(0, 0, 60, 50), (70, 55, 90, 80)], [0, 1])
    data = TrainingData(mixed, labels, context_reach(specification), allows_missing=True)
    model, everything = random_model(specification), np.array([True, True])
    with SceneReader(mixed) as reader:
        values = reader.read(aligned(mixed.grid, mixed.grid.window, mixed.step))
    window = aligned(mixed.grid, mixed.grid.window, mixed.step)
    optical = np.isfinite(values["spot6_7"]).all(axis=0)
    columns, rows = data.pixels[:, 0] - window.column, data.pixels[:, 1] - window.row
    found = predict_labelled(model, specification, data, everything, torch.device("cpu"), ["spot6_7", "dsm"])
    assert len(found.classes) == optical[rows, columns].sum() < len(data.pixels)
    assert np.isfinite(found.scores).all()
    complete = predict_labelled(model, specification, data, everything, torch.device("cpu"))
    assert len(complete.classes) == len(data.pixels)
    assert not np.allclose(complete.scores[optical[rows, columns]], found.scores, atol=1e-3)


@pytest.mark.parametrize("window", [16, 24, 50])
def test_models_with_a_global_view_see_windows_of_their_own_size_with_the_pixels_inside(mixed: Scene, window: int) -> None:
    specification = specification_for(mixed, 3, "unet_asymmetric_attention", window=window, depth=1)
    step = model_step(specification)
    tile = -(-window // step) * step
    generator = np.random.default_rng(0)
    pixels = np.stack([generator.integers(-20, 170, 300), generator.integers(-20, 150, 300)], axis=1)
    anchor, reach = mixed.grid.anchor(), context_reach(specification)
    shown = 0
    for together, around in evaluation._tiles(pixels, window, mixed.grid, step):
        assert around.width == around.height
        assert around.width in (tile, tile + step)
        assert (around.column + anchor[0]) % step == (around.row + anchor[1]) % step == 0
        columns, rows = pixels[together].T
        assert columns.min() >= around.column
        assert rows.min() >= around.row
        assert columns.max() < around.stop_column
        assert rows.max() < around.stop_row
        box = Window(int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1)
        assert around.intersection(box.padded(reach)) == around
        shown += len(together)
    assert shown == 300


def test_a_model_is_clearly_better_by_more_than_a_standard_error_over_features() -> None:
    def of(margins: list[float]) -> Predictions:
        """Two pixels a feature, the label ahead by a margin, in units that no temperature can mend."""
        pairs = np.repeat(np.array(margins), 2)
        return Predictions(
            np.stack([pairs, np.zeros_like(pairs)], axis=1).astype(np.float32),
            np.zeros(len(pairs), np.int64),
            np.arange(len(pairs)) // 2,
        )

    start = of([1, -1, 1, 1, -1, 1])
    assert is_clearly_better(of([3, 1, 3, 3, 1, 3]), start)
    assert not is_clearly_better(start, start)
    assert not is_clearly_better(start, of([3, 1, 3, 3, 1, 3]))
    # One feature gained and another lost: better on the mean, but by less than chance explains.
    assert not is_clearly_better(of([1, 1, 1, 1, -1, -1]), of([1, -1, 1, 1, -1, 1]))
    losses = [balanced_log_loss(each, fit_temperature(each)) for each in (of([1, 1, 1, 1, -1, 0.9]), start)]
    assert losses[0] < losses[1]
