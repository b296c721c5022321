"""Models as ONNX graphs: they map as the model files do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from core.labels.scheme import ClassScheme, LandCoverClass
from core.models.catalogue import N_CLASSES, named_specifications, stated_modalities
from core.models.model_file import ModelCard, class_cards
from core.models.onnx_model import export_graph
from core.models.registry import build_model
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


@pytest.mark.parametrize("name", ["vit_joint_tokens", "resunet_late"])
def test_networks_of_every_family_become_graphs(name):
    """On windows of two sizes, with gaps and without each of the inputs; transformers attend over the whole of a window."""
    modalities = stated_modalities("sentinel2_l2a,dsm@2.5", 10.0)
    (specification,) = (each for each in named_specifications(modalities, 10.0) if each.architecture == name)
    torch.manual_seed(0)
    model = build_model(specification).eval()
    codes = range(1, N_CLASSES + 1)
    classes = class_cards(ClassScheme("own", tuple(LandCoverClass(code, str(code), "#808080", str(code)) for code in codes)))
    card = ModelCard(
        software_version="0",
        specification=specification,
        resolution_m=10.0,
        class_scheme="own",
        classes=classes,
        allows_missing=True,
    )
    _, difference = export_graph(model, card)
    assert 0 < difference <= 1e-4


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


def test_a_graph_that_answers_nothing_is_refused(trained, monkeypatch):
    import torch

    from core.models import onnx_model
    from core.models.model_file import load_model

    model, card = load_model(trained.model)
    silent = lambda values: torch.full_like(model(values), torch.nan)  # noqa: E731
    assert not onnx_model._largest_difference(model, silent, card.allows_missing) <= onnx_model.TOLERANCE
