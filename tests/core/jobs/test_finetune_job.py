"""The job that trains: what it learns from, what it writes, and that it does so again."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import geopandas
import numpy as np
import pytest
import rasterio
from safetensors.numpy import load_file

from core.finetuning.networks.settings import TrainingSettings
from core.jobs.learning.network_trials import settings_to_try
from core.jobs.models.listing import model_data, model_text
from core.jobs.schemas import FinetuneJob
from core.models.architectures import title_of
from core.models.model_file import load_model
from tests.core.jobs.running import check_refused, run_command, run_here, snapshot

WAYS = [("all", 1.0), ("last", 1.0), ("head", 1.0), ("adapters", 1.0), ("all", 0.8)]
"""Part trained and decay of the rate, of a base model."""


def card_of(path: str | Path):
    return load_model(Path(path))[1]


def test_the_card_says_what_the_model_is(trained):
    card = card_of(trained.model)
    assert card.scheme.names == ("Bare ground", "Built-up", "Crops", "Grassland", "Trees", "Water", "Wetland")
    assert card.resolution_m == pytest.approx(10, rel=0.01)
    assert card.created == "2023-11-14T22:13:20+00:00"
    assert [modality.sensor for modality in card.specification.modalities] == ["sentinel2_l2a", "sentinel1"]
    assert card.training["labels"] == "labels.gpkg"
    assert card.training["settings"]["epochs"] == 2
    assert 0 < card.training["features_held_out"] < card.training["features"] == 84
    models = card.scores["models"]
    assert models[0]["name"] == "U-Net, intermediate fusion"
    assert len(models) == 6
    assert models[0]["overall_accuracy"] == trained.told.outputs["OVERALL_ACCURACY"]
    assert models[0]["macro_f1"] == trained.told.outputs["MACRO_F1"]
    assert str(trained.model.parent) not in card.model_dump_json()


def test_the_card_the_report_and_the_log_say_what_is_left_where_inputs_are_missing(trained):
    card = card_of(trained.model)
    assert card.allows_missing
    whole, *parts = card.scores["missing_inputs"]
    assert whole["inputs"] == ["sentinel2_l2a", "sentinel1"]
    assert whole["overall_accuracy"] == card.scores["models"][0]["overall_accuracy"]
    assert whole["temperature"] == round(card.temperature, 4)
    assert [row["inputs"] for row in parts] == [["sentinel2_l2a"], ["sentinel1"]]
    page = trained.report.read_text(encoding="utf-8")
    data = json.loads(page.split('id="rsfusion-data">')[1].split("</script>")[0])
    assert [row["is_complete"] for row in data["missing_inputs"]] == [True, False, False]
    assert "Where inputs are missing" in page
    assert "Sentinel-1 C-band SAR" in page.split("Where inputs are missing")[1]
    for row, shown in zip([whole, *parts], data["missing_inputs"], strict=True):
        assert 0 < row["pixels"] == shown["pixels"] <= whole["pixels"]
        for key in ("overall_accuracy", "macro_f1", "mean_iou", "temperature"):
            assert row[key] == round(shown[key], 4)
    for row, shown in zip(parts, data["missing_inputs"][1:], strict=True):
        assert round(card.temperatures["+".join(row["inputs"])], 4) == row["temperature"]
        accuracy = f"overall accuracy {shown['overall_accuracy']:.3f}"
        assert f"With {row['inputs'][0]} alone: {accuracy}" in trained.told.texts("info")


def test_the_card_the_report_and_the_log_say_how_honest_the_probabilities_are(trained):
    error = trained.told.outputs["EXPECTED_CALIBRATION_ERROR"]
    assert 0 < error < 1
    card = card_of(trained.model)
    said = card.scores["calibration"]
    assert said["expected_calibration_error"] == error
    assert said["pixels"] == card.scores["missing_inputs"][0]["pixels"], "those held out"
    page = trained.report.read_text(encoding="utf-8")
    data = json.loads(page.split('id="rsfusion-data">')[1].split("</script>")[0])["calibration"]
    assert round(data["expected_calibration_error"], 4) == error
    assert round(data["expected_calibration_error_before_scaling"], 4) == said["before_scaling"]
    assert round(data["same_pixels_error"], 4) == said["on_pixels_of_the_fit"]
    assert data["temperature"] == pytest.approx(card.temperature)
    assert "all held out, which also chose the epoch" in page
    numbers = f"{data['expected_calibration_error']:.3f}, and {data['expected_calibration_error_before_scaling']:.3f} before"
    assert f"Expected calibration error of the probabilities: {numbers}" in trained.told.texts("info")


def test_a_model_that_needs_all_inputs(finetune_job, trained, few_labels):
    told = run_here({**finetune_job, "inputs": trained.job["inputs"], "missing_inputs": "require"})
    assert told.code == 0, told.last
    card = card_of(finetune_job["output_model"])
    assert (card.allows_missing, card.temperatures, card.scores["missing_inputs"]) == (False, {}, [])
    page = Path(finetune_job["report"]).read_text(encoding="utf-8")
    assert "Where inputs are missing" not in page
    assert "The model needs all of its inputs" in page
    assert "alone:" not in told.texts("info")


def test_spread_labels_are_told_and_not_scored(finetune_job):
    plain = run_here({**finetune_job, "mode": "logistic"})
    before = card_of(finetune_job["output_model"])
    told = run_here({**finetune_job, "mode": "logistic", "spread_labels": True})
    assert told.code == 0, told.last
    assert "take the class of their super-pixel" in told.texts("info")
    assert "super-pixel" not in plain.texts("info")
    card = card_of(finetune_job["output_model"])
    assert (before.training["spread_labels"], card.training["spread_labels"]) == (False, True)
    assert card.scores["calibration"]["pixels"] == before.scores["calibration"]["pixels"]
    assert card.scores["models"] != before.scores["models"]
    page = Path(finetune_job["report"]).read_text(encoding="utf-8")
    assert "spread labels" in page


def test_rounds_of_self_training_are_told_and_not_scored(finetune_job):
    run_here({**finetune_job, "mode": "logistic"})
    before = card_of(finetune_job["output_model"])
    weights = load_file(finetune_job["output_model"])["programs.0"]
    told = run_here({**finetune_job, "mode": "logistic", "self_training": 2})
    assert told.code == 0, told.last
    card = card_of(finetune_job["output_model"])
    assert (before.training["self_training"], card.training["self_training"]) == (0, 2)
    assert card.scores["calibration"]["pixels"] == before.scores["calibration"]["pixels"]
    assert not np.array_equal(load_file(finetune_job["output_model"])["programs.0"], weights)
    assert "self-training rounds" in Path(finetune_job["report"]).read_text(encoding="utf-8")


def test_parts_in_place_of_the_architectures_own(finetune_job):
    """Over a single raster, where there is nothing to fuse: the model is its encoder."""
    job = {**finetune_job, "architecture": "unet_late", "encoder": "resunet", "fusion": "cross_modality", "size": "small"}
    told = run_here(job)
    assert told.code == 0, told.last
    title = "U-Net, late fusion (encoder resunet, fusion cross_modality)"
    assert f"Model: {title}, " in told.texts("info")
    card = card_of(job["output_model"])
    specification = card.specification
    assert (specification.encoder, specification.fusion, specification.size) == ("resunet", "cross_modality", "small")
    assert card.scores["models"][0]["name"] == title
    assert not card.allows_missing, "there is nothing that could be missing"
    page = Path(job["report"]).read_text(encoding="utf-8")
    assert "Where inputs are missing" not in page
    assert "needs all of its inputs" not in page


@pytest.mark.parametrize(
    ("architecture", "level"), [("unet_intermediate", None), ("unet_early", "warning"), ("vit_joint_tokens", "warning")]
)
def test_a_base_model_keeps_its_architecture_and_that_is_said(finetune_job, trained, architecture, level):
    job = {
        **finetune_job,
        "inputs": trained.job["inputs"],
        "mode": "full",
        "base_model": str(trained.model),
        "architecture": architecture,
    }

    def stop(context, event) -> None:
        if event.get("phase", "").startswith("Fitting"):
            context.cancel()

    told = run_here({**job, "encoder": "unet", "size": "tiny"}, stop)
    assert told.code == 130, told.last
    line = f"The architecture is that of the base model, U-Net, intermediate fusion; '{architecture}' is not used."
    for other in ("info", "warning"):
        assert (line in told.texts(other)) == (other == level)


@pytest.mark.parametrize("field", ["class", "code"])
def test_a_base_model_is_trained_on_a_scene_that_lacks_an_input(finetune_job, trained, sample, field):
    """With the same classes, whose linear models it keeps, and with others."""
    job = {
        **finetune_job,
        "inputs": {"optical": [str(sample.optical)]},
        "mode": "full",
        "base_model": str(trained.model),
        "epochs": 2,
    }
    job["labels"] = {**finetune_job["labels"], "class_field": field}
    told = run_here(job)
    assert told.code == 0, told.last
    card = load_model(Path(job["output_model"]))[1]
    assert [entry.name for entry in card.specification.modalities] == ["sentinel2_l2a", "sentinel1"]
    assert card.training["inputs"] == {"sentinel2_l2a": ["sentinel2_l2a.tif"]}
    assert card.allows_missing


def test_the_report_is_one_file_with_the_same_numbers(trained):
    page = trained.report.read_text(encoding="utf-8")
    data = json.loads(page.split('id="rsfusion-data">')[1].split("</script>")[0])
    assert round(data["overall_accuracy"], 4) == trained.told.outputs["OVERALL_ACCURACY"]
    assert len(data["curves"]) == 2
    assert [model["is_delivered"] for model in data["models"]] == [True] + 5 * [False]
    assert 'src="http' not in page
    assert 'href="http' not in page
    assert str(trained.model.parent) not in page


def test_the_same_seed_gives_the_same_bytes_in_another_process(finetune_job, tmp_path):
    """Through the command line and here; neither the names of the files nor the report have a say."""
    here = run_here(finetune_job)
    assert here.code == 0, here.last
    path = tmp_path / "job.json"
    path.write_text(json.dumps({**finetune_job, "output_model": str(tmp_path / "again.safetensors"), "report": None}))
    there = run_command("run", str(path))
    assert there.code == 0, there.last
    assert (tmp_path / "again.safetensors").read_bytes() == Path(finetune_job["output_model"]).read_bytes()
    assert there.outputs == {**here.outputs, "OUTPUT_MODEL": str(tmp_path / "again.safetensors"), "REPORT": ""}
    assert set(snapshot(tmp_path / "out")) == {"model.safetensors", "report.html"}


@pytest.fixture(scope="module")
def styled(sample, tmp_path_factory) -> Path:
    """Points with whole numbers as classes, and the style that QGIS keeps beside them."""
    folder = tmp_path_factory.mktemp("styled")
    points = geopandas.read_file(sample.reference)
    points[points["code"].isin([1, 2, 5])].groupby("code").head(8).to_file(folder / "points.gpkg", driver="GPKG")
    categories = [(1, "Wasser", "20,40,220,255"), (2, "Wald", "10,120,30,255"), (5, "Äcker", "230,200,40,255")]
    symbols = "".join(
        f'<symbol name="{i}" type="marker"><layer class="SimpleMarker"><prop k="color" v="{colour}"/></layer></symbol>'
        for i, (_, _, colour) in enumerate(categories)
    )
    entries = "".join(f'<category value="{v}" label="{label}" symbol="{i}"/>' for i, (v, label, _) in enumerate(categories))
    (folder / "points.qml").write_text(
        f'<qgis><renderer-v2 type="categorizedSymbol" attr="code"><categories>{entries}</categories>'
        f"<symbols>{symbols}</symbols></renderer-v2></qgis>",
        encoding="utf-8",
    )
    return folder / "points.gpkg"


def test_points_with_a_style_and_a_base_model(finetune_job, styled, trained, tmp_path):
    """Names and colours come from the style beside the labels; all weights but the classes' from the base model."""
    job = {
        **finetune_job,
        "labels": {"path": str(styled), "class_field": "code"},
        "mode": "full",
        "base_model": str(trained.model),
        "report": None,
    }
    job["inputs"] = trained.job["inputs"]
    told = run_here(job)
    assert told.code == 0, told.last
    card = card_of(job["output_model"])
    assert (told.outputs["EXPECTED_CALIBRATION_ERROR"], card.scores["calibration"]) == ("", None), "of so few points"
    assert "Expected calibration error: it could not be measured." in told.texts("info")
    assert [(entry.code, entry.name, entry.colour) for entry in card.scheme.classes] == [
        (1, "Wasser", "#1428dc"),
        (2, "Wald", "#0a781e"),
        (5, "Äcker", "#e6c828"),
    ]
    assert card.training["base_model"] == "model.safetensors"
    assert card.specification.architecture == "unet_intermediate", "that of the base model"
    assert told.fractions == sorted(told.fractions)
    from core.finetuning.networks.start import start_model

    base = load_model(trained.model)
    begun = start_model(card.specification, 0, base, card.scheme).state_dict()
    own = base[0].state_dict()
    taken = [name for name, value in begun.items() if value.shape == own[name].shape and bool((value == own[name]).all())]
    assert len(taken) > 0.9 * len(begun)


def test_a_shipped_class_scheme_gives_codes_and_colours(finetune_job, sample, tmp_path):
    names = {"Water": "Permanent water bodies", "Crops": "Cropland", "Trees": "Tree cover"}
    frame = geopandas.read_file(sample.labels)
    frame = frame[frame["class"].isin(names)]
    frame.assign(**{"class": frame["class"].map(names)}).to_file(tmp_path / "worldcover.gpkg", driver="GPKG")
    labels = {"path": str(tmp_path / "worldcover.gpkg"), "class_field": "class", "class_scheme": "esa_worldcover"}
    told = run_here({**finetune_job, "labels": labels, "report": None})
    assert told.code == 0, told.last
    card = card_of(finetune_job["output_model"])
    assert card.class_scheme == "esa_worldcover"
    assert dict(zip(card.scheme.names, card.scheme.codes, strict=True)) == {
        "Tree cover": 10,
        "Cropland": 40,
        "Permanent water bodies": 80,
    }
    assert set(snapshot(tmp_path / "out")) == {"model.safetensors"}


def test_classes_of_the_job_count_before_the_style(finetune_job, few_labels):
    classes = [
        {"value": "Trees", "name": "Forêt", "colour": "#00FF00"},
        {"value": "Water", "name": "Eau", "colour": "#0000ff"},
        {"value": "Crops", "name": "Champs", "colour": "#ffff00"},
    ]
    told = run_here({**finetune_job, "labels": {**finetune_job["labels"], "classes": classes}})
    assert told.code == 0, told.last
    scheme = card_of(finetune_job["output_model"]).scheme
    assert (scheme.names, scheme.colours) == (("Forêt", "Eau", "Champs"), ("#00ff00", "#0000ff", "#ffff00"))
    assert "Forêt: 4 features" in told.texts("info")
    assert "Forêt" in Path(finetune_job["report"]).read_text(encoding="utf-8")


def test_labels_without_data_are_said_and_not_held_out(finetune_job, few_labels, sample, tmp_path):
    """A gap in the raster over half of one class's polygons: the split is made of what is left."""
    import rasterio
    from rasterio.features import geometry_mask

    from tests.core.jobs.running import rewrite_raster

    frame = geopandas.read_file(few_labels).to_crs("EPSG:32633")
    hidden = frame[frame["class"] == "Water"].iloc[:2].geometry.buffer(15)
    with rasterio.open(sample.optical) as dataset:
        gone = geometry_mask(hidden, dataset.shape, dataset.transform, invert=True)
    path = rewrite_raster(sample.optical, tmp_path / "gap.tif", lambda values, _: np.where(gone, 0, values).astype("uint16"))
    told = run_here({**finetune_job, "inputs": {"optical": [path]}})
    assert told.code == 0, told.last
    assert "labelled pixels lie where a raster has no data; they are ignored" in told.texts("warning")
    assert "labelled pixels lie where a raster has no data" in Path(finetune_job["report"]).read_text(encoding="utf-8")


@pytest.mark.parametrize("phase", ["Reading the surroundings", "Fitting: logistic", "Training: epoch 1", "Mapping a piece"])
def test_cancelling_leaves_what_was_there(finetune_job, tmp_path, phase):
    for key in ("output_model", "report"):
        Path(finetune_job[key]).write_bytes(b"old")
    before = snapshot(tmp_path)
    told = run_here(finetune_job, lambda context, event: context.cancel() if event.get("phase", "").startswith(phase) else None)
    assert (told.code, told.last) == (130, {"event": "cancelled"})
    assert snapshot(tmp_path) == before


def test_a_training_goes_on_where_the_system_ended_it(finetune_job, tmp_path):
    """With the same bytes in the end; a checkpoint of another seed is of no use to it."""
    job = {**finetune_job, "epochs": 2, "report": None}

    def end(context, event) -> None:
        if event.get("phase", "").startswith("Training: epoch 2"):
            context.cancel(resumable=True)

    def begins_anew(told) -> bool:
        return any(event.get("phase", "").startswith("Training: epoch 1") for event in told.events)

    checkpoint = tmp_path / "out" / ".model.safetensors.checkpoint.safetensors"
    model = Path(job["output_model"])
    assert run_here({**job, "seed": 1}, end).code == 130
    assert set(snapshot(tmp_path / "out")) == {checkpoint.name}
    whole = run_here(job)
    assert begins_anew(whole)
    assert set(snapshot(tmp_path / "out")) == {model.name}
    expected = model.read_bytes()
    assert run_here(job, end).code == 130
    assert checkpoint.exists()
    resumed = run_here(job)
    assert not begins_anew(resumed)
    assert "goes on from there" in resumed.texts("info")
    assert model.read_bytes() == expected
    assert resumed.outputs == whole.outputs
    assert set(snapshot(tmp_path / "out")) == {model.name}


def test_auto_tries_networks_within_its_minutes(finetune_job, tmp_path):
    """All three rates where there is time, one network where there is none, and none twice after an interruption."""
    job = {**finetune_job, "mode": "auto", "minutes": 1000}

    def trained(told) -> list[str]:
        return re.findall(r"Network (\d) of at most 3", told.texts("info"))

    def end(context, event) -> None:
        if event.get("phase", "").startswith("Fitting with some of the inputs"):
            context.cancel(resumable=True)

    folder = tmp_path / "out"
    stem = ".model.safetensors"
    assert run_here(job, end).code == 130
    kept = {f"{stem}.checkpoint.safetensors", f"{stem}.1.checkpoint.safetensors", f"{stem}.2.checkpoint.safetensors"}
    assert set(snapshot(folder)) == kept
    told = run_here(job)
    assert told.code == 0, told.last
    assert trained(told) == ["1", "2", "3"]
    assert "3 of 3 networks were trained; " in told.texts("info")
    assert not any(event.get("phase", "").startswith("Training: epoch") for event in told.events), "the interrupted run had"
    names = [row["name"] for row in card_of(job["output_model"]).scores["models"]]
    assert {f"U-Net, early fusion, learning rate {rate}" for rate in ("0.001", "0.0003", "0.003")} < set(names)
    assert set(snapshot(folder)) == {"model.safetensors", "report.html"}
    assert "None of 3 networks was clearly better" in Path(job["report"]).read_text(encoding="utf-8")
    for number in ("", ".1", ".2"):  # left by another job: of no use, and no reason to go on
        (folder / f"{stem}{number}.checkpoint.safetensors").write_bytes(b"another's")
    hurried = run_here({**job, "minutes": 0.001})
    assert trained(hurried) == ["1"]
    assert "1 of 3 networks were trained; " in hurried.texts("info")
    assert run_here({**job, "mode": "forest"}).code == 2


@pytest.mark.parametrize(
    ("has_base", "expected"),
    [
        (False, [("all", 1.0, rate) for rate in (1e-3, 3e-4, 3e-3)]),
        (True, [(*way, rate) for rate in (1e-3, 3e-4, 3e-3) for way in WAYS]),
    ],
)
def test_what_is_tried(finetune_job, has_base, expected):
    prepared = SimpleNamespace(settings=TrainingSettings(epochs=1), base="a model" if has_base else None, labels=range(30))
    job = FinetuneJob(**{**finetune_job, "mode": "auto", "minutes": 5})
    tried = settings_to_try(job, prepared)
    assert [(each.trained_part, each.layer_decay, each.learning_rate) for each in tried] == expected
    assert settings_to_try(job.model_copy(update={"minutes": None}), prepared) == [prepared.settings]


def test_a_damaged_checkpoint_is_not_used(finetune_job, tmp_path):
    checkpoint = tmp_path / "out" / ".model.safetensors.checkpoint.safetensors"
    checkpoint.write_bytes(b"half a checkpoint")
    told = run_here({**finetune_job, "report": None})
    assert told.code == 0, told.last
    assert set(snapshot(tmp_path / "out")) == {"model.safetensors"}


def test_a_model_maps_what_it_was_trained_on_from_another_folder(trained, sample, tmp_path):
    """A model carries all that it needs."""
    moved = tmp_path / "moved.safetensors"
    shutil.copy(trained.model, moved)
    extent = {"left": 310_200, "bottom": 5_819_400, "right": 310_600, "top": 5_819_800, "crs": "EPSG:32633"}
    job = {"kind": "map", "inputs": trained.job["inputs"], "model": str(moved), "extent": extent}
    assert run_here({**job, "output": str(tmp_path / "map.tif")}).code == 0


@pytest.mark.parametrize("mode", ["forest", "boosting", "logistic", "auto"])
def test_an_estimator_is_the_model_maps_and_misses_inputs(finetune_job, sample, tmp_path, mode, monkeypatch):
    monkeypatch.setattr("core.finetuning.estimators.training.TREES", 20)
    monkeypatch.setattr("core.finetuning.estimators.training.ROUNDS", 10)
    inputs = {"optical": [str(sample.optical)], "sar": [str(sample.sar)]}
    # One epoch of a network is no match for anything.
    job = {**finetune_job, "inputs": inputs, "mode": mode, "labels": {"path": str(sample.labels), "class_field": "class"}}
    told = run_here(job)
    assert told.code == 0, told.last
    card = card_of(Path(job["output_model"]))
    assert card.training["mode"] == mode
    assert card.specification.estimator is not None
    assert mode in ("auto", card.specification.estimator.kind)
    title = title_of(card.specification)
    assert told.outputs["MODEL_USED"] == card.scores["models"][0]["name"] == title
    page = Path(job["report"]).read_text(encoding="utf-8")
    assert title in page
    worth = json.loads(re.search(r'id="rsfusion-data">(.*?)</script>', page, re.DOTALL).group(1))["label_worth"]
    assert worth["name"] == title
    features = [point["features"] for point in worth["points"]]
    assert features == sorted(set(features))
    assert f"{worth['nearby']['overall_accuracy']:.3f} where pixels are held out at random" in told.texts("info")
    names = [model["name"] for model in card.scores["models"]]
    assert len(names) == len(set(names)) == {"auto": 6, "boosting": 7}.get(mode, 5)
    assert ("U-Net, early fusion" in names) == (mode == "auto")
    assert card.scores["models"][0]["overall_accuracy"] > 0.6
    calibration = card.scores["calibration"]
    assert 0 < told.outputs["EXPECTED_CALIBRATION_ERROR"] == calibration["expected_calibration_error"] < 0.5
    assert calibration["pixels"] > 2 * card.scores["missing_inputs"][0]["pixels"], "all parts of the cross-validation"
    assert {tuple(row["inputs"]) for row in card.scores["missing_inputs"]} > {("sentinel2_l2a",), ("sentinel1",)}
    request = {
        "kind": "map",
        "inputs": {"sar": inputs["sar"]},
        "model": job["output_model"],
        "output": str(tmp_path / "map.tif"),
    }
    told = run_here(request)
    assert told.code == 0, told.last
    with rasterio.open(tmp_path / "map.tif") as dataset:
        assert len(np.unique(dataset.read(1))) > 3


def test_an_estimator_is_described_and_cannot_be_trained_further(finetune_job, tmp_path):
    first = {**finetune_job, "mode": "logistic", "output_model": str(tmp_path / "base.safetensors"), "report": None}
    assert run_here(first).code == 0
    data = model_data(first["output_model"])
    assert data["estimator"]["kind"] == "logistic"
    text = model_text(data)
    assert text.startswith("base.safetensors: Logistic regression on pixels")
    assert "encoder" not in text
    again = {**finetune_job, "mode": "full", "base_model": first["output_model"]}
    check_refused(again, tmp_path, "cannot be trained further", code=2)
