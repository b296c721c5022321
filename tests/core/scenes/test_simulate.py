"""The simulated scene: same bytes, right files, plausible values."""

from __future__ import annotations

import filecmp
import os
import stat
import tempfile
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.warp import reproject

from core.errors import Cancelled, OutputError, UsageError
from core.scenes.simulate import SimulatedScene, write_scene
from core.scenes.simulation.landscape import BUILT_UP, CLASSES, TREES, WATER, Landscape
from core.scenes.simulation.measurements import Tile
from core.scenes.simulation.noise import fractal_noise, parcels, smooth_noise


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> SimulatedScene:
    return write_scene(tmp_path_factory.mktemp("simulated") / "scene", 300, 1)


def heights_on(scene: SimulatedScene, reference: rasterio.DatasetReader) -> np.ndarray:
    target = np.full(reference.shape, np.nan, dtype=np.float32)
    with rasterio.open(scene.elevation) as source:
        reproject(
            rasterio.band(source, 1),
            target,
            dst_transform=reference.transform,
            dst_crs=reference.crs,
            dst_nodata=np.nan,
            resampling=Resampling.average,
        )
    return target


def test_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    first = write_scene(tmp_path / "first", 97, 4)
    second = write_scene(tmp_path / "second", 97, 4)
    names = sorted(path.name for path in first.folder.iterdir())
    assert names == sorted(path.name for path in second.folder.iterdir())
    match, mismatch, errors = filecmp.cmpfiles(first.folder, second.folder, names, shallow=False)
    assert (sorted(match), mismatch, errors) == (names, [], [])
    other = write_scene(tmp_path / "other", 97, 5)
    for path, changed in zip(first.rasters, other.rasters, strict=True):
        assert path.read_bytes() != changed.read_bytes()


def test_rasters_have_the_grids_bands_and_nodata_that_are_promised(scene: SimulatedScene) -> None:
    with rasterio.open(scene.optical) as optical, rasterio.open(scene.sar) as sar, rasterio.open(scene.truth) as truth:
        assert optical.shape == sar.shape == truth.shape == (300, 300)
        assert optical.crs.to_epsg() == 32633
        assert optical.transform == sar.transform == truth.transform
        assert optical.descriptions == ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B11", "B12")
        assert (optical.dtypes[0], optical.nodata, optical.tags()["BOA_ADD_OFFSET"]) == ("uint16", 0, "0")
        assert optical.read().min() > 0
        assert sar.descriptions == ("VV", "VH")
        assert sar.dtypes[0] == "float32"
        assert np.isnan(sar.nodata)
        assert sar.tags()["ORBIT_DIRECTION"] == "ASCENDING"
        missing = np.isnan(sar.read())
        assert (missing[0] == missing[1]).all()
        assert 0.002 < missing.mean() < 0.1
        assert missing[0, -1, -1]
        assert set(np.unique(truth.read(1))) == {entry.code for entry in CLASSES}
        assert truth.colormap(1)[WATER] == (0x2B, 0x6C, 0xB8, 255)


def test_surface_model_is_finer_in_another_system_and_covers_the_scene(scene: SimulatedScene) -> None:
    with rasterio.open(scene.elevation) as surface, rasterio.open(scene.truth) as truth:
        assert surface.crs.to_epsg() == 3035
        assert surface.res == (2.5, 2.5)
        heights, codes = heights_on(scene, truth), truth.read(1)
    assert np.isfinite(heights).all()
    # Only the surface model tells the lakes' level, the trees and the houses by their height.
    water = heights[codes == WATER]
    assert abs(float(np.median(water)) - 33) < 0.1
    assert np.median(heights[codes == TREES]) - np.median(heights[(codes != TREES) & (codes != BUILT_UP)]) > 8


def test_optical_and_radar_values_are_those_of_the_field(scene: SimulatedScene) -> None:
    with rasterio.open(scene.optical) as optical, rasterio.open(scene.sar) as sar, rasterio.open(scene.truth) as truth:
        codes = truth.read(1)
        reflectance = dict(zip(optical.descriptions, optical.read() / 1e4, strict=True))
        backscatter = sar.read()
    vegetation = (reflectance["B8"] - reflectance["B4"]) / (reflectance["B8"] + reflectance["B4"])
    assert np.median(vegetation[codes == TREES]) > 0.7
    assert np.median(vegetation[codes == WATER]) < 0
    assert 0.03 < np.median(reflectance["B3"]) < 0.12
    vv = backscatter[0]
    assert np.nanmedian(vv[codes == WATER]) < -17
    assert np.nanmedian(vv[codes == BUILT_UP]) > np.nanmedian(vv[codes == TREES]) > np.nanmedian(vv[codes == WATER])
    # Five looks: the intensity's standard deviation over its mean is 1 / sqrt(5), texture and mixtures on top.
    intensity = np.power(10, vv[codes == TREES] / 10)
    intensity = intensity[np.isfinite(intensity)]
    assert 0.40 < intensity.std() / intensity.mean() < 0.62


def test_labels_lie_in_their_class_and_points_outside_them(scene: SimulatedScene) -> None:
    labels, reference = geopandas.read_file(scene.labels), geopandas.read_file(scene.reference)
    assert labels.crs.to_epsg() == 4326
    names = {entry.code: entry.name for entry in CLASSES}
    for table in (labels, reference):
        assert [names[code] for code in table["code"]] == list(table["class"])
        assert set(table["class"]) == set(names.values())
    assert labels.groupby("class").size().max() == 12
    assert set(reference.groupby("class").size()) == {60}
    assert labels.geometry.is_valid.all()
    with rasterio.open(scene.truth) as truth:
        codes, drawn = truth.read(1), labels.to_crs(truth.crs)
        burnt = rasterize(zip(drawn.geometry, drawn["code"], strict=True), truth.shape, transform=truth.transform)
        across = drawn.geometry.bounds
        width = np.maximum(across["maxx"] - across["minx"], across["maxy"] - across["miny"]) / 10
        assert width.between(3, 30).all()
        agreement = (codes[burnt > 0] == burnt[burnt > 0]).mean()
        # Drawn by hand: nearly right, and not exactly.
        assert 0.93 < agreement < 1
        points = reference.to_crs(truth.crs)
        rows, columns = rasterio.transform.rowcol(truth.transform, points.geometry.x, points.geometry.y)
        assert (codes[rows, columns] == points["code"]).all()
        assert not points.geometry.intersects(drawn.union_all()).any()


def test_a_pixel_forest_maps_it_and_every_sensor_helps(tmp_path: Path) -> None:
    from sklearn.ensemble import RandomForestClassifier

    scene = write_scene(tmp_path / "scene", 500, 0)
    with rasterio.open(scene.optical) as optical, rasterio.open(scene.sar) as sar, rasterio.open(scene.truth) as truth:
        codes, heights = truth.read(1), heights_on(scene, truth)
        drawn = geopandas.read_file(scene.labels).to_crs(truth.crs)
        burnt = rasterize(zip(drawn.geometry, drawn["code"], strict=True), truth.shape, transform=truth.transform)
        images, backscatter = optical.read(), np.nan_to_num(sar.read(), nan=-30)
    test = np.random.default_rng(0).choice(np.flatnonzero(burnt == 0), 5000, replace=False)

    def accuracy(bands: np.ndarray) -> float:
        table = bands.reshape(len(bands), -1).T
        learned = burnt.ravel() > 0
        forest = RandomForestClassifier(60, random_state=0, min_samples_leaf=2)
        forest.fit(table[learned], burnt.ravel()[learned])
        return float((forest.predict(table[test]) == codes.ravel()[test]).mean())

    optical_only = accuracy(images)
    together = accuracy(np.concatenate([images, backscatter, heights[None]]))
    assert 0.65 < optical_only < 0.85
    assert optical_only + 0.02 < together < 0.92


def test_fields_do_not_depend_on_the_window() -> None:
    xs, ys = np.arange(0, 900, 5.0), np.arange(-300, 500, 5.0)
    part = (slice(30, 90), slice(50, 120))
    for wavelength in (40.0, 333.0):
        whole = smooth_noise(xs, ys, wavelength, 3)
        np.testing.assert_array_equal(whole[part], smooth_noise(xs[part[1]], ys[part[0]], wavelength, 3))
    land, piece = parcels(xs, ys, 400, 90, 7), parcels(xs[part[1]], ys[part[0]], 400, 90, 7)
    np.testing.assert_array_equal(land.bits[part], piece.bits)
    np.testing.assert_array_equal(land.edge[part], piece.edge)


def test_landscape_does_not_depend_on_the_window() -> None:
    landscape = Landscape(3000, 9)
    whole, piece = landscape.patch(0, 0, 300, 200, 10), landscape.patch(1100, 700, 60, 50, 10)
    part = (slice(70, 120), slice(110, 170))
    for name in ("codes", "cover", "other_cover", "other_share", "terrain", "objects", "parcel"):
        np.testing.assert_array_equal(getattr(whole, name)[part], getattr(piece, name), err_msg=name)


def test_truth_of_a_tile_is_the_truth_of_the_whole() -> None:
    landscape = Landscape(3000, 2)
    whole = Tile(landscape, 0, 0, 300, 300, 10.0, np.random.default_rng(0)).truth()
    piece = Tile(landscape, 40, 60, 100, 80, 10.0, np.random.default_rng(0)).truth()
    np.testing.assert_array_equal(whole[60:140, 40:140], piece)


def test_noise_has_unit_spread() -> None:
    positions = np.arange(0, 40_000, 37.0)
    surface = fractal_noise(positions, positions, 400, 3, 1)
    assert abs(float(surface.mean())) < 0.05
    assert abs(float(surface.std()) - 1) < 0.05


@pytest.mark.parametrize("size", [64, 65, 131])
def test_small_and_odd_sizes_show_every_class(tmp_path: Path, size: int) -> None:
    scene = write_scene(tmp_path / "scene", size, 3)
    with rasterio.open(scene.truth) as truth:
        assert truth.shape == (size, size)
        assert set(np.unique(truth.read(1))) == {entry.code for entry in CLASSES}
    assert set(geopandas.read_file(scene.labels)["code"]) == {entry.code for entry in CLASSES}


def test_several_tiles_join_without_a_seam(tmp_path: Path) -> None:
    with rasterio.open(write_scene(tmp_path / "scene", 530, 0).optical) as optical:
        red = optical.read(4).astype(float)
    steps = np.abs(np.diff(red, axis=1)).mean(axis=0)
    assert steps[511] < 1.3 * np.median(steps)


@pytest.mark.parametrize(("size", "seed"), [(63, 0), (20001, 0), (100, -1)])
def test_sizes_and_seeds_out_of_range(tmp_path: Path, size: int, seed: int) -> None:
    with pytest.raises(UsageError, match=r"size|seed"):
        write_scene(tmp_path / "scene", size, seed)
    assert not list(tmp_path.iterdir())


def test_missing_parent_and_file_in_the_way(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        write_scene(tmp_path / "missing" / "scene", 64)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="is a file"):
        write_scene(tmp_path / "file", 64)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README.txt").write_text("My own notes\n")
    with pytest.raises(OutputError, match="not empty"):
        write_scene(tmp_path, 64)
    assert [path.name for path in tmp_path.iterdir()] == ["README.txt"]


@pytest.mark.skipif(os.name == "nt", reason="folders have no such permissions on Windows")
def test_read_only_folder() -> None:
    # Not in pytest's own folder: another user may not even look into that one.
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(OutputError, match="cannot be written to: Permission denied"):
                write_scene(Path(place) / "scene", 64)
        finally:
            os.seteuid(user)
        assert not list(Path(place).iterdir())


def test_an_earlier_scene_is_replaced_and_other_files_stay(tmp_path: Path) -> None:
    folder = tmp_path / "sc\u00e8ne d'\u00e9t\u00e9"
    old = write_scene(folder, 64, 0)
    (folder / "map.tif").write_text("mine")
    statistics = folder / "sentinel2_l2a.tif.aux.xml"
    statistics.write_text("of the old one")
    before = old.optical.read_bytes()
    scene = write_scene(folder, 64, 1)
    assert scene.optical.read_bytes() != before
    assert (folder / "map.tif").read_text() == "mine"
    assert not statistics.exists()
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    plain = tmp_path / "plain"
    plain.mkdir()
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_cancelling_leaves_nothing(tmp_path: Path) -> None:
    def stop(fraction: float, phase: str) -> None:
        if phase == "Surface model":
            raise Cancelled()

    with pytest.raises(Cancelled):
        write_scene(tmp_path / "scene", 64, 0, stop)
    assert not list(tmp_path.iterdir())


def test_progress_rises_to_one(tmp_path: Path) -> None:
    seen: list[float] = []
    write_scene(tmp_path / "scene", 64, 0, lambda fraction, phase: seen.append(fraction))
    assert seen == sorted(seen)
    assert seen[-1] == 1


def test_a_disk_too_small_is_named_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**20))
    with pytest.raises(OutputError, match="1 MiB left"):
        write_scene(tmp_path / "scene", 500)
    assert not list(tmp_path.iterdir())
