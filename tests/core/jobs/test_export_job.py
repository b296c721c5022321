"""Models as ONNX graphs: they map as the model files do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from core.finetuning.estimators.training import as_program
from core.labels.scheme import ClassScheme, LandCoverClass
from core.models.catalogue import N_CLASSES, named_specifications, stated_modalities
from core.models.estimator_model import EstimatorModel
from core.models.graphs.estimators import estimators_of
from core.models.graphs.export import export_graph
from core.models.graphs.onnx_model import OnnxModel
from core.models.model_file import ModelCard, class_cards
from core.models.registry import any_model, build_model
from core.models.specification import EstimatorSpecification, ModelSpecification
from core.models.vote_model import VoteModel
from tests.core.jobs.running import check_refused, run_here

pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def exported(network, tmp_path_factory):
    """The trained network of two inputs as a graph, with its item."""
    folder = tmp_path_factory.mktemp("exported")
    job = {
        "kind": "export",
        "model": str(network),
        "output": str(folder / "model.onnx"),
        "stac": str(folder / "item.json"),
    }
    told = run_here(job)
    assert told.code == 0, told.last
    assert {path.name for path in folder.iterdir()} == {"model.onnx", "item.json"}
    assert 0 <= told.outputs["LARGEST_DIFFERENCE"] <= 1e-4
    return folder


def test_a_graph_maps_as_the_model_does(network, exported, map_job, tmp_path):
    found = []
    for number, model in enumerate((str(network), str(exported / "model.onnx"))):
        paths = {key: str(tmp_path / f"{key}{number}.tif") for key in ("output", "probabilities")}
        told = run_here({**map_job, **paths, "model": model})
        assert told.code == 0, told.last
        found.append([rasterio.open(path).read() for path in paths.values()])
    (codes, probabilities), (by_graph, as_graph) = found
    np.testing.assert_allclose(as_graph, probabilities, atol=1e-4)
    assert (codes == by_graph).mean() > 0.999


def card_of(specification: ModelSpecification) -> ModelCard:
    codes = range(1, N_CLASSES + 1)
    classes = class_cards(ClassScheme("own", tuple(LandCoverClass(code, str(code), "#808080", str(code)) for code in codes)))
    return ModelCard(
        software_version="0",
        specification=specification,
        resolution_m=10.0,
        class_scheme="own",
        classes=classes,
        allows_missing=True,
    )


@pytest.mark.parametrize("name", ["vit_joint_tokens", "resunet_late"])
def test_networks_of_every_family_become_graphs(name):
    """On windows of two sizes, with gaps and without each of the inputs; transformers attend over the whole of a window."""
    modalities = stated_modalities("sentinel2_l2a,dsm@2.5", 10.0)
    (specification,) = (each for each in named_specifications(modalities, 10.0) if each.architecture == name)
    torch.manual_seed(0)
    model = build_model(specification).eval()
    _, difference = export_graph(model, card_of(specification))
    assert 0 < difference <= 1e-4


def fitted(specification: ModelSpecification) -> EstimatorModel | VoteModel:
    """With estimators of random labels for all inputs, and for one of them, where a class is never seen."""
    model = any_model(specification).eval()
    generator = np.random.default_rng(0)
    assert isinstance(model, EstimatorModel | VoteModel)
    for member in estimators_of(model):
        for number, classes in ((0, range(N_CLASSES)), (1, range(1, N_CLASSES))):
            columns = sum(part.stop - part.start for part in member.columns_of(member.subsets[number]))
            rows = generator.normal(size=(300, columns)).astype(np.float32)
            labels = np.array(classes)[np.arange(300) % len(classes)]
            kinds = {"forest": RandomForestClassifier(20), "boosting": HistGradientBoostingClassifier(max_iter=5)}
            estimator = kinds.get(member.estimator.kind, LogisticRegression(C=0.01))
            program = as_program(estimator.fit(rows, np.searchsorted(classes, labels)), columns)
            member.put(number, program, np.array(classes))
    if isinstance(model, VoteModel):
        model.temperatures = torch.linspace(0.5, 1.5, len(model.members))
    return model


VOTE = EstimatorSpecification(
    kind="vote",
    members=(
        EstimatorSpecification(kind="logistic"),
        EstimatorSpecification(kind="boosting"),
        EstimatorSpecification(kind="forest", neighbourhoods=True, base_features=True),
    ),
)


def test_estimators_become_graphs_with_all_that_leads_to_them():
    """Asked for all inputs, for one that has estimators of its own and for one that has none, and where nothing is known."""
    modalities = stated_modalities("sentinel1,dsm@2.5", 10.0)
    specification = next(
        each.model_copy(update={"estimator": VOTE, "has_shortcut": False, "depth": 1})
        for each in named_specifications(modalities, 10.0)
        if each.architecture == "unet_early"
    )
    torch.manual_seed(0)
    model, card = fitted(specification), card_of(specification)
    graph, difference = export_graph(model, card)
    assert difference <= 1e-4
    values = {
        entry.name: torch.full((1, len(entry.bands), 32 * entry.finer // entry.coarser, 48 * entry.finer // entry.coarser), 0.2)
        for entry in specification.modalities
    }
    for each in values.values():
        each[:, :, :, : each.shape[3] // 2] = torch.nan
    said, expected = OnnxModel(graph, specification)(values), model(values)
    assert said.shape == (1, N_CLASSES, 32, 48)
    np.testing.assert_allclose(said, expected, atol=1e-4)
    np.testing.assert_allclose(said[..., :20].exp(), 1 / N_CLASSES, rtol=1e-5)
    assert np.ptp(said[..., -1].detach().numpy(), axis=1).min() > 0.1, "elsewhere something is said"


def test_a_forest_maps_as_a_graph_and_has_no_eight_bits(few_labels, map_job, tmp_path):
    inputs = {"sar": map_job["inputs"]["sar"]}
    forest, labels = tmp_path / "forest.safetensors", {"path": str(few_labels), "class_field": "class"}
    job = {"inputs": inputs, "labels": labels, "mode": "forest", "output_model": str(forest)}
    assert run_here({"kind": "finetune", **job}).code == 0
    told = run_here({"kind": "export", "model": str(forest), "output": str(tmp_path / "forest.onnx")})
    assert told.code == 0, told.last
    found = []
    for number, model in enumerate((forest, tmp_path / "forest.onnx")):
        told = run_here({**map_job, "inputs": inputs, "model": str(model), "output": str(tmp_path / f"{number}.tif")})
        assert told.code == 0, told.last
        found.append(rasterio.open(tmp_path / f"{number}.tif").read())
    assert np.mean(found[0] == found[1]) > 0.99
    job = {"kind": "export", "model": str(forest), "output": str(tmp_path / "small.onnx"), "int8": True}
    check_refused({**job, "inputs": inputs}, tmp_path, "no convolutions")


def test_a_graph_in_eight_bits_keeps_the_classes(network, exported, map_job, tmp_path):
    job = {"kind": "export", "model": str(network), "output": str(tmp_path / "small.onnx"), "int8": True}
    told = run_here({**job, "inputs": map_job["inputs"]})
    assert told.code == 0, told.last
    assert told.outputs["SAME_CLASSES"] >= 0.99
    assert (tmp_path / "small.onnx").stat().st_size < 0.6 * (exported / "model.onnx").stat().st_size
    found = []
    for number, model in enumerate((exported / "model.onnx", tmp_path / "small.onnx")):
        told = run_here({**map_job, "model": str(model), "output": str(tmp_path / f"{number}.tif")})
        assert told.code == 0, told.last
        found.append(rasterio.open(tmp_path / f"{number}.tif").read())
    assert np.mean(found[0] == found[1]) > 0.99


def test_eight_bits_need_to_see_every_input(network, map_job, tmp_path):
    job = {"kind": "export", "model": str(network), "output": str(tmp_path / "small.onnx"), "int8": True}
    check_refused({**job, "inputs": {"optical": map_job["inputs"]["optical"]}}, tmp_path, "sentinel1")


def test_eight_bits_need_to_see_values(trained, tmp_path):
    job = {"kind": "export", "model": str(trained.model), "output": str(tmp_path / "small.onnx"), "int8": True}
    check_refused(job, tmp_path, "see what values there are", code=2)


def test_a_graph_maps_without_one_of_its_inputs(network, exported, map_job, tmp_path):
    found = []
    for number, model in enumerate((str(network), str(exported / "model.onnx"))):
        job = {**map_job, "inputs": {"optical": map_job["inputs"]["optical"]}, "model": model}
        told = run_here({**job, "output": str(tmp_path / f"{number}.tif"), "probabilities": str(tmp_path / f"p{number}.tif")})
        assert told.code == 0, told.last
        found.append(rasterio.open(tmp_path / f"p{number}.tif").read())
    np.testing.assert_allclose(found[1], found[0], atol=1e-4)


def test_the_item_says_what_goes_in_and_what_comes_out(exported):
    import pystac
    from pystac.extensions.mlm import MLMExtension

    item = pystac.Item.from_dict(json.loads((exported / "item.json").read_text()))
    model = MLMExtension.ext(item)
    assert model.framework == "ONNX"
    assert [entry.name for entry in model.input] == ["sentinel2_l2a", "sentinel1"]
    assert model.input[1].bands == ["VV", "VH"]
    classes = item.properties["mlm:output"][0]["classification:classes"]
    assert [entry["title"] for entry in classes][:2] == ["Bare ground", "Built-up"]
    assert item.assets["model"].href.endswith("model.onnx")


def test_the_item_keeps_the_rules_of_the_schema(exported):
    """Those of MLM 1.4 and 1.5 that pystac does not see to, and those of the classification extension."""
    import re

    item = json.loads((exported / "item.json").read_text())
    properties = item["properties"]
    described = [band["name"] for band in properties["bands"]]
    assert len(set(described)) == len(described)
    for entry in properties["mlm:input"]:
        assert "bands" in entry["input"]["dim_order"]
        assert set(entry["bands"]) <= set(described)
        assert len(entry["input"]["dim_order"]) == len(entry["input"]["shape"])
    (output,) = properties["mlm:output"]
    assert "bands" not in output["result"]["dim_order"]
    for entry in output["classification:classes"]:
        assert re.fullmatch(r"[0-9A-Za-z_-]+", entry["name"])
        assert re.fullmatch(r"[0-9A-F]{6}", entry["color_hint"])
    assert item["assets"]["model"]["roles"] == ["mlm:model"]
    assert not {key for key in item["assets"]["model"] if key.startswith("mlm:")} - {"mlm:artifact_type"}
    assert re.match(r"1\.[1-9]", item["stac_version"])
    assert re.fullmatch(r"[\w\-.+]+", properties["license"])
    assert item["assets"]["model"]["href"] == "./model.onnx"


def test_an_item_in_another_folder_finds_its_graph(network, tmp_path):
    from core.models.model_file import load_model
    from core.models.stac_item import stac_item

    card = load_model(network)[1]
    item = json.loads(stac_item(card, tmp_path / "my graphs" / "a.onnx", tmp_path / "items"))
    assert item["assets"]["model"]["href"] == "../my%20graphs/a.onnx"


@pytest.mark.parametrize("stem", ["a", "ab", "abc", "1 map", "é", "my.model-", "Wälder 2026"])
def test_any_file_name_makes_a_name_that_the_schema_takes(stem):
    import re

    from core.models.stac_item import _name

    assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]", _name(stem))


def test_what_is_no_graph_of_ours_is_refused(exported, map_job, tmp_path):
    import onnx

    proto = onnx.load(exported / "model.onnx")
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / "stranger.onnx")
    (tmp_path / "noise.onnx").write_bytes(b"\x08\x07noise")
    (tmp_path / "short.onnx").write_bytes((exported / "model.onnx").read_bytes()[:-2000])
    for name, words in (
        ("stranger", "not exported by this software"),
        ("noise", "no ONNX graph"),
        ("short", "graph"),
        ("no", "exist"),
    ):
        check_refused({**map_job, "model": str(tmp_path / f"{name}.onnx")}, tmp_path, words)
    novelty = {**map_job, "model": str(exported / "model.onnx"), "novelty": str(tmp_path / "novelty.tif")}
    check_refused(novelty, tmp_path, "what the model has seen", code=2)


def test_without_the_packages_the_way_to_get_them_is_said(trained, tmp_path: Path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnxscript", None)
    job = {"kind": "export", "model": str(trained.model), "output": str(tmp_path / "model.onnx")}
    check_refused(job, tmp_path, "pip install 'rsfusion[export]'", code=2)


def test_a_graph_that_answers_nothing_is_refused(trained):
    from core.models.graphs import export
    from core.models.model_file import load_model

    model, card = load_model(trained.model)
    silent = lambda values: torch.full_like(model(values), torch.nan)  # noqa: E731
    assert not export._largest_difference(model, silent, card) <= export.TOLERANCE
