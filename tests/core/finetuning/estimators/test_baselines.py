"""Features of the baselines beside plain loops, and baselines that repeat themselves."""

from __future__ import annotations

import numpy as np
import pytest
from joblib import effective_n_jobs
from sklearn.ensemble import RandomForestClassifier

from core.finetuning.estimators import baselines
from core.finetuning.estimators.baselines import (
    BASELINES,
    NEIGHBOURHOODS,
    Baseline,
    LabelledFeatures,
    labelled_features,
    neighbourhood_features,
    pixel_features,
    run_baselines,
)
from core.finetuning.training_data import TrainingData
from core.scenes.grid import aligned
from core.scenes.reading import SceneReader
from core.scenes.scene import Scene
from tests.core.finetuning.conftest import BOXES, CLASSES
from tests.core.finetuning.scenes import labels_at
from tests.core.finetuning.training import Prepared


def plain_neighbourhoods(pixels: np.ndarray) -> np.ndarray:
    count, rows, columns = pixels.shape
    parts = [pixels.astype(np.float64)]
    for side in NEIGHBOURHOODS:
        half = side // 2
        mean, deviation = np.zeros(pixels.shape), np.zeros(pixels.shape)
        for row in range(rows):
            for column in range(columns):
                box = pixels[:, max(0, row - half) : row + half + 1, max(0, column - half) : column + half + 1]
                for band in range(count):
                    known = box[band][np.isfinite(box[band])].astype(np.float64)
                    if known.size:
                        mean[band, row, column], deviation[band, row, column] = known.mean(), known.std()
        parts += [mean, deviation]
    return np.concatenate(parts)


@pytest.mark.parametrize(("height", "missing"), [(0.0, 0.0), (0.0, 0.4), (4000.0, 0.4)])
def test_neighbourhoods_count_what_is_known(height: float, missing: float) -> None:
    generator = np.random.default_rng(0)
    pixels = (height + generator.normal(0, 3, (2, 22, 15))).astype(np.float32)
    pixels[:, generator.random((22, 15)) < missing] = np.nan
    found, expected = neighbourhood_features(pixels), plain_neighbourhoods(pixels)
    assert found.dtype == np.float32
    assert found.shape == (14, 22, 15)
    np.testing.assert_allclose(found, expected, atol=1e-3 if height else 1e-4)


def test_neighbourhoods_without_any_value_are_finite() -> None:
    pixels = np.full((2, 9, 9), np.nan, np.float32)
    pixels[1] = 7
    found = neighbourhood_features(pixels)
    assert np.isfinite(found[2:]).all()
    np.testing.assert_allclose(found[3], 7)
    np.testing.assert_allclose(found[5], 0, atol=1e-6)


def test_pixels_of_every_scale_meet_on_the_reference_grid(mixed: Scene) -> None:
    window = aligned(mixed.grid, mixed.grid.window, mixed.step)
    with SceneReader(mixed) as reader:
        values = reader.read(window)
    found = pixel_features(values, mixed)
    assert found.shape == (7, *window.shape)
    optical, coarse, heights = (values[entry.name] for entry in mixed.acquisitions)
    np.testing.assert_array_equal(found[:4], optical)
    for row, column in ((0, 0), (31, 50), (77, 3), (100, 149)):
        np.testing.assert_array_equal(found[4:6, row, column], coarse[:, row // 3, column // 3])
        cell = heights[0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        expected = np.nan if np.isnan(cell).all() else np.nanmean(cell)
        np.testing.assert_allclose(found[6, row, column], expected, rtol=1e-6)


def test_features_of_labelled_pixels_are_those_of_the_whole_scene(mixed: Scene, mixed_data: TrainingData) -> None:
    samples = labelled_features(mixed_data)
    window = aligned(mixed.grid, mixed.grid.window.padded(20), mixed.step)
    with SceneReader(mixed) as reader:
        pixels = pixel_features(reader.read(window), mixed)
    wide = neighbourhood_features(pixels)
    order = np.lexsort(mixed_data.pixels.T[::-1])
    columns, rows, classes, feature = mixed_data.pixels[order].T
    place = rows - window.row, columns - window.column
    for found, expected in ((samples.pixels, pixels), (samples.neighbourhoods, wide)):
        together = np.column_stack([samples.classes, samples.feature, found])
        wanted = np.column_stack([classes, feature, expected[:, place[0], place[1]].T])
        assert together.shape == wanted.shape
        # The order of blocks is not that of the scene's rows.
        np.testing.assert_allclose(together[np.lexsort(found[:, :4].T)], wanted[np.lexsort(wanted[:, 2:6].T)], atol=2e-3)
    assert samples.of("pixels") is samples.pixels
    assert samples.of("neighbourhoods") is samples.neighbourhoods


def run(samples: LabelledFeatures, validation: np.ndarray, seed: int) -> list[tuple[str, bytes]]:
    results = run_baselines(samples, validation, seed, lambda part, phase: None)
    return [(result.name, result.predicted.tobytes()) for result in results]


def test_baselines_repeat_themselves_and_beat_chance(simulated: Prepared) -> None:
    samples = labelled_features(simulated.data)
    told: list[tuple[float, str]] = []
    results = run_baselines(samples, simulated.validation, 3, lambda part, phase: told.append((part, phase)))
    assert [result.name for result in results] == [baseline.name for baseline in BASELINES]
    assert len(told) == len(BASELINES)
    held_out = simulated.validation[samples.feature]
    for result in results:
        np.testing.assert_array_equal(result.classes, samples.classes[held_out])
        np.testing.assert_array_equal(result.feature, samples.feature[held_out])
        most_common = np.bincount(result.classes).max() / len(result.classes)
        assert (result.predicted == result.classes).mean() > 1.5 * most_common
        assert result.seconds > 0
    assert run(samples, simulated.validation, 3) == [(result.name, result.predicted.tobytes()) for result in results]


@pytest.mark.parametrize("gap", ["everywhere", "where it is held out", "where it is learned from", "here and there"])
def test_baselines_do_without_a_raster_that_has_no_data(gap: str) -> None:
    """As labels are where a model is allowed to miss an input: the first feature tells the classes, the second is gone."""
    generator = np.random.default_rng(0)
    classes = np.arange(120) % 3
    pixels = np.column_stack([classes + generator.normal(0, 0.1, 120), generator.normal(0, 1, 120)]).astype(np.float32)
    validation = np.arange(120) >= 80
    gone = {
        "everywhere": np.ones(120, bool),
        "where it is held out": validation,
        "where it is learned from": ~validation,
        "here and there": generator.random(120) < 0.5,
    }[gap]
    pixels[gone, 1] = np.nan
    samples = LabelledFeatures(pixels, pixels, classes, np.arange(120))
    for result in run_baselines(samples, validation, 0, lambda part, phase: None):
        assert (result.predicted == result.classes).mean() > 0.9, result.name


def test_features_where_only_some_rasters_have_data(mixed: Scene) -> None:
    data = TrainingData(mixed, labels_at(mixed.grid, BOXES, CLASSES), reach=20, allows_missing=True)
    samples = labelled_features(data)
    assert len(samples.classes) == len(data.pixels)
    assert np.isnan(samples.pixels).any()
    assert np.isfinite(samples.pixels).any(axis=1).all()


def test_votes_are_added_up_by_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several would add them in the order in which they end, and the last bit decides between classes that tie."""
    pixels = np.arange(20, dtype=np.float32)[:, None]
    samples = LabelledFeatures(pixels, pixels, np.arange(20) % 2, np.arange(20))
    threads: list[int] = []

    class Watching(RandomForestClassifier):
        def predict(self, values: np.ndarray) -> np.ndarray:
            threads.append(effective_n_jobs(2))
            return super().predict(values)

    watched = Baseline("watched", "pixels", lambda seed: Watching(5, n_jobs=2, random_state=seed))
    monkeypatch.setattr(baselines, "BASELINES", (watched,))
    run(samples, np.arange(20) < 8, 0)
    assert effective_n_jobs(2) == 2
    assert threads == [1]


def test_stopping_between_baselines_is_possible(simulated: Prepared) -> None:
    class Stop(Exception):  # noqa: N818 - what a caller raises to stop
        pass

    def stop(part: float, phase: str) -> None:
        if part > 0:
            raise Stop

    with pytest.raises(Stop):
        run_baselines(labelled_features(simulated.data), simulated.validation, 0, stop)
