from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.features import shapes as raster_patches

from core.errors import LabelError, UsageError
from core.labels.blocks import FOLDS, spatial_folds, spatial_split
from core.labels.rasterizing import count_pixels, rasterize
from core.labels.reading import read_labels
from core.scenes.grid import Grid
from tests.core.labels.scenes import GRID, label_set, point, square


def scattered(count: int, classes: int, seed: int, grid: Grid = GRID) -> tuple[list[shapely.Geometry], list[int]]:
    generator = np.random.default_rng(seed)
    places = generator.uniform((0, 0), (grid.width - 6, grid.height - 6), (count, 2))
    return [square(x, y, generator.uniform(1, 6)) for x, y in places], [index % classes for index in range(count)]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(8, 60), fraction=st.floats(0.1, 0.6))
def test_no_pixel_is_on_both_sides(seed: int, count: int, fraction: float) -> None:
    labels = label_set(*scattered(count, 3, seed))
    try:
        split = spatial_split(labels, GRID, fraction, seed)
    except LabelError:
        return  # scattered squares may all hang together; then there is nothing to hold out, and it is said
    training = rasterize(labels, GRID, features=np.flatnonzero(~split.validation))
    held_out = rasterize(labels, GRID, features=np.flatnonzero(split.validation))
    assert not ((training.feature >= 0) & (held_out.feature >= 0)).any()
    for block in np.unique(split.block):
        assert len(set(split.validation[split.block == block].tolist())) == 1


def test_every_class_is_on_both_sides_near_the_fraction() -> None:
    grid = Grid(GRID.crs, GRID.left, GRID.top, 10.0, 10.0, 400, 400)
    labels = label_set(*scattered(120, 4, seed=3, grid=grid))
    counts = count_pixels(labels, grid)
    split = spatial_split(labels, grid, 0.3, seed=0)
    assert split.unvalidated_classes == ()
    for index in range(4):
        of_class = labels.class_index == index
        part = counts.features[of_class & split.validation].sum() / counts.features[of_class].sum()
        assert 0.2 < part < 0.4


def test_the_seed_decides_and_nothing_else() -> None:
    grid = Grid(GRID.crs, GRID.left, GRID.top, 10.0, 10.0, 400, 400)
    first = spatial_split(label_set(*scattered(60, 3, 1, grid)), grid, 0.3, seed=5)
    again = spatial_split(label_set(*scattered(60, 3, 1, grid)), grid, 0.3, seed=5)
    np.testing.assert_array_equal(first.validation, again.validation)
    others = [spatial_split(label_set(*scattered(60, 3, 1, grid)), grid, 0.3, seed=seed) for seed in range(6, 9)]
    assert any((other.validation != first.validation).any() for other in others)
    assert all((other.block == first.block).all() for other in others)


def test_near_features_stay_together_across_a_block_border() -> None:
    # 400 m blocks counted from the system's origin: borders at x = 500000 + 400 n.
    shapes = [square(36, 10), square(41, 10), square(70, 10), square(90, 60), square(5, 60), square(60, 60)]
    split = spatial_split(label_set(shapes, [0, 1, 0, 1, 0, 1]), GRID, 0.3, seed=0, block_size_m=400)
    assert split.block[0] == split.block[1], "10 m apart"
    assert split.block[1] != split.block[3]
    apart = [square(35, 10, 3), square(42, 10, 3), *shapes[2:]]
    split = spatial_split(label_set(apart, [0, 1, 0, 1, 0, 1]), GRID, 0.3, seed=0, block_size_m=400)
    assert split.block[0] != split.block[1], "40 m apart"


def test_blocks_are_anchored_to_the_ground_and_not_to_the_scene() -> None:
    shapes, classes = scattered(40, 2, seed=8)
    labels = label_set(shapes, classes)
    shifted = Grid(GRID.crs, GRID.left - 170, GRID.top + 230, 10.0, 10.0, 140, 130)
    here = spatial_split(labels, GRID, 0.3, seed=0, block_size_m=150)
    there = spatial_split(labels, shifted, 0.3, seed=0, block_size_m=150)
    np.testing.assert_array_equal(here.block, there.block)
    np.testing.assert_array_equal(here.validation, there.validation)


def test_blocks_in_degrees_are_squares_on_the_ground() -> None:
    grid = Grid("EPSG:4326", 13.0, 60.0, 0.0002, 0.0001, 500, 500)
    east = [shapely.Point(13.005 + 0.009 * index, 59.975).buffer(0.0004) for index in range(10)]  # 500 m apart at 60 N
    north = [shapely.Point(13.01, 59.9525 + 0.0045 * index).buffer(0.0004) for index in range(10)]  # 500 m apart
    for shapes in (east, north):
        labels = label_set(shapes, [index % 2 for index in range(10)], crs="EPSG:4326")
        assert len(set(spatial_split(labels, grid, 0.5, 0, block_size_m=1000).block.tolist())) in (5, 6)


def test_a_class_in_one_place_is_trained_on_and_named() -> None:
    shapes = [square(10, 10), square(60, 10), square(10, 60), square(60, 60), square(90, 40)]
    split = spatial_split(label_set(shapes, [0, 1, 0, 1, 2]), GRID, 0.5, seed=0)
    assert split.unvalidated_classes == ("class 2",)
    assert not split.validation[4]
    assert split.validation[:4].sum() == 2
    assert "'class 2'" in split.notes[0]


def test_every_class_is_trained_on_even_where_not_all_can_be_validated() -> None:
    """Three places with two classes each: whichever is held out, a class loses one of its two places."""
    places = [(10, 10), (60, 10), (10, 60)]
    pairs = [(0, 1), (1, 2), (2, 0)]
    shapes = [square(x + shift, y) for x, y in places for shift in (0, 5)]
    labels = label_set(shapes, [index for pair in pairs for index in pair])
    for seed in range(10):
        split = spatial_split(labels, GRID, 0.4, seed=seed, block_size_m=300)
        assert set(labels.class_index[~split.validation].tolist()) == {0, 1, 2}
        assert len(split.unvalidated_classes) == 1


def test_one_polygon_a_class_cannot_be_validated() -> None:
    with pytest.raises(LabelError, match="at least two polygons a class, apart from each other"):
        spatial_split(label_set([square(10, 10), square(50, 50)], [0, 1]), GRID, 0.3, seed=0)


def test_everything_in_one_block_cannot_be_validated() -> None:
    shapes = [square(10, 10), square(50, 50), square(10, 50), square(50, 10)]
    with pytest.raises(LabelError, match=r"single block of 1e\+07 m"):
        spatial_split(label_set(shapes, [0, 1, 0, 1]), GRID, 0.3, seed=0, block_size_m=1e7)


def test_labels_that_cover_everything_are_split_along_blocks_with_a_note() -> None:
    shapes = [square(5 * column, 5 * row, 5) for row in range(16) for column in range(20)]
    labels = label_set(shapes, [index % 3 for index in range(len(shapes))])
    split = spatial_split(labels, GRID, 0.3, seed=0)
    assert split.unvalidated_classes == ()
    assert 0.2 < split.validation.mean() < 0.4
    assert "optimistic" in split.notes[0]


def test_labels_that_cover_everything_and_overlap_share_no_pixel_across_the_split() -> None:
    """Features hang together through their neighbours; those that overlap are still not torn apart."""
    shapes = [square(5 * column, 5 * row, 5) for row in range(16) for column in range(20)]
    shapes += [square(5 * index + 3, 5 * index + 3, 4) for index in range(0, 15, 3)]
    labels = label_set(shapes, [index % 3 for index in range(len(shapes))])
    split = spatial_split(labels, GRID, 0.3, seed=0)
    assert "optimistic" in split.notes[0]
    training = rasterize(labels, GRID, features=np.flatnonzero(~split.validation))
    held_out = rasterize(labels, GRID, features=np.flatnonzero(split.validation))
    assert not ((training.feature >= 0) & (held_out.feature >= 0)).any()


def test_a_real_land_cover_map_as_polygons(shared_data: Path, tmp_path: Path) -> None:
    """Every patch of a real map becomes a polygon, in another system; burnt again, the polygons are the map."""
    with rasterio.open(shared_data / "s1s2_scenes" / "282D_485L_3_3" / "landcover.tif") as raster:
        landcover, transform, crs = raster.read(1), raster.transform, raster.crs.to_string()
    grid = Grid(crs, transform.c, transform.f, transform.a, -transform.e, landcover.shape[1], landcover.shape[0])
    patches = [(int(code), shapely.geometry.shape(patch)) for patch, code in raster_patches(landcover, transform=transform)]
    table = geopandas.GeoDataFrame({"code": [code for code, _ in patches]}, geometry=[patch for _, patch in patches])
    table.set_crs(crs).to_crs(4326).to_file(tmp_path / "patches.gpkg")
    labels = read_labels(tmp_path / "patches.gpkg", "code", grid, class_scheme="yearly_landcover_9")
    burnt = rasterize(labels, grid)
    assert burnt.conflicts == 0
    codes = np.append(labels.scheme.codes, 0)[burnt.classes]
    np.testing.assert_array_equal(codes, landcover)
    split = spatial_split(labels, grid, 0.3, seed=0)
    assert split.unvalidated_classes == ("Water",), "it is one polygon"
    assert set(labels.class_index[split.validation].tolist()) == {1, 2, 3}
    assert "'Trees'" in split.notes[-1], "one patch has nearly all of them"


def test_the_chosen_size_follows_the_features_and_stays_above_eight_pixels() -> None:
    grid = Grid(GRID.crs, GRID.left, GRID.top, 10.0, 10.0, 600, 600)
    sizes = []
    for side in (1.0, 4.0, 16.0):
        shapes = [square(60 * column, 60 * row, side) for row in range(9) for column in range(9)]
        labels = label_set(shapes, [index % 2 for index in range(81)])
        sizes.append(spatial_split(labels, grid, 0.3, seed=0).block_size_m)
    assert sizes[0] == 80.0
    assert sizes == sorted(sizes)
    assert sizes[2] == pytest.approx(4 * 2 * 160 / np.sqrt(np.pi), rel=0.06)


def test_large_blocks_give_way_to_classes_that_could_not_be_split() -> None:
    shapes = [square(20 * column, 20 * row, 12) for row in range(4) for column in range(5)]
    labels = label_set(shapes, [index % 5 for index in range(20)])
    split = spatial_split(labels, GRID, 0.25, seed=0)
    assert split.block_size_m < 4 * 2 * 120 / np.sqrt(np.pi)
    assert split.unvalidated_classes == ()


def test_points_can_be_split() -> None:
    generator = np.random.default_rng(0)
    shapes = [point(x, y) for x, y in generator.uniform((0, 0), (100, 80), (40, 2))]
    split = spatial_split(label_set(shapes, [index % 2 for index in range(40)]), GRID, 0.3, seed=0)
    assert 0 < split.validation.sum() < 40
    assert split.block_size_m == 80.0


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_a_fraction_out_of_range(fraction: float) -> None:
    with pytest.raises(UsageError, match="validation fraction"):
        spatial_split(label_set(*scattered(9, 2, 0)), GRID, fraction, seed=0)


def test_a_block_size_out_of_range() -> None:
    with pytest.raises(UsageError, match="block size"):
        spatial_split(label_set(*scattered(9, 2, 0)), GRID, 0.3, seed=0, block_size_m=0)


@pytest.mark.parametrize("polygons", [2, 3, 10, 40])
def test_every_block_is_held_out_once_and_every_class_is_always_learned(polygons: int) -> None:
    grid = Grid(GRID.crs, GRID.left, GRID.top, 10.0, 10.0, 600, 600)
    labels = label_set(*scattered(3 * polygons, 3, polygons, grid=grid))
    split = spatial_split(labels, grid, 0.3, 0)
    fold = spatial_folds(labels, split, 0, count_pixels(labels, grid))
    np.testing.assert_array_equal(fold == 0, split.validation)
    for block in np.unique(split.block):
        assert len(np.unique(fold[split.block == block])) == 1
    for number in range(FOLDS):
        learned = set(labels.class_index[fold != number].tolist())
        assert learned == set(labels.class_index.tolist())
    if polygons >= 10:
        assert (fold >= 0).all()
        shares = [(fold == number).mean() for number in range(FOLDS)]
        assert min(shares) > 0.1
    np.testing.assert_array_equal(fold, spatial_folds(labels, split, 0, count_pixels(labels, grid)))
