"""Fusions on four real scenes, beside each input alone and the classical baselines; and what missing inputs cost.

One encoder (the smallest U-Net with neighbourhood statistics) and one training for all, so that the fusions alone
differ. Labels are split in spatial blocks; what is scored lies away from all of them. Every finished run is a line of a
JSON file, and a second start goes on where the first ended:

    OMP_WAIT_POLICY=PASSIVE .venv/bin/python scripts/benchmarks/fusion.py ../shared/data

It writes ``scripts/benchmarks/results/fusion.jsonl`` and ``fusion.md``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import torch
from fusion_data import TASKS, Task
from numpy.typing import NDArray

from core.assessment.confusion import accuracy, confusion_matrix
from core.finetuning.estimators.baselines import BASELINES, labelled_features, neighbourhood_features, pixel_features
from core.finetuning.evaluation import context_reach, predict_labelled
from core.finetuning.networks.loop import train
from core.finetuning.networks.settings import TrainingSettings
from core.finetuning.networks.start import start_model
from core.finetuning.training_data import TrainingData
from core.jobs.process import begin
from core.labels.blocks import spatial_split
from core.labels.label_set import LabelSet
from core.labels.reading import read_labels
from core.mapping.engine import MappingEngine
from core.models.fusion_model import FusionModel
from core.models.model_file import ModelCard, class_cards
from core.models.specification import FusionName, ModelSpecification, SizeName
from core.models.specify import specify_model
from core.scenes.reading import SceneReader
from core.scenes.scene import Scene, build_scene

RESULTS = Path(__file__).with_name("results")
FUSIONS: tuple[FusionName, ...] = (
    "early",
    "intermediate",
    "late",
    "asymmetric_attention",
    "cross_attention",
    "cross_modality",
    "joint_tokens",
)
SIZE: SizeName = "tiny"
VALIDATION = 0.3
WINDOW = 32
WINDOWS = 200
"""Side of the training windows in pixels, and their number in an epoch: smaller, and validated less often, than the
product's; ten epochs are as many steps as the product's default takes."""

LEARNING_RATE = 3e-3
"""Higher than the product's: networks start from nothing here, without the linear model, so that fusions alone differ."""


HELD_OUT_LABELS = ("enmap_Potsdam", "neon_MLBS")
"""Scenes of which other labels are scored; of the others, every pixel away from all labels."""

Save = Callable[[str, dict[str, float], float, dict[str, Any]], None]


class Scored:
    """The scored pixels of a task, and the way to them.

    Args:
        task: with labels.
        scene, labels: of it.
        test: (n_features,) bool, the labels that are scored; none where the truth of every pixel is known.
    """

    def __init__(self, task: Task, scene: Scene, labels: LabelSet, test: NDArray[np.bool_]) -> None:
        self.task, self.scene, self.labels, self.test = task, scene, labels, test

    def score(self, predicted: NDArray[np.int64], classes: NDArray[np.int64]) -> dict[str, float]:
        """Agreement of class numbers."""
        result = accuracy(confusion_matrix(predicted, classes, len(self.labels.scheme)), self.labels.scheme.names)
        return {"miou": result.mean_iou, "f1": result.macro_f1, "oa": result.overall_accuracy}

    def of_map(self, predicted: NDArray[np.int64]) -> dict[str, float]:
        """Agreement of a map of class numbers with the truth away from the labels."""
        task = self.task
        if task.truth is None or task.where is None:
            raise ValueError("the task has no truth for every pixel")
        number = {int(entry.value): index for index, entry in enumerate(self.labels.scheme.classes)}
        table = np.array([number.get(code, -1) for code in range(int(task.truth.max()) + 1)])
        classes = np.where(task.where, table[np.clip(task.truth, 0, None)], -1)
        return self.score(predicted[classes >= 0], classes[classes >= 0])

    def model(self, model: FusionModel, data: TrainingData, names: Iterable[str] | None = None) -> dict[str, float]:
        """Agreement of a model, shown all of its inputs or some of them."""
        specification, wanted = model.specification, None if names is None else set(names)
        if self.task.truth is None:
            seen = predict_labelled(model, specification, data, self.test, torch.device("cpu"), wanted)
            return self.score(seen.predicted, seen.classes)
        shown = tuple(a for a in self.scene.acquisitions if wanted is None or a.name in wanted)
        card = ModelCard(
            software_version="benchmark",
            specification=specification,
            resolution_m=specification.resolution_m,
            class_scheme=self.labels.scheme.name,
            classes=class_cards(self.labels.scheme),
            allows_missing=True,
        )
        engine = MappingEngine(model, card, replace(self.scene, acquisitions=shown), torch.device("cpu"))
        strips = [strip.probabilities.argmax(axis=0) for strip in engine.strips(self.scene.grid.window)]
        return self.of_map(np.concatenate(strips))


def measure(task: Task, seed: int, epochs: int, done: dict[str, Any], save: Save) -> None:
    """Every run of a task that is not done yet."""
    everything = tuple(task.inputs)
    for fusion in FUSIONS:
        if fusion not in done:
            save(fusion, *_train(task, everything, fusion, seed, epochs, subsets=True))
    if any(baseline.name not in done for baseline in BASELINES):
        for name, result, seconds in _baselines(task, seed):
            save(name, result, seconds, {})
    for count in range(1, len(everything)):
        for names in combinations(everything, count):
            key = "alone: " + "+".join(names)
            # Three trainings for each pair of the trees' inputs would take longer than all else.
            if key not in done and names != ("DEM",) and (count == 1 or "S2" in names or "S1" in names):
                save(key, *_train(task, names, "intermediate", seed, epochs, subsets=False))


def _prepared(task: Task, names: tuple[str, ...], seed: int) -> tuple[Scored, NDArray[np.bool_], NDArray[np.bool_]]:
    """The scene of some inputs, which features validate, and which of them are never trained on."""
    if names not in task.kept:
        task.kept[names] = build_scene(task.request(names))
    scene: Scene = task.kept[names]
    labels = read_labels(str(task.labels), task.class_field, scene.grid)
    test = np.zeros(len(labels), bool)
    if task.is_test is not None:
        frame = geopandas.read_file(task.labels, fid_as_index=True)
        test = frame[task.is_test].loc[labels.feature_ids].to_numpy() == 1
    split = spatial_split(_without(labels, test), scene.grid, VALIDATION, seed)
    validation = np.zeros(len(labels), bool)
    validation[np.flatnonzero(~test)] = split.validation
    return Scored(task, scene, labels, test), validation, test


def _without(labels: LabelSet, test: NDArray[np.bool_]) -> LabelSet:
    keep = ~test
    return replace(
        labels,
        geometries=labels.geometries[keep],
        class_index=labels.class_index[keep],
        feature_ids=labels.feature_ids[keep],
    )


def _train(
    task: Task, names: tuple[str, ...], fusion: FusionName, seed: int, epochs: int, subsets: bool
) -> tuple[dict[str, float], float, dict[str, Any]]:
    scored, validation, test = _prepared(task, names, seed)
    labels = scored.labels
    specification = specify_model(scored.scene, "unet_intermediate", len(labels.scheme), fusion=fusion, size=SIZE)
    specification = specification.model_copy(update={"window": WINDOW, "has_shortcut": False})
    settings = TrainingSettings(
        seed=seed,
        epochs=epochs,
        patience=epochs,
        window_size=WINDOW,
        windows_per_epoch=WINDOWS,
        learning_rate=LEARNING_RATE,
    )
    whole = _data_of(scored, names, max(settings.window_size, context_reach(specification)))
    # What is scored must not be seen by sampler, class weights or validation, nor in windows around its neighbours.
    data = whole.only(~test)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        model = start_model(specification, seed, None, labels.scheme)
        path = Path(folder) / "checkpoint"
        result = train(
            model, specification, data, validation, settings, torch.device("cpu"), path, "benchmark", lambda part, phase: None
        )
    seconds = time.perf_counter() - started
    trained = result.model
    assert isinstance(trained, FusionModel)
    extra: dict[str, Any] = {"best_epoch": result.best_epoch, "is_apart": True}
    if subsets:
        extra["subsets"] = _subset_scores(trained, scored, whole, names, specification)
    return scored.model(trained, whole), seconds, extra


def _data_of(scored: Scored, names: tuple[str, ...], reach: int) -> TrainingData:
    """The surroundings of the labels, which are read once for all fusions."""
    key = ("data", names, reach)
    if key not in scored.task.kept:
        scored.task.kept[key] = TrainingData(scored.scene, scored.labels, reach, allows_missing=len(names) > 1)
    data: TrainingData = scored.task.kept[key]
    return data


def _subset_scores(
    model: FusionModel, scored: Scored, data: TrainingData, names: tuple[str, ...], specification: ModelSpecification
) -> dict[str, dict[str, float]]:
    """Scores of a model trained on all inputs, shown some of them."""
    by_input = dict(zip(names, _modalities_of(scored, names), strict=True))
    scores = {}
    for count in range(1, len(names)):
        for chosen in combinations(names, count):
            if chosen != ("DEM",):
                scores["+".join(chosen)] = scored.model(model, data, [by_input[name] for name in chosen])
    return scores


def _modalities_of(scored: Scored, names: tuple[str, ...]) -> list[str]:
    """The acquisition of each input, by its first file."""
    found = {}
    for acquisition in scored.scene.acquisitions:
        for path in acquisition.paths:
            found[path] = acquisition.name
    return [found[scored.task.inputs[name][1][0]] for name in names]


def _baselines(task: Task, seed: int) -> list[tuple[str, dict[str, float], float]]:
    """The classical baselines on all inputs, trained on the same part of the labels."""
    scored, validation, test = _prepared(task, tuple(task.inputs), seed)
    data = TrainingData(scored.scene, scored.labels, TrainingSettings().window_size, allows_missing=True)
    samples = labelled_features(data)
    learned = ~(validation | test)[samples.feature]
    whole = {}
    if task.truth is not None:
        with SceneReader(scored.scene) as reader:
            whole["pixels"] = pixel_features(reader.read(scored.scene.grid.window), scored.scene)
        whole["neighbourhoods"] = neighbourhood_features(whole["pixels"])
    rows = []
    for baseline in BASELINES:
        started = time.perf_counter()
        estimator = baseline.make(seed)
        features = samples.of(baseline.features)
        estimator.fit(features[learned], samples.classes[learned])
        if task.truth is None:
            chosen = test[samples.feature]
            result = scored.score(estimator.predict(features[chosen]), samples.classes[chosen])
        else:
            seen = whole[baseline.features]
            result = scored.of_map(estimator.predict(seen.reshape(len(seen), -1).T).reshape(seen.shape[1:]))
        rows.append((baseline.name, result, time.perf_counter() - started))
    return rows


def _caution(rows: list[dict[str, Any]]) -> list[str]:
    """What is known to be wrong with old runs."""
    names = {baseline.name for baseline in BASELINES}
    old = [row["scene"] for row in rows if row["name"] not in names and not row.get("is_apart")]
    wrong = [scene for scene in dict.fromkeys(old) if scene in HELD_OUT_LABELS]
    if not wrong:
        return []
    return [
        f"**Too good, by how much is not known**: the networks of {' and '.join(wrong)} were trained while windows around "
        "training labels could show labels of neighbouring test tiles and plots. The classical rows saw none of them.",
        "",
    ]


def table(rows: list[dict[str, Any]], epochs: int) -> str:
    """Both tables in Markdown."""
    lines = [
        "# Fusions on real scenes",
        "",
        f"The U-Net of size {SIZE} with neighbourhood statistics and without the linear model that the product starts from, "
        f"{epochs} epochs of {WINDOWS} windows of {WINDOW} pixels, "
        f"{VALIDATION:.0%} of the labels held out in spatial blocks to choose the epoch; scored away from all labels "
        "(s1s2_282D against a weak yearly map, flood_India against a hand-drawn one) or on tiles and plots held out "
        "(enmap_Potsdam, neon_MLBS). Mean IoU in percent, mean and standard deviation over the seeds. Against early: mean and "
        "standard deviation of the difference, seed by seed. Seconds are of training and validation, two runs at a time on two "
        "cores, at times beside other work.",
        "",
        *_caution(rows),
        "| scene | model | seeds | mIoU | against early | macro F1 | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    pairs = dict.fromkeys((row["scene"], row["name"]) for row in rows)
    for scene, name in sorted(pairs, key=lambda pair: list(TASKS).index(pair[0])):
        own = {row["seed"]: row for row in rows if (row["scene"], row["name"]) == (scene, name)}
        early = {row["seed"]: row for row in rows if (row["scene"], row["name"]) == (scene, "early")}
        gaps = [100 * (own[seed]["miou"] - early[seed]["miou"]) for seed in own if seed in early]
        cells = [scene, name, str(len(own)), _spread([100 * row["miou"] for row in own.values()])]
        cells += [_spread(gaps, "+") if name != "early" else "", _spread([100 * row["f1"] for row in own.values()])]
        cells.append(f"{np.mean([row['seconds'] for row in own.values()]):.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "## Missing inputs",
        "",
        "Models trained on all inputs (a quarter of the steps with some withheld) and shown a part of them, beside a model "
        "trained on that part alone. Mean IoU in percent; – where a map cannot rest on the input, which is so of heights "
        "alone, or where nothing was trained, which is so of pairs of the trees' inputs.",
        "",
        "| scene | inputs shown | trained on them alone | " + " | ".join(FUSIONS) + " |",
        "|---|---|---|" + "---|" * len(FUSIONS),
    ]
    for scene in dict.fromkeys(row["scene"] for row in rows):
        own = [row for row in rows if row["scene"] == scene]
        for subset in dict.fromkeys(key for row in own for key in row.get("subsets", {})):
            alone = [100 * row["miou"] for row in own if row["name"] == f"alone: {subset}"]
            cells = [scene, subset, _spread(alone)]
            for fusion in FUSIONS:
                values = [100 * row["subsets"][subset]["miou"] for row in own if row["name"] == fusion]
                cells.append(_spread(values))
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def _spread(values: list[float], sign: str = "") -> str:
    values = [value for value in values if np.isfinite(value)]
    if not values:
        return "–"
    mean = f"{np.mean(values):{sign}.1f}"
    return f"{mean} ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the real scenes")
    parser.add_argument("--scenes", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--output", type=Path, default=RESULTS / "fusion", help="path without ending")
    options = parser.parse_args()
    begin()
    lines, page = options.output.with_suffix(".jsonl"), options.output.with_suffix(".md")
    lines.parent.mkdir(parents=True, exist_ok=True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    for seed in options.seeds:
        for scene in options.scenes:
            key = (scene, seed, options.epochs)
            done = {row["name"]: row for row in _read(lines) if (row["scene"], row["seed"], row["epochs"]) == key}

            save = _saver(lines, page, {"scene": scene, "seed": seed, "epochs": options.epochs})
            with tempfile.TemporaryDirectory() as folder:
                task = TASKS[scene](options.data.resolve(), seed, Path(folder))
                measure(task, seed, options.epochs, done, save)


def _saver(lines: Path, page: Path, key: dict[str, Any]) -> Save:
    """Adds a finished run to the file, and makes the tables anew."""

    def save(name: str, result: dict[str, float], seconds: float, extra: dict[str, Any]) -> None:
        with lines.open("a") as stream:
            stream.write(json.dumps({**key, "name": name, **result, "seconds": seconds, **extra}) + "\n")
        page.write_text(table([row for row in _read(lines) if row["epochs"] == key["epochs"]], key["epochs"]))
        print(key["scene"], key["seed"], name, f"{100 * result['miou']:.1f} in {seconds:.0f} s", flush=True)

    return save


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


if __name__ == "__main__":
    main()
