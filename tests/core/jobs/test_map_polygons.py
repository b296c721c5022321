"""The job that makes polygons of a map: by hand on tiny maps, and whole coverages."""

from __future__ import annotations

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.features import rasterize

from core.labels.style import entries_for
from core.mapping.class_raster import class_areas, open_class_raster
from core.mapping.patches import find_patches
from core.mapping.polygons import patch_polygons, simplified
from core.scenes.grid import Grid
from tests.core.jobs.running import check_refused, run_command, run_here, snapshot

CODES = np.array(
    [
        [1, 1, 1, 0],
        [1, 2, 1, 0],
        [1, 1, 2, 2],
        [3, 3, 3, 3],
        [0, 3, 1, 3],
    ],
    np.uint8,
)


def write_codes(path, codes, crs="EPSG:32633", transform=None):
    transform = transform or Affine(10, 0, 500_000, 0, -10, 5_600_000)
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "nodata": 0, "crs": crs, "transform": transform}
    with rasterio.open(path, "w", height=codes.shape[0], width=codes.shape[1], **profile) as dataset:
        dataset.write(codes, 1)
    return str(path)


def polygons_of(codes, strip_pixels=2**21):
    grid = Grid("EPSG:32633", 500_000.0, 5_600_000.0, 10.0, 10.0, codes.shape[1], codes.shape[0])

    def read(window):
        return codes[window.row : window.stop_row]

    def nothing(fraction, phase):
        """Progress that nobody looks at."""

    patches = find_patches(read, grid, 4, np.ones(grid.height, np.int64), nothing, strip_pixels)
    chunks = list(patch_polygons(patches, read, nothing))
    numbers = np.concatenate([found for found, _ in chunks])
    shapes = np.concatenate([found for _, found in chunks])
    return patches, shapes[np.argsort(numbers)]


def test_patches_of_a_tiny_map(tmp_path):
    path = write_codes(tmp_path / "map.tif", CODES)
    told = run_here({"kind": "vectorize-map", "map": path, "output": str(tmp_path / "p.gpkg")})
    assert told.code == 0, told.last
    frame = geopandas.read_file(tmp_path / "p.gpkg")
    assert told.outputs["N_POLYGONS"] == len(frame) == 5
    assert list(frame.columns) == ["class", "name", "colour", "area_ha", "geometry"]
    assert frame.crs.to_epsg() == 32633
    assert sorted(zip(frame["class"], np.rint(frame.geometry.area / 100), strict=True)) == [
        (1, 1),
        (1, 7),
        (2, 1),
        (2, 2),
        (3, 6),
    ]
    # The scale of the projection takes 0.08 percent off at its central meridian.
    np.testing.assert_allclose(frame["area_ha"], frame.geometry.area / 10_000 / 0.9996**2, rtol=1e-5)
    assert frame.geometry.is_valid.all()
    assert set(frame.geometry.geom_type) == {"Polygon"}
    burnt = rasterize(
        zip(frame.geometry, frame["class"], strict=True), CODES.shape, transform=Affine(10, 0, 500_000, 0, -10, 5_600_000)
    )
    np.testing.assert_array_equal(burnt, CODES)


def test_one_shape_a_class(tmp_path):
    path = write_codes(tmp_path / "map.tif", CODES)
    told = run_here({"kind": "vectorize-map", "map": path, "polygons": "classes", "output": str(tmp_path / "p.gpkg")})
    frame = geopandas.read_file(tmp_path / "p.gpkg")
    assert told.outputs["N_POLYGONS"] == 3
    assert frame["class"].tolist() == [1, 2, 3]
    assert np.rint(frame.geometry.area / 100).tolist() == [8, 3, 6]
    assert frame.geometry.is_valid.all()
    assert set(frame.geometry.geom_type) == {"MultiPolygon"}


def test_strips_leave_no_trace():
    codes = np.random.default_rng(3).integers(0, 4, (40, 30)).astype(np.uint8)
    codes[5:30, 10:14] = 2
    _, whole = polygons_of(codes)
    for strip_pixels in (1, 30 * 7):
        _, pieces = polygons_of(codes, strip_pixels)
        assert shapely.equals_exact(shapely.normalize(whole), shapely.normalize(pieces)).all()
    assert shapely.is_valid(whole).all()


@pytest.mark.parametrize("tolerance", [0.8, 1.0, 3.0])
def test_simplified_neighbours_keep_their_border(tolerance):
    generator = np.random.default_rng(4)
    from scipy.ndimage import gaussian_filter

    codes = np.argmax([gaussian_filter(generator.random((60, 60)), 3) for _ in range(4)], axis=0).astype(np.uint8)
    patches, shapes = polygons_of(codes)
    result = simplified(shapes, tolerance)
    assert len(result) == len(patches)
    assert shapely.is_valid(result).all()
    assert shapely.coverage_is_valid(result)
    assert not shapely.is_empty(result).any()
    assert shapely.get_num_coordinates(result).sum() < shapely.get_num_coordinates(shapes).sum()
    # No gap and no overlap inside: together they cover what the patches cover, up to the outer edge.
    joined = shapely.union_all(result)
    assert shapely.area(result).sum() == pytest.approx(joined.area)


def test_areas_on_a_geographic_grid_are_those_of_the_map(tmp_path):
    path = write_codes(tmp_path / "map.tif", CODES, "EPSG:4326", Affine(0.1, 0, 10, 0, -0.1, 60))
    run_here({"kind": "vectorize-map", "map": path, "polygons": "classes", "simplify": 1, "output": str(tmp_path / "p.gpkg")})
    frame = geopandas.read_file(tmp_path / "p.gpkg")
    expected = class_areas(open_class_raster(path)).hectares
    np.testing.assert_allclose(frame["area_ha"], [expected[code] for code in (1, 2, 3)], rtol=1e-6)
    assert expected[3] / 6 > 1.001 * expected[1] / 8  # southern pixels are larger


def test_names_colours_style_and_origin(sample, tmp_path):
    output = tmp_path / "polygons.gpkg"
    job = {"kind": "vectorize-map", "map": str(sample.truth), "simplify": 1.0, "output": str(output)}
    assert run_here(job).code == 0
    assert set(snapshot(tmp_path)) == {"polygons.gpkg", "polygons.qml"}
    frame = geopandas.read_file(output)
    scheme = open_class_raster(str(sample.truth)).scheme
    known = {entry.code: (entry.name, entry.colour) for entry in scheme.classes}
    assert all(known[row["class"]] == (row["name"], row["colour"]) for _, row in frame.iterrows())
    entries = entries_for(output, None, "class")
    assert [(int(entry.value), entry.name, entry.colour) for entry in entries] == [
        (entry.code, entry.name, entry.colour) for entry in scheme.classes
    ]
    metadata = pyogrio.read_info(output)["layer_metadata"]
    assert sample.truth.name in metadata["RSFUSION_INPUTS"]
    assert pyogrio.list_layers(output)[0][0] == "polygons"


def test_the_command_line_writes_the_same_bytes(sample, tmp_path):
    words = ["--map", str(sample.truth), "--polygons", "classes", "--output", str(tmp_path / "p.gpkg")]
    assert run_command("vectorize", *words).code == 0
    first = snapshot(tmp_path)
    job = {"kind": "vectorize-map", "map": str(sample.truth), "polygons": "classes", "output": str(tmp_path / "p.gpkg")}
    assert run_here(job).code == 0
    assert snapshot(tmp_path) == first


@pytest.mark.parametrize(
    ("change", "words", "code"),
    [
        ({"output": "p.shp"}, (".gpkg",), 1),
        ({"output": "/nowhere/p.gpkg"}, ("/nowhere",), 1),
        ({"simplify": -1}, ("simplify",), 2),
        ({"map": "/nowhere/map.tif"}, ("/nowhere/map.tif",), 1),
    ],
)
def test_what_cannot_be_done_is_refused(sample, tmp_path, change, words, code):
    job = {"kind": "vectorize-map", "map": str(sample.truth), "output": str(tmp_path / "p.gpkg")}
    check_refused({**job, **change}, tmp_path, *words, code=code)


def test_a_style_of_another_layer_is_not_replaced(tmp_path):
    path = write_codes(tmp_path / "map.tif", CODES)
    check_refused({"kind": "vectorize-map", "map": path, "output": str(tmp_path / "map.gpkg")}, tmp_path, "map.qml")
    (tmp_path / "other.tif").write_bytes(b"")
    (tmp_path / "other.qml").write_text("<qgis/>")
    check_refused({"kind": "vectorize-map", "map": path, "output": str(tmp_path / "other.gpkg")}, tmp_path, "other.qml")


def test_outlines_beyond_the_memory_are_not_simplified(tmp_path, monkeypatch):
    from core.jobs.products import polygons

    monkeypatch.setattr(polygons, "MOST_SIMPLIFIED_SIDES", 20)
    job = {"kind": "vectorize-map", "map": write_codes(tmp_path / "map.tif", CODES), "output": str(tmp_path / "p.gpkg")}
    check_refused({**job, "simplify": 1}, tmp_path, "pixel sides", "Clean the map first", code=2)
    assert run_here(job).code == 0
