"""The job that classifies whole scenes, on the simulated scene with cells that its truth labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely

from core.labels.style import entries_from_qml
from tests.core.jobs.running import check_refused, run_command, run_here, snapshot

SIDE = 8
"""Pixels along a cell."""


@pytest.fixture(scope="module")
def cells(sample, tmp_path_factory) -> Path:
    """Cells with the class of most of their pixels, and with all that have a fifth of them."""
    with rasterio.open(sample.truth) as dataset:
        codes, transform, crs = dataset.read(1), dataset.transform, dataset.crs
    names = {entry.value: entry.name for entry in entries_from_qml(sample.truth.with_suffix(".qml"))}
    single, several, shapes = [], [], []
    for row in range(0, codes.shape[0], SIDE):
        for column in range(0, codes.shape[1], SIDE):
            share = np.bincount(codes[row : row + SIDE, column : column + SIDE].ravel(), minlength=256) / SIDE**2
            single.append(names[str(share.argmax())])
            several.append("; ".join(names[str(code)] for code in np.flatnonzero(share >= 0.2)))
            (left, top), (right, bottom) = transform @ (column, row), transform @ (column + SIDE, row + SIDE)
            shapes.append(shapely.box(left, bottom, right, top))
    path = tmp_path_factory.mktemp("cells") / "cells.gpkg"
    frame = geopandas.GeoDataFrame({"class": single, "several": several}, geometry=shapes, crs=crs)
    # A checkerboard: the cells between are there to be classified.
    frame[(np.arange(len(frame)) // 16 + np.arange(len(frame))) % 2 == 0].to_file(path, driver="GPKG")
    return path


@pytest.fixture
def job(sample, cells, tmp_path) -> dict[str, Any]:
    (tmp_path / "out").mkdir()
    return {
        "kind": "classify-scenes",
        "inputs": {"optical": [str(sample.optical)], "sar": [str(sample.sar)]},
        "training": {"path": str(cells), "class_field": "class"},
        "cell_size": 10.0 * SIDE,
        "output": str(tmp_path / "out" / "scenes.gpkg"),
    }


def report_data(path: str | Path) -> dict[str, Any]:
    return json.loads(Path(path).read_text(encoding="utf-8").split('id="rsfusion-data">')[1].split("</script>")[0])


def test_cells_of_one_class(job, cells, tmp_path):
    told = run_here(job | {"report": str(tmp_path / "out" / "report.html")})
    assert told.code == 0, told.last
    assert set(snapshot(tmp_path / "out")) == {"scenes.gpkg", "scenes.qml", "report.html"}
    assert told.fractions == sorted(told.fractions)
    layer = geopandas.read_file(told.outputs["OUTPUT"])
    assert layer["unit"].tolist() == list(range(1, 16 * 16 + 1))
    reference = geopandas.read_file(cells)
    names = sorted(set(reference["class"]))
    shares = layer[[f"p_{name}" for name in names]].to_numpy()
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-3)
    assert (np.array(names)[shares.argmax(axis=1)] == layer["class"]).mean() > 0.99
    assert (layer["probability"] >= layer["probability_2"]).all()
    assert (layer["valid_share"] > 0.9).any()
    assert "classes" not in layer
    assert {entry.name for entry in entries_from_qml(tmp_path / "out" / "scenes.qml")} == set(names)
    data = report_data(told.outputs["REPORT"])
    assert data["scores"]["n_units"] == told.outputs["VALIDATION_UNITS"] > 10
    assert np.trace(data["confusion"]) / told.outputs["VALIDATION_UNITS"] == pytest.approx(told.outputs["TOP1"], abs=1e-4)
    assert told.outputs["TOP1"] > 0.6
    assert told.outputs["TOP3"] >= told.outputs["TOP1"]
    assert data["scores"]["macro_f1"] == pytest.approx(told.outputs["MACRO_F1"], abs=1e-4)
    chosen = [row for row in data["candidates"] if row["is_chosen"]]
    assert [row["log_loss"] for row in chosen] == [min(row["log_loss"] for row in data["candidates"])]
    metadata = pyogrio.read_info(told.outputs["OUTPUT"])["layer_metadata"]
    assert json.loads(metadata["RSFUSION_INPUTS"])["sentinel1"] == [Path(job["inputs"]["sar"][0]).name]


def test_several_classes_and_a_model_of_them(job, tmp_path):
    """The model classifies as the training did, and with one of its sensors alone."""
    several = job | {"training": job["training"] | {"class_field": "several"}}
    told = run_here(several | {"output_model": str(tmp_path / "out" / "m.safetensors")})
    assert told.code == 0, told.last
    layer = geopandas.read_file(told.outputs["OUTPUT"])
    listed = layer["classes"].dropna().str.split("; ")
    assert listed.map(len).max() > 1
    assert all(first in classes for first, classes in zip(layer["class"][listed.index], listed, strict=True))
    assert told.outputs["MAP"] > 0.5
    given = {key: job[key] for key in ("kind", "cell_size")} | {"model": told.outputs["OUTPUT_MODEL"]}
    again = run_here(given | {"inputs": job["inputs"], "output": str(tmp_path / "out" / "again.gpkg")})
    assert again.code == 0, again.last
    assert again.outputs["TOP1"] == ""
    other = geopandas.read_file(again.outputs["OUTPUT"])
    assert other.drop(columns="geometry").equals(layer.drop(columns="geometry"))
    radar = {"sar": job["inputs"]["sar"]}
    alone = run_here(given | {"inputs": radar, "output": str(tmp_path / "out" / "radar.gpkg")})
    assert alone.code == 0, alone.last
    seen = geopandas.read_file(alone.outputs["OUTPUT"])
    assert (seen["class"] == layer["class"]).mean() > 0.5
    assert not seen["probability"].equals(layer["probability"])


def test_the_features_of_a_base_model_count(job, trained, tmp_path):
    told = run_here(job | {"base_model": str(trained.model), "output_model": str(tmp_path / "out" / "m.safetensors")})
    assert told.code == 0, told.last
    assert told.outputs["CLASSIFIER_USED"].endswith("on scenes and base features")
    layer = geopandas.read_file(told.outputs["OUTPUT"])
    given = {"kind": job["kind"], "inputs": job["inputs"], "cell_size": job["cell_size"]}
    again = run_here(given | {"model": told.outputs["OUTPUT_MODEL"], "output": str(tmp_path / "out" / "again.gpkg")})
    assert geopandas.read_file(again.outputs["OUTPUT"])["probability"].equals(layer["probability"])


def test_the_same_bytes_twice_on_the_command_line(job, sample, cells, tmp_path):
    made = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        arguments = ["--optical", str(sample.optical), "--training", str(cells), "--class-field", "several"]
        arguments += ["--cell-size", "160", "--seed", "3", "--output", str(folder / "s.gpkg")]
        told = run_command("scenes", *arguments, "--output-model", str(folder / "m.safetensors"))
        assert told.code == 0, told.stderr
        made.append(snapshot(folder))
    assert made[0] == made[1]
    assert set(made[0]) == {"s.gpkg", "s.qml", "m.safetensors"}


def test_polygons_of_the_user_inside_beside_and_without_data(job, sample, tmp_path):
    with rasterio.open(sample.optical) as dataset:
        bounds, crs = dataset.bounds, dataset.crs
    inside = shapely.box(bounds.left + 100, bounds.top - 300, bounds.left + 400, bounds.top - 100)
    across = shapely.box(bounds.left - 200, bounds.top - 300, bounds.left + 200, bounds.top - 100)
    beyond = shapely.box(bounds.left - 900, bounds.top, bounds.left - 800, bounds.top + 100)
    frame = geopandas.GeoDataFrame(geometry=[inside, across, beyond], crs=crs).to_crs(4326)
    frame.to_file(tmp_path / "units.gpkg", driver="GPKG")
    asked = {key: value for key, value in job.items() if key != "cell_size"} | {"units": str(tmp_path / "units.gpkg")}
    told = run_here(asked)
    assert told.code == 0, told.last
    layer = geopandas.read_file(told.outputs["OUTPUT"])
    assert layer["unit"].tolist() == [1, 2]
    assert layer["class"].notna().all()
    assert layer["valid_share"][0] > 0.95
    assert layer["valid_share"][1] == pytest.approx(0.5, abs=0.05)
    assert "1 of 3 features outside the scene were left out." in told.texts("warning")


def test_too_few_polygons(job, cells, tmp_path):
    frame = geopandas.read_file(cells)
    two = frame.groupby("class").head(1).head(2)
    two.to_file(tmp_path / "two.gpkg", driver="GPKG")
    few = job | {"training": {"path": str(tmp_path / "two.gpkg"), "class_field": "class"}}
    check_refused(few, tmp_path, "No class can be validated", "at least two polygons a class")


def test_classes_with_few_polygons_are_told(job, cells, tmp_path):
    frame = geopandas.read_file(cells)
    common = frame["class"].value_counts().index[:2]
    some = frame[frame["class"].isin(common)].groupby("class").head(8)
    some.to_file(tmp_path / "some.gpkg", driver="GPKG")
    told = run_here(job | {"training": {"path": str(tmp_path / "some.gpkg"), "class_field": "class"}})
    assert told.code == 0, told.last
    assert "polygons to learn from; fewer than 10 teach little" in told.texts("warning")


@pytest.mark.parametrize(
    ("change", "words", "code"),
    [
        ({"training": {"path": "CELLS", "class_field": "kind"}}, ["no field 'kind'", "'class', 'several'"], 1),
        ({"cell_size": 5.0}, ["less than 4 pixels"], 2),
        ({"training": None}, ["training polygons or from a model file"], 2),
        ({"units": "u.gpkg"}, ["leave out cell_size or units"], 2),
        ({"output": "scenes.shp"}, ["has to end in .gpkg"], 1),
        ({"base_model": "none.safetensors"}, ["'none.safetensors' does not exist"], 1),
    ],
    ids=["field", "cells", "no source", "cells and units", "suffix", "base model"],
)
def test_wrong_requests(job, cells, tmp_path, change, words, code):
    asked = {**job, **change}
    if asked["training"] and asked["training"]["path"] == "CELLS":
        asked["training"] = asked["training"] | {"path": str(cells)}
    check_refused(asked, tmp_path, *words, code=code)


def test_models_of_pixels_say_nothing_of_scenes_and_the_other_way_round(job, trained, map_job_of, tmp_path):
    given = {key: value for key, value in job.items() if key != "training"}
    check_refused(given | {"model": str(trained.model)}, tmp_path, "says nothing of whole scenes")
    assert run_here(job | {"output_model": str(tmp_path / "m.safetensors")}).code == 0
    check_refused(map_job_of(tmp_path / "m.safetensors"), tmp_path, "a head of the kind 'scene'")


@pytest.fixture
def map_job_of(job, tmp_path):
    return lambda model: {"kind": "map", "inputs": job["inputs"], "model": str(model), "output": str(tmp_path / "map.tif")}


def test_a_cancelled_job_leaves_nothing(job, tmp_path):
    def cancel(context, event):
        if event["event"] == "progress" and "Trying" in event["phase"]:
            context.cancel()

    before = snapshot(tmp_path)
    assert run_here(job, cancel).code == 130
    assert snapshot(tmp_path) == before
