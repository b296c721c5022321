"""Polygons that are labelled as wholes: several classes in a text, and the cells of a grid."""

from __future__ import annotations

import geopandas
import numpy as np
import pytest
import shapely

from core.errors import LabelError, UsageError
from core.labels.label_set import LabelReport
from core.labels.scene_labels import (
    SceneLabels,
    Units,
    grid_units,
    read_scene_labels,
    read_units,
    split_classes,
    touching_extent,
)
from core.labels.schemes import resolve_with_notes
from core.scenes.grid import Grid, Window

GRID = Grid("EPSG:32633", 500_000.0, 5_600_000.0, 10.0, 10.0, 32, 24)


@pytest.mark.parametrize(
    ("texts", "choice", "expected", "separator"),
    [
        (["Water; Trees", "Water"], "auto", [("Water", "Trees"), ("Water",)], ";"),
        (["Water,Trees", "Trees , Water,Trees;"[:-1]], "auto", [("Water", "Trees"), ("Trees", "Water")], ","),
        (["Beaches, dunes, sands", "Water"], "auto", [("Beaches, dunes, sands",), ("Water",)], None),
        (["Beaches, dunes, sands; Water", "Water;"], "auto", [("Beaches, dunes, sands", "Water"), ("Water",)], ";"),
        (["Water; Trees"], "no", [("Water; Trees",)], None),
        (["a,b", "c"], "yes", [("a", "b"), ("c",)], ","),
        (["Water", "Trees"], "yes", [("Water",), ("Trees",)], ","),
    ],
)
def test_classes_in_one_text(texts, choice, expected, separator):
    assert split_classes(texts, choice) == (expected, separator)


def test_what_a_style_knows_is_one_class():
    assert split_classes(["Bare, dry", "Bare", "dry"], "auto", {"Bare, dry"}) == ([("Bare, dry",), ("Bare",), ("dry",)], None)


def test_a_text_of_separators_alone_is_refused():
    with pytest.raises(LabelError, match="' ; '"):
        split_classes([" ; ", "Water"], "yes")


def write(path, texts, shapes=None):
    shapes = shapes or [shapely.box(500_000 + 40 * i, 5_599_900, 500_030 + 40 * i, 5_599_990) for i in range(len(texts))]
    geopandas.GeoDataFrame({"class": texts}, geometry=shapes, crs=GRID.crs).to_file(path, driver="GPKG")
    return path


def test_several_classes_are_read(tmp_path):
    found = read_scene_labels(write(tmp_path / "a.gpkg", ["Water; Trees", "Trees", "Crops; trees"]), "class", GRID)
    assert found.is_multi_label
    assert found.scheme.names == ("Crops", "Trees", "Water")
    assert found.classes.tolist() == [[False, True, True], [False, True, False], [True, True, False]]
    assert found.rarest.tolist() == [2, 1, 0]
    assert found.separator == ";"


def test_one_class_each_is_read(tmp_path):
    found = read_scene_labels(write(tmp_path / "a.gpkg", [3, 7, 3]), "class", GRID)
    assert not found.is_multi_label
    assert found.scheme.codes == (3, 7)
    assert found.classes.tolist() == [[True, False], [False, True], [True, False]]


def test_polygons_that_all_say_the_same_are_refused(tmp_path):
    for texts in (["Water", "Water"], ["Water; Trees", "Trees; Water"]):
        with pytest.raises(LabelError, match="same classes"):
            read_scene_labels(write(tmp_path / "a.gpkg", texts), "class", GRID)


def test_points_and_wrong_fields_are_refused(tmp_path):
    path = write(
        tmp_path / "a.gpkg",
        ["a", "b"],
        [shapely.Point(500_005, 5_599_995), shapely.box(500_000, 5_599_900, 500_100, 5_600_000)],
    )
    with pytest.raises(LabelError, match="holds points"):
        read_scene_labels(path, "class", GRID)
    with pytest.raises(LabelError, match="no field 'kind'"):
        read_scene_labels(path, "kind", GRID)


def test_units_outside_the_scene_are_left_out_and_counted(tmp_path):
    far = shapely.box(600_000, 5_500_000, 600_100, 5_500_100)
    path = write(tmp_path / "a.gpkg", ["a", "b"], [shapely.box(500_000, 5_599_900, 500_100, 5_600_000), far])
    units, remarks = read_units(path, GRID)
    assert units.ids.tolist() == [1]
    assert remarks == ["1 of 2 features outside the scene were left out."]
    with pytest.raises(LabelError, match="lies inside the scene"):
        read_units(write(tmp_path / "b.gpkg", ["a"], [far]), GRID)


def test_cells_of_a_part_are_those_of_the_whole():
    whole = grid_units(GRID, GRID.window, 100.0)
    assert len(whole) == 4 * 3
    assert shapely.bounds(whole.geometries[0]).tolist() == [500_000, 5_599_900, 500_100, 5_600_000]
    part = grid_units(GRID, Window(10, 10, 10, 5), 100.0)
    assert part.ids.tolist() == [6]
    assert part.geometries[0].equals(whole.geometries[5])
    crossing = grid_units(GRID, Window(9, 0, 2, 1), 100.0)
    assert crossing.ids.tolist() == [1, 2]
    assert touching_extent(whole, GRID, Window(12, 12, 2, 2)).ids.tolist() == [6]


def test_cells_of_64_pixels_by_default_and_none_of_a_pixel():
    assert grid_units(GRID, GRID.window, None).geometries[0].area == 640**2
    with pytest.raises(UsageError, match="less than 4 pixels"):
        grid_units(GRID, GRID.window, 30.0)


def test_overlapping_units_keep_their_pixels_and_are_told_as_pairs():
    boxes = np.array([shapely.box(0, 0, 2, 2), shapely.box(1, 1, 3, 3), shapely.box(2, 0, 4, 1)], object)
    scheme = resolve_with_notes(["a", "b"], (), "auto").scheme
    classes = np.array([[True, False], [False, True], [True, False]])
    report = LabelReport(3, 0, 0, (), (), 0, (), (2, 1))
    labels = SceneLabels(Units(boxes, np.arange(3), GRID.crs), classes, scheme, None, report, "a.gpkg")
    counts = labels.counts(np.array([4, 4, 2]))
    assert counts.features.tolist() == [4, 4, 2]
    assert counts.classes.tolist() == [6, 4]
    # The second and the third share an area, the first and the third an edge.
    assert counts.overlaps.tolist() == [[0, 1]]
