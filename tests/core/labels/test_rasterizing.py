from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize as gdal_rasterize

from core.errors import GridError
from core.labels.rasterizing import count_pixels, finish_report, rasterize
from core.scenes.grid import Grid, Window
from tests.core.labels.scenes import GRID, label_set, point, square


def random_polygons(count: int, seed: int, largest: float = 20.0) -> list[shapely.Geometry]:
    """Star-shaped, concave polygons, some with a hole, on and beyond the edges of the grid."""
    generator = np.random.default_rng(seed)
    polygons = []
    for _ in range(count):
        x, y = generator.uniform(-5, 105), generator.uniform(-5, 85)
        angles = np.sort(generator.uniform(0, 2 * np.pi, 17))
        radii = generator.uniform(0.3, 1.0, 17) * generator.uniform(0.1, largest)
        ring = np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], axis=1)
        shape = shapely.make_valid(shapely.Polygon(ring), method="structure")
        if generator.random() < 0.3:
            shape = shapely.difference(shape, shapely.Point(x, y).buffer(radii.min() / 2))
        polygons.append(shapely.transform(shape, lambda xy: xy * (10, -10) + (GRID.left, GRID.top)))
    return [shape for shape in polygons if not shape.is_empty]


def brute_force(shape: shapely.Geometry, grid: Grid) -> np.ndarray:
    rows, columns = np.mgrid[: grid.height, : grid.width]
    x = grid.left + (columns + 0.5) * grid.pixel_width
    y = grid.top - (rows + 0.5) * grid.pixel_height
    return np.asarray(shapely.contains_xy(shape, x, y))


def test_a_polygon_has_the_pixels_whose_centres_it_covers() -> None:
    for shape in random_polygons(60, seed=1):
        labels = label_set([shape, square(-9, -9, 1)], [0, 1])
        burnt = rasterize(labels, GRID).classes
        expected = brute_force(shape, GRID)
        if expected.any():
            np.testing.assert_array_equal(burnt == 0, expected)


def test_gdal_burns_the_same_pixels() -> None:
    for shape in random_polygons(60, seed=2):
        expected = gdal_rasterize([(shape, 1)], out_shape=GRID.shape, transform=GRID.transform).astype(bool)
        if expected.any():
            np.testing.assert_array_equal(rasterize(label_set([shape], [0]), GRID).classes == 0, expected)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 50),
    column=st.integers(-30, 120),
    row=st.integers(-30, 100),
    width=st.integers(0, 70),
    height=st.integers(0, 70),
)
def test_a_window_equals_the_crop_of_the_whole(seed: int, column: int, row: int, width: int, height: int) -> None:
    shapes = [*random_polygons(12, seed), point(10.2, 10.7), point(50, 40), square(20.6, 20.6, 0.3), square(20, 30, 4)]
    labels = label_set(shapes, [index % 3 for index in range(len(shapes))])
    whole, window = rasterize(labels, GRID), Window(column, row, width, height)
    part = rasterize(labels, GRID, window)
    visible = window.intersection(GRID.window)
    inside = visible.slices_within(window)
    np.testing.assert_array_equal(part.classes[inside], whole.classes[visible.slices_within(GRID.window)])
    np.testing.assert_array_equal(part.feature[inside], whole.feature[visible.slices_within(GRID.window)])
    outside = np.ones(window.shape, bool)
    outside[inside] = False
    assert (part.classes[outside] == -1).all()


@settings(max_examples=40, deadline=None)
@given(
    vertices=st.lists(st.tuples(st.integers(0, 24), st.integers(0, 24)), min_size=3, max_size=8, unique=True),
    column=st.integers(0, 12),
    row=st.integers(0, 12),
)
def test_edges_through_pixel_centres_give_the_same_window(vertices: list[tuple[int, int]], column: int, row: int) -> None:
    """Vertices on half pixels put many edges exactly on centres, where rounding would show."""
    ring = [(GRID.left + x * 5.0, GRID.top - y * 5.0) for x, y in vertices]
    shape = shapely.make_valid(shapely.Polygon(ring), method="structure", keep_collapsed=False)
    if shape.is_empty:
        return
    labels, window = label_set([shape], [0]), Window(column, row, 7, 5)
    whole = rasterize(labels, GRID).classes
    np.testing.assert_array_equal(rasterize(labels, GRID, window).classes, whole[row : row + 5, column : column + 7])


def test_neighbours_along_a_common_edge_share_no_pixel_and_leave_none_out() -> None:
    corners = shapely.MultiPoint([(GRID.left + x, GRID.top - y) for x, y in np.random.default_rng(0).uniform(0, 800, (60, 2))])
    cells = shapely.get_parts(shapely.voronoi_polygons(corners, extend_to=shapely.box(*GRID.bounds).buffer(50)))
    labels = label_set(cells, list(range(len(cells))))
    burnt = rasterize(labels, GRID)
    assert burnt.conflicts == 0
    assert (burnt.classes >= 0).all()


def test_a_polygon_without_a_pixel_centre_has_the_pixel_it_lies_in() -> None:
    burnt = rasterize(label_set([square(30.6, 12.6, 0.2), square(2, 2)], [1, 0]), GRID)
    assert burnt.classes[12, 30] == 1
    assert (burnt.classes == 1).sum() == 1


def test_a_sliver_that_covers_centres_beyond_the_grid_only_has_no_pixel_within() -> None:
    sliver = shapely.union(square(-3, 10, 3), shapely.box(GRID.left - 1, GRID.top - 124, GRID.left + 2, GRID.top - 122))
    burnt = rasterize(label_set([sliver, square(2, 2)], [1, 0]), GRID)
    assert not (burnt.classes == 1).any()


def test_points_have_the_pixel_they_lie_in() -> None:
    points = shapely.MultiPoint([point(0.1, 0.1), point(99.9, 79.9), point(150, 10)])
    burnt = rasterize(label_set([points, point(5, 6)], [0, 1]), GRID)
    assert burnt.classes[0, 0] == 0
    assert burnt.classes[79, 99] == 0
    assert burnt.classes[6, 5] == 1
    assert (burnt.classes >= 0).sum() == 3


def test_pixels_of_different_classes_are_nobody_s_and_counted() -> None:
    labels = label_set([square(10, 10, 10), square(15, 10, 10), square(40, 10)], [0, 1, 0])
    burnt = rasterize(labels, GRID)
    assert burnt.conflicts == 50
    assert (burnt.classes[10:20, 15:20] == -1).all()
    assert (burnt.feature[10:20, 15:20] == -1).all()
    assert (burnt.classes[10:20, 10:15] == 0).all()
    assert (burnt.classes[10:20, 20:25] == 1).all()


def test_a_third_feature_does_not_settle_a_conflict() -> None:
    burnt = rasterize(label_set([square(10, 10), square(10, 10), square(10, 10)], [0, 1, 0]), GRID)
    assert burnt.conflicts == 16
    assert (burnt.classes == -1).all()


def test_pixels_of_one_class_belong_to_the_first_feature() -> None:
    burnt = rasterize(label_set([square(10, 10, 10), square(15, 10, 10)], [0, 0]), GRID)
    assert burnt.conflicts == 0
    assert (burnt.feature[10:20, 10:20] == 0).all()
    assert (burnt.feature[10:20, 20:25] == 1).all()


def test_chosen_features_are_burnt_as_if_alone() -> None:
    labels = label_set([square(10, 10, 10), square(15, 10, 10), square(40, 10)], [0, 1, 0])
    burnt = rasterize(labels, GRID, features=[1])
    assert burnt.conflicts == 0
    assert (burnt.feature[burnt.feature >= 0] == 1).all()
    assert (burnt.classes == 1).sum() == 100
    assert (rasterize(labels, GRID, features=np.array([], np.int64)).classes == -1).all()


def test_counts_equal_those_of_the_whole_scene_over_several_blocks() -> None:
    grid = Grid(GRID.crs, GRID.left, GRID.top, 0.7, 0.7, 1400, 1100)
    shapes = random_polygons(40, seed=5)
    labels = label_set(shapes, [index % 4 for index in range(len(shapes))])
    whole, counts = rasterize(labels, grid), count_pixels(labels, grid)
    np.testing.assert_array_equal(counts.features, np.bincount(whole.feature[whole.feature >= 0], minlength=len(labels)))
    np.testing.assert_array_equal(counts.classes, np.bincount(whole.classes[whole.classes >= 0], minlength=4))
    assert counts.conflicts == whole.conflicts > 0


def test_counting_finds_the_features_that_share_pixels() -> None:
    labels = label_set([square(10, 10), square(12, 10), square(40, 10), point(41, 11), square(44, 10)], [0, 0, 1, 1, 1])
    assert count_pixels(labels, GRID).overlaps.tolist() == [[0, 1], [2, 3]]


def test_the_report_names_what_counting_has_shown() -> None:
    labels = label_set([square(10, 10, 8), square(40, 10, 2), square(14, 10, 1), square(14, 10, 1)], [0, 1, 0, 2])
    report = finish_report(labels, count_pixels(labels, GRID))
    assert report.pixels_per_class == (63, 4, 0)
    assert report.conflicts == 1
    assert report.sparse_classes == (("class 1", 4), ("class 2", 0))
    assert report.without_pixel == (3, 4)
    remarks = " ".join(report.remarks())
    assert "1 pixels lie in labels of different classes" in remarks
    assert "'class 2' has 0 pixels" in remarks


def test_a_polygon_far_larger_than_the_grid_fills_it() -> None:
    world = shapely.box(-1e15, -1e15, 1e15, 1e15)
    assert (rasterize(label_set([world], [0]), GRID).classes == 0).all()


def test_labels_of_another_system_are_refused() -> None:
    with pytest.raises(GridError, match="EPSG:4326"):
        rasterize(label_set([square(0, 0)], [0], crs="EPSG:4326"), GRID)


def test_pixels_that_are_not_square_and_in_degrees() -> None:
    grid = Grid("EPSG:4326", 13.0, 52.0, 0.002, 0.001, 40, 30)
    shape = shapely.Point(13.03, 51.98).buffer(0.008)
    labels = label_set([shape], [0], crs="EPSG:4326")
    np.testing.assert_array_equal(rasterize(labels, grid).classes == 0, brute_force(shape, grid))
