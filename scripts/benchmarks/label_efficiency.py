"""Does pre-training help? Each method, frozen and fine-tuned, against classical models, from 3, 10 and 30 polygons a class.

The scenes and their labels are those of ``labelled_scenes.py``. A method is trained on all pixels of a scene without their
labels, and on the other scenes of its sensors where there are any: the pixels that are scored are among them, so the scores
are transductive, as they are for whoever maps the scene that they pre-train on. Its features are then judged

* frozen, by a logistic regression and a forest on the features alone,
* frozen, by the vote of that regression with a regression and a forest on the pixels (the mean of the probabilities),
* fine-tuned, as the product does: with its linear model beside the network where it has one.

All learn from the same part of the polygons (about 70 %, in spatial blocks); the rest chooses the strength of the logistic
regression, the networks' rate and epoch. Every finished run is a line of a JSON file, and a second start goes on where the
first ended:

    OMP_WAIT_POLICY=PASSIVE .venv/bin/python scripts/benchmarks/label_efficiency.py ../shared/data

It writes ``scripts/benchmarks/results/label_efficiency.jsonl`` and ``label_efficiency.md``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fusion import RESULTS
from labelled_scenes import COUNTS, SCENES, LabelledScene, open_scene
from numpy.typing import NDArray
from pages import cell, read, tables_by_scene
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from core.finetuning.estimators.baselines import labelled_features, neighbourhood_features, pixel_features
from core.finetuning.evaluation import calibrated_log_loss, context_reach, predict_labelled
from core.finetuning.networks.linear_start import fit_linear_start
from core.finetuning.networks.loop import train
from core.finetuning.networks.settings import TrainingSettings
from core.finetuning.networks.start import start_model, without_classes
from core.finetuning.training_data import TrainingData
from core.jobs.process import begin
from core.mapping.engine import MappingEngine
from core.models.estimator_model import EstimatorModel
from core.models.feature_model import FeatureModel
from core.models.fusion_model import FusionModel
from core.models.model_file import ModelCard, class_cards
from core.models.registry import build_model, model_step, receptive_radius
from core.models.specification import FusionName, ModelSpecification
from core.models.specify import specify_for_scenes, specify_model, with_classes
from core.models.vote_model import VoteModel
from core.pretraining.loop import pretrain
from core.pretraining.methods import METHODS, MethodName
from core.pretraining.recipes.build import make_recipe
from core.pretraining.scene_windows import SceneWindows
from core.scenes.reading import SceneReader

STRENGTHS = (0.001, 0.01, 0.1, 1.0)
TREES = 200
RATES, RATE_COUNT = (1e-3, 3e-3), 10

EPOCHS: dict[MethodName, int] = {
    "latent_targets": 3,
    "sar_optical_contrast_early": 8,
    "sar_optical_contrast_intermediate": 8,
    "sar_optical_contrast_late": 8,
    "asymmetric_attention": 2,
    "cross_scale_mae": 1,
    "cross_sensor_alignment": 1,
    "anchor_aware_mae": 3,
}
"""As many as take about a minute on one core on ``s1s2_282D``, the cross-sensor alignment two: a number of steps gives the
same result twice, and a time does not. Few steps, for the transformers."""

WIDE = ("enmap_Potsdam", "neon_MLBS")
"""Scenes of hundreds of bands, of which a step takes several times as long: half as many."""

WINDOWS = 256
"""Of an epoch of pre-training, on all scenes alike."""

NEED_TWO: tuple[MethodName, ...] = ("sar_optical_contrast_late", "cross_sensor_alignment")

NETWORK = TrainingSettings(epochs=8, patience=8, windows_per_epoch=120, window_size=32, modality_dropout=0.0)
"""Smaller windows than the product's and no practice in doing without inputs: hundreds of trainings have to end."""

KINDS = ("logistic regression", "forest")
FROZEN = (*KINDS, "vote beside pixels")

CLASSICAL = ("pixels,", "neighbourhoods,")
SCRATCH, PRODUCT = "U-Net from scratch", "U-Net from scratch, beside linear models"

CPU = torch.device("cpu")

Rows = NDArray[np.float32]
Shares = NDArray[np.float64]
"""(scored pixels, classes), probabilities."""

Save = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, eq=False)
class Table:
    """Features of labelled pixels and of scored ones, one row each."""

    labelled: Rows
    scored: Rows


class Bench:
    """One scene with one seed: what is learned from, what is scored, and every way from one to the other.

    Args:
        place: the scene.
    """

    def __init__(self, place: LabelledScene) -> None:
        self.place = place
        self.data = place.training_data(NETWORK.window_size)
        self.pixels = self.data.pixels
        self.scored = place.scored_pixels(self.data)
        self.held_out = {count: place.held_out(count) for count in COUNTS}
        self.used = {count: place.used(count) for count in COUNTS}
        self._reached = {NETWORK.window_size: self.data}

    def reaching(self, specification: ModelSpecification) -> TrainingData:
        """The surroundings of the labels that a model needs."""
        reach = max(NETWORK.window_size, context_reach(specification))
        if reach not in self._reached:
            self._reached[reach] = self.place.training_data(reach)
        return self._reached[reach]

    def part(self, count: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int64]]:
        """Which labelled pixels are learned from, which are held out, and the classes of all."""
        used, held_out = self.used[count][self.pixels[:, 3]], self.held_out[count][self.pixels[:, 3]]
        return used & ~held_out, held_out, self.pixels[:, 2]

    def classical(self) -> dict[str, Table]:
        """Pixels, and pixels with their neighbourhoods."""
        if not self.place.has_map:
            samples = labelled_features(self.data)
            if not (np.array_equal(samples.classes, self.pixels[:, 2]) and np.array_equal(samples.feature, self.pixels[:, 3])):
                raise ValueError("the samples are in another order than the labelled pixels")
            kinds = {"pixels": samples.of("pixels"), "neighbourhoods": samples.of("neighbourhoods")}
            return {kind: self._table(np.nan_to_num(values)) for kind, values in kinds.items()}
        with SceneReader(self.place.scene) as reader:
            pixels = pixel_features(reader.read(self.place.scene.grid.window), self.place.scene)
        maps = {"pixels": pixels, "neighbourhoods": neighbourhood_features(pixels)}
        return {kind: self._gathered(np.nan_to_num(values)) for kind, values in maps.items()}

    def features(self, model: FusionModel, uses_decoder: bool) -> Table:
        """What a model makes of the pixels, frozen."""
        features = FeatureModel(model, uses_decoder).eval()
        return self._answers(features, model.specification, features.n_features)

    def answers(self, model: FusionModel | EstimatorModel | VoteModel) -> Rows:
        """(scored pixels, classes), what a model says before the softmax."""
        return self._answers(model.eval(), model.specification, model.specification.n_classes).scored

    def _answers(self, model: nn.Module, specification: ModelSpecification, channels: int) -> Table:
        scene = self.place.scene
        if not self.place.has_map:
            data = self.reaching(specification)
            every = np.ones(len(data.labels), bool)
            answer = predict_labelled(model, specification.model_copy(update={"n_classes": channels}), data, every, CPU)
            return self._table(answer.scores)
        card = ModelCard(
            software_version="benchmark",
            specification=specification,
            resolution_m=specification.resolution_m,
            class_scheme=self.place.labels.scheme.name if specification.head == "dense" else "",
            classes=class_cards(self.place.labels.scheme) if specification.head == "dense" else (),
            allows_missing=True,
        )
        engine = MappingEngine(model, card, scene, CPU, n_features=channels)
        labelled = np.zeros((len(self.pixels), channels), np.float32)
        scored = np.zeros((len(self.scored), channels), np.float32)
        for strip in engine.strips(scene.grid.window):
            for pixels, rows in ((self.pixels, labelled), (self.scored, scored)):
                inside = (pixels[:, 1] >= strip.window.row) & (pixels[:, 1] < strip.window.stop_row)
                rows[inside] = strip.probabilities[:, pixels[inside, 1] - strip.window.row, pixels[inside, 0]].T
        return Table(np.nan_to_num(labelled), np.nan_to_num(scored))

    def _table(self, rows: Rows) -> Table:
        """Of rows for all labelled pixels, those that are scored among them."""
        return Table(rows, rows[self.place.rank[self.pixels[:, 3]] < 0])

    def _gathered(self, maps: Rows) -> Table:
        labelled, scored = (maps[:, pixels[:, 1], pixels[:, 0]].T for pixels in (self.pixels, self.scored))
        return Table(labelled, scored)

    def logistic(self, table: Table, count: int) -> Shares:
        """Of a logistic regression whose strength the held-out part chooses."""
        learned, held_out, classes = self.part(count)
        held_out = held_out & np.isin(classes, classes[learned])
        weights = 1.0 / np.bincount(classes[held_out])[classes[held_out]]
        best: tuple[float, Any] | None = None
        for strength in STRENGTHS:
            model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, class_weight="balanced", max_iter=500))
            model.fit(table.labelled[learned], classes[learned])
            said = model.predict_proba(table.labelled[held_out])
            loss = log_loss(classes[held_out], said, labels=model.classes_, sample_weight=weights)
            if best is None or loss < best[0]:
                best = loss, model
        assert best is not None
        return self._shares(best[1], table)

    def forest(self, table: Table, count: int) -> Shares:
        """Of a random forest, which has nothing to choose."""
        learned, _, classes = self.part(count)
        forest = RandomForestClassifier(TREES, class_weight="balanced", random_state=self.place.seed)
        return self._shares(forest.fit(table.labelled[learned], classes[learned]), table)

    def _shares(self, estimator: Any, table: Table) -> Shares:
        shares = np.zeros((len(table.scored), len(self.place.labels.scheme)))
        shares[:, estimator.classes_] = estimator.predict_proba(table.scored)
        return shares

    def score(self, shares: Shares) -> dict[str, float]:
        """Agreement of the likeliest classes of the scored pixels."""
        return self.place.score(shares.argmax(axis=1), self.scored[:, 2])

    def network(
        self,
        count: int,
        base: FusionModel | None,
        has_shortcut: bool,
        rates: Sequence[float] = RATES,
        width: int | None = None,
    ) -> dict[str, Any]:
        """The product's training, from scratch (in another width) or from a base model; the held-out part chooses rate and
        epoch."""
        place, seed = self.place, self.place.seed
        n_classes = len(place.labels.scheme)
        if base is None:
            specification = specify_model(place.scene, "unet_intermediate", n_classes)
            specification = specification.model_copy(update={"width": width})
        else:
            specification = with_classes(base.specification, n_classes)
        specification = specification.model_copy(update={"has_shortcut": has_shortcut and specification.has_shortcut})
        # Windows around the polygons that are used show others, too: these must not be seen.
        data = self.reaching(specification).only(self.used[count])
        held_out, best = self.held_out[count], None
        for rate in rates:
            model = start_model(specification, seed, None, place.labels.scheme)
            if base is not None:
                model.load_state_dict(without_classes(base.state_dict()), strict=False)
            if specification.has_shortcut:
                fit_linear_start(model, specification, data, self.used[count] & ~held_out)
            settings = replace(NETWORK, seed=seed, learning_rate=rate)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "checkpoint"
                result = train(model, specification, data, held_out, settings, CPU, path, "b", lambda part, phase: None)
            assert result.validation is not None
            loss = calibrated_log_loss(result.validation)
            if best is None or loss < best[0]:
                best = loss, result.model, rate, result.best_epoch
        assert best is not None
        assert isinstance(best[1], FusionModel)
        score = place.score(self.answers(best[1]).argmax(axis=1), self.scored[:, 2])
        return score | {"rate": best[2], "best_epoch": best[3]}


def pretrained(
    place: LabelledScene,
    method: MethodName,
    switches: dict[str, Any] | None = None,
    times: float = 1.0,
    fusion: FusionName | None = None,
) -> tuple[FusionModel, bool, dict[str, float]]:
    """A model trained on a scene without labels, and whether its decoder was trained.

    Args:
        place: the scene, with the others of its sensors.
        method: of the recipe.
        switches: of the recipe.
        times: the method's ``EPOCHS``.
        fusion: in place of the architecture's own.

    Returns:
        Besides, its cost: steps and seconds.
    """
    recipe = make_recipe(method, "small", switches)
    architecture, size = METHODS[method].architecture, METHODS[method].size
    specification, scenes = specify_for_scenes([place.scene, *place.others], architecture, fusion=fusion, size=size)
    specification = recipe.specification(specification)
    recipe.check(specification)
    step = model_step(specification)
    settings = recipe.settings("small")
    window = -(-settings.window_size // step) * step
    if receptive_radius(specification) is None:
        specification = specification.model_copy(update={"window": window})
    per_epoch = WINDOWS // 2 if place.name in WIDE else WINDOWS
    epochs = max(1, round(times * EPOCHS[method]))
    settings = replace(settings, seed=place.seed, epochs=epochs, windows_per_epoch=per_epoch, window_size=window)
    torch.manual_seed(place.seed)
    model = build_model(specification)
    objective = recipe.objective(model)
    windows = SceneWindows(scenes, specification, settings.window_size, settings.batch_size)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint"
        result = pretrain(model, objective, windows, settings, CPU, path, "benchmark", lambda part, phase: None)
    cost = {"steps": float(result.steps), "seconds": round(time.perf_counter() - started, 1)}
    return result.model, result.trains_decoder, cost


def measure(name: str, data: Path, seed: int, options: argparse.Namespace, done: set[Any], save: Save) -> None:
    """Every run of a scene and a seed that is not done yet."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(open_scene(name, data, seed, Path(folder)))
        judges = Judges(bench, done, save)
        if options.frozen:
            judges.classical()
        if options.networks:
            judges.network(SCRATCH, None, False, {})
            judges.network(PRODUCT, None, True, {})
        for method in options.methods:
            row = method if options.times == 1 else f"{method} x {options.times:g}"
            if method not in suited(bench.place) or not judges.lacks(row, options.frozen, options.networks):
                continue
            model, has_decoder, cost = pretrained(bench.place, method, times=options.times)
            print(f"{name} {seed} {method}: {cost}", flush=True)
            if options.frozen:
                judges.frozen(row, bench.features(model, has_decoder), cost)
            if options.networks:
                judges.network(f"{row}, fine-tuned", model, True, cost)


def suited(place: LabelledScene) -> tuple[MethodName, ...]:
    """The methods that a scene's sensors allow."""
    is_alone = len(place.scene.acquisitions) == 1
    return tuple(method for method in METHODS if not is_alone or method not in NEED_TWO)


class Judges:
    """Runs what is not done yet, and saves it.

    Args:
        bench: of a scene and seed.
        done: rows and numbers of polygons that are saved already.
        save: takes a run.
    """

    def __init__(self, bench: Bench, done: set[Any], save: Save) -> None:
        self._bench, self._done, self._save = bench, done, save
        self._pixels: dict[int, list[Shares]] = {}

    def lacks(self, method: str, frozen: bool, networks: bool) -> bool:
        """Whether anything of a method is not done yet."""
        rows = [f"{method}, {kind}" for kind in FROZEN if frozen] + [f"{method}, fine-tuned"] * networks
        return any((row, count) not in self._done for row in rows for count in COUNTS)

    def classical(self) -> None:
        """Rows without pre-training; those on pixels also vote beside others."""
        tables = self._bench.classical()
        for count in COUNTS:
            self._pixels[count] = [judge(tables["pixels"], count) for judge in (self._bench.logistic, self._bench.forest)]
            around = [judge(tables["neighbourhoods"], count) for judge in (self._bench.logistic, self._bench.forest)]
            for kind, shares in zip(KINDS, self._pixels[count], strict=True):
                self._keep(f"pixels, {kind}", count, shares, {})
            for kind, shares in zip(KINDS, around, strict=True):
                self._keep(f"neighbourhoods, {kind}", count, shares, {})
            self._keep("pixels, vote of both", count, sum(self._pixels[count]), {})

    def frozen(self, method: str, table: Table, cost: dict[str, float]) -> None:
        """Rows of frozen features; ``classical`` comes before."""
        for count in COUNTS:
            shares = [judge(table, count) for judge in (self._bench.logistic, self._bench.forest)]
            votes = [sum(self._pixels[count]) + shares[0]]
            for kind, each in zip(FROZEN, shares + votes, strict=True):
                self._keep(f"{method}, {kind}", count, each, cost)

    def network(self, row: str, base: FusionModel | None, has_shortcut: bool, cost: dict[str, float]) -> None:
        """Rows of a network: its rate is chosen where labels are neither few nor many, and kept for the others."""
        rates = RATES
        for count in sorted(COUNTS, key=lambda each: each != RATE_COUNT):
            if (row, count) not in self._done:
                result = self._bench.network(count, base, has_shortcut, rates)
                rates = (result["rate"],)
                self._save({"row": row, "polygons": count} | result | cost)

    def _keep(self, row: str, count: int, shares: Any, cost: dict[str, float]) -> None:
        if (row, count) not in self._done:
            self._save({"row": row, "polygons": count} | self._bench.score(shares) | cost)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Mean IoU by row and number of polygons, in Markdown."""
    lines = [
        "# Label efficiency",
        "",
        "Mean IoU in percent, mean and standard deviation over the draws of polygons (each with a pre-training of its own). "
        "Pre-training on the scene's own pixels without labels (transductive), and on two more scenes of the same sensors for "
        "s1s2_282D: about a minute on one core. References: a weak yearly map (s1s2_282D: agreement), hand-drawn water "
        "(floods), field labels (EnMAP), crowns (NEON). What is scored lies at least five pixels away from the polygons "
        "(s1s2_282D, India), less than the widest statistics and windows reach.",
        "",
        f"Shorter than in the product: pre-training of {min(EPOCHS.values())} to {max(EPOCHS.values())} epochs (there 40 to "
        f"80), networks of up to {NETWORK.epochs} epochs of {NETWORK.windows_per_epoch} windows (there 24). Networks of "
        "methods with linear models beside them begin as those: how often no epoch was better on the held-out labels is in "
        "the last column, and there the row is one of the linear models. A rate is chosen at 10 polygons a class and kept for "
        "3 and 30.",
    ]
    headings = ["pre-training", "no epoch helped"]
    return "\n".join([*lines, *tables_by_scene(rows, headings, _further), *_aim(rows), ""])


def _further(runs: list[dict[str, Any]]) -> list[str]:
    seconds = [run["seconds"] for run in runs if "seconds" in run]
    best = [run["best_epoch"] for run in runs if "best_epoch" in run]
    return [f"{np.mean(seconds):.0f} s" if seconds else "", f"{best.count(0)} of {len(best)}" if best else ""]


def _aim(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Whether methods gain three points over the U-Net from scratch and lose no more than one against classical models."""
    found = {(row["scene"], row["row"], row["polygons"], row["seed"]): 100 * row["miou"] for row in rows}
    lines = [
        "",
        "## The aim",
        "",
        "At 3 and 10 polygons a class three points over the U-Net from scratch, and never more than one below the best of the "
        "classical models (of the scene and number of polygons, by its mean over the draws). Differences are taken draw by "
        "draw; the aim is met where their means say so, whatever their spread. Scenes without a U-Net are left out.",
        "",
        "| method | scene | draws | 3: over U-Net | 3: over classical | 10: over U-Net | 10: over classical | met |",
        "|---|---|---|---|---|---|---|---|",
    ]
    names = {row["row"]: None for row in rows if row["row"].endswith((FROZEN[2], "fine-tuned"))}
    scenes = list(dict.fromkeys(row["scene"] for row in rows if row["row"] == SCRATCH))
    for name, scene in itertools.product(names, scenes):
        classical = {row["row"] for row in rows if row["scene"] == scene and row["row"].startswith(CLASSICAL)}
        draws = sorted({seed for at, row, _, seed in found if (at, row) == (scene, name)})
        cells, met = [], []
        for count in (3, 10):
            mean = {row: np.mean([found[scene, row, count, seed] for seed in draws]) for row in classical} if draws else {}
            for other, least in ((SCRATCH, 3.0), (max(mean, key=lambda row: mean[row], default=""), -1.0)):
                pairs = [((scene, name, count, seed), (scene, other, count, seed)) for seed in draws]
                gains = [found[one] - found[two] for one, two in pairs if one in found and two in found]
                cells.append(cell(gains))
                met.append(bool(gains) and float(np.mean(gains)) >= least)
        if draws:
            said = "yes" if all(met) else "no"
            lines.append(f"| {name} | {scene} | {len(draws)} | {' | '.join(cells)} | {said} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the real scenes")
    parser.add_argument("--scenes", nargs="+", choices=list(SCENES), default=list(SCENES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--methods", nargs="*", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--no-frozen", dest="frozen", action="store_false", help="leave out what learns no network on labels")
    parser.add_argument("--networks", action="store_true", help="train networks on the labels, too")
    parser.add_argument("--times", type=float, default=1.0, help="length of the pre-training; other rows than those of 1")
    parser.add_argument("--output", type=Path, default=RESULTS / "label_efficiency", help="path without ending")
    options = parser.parse_args()
    begin()
    lines, page = options.output.with_suffix(".jsonl"), options.output.with_suffix(".md")
    for seed in options.seeds:
        for scene in options.scenes:
            done = {(row["row"], row["polygons"]) for row in read(lines) if (row["scene"], row["seed"]) == (scene, seed)}

            def save(result: dict[str, Any], scene: str = scene, seed: int = seed) -> None:
                with lines.open("a") as stream:
                    stream.write(json.dumps({"scene": scene, "seed": seed} | result) + "\n")
                page.write_text(table(read(lines)))
                print(scene, seed, result["row"], result["polygons"], f"{100 * result['miou']:.1f}", flush=True)

            measure(scene, options.data.resolve(), seed, options, done, save)


if __name__ == "__main__":
    main()
