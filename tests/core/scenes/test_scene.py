"""Fitting files together: the reference grid, scales, what is refused and what a model gets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from pyproj import Transformer

from core.errors import GridError, RasterError, SensorError
from core.scenes.grid import Bounds, Scale
from core.scenes.reading import SceneReader
from core.scenes.scene import Scene, SceneRequest, build_scene, select
from tests.core.scenes.ground import BASE, LEFT, TOP, plane, read_scene, scene_of, truth_file, truth_on, write

NORTH_UP = Affine(10, 0, LEFT, 0, -10, TOP)
NAMES = ["B2", "B3", "B4", "B8"]


def noise(bands: int, rows: int, columns: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(300, 4000, (bands, rows, columns)).astype(np.uint16)


def shifted(columns: float, rows: float, size: float = 10) -> Affine:
    """A grid whose corner lies some metres east and south of the common corner."""
    return Affine(size, 0, LEFT + columns, 0, -size, TOP - rows)


# --- the reference grid ---


def test_the_main_raster_gives_the_grid(tmp_path: Path) -> None:
    optical = write(tmp_path / "o.tif", noise(4, 80, 100), names=NAMES)
    sar = write(tmp_path / "s.tif", -noise(2, 50, 60).astype(np.float32) / 200, shifted(100, 100, 20), names=["VV", "VH"])
    dem = write(tmp_path / "d.tif", noise(1, 500, 600), shifted(-100, -100, 2))
    scene = build_scene(SceneRequest({"elevation": [dem], "sar": [sar], "optical": [optical]}, {"elevation": "dem"}))
    assert [a.name for a in scene.acquisitions] == ["sentinel2_l2a", "sentinel1", "dem"]
    assert (scene.grid.left, scene.grid.top, scene.grid.shape) == (LEFT, TOP, (80, 100))
    assert [a.scale for a in scene.acquisitions] == [Scale(), Scale(coarser=2), Scale(finer=5)]
    assert scene.step == 2
    assert scene.paths == (optical, sar, dem)
    assert scene.acquisition("dem").paths == (dem,)
    with pytest.raises(KeyError):
        scene.acquisition("slope")
    alone = build_scene(SceneRequest({"elevation": [dem]}, {"elevation": "dem"}))
    assert alone.grid.pixel_width == 2


def test_a_rotated_raster_gets_a_north_up_grid_around_it(tmp_path: Path) -> None:
    transform = Affine.translation(LEFT + 3.3, TOP + 1.7) @ Affine.rotation(-30) @ Affine.scale(10, -10)
    scene = scene_of(truth_file(tmp_path / "a.tif", transform, 120, 90, surface=plane))
    grid, bounds = scene.grid, scene.main.files[0].raster.bounds
    assert (grid.pixel_width, grid.pixel_height) == (pytest.approx(10), pytest.approx(10))
    assert grid.left <= bounds.left < grid.left + 10
    assert grid.top - 10 < bounds.top <= grid.top
    assert grid.bounds.right >= bounds.right
    assert grid.bounds.bottom <= bounds.bottom
    assert any("rotated" in note for note in scene.notes)
    values, expected = read_scene(scene)[0], truth_on(grid, plane)
    there = np.isfinite(values)
    assert there.sum() == pytest.approx(120 * 90, rel=0.01)
    inner = there & np.roll(there, 1, 0) & np.roll(there, -1, 0) & np.roll(there, 1, 1) & np.roll(there, -1, 1)
    np.testing.assert_allclose(values[inner], expected[inner], atol=1e-3)


CORNERS = [(0.0, 0.0), (5.0, 5.0), (3.7, 8.9), (-7.3, 0.0)]


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("resolution", [None, 10.0, 20.0, 30.0, 5.0, 2.5, 0.7, 13.3])
def test_a_crop_by_whole_pixels_gets_the_same_lattice(
    resolution: float | None, corner: tuple[float, float], tmp_path: Path
) -> None:
    values = noise(1, 60, 70)
    whole = scene_of(write(tmp_path / "a.tif", values, shifted(*corner)), resolution=resolution)
    column, row = 11, 23
    cut = write(tmp_path / "b.tif", values[:, row:50, column:60], shifted(corner[0] + 10 * column, corner[1] + 10 * row))
    crop = scene_of(cut, resolution=resolution)
    size = whole.grid.pixel_width
    assert (crop.grid.pixel_width, crop.grid.pixel_height) == (size, size) == (resolution or 10, resolution or 10)
    columns, rows = (crop.grid.left - whole.grid.left) / size, (whole.grid.top - crop.grid.top) / size
    assert columns == pytest.approx(round(columns), abs=1e-6)
    assert rows == pytest.approx(round(rows), abs=1e-6)
    first, second = whole.grid.anchor(), crop.grid.anchor()
    assert (second[0] - first[0], second[1] - first[1]) == (round(columns), round(rows))
    # Around the raster, and not a whole pixel more.
    bounds = crop.main.files[0].raster.bounds
    for inner, outer in zip(bounds, crop.grid.bounds, strict=True):
        assert abs(inner - outer) < size + 1e-6
    if resolution in (None, 10.0):
        np.testing.assert_array_equal(read_scene(crop), values[:, row:50, column:60])
    if resolution == 20.0:
        # Pixels of the double size hold four pixels of the raster whole.
        mean = read_scene(whole)[0, 5, 5]
        start_x, start_y = (
            round((whole.grid.left - (LEFT + corner[0])) / 10),
            round(((TOP - corner[1]) - whole.grid.top) / 10),
        )
        block = values[0, start_y + 10 : start_y + 12, start_x + 10 : start_x + 12]
        assert mean == pytest.approx(block.mean())


def test_a_crop_reads_the_same_at_another_resolution(tmp_path: Path) -> None:
    values = noise(1, 60, 70)
    whole = scene_of(write(tmp_path / "a.tif", values, shifted(3.7, 8.9)), resolution=15)
    crop = scene_of(write(tmp_path / "b.tif", values[:, 12:50, 9:60], shifted(93.7, 128.9)), resolution=15)
    first, second = whole.grid.anchor(), crop.grid.anchor()
    column, row = second[0] - first[0], second[1] - first[1]
    whole_values, crop_values = read_scene(whole)[0], read_scene(crop)[0]
    rows, columns = crop_values.shape
    # Along the crop's own edge there is nothing to interpolate with.
    np.testing.assert_allclose(
        crop_values[2:-2, 2:-2], whole_values[row + 2 : row + rows - 2, column + 2 : column + columns - 2], rtol=1e-6
    )


def test_the_grid_lies_around_all_files(tmp_path: Path) -> None:
    zone_x, zone_y = Transformer.from_crs(BASE, "EPSG:32632", always_xy=True).transform(LEFT + 900, TOP - 300)
    paths = [
        truth_file(tmp_path / "1.tif", NORTH_UP, 50, 40),
        truth_file(tmp_path / "2.tif", shifted(-203, 104), 50, 40),
        truth_file(tmp_path / "3.tif", Affine(10, 0, zone_x, 0, -10, zone_y), 30, 30, "EPSG:32632"),
    ]
    scene = scene_of(*paths)
    grid = scene.grid
    assert (grid.left - LEFT) % 10 == (grid.top - TOP) % 10 == 0
    assert grid.bounds.left == LEFT - 210
    assert grid.bounds.right >= LEFT + 1180
    assert any("3 files make one acquisition" in note for note in scene.notes)
    values = read_scene(scene)[0]
    there = np.isfinite(values)
    np.testing.assert_allclose(values[there], truth_on(grid)[there], atol=0.3)
    # The second file lies over a part of the first: 30 columns and 30 rows of it.
    assert there.sum() == pytest.approx(2 * 50 * 40 - 30 * 30 + 30 * 30, abs=150)


@pytest.mark.parametrize(
    ("resolution", "crs", "transform", "text", "unit"),
    [
        (10.0, "EPSG:4326", Affine(1e-4, 0, 15, 0, -1e-4, 51), "leaves nothing", "degree"),
        (1e-4, BASE, NORTH_UP, "times finer", "metre"),
        (5000.0, BASE, NORTH_UP, "leaves nothing", "metre"),
    ],
)
def test_resolutions_in_the_wrong_unit(
    resolution: float, crs: str, transform: Affine, text: str, unit: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.tif", noise(1, 40, 50), transform, crs)
    with pytest.raises(GridError) as caught:
        scene_of(path, resolution=resolution)
    assert path in caught.value.message
    assert f"{resolution:g}" in caught.value.message
    assert text in caught.value.message
    assert unit in caught.value.hint


# --- what is refused ---


def test_nothing_given() -> None:
    with pytest.raises(RasterError, match="No raster was given"):
        build_scene(SceneRequest({"optical": []}))


def test_no_overlap_names_both_and_where_they_lie(tmp_path: Path) -> None:
    near = write(tmp_path / "near.tif", noise(1, 40, 50))
    far = write(tmp_path / "far.tif", noise(1, 40, 50), Affine(1e-4, 0, 100, 0, -1e-4, -30), "EPSG:4326")
    with pytest.raises(GridError) as caught:
        build_scene(SceneRequest({"optical": [near], "elevation": [far]}, {"optical": "generic", "elevation": "dem"}))
    assert near in caught.value.message
    assert far in caught.value.message
    assert "EPSG:32633" in caught.value.message
    beside = write(tmp_path / "beside.tif", noise(1, 40, 50), shifted(500, 0))
    with pytest.raises(GridError, match="does not overlap"):
        build_scene(SceneRequest({"optical": [near], "elevation": [beside]}, {"optical": "generic", "elevation": "dem"}))


def test_tiles_beside_the_scene_are_left_out_with_a_warning(tmp_path: Path) -> None:
    main = write(tmp_path / "main.tif", noise(1, 40, 50))
    tiles = [
        write(tmp_path / "d1.tif", noise(1, 40, 50), shifted(0, 0)),
        write(tmp_path / "d2.tif", noise(1, 40, 50), shifted(9000, 0)),
    ]
    scene = build_scene(SceneRequest({"optical": [main], "elevation": tiles}, {"optical": "generic", "elevation": "dem"}))
    assert scene.acquisition("dem").paths == (tiles[0],)
    assert any(tiles[1] in warning and "do not overlap" in warning for warning in scene.warnings)


def test_partial_cover_is_told(tmp_path: Path) -> None:
    main = write(tmp_path / "main.tif", noise(1, 40, 50))
    half = write(tmp_path / "half.tif", noise(1, 40, 50), shifted(250, 0))
    scene = build_scene(SceneRequest({"optical": [main], "elevation": [half]}, {"optical": "generic", "elevation": "dem"}))
    assert any("covers about 50%" in note and "only what the other rasters show" in note for note in scene.notes)


def test_a_constant_raster(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.stack([np.full((90, 200), value, np.uint8) for value in (7, 9)]))
    with pytest.raises(RasterError, match="same value everywhere: 7, 9") as caught:
        scene_of(path)
    assert path in caught.value.message
    mostly = np.zeros((300, 300), np.float32)
    mostly[100, 100] = 5
    assert scene_of(write(tmp_path / "b.tif", mostly)).main.bands


def test_a_tile_of_one_value_is_used_beside_others(tmp_path: Path) -> None:
    heights = write(tmp_path / "land.tif", noise(1, 40, 50).astype(np.float32))
    sea = write(tmp_path / "sea.tif", np.zeros((1, 40, 50), np.float32), shifted(500, 0))
    scene = build_scene(SceneRequest({"elevation": [heights, sea]}, {"elevation": "dem"}))
    assert len(scene.main.files) == 2
    assert any("same value everywhere: 0" in warning and sea in warning for warning in scene.warnings)
    with pytest.raises(RasterError, match="same value everywhere"):
        build_scene(SceneRequest({"elevation": [sea]}, {"elevation": "dem"}))


def test_tiles_agree_on_the_offset_and_still_say_that_it_was_guessed(tmp_path: Path) -> None:
    """Of three tiles one shows dark ground without the offset; zeros at a tile's edge tell nothing."""
    bright, dark = (noise(4, 40, 50, seed) % 500 + base for seed, base in ((1, 1500), (2, 200)))
    bright[:, :5] = 0
    paths = [
        write(tmp_path / f"{n}.tif", v.astype(np.uint16), shifted(x, 0), names=NAMES)
        for n, v, x in (("bright", bright, 0), ("dark", dark, 500))
    ]
    for order in (paths, paths[::-1]):
        scene = build_scene(SceneRequest({"optical": order}, {"optical": "sentinel2_l2a"}))
        assert {source.identified.calibration.offset for source in scene.main.files} == {(0.0,) * 4}
        doubts = [warning for warning in scene.warnings if "does not say whether" in warning]
        assert len(doubts) == 2
        assert not any("as set by the user" in note for note in scene.notes)


def test_tiles_of_one_camera_have_one_scale(tmp_path: Path) -> None:
    bright, dark = noise(3, 40, 50, 1).astype(np.uint16) * 20, (noise(3, 40, 50, 2) % 200).astype(np.uint16)
    paths = [write(tmp_path / "bright.tif", bright), write(tmp_path / "dark.tif", dark, shifted(500, 0))]
    scene = build_scene(SceneRequest({"optical": paths}, {"optical": "aerial_rgb"}))
    assert len({source.identified.calibration.scale for source in scene.main.files}) == 1


def test_generic_rasters_that_nothing_tells_apart(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{name}.tif", noise(1, 40, 50, seed)) for seed, name in enumerate(("slope", "aspect"))]
    with pytest.raises(SensorError, match="nothing tells them apart") as caught:
        scene_of(*paths)
    assert all(path in caught.value.message for path in paths)
    # Beside each other they are tiles.
    assert len(scene_of(paths[0], write(tmp_path / "c.tif", noise(1, 40, 50), shifted(450, 0))).main.files) == 2


def test_two_images_of_the_same_ground_are_told(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{seed}.tif", noise(4, 40, 50, seed), names=NAMES) for seed in (1, 2)]
    scene = build_scene(SceneRequest({"optical": paths}, {"optical": "sentinel2_l2a"}, sentinel2_offset="no"))
    assert any("the first counts" in warning and paths[1] in warning for warning in scene.warnings)


# --- what a model gets ---


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    optical = write(tmp_path / "o.tif", noise(4, 40, 50), names=NAMES)
    sar = write(tmp_path / "s.tif", -noise(1, 40, 50).astype(np.float32) / 200, names=["VV"])
    return build_scene(
        SceneRequest(
            {"optical": [optical], "sar": [sar]}, {"optical": "sentinel2_l2a", "sar": "sentinel1"}, sentinel2_offset="no"
        )
    )


def test_select_takes_the_models_inputs_in_its_order(scene: Scene) -> None:
    wanted = [
        ("radar", "sar", "sentinel1", ("VV",), Scale(coarser=2)),
        ("optics", "optical", "sentinel2_l2a", ("B8", "B2"), Scale()),
    ]
    chosen = select(scene, wanted)
    assert [a.name for a in chosen.acquisitions] == ["radar", "optics"]
    assert chosen.step == 2
    with SceneReader(chosen) as reader, SceneReader(scene) as whole:
        read, everything = reader.read(chosen.grid.window), whole.read(scene.grid.window)
    assert read["radar"].shape == (1, 20, 25)
    np.testing.assert_array_equal(read["optics"], everything["sentinel2_l2a"][[3, 0]])


def test_select_says_what_it_leaves_out(scene: Scene) -> None:
    chosen = select(scene, [("optics", "optical", "sentinel2_l2a", ("B4",), Scale())])
    assert len(chosen.acquisitions) == 1
    assert "sentinel1" in chosen.notes[-1]


def test_select_names_everything_that_is_missing(scene: Scene) -> None:
    wanted = [
        ("optics", "optical", "sentinel2_l2a", ("B2", "B5", "B11"), Scale()),
        ("radar", "sar", "sentinel1", ("VV", "VH"), Scale()),
        ("heights", "elevation", "dsm", ("elevation",), Scale()),
    ]
    with pytest.raises(SensorError) as caught:
        select(scene, wanted)
    for text in ("B5, B11", "VH", "dsm", "elevation", *scene.paths):
        assert text in caught.value.message
    assert "B2" not in caught.value.message
    assert "VV" not in caught.value.message


OPTICS = ("optics", "optical", "sentinel2_l2a", ("B2",), Scale())
RADAR = ("radar", "sar", "sentinel1", ("VV",), Scale())
HEIGHTS = ("heights", "elevation", "dsm", ("elevation",), Scale())


def test_select_does_without_inputs_where_that_is_allowed(scene: Scene) -> None:
    chosen = select(scene, [RADAR, HEIGHTS, OPTICS], allows_missing=True)
    assert [a.name for a in chosen.acquisitions] == ["radar", "optics"]
    assert "dsm (elevation)" in chosen.warnings[-1]
    whole = select(scene, [RADAR, OPTICS], allows_missing=True)
    assert whole.warnings == scene.warnings
    with pytest.raises(SensorError, match="dsm as elevation input"):
        select(scene, [RADAR, HEIGHTS, OPTICS])


def test_select_never_does_without_a_band(scene: Scene) -> None:
    """A file without the band is not an input that is missing, but another sensor."""
    wanted = [OPTICS, ("radar", "sar", "sentinel1", ("VV", "VH"), Scale()), HEIGHTS]
    with pytest.raises(SensorError, match="band VH of sentinel1") as caught:
        select(scene, wanted, allows_missing=True)
    assert "dsm" not in caught.value.message


def test_select_does_not_rest_a_map_on_heights_alone(tmp_path: Path) -> None:
    heights = write(tmp_path / "heights.tif", noise(1, 40, 50))
    scene = build_scene(SceneRequest({"elevation": [heights]}, {"elevation": "dsm"}))
    with pytest.raises(SensorError, match="sentinel2_l2a as optical input") as caught:
        select(scene, [OPTICS, RADAR, HEIGHTS], allows_missing=True)
    assert "sentinel1 as sar input" in caught.value.message
    assert len(select(scene, [HEIGHTS], allows_missing=True).acquisitions) == 1
    other = ("canopy", "elevation", "height_above_ground", ("height",), Scale())
    assert len(select(scene, [HEIGHTS, other], allows_missing=True).acquisitions) == 1, "this model knows nothing else"


def test_select_needs_one_input_at_least(scene: Scene) -> None:
    with pytest.raises(SensorError, match="dsm as elevation"):
        select(scene, [HEIGHTS], allows_missing=True)


def test_bounds_in_messages_are_numbers(scene: Scene) -> None:
    assert scene.grid.bounds == Bounds(LEFT, TOP - 400, LEFT + 500, TOP)
