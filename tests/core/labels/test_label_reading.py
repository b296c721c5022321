from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely

from core.errors import LabelError
from core.labels.label_set import LabelSet
from core.labels.rasterizing import rasterize
from core.labels.reading import read_labels
from core.labels.schemes import load_scheme
from core.labels.style import StyleEntry
from tests.core.labels.scenes import GRID, point, square, write

BOW_TIE = shapely.Polygon([(x * 10 + GRID.left, GRID.top - y * 10) for x, y in [(60, 10), (68, 18), (68, 10), (60, 18)]])
TWO_CLASSES = (["water", "forest"], [square(10, 10), square(30, 10)])


def read(path: Path, **options: object) -> LabelSet:
    return read_labels(path, "class", GRID, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", ["gpkg", "shp", "geojson", "fgb"])
@pytest.mark.parametrize("folder", ["plain", "with a space", "é ü 中", 'it\'s "quoted"'])
def test_every_format_at_every_path(tmp_path: Path, suffix: str, folder: str) -> None:
    (tmp_path / folder).mkdir()
    labels = read(write(tmp_path / folder / f"labels {folder}.{suffix}", *TWO_CLASSES, crs="EPSG:4326"))
    assert labels.scheme.names == ("forest", "water")
    assert sorted(labels.class_index.tolist()) == [0, 1]
    assert labels.report.remarks() == []
    assert (rasterize(labels, GRID).classes >= 0).sum() == 32


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326", "EPSG:3035", "EPSG:32632", "EPSG:3857"])
def test_labels_of_any_system_fall_on_the_same_pixels(tmp_path: Path, crs: str) -> None:
    here = rasterize(read(write(tmp_path / "here.gpkg", *TWO_CLASSES)), GRID)
    there = rasterize(read(write(tmp_path / "there.gpkg", *TWO_CLASSES, crs=crs)), GRID)
    np.testing.assert_array_equal(there.classes, here.classes)


def test_polygons_points_parts_collections_and_heights(tmp_path: Path) -> None:
    shapes = [
        shapely.MultiPolygon([square(10, 10), square(20, 10)]),
        shapely.MultiPoint([point(40.5, 40.5), point(45.5, 40.5)]),
        shapely.force_3d(square(30, 10), 120.0),
        shapely.GeometryCollection([square(50, 10), point(1, 1)]),
        shapely.GeometryCollection([shapely.GeometryCollection([point(60.5, 20.5)])]),
    ]
    labels = read(write(tmp_path / "mixed.gpkg", [1, 2, 2, 1, 2], shapes))
    assert [shape.geom_type for shape in labels.geometries] == [
        "MultiPolygon",
        "MultiPoint",
        "Polygon",
        "MultiPolygon",
        "MultiPoint",
    ]
    assert not any(shape.has_z for shape in labels.geometries)
    classes = rasterize(labels, GRID).classes
    assert (classes == 0).sum() == 3 * 16
    assert (classes == 1).sum() == 2 + 16 + 1


def test_features_that_cannot_be_used_are_counted_or_named(tmp_path: Path) -> None:
    collapsed = shapely.Polygon([(GRID.left + 5, GRID.top - 5)] * 4)
    values = ["a", None, "b", "a", "b", "  ", "c", "b"]
    shapes = [square(10, 10), square(20, 10), None, BOW_TIE, square(30, 30), square(1, 1), square(500, 0), collapsed]
    labels = read(write(tmp_path / "labels.gpkg", values, shapes))
    report = labels.report
    assert report.features_read == 8
    assert report.without_class == 2
    assert report.without_geometry == 1
    assert report.repaired == (4,)
    assert report.unusable == (8,)
    assert report.outside_scene == (7,)
    assert report.classes_outside == ("c",)
    assert report.features_used == len(labels) == 3
    assert labels.feature_ids.tolist() == [1, 4, 5]
    assert labels.scheme.names == ("a", "b")
    assert all(shape.is_valid for shape in labels.geometries)
    text = " ".join(report.remarks())
    for words in ("2 of 8 features without a class", "features '4'", "features '8'", "scene only: 'c'"):
        assert words in text


def test_a_bow_tie_keeps_both_its_wings(tmp_path: Path) -> None:
    labels = read(write(tmp_path / "labels.gpkg", ["a", "b"], [BOW_TIE, square(10, 10)]))
    assert labels.geometries[0].area == pytest.approx(32 * 100)


def test_whole_numbers_with_gaps_stay_whole_numbers(tmp_path: Path) -> None:
    shapes = [square(10, 10), square(20, 10), square(30, 10)]
    labels = read(write(tmp_path / "labels.gpkg", [3.0, float("nan"), 7.0], shapes))
    assert labels.scheme.codes == (3, 7)
    assert labels.report.without_class == 1


def test_the_style_or_the_named_scheme_gives_the_classes(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.gpkg", [80, 10], [square(10, 10), square(30, 10)])
    styled = read(path, entries=[StyleEntry("10", "Trees", "#123456"), StyleEntry("80", "Lake", "#654321")])
    assert styled.scheme.names == ("Trees", "Lake")
    named = read(path, class_scheme="esa_worldcover")
    assert named.scheme.names == ("Tree cover", "Permanent water bodies")
    assert named.class_index.tolist() == [1, 0]


def test_a_fixed_scheme_is_kept_whole_and_names_what_it_lacks(tmp_path: Path) -> None:
    scheme = load_scheme("yearly_landcover_9")
    path = write(tmp_path / "labels.gpkg", ["TREES", "water"], [square(10, 10), square(30, 10)])
    labels = read(path, scheme=scheme)
    assert labels.scheme == scheme
    assert labels.class_index.tolist() == [1, 0]
    path = write(tmp_path / "other.gpkg", ["trees", "lava"], [square(10, 10), square(30, 10)])
    with pytest.raises(LabelError, match=r"no class for the label values 'lava'.*'9 Rangeland'"):
        read(path, scheme=scheme)


def test_lines_are_refused(tmp_path: Path) -> None:
    line = shapely.LineString([(GRID.left, GRID.top), (GRID.left + 50, GRID.top)])
    path = write(tmp_path / "lines.gpkg", ["a", "b", "c"], [square(1, 1), square(9, 9), line])
    with pytest.raises(LabelError, match=r"holds lines \(features '3'\)"):
        read(path)


@pytest.mark.parametrize("suffix", ["gpkg", "shp", "fgb"])
def test_no_coordinate_reference_system(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(LabelError, match="no coordinate reference system"):
        read(write(tmp_path / f"labels.{suffix}", *TWO_CLASSES, crs=None))


def test_a_missing_field_lists_the_fields(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.gpkg", *TWO_CLASSES)
    with pytest.raises(LabelError, match=r"no field 'clas'. Its fields are 'class'"):
        read_labels(path, "clas", GRID)


def test_layers(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.gpkg", *TWO_CLASSES, layer="drawn")
    shapes = geopandas.GeoDataFrame({"other": [1]}, geometry=[square(1, 1)], crs=GRID.crs)
    shapes.to_file(path, layer="fields")
    assert len(read(path)) == 2, "the only layer with the field is taken"
    assert len(read(path, layer="drawn")) == 2
    with pytest.raises(LabelError, match=r"no layer 'x'. Its layers are 'drawn', 'fields'"):
        read(path, layer="x")
    with pytest.raises(LabelError, match=r"'fields'.*no field 'class'. Its fields are 'other'"):
        read(path, layer="fields")
    write(path, *TWO_CLASSES, layer="again")
    with pytest.raises(LabelError, match="2 of them have the field 'class'"):
        read(path)


def test_files_that_are_missing_or_no_vector_files(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"nowhere\.gpkg' does not exist"):
        read(tmp_path / "nowhere.gpkg")
    (tmp_path / "text.gpkg").write_text("not a database")
    with pytest.raises(LabelError, match=r"text\.gpkg' cannot be read"):
        read(tmp_path / "text.gpkg")
    (tmp_path / "table.csv").write_text("class,x\na,1\n")
    with pytest.raises(LabelError, match="table without shapes"):
        read(tmp_path / "table.csv")


@pytest.mark.parametrize("suffix", ["gpkg", "shp", "geojson", "fgb"])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.7, 0.97])
def test_truncated_files(tmp_path: Path, suffix: str, part: float) -> None:
    shapes = [square(5 * (index % 18), 5 * (index // 18)) for index in range(200)]
    path = write(tmp_path / f"labels.{suffix}", ["a", "b"] * 100, shapes)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(LabelError, match=rf"labels\.{suffix}"):
        read(path)


def test_nothing_to_learn_from(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="has no features"):
        read(write(tmp_path / "empty.gpkg", [], []))
    with pytest.raises(LabelError, match="of one class, 'a'"):
        read(write(tmp_path / "one.gpkg", ["a", "a"], [square(1, 1), square(9, 9)]))
    with pytest.raises(LabelError, match="'b' lie outside it"):
        read(write(tmp_path / "half.gpkg", ["a", "b"], [square(1, 1), square(900, 9)]))
    with pytest.raises(LabelError, match="1 have no class and 1 no geometry"):
        read(write(tmp_path / "void.gpkg", [None, "a"], [square(1, 1), None]))


def test_labels_elsewhere_show_both_extents(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.gpkg", ["a", "b"], [square(500, 10), square(520, 10)])
    with pytest.raises(LabelError, match=r"labels cover x 505000\.0 to 505240\.0.*scene x 500000\.0 to 501000\.0"):
        read(path)


def test_metres_that_claim_to_be_degrees(tmp_path: Path) -> None:
    table = geopandas.GeoDataFrame({"class": TWO_CLASSES[0]}, geometry=TWO_CLASSES[1], crs="EPSG:4326")
    table.to_file(tmp_path / "labels.gpkg")
    with pytest.raises(LabelError, match=r"no place in the scene's system.*WGS 84"):
        read(tmp_path / "labels.gpkg")


def test_numbers_with_fractions_are_no_classes(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"holds 0\.25"):
        read(write(tmp_path / "labels.gpkg", [1.0, 0.25], [square(1, 1), square(9, 9)]))


def test_an_identifier_taken_for_a_class(tmp_path: Path) -> None:
    shapes = [square(5 * (index % 18), 5 * (index // 18), 3) for index in range(256)]
    with pytest.raises(LabelError, match="256 different values"):
        read(write(tmp_path / "labels.gpkg", list(range(1000, 1256)), shapes))
