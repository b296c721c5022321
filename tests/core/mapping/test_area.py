"""Extents and polygon masks."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from pyproj import Transformer

from core.errors import GridError, LabelError
from core.mapping.area import PolygonMask, extent_window
from core.scenes.grid import Bounds, Grid, Window

GRID = Grid("EPSG:32633", 500_000.0, 5_700_000.0, 10.0, 10.0, 100, 80)


def write(path: Path, shapes: list[object], crs: str | None = GRID.crs) -> Path:
    geopandas.GeoDataFrame({"name": ["x"] * len(shapes)}, geometry=shapes, crs=crs).to_file(path)
    return path


def centres_inside(shape: shapely.Geometry, window: Window) -> np.ndarray:
    """By a plain question for every pixel."""
    grid = GRID.crop(window)
    xs = grid.left + (np.arange(grid.width) + 0.5) * 10
    ys = grid.top - (np.arange(grid.height) + 0.5) * 10
    return np.array([[shape.contains(shapely.Point(x, y)) for x in xs] for y in ys])


# --- extents ---


def test_an_extent_takes_every_pixel_that_it_touches() -> None:
    assert extent_window(GRID, Bounds(500_101, 5_699_799, 500_219, 5_699_951), GRID.crs) == Window(10, 4, 12, 17)
    # An extent that was copied from pixel edges does not take the neighbours.
    assert extent_window(GRID, GRID.bounds_of(Window(10, 4, 12, 17)), GRID.crs) == Window(10, 4, 12, 17)


def test_an_extent_is_cut_to_the_grid() -> None:
    assert extent_window(GRID, Bounds(400_000, 5_000_000, 500_055, 6_000_000), GRID.crs) == Window(0, 0, 6, 80)
    assert extent_window(GRID, GRID.bounds, GRID.crs) == GRID.window


def test_an_extent_of_another_system_is_covered() -> None:
    wanted = GRID.bounds_of(Window(20, 30, 25, 15))
    to_degrees = Transformer.from_crs(GRID.crs, "EPSG:4326", always_xy=True)
    degrees = Bounds(*to_degrees.transform_bounds(*wanted))
    window = extent_window(GRID, degrees, "EPSG:4326")
    assert window.intersection(Window(20, 30, 25, 15)) == Window(20, 30, 25, 15)
    assert window.width <= 27
    assert window.height <= 17


@pytest.mark.parametrize(
    ("bounds", "crs"),
    [
        (Bounds(510_000, 5_690_000, 511_000, 5_691_000), GRID.crs),
        (Bounds(15, 20, 16, 21), "EPSG:4326"),
        (Bounds(10, 95, 11, 96), "EPSG:4326"),
        (Bounds(501_000, 5_699_000, 502_000, 5_700_000), GRID.crs),
    ],
)
def test_an_extent_elsewhere_is_refused_with_both_places(bounds: Bounds, crs: str) -> None:
    with pytest.raises(GridError, match="does not overlap the scene") as caught:
        extent_window(GRID, bounds, crs)
    assert crs in caught.value.message
    assert str(GRID.bounds.left) in caught.value.message


# --- masks ---


def test_pixels_whose_centres_lie_in_a_polygon(tmp_path: Path) -> None:
    circle = shapely.Point(500_400, 5_699_600).buffer(173)
    ring = circle.difference(shapely.Point(500_420, 5_699_620).buffer(60))
    mask = PolygonMask(write(tmp_path / "m.gpkg", [ring]), GRID)
    expected = centres_inside(ring, GRID.window)
    np.testing.assert_array_equal(mask(GRID.window), expected)
    for window in (Window(25, 30, 20, 9), Window(-5, -5, 60, 60), Window(0, 0, 5, 5)):
        np.testing.assert_array_equal(mask(window), centres_inside(ring, window))


def test_all_polygons_count_whatever_their_kind(tmp_path: Path) -> None:
    first, second, third = (shapely.box(500_000 + x, 5_699_500, 500_040 + x, 5_699_540) for x in (0, 100, 200))
    shapes = [shapely.MultiPolygon([first, second]), third, shapely.Point(500_500, 5_699_900)]
    window = GRID.window
    np.testing.assert_array_equal(
        PolygonMask(write(tmp_path / "m.geojson", shapes), GRID)(window),
        centres_inside(shapely.union_all([first, second, third]), window),
    )


def test_a_polygon_that_crosses_itself_is_repaired(tmp_path: Path) -> None:
    left, top = 500_101, 5_699_898
    bow_tie = shapely.Polygon([(left, top), (left + 200, top - 200), (left + 203, top), (left, top - 207)])
    mask = PolygonMask(write(tmp_path / "m.gpkg", [bow_tie]), GRID)(GRID.window)
    np.testing.assert_array_equal(mask, centres_inside(shapely.make_valid(bow_tie), GRID.window))
    assert mask.sum() > 150


def test_polygons_of_another_system_and_a_path_with_a_space(tmp_path: Path) -> None:
    shape = shapely.box(500_203, 5_699_404, 500_608, 5_699_707)
    degrees = geopandas.GeoSeries([shape], crs=GRID.crs).to_crs("EPSG:4326")[0]
    path = write(tmp_path / "été l'aire.gpkg", [degrees], "EPSG:4326")
    np.testing.assert_array_equal(PolygonMask(path, GRID)(GRID.window), centres_inside(shape, GRID.window))


def test_masks_that_cannot_be_used(tmp_path: Path) -> None:
    box = shapely.box(500_000, 5_699_500, 500_100, 5_699_600)
    letter = tmp_path / "letter.gpkg"
    letter.write_text("no vector file")
    table = tmp_path / "table.csv"
    table.write_text("name,value\na,1\n")
    cases = [
        (tmp_path / "none.gpkg", LabelError, "cannot be read"),
        (letter, LabelError, "cannot be read"),
        (table, LabelError, "coordinate reference system"),
        (write(tmp_path / "nowhere.shp", [box], None), LabelError, "coordinate reference system"),
        (write(tmp_path / "points.gpkg", [shapely.Point(500_000, 5_699_500)]), LabelError, "no polygon"),
        (write(tmp_path / "far.gpkg", [shapely.transform(box, lambda xy: xy + 50_000)]), GridError, "overlaps the scene"),
    ]
    for path, error, text in cases:
        with pytest.raises(error) as caught:
            PolygonMask(path, GRID)
        assert text in caught.value.message
        assert path.name in caught.value.message
        assert caught.value.hint
