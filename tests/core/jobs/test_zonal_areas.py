"""The job that measures classes in zones: by hand on tiny maps."""

from __future__ import annotations

import csv

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from shapely.geometry import Polygon, box

from core.mapping.class_raster import class_areas, open_class_raster
from tests.core.jobs.running import check_refused, run_command, run_here, snapshot
from tests.core.jobs.test_map_polygons import CODES, write_codes

LEFT, TOP = 500_000.0, 5_600_000.0
PIXEL = 0.01 / 0.9996**2
"""Hectares of a pixel of 10 m on the central meridian of a UTM zone."""


def cell(column, row, width=1, height=1):
    return box(LEFT + 10 * column, TOP - 10 * (row + height), LEFT + 10 * (column + width), TOP - 10 * row)


def zones_file(path, shapes, names, crs="EPSG:32633", **more):
    frame = geopandas.GeoDataFrame({"district": names, **more}, geometry=shapes, crs="EPSG:32633")
    frame.to_crs(crs).to_file(path, driver="GPKG")
    return {"path": str(path), "id_field": "district"}


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def job(tmp_path):
    shapes = [cell(0, 0, 4, 5), cell(0, 0, 2, 2), cell(3, 0, 1, 2), cell(2, 3, 10, 1), cell(50, 50)]
    zones = zones_file(tmp_path / "zones.gpkg", shapes, ["all", "corner", "empty", "half", "far"])
    path = write_codes(tmp_path / "map.tif", CODES)
    return {"kind": "zonal-areas", "map": path, "zones": zones, "output": str(tmp_path / "areas.csv")}


def check_areas(rows):
    expected = {"all": (8, 3, 6, 3), "corner": (3, 1, 0, 0), "empty": (0, 0, 0, 2), "half": (0, 0, 2, 0), "far": (0, 0, 0, 0)}
    assert [row["district"] for row in rows] == list(expected)
    for row in rows:
        found = [float(row[name]) for name in ("1_ha", "2_ha", "3_ha", "nodata_ha", "total_ha")]
        pixels = expected[row["district"]]
        np.testing.assert_allclose(found, np.array([*pixels, sum(pixels[:3])]) * PIXEL, atol=6e-5)


def test_zones_of_a_tiny_map(job, tmp_path):
    told = run_here(job)
    assert told.code == 0, told.last
    rows = rows_of(job["output"])
    check_areas(rows)
    assert list(rows[0]) == ["district", "1_ha", "2_ha", "3_ha", "total_ha", "nodata_ha"]
    assert "1 zones lie outside the map, and all their areas are zero: 'far'" in told.texts("warning")
    assert "1 zones lie on the map in part; what is beyond it is not counted: 'half'" in told.texts("warning")
    assert told.outputs["N_ZONES"] == 5
    assert set(snapshot(tmp_path)) == {"areas.csv", "map.tif", "zones.gpkg"}


def test_in_another_system_and_with_shapes(job, tmp_path):
    shapes = geopandas.read_file(job["zones"]["path"])
    zones = zones_file(tmp_path / "wgs84.gpkg", list(shapes.geometry), list(shapes["district"]), "EPSG:4326")
    told = run_here({**job, "zones": zones, "output": str(tmp_path / "areas.gpkg")})
    assert told.code == 0, told.last
    frame = geopandas.read_file(tmp_path / "areas.gpkg")
    assert frame.crs.to_epsg() == 4326
    check_areas([row for _, row in frame.drop(columns="geometry").iterrows()])
    assert frame.geometry[0].symmetric_difference(shapes.to_crs(4326).geometry[0]).area < 1e-12


def test_one_zone_around_a_geographic_map_has_the_areas_of_the_map(tmp_path):
    path = write_codes(tmp_path / "map.tif", CODES, "EPSG:4326", Affine(0.1, 0, 10, 0, -0.1, 60))
    frame = geopandas.GeoDataFrame({"n": [7]}, geometry=[box(9, 58, 11, 61)], crs="EPSG:4326")
    frame.to_file(tmp_path / "z.gpkg", driver="GPKG")
    zones = {"path": str(tmp_path / "z.gpkg"), "id_field": "n"}
    run_here({"kind": "zonal-areas", "map": path, "zones": zones, "output": str(tmp_path / "areas.csv")})
    expected = class_areas(open_class_raster(path)).hectares
    row = rows_of(tmp_path / "areas.csv")[0]
    assert row["n"] == "7"
    np.testing.assert_allclose(
        [float(row[f"{code}_ha"]) for code in (1, 2, 3)], [expected[code] for code in (1, 2, 3)], rtol=1e-6
    )
    assert float(row["nodata_ha"]) == pytest.approx(expected[0])


def test_strips_and_neighbours_lose_no_pixel(tmp_path, monkeypatch):
    """Zones that share all their borders hold every pixel once, however the map is cut into strips."""
    from core.mapping import zones as zones_module
    from core.mapping.patches import strips

    codes = np.random.default_rng(1).integers(1, 4, (50, 40)).astype(np.uint8)
    path = write_codes(tmp_path / "map.tif", codes)
    middle, corners = (LEFT + 173.0, TOP - 211.0), [(0, 0), (400, 0), (400, 500), (0, 500)]
    outer = [(LEFT + x, TOP - y) for x, y in corners]
    shapes = [Polygon([middle, outer[index], outer[(index + 1) % 4]]) for index in range(4)]
    zones = zones_file(tmp_path / "z.gpkg", shapes, list("abcd"))
    job = {"kind": "zonal-areas", "map": path, "zones": zones, "output": str(tmp_path / "areas.csv")}
    run_here(job)
    whole = rows_of(job["output"])
    assert sum(float(row["total_ha"]) for row in whole) == pytest.approx(codes.size * PIXEL, rel=1e-4)
    monkeypatch.setattr(zones_module, "strips", lambda grid: strips(grid, 40 * 3))
    run_here(job)
    assert rows_of(job["output"]) == whole


def test_zones_that_cross_themselves_have_all_of_their_parts_in_any_system(job, tmp_path):
    """Two lobes of different size; where it is densified before it is repaired, one of them is lost."""
    write_codes(tmp_path / "large.tif", np.full((100, 100), 2, np.uint8) - (np.arange(100) < 50).astype(np.uint8))
    x, y = LEFT + 100, TOP - 900
    crossed = shapely.Polygon([(x, y), (x + 500, y + 400), (x + 400, y), (x, y + 300)])
    whole = shapely.make_valid(crossed).area / 10_000
    for crs in ("EPSG:32633", "EPSG:4326"):
        zones = zones_file(tmp_path / "crossed.gpkg", [crossed], ["bow tie"], crs)
        told = run_here({**job, "map": str(tmp_path / "large.tif"), "zones": zones})
        assert told.code == 0, told.last
        assert told.outputs["TOTAL_HECTARES"] == pytest.approx(whole, rel=0.02)
        assert "1 zones cross themselves, and were repaired: 'bow tie'" in told.texts("warning")


def test_numbers_of_zones_stay_whole_where_one_is_missing(job, tmp_path):
    zones = zones_file(tmp_path / "numbers.gpkg", [cell(0, 0), cell(1, 0), shapely.Polygon()], [1001, None, 1003])
    told = run_here({**job, "zones": zones})
    assert [row["district"] for row in rows_of(job["output"])] == ["1001", "", "1003"]
    assert "1 zones have no polygon" in told.texts("warning")


def test_names_that_a_table_cannot_have_twice(job, tmp_path):
    (tmp_path / "map.qml").write_text(
        "<qgis><pipe><rasterrenderer type='paletted'><colorPalette>"
        "<paletteEntry value='1' color='#112233' label='Open water'/><paletteEntry value='2' color='#445566' label='Total'/>"
        "<paletteEntry value='3' color='#778899' label='open WATER'/></colorPalette></rasterrenderer></pipe></qgis>"
    )
    assert run_here(job).code == 0
    assert list(rows_of(job["output"])[0])[1:4] == ["Open_water_ha", "Total_2_ha", "open_WATER_3_ha"]
    assert run_here({**job, "output": str(tmp_path / "areas.gpkg")}).code == 0


@pytest.mark.parametrize("name", ["areas.csv", "areas.gpkg"])
def test_the_command_line_writes_the_same_bytes(job, tmp_path, name):
    output = str(tmp_path / name)
    words = ["--map", job["map"], "--zones", job["zones"]["path"], "--id-field", "district", "--output", output]
    assert run_command("areas", *words).code == 0
    first = snapshot(tmp_path)
    assert run_here({**job, "output": output}).code == 0
    assert snapshot(tmp_path) == first


@pytest.mark.parametrize(
    ("change", "zones", "words"),
    [
        ({}, {"id_field": "name"}, ("'name'", "'district'")),
        ({}, {"path": "/nowhere/z.gpkg"}, ("/nowhere/z.gpkg",)),
        ({}, {"layer": "other"}, ("'other'",)),
        ({"output": "areas.xlsx"}, {}, (".csv",)),
    ],
)
def test_what_cannot_be_done_is_refused(job, tmp_path, change, zones, words):
    check_refused({**job, **change, "zones": {**job["zones"], **zones}}, tmp_path, *words)


def test_points_are_no_zones(job, tmp_path):
    points = geopandas.read_file(job["zones"]["path"])
    points.geometry = points.geometry.centroid
    points.to_file(tmp_path / "points.gpkg", driver="GPKG")
    zones = {"path": str(tmp_path / "points.gpkg"), "id_field": "district"}
    check_refused({**job, "zones": zones}, tmp_path, "no polygon")
