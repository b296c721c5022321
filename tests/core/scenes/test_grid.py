"""Grid and window arithmetic: what holds for every grid, and a few numbers by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from core.scenes.grid import (
    COARSER_FACTORS,
    FINER_FACTORS,
    Bounds,
    Grid,
    Scale,
    Window,
    aligned,
    first_line,
    lattice,
    nearest_scale,
    on_scale,
    project_bounds,
    same_crs,
)

small = st.integers(-2000, 2000)
sizes = st.integers(1, 500)
windows = st.builds(Window, small, small, st.integers(0, 500), st.integers(0, 500))

PIXELS = (
    ("EPSG:32633", st.sampled_from([0.1, 0.3, 1 / 3, 2.5, 10.0, 10.000282, 30.0]), 9e5, 9e6),
    ("EPSG:3857", st.sampled_from([0.2, 1.1943285668550503, 9.554628535647032, 100.0]), 2e7, 2e7),
    ("EPSG:4326", st.sampled_from([8.983152841195215e-5, 1 / 3600, 1 / 1200, 0.0001]), 179.0, 80.0),
)


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """Grids in metres, in web mercator's big numbers and in degrees, with corners anywhere and on whole pixels."""
    crs, pixels, far_x, far_y = draw(st.sampled_from(PIXELS))
    width, height = draw(pixels), draw(pixels)
    left, top = draw(st.floats(-far_x, far_x)), draw(st.floats(-far_y, far_y))
    if draw(st.booleans()):
        left, top = round(left / width) * width, round(top / height) * height
    grid = Grid(crs, left, top, width, height, draw(sizes), draw(sizes))
    # Within rounding of the tolerance around whole pixels, a corner may fall on either side of it.
    for part in (left / width % 1, -top / height % 1):
        assume(abs(part - 0.999) > 1e-5)
    return grid


def inside(outer: Window) -> st.SearchStrategy[Window]:
    """Windows with pixels within another one."""
    columns = st.lists(st.integers(outer.column, outer.stop_column), min_size=2, max_size=2, unique=True).map(sorted)
    rows = st.lists(st.integers(outer.row, outer.stop_row), min_size=2, max_size=2, unique=True).map(sorted)
    return st.builds(lambda x, y: Window(x[0], y[0], x[1] - x[0], y[1] - y[0]), columns, rows)


# --- windows ---


@given(windows, windows)
def test_intersection_holds_exactly_the_common_pixels(first: Window, second: Window) -> None:
    common = first.intersection(second)
    assert common == second.intersection(first) or common.is_empty
    columns = set(range(first.column, first.stop_column)) & set(range(second.column, second.stop_column))
    rows = set(range(first.row, first.stop_row)) & set(range(second.row, second.stop_row))
    assert common.is_empty == (not columns or not rows)
    if not common.is_empty:
        assert (common.column, common.stop_column - 1) == (min(columns), max(columns))
        assert (common.row, common.stop_row - 1) == (min(rows), max(rows))


@given(st.builds(Window, small, small, sizes, sizes).flatmap(lambda outer: st.tuples(st.just(outer), inside(outer))))
def test_slices_cut_the_window_out_of_the_outer_array(windows: tuple[Window, Window]) -> None:
    outer, inner = windows
    rows, columns = np.mgrid[outer.row : outer.stop_row, outer.column : outer.stop_column]
    part = inner.slices_within(outer)
    assert rows[part].shape == inner.shape
    assert (rows[part][0, 0], columns[part][0, 0]) == (inner.row, inner.column)
    assert (rows[part][-1, -1], columns[part][-1, -1]) == (inner.stop_row - 1, inner.stop_column - 1)


def test_slices_outside_are_refused_and_sizes_are_not_negative() -> None:
    with pytest.raises(ValueError, match="does not lie inside"):
        Window(5, 5, 10, 10).slices_within(Window(0, 0, 10, 20))
    with pytest.raises(ValueError, match="negative"):
        Window(0, 0, -1, 4)


@given(windows, st.integers(0, 50), small, small)
def test_padding_and_moving(window: Window, pixels: int, columns: int, rows: int) -> None:
    padded = window.padded(pixels)
    assert padded.intersection(window) == window
    assert padded.shape == (window.height + 2 * pixels, window.width + 2 * pixels)
    assert window.translated(columns, rows).translated(-columns, -rows) == window


# --- grids ---


@pytest.mark.parametrize("change", [{"pixel_width": 0.0}, {"pixel_height": -1.0}, {"width": 0}, {"pixel_width": math.nan}])
def test_a_grid_has_pixels_with_an_area(change: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        Grid(
            **{"crs": "EPSG:32633", "left": 0, "top": 0, "pixel_width": 1, "pixel_height": 1, "width": 1, "height": 1, **change}
        )


@given(grids(), windows)
def test_bounds_and_windows_are_inverse(grid: Grid, window: Window) -> None:
    assume(not window.is_empty)
    assert grid.window_of(grid.bounds_of(window)) == window


@given(grids(), st.tuples(*[st.floats(-300, 300)] * 2), st.tuples(*[st.floats(0.01, 300)] * 2))
def test_the_window_of_bounds_covers_them_and_no_pixel_more(
    grid: Grid, corner: tuple[float, float], size: tuple[float, float]
) -> None:
    left = grid.left + corner[0] * grid.pixel_width
    top = grid.top - corner[1] * grid.pixel_height
    bounds = Bounds(left, top - size[1] * grid.pixel_height, left + size[0] * grid.pixel_width, top)
    window = grid.window_of(bounds)
    around = grid.bounds_of(window)
    near_x, near_y = 0.002 * grid.pixel_width, 0.002 * grid.pixel_height
    assert around.left <= bounds.left + near_x < around.left + grid.pixel_width + 2 * near_x
    assert around.right >= bounds.right - near_x > around.right - grid.pixel_width - 2 * near_x
    assert around.top >= bounds.top - near_y > around.top - grid.pixel_height - 2 * near_y
    assert around.bottom <= bounds.bottom + near_y < around.bottom + grid.pixel_height + 2 * near_y


@given(grids(), small, small, sizes, sizes)
def test_a_crop_is_the_same_ground_and_its_anchor_differs_by_whole_pixels(
    grid: Grid, column: int, row: int, width: int, height: int
) -> None:
    crop = grid.crop(Window(column, row, width, height))
    first, second = grid.anchor(), crop.anchor()
    assert (second[0] - first[0], second[1] - first[1]) == (column, row)
    assert crop.crop(Window(-column, -row, grid.width, grid.height)).window == grid.window
    assert crop.bounds == pytest.approx(grid.bounds_of(Window(column, row, width, height)))


@pytest.mark.parametrize(
    ("crs", "left", "top", "size"),
    [
        ("EPSG:3857", -20037508.342789244, 20037508.342789244, 0.29858214173896974),
        ("EPSG:3857", 20037508.0, -20037508.0, 0.1),
        ("EPSG:32733", 399_960.0, -10_000.0, 10.0),
        ("EPSG:4326", -180.0, 90.0, 1 / 3600),
    ],
)
def test_anchors_of_crops_with_big_and_negative_coordinates(crs: str, left: float, top: float, size: float) -> None:
    grid = Grid(crs, left, top, size, size, 10, 10)
    column, row = grid.anchor()
    for offset in (1, 7, 1000, 123_457, 1_000_003):
        crop = grid.crop(Window(offset, 2 * offset, 4, 4))
        assert crop.anchor() == (column + offset, row + 2 * offset)


def test_anchor_by_hand() -> None:
    assert Grid("EPSG:32633", 399_960, 5_700_000, 10, 10, 5, 5).anchor() == (39_996, -570_000)
    assert Grid("EPSG:32633", 399_965, 5_700_005, 10, 10, 5, 5).anchor() == (39_996, -570_001)
    assert Grid("EPSG:32633", -15, -15, 10, 10, 5, 5).anchor() == (-2, 1)


@given(st.floats(-1e6, 1e6), st.sampled_from([0.1, 0.3, 1.0, 10.0]), st.integers(1, 40), st.integers(-5000, 5000))
def test_the_lattice_of_another_resolution_is_the_same_for_a_crop(left: float, own: float, times: int, offset: int) -> None:
    assume(abs(left / own % 1 - 0.999) > 1e-5)
    size = own * times / 4
    whole = first_line(left, own, size, left)
    crop = first_line(left + offset * own, own, size, left + offset * own)
    steps = (crop - whole) / size
    assert steps == pytest.approx(round(steps), abs=1e-4)
    assert -1.5e-3 * size <= left - whole < size
    if times % 4 == 0:
        pixels = (left - whole) / own
        assert pixels == pytest.approx(round(pixels), abs=1e-4)


# --- areas ---


def test_pixel_areas_in_degrees_against_the_closed_formula() -> None:
    """Area between two parallels of an ellipsoid (Snyder 1987, eq. 3-12): half of b squared times the change of q."""
    grid = Grid("EPSG:4326", 12.0, 84.0, 0.01, 0.01, 50, 16_800)
    eccentricity = math.sqrt(0.00669437999014)
    semi_major = 6_378_137.0

    def q(latitude: np.ndarray) -> np.ndarray:
        sine = np.sin(np.radians(latitude))
        term = eccentricity * sine
        return (1 - eccentricity**2) * (sine / (1 - term**2) - np.log((1 - term) / (1 + term)) / (2 * eccentricity))

    edges = 84.0 - 0.01 * np.arange(grid.height + 1)
    expected = semi_major**2 / 2 * np.radians(0.01) * -np.diff(q(edges))
    np.testing.assert_allclose(grid.row_pixel_areas_m2(), expected, rtol=1e-7)
    np.testing.assert_allclose(grid.row_pixel_areas_m2(np.array([0, 8399, 16_799])), expected[[0, 8399, 16_799]], rtol=1e-7)


def test_pixel_areas_across_the_antimeridian_and_on_rotated_projections() -> None:
    degrees = Grid("EPSG:4326", 179.95, 10.0, 0.01, 0.01, 10, 4)
    usual = Grid("EPSG:4326", 100.0, 10.0, 0.01, 0.01, 10, 4)
    assert degrees.row_pixel_areas_m2() == pytest.approx(usual.row_pixel_areas_m2(), rel=1e-9)
    # Far from its axis the grid of an equal-area projection is turned against the meridians by tens of degrees.
    turned = Grid("EPSG:3035", 2_700_000, 5_200_000, 10, 10, 10, 10)
    assert turned.row_pixel_areas_m2() == pytest.approx(np.full(10, 100.0), rel=1e-6)


def test_pixel_areas_in_a_projection_follow_its_scale() -> None:
    # On the central meridian UTM shrinks lengths by 0.9996; web mercator stretches by the secant of the latitude.
    middle = Grid("EPSG:32633", 499_500, 5_700_000, 10, 10, 100, 3)
    assert middle.row_pixel_areas_m2() == pytest.approx(np.full(3, 100 / 0.9996**2), rel=1e-6)
    web = Grid("EPSG:3857", 1_500_000, 8_399_737.889818357, 10, 10, 4, 4)
    assert web.center()[1] == pytest.approx(60.0, abs=1e-3)
    assert web.resolution_m() == pytest.approx(10 * math.cos(math.radians(60)), rel=4e-3)
    equal_area = Grid("EPSG:3035", 4_500_000, 3_200_000, 10, 10, 1000, 1000)
    assert equal_area.row_pixel_areas_m2() == pytest.approx(np.full(1000, 100.0), rel=1e-6)


# --- scales ---


@given(st.floats(0.05, 200), st.floats(0.05, 200))
@example(10.0, 1.0)
@example(10.0, 60.0)
@example(10.0, 10.5)
def test_the_nearest_scale_is_no_further_than_any_other(reference: float, own: float) -> None:
    scale = nearest_scale(reference, own)
    assert scale.finer == 1 or reference > own
    assert scale.coarser == 1 or reference < own
    distance = abs(math.log(reference / own * scale.coarser / scale.finer))
    for finer in FINER_FACTORS:
        assert distance <= abs(math.log(reference / own / finer)) + 1e-12 or reference < own
    for coarser in COARSER_FACTORS:
        assert distance <= abs(math.log(reference / own * coarser)) + 1e-12 or reference >= own


def test_scales_by_hand() -> None:
    assert nearest_scale(10, 10.0003) == Scale()
    assert nearest_scale(10, 1) == Scale(finer=10)
    assert nearest_scale(10, 20) == Scale(coarser=2)
    assert nearest_scale(10, 60) == Scale(coarser=6)
    assert nearest_scale(10, 0.1) == Scale(finer=16)
    assert nearest_scale(1, 1000) == Scale(coarser=16)
    for wrong in ((0, 1), (2, 2), (1, -1)):
        with pytest.raises(ValueError):
            Scale(*wrong)


@given(grids(), windows, st.sampled_from(COARSER_FACTORS))
def test_coarse_pixels_of_a_crop_are_those_of_the_scene(grid: Grid, window: Window, coarser: int) -> None:
    assume(not window.is_empty)
    around = aligned(grid, window, coarser)
    scaled = on_scale(grid, around, Scale(coarser=coarser))
    assert scaled.shape == (around.height // coarser, around.width // coarser)
    assert scaled.bounds == pytest.approx(grid.bounds_of(around))
    crop = grid.crop(window)
    again = on_scale(crop, aligned(crop, crop.window, coarser), Scale(coarser=coarser))
    assert again.shape == scaled.shape
    assert again.bounds == pytest.approx(scaled.bounds)


@given(grids(), windows, st.sampled_from(FINER_FACTORS))
def test_fine_pixels_divide_the_window(grid: Grid, window: Window, finer: int) -> None:
    assume(not window.is_empty)
    scaled = on_scale(grid, window, Scale(finer=finer))
    assert scaled.shape == (window.height * finer, window.width * finer)
    assert scaled.bounds == pytest.approx(grid.bounds_of(window))


def test_a_window_through_coarse_pixels_is_refused() -> None:
    grid = Grid("EPSG:32633", 10, 0, 10, 10, 40, 40)
    with pytest.raises(ValueError, match="not aligned"):
        on_scale(grid, Window(0, 0, 4, 4), Scale(coarser=2))
    assert on_scale(grid, Window(1, 0, 4, 4), Scale(coarser=2)).left == 20


@given(grids(), windows, st.integers(1, 64))
def test_aligning_takes_the_smallest_window_on_the_step(grid: Grid, window: Window, step: int) -> None:
    assume(not window.is_empty)
    around = aligned(grid, window, step)
    column, row = grid.anchor()
    assert (column + around.column) % step == (row + around.row) % step == around.width % step == around.height % step == 0
    assert around.intersection(window) == window
    assert max(window.column - around.column, around.stop_column - window.stop_column) < step
    assert max(window.row - around.row, around.stop_row - window.stop_row) < step
    assert aligned(grid, around, step) == around


# --- the lattice of tiles ---

tiles_and_strides = st.integers(1, 96).flatmap(lambda tile: st.tuples(st.just(tile), st.integers(1, tile)))


@given(grids(), st.builds(Window, small, small, st.integers(1, 200), st.integers(1, 200)), tiles_and_strides)
def test_the_lattice_holds_all_tiles_that_touch_the_window_and_no_other(
    grid: Grid, window: Window, tile_and_stride: tuple[int, int]
) -> None:
    tile, stride = tile_and_stride
    assume(max(window.width, window.height) / stride < 100)
    rows = lattice(grid, window, tile, stride)
    column, row = grid.anchor()
    assert len({len(line) for line in rows}) == 1
    for line in rows:
        for each in line:
            assert (each.width, each.height) == (tile, tile)
            assert (column + each.column) % stride == (row + each.row) % stride == 0
            assert not each.intersection(window).is_empty
    first, last = rows[0][0], rows[-1][-1]
    # No tile is missing within, and the next ones on either side would not touch the window.
    assert [each.column for each in rows[0]] == list(range(first.column, last.column + 1, stride))
    assert [line[0].row for line in rows] == list(range(first.row, last.row + 1, stride))
    assert first.column <= window.column < first.column + tile
    assert first.column - stride + tile <= window.column < window.stop_column <= last.column + stride
    assert first.row - stride + tile <= window.row < window.stop_row <= last.row + stride
    assert last.stop_column >= window.stop_column
    assert last.stop_row >= window.stop_row


@given(grids(), tiles_and_strides, st.integers(0, 60), st.integers(0, 60), st.integers(1, 60), st.integers(1, 60))
def test_a_crop_is_covered_by_the_same_tiles(
    grid: Grid, tile_and_stride: tuple[int, int], column: int, row: int, width: int, height: int
) -> None:
    tile, stride = tile_and_stride
    assume(120 / stride < 60)
    window = Window(column, row, width, height)
    whole = lattice(grid, Window(0, 0, 120, 120), tile, stride)
    touching = {each for line in whole for each in line if not each.intersection(window).is_empty}
    crop = grid.crop(window)
    of_crop = {each.translated(column, row) for line in lattice(crop, crop.window, tile, stride) for each in line}
    assert of_crop == touching


@pytest.mark.parametrize("stride", [0, -1, 65])
def test_strides_that_leave_gaps_are_refused(stride: int) -> None:
    with pytest.raises(ValueError, match="stride"):
        lattice(Grid("EPSG:32633", 0, 0, 1, 1, 9, 9), Window(0, 0, 9, 9), 64, stride)


# --- coordinate reference systems and rectangles ---


def test_the_same_system_under_other_names() -> None:
    from pyproj import CRS

    assert same_crs("EPSG:32633", CRS.from_epsg(32633).to_wkt())
    assert same_crs("EPSG:4326", "OGC:CRS84")
    assert not same_crs("EPSG:32633", "EPSG:25833")
    assert not same_crs("EPSG:32633", "EPSG:32634")


def test_projected_rectangles_hold_curved_edges() -> None:
    from pyproj import Transformer

    bounds = Bounds(200_000, 5_000_000, 800_000, 6_000_000)
    projected = project_bounds(bounds, "EPSG:32633", "EPSG:4326")
    xs, ys = np.meshgrid(np.linspace(bounds.left, bounds.right, 400), np.linspace(bounds.bottom, bounds.top, 400))
    longitudes, latitudes = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True).transform(xs, ys)
    assert projected.left == pytest.approx(longitudes.min(), abs=1e-3)
    assert projected.right == pytest.approx(longitudes.max(), abs=1e-3)
    assert projected.bottom == pytest.approx(latitudes.min(), abs=1e-3)
    assert projected.top == pytest.approx(latitudes.max(), abs=1e-3)


def test_a_rectangle_across_the_antimeridian_goes_around_the_earth() -> None:
    across = Grid("EPSG:32601", 150_000, 1_000_000, 1000, 1000, 60, 60)
    projected = project_bounds(across.bounds, across.crs, "EPSG:4326")
    assert (projected.left, projected.right) == (-180, 180)
    assert 8 < projected.bottom < projected.top < 10


def test_a_place_that_another_system_cannot_express() -> None:
    with pytest.raises(ValueError, match="cannot be expressed"):
        project_bounds(Bounds(10, 95, 11, 96), "EPSG:4326", "EPSG:32633")


@given(*[st.tuples(st.floats(-10, 10), st.floats(-10, 10), st.floats(0.1, 5), st.floats(0.1, 5))] * 2)
def test_rectangles(first: tuple[float, ...], second: tuple[float, ...]) -> None:
    one, two = (Bounds(x, y, x + width, y + height) for x, y, width, height in (first, second))
    common, both = one.intersection(two), one.union(two)
    assert common == two.intersection(one)
    assert both.intersection(one) == one
    assert both.intersection(two) == two
    if common is not None:
        assert 0 < common.area <= min(one.area, two.area)
        assert common.intersection(one) == common
