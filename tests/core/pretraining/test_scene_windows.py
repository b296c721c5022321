"""Windows of scenes: inside, on the right ground, the same for the same seed, and in bounded memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin

from core.errors import RasterError
from core.models.specify import specify_for_scenes
from core.pretraining import scene_windows
from core.pretraining.scene_windows import SceneWindows
from core.scenes.scene import Scene, SceneRequest, build_scene
from tests.core.finetuning.scenes import mixed_scene, write_raster


def coordinates(height: int, width: int) -> np.ndarray:
    """Two bands that hold each pixel's own row and column."""
    return np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij")).astype(np.float32)


def ground_scene(folder: Path, height: int = 90, width: int = 120):
    """A sensor of 10 m and one of 5 m whose values are their own places, in pixels of 10 m."""
    own = write_raster(folder / "own.tif", coordinates(height, width), 10)
    fine = write_raster(folder / "fine.tif", (coordinates(2 * height, 2 * width) - 0.5) / 2, 5)
    request = SceneRequest({"other": [own], "elevation": [fine]}, {"other": "generic", "elevation": "generic"})
    return build_scene(request)


def windows_of(scenes, size=32, batch=4, **options) -> SceneWindows:
    specification, renamed = specify_for_scenes(scenes, "unet_early")
    return SceneWindows(renamed, specification, size, batch, **options)


@pytest.mark.parametrize("memory", [2**30, 200_000])
def test_all_modalities_of_a_window_show_the_same_ground(tmp_path, memory):
    scene = ground_scene(tmp_path)
    windows = windows_of([scene], memory_bytes=memory)
    windows.open_epoch(0, 1)
    seen = set()
    for number in range(12):
        batch = windows.batch(np.random.default_rng(number))
        own, fine = batch.values.values()
        assert own.shape == (4, 2, 32, 32)
        assert fine.shape == (4, 2, 64, 64)
        halved = torch.nn.functional.avg_pool2d(fine, 2)
        assert torch.allclose(halved, own, atol=1e-4)
        assert torch.allclose(own[:, :, 1:, 1:] - own[:, :, :-1, :-1], torch.ones(4, 2, 31, 31))
        seen |= {tuple(corner.tolist()) for corner in own[:, :, 0, 0]}
    assert len(seen) > 30
    assert torch.isnan(batch.geography).all()


def test_the_same_seed_draws_the_same_windows_and_another_does_not(tmp_path):
    scene = ground_scene(tmp_path)
    one, other = (windows_of([scene], memory_bytes=200_000) for _ in range(2))
    for epoch in (1, 2):
        one.open_epoch(3, epoch)
        other.open_epoch(3, epoch)
        first, second = (each.batch(np.random.default_rng(epoch)) for each in (one, other))
        assert all(torch.equal(first.values[name], second.values[name]) for name in first.values)
    other.open_epoch(4, 2)
    third = other.batch(np.random.default_rng(2))
    assert not torch.equal(third.values["generic"], first.values["generic"])


def test_parts_of_a_large_scene_keep_to_the_memory(tmp_path):
    windows = windows_of([ground_scene(tmp_path, 400, 500)], memory_bytes=1_000_000)
    for epoch in (1, 2, 3):
        windows.open_epoch(0, epoch)
        held = [array.nbytes for parts in windows._parts for part in parts for array in part.values.values()]
        assert 0 < sum(held) <= 1_000_000


def test_a_scene_smaller_than_a_window_is_filled_up_with_nothing(tmp_path):
    batch = windows_of([ground_scene(tmp_path, 20, 25)], size=32).batch(np.random.default_rng(0))
    own = batch.values["generic"]
    assert own.shape == (4, 2, 32, 32)
    assert torch.isfinite(own[:, :, :20, :25]).all()
    assert torch.isnan(own[:, :, 20:]).all()
    assert torch.isnan(own[:, :, :, 25:]).all()


def test_scenes_of_different_sensors_make_batches_of_their_own(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    first = mixed_scene(tmp_path / "one")
    second = build_scene(SceneRequest({"optical": [first.main.paths[0]]}, {"optical": "spot6_7"}))
    windows = windows_of([first, second], size=24)
    names = {batch.names for batch in (windows.batch(np.random.default_rng(number)) for number in range(20))}
    assert names == {("spot6_7", "generic", "dsm"), ("spot6_7",)}


def test_the_same_sensor_at_another_resolution_is_another_input(tmp_path):
    (tmp_path / "one").mkdir()
    first = mixed_scene(tmp_path / "one")
    # The heights alone are the scene's own grid.
    second = build_scene(SceneRequest({"elevation": [first.acquisition("dsm").paths[0]]}, {"elevation": "dsm"}))
    specification, renamed = specify_for_scenes([first, second], "unet_early")
    assert [entry.name for entry in specification.modalities] == ["spot6_7", "generic", "dsm", "dsm_2"]
    assert [a.name for a in renamed[1].acquisitions] == ["dsm_2"]
    assert specification.modalities[2].finer == 2
    assert specification.modalities[3].finer == 1


def test_windows_with_data_are_preferred(tmp_path):
    values = np.full((1, 100, 100), np.nan, np.float32)
    values[:, 30:75, 40:90] = np.random.default_rng(0).random((45, 50))
    path = write_raster(tmp_path / "gap.tif", values, 10)
    scene = build_scene(SceneRequest({"other": [path]}, {"other": "generic"}))
    batch = windows_of([scene], size=32, batch=64).batch(np.random.default_rng(0))
    share = torch.isfinite(batch.values["generic"]).float().mean((1, 2, 3))
    assert (share >= scene_windows.LEAST_VALID).float().mean() > 0.9


def test_a_scene_without_data_is_named(tmp_path):
    values = np.full((1, 60, 60), np.nan, np.float32)
    values[:, -1, -1], values[:, -1, -2] = 1, 2
    path = write_raster(tmp_path / "empty.tif", values, 10)
    scene = build_scene(SceneRequest({"other": [path]}, {"other": "generic"}))
    windows = windows_of([scene], size=16, memory_bytes=2000)

    def look_everywhere() -> None:
        for epoch in range(20):
            windows.open_epoch(0, epoch)

    with pytest.raises(RasterError, match=r"empty\.tif"):
        look_everywhere()


def test_a_scene_whose_parts_miss_its_data_sits_out_the_epoch(tmp_path):
    """Half of one scene is nodata: over many epochs some draws miss the rest, and the run goes on with the other scene."""
    generator = np.random.default_rng(0)
    half = generator.uniform(1, 2, (1, 60, 60)).astype(np.float32)
    half[:, :, 8:] = np.nan
    paths = [write_raster(tmp_path / "half.tif", half, 10)]
    paths.append(write_raster(tmp_path / "whole.tif", generator.uniform(1, 2, (1, 60, 60)), 10))
    scenes = [build_scene(SceneRequest({"other": [path]}, {"other": "generic"})) for path in paths]
    windows = windows_of(scenes, size=16, memory_bytes=4000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("core.pretraining.scene_windows.TRIES", 1)
        present = set()
        for epoch in range(30):
            windows.open_epoch(0, epoch)
            present.add(tuple(bool(parts) for parts in windows._parts))
            assert len(windows.batch(np.random.default_rng(epoch))) > 0
    assert present == {(True, True), (False, True)}


def plots(folder: Path, side: int, places: list[tuple[int, int]]) -> Scene:
    """Files of so many pixels at these metres from a corner, whose values tell which it is."""
    paths = []
    for number, (left, top) in enumerate(places):
        values = np.random.default_rng(number).uniform(number, number + 1, (1, side, side)).astype(np.float32)
        transform = from_origin(500_000 + left, 5_400_000 + top, 10, 10)
        paths.append(folder / f"plot{number}.tif")
        profile = {"driver": "GTiff", "height": side, "width": side, "count": 1, "dtype": "float32", "crs": "EPSG:32632"}
        with rasterio.open(paths[-1], "w", **profile, transform=transform) as dataset:
            dataset.write(values)
    return build_scene(SceneRequest({"other": [str(path) for path in paths]}, {"other": "generic"}))


def test_large_files_far_apart_are_looked_at_in_squares(tmp_path):
    scene = plots(tmp_path, 600, [(0, 0), (90_000, -90_000)])
    windows = windows_of([scene], size=32, batch=16, memory_bytes=1_000_000)
    seen = set()
    for epoch in (1, 2, 3):
        windows.open_epoch(0, epoch)
        assert sum(part.values["generic"].nbytes for part in windows._parts[0]) <= 1_000_000
        shown = windows.batch(np.random.default_rng(epoch)).values["generic"]
        assert torch.isfinite(shown).float().mean() > 0.9
        seen |= {int(window[torch.isfinite(window)].mean()) for window in shown}
    assert seen == {0, 1}


def test_plots_far_apart_are_looked_at_one_by_one(tmp_path):
    """A grid of 4000 x 4000 pixels on which four plots of 20 pixels lie: windows show them, and memory holds no more."""
    scene = plots(tmp_path, 20, [(0, 0), (39_800, 0), (0, -39_800), (20_000, -20_000)])
    assert scene.grid.shape == (4000, 4000)
    windows = windows_of([scene], size=32, batch=32, memory_bytes=100_000)
    assert windows.n_windows == 4
    windows.open_epoch(0, 1)
    shown = windows.batch(np.random.default_rng(0)).values["generic"]
    known = torch.isfinite(shown).flatten(1)
    # A window is larger than a plot, and mostly shows all of it.
    assert known.any(dim=1).all()
    assert known.float().mean() > 0.3
    assert {int(window[at].mean()) for window, at in zip(shown.flatten(1), known, strict=True)} == {0, 1, 2, 3}
    assert sum(part.values["generic"].nbytes for part in windows._parts[0]) < 100_000


def test_geography_is_that_of_the_windows(tmp_path):
    scene = ground_scene(tmp_path)
    specification, renamed = specify_for_scenes([scene], "unet_early")
    specification = specification.model_copy(update={"has_geography": True})
    batch = SceneWindows(renamed, specification, 32, 4).batch(np.random.default_rng(0))
    longitude, latitude = scene.grid.center()
    assert torch.allclose(batch.geography[:, 0], torch.tensor(latitude, dtype=torch.float64), atol=0.01)
    assert torch.allclose(batch.geography[:, 1], torch.tensor(longitude, dtype=torch.float64), atol=0.01)
    assert torch.allclose(batch.geography[:, 2], torch.tensor(10.0, dtype=torch.float64), rtol=0.01)
    # Further south is a smaller latitude.
    rows = batch.values["generic"][:, 0, 0, 0]
    order = rows.argsort()
    assert (batch.geography[order, 0].diff() <= 0).all()


def test_days_are_those_of_the_files_that_a_window_shows(tmp_path):
    """Two files side by side of two days, a third without: where they meet nobody knows the day."""
    names = ("west_20210702.tif", "east_20200301.tif", "south.tif")
    for name, origin in zip(names, ((500_000, 5_800_000), (500_640, 5_800_000), (500_000, 5_799_360)), strict=True):
        values = coordinates(64, 64) + np.float32(origin[0] - 500_000) / 10
        write_raster(tmp_path / name, values, 10, *origin)
    scene = build_scene(SceneRequest({"other": [str(tmp_path / name) for name in names]}, {"other": "generic"}))
    specification, renamed = specify_for_scenes([scene], "unet_early")
    assert windows_of([scene]).batch(np.random.default_rng(0)).dates == {}
    specification = specification.model_copy(update={"has_circumstances": True})
    windows, seen = SceneWindows(renamed, specification, 32, 4), set()
    for number in range(40):
        batch = windows.batch(np.random.default_rng(number))
        assert list(batch.dates) == ["generic"]
        assert torch.allclose(batch.geography[:, 2], torch.tensor(10.0, dtype=torch.float64), rtol=0.01)
        for (day,), values in zip(batch.dates["generic"].tolist(), batch.values["generic"], strict=True):
            column = float(values[1][torch.isfinite(values[1])].max())
            known = {True: 182.0, False: 60.0}[column < 64]
            assert day == known or np.isnan(day)
            seen.add(day if day == day else None)
    assert seen == {182.0, 60.0, None}
