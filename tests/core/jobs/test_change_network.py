"""A network with the head of change beside the vote, on the simulated pair of ``test_change_detection``."""

import numpy as np
import pytest
import rasterio
import torch

from core.finetuning.change.network import prepare_change_network
from core.labels.reading import read_labels
from core.mapping.engine import MappingEngine
from core.models.alteration import fit_alteration
from core.models.model_file import ModelCard, class_cards, save_model
from core.models.registry import build_model
from core.models.specify import specify_for_scenes
from core.scenes.date_pair import LATER, PairReader, pair_dates
from core.scenes.grid import Window
from core.scenes.scene import SceneRequest, build_scene
from tests.core.jobs import test_change_detection as detection
from tests.core.jobs.running import check_refused, run_here, snapshot
from tests.core.jobs.test_change_detection import BANDS, COLUMNS, ROWS, codes_of, missing, write

images, job, labels = detection.images, detection.job, detection.labels


@pytest.fixture
def network_job(job, labels, tmp_path):
    """One epoch: enough to go the whole way, and not enough to be better than the vote."""
    return job | {
        "labels": labels,
        "mode": "network",
        "epochs": 1,
        "device": "cpu",
        "probability": str(tmp_path / "probability.tif"),
        "report": str(tmp_path / "report.html"),
    }


def scene_of(path):
    return build_scene(SceneRequest({"optical": [path]}, {"optical": "generic"}))


def save_base(scene, path, seed=0):
    """A model without classes, as pre-training makes it."""
    specification, _ = specify_for_scenes([scene], "unet_intermediate")
    torch.manual_seed(seed)
    model = build_model(specification)
    card = ModelCard(
        software_version="test", specification=specification, resolution_m=10, class_scheme="", classes=(), allows_missing=False
    )
    save_model(path, model, card)
    return model, card


@pytest.fixture
def prepared(job, labels):
    """A function that prepares a network from a base model or from nothing, with the labels."""
    pair = pair_dates(*(scene_of(path) for path in job["inputs"]["optical"] + job["after_optical"]))
    with PairReader(pair) as reader:
        values = reader.read(Window(0, 0, COLUMNS, ROWS)).reshape(2, BANDS, -1)
    alteration = fit_alteration(values[:, :, np.isfinite(values[0, 0])], lambda part, phase: None)
    drawn = read_labels(labels["path"], labels["class_field"], pair.grid)

    def prepare(base=None):
        return prepare_change_network(pair, alteration, drawn, base, 1, 0, lambda part, phase: None), drawn

    return prepare


def test_a_network_that_is_not_clearly_better_maps_nothing(network_job, tmp_path):
    told = run_here(network_job)
    assert told.outputs["MODEL_USED"].startswith("Vote of")
    assert "not clearly better than the vote" in told.texts("info")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "U-Net, intermediate fusion on both dates" in page
    assert "not clearly better than the vote" in page
    codes = codes_of(network_job["output"])
    assert not [name for name in snapshot(tmp_path) if "checkpoint" in name]
    assert run_here({**network_job, "mode": "vote"}).code == 0
    np.testing.assert_array_equal(codes_of(network_job["output"]), codes)


def test_a_network_that_is_taken_maps_where_both_dates_have_data(network_job, tmp_path, monkeypatch):
    """With a limit that any network passes, since one that beats the vote on so easy a pair would take long to train."""
    monkeypatch.setattr("core.finetuning.estimators.candidates.CLEARLY", -1e9)
    network_job["variates"] = str(tmp_path / "variates.tif")
    told = run_here(network_job)
    assert told.outputs["MODEL_USED"] == "U-Net, intermediate fusion on both dates"
    assert "and makes the map" in (tmp_path / "report.html").read_text(encoding="utf-8")
    codes, probability = codes_of(network_job["output"]), codes_of(network_job["probability"])
    np.testing.assert_array_equal(codes == 0, missing())
    np.testing.assert_array_equal(np.isnan(probability), missing())
    assert set(np.unique(codes[~missing()])) <= {1, 2}
    names = detection.open_class_raster(network_job["output"]).scheme.names
    is_new = codes == 1 + names.index("new")
    np.testing.assert_array_equal((probability > 50)[~missing()], is_new[~missing()])
    with rasterio.open(network_job["variates"]) as dataset:
        np.testing.assert_array_equal(np.isnan(dataset.read(1)), missing())
        assert '"mode": "network"' in dataset.tags()["RSFUSION_SETTINGS"]


def test_the_map_of_a_crop_is_the_crop_of_the_map(prepared):
    start, drawn = prepared()
    card = ModelCard(
        software_version="test",
        specification=start.specification,
        resolution_m=10,
        class_scheme="drawn",
        classes=class_cards(drawn.scheme),
    )
    engine = MappingEngine(start.model.eval(), card, start.pair.scene, torch.device("cpu"))

    def mapped(window):
        strips = list(engine.strips(window))
        shares = np.concatenate([strip.probabilities for strip in strips], axis=1)
        return shares, np.concatenate([strip.mapped for strip in strips])

    shares, known = mapped(Window(0, 0, COLUMNS, ROWS))
    np.testing.assert_array_equal(known, ~missing())
    part, _ = mapped(Window(33, 41, 50, 30))
    np.testing.assert_allclose(part, shares[:, 41:71, 33:83], atol=1e-5)


def test_without_other_light_the_order_of_the_dates_does_not_matter(prepared):
    """The head sees how much the dates differ, and not which way: it cannot tell gain from loss."""
    model = prepared()[0].model.eval()
    name = model.names[0]
    model.get_buffer(f"gain_{name}").fill_(1.0)
    model.get_buffer(f"offset_{name}").fill_(0.0)
    one, two = torch.randn(2, 1, BANDS, 32, 32, generator=torch.Generator().manual_seed(0)) * 10 + 50
    with torch.inference_mode():
        forward, backward = model({name: one, name + LATER: two}), model({name: two, name + LATER: one})
    torch.testing.assert_close(forward, backward)
    assert forward.std() > 0


def test_a_base_model_gives_its_weights_but_not_its_classes(prepared, job, tmp_path):
    base = save_base(scene_of(job["inputs"]["optical"][0]), tmp_path / "base.safetensors", seed=7)
    fresh, started = prepared()[0].model.network.state_dict(), prepared(base)[0].model.network.state_dict()
    own = base[0].state_dict()
    stem = next(name for name in own if name.startswith("fusion.") and own[name].ndim == 4)
    torch.testing.assert_close(started[stem], own[stem])
    assert not torch.equal(fresh[stem], own[stem])
    torch.testing.assert_close(started["head.classifier.weight"], fresh["head.classifier.weight"])


def test_a_base_model_trains_a_network_by_default(network_job, job, tmp_path):
    path = tmp_path / "base.safetensors"
    save_base(scene_of(job["inputs"]["optical"][0]), path)
    told = run_here({**network_job, "mode": "auto", "base_model": str(path)})
    assert told.code == 0, told.last
    assert f"start from '{path}'" in told.texts("info")
    assert "not clearly better than the vote" in told.texts("info")


def test_a_base_model_of_other_sensors_is_refused(network_job, images, tmp_path):
    other = write(tmp_path / "other.tif", images[0], names=("a", "b", "c", "d"))
    save_base(scene_of(other), tmp_path / "base.safetensors")
    wrong = {**network_job, "base_model": str(tmp_path / "base.safetensors")}
    check_refused(wrong, tmp_path, "base model does not fit", "band a, b, c, d of generic", "leave the base model out")


def test_modes_that_contradict_what_is_given(network_job, tmp_path):
    check_refused({**network_job, "mode": "vote", "base_model": "m.safetensors"}, tmp_path, "trains no network", code=2)
    bare = {key: value for key, value in network_job.items() if key not in ("labels", "report")}
    check_refused(bare, tmp_path, "without labels nothing is trained", code=2)
