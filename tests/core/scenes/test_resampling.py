"""Interpolation and means against formulas, GDAL's warper and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pyproj import Transformer
from rasterio import crs as rasterio_crs
from rasterio.enums import Resampling
from rasterio.warp import reproject

from core.scenes.grid import Grid, Window
from core.scenes.resampling import (
    block_mean,
    covering_window,
    decibels_of_power,
    near_position_rows,
    pixel_centres,
    pixels_across,
    power_of_decibels,
    source_positions,
    warp,
)
from tests.core.scenes.ground import BASE, LEFT, TOP, plane, truth, truth_on

NORTH_UP = Affine(10, 0, LEFT, 0, -10, TOP)
SOUTH_UP = Affine(10, 0, LEFT, 0, 10, TOP - 1200)
ROTATED = Affine.translation(LEFT + 300, TOP - 100) @ Affine.rotation(-30) @ Affine.scale(10, -10)
SIDE = 120
WHOLE = Window(0, 0, SIDE, SIDE)


def warped(values: np.ndarray, transform: Affine, target: Grid, crs: str = BASE) -> np.ndarray:
    return warp(values.astype(np.float32), Window(0, 0, values.shape[2], values.shape[1]), transform, crs, target)


@pytest.mark.parametrize("transform", [NORTH_UP, SOUTH_UP, ROTATED], ids=["north-up", "south-up", "rotated"])
@pytest.mark.parametrize("crs", [BASE, "EPSG:3035", "EPSG:4326", "EPSG:3857"])
def test_a_plane_comes_out_as_it_is(transform: Affine, crs: str) -> None:
    values = truth(transform, SIDE, SIDE, surface=plane)[None]
    middle = Transformer.from_crs(BASE, crs, always_xy=True).transform(*(transform @ (SIDE / 2, SIDE / 2)))
    size = 9e-5 if crs == "EPSG:4326" else 9.7
    target = Grid(crs, middle[0] - 20 * size, middle[1] + 20 * size, size, size, 40, 40)
    result = warped(values, transform, target)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result[0], truth_on(target, plane), atol=2e-5)


def test_against_gdal_where_all_bands_share_their_gaps() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(3, SIDE, SIDE)).astype(np.float32)
    values[:, rng.random((SIDE, SIDE)) < 0.1] = np.nan
    for transform in (SOUTH_UP, ROTATED):
        target = Grid(BASE, LEFT + 3.1, TOP - 7.3, 9.0, 9.0, 150, 150)
        expected = np.full((3, 150, 150), np.nan, np.float32)
        reproject(
            values,
            expected,
            src_transform=transform,
            src_crs=rasterio_crs.CRS.from_user_input(BASE),
            src_nodata=np.nan,
            dst_transform=target.transform,
            dst_crs=rasterio_crs.CRS.from_user_input(BASE),
            dst_nodata=np.nan,
            resampling=Resampling.bilinear,
            XSCALE=1,
            YSCALE=1,
        )
        result = warped(values, transform, target)
        assert 0.1 < np.isnan(expected).mean() < 0.7
        np.testing.assert_array_equal(np.isnan(result), np.isnan(expected))
        np.testing.assert_allclose(result, expected, atol=1e-4)


def test_the_pixels_own_centres_give_its_own_values() -> None:
    values = np.random.default_rng(1).normal(size=(2, SIDE, SIDE)).astype(np.float32)
    values[1, 5:9, 7] = np.nan
    target = Grid(BASE, LEFT, TOP, 10, 10, SIDE, SIDE)
    np.testing.assert_array_equal(warped(values, NORTH_UP, target), values)
    np.testing.assert_array_equal(warped(values[:, ::-1], SOUTH_UP, target), values)


@given(st.integers(0, 11), st.integers(0, 11), st.sampled_from([0.0, 0.1, 0.25, 0.49, 0.51, 0.9]))
def test_a_missing_pixel_is_missing_alone_and_in_its_own_band_only(column: int, row: int, shift: float) -> None:
    values = np.broadcast_to(np.float32(7), (2, 12, 12)).copy()
    values[0, row, column] = np.nan
    target = Grid(BASE, LEFT + 10 * shift, TOP - 10 * shift, 10, 10, 11, 11)
    result = warped(values, NORTH_UP, target)
    missing = np.argwhere(np.isnan(result)).tolist()
    # The source pixel under a target's centre.
    expected = [0, row if shift < 0.5 else row - 1, column if shift < 0.5 else column - 1]
    inside = all(0 <= index < 11 for index in expected[1:])
    assert missing == ([expected] if inside else [])
    np.testing.assert_allclose(result[np.isfinite(result)], 7, rtol=1e-6)


def test_nothing_comes_from_beyond_the_edge() -> None:
    values = np.arange(9, dtype=np.float32).reshape(1, 3, 3)
    target = Grid(BASE, LEFT - 5, TOP + 5, 5, 5, 8, 8)
    result = warped(values, NORTH_UP, target)[0]
    assert np.isnan(result[[0, -1]]).all()
    assert np.isnan(result[:, [0, -1]]).all()
    # Between the last centre and the edge the last pixel's value goes on.
    assert result[1, 1] == 0
    assert result[6, 6] == 8
    assert result[1, 2] == pytest.approx(0.25)
    assert np.isfinite(result[1:-1, 1:-1]).all()


@pytest.mark.parametrize("size", [10.0, 0.1, 1 / 3, 10.000282])
@pytest.mark.parametrize("shift", [None, 0.5, 0.0])
@pytest.mark.parametrize("crs", [BASE, "EPSG:3035"])
def test_a_crop_has_the_same_bits(size: float, shift: float | None, crs: str) -> None:
    middle = Transformer.from_crs(BASE, crs, always_xy=True).transform(LEFT + 30 * size, TOP - 30 * size)
    if shift is not None:
        middle = tuple((math.floor(value / size) + shift) * size for value in middle)
    transform = Affine(size, 0, LEFT, 0, -size, TOP) @ Affine.translation(0.37, 0.21)
    values = np.random.default_rng(2).normal(size=(1, SIDE, SIDE)).astype(np.float32)
    values[0, 30:33, 40:50] = np.nan
    grid = Grid(crs, middle[0] - 25 * size, middle[1] + 25 * size, size, size, 60, 60)
    whole = warp(values, WHOLE, transform, BASE, grid)
    assert 0.3 < np.isfinite(whole).mean() <= 1
    for window in (Window(3, 5, 20, 9), Window(17, 0, 43, 60), Window(11, 29, 1, 1)):
        target = grid.crop(window)
        needed = covering_window(transform, SIDE, SIDE, BASE, target)
        rows, columns = needed.slices_within(WHOLE)
        part = warp(values[:, rows, columns], needed, transform, BASE, target)
        rows, columns = window.slices_within(grid.window)
        np.testing.assert_array_equal(part, whole[:, rows, columns])


@given(
    st.sampled_from([0.1, 0.3, 1 / 3, 10.0, 10.000282]),
    st.floats(-1e6, 1e6),
    st.integers(-1000, 100_000),
    st.integers(-1000, 100_000),
)
def test_centres_are_the_same_bits_for_a_crop(size: float, left: float, column: int, row: int) -> None:
    shift = left / size % 1 * 1e6 % 1
    if abs(shift - 0.5) < 0.01:  # a corner half way between two millionths of a pixel may be rounded either way
        left = round(left / size) * size
    grid = Grid(BASE, left, 5e6, size, size, 101_000, 101_000)
    xs, ys = pixel_centres(grid.crop(Window(column, row, 50, 50)))
    all_x, all_y = pixel_centres(grid.crop(Window(column - 3, row - 3, 60, 60)))
    np.testing.assert_array_equal(xs, all_x[3:53])
    np.testing.assert_array_equal(ys, all_y[3:53])
    np.testing.assert_allclose(xs, left + (column + 0.5 + np.arange(50)) * size, rtol=0, atol=2e-6 * size)


@pytest.mark.parametrize("transform", [NORTH_UP, SOUTH_UP, ROTATED], ids=["north-up", "south-up", "rotated"])
@pytest.mark.parametrize("target_crs", [BASE, "EPSG:3035", "EPSG:4326"])
def test_the_covering_window_holds_every_pixel_that_counts(transform: Affine, target_crs: str) -> None:
    x, y = Transformer.from_crs(BASE, target_crs, always_xy=True).transform(LEFT + 400, TOP - 600)
    size = 3e-5 if target_crs == "EPSG:4326" else 4.0
    target = Grid(target_crs, x, y, size, size, 100, 33)
    window = covering_window(transform, SIDE, SIDE, BASE, target)
    assert not window.is_empty
    assert window.intersection(WHOLE) == window
    values = np.random.default_rng(5).normal(size=(1, SIDE, SIDE)).astype(np.float32)
    rows, columns = window.slices_within(WHOLE)
    part = warp(values[:, rows, columns], window, transform, BASE, target)
    np.testing.assert_array_equal(part, warp(values, WHOLE, transform, BASE, target))
    # And not much more than what counts.
    unmargined = covering_window(transform, SIDE, SIDE, BASE, target, margin=0)
    assert window.width <= unmargined.width + 4
    assert window.height <= unmargined.height + 4


def test_a_target_elsewhere_needs_nothing() -> None:
    far = Grid(BASE, LEFT + 5000, TOP, 10, 10, 20, 20)
    assert covering_window(NORTH_UP, SIDE, SIDE, BASE, far).is_empty
    beyond = Grid("EPSG:4326", 0, 96, 0.1, 0.1, 5, 5)
    assert covering_window(NORTH_UP, SIDE, SIDE, BASE, beyond).is_empty


def test_a_wide_strip_in_another_system_bends() -> None:
    """A parallel is lowest at the central meridian: in the middle of this strip, about 3 km below its ends."""
    target = Grid("EPSG:4326", 12.5, 51.4, 1e-4, 1e-4, 50_000, 4)
    source = Affine(10, 0, 200_000, 0, -10, 5_900_000)
    window = covering_window(source, 60_000, 40_000, BASE, target)
    grid_x, grid_y = np.meshgrid(*pixel_centres(target))
    columns, rows = ~source @ Transformer.from_crs("EPSG:4326", BASE, always_xy=True).transform(grid_x, grid_y)
    ends = rows[:, [0, -1]]
    assert rows.max() - ends.max() > 100
    assert window.column <= columns.min() - 1
    assert window.stop_column >= columns.max() + 1
    assert window.row <= rows.min() - 1
    assert window.stop_row >= rows.max() + 1
    assert window.height < rows.max() - rows.min() + 12


def test_pixels_across() -> None:
    def across(size: float, transform: Affine, crs: str = BASE) -> float:
        return pixels_across(transform, SIDE, SIDE, BASE, Grid(crs, 0, 0, size, size, 5, 5))

    assert across(10, NORTH_UP) == pytest.approx(1)
    assert across(30, SOUTH_UP) == pytest.approx(3)
    assert across(30, ROTATED) == pytest.approx(3)
    assert across(2.5, NORTH_UP) == pytest.approx(0.25)
    assert across(20, NORTH_UP @ Affine.scale(1, 0.5)) == pytest.approx(4)
    # Web mercator stretches by the secant of the latitude, 51.4 degrees here.
    assert across(10, NORTH_UP, "EPSG:3857") == pytest.approx(0.624, abs=0.003)
    assert across(10, NORTH_UP, "EPSG:3035") == pytest.approx(1, abs=0.01)
    # The place of the target does not matter, only its pixels.
    near = pixels_across(NORTH_UP, SIDE, SIDE, BASE, Grid("EPSG:4326", 15, 51, 1e-4, 1e-4, 5, 5))
    far = pixels_across(NORTH_UP, SIDE, SIDE, BASE, Grid("EPSG:4326", 100, -80, 1e-4, 1e-4, 50, 50))
    assert near == far


# --- means ---


@given(
    arrays(np.float32, (2, 6, 12), elements=st.one_of(st.floats(-1000, 1000, width=32), st.just(np.float32(np.nan)))),
    st.sampled_from([1, 2, 3, 6]),
)
def test_block_means_against_a_plain_loop(values: np.ndarray, side: int) -> None:
    result = block_mean(values, side)
    assert result.shape == (2, 6 // side, 12 // side)
    for band, row, column in np.ndindex(result.shape):
        block = values[band, row * side : (row + 1) * side, column * side : (column + 1) * side]
        there = block[np.isfinite(block)].astype(float)
        if 2 * there.size < side * side:
            assert np.isnan(result[band, row, column])
        else:
            assert result[band, row, column] == pytest.approx(there.mean(), rel=1e-5, abs=1e-4)


def test_decibels_and_power() -> None:
    decibels = np.array([-30, -10, 0, 3.0103, np.nan], np.float32)
    power = power_of_decibels(decibels)
    np.testing.assert_allclose(power, [1e-3, 0.1, 1, 2, np.nan], rtol=1e-5)
    assert power.dtype == decibels_of_power(power).dtype == np.float32
    np.testing.assert_allclose(decibels_of_power(power), decibels, atol=1e-5)


def near_positions(transform: Affine, crs: str, target: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Those of all rows, as ``source_positions`` gives them."""
    parts = [(columns.ravel(), rows.ravel()) for _, columns, rows in near_position_rows(transform, crs, target)]
    return np.concatenate([columns for columns, _ in parts]), np.concatenate([rows for _, rows in parts])


@pytest.mark.parametrize(
    ("crs", "size", "place"),
    [
        ("EPSG:32632", 10.0, (13.0, 52.0)),
        ("EPSG:3035", 0.25, (13.0, 52.0)),
        ("EPSG:4326", 0.0001, (13.0, 52.0)),
        ("EPSG:3413", 500.0, (13.0, 84.0)),
        ("EPSG:4326", 0.25, (13.0, 80.0)),
        ("EPSG:3413", 1000.0, (-30.0, 80.0)),
    ],
)
@pytest.mark.parametrize("source", [BASE, "EPSG:3857"])
def test_places_between_transformed_corners_are_near(crs: str, size: float, place: tuple[float, float], source: str) -> None:
    """Where the projection bends much, as with coarse pixels near a pole, every pixel is transformed."""
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(*place)
    target = Grid(crs, x, y, size, size, 150, 90)
    own = size * 111_000 if crs == "EPSG:4326" else size
    transform = Affine(own, 0, LEFT, 0, -own, TOP)
    near, exact = near_positions(transform, source, target), source_positions(transform, source, target)
    np.testing.assert_allclose(np.stack(near), np.stack(exact), rtol=0, atol=2e-4)


def test_what_the_source_cannot_express_stays_missing() -> None:
    """A target that reaches beyond the horizon of an orthographic projection of the other side of the Earth."""
    source = "+proj=ortho +lat_0=0 +lon_0=0"
    target = Grid("EPSG:4326", 70.0, 20.0, 0.5, 0.5, 80, 80)
    transform = Affine(1000, 0, 0, 0, -1000, 0)
    near, exact = near_positions(transform, source, target), source_positions(transform, source, target)
    assert 0.1 < np.isfinite(exact[0]).mean() < 0.9
    np.testing.assert_array_equal(np.isfinite(near), np.isfinite(exact))
    np.testing.assert_allclose(np.stack(near), np.stack(exact), rtol=0, atol=2e-4)
