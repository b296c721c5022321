"""The linear model that networks start from: it is scikit-learn's, pixel by pixel, and the network adds nothing yet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from core.finetuning.evaluation import predict_labelled
from core.finetuning.networks.linear_start import INVERSE_REGULARISATION, MOST_PIXELS, fit_linear_start
from core.finetuning.networks.loop import train
from core.finetuning.networks.settings import TrainingSettings
from core.finetuning.networks.start import start_model
from core.finetuning.training_data import TrainingData, thinned
from core.labels.label_set import LabelSet
from core.models.fusion_model import FusionModel
from core.models.model_file import ModelCard, class_cards, load_model, save_model
from core.models.specification import ModelSpecification
from core.models.subsets import input_subsets, proper_subsets
from core.scenes.grid import Window, aligned
from core.scenes.scene import Scene
from tests.core.finetuning.scenes import labels_at, mixed_scene, specification_for

BOXES = [(12 + 24 * (i % 5), 12 + 36 * (i // 5), 20 + 24 * (i % 5), 20 + 36 * (i // 5)) for i in range(15)]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return mixed_scene(tmp_path_factory.mktemp("mixed"))


def prepared(scene: Scene, classes: list[int], allows_missing: bool) -> tuple[LabelSet, TrainingData, ModelSpecification]:
    labels = labels_at(scene.grid, BOXES, classes)
    data = TrainingData(scene, labels, 60, allows_missing=allows_missing)
    options = {"has_shortcut": True, "dropout": 0.0, "statistics_dropout": 0.0}
    return labels, data, specification_for(scene, len(labels.scheme), "unet_intermediate", **options)


def started(specification: ModelSpecification, labels: LabelSet) -> FusionModel:
    return start_model(specification, 0, None, labels.scheme)


def channels_of(model: FusionModel, data: TrainingData, pixels: np.ndarray) -> np.ndarray:
    """(n, channels) of pixels, each feature cut from a window of its own."""
    rows: dict[int, np.ndarray] = {}
    for feature in np.unique(pixels[:, 3]):
        own = np.flatnonzero(pixels[:, 3] == feature)
        column, row = pixels[own, :2].min(axis=0).tolist()
        corner = aligned(data.scene.grid, Window(column - 60, row - 60, 1, 1), 12)
        seen = data.window(Window(corner.column, corner.row, 144, 144))
        parts = []
        for entry in model.specification.modalities:
            values, known = model.stems[entry.name].channels(torch.from_numpy(seen.values[entry.name])[None])
            places = (0, slice(None), pixels[own, 1] - corner.row, pixels[own, 0] - corner.column)
            parts.append(torch.where(known > 0, values, torch.nan)[places].double().numpy())
        rows.update(zip(own.tolist(), np.concatenate(parts).T, strict=True))
    return np.array([rows[number] for number in range(len(pixels))])


def scores_of(model: FusionModel, data: TrainingData, pixels: np.ndarray) -> np.ndarray:
    features = np.zeros(len(data.labels), bool)
    features[np.unique(pixels[:, 3])] = True
    return predict_labelled(model.eval(), model.specification, data, features, torch.device("cpu")).scores


def test_the_start_is_a_logistic_regression_over_the_statistics(scene: Scene) -> None:
    labels, data, wanted = prepared(scene, [i % 3 for i in range(15)], allows_missing=False)
    model = started(wanted, labels)
    fit_linear_start(model, wanted, data, np.ones(15, bool))
    chosen = np.isin(data.pixels[:, 3], [0, 7, 13])
    estimator = LogisticRegression(C=INVERSE_REGULARISATION, class_weight="balanced", max_iter=3000)
    whole = make_pipeline(StandardScaler(), estimator)
    whole.fit(channels_of(model, data, data.pixels), data.pixels[:, 2])
    expected = whole.decision_function(channels_of(model, data, data.pixels[chosen]))
    np.testing.assert_allclose(scores_of(model, data, data.pixels[chosen]), expected, atol=2e-2)


def test_each_set_of_inputs_has_a_model_of_its_own(scene: Scene) -> None:
    """Fitted on these inputs alone; and a pixel gets that of the inputs that it has."""
    labels, data, wanted = prepared(scene, [i % 3 for i in range(15)], allows_missing=True)
    model = started(wanted, labels).eval()
    fit_linear_start(model, wanted, data, np.ones(15, bool))
    columns, first, slices = channels_of(model, data, data.pixels), 0, {}
    for entry in wanted.modalities:
        count = model.linear.part(entry.name).centre.numel()
        slices[entry.name] = slice(first, first + count)
        first += count
    mean, spread = np.nanmean(columns, axis=0), np.nanstd(columns, axis=0)
    standardised = np.nan_to_num((columns - mean) / spread)
    for number, subset in enumerate(input_subsets(wanted)):
        names = [name for name in slices if name in subset]
        rows = np.all([np.isfinite(columns[:, slices[name]]).any(axis=1) for name in names], axis=0)
        estimator = LogisticRegression(C=INVERSE_REGULARISATION, class_weight="balanced", max_iter=3000)
        estimator.fit(np.concatenate([standardised[rows, slices[name]] for name in names], axis=1), data.pixels[rows, 2])
        found = [model.linear.part(name).weight[number].numpy() * spread[slices[name]] for name in names]
        np.testing.assert_allclose(np.concatenate(found, axis=1), estimator.coef_, atol=2e-3)
        np.testing.assert_allclose(model.linear.intercept[number], estimator.intercept_, atol=2e-3)
        assert not any(model.linear.part(name).weight[number].any() for name in slices if name not in subset)
    side = 48
    values = {
        entry.name: torch.rand(1, len(entry.bands), side * entry.finer // entry.coarser, side * entry.finer // entry.coarser)
        for entry in wanted.modalities
    }
    name = wanted.modalities[0].name
    hole = {key: each.clone() for key, each in values.items()}
    hole[name][:, :, :24] = torch.nan
    with torch.no_grad():
        whole, without = model(values), model({key: each for key, each in values.items() if key != name})
        mixed = model(hole)
    torch.testing.assert_close(mixed[:, :, :14], without[:, :, :14], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mixed[:, :, 34:], whole[:, :, 34:], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(whole[:, :, :14], without[:, :, :14], atol=1e-2)


def test_a_band_that_is_not_given_adds_nothing(scene: Scene) -> None:
    labels, data, wanted = prepared(scene, [i % 3 for i in range(15)], allows_missing=False)
    model = started(wanted, labels).eval()
    fit_linear_start(model, wanted, data, np.ones(15, bool))
    entry = wanted.modalities[0]
    part = model.linear.part(entry.name)
    count = model.stems[entry.name].channels.count
    values = {
        each.name: torch.rand(1, len(each.bands), 24 * each.finer // each.coarser, 24 * each.finer // each.coarser)
        for each in wanted.modalities
    }
    given = list(entry.band_names)[1:]
    with torch.no_grad():
        found = model(values | {entry.name: values[entry.name][:, 1:]}, bands={entry.name: given})
        gone = sorted(entry.band_names).index(entry.band_names[0])
        for view in range(part.centre.numel() // count):
            part.weight[0, :, view * count + gone] = 0
        expected = model(values)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("classes", [[0, 2], [0, 1]])
def test_two_classes_and_one_that_was_not_seen(scene: Scene, classes: list[int]) -> None:
    labels, data, wanted = prepared(scene, [classes[i % 2] for i in range(14)] + [max(2, classes[1])], allows_missing=False)
    model = started(wanted, labels)
    learned = np.ones(15, bool)
    learned[14] = False
    fit_linear_start(model, wanted, data, learned)
    scores = scores_of(model, data, data.pixels)
    assert set(scores.argmax(axis=1)) <= set(classes)
    known = data.pixels[:, 3] != 14
    right = scores.argmax(axis=1)[known] == data.pixels[known, 2]
    # Noise tells nothing apart, but what was learned by heart is better than chance.
    assert right.mean() > 0.5


def test_of_many_pixels_an_even_part_is_looked_at(scene: Scene) -> None:
    _, data, _ = prepared(scene, [i % 3 for i in range(15)], allows_missing=False)
    assert thinned(data.pixels, MOST_PIXELS) is not data.pixels
    np.testing.assert_array_equal(thinned(data.pixels, MOST_PIXELS), data.pixels)
    fewer = thinned(data.pixels, 50)
    assert np.bincount(fewer[:, 2]).tolist() == [50, 50, 50]
    # Every feature of a class is still there.
    assert len(np.unique(fewer[:, 3])) == 15


def test_the_start_is_delivered_unless_training_beats_it_and_is_saved(scene: Scene, tmp_path: Path) -> None:
    labels, data, wanted = prepared(scene, [i % 3 for i in range(15)], allows_missing=False)
    validation = np.arange(15) >= 12
    model = started(wanted, labels)
    fit_linear_start(model, wanted, data, ~validation)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    # A rate at which nothing can be learned but much destroyed.
    settings = TrainingSettings(epochs=2, windows_per_epoch=16, window_size=24, learning_rate=30.0, modality_dropout=0.0)
    device = torch.device("cpu")
    result = train(model, wanted, data, validation, settings, device, tmp_path / "checkpoint", "this", lambda part, phase: None)
    assert result.best_epoch == 0
    after = result.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    card = ModelCard(
        software_version="0", specification=wanted, resolution_m=10, class_scheme="t", classes=class_cards(labels.scheme)
    )
    save_model(tmp_path / "model.safetensors", result.model, card)
    loaded, _ = load_model(tmp_path / "model.safetensors")
    assert all(torch.equal(value, after[name]) for name, value in loaded.state_dict().items())


def test_a_base_model_hands_its_linear_model_on_to_the_same_classes_only(scene: Scene) -> None:
    labels, data, wanted = prepared(scene, [i % 3 for i in range(15)], allows_missing=False)
    model = started(wanted, labels)
    fit_linear_start(model, wanted, data, np.ones(15, bool))
    card = ModelCard(
        software_version="0", specification=wanted, resolution_m=10, class_scheme="t", classes=class_cards(labels.scheme)
    )
    same = start_model(wanted, 1, (model, card), labels.scheme)
    assert torch.equal(same.linear.intercept, model.linear.intercept)
    fewer = labels_at(scene.grid, BOXES, [i % 2 for i in range(15)])
    other = start_model(wanted.model_copy(update={"n_classes": 2}), 1, (model, card), fewer.scheme)
    assert other.linear.intercept.shape == (1 + len(proper_subsets(wanted)), 2)
    assert not other.linear.intercept.any()
    assert not any(value.any() for name, value in other.named_buffers() if name.startswith("linear.parts"))


def test_the_network_learns_alone_and_is_delivered_with_a_part_of_the_start(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, data, wanted = prepared(scene, [i % 3 for i in range(15)], allows_missing=False)
    validation = np.arange(15) >= 12
    model = started(wanted, labels)
    fit_linear_start(model, wanted, data, ~validation)
    fitted = {
        name: value.clone()
        for name, value in model.named_buffers()
        if name == "linear.intercept" or (name.startswith("linear.parts") and name.endswith(".weight"))
    }
    assert fitted
    monkeypatch.setattr("core.finetuning.networks.loop.is_clearly_better", lambda seen, start: True)
    monkeypatch.setattr("core.finetuning.networks.loop.SHORTCUT_WEIGHTS", (0.5,))
    losses = iter([9.0, 8.0])
    monkeypatch.setattr("core.finetuning.networks.loop.calibrated_log_loss", lambda seen: next(losses))
    settings = TrainingSettings(epochs=1, windows_per_epoch=16, window_size=24, modality_dropout=0.0)
    device = torch.device("cpu")
    result = train(model, wanted, data, validation, settings, device, tmp_path / "checkpoint", "this", lambda part, phase: None)
    assert (result.best_epoch, result.linear_weight) == (1, 0.5)
    after = dict(result.model.named_buffers())
    assert all(torch.equal(0.5 * value, after[name]) for name, value in fitted.items())
    assert result.model.uses_shortcut
    assert not result.model.is_linear
    seen = predict_labelled(result.model, wanted, data, validation, device)
    np.testing.assert_array_equal(seen.scores, result.validation.scores)
    result.model.uses_shortcut = False
    alone = predict_labelled(result.model, wanted, data, validation, device)
    assert np.abs(alone.scores - seen.scores).max() > 0.1


def test_where_inputs_are_missing_the_better_of_network_and_linear_model_counts(scene: Scene, tmp_path: Path) -> None:
    """The scores reported for each set of inputs are those that the delivered model gives, and the best of what there was."""
    labels, data, wanted = prepared(scene, [i % 3 for i in range(15)], allows_missing=True)
    validation = np.arange(15) >= 9
    model = started(wanted, labels)
    fit_linear_start(model, wanted, data, ~validation)
    start = {name: value.clone() for name, value in model.state_dict().items() if name.startswith("linear.")}
    settings = TrainingSettings(epochs=2, windows_per_epoch=16, window_size=24, learning_rate=1e-3)
    device = torch.device("cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("core.finetuning.networks.loop.is_clearly_better", lambda seen, start: True)
        result = train(model, wanted, data, validation, settings, device, tmp_path / "c", "this", lambda part, phase: None)
    if result.best_epoch == 0:
        pytest.skip("the network did not lower the loss of noise")
    shares = result.model.linear.network
    assert shares[0] == 1
    for number, entry in enumerate(result.subsets, 1):
        found = predict_labelled(result.model, wanted, data, validation, device, entry.inputs)
        np.testing.assert_allclose(found.scores, entry.predictions.scores, atol=1e-4)
        assert shares[number] in (0, 1)
        ratio = result.model.linear.intercept[number] / start["linear.intercept"][number]
        assert float(ratio[0]) == pytest.approx(float(ratio[1]), abs=1e-5)
        assert min(abs(float(ratio[0]) - weight) for weight in (0.0, 0.5, 1.0)) < 1e-5
