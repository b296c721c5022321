"""The job that draws polygons from spectral indices, on the simulated scene."""

import geopandas
import numpy as np
import pytest
import rasterio
from rasterio.features import rasterize

from core.jobs.labelling.pseudolabels import CELL, _Place, _Pool
from tests.core.jobs.running import rewrite_raster, run_here, snapshot

WATER_CODE, TREES_CODE = 1, 2
"""Of the truth."""


@pytest.fixture
def job(sample, tmp_path):
    return {
        "kind": "pseudolabels",
        "inputs": {"optical": [str(sample.optical)], "sar": [str(sample.sar)]},
        "count": 12,
        "output": str(tmp_path / "seeds.gpkg"),
    }


def truth_under(sample, polygons):
    with rasterio.open(sample.truth) as dataset:
        inside = rasterize([(shape, 1) for shape in polygons], dataset.shape, transform=dataset.transform)
        return dataset.read(1)[inside == 1]


def test_water_is_found_where_there_is_water(job, sample):
    told = run_here(job)
    assert told.code == 0, told.last
    places = geopandas.read_file(job["output"])
    assert told.outputs["N_POLYGONS"] == len(places)
    water = places[places["class"] == "Water"]
    assert 0 < len(water) <= 12
    assert (truth_under(sample, water.geometry) == WATER_CODE).mean() > 0.95
    green = places[places["class"] == "Vegetation"]
    assert np.isin(truth_under(sample, green.geometry), (2, 3, 4, 7)).mean() > 0.95
    assert places.geometry.is_valid.all()
    assert (places["pixels"] >= 9).all()
    assert (places["pixels"] <= CELL**2).all()
    assert places["area_ha"].to_numpy() == pytest.approx(places.area / 10_000, rel=0.01)
    assert (water["ndwi"] > 0).all()
    assert water["rule"].str.startswith("NDWI > 0.00, SAR < ").all()
    assert "not truth" in told.texts("warning")
    with rasterio.open(sample.truth) as dataset:
        assert places.crs == dataset.crs


def test_the_style_is_taken_up_by_a_training(job, tmp_path):
    assert run_here(job).code == 0
    assert "Water" in (tmp_path / "seeds.qml").read_text(encoding="utf-8")
    labels = {"path": job["output"], "class_field": "code"}
    trained = run_here(
        {
            "kind": "finetune",
            "inputs": job["inputs"],
            "labels": labels,
            "mode": "logistic",
            "output_model": str(tmp_path / "m.safetensors"),
        }
    )
    assert trained.code == 0, trained.last
    assert "Water: " in trained.texts("info")


def test_the_same_scene_gives_the_same_bytes(job, tmp_path):
    assert run_here(job).code == 0
    (tmp_path / "again").mkdir()
    assert run_here({**job, "output": str(tmp_path / "again" / "seeds.gpkg")}).code == 0
    assert (tmp_path / "again" / "seeds.gpkg").read_bytes() == (tmp_path / "seeds.gpkg").read_bytes()


def test_optical_alone_and_radar_alone(job, sample):
    optical = run_here({**job, "inputs": {"optical": [str(sample.optical)]}})
    assert optical.code == 0, optical.last
    places = geopandas.read_file(job["output"])
    assert set(places["class"]) <= {"Water", "Vegetation", "Bare ground"}
    assert places["sar"].isna().all()
    water = places[places["class"] == "Water"]
    assert (truth_under(sample, water.geometry) == WATER_CODE).mean() > 0.9
    radar = run_here({**job, "inputs": {"sar": [str(sample.sar)]}})
    assert radar.code == 0, radar.last
    assert set(geopandas.read_file(job["output"])["class"]) == {"Water"}
    assert "dry sand" in radar.texts("warning")


def test_an_extent_bounds_the_search(job):
    extent = {"left": 310_200.0, "bottom": 5_819_300.0, "right": 310_700.0, "top": 5_819_800.0, "crs": "EPSG:32633"}
    assert run_here({**job, "extent": extent, "minimum_pixels": 1}).code == 0
    bounds = geopandas.read_file(job["output"]).total_bounds
    assert bounds[0] >= 310_190
    assert bounds[3] <= 5_819_810


def test_what_cannot_be_done_is_said_and_leaves_nothing(job, sample, tmp_path):
    before = snapshot(tmp_path)
    told = run_here({**job, "inputs": {"elevation": [str(sample.elevation)]}})
    assert told.code == 1
    assert "No spectral index" in told.message
    told = run_here({**job, "output": str(tmp_path / "seeds.shp")})
    assert told.code == 1
    empty = tmp_path / "empty.tif"

    def level(values, profile):
        # One reflectance in all bands: every ratio is nought.
        values[:] = values[:1]
        return values

    rewrite_raster(sample.optical, empty, level)
    told = run_here({**job, "inputs": {"optical": [str(empty)]}})
    assert told.code == 1
    assert "No rule found a place" in told.message
    empty.unlink()
    assert snapshot(tmp_path) == before

    def stop(context, event):
        if event.get("phase") == "Following the rules":
            context.cancel()

    assert run_here(job, stop).code == 130
    assert snapshot(tmp_path) == before


def test_a_pool_keeps_an_even_part_and_chooses_far_from_each_other():
    pool = _Pool(10)
    for number in range(100):
        pool.offer(_Place(None, np.array([float(number), 0.0]), 9, ()))
    kept = [place.centre[0] for place in pool._kept]
    assert 5 <= len(kept) <= 10
    assert len(set(np.diff(kept))) == 1
    chosen = [place.centre[0] for place in pool.chosen(3)]
    assert chosen[0] == kept[0]
    assert chosen[-1] == kept[-1]
    assert np.diff(chosen).min() >= 30
    assert _Pool(10).chosen(3) == []
