"""Reading windows: right whatever the source's grid, and the same whatever the window."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import Transformer

from core.scenes import reading
from core.scenes.grid import Grid, Scale, Window, aligned, on_scale
from core.scenes.raster_file import open_raster
from core.scenes.reading import SceneReader, valid_pixels
from core.scenes.scene import SceneRequest, build_scene
from tests.core.scenes.ground import (
    BASE,
    LEFT,
    TOP,
    plane,
    read_onto,
    read_scene,
    scene_of,
    truth_file,
    truth_on,
    write,
)

ROOT = Path(__file__).resolve().parents[3]
REFERENCE = Grid(BASE, LEFT, TOP, 10, 10, 100, 80)
SIZE = 10 / 3
DEGREES_X, DEGREES_Y = 10 / 69_600, 10 / 111_260
"""About 10 m at 51.4 degrees north."""


def around(crs: str) -> tuple[float, float]:
    """The reference grid's upper left corner in another system."""
    x, y = Transformer.from_crs(BASE, crs, always_xy=True).transform(LEFT, TOP)
    return float(x), float(y)


def source_transforms() -> dict[str, tuple[str, Affine, int, int]]:
    laea, degrees, zone, web = (around(crs) for crs in ("EPSG:3035", "EPSG:4326", "EPSG:32632", "EPSG:3857"))
    rotated = Affine.translation(LEFT + 300, TOP + 600) @ Affine.rotation(-30) @ Affine.scale(10, -10)
    return {
        "north-up": (BASE, Affine(10, 0, LEFT, 0, -10, TOP), 100, 80),
        "wider": (BASE, Affine(10, 0, LEFT - 70, 0, -10, TOP + 50), 130, 120),
        "south-up": (BASE, Affine(10, 0, LEFT, 0, 10, TOP - 800), 100, 80),
        "east to west": (BASE, Affine(-10, 0, LEFT + 1000, 0, -10, TOP), 100, 80),
        "rotated": (BASE, rotated, 200, 200),
        "offset": (BASE, Affine(10, 0, LEFT - 43.7, 0, -10, TOP + 38.1), 120, 100),
        "finer x4": (BASE, Affine(2.5, 0, LEFT, 0, -2.5, TOP), 400, 320),
        "finer x3": (BASE, Affine(SIZE, 0, LEFT, 0, -SIZE, TOP), 300, 240),
        "finer x3.7, offset": (BASE, Affine(2.7, 0, LEFT - 13.1, 0, -2.7, TOP + 9.7), 400, 320),
        "finer, rotated": (BASE, rotated @ Affine.scale(0.4), 500, 500),
        "coarser x2": (BASE, Affine(20, 0, LEFT - 40, 0, -20, TOP + 40), 60, 50),
        "coarser x3": (BASE, Affine(30, 0, LEFT - 60, 0, -30, TOP + 60), 40, 40),
        "flat pixels": (BASE, Affine(5, 0, LEFT - 20, 0, -20, TOP + 40), 220, 50),
        "equal-area": ("EPSG:3035", Affine(10, 0, laea[0] - 300, 0, -10, laea[1] + 300), 200, 160),
        "equal-area, finer": ("EPSG:3035", Affine(3, 0, laea[0] - 300, 0, -3, laea[1] + 300), 660, 530),
        "degrees": ("EPSG:4326", Affine(DEGREES_X, 0, degrees[0] - 0.001, 0, -DEGREES_Y, degrees[1] + 0.001), 140, 110),
        "next zone": ("EPSG:32632", Affine(10, 0, zone[0] - 300, 0, -10, zone[1] + 300), 200, 180),
        "web mercator": ("EPSG:3857", Affine(16, 0, web[0] - 100, 0, -16, web[1] + 100), 120, 100),
    }


SOURCES = source_transforms()


@pytest.mark.parametrize("name", SOURCES)
def test_every_grid_shows_the_same_ground(name: str, tmp_path: Path) -> None:
    crs, transform, width, height = SOURCES[name]
    path = truth_file(tmp_path / "a.tif", transform, width, height, crs, plane)
    values = read_onto(path, REFERENCE)
    assert values.shape == (1, 80, 100)
    assert values.dtype == np.float32
    expected = truth_on(REFERENCE, plane)
    # Rows and columns whose pixels reach beyond a turned or shifted source may lack half of themselves.
    there = np.isfinite(values[0])
    assert there.mean() == 1
    # Along an edge of a finer source, a mean may lack the part beyond; none of these ends within the reference grid.
    np.testing.assert_allclose(values[0], expected, atol=5e-4)
    curved = read_onto(truth_file(tmp_path / "b.tif", transform, width, height, crs), REFERENCE)
    np.testing.assert_allclose(curved[0], truth_on(REFERENCE), atol=0.01)


@pytest.mark.parametrize("name", ["north-up", "wider", "finer x4", "finer x3"])
def test_pixels_that_fit_are_copied_or_averaged_exactly(name: str, tmp_path: Path) -> None:
    crs, transform, width, height = SOURCES[name]
    codes = np.random.default_rng(8).integers(0, 60_000, (2, height, width)).astype(np.uint16)
    values = read_onto(write(tmp_path / "a.tif", codes, transform, crs), REFERENCE)
    column, row = (round(value) for value in ~transform @ (LEFT, TOP))
    times = round(10 / transform.a)
    part = codes[:, row : row + 80 * times, column : column + 100 * times].astype(np.float64)
    expected = part.reshape(2, 80, times, 100, times).mean(axis=(2, 4))
    np.testing.assert_array_equal(values, expected.astype(np.float32))


@pytest.mark.parametrize("name", ["finer x3", "finer x3.7, offset", "finer, rotated", "equal-area, finer"])
def test_finer_noise_is_averaged_out(name: str, tmp_path: Path) -> None:
    """A mean of n independent pixels spreads by 1 over the root of n; single pixels between four would spread by 0.4 to 1."""
    crs, transform, width, height = SOURCES[name]
    noise = np.random.default_rng(5).normal(size=(height, width)).astype(np.float32)
    spread = read_onto(write(tmp_path / "a.tif", noise, transform, crs), REFERENCE).std()
    side = float(np.sqrt(abs(transform.determinant))) / 10
    assert 0.7 * side < spread < 1.05 * side


def test_south_up_pixels_keep_their_values(tmp_path: Path) -> None:
    codes = np.random.default_rng(8).integers(1, 60_000, (80, 100)).astype(np.uint16)
    path = write(tmp_path / "a.tif", codes[::-1], SOURCES["south-up"][1])
    scene = scene_of(path)
    assert scene.grid == REFERENCE
    np.testing.assert_array_equal(read_scene(scene)[0], codes)


# --- the same whatever the window ---


@pytest.mark.parametrize("name", SOURCES)
def test_any_window_equals_the_crop_of_the_whole(name: str, tmp_path: Path) -> None:
    crs, transform, width, height = SOURCES[name]
    rng = np.random.default_rng(11)
    noise = rng.normal(100, 20, (2, height, width)).astype(np.float32)
    noise[0, rng.random((height, width)) < 0.03] = np.nan
    noise[:, height // 2 : height // 2 + 5, width // 3 : width // 2] = np.nan
    scene = scene_of(write(tmp_path / "a.tif", noise, transform, crs, nodata=np.nan))
    with SceneReader(scene) as reader:
        whole = reader.read_onto(scene.main, REFERENCE)
        for window in random_windows(rng, 12):
            part = reader.read_onto(scene.main, REFERENCE.crop(window))
            rows, columns = window.slices_within(REFERENCE.window)
            np.testing.assert_array_equal(part, whole[:, rows, columns])


@pytest.mark.parametrize("size", [0.1, 1 / 3, 10.000282, 8.983152841195215e-05])
@pytest.mark.parametrize("times", [1.0, 0.23, 3.1])
def test_windows_agree_where_sizes_are_no_round_numbers(size: float, times: float, tmp_path: Path) -> None:
    crs = "EPSG:4326" if size < 1e-3 else BASE
    left, top = around(crs)
    reference = Grid(crs, left, top, size, size, 100, 80)
    source = Affine(size * times, 0, left - 0.4 * size, 0, -size * times, top + 0.3 * size)
    rng = np.random.default_rng(4)
    shape = (round(90 / times), round(110 / times))
    values = rng.normal(size=shape).astype(np.float32)
    values[rng.random(shape) < 0.05] = np.nan
    scene = scene_of(write(tmp_path / "a.tif", values, source, crs, nodata=np.nan))
    with SceneReader(scene) as reader:
        whole = reader.read_onto(scene.main, reference)
        assert np.isfinite(whole).mean() > 0.5
        for window in random_windows(rng, 12):
            part = reader.read_onto(scene.main, reference.crop(window))
            rows, columns = window.slices_within(reference.window)
            np.testing.assert_array_equal(part, whole[:, rows, columns])


def random_windows(rng: np.random.Generator, count: int) -> list[Window]:
    found = [Window(0, 0, 1, 1), Window(99, 79, 1, 1), Window(0, 40, 100, 1)]
    while len(found) < count:
        columns, rows = sorted(rng.integers(0, 101, 2)), sorted(rng.integers(0, 81, 2))
        window = Window(int(columns[0]), int(rows[0]), int(columns[1] - columns[0]), int(rows[1] - rows[0]))
        if not window.is_empty:
            found.append(window)
    return found


def test_reads_that_are_split_for_their_size_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("north-up", "rotated", "finer, rotated", "finer x4", "next zone"):
        crs, transform, width, height = SOURCES[name]
        noise = np.random.default_rng(1).normal(size=(3, height, width)).astype(np.float32)
        path = write(tmp_path / "a.tif", noise, transform, crs)
        whole = read_onto(path, REFERENCE)
        with monkeypatch.context() as patch:
            patch.setattr("core.scenes.reading.VALUES_AT_ONCE", 5_000)
            np.testing.assert_array_equal(read_onto(path, REFERENCE), whole)


def test_a_crop_of_the_scene_reads_the_same_pixels_at_every_scale(tmp_path: Path) -> None:
    """Modalities finer and coarser than the main raster, in other systems, beside the main raster and beside a crop."""
    rng = np.random.default_rng(6)
    main = rng.normal(size=(80, 100)).astype(np.float32)
    whole = write(tmp_path / "main.tif", main, names=["red"])
    crop = write(tmp_path / "crop.tif", main[17:63, 13:90], Affine(10, 0, LEFT + 130, 0, -10, TOP - 170), names=["red"])
    zone = SOURCES["next zone"][1]
    fine = write(
        tmp_path / "f.tif", rng.normal(500, 9, (540, 600)).astype(np.float32), zone @ Affine.scale(1 / 3), "EPSG:32632"
    )
    coarse = write(tmp_path / "c.tif", rng.normal(5, 9, (30, 34)).astype(np.float32), zone @ Affine.scale(6), "EPSG:32632")
    scenes = [
        build_scene(
            SceneRequest(
                {"optical": [path], "sar": [coarse], "elevation": [fine]},
                {"optical": "generic", "sar": "generic", "elevation": "dsm"},
            )
        )
        for path in (whole, crop)
    ]
    assert [a.scale for a in scenes[0].acquisitions] == [Scale(), Scale(coarser=6), Scale(finer=3)]
    assert scenes[0].step == scenes[1].step == 6
    first, second = (scene.grid.anchor() for scene in scenes)
    assert (second[0] - first[0], second[1] - first[1]) == (13, 17)
    with SceneReader(scenes[0]) as of_whole, SceneReader(scenes[1]) as of_crop:
        window = aligned(scenes[1].grid, Window(0, 0, 77, 46), 6)
        parts = of_crop.read(window)
        others = of_whole.read(window.translated(13, 17))
    assert list(parts) == ["generic", "generic_2", "dsm"]
    for name in ("generic_2", "dsm"):
        assert np.isfinite(parts[name]).all()
        np.testing.assert_array_equal(parts[name], others[name])


def test_a_reference_pixel_is_valid_where_half_of_it_is_there(tmp_path: Path) -> None:
    acquisition = scene_of(truth_file(tmp_path / "a.tif", Affine(10, 0, LEFT, 0, -10, TOP), 8, 8)).main
    values = np.ones((2, 4, 4), np.float32)
    values[0, 0, 0] = values[1, 0, 1] = values[0, 2, :3] = values[1, 3, 0] = np.nan
    same = valid_pixels(values, acquisition)
    assert np.argwhere(~same).tolist() == [[0, 0], [0, 1], [2, 0], [2, 1], [2, 2], [3, 0]]
    finer = valid_pixels(values, replace(acquisition, scale=Scale(finer=2)))
    assert finer.tolist() == [[True, True], [False, True]]
    coarser = valid_pixels(values, replace(acquisition, scale=Scale(coarser=3)))
    assert coarser.shape == (12, 12)
    np.testing.assert_array_equal(coarser[1::3, 1::3], same)
    assert not coarser[:3, :6].any()


# --- nodata ---


def test_one_missing_pixel_is_one_missing_pixel(tmp_path: Path) -> None:
    for name in ("north-up", "offset", "rotated", "south-up", "next zone", "degrees"):
        crs, transform, width, height = SOURCES[name]
        values = np.full((height, width), 40, np.int16)
        values[0, 0] = 41
        column, row = 55, 60
        values[row, column] = -32768
        read = read_onto(write(tmp_path / "a.tif", values, transform, crs, nodata=-32768), REFERENCE)[0]
        missing = np.argwhere(np.isnan(read))
        assert len(missing) in ((1,) if name in ("north-up", "offset", "south-up") else (0, 1, 2)), name
        if len(missing):
            y, x = missing[0]
            place = Transformer.from_crs(BASE, crs, always_xy=True).transform(LEFT + 10 * (x + 0.5), TOP - 10 * (y + 0.5))
            assert [int(value) for value in np.floor(~transform @ place)] == [column, row]
        assert np.nanmin(read) >= 39.999
        assert np.nanmax(read) <= 41.001


def test_gaps_do_not_bleed_when_pixels_are_averaged(tmp_path: Path) -> None:
    """Of 4 x 4 pixels, 1, 8 and 9 are missing: the first two still give the mean of the rest."""
    values = np.full((320, 400), 7, np.float32)
    values[0, 0] = 9
    for index, count in enumerate((1, 8, 9), start=1):
        block = values[40:44, 40 * index : 40 * index + 4].reshape(-1).copy()
        block[:count] = -9999
        values[40:44, 40 * index : 40 * index + 4] = block.reshape(4, 4)
    read = read_onto(write(tmp_path / "a.tif", values, SOURCES["finer x4"][1], nodata=-9999), REFERENCE)[0]
    assert np.argwhere(np.isnan(read)).tolist() == [[10, 30]]
    assert read[0, 0] == pytest.approx(7 + 2 / 16)
    read[0, 0] = 7
    assert np.nanmin(read) == np.nanmax(read) == 7


def test_the_fill_of_a_product_does_not_bleed(tmp_path: Path) -> None:
    """Sentinel-2 stores 0 in all bands where there is nothing, and often does not declare it."""
    bands = ["B2", "B3", "B4", "B8"]
    values = np.full((4, 320, 400), 3000, np.uint16)
    values[:, :, ::2] = 3200
    values[:, 100:150, 200:260] = 0
    values[0, 50, 50] = 0
    path = write(tmp_path / "a.tif", values, SOURCES["finer x4"][1] @ Affine.translation(0.4, 0.3), names=bands)
    scene = build_scene(SceneRequest({"optical": [path]}, {"optical": "sentinel2_l2a"}, sentinel2_offset="no"))
    with SceneReader(scene) as reader:
        read = reader.read_onto(scene.main, REFERENCE)
    assert 0.01 < np.isnan(read).mean() < 0.04
    read[0, 11:15, 11:15] = 0.31
    assert np.nanmin(read) >= 0.2999
    assert np.nanmax(read) <= 0.3201


def test_partly_overlapping_grids_are_empty_outside(tmp_path: Path) -> None:
    path = truth_file(tmp_path / "a.tif", Affine(10, 0, LEFT + 300, 0, -10, TOP + 200), 40, 50, surface=plane)
    read = read_onto(path, REFERENCE)[0]
    expected = truth_on(REFERENCE, plane)
    expected[30:] = np.nan
    expected[:, :30] = expected[:, 70:] = np.nan
    np.testing.assert_allclose(read, expected, atol=1e-4)
    beside = REFERENCE.crop(Window(-500, 0, 20, 20))
    assert np.isnan(read_onto(path, beside)).all()


def test_a_scene_of_five_by_seven_pixels(tmp_path: Path) -> None:
    path = truth_file(tmp_path / "a.tif", Affine(10, 0, LEFT, 0, -10, TOP), 5, 7, surface=plane)
    scene = scene_of(path)
    assert scene.grid.shape == (7, 5)
    with SceneReader(scene) as reader:
        read = reader.read(Window(-30, -40, 64, 96))["generic"]
    assert read.shape == (1, 96, 64)
    assert np.isfinite(read).sum() == 35
    np.testing.assert_allclose(read[0, 40:47, 30:35], truth_on(scene.grid, plane), atol=1e-4)


def test_degrees_all_the_way(tmp_path: Path) -> None:
    crs, transform, width, height = SOURCES["degrees"]
    main = truth_file(tmp_path / "a.tif", transform, width, height, crs, plane)
    other = truth_file(tmp_path / "b.tif", SOURCES["wider"][1] @ Affine.scale(0.5), 260, 240, BASE, plane)
    scene = build_scene(SceneRequest({"optical": [main], "elevation": [other]}, {"optical": "generic", "elevation": "dsm"}))
    assert scene.grid.is_geographic
    assert scene.grid.resolution_m() == pytest.approx(10, rel=0.01)
    assert [a.scale for a in scene.acquisitions] == [Scale(), Scale(finer=2)]
    window = Window(20, 20, 40, 30)
    with SceneReader(scene) as reader:
        read = reader.read(window)
    for name, scale in (("generic", Scale()), ("dsm", Scale(finer=2))):
        np.testing.assert_allclose(read[name][0], truth_on(on_scale(scene.grid, window, scale), plane), atol=1e-3)


# --- several files ---


def test_tiles_of_different_systems_make_one_ground(tmp_path: Path) -> None:
    """Two UTM zones and a part in degrees, overlapping; each is nodata where it has nothing."""
    middle = Transformer.from_crs("EPSG:4326", BASE, always_xy=True)
    x, y = middle.transform(12.0, 51.4)
    reference = Grid(BASE, round(x, -1) - 1500, round(y, -1) + 500, 10, 10, 300, 100)
    west, north = reference.left, reference.top
    paths = [truth_file(tmp_path / "west.tif", Affine(10, 0, west, 0, -10, north), 120, 100, surface=plane)]
    zone_x, zone_y = Transformer.from_crs(BASE, "EPSG:32632", always_xy=True).transform(west + 1000, north)
    zone = Affine(10, 0, round(zone_x, -1), 0, -10, round(zone_y, -1) + 200)
    paths.append(truth_file(tmp_path / "zone.tif", zone, 110, 150, "EPSG:32632", plane))
    lon, lat = Transformer.from_crs(BASE, "EPSG:4326", always_xy=True).transform(west + 1900, north)
    degrees = Affine(DEGREES_X, 0, lon, 0, -DEGREES_Y, lat + 0.002)
    paths.append(truth_file(tmp_path / "degrees.tif", degrees, 120, 150, "EPSG:4326", plane))
    scene = scene_of(*paths)
    assert len(scene.main.files) == 3
    with SceneReader(scene) as reader:
        read = reader.read_onto(scene.main, reference)[0]
    assert np.isfinite(read).all()
    off = np.abs(read - truth_on(reference, plane))
    assert (off > 1e-3).mean() < 0.01
    # Along the edges of tiles that end within a pixel, the last pixel's value goes on to the edge, half a pixel away.
    assert off.max() < 0.5 * 10 * (1 / 40 + 1 / 25)


def test_the_first_valid_file_counts(tmp_path: Path) -> None:
    first = np.full((80, 60), 1, np.uint8)
    first[0, 0], first[10:20, 50:60] = 3, 0
    second = np.full((80, 60), 2, np.uint8)
    second[0, 0] = 4
    paths = [
        write(tmp_path / "1.tif", first, nodata=0),
        write(tmp_path / "2.tif", second, Affine(10, 0, LEFT + 400, 0, -10, TOP), nodata=0),
    ]
    read = read_scene(scene_of(*paths))[0]
    assert read.shape == (80, 100)
    expected = np.full((80, 100), 2.0)
    expected[:, :60] = 1
    expected[0, 0], expected[10:20, 50:60] = 3, 2
    np.testing.assert_array_equal(read, expected)


def test_the_files_behind_the_first_are_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wide strip over two tiles: what the second fills in is never in memory as a whole, and the same as if it were."""
    rng = np.random.default_rng(5)
    ground = rng.integers(1, 250, (6, 300, 2000)).astype(np.uint8)
    west = ground[:, :, :1300].copy()
    west[:, :, 1200:] = 0
    west[:, 100:120, 40:400] = 0
    paths = [
        write(tmp_path / "west.tif", west, nodata=0),
        write(tmp_path / "east.tif", ground[:, :, 1100:], Affine(10, 0, LEFT + 11_000, 0, -10, TOP), nodata=0),
    ]
    expected = ground.astype(np.float32)
    expected[:, 100:120, 40:400] = np.nan
    scene = scene_of(*paths)
    out = np.empty(ground.shape, np.float32)
    monkeypatch.setattr(reading, "VALUES_AT_ONCE", 50_000)
    with SceneReader(scene) as reader:
        reader.read_onto(scene.main, scene.grid.crop(Window(0, 0, 1, 1)))
        tracemalloc.start()
        reader.read_onto(scene.main, scene.grid, out=out)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    np.testing.assert_array_equal(out, expected)
    assert peak < 0.1 * out.nbytes


def test_one_band_a_file_is_stacked_and_the_finest_leads(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    fine = rng.integers(500, 4000, (80, 100)).astype(np.uint16)
    coarse = rng.integers(500, 4000, (40, 50)).astype(np.uint16)
    red_edge = write(tmp_path / "T33_B05.tif", coarse, Affine(20, 0, LEFT, 0, -20, TOP), names=["B5"])
    red = write(tmp_path / "T33_B04.tif", fine, names=["B4"])
    request = SceneRequest({"optical": [red_edge, red]}, {"optical": "sentinel2_l2a"}, sentinel2_offset="no")
    scene = build_scene(request)
    assert scene.main.bands == ("B4", "B5")
    assert scene.grid == REFERENCE
    assert scene.main.scale == Scale()
    with SceneReader(scene) as reader:
        read = reader.read(scene.grid.window)["sentinel2_l2a"]
        only = reader.read_onto(scene.main, scene.grid, ["B5"])
    np.testing.assert_allclose(read[0], fine / 1e4, rtol=1e-6)
    np.testing.assert_array_equal(only, read[1:])
    # Bilinear over pixels of 20 m: a quarter of a pixel from the centre towards its neighbours.
    expected = (0.75 * 0.75 * coarse[3, 3] + 0.75 * 0.25 * (coarse[3, 2] + coarse[2, 3]) + 0.25**2 * coarse[2, 2]) / 1e4
    assert read[1, 6, 6] == pytest.approx(expected, rel=1e-5)


def test_generic_rasters_with_names_of_their_own_are_stacked(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    layers = {name: rng.normal(size=(80, 100)).astype(np.float32) for name in ("slope", "aspect", "wetness")}
    paths = [write(tmp_path / f"{name}.tif", values, names=[name]) for name, values in layers.items()]
    scene = scene_of(*paths)
    assert scene.main.bands == ("slope", "aspect", "wetness")
    np.testing.assert_array_equal(read_scene(scene), np.stack(list(layers.values())))


# --- radar ---


def test_backscatter_is_averaged_as_power(tmp_path: Path) -> None:
    decibels = np.full((2, 320, 400), -20, np.float32)
    decibels[:, ::2] = -10
    decibels[:, :, ::5] -= 3
    path = write(tmp_path / "s1.tif", decibels, SOURCES["finer x4"][1], names=["VV", "VH"])
    scene = build_scene(SceneRequest({"sar": [path]}, {"sar": "sentinel1"}))
    with SceneReader(scene) as reader:
        fine = reader.read_onto(scene.main, scene.grid)
        coarse = reader.read_onto(scene.main, REFERENCE)
    np.testing.assert_array_equal(fine, decibels)
    power = (10 ** (decibels.astype(float) / 10)).reshape(2, 80, 4, 100, 4).mean(axis=(2, 4))
    np.testing.assert_allclose(coarse, 10 * np.log10(power), atol=1e-4)


# --- overviews, memory ---


@pytest.mark.parametrize("times", [20, 33.3, 80])
def test_pictures_of_much_finer_rasters(times: float, tmp_path: Path) -> None:
    transform = Affine(1, 0, LEFT, 0, -1, TOP)
    path = truth_file(tmp_path / "a.tif", transform, 1600, 1280, surface=plane, tiled=True, blockxsize=256, blockysize=256)
    size = int(1280 // times)
    picture = Grid(BASE, LEFT, TOP, times, times, size, size)
    np.testing.assert_allclose(read_onto(path, picture)[0], truth_on(picture, plane), atol=0.1)
    window = Window(3, 2, size - 6, 5)
    whole, part = read_onto(path, picture), read_onto(path, picture.crop(window))
    np.testing.assert_array_equal(part, whole[:, 2:7, 3 : size - 3])


MEASURE = """
import resource, sys
from core.scenes.grid import Window
from core.scenes.reading import SceneReader
from core.scenes.scene import SceneRequest, build_scene
scene = build_scene(SceneRequest({"other": [sys.argv[1]]}, {"other": "generic"}))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with SceneReader(scene) as reader:
    target = scene.grid.crop(Window(0, 1000, scene.grid.width, 256))
    values = reader.read_onto(scene.main, target)
print(values.shape[2], (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("turn", [0, 20])
def test_a_strip_of_a_wide_raster_costs_a_strip(turn: float, tmp_path: Path) -> None:
    """The whole is 20,000 x 8,000 float32, 610 MiB; a strip of 256 rows is 20 MiB, turned by 20 degrees 27 MiB."""
    transform = Affine.translation(LEFT, TOP) @ Affine.rotation(-turn) @ Affine.scale(10, -10)
    with rasterio.open(
        tmp_path / "wide.tif",
        "w",
        driver="GTiff",
        width=20_000,
        height=8_000,
        count=1,
        dtype="float32",
        crs=BASE,
        transform=transform,
        tiled=True,
        sparse_ok=True,
    ) as dataset:
        dataset.write(np.arange(65_536, dtype=np.float32).reshape(1, 256, 256), window=((0, 256), (0, 256)))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "wide.tif")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "GDAL_CACHEMAX": "64"},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    width, used = (int(value) for value in done.stdout.split())
    assert width >= 20_000
    assert used < 250


def test_a_mosaic_of_many_files_opens_those_that_are_near_and_not_all_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground = np.random.default_rng(3).integers(1, 200, (60, 80)).astype(np.uint8)
    paths = [
        write(
            tmp_path / f"{row}_{column}.tif",
            ground[row : row + 10, column : column + 8],
            Affine(10, 0, LEFT + 10 * column, 0, -10, TOP - 10 * row),
        )
        for row in range(0, 60, 10)
        for column in range(0, 80, 8)
    ]
    scene = scene_of(*paths)
    assert len(scene.main.files) == 60
    monkeypatch.setattr(reading, "OPEN_AT_ONCE", 4)
    opened: list[str] = []
    monkeypatch.setattr(reading, "open_raster", lambda path: (opened.append(path), open_raster(path))[1])
    with SceneReader(scene) as reader:
        np.testing.assert_array_equal(reader.read(Window(17, 21, 5, 3))[scene.main.name][0], ground[21:24, 17:22])
        assert opened == [str(tmp_path / "20_16.tif")]
        np.testing.assert_array_equal(reader.read(scene.grid.window)[scene.main.name][0], ground)
        assert len(reader._datasets) <= 4
    assert len(opened) <= 61, "the first was closed in between"
