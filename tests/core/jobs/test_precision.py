"""Networks that map with numbers of 16 bits where that says the same."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio

from core.jobs.mapping import precision
from tests.core.jobs.running import run_here


@pytest.fixture
def is_offered(monkeypatch):
    """As on a processor that computes with 16 bits, for scenes of any size."""
    monkeypatch.setattr(precision, "LEAST_PIXELS", 1)
    monkeypatch.setattr(precision, "LEAST_TRIED", 100)
    monkeypatch.setattr(precision, "has_bfloat16", lambda: True)


@pytest.fixture
def job(map_job, network):
    return {**map_job, "model": str(network), "device": "cpu"}


def mapped(job, path, **more):
    probabilities = path.with_name(f"{path.stem}-shares.tif")
    told = run_here({**job, **more, "output": str(path), "probabilities": str(probabilities)})
    assert told.code == 0, told.last
    with rasterio.open(path) as dataset:
        settings = json.loads(dataset.tags()["RSFUSION_SETTINGS"])
        return told, dataset.read(1), settings["precision"], rasterio.open(probabilities).read()


def test_16_bits_are_taken_where_a_trial_finds_the_same_classes(job, is_offered, monkeypatch, tmp_path):
    monkeypatch.setattr(precision, "LEAST_ALIKE", 0.9)
    told, codes, used, shares = mapped(job, tmp_path / "auto.tif")
    _, exact_codes, exact, exact_shares = mapped(job, tmp_path / "exact.tif", precision="float32")
    assert (used, exact) == ("bfloat16", "float32")
    assert "pixels of a trial get the same class" in told.texts("info")
    assert not np.array_equal(shares, exact_shares)
    assert np.mean(codes == exact_codes) > 0.9


def test_32_bits_are_kept_where_the_classes_are_others(job, is_offered, monkeypatch, tmp_path):
    monkeypatch.setattr(precision, "LEAST_ALIKE", 1.01)
    told, codes, used, _ = mapped(job, tmp_path / "auto.tif")
    assert used == "float32"
    assert "the map is made with 32 bits" in told.texts("info")
    assert np.array_equal(codes, mapped(job, tmp_path / "exact.tif", precision="float32")[1])


def test_the_map_of_an_extent_is_a_part_of_the_map_in_16_bits(job, is_offered, monkeypatch, tmp_path):
    monkeypatch.setattr(precision, "LEAST_ALIKE", 0.9)
    _, codes, used, _ = mapped(job, tmp_path / "whole.tif")
    with rasterio.open(tmp_path / "whole.tif") as dataset:
        window = rasterio.windows.Window(20, 30, 40, 50)
        left, bottom, right, top = dataset.window_bounds(window)
        extent = {"left": left, "bottom": bottom, "right": right, "top": top, "crs": str(dataset.crs)}
    _, part, own, _ = mapped(job, tmp_path / "part.tif", extent=extent)
    assert used == own == "bfloat16"
    assert np.array_equal(part, codes[30:80, 20:60])


def test_small_scenes_are_not_tried(job, monkeypatch, tmp_path):
    monkeypatch.setattr(precision, "has_bfloat16", lambda: True)
    told, _, used, _ = mapped(job, tmp_path / "auto.tif")
    assert used == "float32"
    assert "trial" not in told.texts("info")


def test_a_forest_has_its_own_numbers(finetune_job, tmp_path):
    told = run_here({**finetune_job, "mode": "forest"})
    assert told.code == 0, told.last
    path = tmp_path / "forest.tif"
    job = {"kind": "map", "inputs": finetune_job["inputs"], "model": finetune_job["output_model"], "output": str(path)}
    told = run_here({**job, "precision": "bfloat16"})
    assert told.code == 0, told.last
    with rasterio.open(path) as dataset:
        assert json.loads(dataset.tags()["RSFUSION_SETTINGS"])["precision"] == "float32"
