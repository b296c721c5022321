"""The job that cleans a map: names, colours, areas and provenance stay."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio

from core.mapping.class_raster import open_class_raster
from tests.core.jobs.running import check_refused, rewrite_raster, run_command, run_here, snapshot


@pytest.fixture
def job(sample, tmp_path):
    return {"kind": "clean-map", "map": str(sample.truth), "minimum_area": 0.3, "output": str(tmp_path / "clean.tif")}


def test_the_map_keeps_its_looks_and_tells_what_changed(job, sample, tmp_path):
    told = run_here(job)
    assert told.code == 0, told.last
    assert set(snapshot(tmp_path)) == {"clean.tif", "clean.tif.aux.xml", "clean.qml"}
    before, after = open_class_raster(str(sample.truth)), open_class_raster(job["output"])
    names = {entry.code: (entry.name, entry.colour) for entry in before.scheme.classes}
    assert {entry.code: (entry.name, entry.colour) for entry in after.scheme.classes} == names
    assert after.grid == before.grid
    with rasterio.open(sample.truth) as source, rasterio.open(job["output"]) as result:
        changed = source.read(1) != result.read(1)
        np.testing.assert_array_equal(source.read(1) == 0, result.read(1) == 0)
        assert result.nodata == 0
        tags, table = result.tags(), result.colormap(1)
    assert 0 < changed.mean() < 0.2
    assert all(table[code][:3] == tuple(bytes.fromhex(colour[1:])) for code, (_, colour) in names.items())
    assert json.loads(tags["RSFUSION_INPUTS"]) == {"map": [sample.truth.name]}
    assert json.loads(tags["RSFUSION_SETTINGS"])["minimum_area"] == 0.3
    assert tags["RSFUSION_CREATED"].startswith("2023-11-14")
    assert f"{told.outputs['SMALL_PATCHES']} of " in told.texts("info")
    assert "(before: " in told.texts("info")
    assert told.fractions == sorted(told.fractions)
    assert "Area_ha" in (tmp_path / "clean.tif.aux.xml").read_text(encoding="utf-8")


def test_the_command_line_writes_the_same_bytes(job, sample, tmp_path):
    assert run_here({**job, "majority": 3, "keep": ["Water"]}).code == 0
    first = snapshot(tmp_path)
    words = ["--map", str(sample.truth), "--minimum-area", "0.3", "--majority", "3", "--keep", "Water"]
    told = run_command("clean", *words, "--output", job["output"])
    assert told.code == 0, told.stderr
    assert snapshot(tmp_path) == first


def test_a_majority_filter_alone(job):
    told = run_here({**job, "minimum_area": 0, "majority": 5})
    assert told.outputs["SMALL_PATCHES"] == 0
    with rasterio.open(job["map"]) as source, rasterio.open(job["output"]) as result:
        assert 0 < (source.read(1) != result.read(1)).mean() < 0.3


def test_a_smallest_area_of_a_pixel_changes_nothing(job):
    told = run_here({**job, "minimum_area": 1, "unit": "pixels"})
    assert "no patch is too small" in told.texts("info")
    with rasterio.open(job["map"]) as source, rasterio.open(job["output"]) as result:
        np.testing.assert_array_equal(source.read(1), result.read(1))


def test_the_model_of_a_map_is_passed_on_and_a_lost_class_is_named(job, sample, tmp_path):
    def change(values, profile):
        values[0, 5, 5] = 200
        return values

    folder = tmp_path / "own"
    folder.mkdir()
    path = rewrite_raster(sample.truth, folder / "map.tif", change)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(RSFUSION_MODEL="m.safetensors", RSFUSION_MODEL_SHA256="12ab")
    told = run_here({**job, "map": path})
    assert "Nothing is left of '200'" in told.texts("warning")
    with rasterio.open(job["output"]) as result:
        assert result.tags()["RSFUSION_MODEL_SHA256"] == "12ab"
    kept = run_here({**job, "map": path, "keep": ["200"]})
    assert not kept.texts("warning")
    with rasterio.open(job["output"]) as result:
        assert (result.read(1) == 200).sum() == 1


def test_a_map_cleaned_to_one_class_can_be_cleaned_again(job):
    assert run_here({**job, "minimum_area": 1e6}).code == 0
    assert run_here({**job, "map": job["output"], "output": job["output"].replace("clean.tif", "again.tif")}).code == 0


@pytest.mark.parametrize(
    ("change", "words", "code"),
    [
        ({"keep": ["Lava"]}, ("'Lava'", "'Water'"), 2),
        ({"majority": 4}, ("majority", "odd"), 2),
        ({"map": "/nowhere/map.tif"}, ("/nowhere/map.tif",), 1),
        ({"output": "/nowhere/map.tif"}, ("/nowhere",), 1),
        ({"output": "map.gpkg"}, (".tif",), 1),
    ],
)
def test_what_cannot_be_done_is_refused(job, tmp_path, change, words, code):
    check_refused({**job, **change}, tmp_path, *words, code=code)


def test_several_bands_are_no_map(job, sample, tmp_path):
    check_refused({**job, "map": str(sample.optical)}, tmp_path, "bands")


def test_cancelled_on_the_way_it_leaves_nothing(job, tmp_path):
    def cancel(context, event):
        if event.get("phase") == "Writing the map":
            context.cancel()

    assert run_here(job, cancel).code == 130
    assert snapshot(tmp_path) == {}
