"""The job that compares two maps: by hand on tiny maps of one and of different grids."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.warp import transform as transform_points

from core.labels.scheme import ClassScheme, LandCoverClass
from core.mapping.class_raster import open_class_raster
from core.mapping.onto_grid import block_majority, reader_on
from core.mapping.patches import strips
from core.mapping.transitions import common_classes, transition_scheme
from core.scenes.grid import Window
from tests.core.jobs.running import check_refused, run_command, run_here, snapshot
from tests.core.jobs.test_map_polygons import write_codes

PIXEL = 0.01 / 0.9996**2
"""Hectares of a pixel of 10 m on the central meridian of a UTM zone."""
BEFORE = np.array([[1, 1, 2, 2], [1, 1, 2, 0], [3, 3, 3, 3]], np.uint8)
AFTER = np.array([[7, 7, 5, 7], [7, 5, 0, 5], [9, 9, 9, 9]], np.uint8)
FIRST = {1: ("Water", "#0000ff"), 2: ("Trees", "#00aa00"), 3: ("Ice", "#eeeeff")}
SECOND = {5: ("trees", "#00bb00"), 7: ("Water ", "#0000ee"), 9: ("Rock", "#888888")}


def named_map(path, codes, classes, **place):
    write_codes(path, codes, **place)
    entries = [{"code": code, "name": name, "colour": colour, "value": name} for code, (name, colour) in classes.items()]
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(RSFUSION_CLASSES=json.dumps(entries))
    return str(path)


@pytest.fixture
def job(tmp_path):
    return {
        "kind": "change-map",
        "before": named_map(tmp_path / "first.tif", BEFORE, FIRST),
        "after": named_map(tmp_path / "second.tif", AFTER, SECOND),
        "output": str(tmp_path / "change.tif"),
        "matrix": str(tmp_path / "matrix.csv"),
        "summary": str(tmp_path / "summary.csv"),
    }


def table(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_transitions_of_two_tiny_maps(job):
    told = run_here(job)
    assert told.code == 0, told.last
    result = open_class_raster(job["output"])
    names = {entry.code: entry.name for entry in result.scheme.classes}
    assert list(names.values()) == [
        "Water, unchanged",
        "Trees, unchanged",
        "Water -> Trees",
        "Trees -> Water",
        "Ice -> Rock",
    ]
    np.testing.assert_array_equal(result.read(result.grid.window), [[1, 1, 2, 4], [1, 3, 0, 0], [5, 5, 5, 5]])
    matrix = table(job["matrix"])
    assert matrix[0] == ["from_to_ha", "Water", "Trees", "Ice", "Rock", "total"]
    assert [row[0] for row in matrix[1:]] == ["Water", "Trees", "Ice", "Rock", "total"]
    pixels = [[3, 1, 0, 0, 4], [1, 1, 0, 0, 2], [0, 0, 0, 4, 4], [0, 0, 0, 0, 0], [4, 2, 0, 4, 10]]
    found = np.array([row[1:] for row in matrix[1:]], float)
    np.testing.assert_allclose(found, np.array(pixels) * PIXEL, atol=6e-5)
    summary = table(job["summary"])
    assert summary[0] == ["class", "before_ha", "after_ha", "unchanged_ha", "gain_ha", "loss_ha", "net_ha"]
    balance = [[4, 4, 3, 1, 1, 0], [2, 2, 1, 1, 1, 0], [4, 0, 0, 0, 4, -4], [0, 4, 0, 4, 0, 4]]
    np.testing.assert_allclose(np.array([row[1:] for row in summary[1:]], float), np.array(balance) * PIXEL, atol=6e-5)
    assert "-0.0000" not in (summary[1] + summary[2])
    assert told.outputs["CHANGED_PERCENT"] == pytest.approx(60.0, abs=0.01)
    assert told.outputs["CHANGED_HECTARES"] == pytest.approx(6 * PIXEL, abs=1e-4)


def test_it_says_plainly_what_a_difference_is_worth(job):
    told = run_here(job)
    assert "has the errors of both" in told.texts("warning")
    assert "Only the first map knows 'Ice'" in told.texts("warning")
    assert "Only the second map knows 'Rock'" in told.texts("warning")
    assert "0.02 ha of the first map's extent are not mapped in both" in told.texts("info")


def test_the_files_around_it(job, tmp_path):
    assert run_here(job).code == 0
    made = {"change.tif", "change.tif.aux.xml", "change.qml", "matrix.csv", "summary.csv"}
    assert set(snapshot(tmp_path)) == made | {"first.tif", "second.tif"}
    with rasterio.open(job["output"]) as dataset:
        assert json.loads(dataset.tags()["RSFUSION_INPUTS"]) == {"before": ["first.tif"], "after": ["second.tif"]}
        assert dataset.nodata == 0
    first = snapshot(tmp_path)
    words = [part for key in ("before", "after", "output", "matrix", "summary") for part in ("--" + key, job[key])]
    assert run_command("change", *words).code == 0
    assert snapshot(tmp_path) == first


def test_a_map_does_not_differ_from_itself(job):
    told = run_here({**job, "after": job["before"], "matrix": None, "summary": None})
    assert told.outputs["CHANGED_HECTARES"] == 0
    assert told.outputs["MATRIX"] == ""


def test_a_finer_map_gives_what_is_most_frequent(tmp_path):
    """Three by three pixels in one: the second map is 10 m, the first 30 m, and begins somewhere else."""
    coarse = named_map(
        tmp_path / "c.tif", np.array([[1, 2], [2, 1]], np.uint8), FIRST, transform=Affine(30, 0, 500_000, 0, -30, 5_600_000)
    )
    fine = np.kron([[2, 2, 1], [1, 1, 2]], np.ones((3, 3))).astype(np.uint8)
    fine[0, 3:6] = 3  # a third of the upper left pixel
    fine[3:5, 3:6], fine[5, 3:5] = 0, 0  # of the lower left one only a pixel is left
    path = named_map(tmp_path / "f.tif", fine, FIRST, transform=Affine(10, 0, 499_970, 0, -10, 5_600_000))
    first, second = open_class_raster(coarse), open_class_raster(path, 1)
    read = reader_on(second, first.grid)
    np.testing.assert_array_equal(read(first.grid.window), [[2, 1], [0, 2]])


def test_ties_in_a_block_go_to_the_lower_code():
    codes = np.array([[4, 4, 0, 0], [2, 2, 0, 3], [0, 0, 1, 0], [5, 5, 0, 0]], np.uint8)
    np.testing.assert_array_equal(block_majority(codes, 2), [[2, 0], [5, 0]])


def test_another_system_is_read_at_the_centres_and_in_any_strips(tmp_path):
    codes = np.random.default_rng(0).integers(1, 4, (40, 50)).astype(np.uint8)
    before = open_class_raster(named_map(tmp_path / "a.tif", codes, FIRST))
    left, top = 8.99, 50.56
    other = np.random.default_rng(1).integers(1, 4, (60, 90)).astype(np.uint8)
    place = {"crs": "EPSG:4326", "transform": Affine(0.00025, 0, left, 0, -0.00018, top)}
    after = open_class_raster(named_map(tmp_path / "b.tif", other, FIRST, **place))
    xs, ys = np.meshgrid(500_005 + 10 * np.arange(50), 5_599_995 - 10 * np.arange(40))
    longitudes, latitudes = transform_points("EPSG:32633", "EPSG:4326", xs.ravel(), ys.ravel())
    assert min(longitudes) > 14  # so far east that the maps do not touch
    read = reader_on(after, before.grid)
    assert not read(before.grid.window).any()
    place["transform"] = Affine(0.00025, 0, 14.999, 0, -0.00018, max(latitudes) - 0.0005)
    after = open_class_raster(named_map(tmp_path / "b.tif", other, FIRST, **place))
    columns, rows = ~place["transform"] @ (np.array(longitudes), np.array(latitudes))
    column, row = np.floor(columns).astype(int), np.floor(rows).astype(int)
    inside = (column >= 0) & (column < 90) & (row >= 0) & (row < 60)
    expected = np.where(inside, other[row.clip(0, 59), column.clip(0, 89)], 0).reshape(40, 50)
    read = reader_on(after, before.grid)
    found = np.concatenate([read(window) for window in strips(before.grid, 150)])
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(read(Window(7, 11, 20, 9)), expected[11:20, 7:27])
    assert 0.2 < inside.mean() < 1


def test_more_transitions_than_codes_share_the_last_one():
    names = [LandCoverClass(code, f"class {code}", "#102030", str(code)) for code in range(1, 21)]
    scheme = ClassScheme("many", tuple(names))
    classes = common_classes(scheme, scheme)
    hectares = np.arange(1.0, 401.0).reshape(20, 20)
    result, codes = transition_scheme(classes, hectares)
    assert len(result) == 255
    assert result.classes[-1].name == "Other changes"
    assert (codes == 255).sum() == 400 - 254
    assert hectares[codes == 255].max() < hectares[codes < 255].min()
    assert (codes > 0).all()


@pytest.mark.parametrize(
    ("change", "words", "code"),
    [
        ({"after": "/nowhere/map.tif"}, ("/nowhere/map.tif",), 1),
        ({"matrix": "matrix.txt"}, (".csv",), 1),
        ({"output": "/nowhere/map.tif"}, ("/nowhere",), 1),
    ],
)
def test_what_cannot_be_done_is_refused(job, tmp_path, change, words, code):
    check_refused({**job, **change}, tmp_path, *words, code=code)


def test_maps_that_have_nothing_in_common(job, tmp_path):
    plain = write_codes(tmp_path / "plain.tif", AFTER)
    check_refused({**job, "after": plain}, tmp_path, "'Water'", "'5'", "no class name in common", code=2)
    far = named_map(tmp_path / "far.tif", AFTER, SECOND, transform=Affine(10, 0, 600_000, 0, -10, 5_600_000))
    check_refused({**job, "after": far}, tmp_path, "far.tif", "no mapped pixel in common")
