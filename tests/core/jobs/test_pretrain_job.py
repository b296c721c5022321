"""The jobs without labels: a model is trained, goes into a fine-tuning, and its features become a raster."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from core.finetuning.networks.start import start_model
from core.jobs.learning.preparation import LAYER_DECAYS
from core.jobs.mapping import feature_raster
from core.mapping import engine, rasters
from core.mapping.blending import Tiling
from core.mapping.engine import MappingEngine
from core.models.model_file import load_model
from tests.core.jobs.running import EPOCH, check_refused, run_command, run_here


@pytest.fixture(scope="module")
def job(sample, tmp_path_factory):
    """The smallest pre-training, to a folder of its own."""
    folder = tmp_path_factory.mktemp("pretrained")
    return {
        "kind": "pretrain",
        "scenes": [{"optical": [str(sample.optical)], "sar": [str(sample.sar)]}],
        "size": "tiny",
        "epochs": 2,
        "windows": 8,
        "batch_size": 4,
        "output_model": str(folder / "base.safetensors"),
        "report": str(folder / "report.html"),
    }


@pytest.fixture(scope="module")
def pretrained(job):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", EPOCH)
        told = run_here(job)
    assert told.code == 0, told.last
    return told


def test_the_model_the_report_and_the_log_say_what_was_done(job, pretrained):
    _, card = load_model(Path(job["output_model"]))
    assert card.classes == ()
    assert card.specification.head == "embedding"
    assert card.has_trained_decoder
    assert card.training["method"] == "latent_targets"
    assert card.training["scenes"] == [{"sentinel2_l2a": ["sentinel2_l2a.tif"], "sentinel1": ["sentinel1_vv_vh.tif"]}]
    assert len(card.scores["epochs"]) == 2
    assert str(Path(job["output_model"]).parent) not in card.model_dump_json()
    page = Path(job["report"]).read_text(encoding="utf-8")
    data = json.loads(page.split('id="rsfusion-data">')[1].split("</script>")[0])
    assert data["kind"] == "pretraining"
    assert [record["epoch"] for record in data["records"]] == [1, 2]
    assert pretrained.outputs["EFFECTIVE_RANK"] == round(data["records"][-1]["effective_rank"], 2)
    assert "sentinel1: exchanging it moves the features" in pretrained.texts("info")
    assert card.specification.has_circumstances
    assert "The day is known of 2 of 2 rasters: 2021-07-02, 2021-07-03." in pretrained.texts("info")
    assert sorted(path.name for path in Path(job["report"]).parent.iterdir()) == ["base.safetensors", "report.html"]


def test_labels_are_asked_and_nothing_is_trained_on_them(job, pretrained, sample, tmp_path):
    model, report = tmp_path / "model.safetensors", tmp_path / "report.html"
    labels = {"path": str(sample.labels), "class_field": "class"}
    told = run_here({**job, "labels": labels, "output_model": str(model), "report": str(report)})
    assert told.code == 0, told.last
    assert "of them held out to be scored on. Nothing is trained on them." in told.texts("info")
    data = json.loads(report.read_text(encoding="utf-8").split('id="rsfusion-data">')[1].split("</script>")[0])
    assert all(0 < record["monitors"]["linear probe"] <= 1 for record in data["records"])
    with_labels, without = load_model(model)[0].state_dict(), load_model(Path(job["output_model"]))[0].state_dict()
    assert all(torch.equal(value, without[name]) for name, value in with_labels.items())
    wrong = {**job, "labels": {**labels, "class_field": "nothing"}, "output_model": str(tmp_path / "other.safetensors")}
    check_refused(wrong, tmp_path, "nothing")


def test_a_new_sensor_joins_a_model_that_is_kept_for_the_old_one(job, pretrained, sample, tmp_path):
    further = {
        **job,
        "scenes": [{"optical": [str(sample.optical)], "sar": [str(sample.sar)], "elevation": [str(sample.elevation)]}],
        "initial_model": job["output_model"],
        "size": None,
        "epochs": 1,
        "report": None,
        "accumulation": 2,
        "output_model": str(tmp_path / "further.safetensors"),
    }
    told = run_here(further)
    assert told.code == 0, told.last
    assert "New to the model, whose parts for it start afresh: dsm." in told.texts("info")
    card = load_model(Path(further["output_model"]))[1]
    assert [entry.name for entry in card.specification.modalities] == ["sentinel2_l2a", "sentinel1", "dsm"]
    assert card.training["settings"]["accumulation"] == 2
    assert card.training["steps"] == 1


def test_a_model_that_was_never_told_days_learns_them_later(job, pretrained, tmp_path):
    untold = {**job, "switches": {"circumstances": False}, "epochs": 1, "report": None}
    untold["output_model"] = str(tmp_path / "untold.safetensors")
    assert run_here(untold).code == 0
    assert not load_model(Path(untold["output_model"]))[1].specification.has_circumstances
    later = {**job, "initial_model": untold["output_model"], "size": None, "epochs": 1, "report": None}
    later["output_model"] = str(tmp_path / "later.safetensors")
    told = run_here(later)
    assert told.code == 0, told.last
    assert load_model(Path(later["output_model"]))[1].specification.has_circumstances
    # The other way round is said, and not done in silence.
    wrong = {**later, "initial_model": job["output_model"], "switches": {"circumstances": False}}
    check_refused({**wrong, "output_model": str(tmp_path / "other.safetensors")}, tmp_path, "has_circumstances", code=2)


def test_a_model_without_a_network_is_no_start(job, finetune_job, tmp_path):
    regression = tmp_path / "regression.safetensors"
    told = run_here({**finetune_job, "mode": "logistic", "output_model": str(regression), "report": None})
    assert told.code == 0, told.last
    wrong = {**job, "initial_model": str(regression), "size": None, "output_model": str(tmp_path / "other.safetensors")}
    check_refused(wrong, tmp_path, "holds no network", code=2)


def test_what_is_kept_needs_a_model(job, tmp_path):
    wrong = {
        **job,
        "method": "cross_sensor_alignment",
        "switches": {"continual_from": "sentinel1"},
        "output_model": str(tmp_path / "m.safetensors"),
        "report": None,
    }
    check_refused(wrong, tmp_path, "no model was given", code=2)


def test_published_windows_are_those_that_a_transformer_is_used_with(job, tmp_path):
    whole = {
        **job,
        "method": "cross_scale_mae",
        "setting": "paper",
        "size": "tiny",
        "epochs": 1,
        "windows": 1,
        "batch_size": 1,
        "switches": {"contrast": False},
        "output_model": str(tmp_path / "m.safetensors"),
        "report": None,
    }
    told = run_here(whole)
    assert told.code == 0, told.last
    card = load_model(tmp_path / "m.safetensors")[1]
    assert card.specification.window == card.training["settings"]["window_size"] == 128
    assert (card.specification.finest, card.specification.size) == (16, "tiny")
    assert card.training["settings"]["second_moment"] == 0.95
    assert card.training["switches"]["decoder_depth"] == 4


def test_the_same_job_gives_the_same_bytes(job, pretrained, tmp_path):
    again = run_here(job | {"output_model": str(tmp_path / "base.safetensors"), "report": None})
    assert again.code == 0
    assert (tmp_path / "base.safetensors").read_bytes() == Path(job["output_model"]).read_bytes()


@pytest.mark.parametrize(("mode", "part"), [("linear", "head"), ("full", "all"), ("adapters", "adapters")])
def test_a_base_model_is_fine_tuned_in_part_or_whole(job, pretrained, finetune_job, sample, mode, part):
    finetune = finetune_job | {"base_model": job["output_model"], "mode": mode}
    finetune["inputs"] = {"optical": [str(sample.optical)], "sar": [str(sample.sar)]}
    told = run_here(finetune)
    assert told.code == 0, told.last
    base, _ = load_model(Path(job["output_model"]))
    model, card = load_model(Path(finetune["output_model"]))
    assert card.specification.head == "dense"
    assert card.training["base_model"] == "base.safetensors"
    own, old = model.state_dict(), base.state_dict()
    same = {name for name in old if name in own and np.array_equal(own[name], old[name])}
    stems = {name for name in old if name.startswith("stems.") and ".shortcut" not in name}
    assert card.training["settings"]["trained_part"] == part
    assert card.training["settings"]["layer_decay"] == {"full": LAYER_DECAYS["full"]}.get(mode, 1.0)
    assert set(own) == set(start_model(card.specification, 0, None, card.scheme).state_dict())
    if part != "all" or card.training["best_epoch"] == 0:
        assert stems <= same
    else:
        assert not any(name in same for name in stems if name.endswith("weight"))


def test_a_model_of_adapters_maps_as_any_other(job, pretrained, finetune_job, sample, tmp_path):
    inputs = {"optical": [str(sample.optical)], "sar": [str(sample.sar)]}
    told = run_command(
        "finetune",
        *("--optical", str(sample.optical), "--sar", str(sample.sar), "--labels", finetune_job["labels"]["path"]),
        *("--class-field", "class", "--base-model", job["output_model"], "--mode", "adapters", "--epochs", "3"),
        *("--output-model", str(tmp_path / "model.safetensors")),
    )
    assert told.code == 0, told.stderr
    card = load_model(tmp_path / "model.safetensors")[1]
    assert card.training["mode"] == "adapters"
    request = {"kind": "map", "inputs": inputs, "model": str(tmp_path / "model.safetensors")}
    assert run_here(request | {"output": str(tmp_path / "map.tif")}).code == 0
    with rasterio.open(tmp_path / "map.tif") as dataset:
        mapped = set(np.unique(dataset.read(1)).tolist())
    assert len(mapped - {0}) > 1
    assert mapped <= set(range(len(card.classes) + 1))
    # What comes of adapters is a base model like any other.
    further = finetune_job | {"inputs": inputs, "base_model": str(tmp_path / "model.safetensors"), "mode": "adapters"}
    assert run_here(further).code == 0


def test_features_and_their_picture(job, pretrained, sample, tmp_path):
    inputs = {"optical": [str(sample.optical)], "sar": [str(sample.sar)]}
    request = {"kind": "features", "inputs": inputs, "model": job["output_model"], "output": str(tmp_path / "all.tif")}
    told = run_here(request)
    assert told.code == 0, told.last
    count = told.outputs["N_FEATURES"]
    with rasterio.open(tmp_path / "all.tif") as dataset, rasterio.open(sample.optical) as optical:
        assert (dataset.count, dataset.shape, dataset.crs) == (count, optical.shape, optical.crs)
        values = dataset.read()
        assert dataset.tags()["RSFUSION_MODEL"] == "base.safetensors"
    known = np.isfinite(values[0])
    assert known.mean() > 0.8
    assert values[:, known].std(axis=1).max() > 0.01
    told = run_here(request | {"picture": True, "output": str(tmp_path / "picture.tif")})
    assert told.code == 0, told.last
    with rasterio.open(tmp_path / "picture.tif") as dataset:
        assert dataset.dtypes == ("uint8",) * 3
        picture = dataset.read()
    assert (picture[:, ~known] == 0).all()
    assert (picture[:, known] > 0).all()
    assert picture[0, known].std() > 20
    told = run_here(request | {"components": 2, "output": str(tmp_path / "two.tif")})
    with rasterio.open(tmp_path / "two.tif") as dataset:
        two = dataset.read()[:, known]
    assert np.abs(two.mean(axis=1)).max() < 0.5
    assert two.std(axis=1) == pytest.approx(1, abs=0.35)
    assert abs(np.corrcoef(two)[0, 1]) < 0.3


def test_features_of_parts_side_by_side_are_those_of_the_whole(job, pretrained, sample, tmp_path, monkeypatch):
    inputs = {"optical": [str(sample.optical)], "sar": [str(sample.sar)]}
    request = {"kind": "features", "inputs": inputs, "model": job["output_model"]}
    for name in ("choose_tiling", "fixed_tiling"):
        monkeypatch.setattr(engine, name, lambda *_: Tiling(64, 48))
    assert run_here(request | {"output": str(tmp_path / "whole.tif")}).code == 0
    # As little memory as there can be; what is gathered lies on the disk.
    monkeypatch.setattr(feature_raster, "MAP_BYTES", 0)
    monkeypatch.setattr(MappingEngine, "_tiles_at_once", lambda *_: 1)
    monkeypatch.setattr(rasters, "_IN_MEMORY_BYTES", 0)
    parts = []
    panels = MappingEngine.panels
    monkeypatch.setattr(MappingEngine, "panels", lambda *given: parts.append(panels(*given)) or parts[-1])
    told = run_here(request | {"output": str(tmp_path / "parts.tif")})
    assert told.code == 0, told.last
    assert len(parts[0]) > 1
    with rasterio.open(tmp_path / "whole.tif") as whole, rasterio.open(tmp_path / "parts.tif") as given:
        np.testing.assert_allclose(given.read(), whole.read(), atol=1e-5)
    assert {path.name for path in tmp_path.iterdir()} == {"whole.tif", "parts.tif"}


def test_a_model_without_classes_maps_nothing(job, pretrained, sample, tmp_path):
    request = {
        "kind": "map",
        "inputs": {"optical": [str(sample.optical)], "sar": [str(sample.sar)]},
        "model": job["output_model"],
        "output": str(tmp_path / "map.tif"),
    }
    check_refused(request, tmp_path, "knows no classes yet", "Fine-tune it")


def test_further_scenes_are_found_by_their_names(job, sample, tmp_path):
    scenes = tmp_path / "scenes"
    for name in ("a", "b", "empty"):
        (scenes / name).mkdir(parents=True)
    shutil.copy(sample.optical, scenes / "a")
    shutil.copy(sample.sar, scenes / "a")
    shutil.copy(sample.sar, scenes / "b")
    told = run_command(
        "pretrain",
        *("--optical", str(sample.optical), "--sar", str(sample.sar), "--scenes", str(scenes), "--size", "tiny"),
        *("--epochs", "1", "--windows", "8", "--batch-size", "4", "--output-model", str(tmp_path / "base.safetensors")),
    )
    assert told.code == 0, told.stderr
    _, card = load_model(tmp_path / "base.safetensors")
    assert [list(scene) for scene in card.training["scenes"]] == [
        ["sentinel2_l2a", "sentinel1"],
        ["sentinel2_l2a", "sentinel1"],
        ["sentinel1"],
    ]
    assert "'empty' has no raster with such a name" in told.texts("info")


def test_it_goes_on_from_a_model(job, pretrained, tmp_path):
    told = run_here(
        job
        | {"initial_model": job["output_model"], "size": None, "epochs": 1, "output_model": str(tmp_path / "more.safetensors")}
        | {"report": None}
    )
    assert told.code == 0, told.last
    _, card = load_model(tmp_path / "more.safetensors")
    assert card.training["initial_model"] == "base.safetensors"
    assert card.specification == load_model(Path(job["output_model"]))[1].specification


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"switches": {"depth": "3"}}, ["no switch 'depth'", "ratio (0.5)"]),
        ({"minutes": 1.0}, ["give one of them"]),
        ({"scenes_folder": "nowhere"}, ["is no folder"]),
        ({"method": "cross_sensor_alignment", "scenes": "one"}, ["needs two sensors"]),
        ({"method": "byol"}, ["method"]),
    ],
)
def test_wrong_wishes_are_named(job, sample, tmp_path, changed, words):
    if changed.get("scenes") == "one":
        changed = changed | {"scenes": [{"optical": [str(sample.optical)]}], "size": None}
    request = job | {"output_model": str(tmp_path / "base.safetensors"), "report": None} | changed
    check_refused(request, tmp_path, *words, code=2)
