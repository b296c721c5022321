"""The job that measures: against a map whose errors are known."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from shapely.geometry import Point, box

from tests.core.jobs.running import check_refused, run_here, snapshot

SIDE = 20
LEFT, TOP = 500_000.0, 5_600_000.0


@pytest.fixture
def codes() -> np.ndarray:
    """West class 1, east class 2, a strip of class 3 in the south; the first row is not mapped."""
    values = np.ones((SIDE, SIDE), np.uint8)
    values[:, SIDE // 2 :] = 2
    values[15:] = 3
    values[0] = 0
    return values


def write_map(path: Path, codes: np.ndarray, tags: dict[str, str] | None = None) -> str:
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "nodata": 0, "crs": "EPSG:32633"}
    profile |= {"height": codes.shape[0], "width": codes.shape[1], "transform": Affine(10, 0, LEFT, 0, -10, TOP)}
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(codes, 1)
        dataset.update_tags(**(tags or {}))
    return str(path)


def cell(column: int, row: int, width: int = 1, height: int = 1):
    """The rectangle of some pixels."""
    return box(LEFT + 10 * column, TOP - 10 * (row + height), LEFT + 10 * (column + width), TOP - 10 * row)


def write_reference(path: Path, shapes: list, classes: list) -> dict[str, str]:
    frame = geopandas.GeoDataFrame({"class": classes}, geometry=shapes, crs="EPSG:32633")
    frame.to_crs("EPSG:4326").to_file(path, driver="GPKG")
    return {"path": str(path), "class_field": "class"}


def report_data(path: str | Path) -> dict:
    return json.loads(Path(path).read_text(encoding="utf-8").split('id="rsfusion-data">')[1].split("</script>")[0])


def test_points_with_known_errors(codes, tmp_path):
    """Of 10 points 3 are wrong and one lies where nothing was mapped."""
    right = [(1, 2, 1), (2, 5, 1), (3, 8, 1), (12, 3, 2), (15, 9, 2), (4, 16, 3), (11, 17, 3)]
    wrong = [(5, 5, 2), (6, 6, 2), (14, 4, 3)]
    places = [*right, *wrong, (3, 0, 1)]
    shapes = [Point(LEFT + 10 * (column + 0.4), TOP - 10 * (row + 0.6)) for column, row, _ in places]
    reference = write_reference(tmp_path / "points.gpkg", shapes, [code for _, _, code in places])
    job = {"kind": "accuracy", "map": write_map(tmp_path / "map.tif", codes), "reference": reference}
    told = run_here({**job, "report": str(tmp_path / "report.html")})
    assert told.code == 0, told.last
    assert told.outputs["OVERALL_ACCURACY"] == 0.7
    data = report_data(told.outputs["REPORT"])
    assert data["confusion"] == [[3, 2, 0], [0, 2, 1], [0, 0, 2]]
    assert data["n_reference_units"] == 10
    f1 = [2 * 3 / (5 + 3), 2 * 2 / (3 + 4), 2 * 2 / (2 + 3)]
    assert told.outputs["MACRO_F1"] == pytest.approx(np.mean(f1), abs=1e-4)
    # The area of a class is that of its pixels; the scale of the projection takes half a permille off.
    assert data["mapped_areas_ha"] == pytest.approx([1.4, 1.4, 1.0], rel=0.002)
    assert any("1 reference pixels lie where the map has no data" in line for line in data["warnings"])
    assert not any("polygons" in line for line in data["warnings"])
    assert told.fractions == sorted(told.fractions)


def test_polygons_count_their_pixels(codes, tmp_path):
    """A polygon of 12 pixels, 4 of them wrong, and one of 6, all right."""
    shapes = [cell(8, 4, 3, 4), cell(2, 16, 3, 2)]
    reference = write_reference(tmp_path / "polygons.gpkg", shapes, ["1", "3"])
    job = {"kind": "accuracy", "map": write_map(tmp_path / "map.tif", codes), "reference": reference}
    told = run_here({**job, "report": str(tmp_path / "report.html")})
    assert told.code == 0, told.last
    assert told.outputs["OVERALL_ACCURACY"] == round(14 / 18, 4)
    data = report_data(told.outputs["REPORT"])
    assert data["confusion"] == [[8, 0, 0], [4, 0, 0], [0, 0, 6]]
    assert data["n_reference_units"] == 2
    assert any("polygons" in line for line in data["warnings"])
    assert "18 pixels of 2 features" in told.texts("info")
    assert set(snapshot(tmp_path)) == {"map.tif", "polygons.gpkg", "report.html"}


@pytest.mark.parametrize(("dtype", "nodata"), [("int16", -9999), ("float32", float("nan"))])
def test_a_map_of_another_program_with_its_own_nodata(codes, tmp_path, dtype, nodata):
    values = codes.astype(dtype)
    values[codes == 0] = nodata
    path, plain = str(tmp_path / "other.tif"), write_map(tmp_path / "map.tif", codes)
    with rasterio.open(plain) as source:
        profile = {**source.profile, "dtype": dtype, "nodata": nodata}
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(values, 1)
    reference = write_reference(tmp_path / "r.gpkg", [cell(1, 1), cell(12, 2), cell(3, 16)], [1, 2, 3])
    told = [
        run_here({"kind": "accuracy", "map": each, "reference": reference, "report": str(tmp_path / f"{number}.html")})
        for number, each in enumerate((plain, path))
    ]
    assert [each.code for each in told] == [0, 0], told[-1].last
    first, second = (report_data(each.outputs["REPORT"]) for each in told)
    assert first["mapped_areas_ha"] == second["mapped_areas_ha"]
    assert sum(second["mapped_areas_ha"]) == pytest.approx((SIDE - 1) * SIDE / 100, rel=2e-3)


def test_references_that_contradict_each_other_are_told(codes, tmp_path):
    shapes, classes = [cell(1, 1, 3, 3), cell(3, 3, 2, 2), cell(12, 2)], [1, 2, 2]
    job = {"kind": "accuracy", "map": write_map(tmp_path / "map.tif", codes)}
    told = run_here({**job, "reference": write_reference(tmp_path / "r.gpkg", shapes, classes)})
    assert told.code == 0, told.last
    assert "1 pixels lie in labels of different classes and are ignored." in told.texts("warning")


def test_without_a_report_nothing_is_written(codes, tmp_path):
    reference = write_reference(tmp_path / "r.gpkg", [cell(1, 1), cell(12, 2)], [1, 2])
    job = {"kind": "accuracy", "map": write_map(tmp_path / "map.tif", codes), "reference": reference}
    before = snapshot(tmp_path)
    told = run_here(job)
    # Class 3 of the map has no reference, so that nothing can be said of the whole.
    assert told.outputs == {
        "REPORT": "",
        "OVERALL_ACCURACY": 1.0,
        "MACRO_F1": 1.0,
        "AREA_ADJUSTED_ACCURACY": "",
        "AREA_ADJUSTED_HALF_WIDTH": "",
    }
    assert snapshot(tmp_path) == before


def test_names_from_the_tags_of_our_own_maps(codes, tmp_path):
    classes = [
        {"code": code, "name": name, "colour": colour, "value": value}
        for code, name, colour, value in [(1, "Wald", "#00aa00", "w"), (2, "Wiese", "#aaff00", "g"), (3, "See", "#0000ff", "s")]
    ]
    path = write_map(tmp_path / "map.tif", codes, {"RSFUSION_CLASSES": json.dumps(classes)})
    shapes = [cell(1, 2), cell(12, 2), cell(1, 17)]
    for number, values in enumerate((["w", "g", "s"], ["Wald", "wiese", "See"], ["1", "2", "3"])):
        reference = write_reference(tmp_path / f"{number}.gpkg", shapes, values)
        report = str(tmp_path / f"{number}.html")
        told = run_here({"kind": "accuracy", "map": path, "reference": reference, "report": report})
        assert told.outputs["OVERALL_ACCURACY"] == 1.0
        assert [entry["name"] for entry in report_data(report)["classes"]] == ["Wald", "Wiese", "See"]
        assert [entry["colour"] for entry in report_data(report)["classes"]] == ["#00aa00", "#aaff00", "#0000ff"]


def test_names_from_the_style_beside_a_map_of_others(codes, sample, tmp_path):
    path = write_map(tmp_path / "map.tif", codes)
    (tmp_path / "map.qml").write_bytes(sample.truth.with_suffix(".qml").read_bytes())
    names = [entry.name for entry in _classes(tmp_path / "map.qml")][:2]
    reference = write_reference(tmp_path / "r.gpkg", [cell(1, 2), cell(12, 2)], names)
    assert run_here({"kind": "accuracy", "map": path, "reference": reference}).outputs["OVERALL_ACCURACY"] == 1.0


def _classes(path: Path):
    from core.labels.style import entries_from_qml

    return entries_from_qml(path)


def test_a_class_that_the_map_lacks_is_named(codes, tmp_path):
    path = write_map(tmp_path / "map.tif", codes)
    reference = write_reference(tmp_path / "r.gpkg", [cell(1, 2), cell(12, 2)], [1, 9])
    check_refused({"kind": "accuracy", "map": path, "reference": reference}, tmp_path, "'9'", "'1 1', '2 2', '3 3'")


def test_further_classes_of_a_reference_that_has_all_of_the_map_are_errors_of_the_map(codes, tmp_path):
    path = write_map(tmp_path / "map.tif", codes)
    shapes = [cell(1, 1), cell(12, 2), cell(3, 16), cell(12, 3)]
    reference = write_reference(tmp_path / "r.gpkg", shapes, [1, 2, 3, 9])
    told = run_here({"kind": "accuracy", "map": path, "reference": reference, "report": str(tmp_path / "r.html")})
    assert told.code == 0, told.last
    assert told.outputs["OVERALL_ACCURACY"] == 0.75
    assert "classes that the map has not, each of them an error where it occurs: '9'" in told.texts("warning")
    assert "9" in [entry["name"] for entry in report_data(tmp_path / "r.html")["classes"]]


def test_a_reference_of_one_class(codes, tmp_path):
    path = write_map(tmp_path / "map.tif", codes)
    reference = write_reference(tmp_path / "r.gpkg", [cell(12, 2), cell(12, 3), cell(1, 1)], [2, 2, 2])
    told = run_here({"kind": "accuracy", "map": path, "reference": reference, "report": str(tmp_path / "r.html")})
    assert told.code == 0, told.last
    assert told.outputs["OVERALL_ACCURACY"] == pytest.approx(2 / 3, abs=1e-4)


def test_a_map_whose_zero_is_a_class_is_refused(codes, tmp_path):
    plain = write_map(tmp_path / "map.tif", codes)
    with rasterio.open(plain) as source:
        profile = {**source.profile, "nodata": 255}
    values = np.where(codes == 0, 255, np.where(codes == 3, 0, codes)).astype(codes.dtype)
    with rasterio.open(tmp_path / "zero.tif", "w", **profile) as dataset:
        dataset.write(values, 1)
    reference = write_reference(tmp_path / "r.gpkg", [cell(1, 1), cell(12, 2)], [1, 2])
    job = {"kind": "accuracy", "map": str(tmp_path / "zero.tif"), "reference": reference}
    check_refused(job, tmp_path, "zero.tif", "code 0 where it has data", "255 where it has none")


def test_a_reference_on_nothing_but_nodata(codes, tmp_path):
    path = write_map(tmp_path / "map.tif", codes)
    reference = write_reference(tmp_path / "r.gpkg", [cell(1, 0), cell(12, 0)], [1, 2])
    check_refused({"kind": "accuracy", "map": path, "reference": reference}, tmp_path, "r.gpkg", "map.tif", "mapped pixel")


def test_a_map_of_the_project_against_its_truth(sample, trained, map_job):
    """The whole road: the map of a model against points that no polygon touches."""
    mapped = run_here(map_job).outputs["OUTPUT"]
    reference = {"path": str(sample.reference), "class_field": "class"}
    told = run_here({"kind": "accuracy", "map": mapped, "reference": reference})
    points = geopandas.read_file(sample.reference)
    with rasterio.open(mapped) as ours, rasterio.open(sample.truth) as truth:
        places = list(zip(points.geometry.x, points.geometry.y, strict=True))
        predicted = np.array([value[0] for value in ours.sample(places)])
        names = {entry["code"]: entry["name"] for entry in json.loads(ours.tags()["RSFUSION_CLASSES"])}
        assert [value[0] for value in truth.sample(places)] == points["code"].tolist()
    seen = predicted > 0
    expected = np.mean([names[code] == name for code, name in zip(predicted[seen], points["class"][seen], strict=True)])
    assert told.outputs["OVERALL_ACCURACY"] == pytest.approx(expected, abs=1e-4)
