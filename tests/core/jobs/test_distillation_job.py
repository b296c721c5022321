"""Networks of half the width that map like the ones they were made from."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

from core.errors import UsageError
from core.models.model_file import load_model, load_novelty
from core.models.specify import with_half_width
from tests.core.jobs.running import EPOCH, check_refused, run_here
from tests.core.models.specifications import specification


@pytest.fixture(scope="module")
def job(network, trained):
    return {
        "kind": "distil",
        "inputs": dict(trained.job["inputs"]),
        "model": str(network),
        "epochs": 2,
        "windows": 48,
        "device": "cpu",
    }


@pytest.fixture(scope="module")
def distilled(job, tmp_path_factory):
    path = tmp_path_factory.mktemp("distilled") / "small.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", EPOCH)
        told = run_here({**job, "output_model": str(path)})
    assert told.code == 0, told.last
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["small.safetensors"]
    return path, told


def test_the_small_model_has_half_the_width_and_says_where_it_comes_from(network, distilled):
    path, told = distilled
    (large, card), (small, own) = load_model(network), load_model(path)
    widths = [next(iter(model.fusion.encoders.values())).channels for model in (large, small)]
    assert [2 * channels for channels in widths[1]] == list(widths[0])
    assert own.training["distilled_from"] == network.name
    assert len(own.training["distilled_from_sha256"]) == 64
    assert own.classes == card.classes
    assert own.temperature == card.temperature
    assert "no accuracy" in own.scores["measured"]
    assert own.scores["models"][0]["overall_accuracy"] == told.outputs["AGREEMENT"]
    assert (load_novelty(path, own) is None) == (load_novelty(network, card) is None)
    assert "get the same class, on the ground that it learned on" in told.texts("info")
    assert "which is too small to divide" in own.scores["measured"]


def test_it_maps_like_the_large_one(network, distilled, map_job, tmp_path):
    path, told = distilled
    assert told.outputs["AGREEMENT"] > 0.8
    found = []
    for number, model in enumerate((str(network), str(path))):
        job = {**map_job, "model": model, "output": str(tmp_path / f"{number}.tif")}
        assert run_here(job).code == 0
        found.append(rasterio.open(tmp_path / f"{number}.tif").read(1))
    assert 0.8 < np.mean(found[0] == found[1]) < 1


def test_it_learns_to_do_without_an_input(distilled, map_job, tmp_path):
    path, _ = distilled
    inputs = {"optical": map_job["inputs"]["optical"]}
    told = run_here({**map_job, "inputs": inputs, "model": str(path), "output": str(tmp_path / "map.tif")})
    assert told.code == 0, told.last


def test_the_same_seed_gives_the_same_bytes(job, distilled, tmp_path):
    path = tmp_path / "small.safetensors"
    assert run_here({**job, "output_model": str(path)}).code == 0
    assert path.read_bytes() == distilled[0].read_bytes()


def test_every_input_of_the_model_has_to_be_shown(job, tmp_path):
    output = {"output_model": str(tmp_path / "small.safetensors")}
    check_refused({**job, **output, "inputs": {"optical": job["inputs"]["optical"]}}, tmp_path, "sentinel1")


def test_what_cannot_be_distilled_is_said(job, trained, tmp_path, finetune_job):
    output = {"output_model": str(tmp_path / "small.safetensors")}
    check_refused({**job, **output, "model": str(tmp_path / "none.safetensors")}, tmp_path, "does not exist")
    forest = tmp_path / "in" / "forest.safetensors"
    forest.parent.mkdir()
    assert run_here({**finetune_job, "mode": "forest", "output_model": str(forest)}).code == 0
    check_refused({**job, **output, "model": str(forest)}, tmp_path, "only such a network can be distilled")
    check_refused({**job, **output, "model": str(trained.model)}, tmp_path, "is a linear model")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"encoder": "unet", "size": "small", "width": None}, {"width": 12}),
        ({"encoder": "unet", "size": "small", "width": 64}, {"width": 32}),
        ({"encoder": "resnet", "stem": "per_sensor", "size": "small"}, {"size": "tiny"}),
        ({"encoder": "resunet", "stem": "per_sensor", "size": "large"}, {"size": "base"}),
        ({"encoder": "vit", "stem": "per_sensor", "size": "base"}, {"size": "small"}),
    ],
)
def test_half_of_a_width(changed, expected):
    whole = specification("unet_intermediate").model_copy(update=changed)
    half = with_half_width(whole)
    assert {key: getattr(half, key) for key in expected} == expected


@pytest.mark.parametrize("changed", [{"width": 8}, {"encoder": "resnet", "size": "base"}, {"encoder": "vit", "size": "tiny"}])
def test_what_has_no_half_is_refused(changed):
    with pytest.raises(UsageError, match="half its width"):
        with_half_width(specification("unet_intermediate").model_copy(update=changed))
