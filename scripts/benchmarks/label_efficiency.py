"""Does pre-training help? Each method on a scene's own pixels, against classical models, from 3, 10 and 30 polygons a class.

A method is trained on all pixels of the scene without their labels: the pixels that are scored are among them, so the
scores are transductive, as they are for whoever maps the scene that they pre-train on. Its features are then judged frozen, by
a logistic regression and a random forest on the features alone, and by a logistic regression on the features beside the
statistics of neighbourhoods; and, on request, by a whole fine-tuning. All learn from the same part of the patches (70 %, in
spatial blocks); the rest chooses the logistic regression's strength and the networks' epoch. What is scored lies more than
five pixels away from any patch. Every finished run is a line of a JSON file, and a second start goes on where the first ended:

    OMP_WAIT_POLICY=PASSIVE .venv/bin/python scripts/benchmarks/label_efficiency.py ../shared/data

It writes ``scripts/benchmarks/results/label_efficiency.jsonl`` and ``label_efficiency.md``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fusion import RESULTS, Scored
from fusion_data import TASKS, Task
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from core.finetuning.baselines import neighbourhood_features, pixel_features
from core.finetuning.evaluation import calibrated_log_loss, context_reach
from core.finetuning.linear_start import fit_linear_start
from core.finetuning.loop import train
from core.finetuning.settings import TrainingSettings
from core.finetuning.start import start_model
from core.finetuning.training_data import TrainingData
from core.labels.blocks import spatial_split
from core.labels.reading import read_labels
from core.mapping.engine import MappingEngine
from core.models.feature_model import FeatureModel
from core.models.fusion_model import FusionModel
from core.models.model_file import ModelCard
from core.models.registry import build_model, model_step, receptive_radius
from core.models.specify import specify_for_scenes, specify_model, with_classes
from core.pretraining.loop import pretrain
from core.pretraining.methods import METHODS, MethodName
from core.pretraining.recipes.build import make_recipe
from core.pretraining.scene_windows import SceneWindows
from core.scenes.reading import SceneReader
from core.scenes.scene import Scene, build_scene

SCENES = ("s1s2_282D", "flood_India")
"""Those of ``fusion_data`` whose every pixel has a reference."""

COUNTS = (3, 10, 30)
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
RATES = (3e-4, 1e-3)
VALIDATION = 0.3

Features = dict[str, NDArray[np.float32]]
Save = Callable[[dict[str, Any]], None]


def pretrained(scene: Scene, method: MethodName, seed: int, minutes: float) -> tuple[FusionModel, Scene, bool]:
    """A model trained on a scene without labels, the scene with its names, and whether its decoder was trained."""
    recipe = make_recipe(method)
    specification, scenes = specify_for_scenes([scene], METHODS[method].architecture)
    specification = recipe.specification(specification)
    recipe.check(specification)
    step = model_step(specification)
    settings = recipe.settings("small")
    wanted = settings.window_size if receptive_radius(specification) is not None else specification.window
    settings = replace(settings, seed=seed, minutes=minutes, window_size=-(-wanted // step) * step)
    torch.manual_seed(seed)
    model = build_model(specification)
    objective = recipe.objective(model)
    windows = SceneWindows(scenes, specification, settings.window_size, settings.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint"
        result = pretrain(model, objective, windows, settings, torch.device("cpu"), path, "benchmark", lambda part, phase: None)
    return result.model, scenes[0], result.trains_decoder


def features_of(model: FusionModel, scene: Scene, uses_decoder: bool) -> NDArray[np.float32]:
    """(channels, rows, columns) of the whole scene."""
    features = FeatureModel(model, uses_decoder).eval()
    card = ModelCard(
        software_version="benchmark",
        specification=model.specification,
        resolution_m=model.specification.resolution_m,
        class_scheme="",
        classes=(),
        allows_missing=True,
    )
    engine = MappingEngine(features, card, scene, torch.device("cpu"), n_features=features.n_features)
    return np.concatenate([strip.probabilities for strip in engine.strips(scene.grid.window)], axis=1)


def measure(name: str, data: Path, seed: int, options: argparse.Namespace, done: set[tuple[Any, ...]], save: Save) -> None:
    """Every run of a scene and a seed that is not done yet."""
    with tempfile.TemporaryDirectory() as folder:
        tasks: dict[int, Task] = {}
        for count in COUNTS:
            (Path(folder) / str(count)).mkdir()
            tasks[count] = TASKS[name](data, seed, Path(folder) / str(count), patches=count)
        scene = build_scene(tasks[COUNTS[0]].request(tuple(tasks[COUNTS[0]].inputs)))
        with SceneReader(scene) as reader:
            pixels = pixel_features(reader.read(scene.grid.window), scene)
        classical: Features = {"pixels": pixels, "neighbourhoods": neighbourhood_features(pixels)}
        for count, task in tasks.items():
            for kind, features in classical.items():
                _frozen(task, scene, kind, features, {"polygons": count}, seed, done, save)
            if options.networks and ("U-Net from scratch", count) not in done:
                _network(task, scene, None, True, {"polygons": count, "row": "U-Net from scratch"}, seed, save)
        for method in options.methods:
            rows = [
                (f"{method}, {kind}", count)
                for count in COUNTS
                for kind in ("logistic regression", "forest", "with neighbourhoods")
            ]
            rows += [(f"{method}, fine-tuned", count) for count in COUNTS if options.networks]
            if all(row in done for row in rows):
                continue
            started = time.perf_counter()
            model, named, has_decoder = pretrained(scene, method, seed, options.minutes)
            features = features_of(model, named, has_decoder)
            print(f"{name} {seed} {method}: {len(features)} features, {time.perf_counter() - started:.0f} s", flush=True)
            for count, task in tasks.items():
                _frozen(task, scene, method, features, {"polygons": count}, seed, done, save)
                both = np.concatenate([features, classical["neighbourhoods"]])
                _logistic(task, scene, f"{method}, with neighbourhoods", both, {"polygons": count}, seed, done, save)
                if options.networks and (f"{method}, fine-tuned", count) not in done:
                    _network(task, named, model, has_decoder, {"polygons": count, "row": f"{method}, fine-tuned"}, seed, save)


def _frozen(
    task: Task,
    scene: Scene,
    kind: str,
    features: NDArray[np.float32],
    key: dict[str, Any],
    seed: int,
    done: set[Any],
    save: Save,
) -> None:
    """A logistic regression and a forest on features of every pixel."""
    _logistic(task, scene, f"{kind}, logistic regression", features, key, seed, done, save)
    row = f"{kind}, forest"
    if (row, key["polygons"]) in done:
        return
    scored, rows, columns, classes, learned = _labelled(task, scene, seed)
    table = features[:, rows, columns].T
    forest = RandomForestClassifier(300, n_jobs=-1, class_weight="balanced_subsample", random_state=seed)
    forest.fit(table[learned], classes[learned])
    save(key | {"row": row} | scored.of_map(_predicted(forest, features)))


def _logistic(
    task: Task,
    scene: Scene,
    row: str,
    features: NDArray[np.float32],
    key: dict[str, Any],
    seed: int,
    done: set[Any],
    save: Save,
) -> None:
    """A logistic regression whose strength is chosen on the held-out part."""
    if (row, key["polygons"]) in done:
        return
    scored, rows, columns, classes, learned = _labelled(task, scene, seed)
    table = features[:, rows, columns].T
    best: tuple[float, Any] | None = None
    for strength in STRENGTHS:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, class_weight="balanced", max_iter=2000))
        model.fit(table[learned], classes[learned])
        held_out = ~learned & np.isin(classes, model.classes_)
        weights = _balanced(classes[held_out])
        loss = log_loss(classes[held_out], model.predict_proba(table[held_out]), labels=model.classes_, sample_weight=weights)
        if best is None or loss < best[0]:
            best = loss, model
    assert best is not None
    save(key | {"row": row} | scored.of_map(_predicted(best[1], features)))


def _balanced(classes: NDArray[np.int64]) -> NDArray[np.float64]:
    counts = np.bincount(classes)
    return np.asarray(1.0 / counts[classes])


def _predicted(estimator: Any, features: NDArray[np.float32]) -> NDArray[np.int64]:
    predicted = estimator.predict(features.reshape(len(features), -1).T)
    return np.asarray(predicted.reshape(features.shape[1:]), np.int64)


def _labelled(
    task: Task, scene: Scene, seed: int
) -> tuple[Scored, NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Where the labelled pixels are, their classes, and which of them are learned from; read once a task."""
    if "labelled" not in task.kept:
        labels = read_labels(str(task.labels), task.class_field, scene.grid)
        split = spatial_split(labels, scene.grid, VALIDATION, seed)
        data = TrainingData(scene, labels, 8, allows_missing=True)
        columns, rows, classes, feature = data.pixels.T
        scored = Scored(task, scene, labels, np.zeros(len(labels), bool))
        task.kept["labelled"] = scored, rows, columns, classes, ~split.validation[feature]
    kept: tuple[Scored, NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]] = task.kept["labelled"]
    return kept


def _network(
    task: Task, scene: Scene, base: FusionModel | None, has_decoder: bool, key: dict[str, Any], seed: int, save: Save
) -> None:
    """The product's training, from scratch or from a base model; the rate is chosen on the held-out part."""
    labels = read_labels(str(task.labels), task.class_field, scene.grid)
    split = spatial_split(labels, scene.grid, VALIDATION, seed)
    n_classes = len(labels.scheme)
    best: tuple[float, FusionModel] | None = None
    for rate in RATES:
        if base is None:
            specification = specify_model(scene, "unet_intermediate", n_classes)
        else:
            specification = with_classes(base.specification, n_classes)
        settings = TrainingSettings(seed=seed, learning_rate=rate)
        data = TrainingData(scene, labels, max(settings.window_size, context_reach(specification)), allows_missing=True)
        model = start_model(specification, seed, None, labels.scheme)
        if base is not None:
            own = {name: value for name, value in base.state_dict().items() if not name.startswith("head.classifier")}
            model.load_state_dict(own, strict=False)
        if specification.has_shortcut:
            fit_linear_start(model, specification, data, ~split.validation)
        with tempfile.TemporaryDirectory() as folder:
            path, device = Path(folder) / "checkpoint", torch.device("cpu")
            result = train(model, specification, data, split.validation, settings, device, path, "b", lambda part, phase: None)
        assert result.validation is not None
        loss = calibrated_log_loss(result.validation)
        if best is None or loss < best[0]:
            assert isinstance(result.model, FusionModel)
            best = loss, result.model
    assert best is not None
    scored = Scored(task, scene, labels, np.zeros(len(labels), bool))
    save(key | scored.model(best[1], data))


def table(rows: list[dict[str, Any]], minutes: float) -> str:
    """Mean IoU by row and number of polygons, in Markdown."""
    lines = [
        "# Label efficiency",
        "",
        f"Pre-training of {minutes:g} minutes on one core a method, on the scene's own pixels without labels (transductive). "
        "Mean IoU in percent, mean and standard deviation over the seeds, on pixels away from all patches. s1s2_282D against a "
        "weak yearly map, flood_India against a hand-drawn one.",
        "",
        "| scene | model | seeds | " + " | ".join(f"{count} a class" for count in COUNTS) + " |",
        "|---|---|---|" + "---|" * len(COUNTS),
    ]
    for scene, row in dict.fromkeys((entry["scene"], entry["row"]) for entry in rows):
        own = [entry for entry in rows if (entry["scene"], entry["row"]) == (scene, row)]
        cells = [scene, row, str(len({entry["seed"] for entry in own}))]
        for count in COUNTS:
            values = [100 * entry["miou"] for entry in own if entry["polygons"] == count]
            spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.1f}{spread}" if values else "–")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the real scenes")
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--methods", nargs="*", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--minutes", type=float, default=3.0, help="of each pre-training")
    parser.add_argument("--networks", action="store_true", help="train networks on the labels, too")
    parser.add_argument("--output", type=Path, default=RESULTS / "label_efficiency", help="path without ending")
    options = parser.parse_args()
    lines, page = options.output.with_suffix(".jsonl"), options.output.with_suffix(".md")
    for seed in options.seeds:
        for scene in options.scenes:
            rows = _read(lines)
            done = {(row["row"], row["polygons"]) for row in rows if (row["scene"], row["seed"]) == (scene, seed)}

            def save(result: dict[str, Any], scene: str = scene, seed: int = seed) -> None:
                with lines.open("a") as stream:
                    stream.write(json.dumps({"scene": scene, "seed": seed, "minutes": options.minutes} | result) + "\n")
                page.write_text(table(_read(lines), options.minutes))
                print(scene, seed, result["row"], result["polygons"], f"{100 * result['miou']:.1f}", flush=True)

            measure(scene, options.data.resolve(), seed, options, done, save)


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


if __name__ == "__main__":
    main()
