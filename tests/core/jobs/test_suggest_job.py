"""The job that says where to label next, on the simulated scene."""

import geopandas
import numpy as np
import pytest
import shapely

from core.models.model_file import load_model, save_model
from tests.core.jobs.running import EPOCH, rewrite_raster, run_here


@pytest.fixture
def suggest_job(trained, sample, tmp_path):
    return {
        "kind": "suggest-labels",
        "inputs": trained.job["inputs"],
        "model": str(trained.model),
        "existing_labels": str(sample.labels),
        "count": 8,
        "output": str(tmp_path / "places.gpkg"),
    }


def test_places_are_ranked_apart_and_away_from_labels(suggest_job, sample, monkeypatch, tmp_path):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    told = run_here(suggest_job)
    assert told.code == 0, told.last
    assert told.outputs["N_PLACES"] == 8
    places = geopandas.read_file(suggest_job["output"])
    assert places["rank"].tolist() == list(range(1, 9))
    assert (places["class"] == "").all()
    assert (np.diff(places["doubt"]) <= 0).all()
    assert places.geometry.is_valid.all()
    labels = geopandas.read_file(sample.labels).to_crs(places.crs)
    inside = labels.buffer(-10)
    assert not places.intersects(inside.union_all()).any()
    for first in range(8):
        others = places.drop(index=first).geometry
        assert others.distance(places.geometry[first]).min() > 0
    assert places["area_ha"].to_numpy() == pytest.approx(places.area / 10_000, rel=0.01)
    assert all(text.startswith(("undecided: ", "unlike all labels")) for text in places["reason"])
    assert "1: " in told.texts("info")
    again = run_here({**suggest_job, "output": str(tmp_path / "again" / "places.gpkg")})
    assert again.code == 1
    (tmp_path / "again").mkdir()
    again = run_here({**suggest_job, "output": str(tmp_path / "again" / "places.gpkg")})
    assert (tmp_path / "again" / "places.gpkg").read_bytes() == (tmp_path / "places.gpkg").read_bytes()
    assert again.outputs["N_PLACES"] == 8


def test_strange_ground_comes_first(suggest_job, sample, tmp_path):
    strange = tmp_path / "strange.tif"

    def change(values, profile):
        values[:, 64:96, 64:96] = values[:, 64:96, 64:96][::-1] * 3
        return values

    rewrite_raster(sample.optical, strange, change)
    inputs = {**suggest_job["inputs"], "optical": [str(strange)]}
    told = run_here({**suggest_job, "inputs": inputs, "count": 10})
    assert told.code == 0, told.last
    places = geopandas.read_file(suggest_job["output"])
    import rasterio

    with rasterio.open(strange) as dataset:
        corners = [dataset.transform * (column, row) for column, row in ((64, 64), (96, 96))]
    square = shapely.box(corners[0][0], corners[1][1], corners[1][0], corners[0][1])
    assert places.geometry[0].intersection(square).area > 0.5 * places.geometry[0].area
    assert places["reason"][0].startswith("unlike all labels")


def test_few_places_are_told(suggest_job):
    extent = {"left": 310_200.0, "bottom": 5_819_300.0, "right": 310_500.0, "top": 5_819_600.0, "crs": "EPSG:32633"}
    told = run_here({**suggest_job, "count": 500, "extent": extent})
    assert told.code == 0, told.last
    assert "500 were asked for" in told.texts("warning")
    bounds = geopandas.read_file(suggest_job["output"]).total_bounds
    assert bounds[0] >= 310_190
    assert bounds[3] <= 5_819_610


def test_a_model_that_does_not_say_what_it_has_seen_is_refused(suggest_job, trained, tmp_path):
    model, card = load_model(trained.model)
    save_model(tmp_path / "old.safetensors", model, card)
    told = run_here({**suggest_job, "model": str(tmp_path / "old.safetensors")})
    assert told.code == 1
    assert "does not say what it has seen" in told.last["message"]
    assert not (tmp_path / "places.gpkg").exists()
