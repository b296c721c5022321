"""From a map to points, from interpreted points to numbers: the two jobs together."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import pytest
import rasterio

from core.labels.style import entries_for
from tests.core.jobs.running import EPOCH, check_refused, run_command, run_here, snapshot
from tests.core.jobs.test_accuracy_job import report_data, write_map

NAMES = {1: "water", 4: "forest", 9: "bare"}
SIDE = 120


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    generator = np.random.default_rng(6)
    blocks = generator.choice(np.array([1, 4, 9], np.uint8), (SIDE // 8, SIDE // 8), p=[0.3, 0.6, 0.1])
    return np.kron(blocks, np.ones((8, 8), np.uint8))


@pytest.fixture(scope="module")
def mapped(truth) -> np.ndarray:
    """The truth with a tenth of all pixels wrong, and a part that is not mapped."""
    generator = np.random.default_rng(7)
    values = np.where(generator.random(truth.shape) < 0.1, generator.permutation(truth.ravel()).reshape(truth.shape), truth)
    values[:10, :15] = 0
    return values.astype(np.uint8)


def tags() -> dict[str, str]:
    classes = [
        {"code": code, "name": name, "colour": colour, "value": name}
        for (code, name), colour in zip(NAMES.items(), ("#3366cc", "#118833", "#ccbb99"), strict=True)
    ]
    return {"RSFUSION_CLASSES": json.dumps(classes)}


@pytest.fixture
def job(mapped, tmp_path) -> dict:
    return {
        "kind": "sampling-design",
        "map": write_map(tmp_path / "map.tif", mapped, tags()),
        "output": str(tmp_path / "points.gpkg"),
    }


def layer(path: str | Path, name: str = "sample"):
    return pyogrio.read_dataframe(path, layer=name)


def values_at(points: geopandas.GeoDataFrame, codes: np.ndarray, transform) -> np.ndarray:
    columns, rows = ~transform @ (points.geometry.x.to_numpy(), points.geometry.y.to_numpy())
    return codes[np.floor(rows).astype(int), np.floor(columns).astype(int)]


def fill(path: str, truth: np.ndarray, keep=lambda points: np.ones(len(points), bool), numbers: bool = False) -> None:
    """What an interpreter does; the other tables of the file stay."""
    points, strata = layer(path), layer(path, "strata")
    with rasterio.open(Path(path).with_name("map.tif")) as dataset:
        codes = values_at(points, truth, dataset.transform)
    texts = [str(code) if numbers else NAMES[code] for code in codes.tolist()]
    points["reference"] = np.where(keep(points), texts, None)
    Path(path).unlink()
    pyogrio.write_dataframe(points, path, layer="sample", driver="GPKG")
    pyogrio.write_dataframe(strata, path, layer="strata", driver="GPKG")


def assess(path: str, map_path: str, tmp_path: Path, **more) -> dict:
    reference = {"path": path, "class_field": "reference", **more.pop("reference", {})}
    return {"kind": "accuracy", "map": map_path, "reference": reference, "report": str(tmp_path / "report.html"), **more}


def test_a_sample_as_a_person_gets_it(job, mapped, tmp_path):
    told = run_here(job)
    assert told.code == 0, told.last
    points, strata = layer(job["output"]), layer(job["output"], "strata")
    assert told.outputs["SAMPLE_SIZE"] == len(points) == strata["sample_size"].sum()
    assert told.outputs["EXPECTED_STANDARD_ERROR"] == pytest.approx(0.01, rel=0.05)
    assert points["id"].tolist() == list(range(1, len(points) + 1))
    for field in ("reference", "interpreter", "confidence", "note"):
        assert points[field].isna().all()
    with rasterio.open(job["map"]) as dataset:
        codes = values_at(points, mapped, dataset.transform)
        columns, rows = ~dataset.transform @ (points.geometry.x.to_numpy(), points.geometry.y.to_numpy())
    assert (codes == points["stratum_value"]).all()
    assert points["stratum"].tolist() == [NAMES[code] for code in codes.tolist()]
    assert np.allclose(rows % 1, 0.5)
    assert np.allclose(columns % 1, 0.5)
    assert not points.geometry.duplicated().any()
    assert points.crs.to_epsg() == 32633
    assert strata["stratum"].tolist() == list(NAMES.values())
    assert strata["pixels"].tolist() == [int((mapped == code).sum()) for code in NAMES]
    assert strata["area_ha"].sum() == pytest.approx((mapped > 0).sum() / 100, rel=2e-3)
    assert (strata["expected_accuracy"] == 0.8).all()
    chances = (strata["sample_size"] / strata["pixels"]).to_numpy()
    assert points["inclusion_probability"].to_numpy() == pytest.approx(chances[strata["stratum_value"].searchsorted(codes)])
    assert told.fractions == sorted(told.fractions)
    assert set(snapshot(tmp_path)) == {"map.tif", "points.gpkg"}


def test_the_points_come_with_a_form(job):
    run_here(job)
    entries = entries_for(job["output"], "sample", "reference")
    assert [(entry.value, entry.colour) for entry in entries] == [
        ("water", "#3366cc"),
        ("forest", "#118833"),
        ("bare", "#ccbb99"),
    ]
    document = layer(job["output"], "layer_styles")["styleQML"][0]
    assert document.count('type="Hidden"') == 3
    assert document.count('type="ValueMap"') == 2
    metadata = pyogrio.read_info(job["output"], layer="sample")["layer_metadata"]
    assert metadata["map"] == "map.tif"
    assert metadata["seed"] == "0"
    assert metadata["rsfusion"]


def test_the_same_seed_gives_the_same_bytes_and_another_one_other_points(job, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    written = []
    for number, seed in enumerate((5, 5, 6)):
        output = tmp_path / f"{number}.gpkg"
        assert run_here({**job, "seed": seed, "output": str(output)}).code == 0
        written.append(output)
    assert written[0].read_bytes() == written[1].read_bytes()
    first, other = layer(written[0]), layer(written[2])
    assert len(first) == len(other)
    assert not first.geometry.geom_equals(other.geometry).all()


def test_size_expectation_and_minimum(job):
    told = run_here({**job, "size": 200, "minimum": 60, "expected_accuracy": "0.7, forest=0.95,1=0.9"})
    strata = layer(job["output"], "strata").set_index("stratum")
    assert strata["expected_accuracy"].to_dict() == {"water": 0.9, "forest": 0.95, "bare": 0.7}
    assert strata["sample_size"].sum() == told.outputs["SAMPLE_SIZE"] == 200
    assert strata["sample_size"].min() == 60
    told = run_here({**job, "size": 100, "minimum": 60})
    assert layer(job["output"], "strata")["sample_size"].sum() == 100
    assert "100 points do not suffice for 60 in each class" in told.texts("warning")
    # Where the shares are not the optimal ones, there are as many points as these take.
    for allocation in ("balanced", "equal", "proportional"):
        told = run_here({**job, "target_standard_error": 0.01, "allocation": allocation, "expected_accuracy": "0.8,1=0.99"})
        assert told.outputs["EXPECTED_STANDARD_ERROR"] <= 0.01
    told = run_here({**job, "target_standard_error": 0.2})
    assert told.outputs["SAMPLE_SIZE"] == 150


def test_a_small_class_is_taken_whole_and_said_so(mapped, job, tmp_path):
    codes = np.where(mapped == 9, 4, mapped)
    codes[50, 50:57] = 9
    told = run_here({**job, "map": write_map(tmp_path / "small.tif", codes, tags()), "size": 150})
    assert layer(job["output"], "strata")["sample_size"].tolist()[2] == 7
    assert "'bare' has 7 pixels only and was taken whole" in told.texts("warning")
    assert told.outputs["SAMPLE_SIZE"] == 150


def test_a_distance_between_points(job):
    told = run_here({**job, "size": 60, "minimum": 10, "minimum_distance": 75})
    points = layer(job["output"])
    x, y = points.geometry.x.to_numpy(), points.geometry.y.to_numpy()
    one, two = np.triu_indices(len(points), 1)
    assert len(points) == 60
    assert np.hypot(x[one] - x[two], y[one] - y[two]).min() >= 74.9
    assert "approximate" in told.texts("warning")
    told = run_here({**job, "size": 60, "minimum": 10, "minimum_distance": 250})
    assert 6 <= told.outputs["SAMPLE_SIZE"] < 60
    assert "points could be placed" in told.texts("warning")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"expected_accuracy": "1.2"}, ["expected_accuracy", "'1.2'"]),
        ({"expected_accuracy": "forest"}, ["expected_accuracy", "'forest'"]),
        ({"expected_accuracy": "swamp=0.9"}, ["'swamp'", "'4 forest'"]),
        ({"expected_accuracy": "forest=0.9,4=0.8"}, ["named before"]),
        ({"expected_accuracy": "0.9,0.8"}, ["several numbers"]),
        ({"size": 5}, ["5 points", "3 classes"]),
        ({"target_standard_error": 0.0}, ["target_standard_error"]),
        ({"allocation": "random"}, ["allocation"]),
        ({"minimum_distance": 5000.0}, ["5000 m", "shorter distance"]),
    ],
)
def test_wrong_wishes_are_named(job, tmp_path, change, words):
    check_refused({**job, **change}, tmp_path, *words, code=2)


@pytest.mark.parametrize(
    ("output", "words"), [("points.shp", [".gpkg"]), ("map.tif", [".gpkg"]), ("none/points.gpkg", ["folder"])]
)
def test_outputs_that_cannot_be(job, tmp_path, output, words):
    check_refused({**job, "output": str(tmp_path / output)}, tmp_path, *words)


def test_the_interpreted_sample_of_a_map(job, truth, mapped, tmp_path):
    """The strata are the classes of the map: Olofsson's estimators, and the truth lies in the intervals."""
    run_here({**job, "size": 400})
    fill(job["output"], truth)
    told = run_here(assess(job["output"], job["map"], tmp_path))
    assert told.code == 0, told.last
    found = report_data(tmp_path / "report.html")["area_adjusted"]
    assert found["estimator"] == "olofsson2014"
    assert [(entry["name"], entry["pixels"]) for entry in found["strata"]] == [
        (name, int((mapped == code).sum())) for code, name in NAMES.items()
    ]
    assert sum(entry["used"] for entry in found["strata"]) == 400
    true_accuracy = (truth == mapped)[mapped > 0].mean()
    assert abs(told.outputs["AREA_ADJUSTED_ACCURACY"] - true_accuracy) < 1.2 * told.outputs["AREA_ADJUSTED_HALF_WIDTH"]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Olofsson et al. (2014)" in page
    assert "Strata of the sample" in page
    assert "polygons or points" not in page


def test_another_map_than_the_one_that_made_the_strata(job, truth, mapped, tmp_path):
    """Half of the size, in its own grid: Stehman's estimators, of the part that it covers."""
    run_here({**job, "size": 500})
    fill(job["output"], truth, numbers=True)
    part = np.where(np.random.default_rng(2).random(truth.shape) < 0.2, 4, truth).astype(np.uint8)[:80]
    other = write_map(tmp_path / "other.tif", part, tags())
    told = run_here(assess(job["output"], other, tmp_path))
    assert told.code == 0, told.last
    data = report_data(tmp_path / "report.html")
    found, points = data["area_adjusted"], layer(job["output"])
    assert found["estimator"] == "stehman2014"
    with rasterio.open(job["map"]) as dataset:
        _, rows = ~dataset.transform @ (points.geometry.x.to_numpy(), points.geometry.y.to_numpy())
    assert f"{(rows > 80).sum()} points lie where the map has no data or beyond its edge" in " ".join(data["warnings"])
    assert any("The estimates are of the ground that both cover." in line for line in data["warnings"])
    assert not any("outside the scene" in line for line in data["warnings"])
    inside = mapped[:80] > 0
    for k, code in enumerate(NAMES):
        area, true_area = found["areas"][k], (truth[:80][inside] == code).sum() / 100
        assert abs(area["value"] - true_area) < 3 * area["standard_error"], code
    overall = found["overall_accuracy"]
    assert abs(overall["value"] - (part == truth[:80])[inside].mean()) < 3 * overall["standard_error"]
    assert "Stehman (2014)" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_points_that_are_not_interpreted_yet(job, truth, tmp_path):
    run_here({**job, "size": 300})
    fill(job["output"], truth, lambda points: (points["id"] <= 200).to_numpy())
    told = run_here(assess(job["output"], job["map"], tmp_path))
    assert "100 of 300 features without a class were left out." in told.texts("warning")
    strata = report_data(tmp_path / "report.html")["area_adjusted"]["strata"]
    assert [sum(entry[key] for entry in strata) for key in ("drawn", "used")] == [300, 200]
    fill(job["output"], truth, lambda points: (points["stratum"] != "bare").to_numpy())
    told = run_here(assess(job["output"], job["map"], tmp_path))
    assert told.code == 0
    assert told.outputs["AREA_ADJUSTED_ACCURACY"] == ""
    assert "'bare' covers" in told.texts("warning")
    fill(job["output"], truth, lambda points: np.zeros(len(points), bool))
    check_refused(assess(job["output"], job["map"], tmp_path), tmp_path, "300 have no class")


def test_a_place_that_was_entered_twice(job, truth, tmp_path):
    run_here({**job, "size": 300})
    fill(job["output"], truth)
    points, strata = layer(job["output"]), layer(job["output"], "strata")
    again = points.iloc[[0, 1, 2]].copy()
    wrong = {"water": "forest", "forest": "water", "bare": "water"}
    again.loc[again.index[2], "reference"] = wrong[again["reference"].iloc[2]]
    Path(job["output"]).unlink()
    pyogrio.write_dataframe(pd.concat([points, again]), job["output"], layer="sample", driver="GPKG")
    pyogrio.write_dataframe(strata, job["output"], layer="strata", driver="GPKG")
    told = run_here(assess(job["output"], job["map"], tmp_path))
    assert told.code == 0, told.last
    assert "2 points lie where another point of the same class lies" in told.texts("warning")
    assert "2 points share their place with a point of another class and were left out" in told.texts("warning")
    assert np.sum(report_data(tmp_path / "report.html")["confusion"]) == 299


def test_points_in_one_pixel_of_a_coarser_map_all_count(job, truth, tmp_path):
    run_here({**job, "size": 400})
    fill(job["output"], truth)
    coarse = truth[::8, ::8]
    path = tmp_path / "coarse.tif"
    with rasterio.open(job["map"]) as dataset:
        transform = dataset.transform @ rasterio.Affine.scale(8)
    with rasterio.open(
        path, "w", driver="GTiff", width=15, height=15, count=1, dtype="uint8", nodata=0, crs="EPSG:32633", transform=transform
    ) as dataset:
        dataset.write(coarse, 1)
        dataset.update_tags(**tags())
    told = run_here(assess(job["output"], str(path), tmp_path))
    assert told.outputs["AREA_ADJUSTED_ACCURACY"] == 1.0
    assert np.sum(report_data(tmp_path / "report.html")["confusion"]) == 400
    assert "share a pixel of the map with another point at another place" in told.texts("warning")


def test_a_copy_without_its_table(job, truth, tmp_path):
    """Saved as another format, the points keep their strata and lose the table; it can be given, or is the map's own."""
    run_here({**job, "size": 300})
    fill(job["output"], truth)
    copy = str(tmp_path / "copy.geojson")
    layer(job["output"]).to_crs("EPSG:4326").to_file(copy, driver="GeoJSON")
    expected = run_here(assess(job["output"], job["map"], tmp_path)).outputs
    for more in ({"strata": job["output"]}, {"strata_field": "stratum"}, {"strata_field": "stratum_value"}):
        assert run_here(assess(copy, job["map"], tmp_path, **more)).outputs == expected, more
    plain = run_here(assess(copy, job["map"], tmp_path))
    assert report_data(tmp_path / "report.html")["area_adjusted"]["strata"] == []
    assert plain.outputs["OVERALL_ACCURACY"] == expected["OVERALL_ACCURACY"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"strata_field": "stratums"}, ["'stratums'", "'stratum'"]),
        ({"strata_field": "reference2"}, ["'swamp'", "'water'"]),
        ({"strata_field": "confidence"}, ["300 of 300 points", "no stratum"]),
        ({"strata": "map.tif"}, ["table of strata"]),
    ],
)
def test_strata_that_cannot_be_used_are_named(job, truth, tmp_path, change, words):
    run_here({**job, "size": 300})
    fill(job["output"], truth)
    points, strata = layer(job["output"]), layer(job["output"], "strata")
    points["reference2"] = "swamp"
    Path(job["output"]).unlink()
    pyogrio.write_dataframe(points, job["output"], layer="sample", driver="GPKG")
    pyogrio.write_dataframe(strata, job["output"], layer="strata", driver="GPKG")
    if "strata" in change:
        change = {"strata": job["map"]}
    check_refused(assess(job["output"], job["map"], tmp_path, **change), tmp_path, *words)


def test_the_commands(job, truth, tmp_path):
    words = ["--map", job["map"], "--output", job["output"], "--size", "200", "--allocation", "equal"]
    drawn = run_command("sample", *words, "--expected-accuracy", "0.9")
    assert drawn.outputs["SAMPLE_SIZE"] == 200
    fill(job["output"], truth)
    told = run_command("assess", "--map", job["map"], "--reference", job["output"], "--class-field", "reference")
    assert 0.8 < told.outputs["AREA_ADJUSTED_ACCURACY"] < 1


@pytest.mark.parametrize("phase", ["Counting the pixels of the classes", "Placing the points", "Writing the points"])
def test_a_cancelled_job_leaves_nothing(job, tmp_path, phase):
    def cancel(context, event) -> None:
        if event.get("phase") == phase:
            context.cancel()

    before = snapshot(tmp_path)
    assert run_here(job, cancel).code == 130
    assert snapshot(tmp_path) == before
