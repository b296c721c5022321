"""Windows of the training data beside the scene itself, and what the sampler shows of them."""

from __future__ import annotations

import gc
import shutil
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import LabelError, OutputError
from core.finetuning import training_data
from core.finetuning.networks.sampling import WindowSampler, class_weights
from core.finetuning.networks.settings import TrainingSettings
from core.finetuning.training_data import BLOCK, TrainingData
from core.labels.rasterizing import rasterize
from core.models.subsets import proper_subsets
from core.scenes.grid import COARSER_FACTORS, Window, aligned
from core.scenes.reading import SceneReader, valid_pixels
from core.scenes.scene import Scene, SceneRequest, build_scene
from tests.core.finetuning.conftest import BOXES, CLASSES
from tests.core.finetuning.scenes import labels_at, mixed_scene, specification_for

SETTINGS = TrainingSettings(batch_size=8, window_size=24, radiometric_strength=0.0)


def near_blocks(scene: Scene, window: Window, reach: int) -> np.ndarray:
    """(rows, columns) bool, whether a pixel of the window lies in a block that comes within reach of a rectangle."""
    near = np.zeros(window.shape, bool)
    blocks = aligned(scene.grid, window, BLOCK)
    for row in range(blocks.row, blocks.stop_row, BLOCK):
        for column in range(blocks.column, blocks.stop_column, BLOCK):
            block = Window(column, row, BLOCK, BLOCK)
            boxes = (Window(left, top, right - left, bottom - top).padded(reach) for left, top, right, bottom in BOXES)
            if any(not block.intersection(box).is_empty for box in boxes):
                near[block.intersection(window).slices_within(window)] = True
    return near


def expected_labels(scene: Scene, values: dict[str, np.ndarray], window: Window) -> tuple[np.ndarray, np.ndarray]:
    burnt = rasterize(labels_at(scene.grid, BOXES, CLASSES), scene.grid, window)
    valid = np.logical_and.reduce([valid_pixels(values[entry.name], entry) for entry in scene.acquisitions])
    return np.where(valid, burnt.classes, -1), np.where(valid, burnt.feature, -1)


@given(column=st.integers(-30, 45), row=st.integers(-30, 40), width=st.integers(1, 30), height=st.integers(1, 30))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_window_is_the_scene_near_labels_and_empty_elsewhere(
    mixed: Scene, mixed_data: TrainingData, column: int, row: int, width: int, height: int
) -> None:
    first = aligned(mixed.grid, Window(3 * column, 3 * row, 1, 1), mixed.step)
    window = Window(first.column, first.row, mixed.step * width, mixed.step * height)
    found = mixed_data.window(window)
    with SceneReader(mixed) as reader:
        values = reader.read(window)
    near = near_blocks(mixed, window, 20)
    for entry in mixed.acquisitions:
        finer, coarser = entry.scale.finer, entry.scale.coarser
        here = near.repeat(finer, 0).repeat(finer, 1)[::coarser, ::coarser]
        np.testing.assert_array_equal(found.values[entry.name], np.where(here, values[entry.name], np.nan))
    classes, feature = expected_labels(mixed, values, window)
    np.testing.assert_array_equal(found.classes, classes)
    np.testing.assert_array_equal(found.feature, feature)


def test_a_warped_modality_is_the_same_whatever_window_it_is_read_with(sample: Any) -> None:
    paths = {"optical": [str(sample.optical)], "elevation": [str(sample.elevation)]}
    scene = build_scene(SceneRequest(paths))  # type: ignore[arg-type]
    assert scene.acquisitions[1].files[0].raster.crs != scene.grid.crs
    data = TrainingData(scene, labels_at(scene.grid, [(30, 40, 35, 45), (110, 100, 112, 104)], [0, 1]), reach=60)
    with SceneReader(scene) as reader:
        for window in (Window(-10, 3, 60, 40), Window(41, 37, 33, 21), Window(100, 90, 20, 30)):
            found, values = data.window(window).values, reader.read(window)
            for name, expected in values.items():
                np.testing.assert_allclose(found[name], expected, rtol=1e-6)


def test_pixels_are_all_labelled_pixels_with_data(mixed: Scene, mixed_data: TrainingData) -> None:
    window = aligned(mixed.grid, mixed.grid.window, mixed.step)
    with SceneReader(mixed) as reader:
        classes, feature = expected_labels(mixed, reader.read(window), window)
    rows, columns = np.nonzero(classes >= 0)
    expected = {
        (int(c) + window.column, int(r) + window.row, int(classes[r, c]), int(feature[r, c]))
        for r, c in zip(rows, columns, strict=True)
    }
    assert {tuple(pixel) for pixel in mixed_data.pixels.tolist()} == expected
    assert len(mixed_data.pixels) == len(expected)
    burnt = rasterize(labels_at(mixed.grid, BOXES, CLASSES), mixed.grid).classes
    assert 0 < len(expected) < (burnt >= 0).sum()


def test_labels_left_out_are_seen_by_nobody(mixed: Scene, mixed_data: TrainingData) -> None:
    kept = np.arange(len(mixed_data.labels)) % 2 == 0
    part = mixed_data.only(kept)
    assert set(part.pixels[:, 3]) == set(mixed_data.pixels[:, 3]) & set(np.flatnonzero(kept))
    for column, row in {(int(c) // 48 * 48, int(r) // 48 * 48) for c, r in mixed_data.pixels[:, :2]}:
        around = aligned(mixed.grid, Window(column, row, 48, 48), 48)
        all_of_it, seen = mixed_data.window(around), part.window(around)
        wanted = np.isin(all_of_it.feature, np.flatnonzero(kept))
        assert (seen.classes == np.where(wanted, all_of_it.classes, -1)).all()
        assert (seen.feature == np.where(wanted, all_of_it.feature, -1)).all()
        assert all(np.array_equal(seen.values[name], all_of_it.values[name], equal_nan=True) for name in seen.values)
    # The whole is as it was.
    assert (mixed_data.window(around).feature == all_of_it.feature).all()


def test_blocks_lie_on_a_lattice_of_whole_coarse_pixels_of_every_kind(mixed: Scene) -> None:
    assert all(BLOCK % coarser == 0 for coarser in COARSER_FACTORS)
    shifted = mixed.grid.crop(Window(7, -5, 90, 70))
    labels = labels_at(shifted, BOXES[:2], CLASSES[:2])
    column, row = shifted.anchor()
    for block_column, block_row in training_data._blocks_near(labels, shifted, 10):
        window = training_data._block_window(shifted, block_column, block_row, 1)
        assert (window.column + column) % BLOCK == (window.row + row) % BLOCK == 0


def test_runs_read_every_block_once() -> None:
    blocks = [(2, -1), (3, -1), (5, -1), (-4, 0), (6, 0), (7, 0), (8, 0), (8, 1)]
    runs = list(training_data._runs({block: slot for slot, block in enumerate(blocks)}))
    assert runs == [(-1, 2, 4), (-1, 5, 6), (0, -4, -3), (0, 6, 9), (1, 8, 9)]
    assert list(training_data._runs({})) == []


def test_blocks_on_disk_give_the_same_and_are_removed(
    mixed: Scene, mixed_data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_data, "MEMORY_LIMIT", 1000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    paged = TrainingData(mixed, labels_at(mixed.grid, BOXES, CLASSES), reach=20)
    assert len(list(tmp_path.rglob("*.bin"))) == 3
    np.testing.assert_array_equal(paged.pixels, mixed_data.pixels)
    window = aligned(mixed.grid, mixed.grid.window.padded(10), mixed.step)
    found, expected = paged.window(window), mixed_data.window(window)
    np.testing.assert_array_equal(found.feature, expected.feature)
    for name, values in expected.values.items():
        np.testing.assert_array_equal(found.values[name], values)
    del paged
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_a_disk_without_room_for_the_blocks_is_named(mixed: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_data, "MEMORY_LIMIT", 1000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(OutputError, match=str(tmp_path)) as caught:
        TrainingData(mixed, labels_at(mixed.grid, BOXES, CLASSES), reach=20)
    assert "TMPDIR" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_labels_where_a_raster_is_empty_are_an_error(tmp_path: Path) -> None:
    scene = mixed_scene(tmp_path, 60, 60)
    beyond = labels_at(scene.grid, [(200, 10, 210, 20), (10, 300, 20, 310)], [0, 1])
    with pytest.raises(LabelError, match="No labelled pixel has data"):
        TrainingData(scene, beyond, reach=5)


def draws(data: TrainingData, features: np.ndarray, seed: int, count: int, **options: float) -> list[object]:
    specification = specification_for(data.scene, 3)
    sampler = WindowSampler(data, features, specification, replace(SETTINGS, **options))  # type: ignore[arg-type]
    generator = np.random.default_rng(seed)
    return [sampler.batch(generator) for _ in range(count)]


def test_every_window_shows_a_label_to_learn_from_and_none_that_is_held_out(
    mixed_data: TrainingData, held_out: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Window] = []
    cut = mixed_data.window
    monkeypatch.setattr(mixed_data, "window", lambda window: (shown.append(window), cut(window))[1])
    batches = draws(mixed_data, ~held_out, 1, 60)
    classes = np.concatenate([batch.classes.numpy() for batch in batches])  # type: ignore[attr-defined]
    assert len(shown) == len(classes) == 480
    # Some windows do hold labels of the held-out rectangle beside a training one.
    hidden = 0
    for window, seen in zip(shown, classes, strict=True):
        drawn = cut(window)
        held = (drawn.feature >= 0) & held_out[drawn.feature]
        hidden += int(held.any())
        learnt = np.sort(drawn.classes[(drawn.feature >= 0) & ~held])
        np.testing.assert_array_equal(np.sort(seen[seen >= 0]), learnt)
        assert len(learnt)
    assert hidden > 10


def test_a_drawn_pixel_lies_anywhere_in_its_window(mixed: Scene) -> None:
    labels = labels_at(mixed.grid, [(62, 61, 63, 62), (20, 20, 21, 21)], [0, 1])
    data = TrainingData(mixed, labels, reach=40)
    assert len(data.pixels) == 2
    places = Counter[tuple[int, int]]()
    for batch in draws(data, np.array([True, False]), 0, 250):
        for classes in batch.classes.numpy():  # type: ignore[attr-defined]
            ((row, column),) = np.argwhere(classes >= 0)
            places[int(row), int(column)] += 1
    # 8 x 8 corners on the lattice of 3 pixels, each in eight symmetries.
    assert places.total() == 2000
    assert {place // 3 for place, _ in places} == {place // 3 for _, place in places} == set(range(8))


def test_classes_and_features_are_shown_equally_often(mixed: Scene) -> None:
    # One rectangle of 400 pixels and two of one pixel, of two classes, far apart.
    labels = labels_at(mixed.grid, [(10, 10, 30, 30), (100, 100, 101, 101), (60, 8, 61, 9)], [0, 1, 0])
    data = TrainingData(mixed, labels, reach=30)
    assert len(np.unique(data.pixels[:, 3])) == 3
    counts = np.zeros(3)
    window_size = 12
    for batch in draws(data, np.ones(3, bool), 3, 150, window_size=window_size):
        for classes in batch.classes.numpy():  # type: ignore[attr-defined]
            found = classes[classes >= 0]
            counts[1 if found[0] == 1 else (0 if len(found) > 1 else 2)] += 1
    share = counts / counts.sum()
    assert abs(share[1] - 1 / 2) < 0.06
    assert abs(share[0] - 1 / 4) < 0.06


@pytest.mark.parametrize(("asked", "side"), [(1, 12), (24, 24), (25, 36)])
def test_windows_have_the_next_size_that_the_model_takes(mixed_data: TrainingData, asked: int, side: int) -> None:
    (batch,) = draws(mixed_data, np.ones(len(BOXES), bool), 0, 1, window_size=asked)
    assert batch.classes.shape == (8, side, side)  # type: ignore[attr-defined]
    shapes = {name: values.shape[2:] for name, values in batch.values.items()}  # type: ignore[attr-defined]
    assert shapes == {"spot6_7": (side, side), "generic": (side // 3, side // 3), "dsm": (2 * side, 2 * side)}


@pytest.mark.parametrize("strength", [0.0, 0.2])
def test_batches_follow_from_the_seed(mixed_data: TrainingData, held_out: np.ndarray, strength: float) -> None:
    first, again, other = (draws(mixed_data, ~held_out, seed, 2, radiometric_strength=strength)[1] for seed in (4, 4, 5))
    for name, values in first.values.items():  # type: ignore[attr-defined]
        np.testing.assert_array_equal(values, again.values[name])  # type: ignore[attr-defined]
    assert not np.array_equal(first.classes, other.classes)  # type: ignore[attr-defined]


def test_values_and_labels_of_a_batch_are_turned_alike(mixed: Scene, mixed_data: TrainingData) -> None:
    """Labels that can be read off the values, in every modality, stay so in every symmetry."""
    cut = mixed_data.window

    class Telling:
        scene, pixels, allows_missing = mixed_data.scene, mixed_data.pixels, False

        def window(self, window: Window) -> object:
            drawn = cut(window)
            values = {}
            for entry in mixed.acquisitions:
                finer, coarser = entry.scale.finer, entry.scale.coarser
                spread = drawn.classes.repeat(finer, 0).repeat(finer, 1)
                rows, columns = spread.shape
                cells = spread.reshape(rows // coarser, coarser, columns // coarser, coarser)
                sums = cells.sum(axis=(1, 3), dtype=np.float32)
                values[entry.name] = np.stack([sums] * len(entry.bands))
            return replace(drawn, values=values)

    seen = set()
    for batch in draws(Telling(), np.ones(len(BOXES), bool), 2, 20):  # type: ignore[arg-type]
        classes = batch.classes.numpy().astype(np.float32)  # type: ignore[attr-defined]
        for entry in mixed.acquisitions:
            finer, coarser = entry.scale.finer, entry.scale.coarser
            spread = classes.repeat(finer, 1).repeat(finer, 2)
            count, rows, columns = spread.shape
            sums = spread.reshape(count, rows // coarser, coarser, columns // coarser, coarser).sum(axis=(2, 4))
            np.testing.assert_array_equal(batch.values[entry.name][:, 0], sums)  # type: ignore[attr-defined]
            seen.add(entry.scale)
    assert len(seen) == 3


def test_class_weights_let_classes_count_alike(mixed_data: TrainingData, held_out: np.ndarray) -> None:
    weights = class_weights(mixed_data, ~held_out, 4).double().numpy()
    of_training = mixed_data.pixels[~held_out[mixed_data.pixels[:, 3]]]
    counts = np.bincount(of_training[:, 2], minlength=4)
    np.testing.assert_allclose((weights * counts)[:3], counts.sum() / 3, rtol=1e-6)
    assert weights[3] == 0
    np.testing.assert_allclose(weights[of_training[:, 2]].mean(), 1, rtol=1e-6)


@pytest.fixture(scope="module")
def lenient(mixed: Scene) -> TrainingData:
    return TrainingData(mixed, labels_at(mixed.grid, BOXES, CLASSES), reach=20, allows_missing=True)


def test_labels_count_where_one_raster_that_shows_the_ground_has_data(
    mixed: Scene, mixed_data: TrainingData, lenient: TrainingData
) -> None:
    window = aligned(mixed.grid, mixed.grid.window, mixed.step)
    burnt = rasterize(labels_at(mixed.grid, BOXES, CLASSES), mixed.grid, window).classes
    with SceneReader(mixed) as reader:
        values = reader.read(window)
    optical, coarse, _ = (valid_pixels(values[entry.name], entry) for entry in mixed.acquisitions)
    rows, columns = np.nonzero((burnt >= 0) & (optical | coarse))
    found = {tuple(pixel) for pixel in lenient.pixels[:, :2].tolist()}
    assert found == {(int(c) + window.column, int(r) + window.row) for r, c in zip(rows, columns, strict=True)}
    strict = {tuple(pixel) for pixel in mixed_data.pixels[:, :2].tolist()}
    assert strict < found


def test_the_sets_that_a_map_can_rest_on(mixed: Scene) -> None:
    sets = proper_subsets(specification_for(mixed, 3))
    spot, generic, dsm = "spot6_7", "generic", "dsm"
    assert sets == [{spot}, {generic}, {spot, generic}, {spot, dsm}, {generic, dsm}]
    heights = specification_for(mixed, 3)
    only = heights.model_copy(update={"modalities": heights.modalities[2:]})
    assert proper_subsets(only) == []


def test_inputs_are_withheld_a_batch_at_a_time(lenient: TrainingData) -> None:
    everything = frozenset(entry.name for entry in lenient.scene.acquisitions)
    batches = draws(lenient, np.ones(len(BOXES), bool), 3, 300, modality_dropout=0.5)
    seen = Counter(frozenset(batch.values) for batch in batches)  # type: ignore[attr-defined]
    assert set(seen) == {everything, *proper_subsets(specification_for(lenient.scene, 3))}
    assert abs(seen[everything] / 300 - 0.5) < 0.1
    assert min(seen.values()) > 10
    for batch in batches:
        assert (batch.classes >= 0).any()  # type: ignore[attr-defined]
    assert all(
        set(batch.values) == everything for batch in draws(lenient, np.ones(len(BOXES), bool), 3, 20, modality_dropout=0.0)
    )  # type: ignore[attr-defined]


def test_nothing_is_withheld_where_nothing_may_be_missing(mixed_data: TrainingData) -> None:
    everything = {entry.name for entry in mixed_data.scene.acquisitions}
    for batch in draws(mixed_data, np.ones(len(BOXES), bool), 3, 30, modality_dropout=1.0):
        assert set(batch.values) == everything  # type: ignore[attr-defined]


def test_labels_that_the_inputs_left_do_not_cover_are_not_shown(tmp_path: Path) -> None:
    scene = mixed_scene(tmp_path, 60, 60)
    data = TrainingData(scene, labels_at(scene.grid, [(3, 3, 40, 40), (42, 3, 57, 57)], [0, 1]), reach=20, allows_missing=True)
    lost = 0
    for batch in draws(data, np.ones(2, bool), 1, 40, modality_dropout=1.0):
        if "spot6_7" in batch.values and "generic" not in batch.values:  # type: ignore[attr-defined]
            missing = ~np.isfinite(batch.values["spot6_7"].numpy()).all(axis=1)  # type: ignore[attr-defined]
            assert (batch.classes.numpy()[missing] == -1).all()  # type: ignore[attr-defined]
            lost += int(missing.sum())
    assert lost > 50


def test_a_model_with_a_global_view_is_shown_windows_of_its_own_size(mixed_data: TrainingData) -> None:
    wanted = specification_for(mixed_data.scene, 3, "unet_asymmetric_attention", window=32)
    batch = WindowSampler(mixed_data, np.ones(len(BOXES), bool), wanted, SETTINGS).batch(np.random.default_rng(0))
    assert batch.classes.shape == (8, 36, 36)
