"""Estimators as models: the answers of scikit-learn's own, from a file that runs nothing, with inputs missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from core.errors import ModelFileError
from core.finetuning.estimators.candidates import (
    KINDS,
    LEAST_FEATURES,
    Candidate,
    best_of,
    fit_candidates,
    may_replace,
    replaces,
)
from core.finetuning.estimators.label_worth import SHARES, _first, try_labels
from core.finetuning.estimators.training import EstimatorTraining, as_program, estimator_specification
from core.finetuning.evaluation import COMPARED, Predictions, fit_temperature, predict_labelled
from core.finetuning.networks.loop import TrainingResult
from core.finetuning.training_data import TrainingData
from core.mapping.engine import MappingEngine
from core.models.architectures import title_of
from core.models.estimator_model import EstimatorModel
from core.models.fusion_model import FusionModel
from core.models.model_file import ModelCard, class_cards, load_model, read_tensors, save_model
from core.models.registry import build_model, model_step, receptive_radius
from core.models.specification import EstimatorName, EstimatorSpecification, ModelSpecification
from core.models.specify import specify_model
from core.models.vote_model import VoteModel
from core.scenes.grid import Window
from core.scenes.scene import Scene
from tests.core.finetuning.scenes import labels_at, mixed_scene

CPU = torch.device("cpu")
EVERY_KIND = pytest.mark.parametrize("kind", ["forest", "boosting", "logistic"])


@pytest.fixture(autouse=True)
def _few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.finetuning.estimators.training.TREES", 20)
    monkeypatch.setattr("core.finetuning.estimators.training.ROUNDS", 10)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return mixed_scene(tmp_path_factory.mktemp("estimators"))


@pytest.fixture(scope="module")
def data(scene: Scene) -> TrainingData:
    boxes = [(12 + 24 * (i % 5), 12 + 36 * (i // 5), 20 + 24 * (i % 5), 20 + 36 * (i // 5)) for i in range(15)]
    return TrainingData(scene, labels_at(scene.grid, boxes, [i % 2 for i in range(15)]), 96, allows_missing=True)


def wanted(scene: Scene, **parts: object) -> ModelSpecification:
    network = specify_model(scene, "unet_early", 2)
    return estimator_specification(network, EstimatorSpecification(kind="forest", **parts))  # type: ignore[arg-type]


@EVERY_KIND
@pytest.mark.parametrize("around", [False, True])
def test_the_model_says_what_the_estimator_says(scene: Scene, data: TrainingData, kind: EstimatorName, around: bool) -> None:
    held_out = np.arange(len(data.labels)) % 5 == 0
    training = EstimatorTraining(wanted(scene, neighbourhoods=around), data, held_out)
    told = training.told_by_inputs(kind)
    # A model as it is delivered has learned from what was held out, too.
    training._trainable = training._learned
    model = training.model(kind)
    assert list(told) == list(model.subsets)
    for inputs, own in told.items():
        said = predict_labelled(model, model.specification, data, held_out, CPU, inputs)
        assert (said.classes == own.classes).all()
        assert (said.feature == own.feature).all()
        shares = np.exp(own.scores)
        assert np.exp(said.scores) == pytest.approx(shares, abs=2e-5)
        # Trees that disagree half and half may fall either way.
        assert (shares[np.arange(len(shares)), said.predicted] >= shares.max(axis=1) - 1e-5).all()
    whole = told[model.subsets[0]]
    assert (whole.predicted == whole.classes).mean() > 0.3
    assert len({len(own.classes) for own in told.values()}) > 1
    assert title_of(model.specification).endswith("pixels and neighbourhoods" if around else "on pixels")


@EVERY_KIND
def test_a_file_gives_the_model_back_and_the_same_bytes(
    scene: Scene, data: TrainingData, tmp_path: Path, kind: EstimatorName
) -> None:
    paths = []
    for number in range(2):
        model = complete(wanted(scene), data, kind)
        paths.append(tmp_path / f"{number}.safetensors")
        save_model(paths[-1], model, card_of(model, data))
    assert paths[0].read_bytes() == paths[1].read_bytes()
    loaded, card = load_model(paths[0])
    assert isinstance(loaded, EstimatorModel)
    assert card.specification.estimator is not None
    windows = data.window(Window(0, 0, 48, 48)).values
    values = {name: torch.from_numpy(each)[None] for name, each in windows.items()}
    assert torch.equal(loaded(values), model(values))
    assert loaded(values).shape == (1, 2, 48, 48)
    for names in ([next(iter(values))], list(values)[1:]):
        some = {name: values[name] for name in names}
        assert torch.equal(loaded(some), model(some))


def complete(
    specification: ModelSpecification, data: TrainingData, kind: EstimatorName, base: FusionModel | None = None
) -> EstimatorModel:
    """A model fitted on all labels, with an estimator for each set of inputs."""
    training = EstimatorTraining(specification, data, np.zeros(len(data.labels), bool), base, seed=3)
    return training.model(kind)


def card_of(model: EstimatorModel, data: TrainingData) -> ModelCard:
    return ModelCard(
        software_version="test",
        specification=model.specification,
        resolution_m=10,
        class_scheme=data.labels.scheme.name,
        classes=class_cards(data.labels.scheme),
        allows_missing=True,
    )


def test_a_pixel_is_judged_by_the_estimator_of_the_inputs_it_has(scene: Scene, data: TrainingData) -> None:
    model = complete(wanted(scene), data, "forest")
    values = {name: torch.from_numpy(each)[None] for name, each in data.window(Window(0, 0, 48, 48)).values.items()}
    name = next(iter(values))
    whole, without = model(values), model({n: v for n, v in values.items() if n != name})
    assert not torch.allclose(whole, without)
    # Missing on one half of the window: the answer of either on its half.
    half = {n: v.clone() for n, v in values.items()}
    side = half[name].shape[-1]
    half[name][..., side // 2 :] = torch.nan
    mixed = model(half)
    assert torch.equal(mixed[..., :20], whole[..., :20])
    assert torch.equal(mixed[..., 28:], without[..., 28:])


def test_the_whole_scene_is_mapped_and_tiles_do_not_show(scene: Scene, data: TrainingData) -> None:
    model = complete(wanted(scene, neighbourhoods=True), data, "forest")
    engine = MappingEngine(model, card_of(model, data), scene, CPU)
    whole = np.concatenate([strip.probabilities for strip in engine.strips(scene.grid.window)], axis=1)
    crop = Window(40, 30, 50, 60)
    part = np.concatenate([strip.probabilities for strip in engine.strips(crop)], axis=1)
    assert part == pytest.approx(whole[:, 30:90, 40:90], abs=1e-5)
    assert receptive_radius(model.specification) == model.radius
    assert model_step(model.specification) == model.step


def test_a_base_models_features_are_seen_and_kept(scene: Scene, data: TrainingData, tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = build_model(specify_model(scene, "unet_early", 2)).eval()
    specification = wanted(scene, neighbourhoods=True, base_features=True, uses_decoder=True)
    model = complete(specification, data, "forest", base)
    assert model.base is not None
    kept = {name: value for name, value in model.base.state_dict().items() if not name.startswith("head.classifier")}
    assert len(kept) > 10
    assert all(torch.equal(base.state_dict()[name], value) for name, value in kept.items())
    plain = complete(wanted(scene, neighbourhoods=True), data, "forest")
    assert model.n_columns > plain.n_columns
    save_model(tmp_path / "m.safetensors", model, card_of(model, data))
    loaded, _ = load_model(tmp_path / "m.safetensors")
    values = {name: torch.from_numpy(each)[None] for name, each in data.window(Window(0, 0, 48, 48)).values.items()}
    assert torch.equal(loaded(values), model(values))


def test_damaged_estimators_are_refused(scene: Scene, data: TrainingData, tmp_path: Path) -> None:
    model = complete(wanted(scene), data, "logistic")
    path = tmp_path / "m.safetensors"
    save_model(path, model, card_of(model, data))
    _, header = read_tensors(path)
    whole = load_file(path)
    other = as_program(*_fitted(3))
    damages = {
        "noise": {"programs.0": np.arange(200, dtype=np.uint8)},
        "columns": {"programs.0": np.frombuffer(other, np.uint8)},
        "classes": {"classes.0": np.array([0, 9])},
    }
    for name, damage in damages.items():
        save_file(whole | damage, path, {"rsfusion": header})
        with pytest.raises(ModelFileError, match="do not belong to its own architecture"):
            load_model(path)
        assert name
    save_file({key: value for key, value in whole.items() if key != "programs.0"}, path, {"rsfusion": header})
    with pytest.raises(ModelFileError, match="none for all inputs"):
        load_model(path)


def _fitted(columns: int) -> tuple[object, int]:
    from sklearn.linear_model import LogisticRegression

    rows = np.random.default_rng(0).random((20, columns)).astype(np.float32)
    return LogisticRegression().fit(rows, np.arange(20) % 2), columns


@pytest.fixture(scope="module")
def candidates(scene: Scene, data: TrainingData) -> Iterator[list[Candidate]]:
    fold = np.arange(len(data.labels)) // 2 % 3
    network = specify_model(scene, "unet_early", 2)
    with pytest.MonkeyPatch.context() as few:
        few.setattr("core.finetuning.estimators.training.TREES", 20)
        few.setattr("core.finetuning.estimators.training.ROUNDS", 10)
        yield fit_candidates(network, data, fold, 0, None, False, KINDS, lambda part, phase: None)


def test_every_kind_is_a_candidate_and_the_last_is_their_vote(candidates: list[Candidate], data: TrainingData) -> None:
    assert [each.name for each in candidates][:2] == ["Random forest on pixels", "Boosted trees on pixels"]
    assert len(candidates) == len({each.name for each in candidates}) == 7
    vote = candidates[-1]
    assert vote.name == (
        "Vote of logistic regression on pixels, random forest on pixels and random forest on pixels and neighbourhoods"
    )
    parts = []
    for member, temperature in zip((candidates[2], candidates[0], candidates[3]), vote.temperatures, strict=True):
        assert temperature == fit_temperature(member.cross_validated, COMPARED)
        softer = np.exp(member.cross_validated.scores / temperature)
        parts.append(softer / softer.sum(axis=1, keepdims=True))
    shares = sum(parts) / 3
    assert np.exp(vote.cross_validated.scores) == pytest.approx(shares, abs=1e-3)
    for each in candidates:
        assert (each.cross_validated.feature == candidates[0].cross_validated.feature).all()
        assert set(each.cross_validated.feature.tolist()) == set(range(len(data.labels)))
        assert set(each.held_out.feature.tolist()) == set(np.flatnonzero(np.arange(15) // 2 % 3 == 0).tolist())


def test_no_part_of_the_cross_validation_learns_from_what_it_is_asked(scene: Scene, data: TrainingData) -> None:
    """Trees that have seen a noisy pixel know its class; those that have not can only guess."""
    training = EstimatorTraining(wanted(scene), data, np.zeros(len(data.labels), bool))
    fold = np.arange(len(data.labels)) // 2 % 3
    said = training.cross_validated("forest", fold)
    assert (said.predicted == said.classes).mean() < 0.7
    model = training.model("forest")
    known = predict_labelled(model, model.specification, data, np.ones(len(data.labels), bool), CPU)
    assert (known.predicted == known.classes).mean() > 0.95


def test_fewer_labels_are_tried_and_single_pixels(candidates: list[Candidate], data: TrainingData) -> None:
    fold = np.arange(len(data.labels)) // 2 % 3
    vote = candidates[-1]
    trials = try_labels(vote, fold, data.labels.class_index, 5, lambda part, phase: None)
    assert trials.told[-1] is vote.cross_validated
    assert trials.features[-1] == pytest.approx(np.mean([(fold != part).sum() for part in range(3)]))
    assert list(trials.features) == sorted(set(trials.features))
    assert not np.array_equal(trials.told[0].scores, vote.cross_validated.scores)
    for told in (*trials.told, trials.nearby):
        assert (told.feature == vote.cross_validated.feature).all()
    again = try_labels(vote, fold, data.labels.class_index, 5, lambda part, phase: None)
    assert np.array_equal(again.nearby.scores, trials.nearby.scores)
    assert np.array_equal(again.told[0].scores, trials.told[0].scores)


def test_each_part_of_the_labels_has_every_class() -> None:
    classes = np.array([0] * 40 + [1] * 8 + [2])
    place = np.random.default_rng(0).permutation(len(classes))
    open_ = np.arange(len(classes)) % 40 != 0
    parts = [_first(place, classes, share, open_) for share in SHARES]
    assert [[np.count_nonzero(classes[part] == n) for n in range(3)] for part in parts] == [[10, 2, 1], [20, 4, 1], [39, 7, 1]]
    assert not (parts[0] & ~parts[1]).any()
    assert (parts[2] == open_).all()


def test_what_is_not_to_be_learned_from_changes_nothing(scene: Scene, data: TrainingData) -> None:
    training = EstimatorTraining(wanted(scene), data, np.zeros(len(data.labels), bool))
    fold = np.arange(len(data.labels)) // 2 % 3
    kept = np.arange(len(data.labels)) < 9
    told = training.cross_validated("logistic", fold, lambda open_: open_ & kept)
    part = EstimatorTraining(wanted(scene), data.only(kept), np.zeros(len(data.labels), bool))
    same = part.cross_validated("logistic", fold)
    rows = kept[told.feature]
    assert np.array_equal(told.feature[rows], same.feature)
    assert told.scores[rows] == pytest.approx(same.scores, abs=1e-4)


def test_random_pixels_are_told_with_the_help_of_their_neighbours(tmp_path: Path) -> None:
    """Every polygon has a level of its own, so that only its own pixels tell its class."""
    scene = mixed_scene(tmp_path)
    boxes = [(12 + 24 * (i % 5), 12 + 36 * (i // 5), 20 + 24 * (i % 5), 20 + 36 * (i // 5)) for i in range(15)]
    data = TrainingData(scene, labels_at(scene.grid, boxes, [i % 2 for i in range(15)]), 96, allows_missing=True)
    training = EstimatorTraining(wanted(scene), data, np.zeros(len(data.labels), bool))
    training._rows = training._rows + 10 * np.random.default_rng(0).normal(size=15)[training._feature, None].astype(np.float32)
    fold = np.arange(15) // 2 % 3
    blocks, pixels = training.cross_validated("forest", fold), training.randomly_validated("forest", fold, 1)
    assert (pixels.predicted == pixels.classes).mean() > 0.9 > 0.7 > (blocks.predicted == blocks.classes).mean()


def test_a_vote_is_the_mean_of_its_members_in_a_file(candidates: list[Candidate], data: TrainingData, tmp_path: Path) -> None:
    model = candidates[-1].model()
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for path in paths:
        save_model(path, candidates[-1].model(), card_of(model, data))
    assert paths[0].read_bytes() == paths[1].read_bytes()
    loaded, card = load_model(paths[0])
    assert isinstance(loaded, VoteModel)
    assert title_of(card.specification) == candidates[-1].name
    values = {name: torch.from_numpy(each)[None] for name, each in data.window(Window(0, 0, 48, 48)).values.items()}
    for shown in (values, {name: values[name] for name in list(values)[1:]}):
        members = [candidates[number].model()(shown) for number in (2, 0, 3)]
        shares = [torch.softmax(m / t, dim=1) for m, t in zip(members, candidates[-1].temperatures, strict=True)]
        assert loaded(shown).exp().numpy() == pytest.approx((sum(shares) / 3).numpy(), abs=1e-4)
        assert torch.equal(loaded(shown), model(shown))
    assert receptive_radius(card.specification) == max(candidates[number].model().radius for number in (2, 0, 3))
    whole = load_file(paths[0])
    _, header = read_tensors(paths[0])
    for damage in (
        {name: part for name, part in whole.items() if "members.1" not in name},
        whole | {"more": np.zeros(1)},
        whole | {"temperatures": np.ones(2, np.float32)},
    ):
        save_file(damage, paths[1], {"rsfusion": header})
        with pytest.raises(ModelFileError, match="do not belong to its own architecture"):
            load_model(paths[1])


def test_the_vote_is_delivered_and_without_one_the_best_of_the_cross_validation(candidates: list[Candidate]) -> None:
    told = candidates[0].cross_validated
    sure = np.where(np.eye(2)[told.classes] > 0, 2.0, -2.0).astype(np.float32)
    better = replace(candidates[1], cross_validated=replace(told, scores=sure))
    assert best_of([*candidates, better]).kind == "vote"
    assert best_of([*candidates[:-1], better]) is better
    assert best_of(candidates[:1]) is candidates[0]


def test_an_estimator_replaces_all_but_a_clearly_better_network(candidates: list[Candidate]) -> None:
    best = best_of(candidates)
    same = TrainingResult(torch.nn.Identity(), (), 1, best.held_out, 1.0)
    assert replaces(best, same)
    # A network that knows every held-out pixel, beside an estimator that has them all the wrong way round.
    sure = np.where(np.eye(2)[best.held_out.classes] > 0, 2.0, -2.0).astype(np.float32)
    feature = np.arange(len(sure)) % 12
    right, wrong = (replace(best.held_out, scores=scores, feature=feature) for scores in (sure, -sure))
    assert not replaces(replace(best, held_out=wrong), TrainingResult(torch.nn.Identity(), (), 1, right, 1.0))
    assert replaces(replace(best, held_out=right), TrainingResult(torch.nn.Identity(), (), 1, wrong, 1.0))


@pytest.mark.parametrize(("features", "expected"), [(LEAST_FEATURES - 1, False), (LEAST_FEATURES, True)])
def test_few_labels_say_nothing_of_a_network(features, expected):
    """However much better it does on them."""
    feature = np.repeat(np.arange(features), 9)
    right = np.where(np.arange(2) == (feature % 2)[:, None], 3.0, -3.0).astype(np.float32)
    good, poor = (Predictions(scores, feature % 2, feature) for scores in (right, np.zeros_like(right)))
    assert may_replace(good, poor) == expected
    assert not may_replace(poor, good)
