"""Scenes made by others, on the grids that they come with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from core.errors import GridError
from core.scenes.grid import Scale, Window, aligned
from core.scenes.reading import SceneReader
from core.scenes.scene import SceneRequest, build_scene


def test_a_flood_in_degrees(shared_data: Path) -> None:
    folder = shared_data / "floods" / "India_900498"
    optical, sar = str(folder / "s2_l1c.tif"), str(folder / "s1_db.tif")
    scene = build_scene(SceneRequest({"optical": [optical], "sar": [sar]}))
    assert [a.name for a in scene.acquisitions] == ["sentinel2_l1c", "sentinel1"]
    assert scene.grid.crs == "EPSG:4326"
    assert scene.grid.resolution_m() == pytest.approx(10, rel=0.1)
    assert [a.scale for a in scene.acquisitions] == [Scale(), Scale()]
    window = Window(100, 200, 96, 64)
    with SceneReader(scene) as reader, rasterio.open(sar) as source, rasterio.open(optical) as stored:
        read = reader.read(window)
        expected = source.read(window=((200, 264), (100, 196)))
        numbers = stored.read(2, window=((200, 264), (100, 196)))
    # The same grid: copied as it is.
    np.testing.assert_array_equal(read["sentinel1"], expected)
    assert read["sentinel2_l1c"].shape == (13, 64, 96)
    np.testing.assert_allclose(read["sentinel2_l1c"][1], numbers / 1e4, rtol=1e-6)


def test_a_series_on_grids_of_its_own(shared_data: Path) -> None:
    """The dates' grids differ by 2 m and a row of 5 m pixels; other places and systems lie beside them."""
    dates = sorted(str(path) for path in (shared_data / "us_series" / "naip").glob("*.tif"))
    assert len(dates) == 3
    scene = build_scene(SceneRequest({"optical": dates[:1], "other": dates[2:]}, {"other": "generic"}))
    assert scene.grid.crs == "EPSG:26914"
    assert scene.grid.shape == (723, 934)
    window = Window(300, 200, 50, 40)
    with SceneReader(scene) as reader:
        later = reader.read(window)["generic"]
    with rasterio.open(dates[2]) as source:
        numbers = source.read(1).astype(float)
        corner = ~source.transform @ (scene.grid.left + 300.5 * 5, scene.grid.top - 200.5 * 5)
    # By hand, bilinear, at one pixel's centre.
    x, y = corner[0] - 0.5, corner[1] - 0.5
    column, row = int(x), int(y)
    right, down = x - column, y - row
    four = numbers[row : row + 2, column : column + 2]
    expected = (four * np.outer([1 - down, down], [1 - right, right])).sum()
    assert later[0, 0, 0] == pytest.approx(expected, rel=1e-5)
    for other in ("landsat/2020.tif", "elevation/dsm.tif"):
        with pytest.raises(GridError, match="does not overlap"):
            build_scene(SceneRequest({"optical": dates[:1], "other": [str(shared_data / "us_series" / other)]}))


def test_elevation_with_nodata(shared_data: Path) -> None:
    folder = shared_data / "us_series" / "elevation"
    scene = build_scene(SceneRequest({"elevation": [str(folder / "dsm.tif"), str(folder / "hag.tif")]}))
    with SceneReader(scene) as reader:
        read = reader.read(scene.grid.window)
    assert set(read) == {"dsm", "height_above_ground"}
    for values in read.values():
        assert np.nanmin(values) > -200
        assert np.isfinite(values).mean() > 0.5


def test_a_plot_of_trees_at_ten_centimetres_and_a_metre(shared_data: Path) -> None:
    folder = shared_data / "neon_trees" / "MLBS"
    picture, spectra = str(folder / "rgb" / "MLBS_1.tif"), str(folder / "hsi" / "MLBS_1.tif")
    scene = build_scene(SceneRequest({"optical": [picture], "other": [spectra]}, {"other": "generic"}))
    assert scene.grid.resolution_m() == pytest.approx(0.1, rel=0.01)
    assert scene.grid.shape == (200, 200)
    assert [a.scale.coarser for a in scene.acquisitions] == [1, 12]
    window = aligned(scene.grid, Window(0, 0, 200, 200), scene.step)
    with SceneReader(scene) as reader:
        read = reader.read(window)
    assert read[scene.main.name].shape == (3, window.height, window.width)
    assert read["generic"].shape == (369, window.height // 12, window.width // 12)
    coarse = build_scene(SceneRequest({"optical": [picture], "other": [spectra]}, {"other": "generic"}, resolution=1.0))
    assert [(a.scale.finer, a.scale.coarser) for a in coarse.acquisitions] == [(10, 1), (1, 1)]
    with SceneReader(coarse) as reader, rasterio.open(picture) as source, rasterio.open(spectra) as cube:
        read = reader.read(coarse.grid.window)
        np.testing.assert_allclose(read[coarse.main.name], source.read([1, 2, 3]) / 255, rtol=1e-6)
        np.testing.assert_array_equal(read["generic"], cube.read())
