"""Change between two dates: how good is it without labels, and with 3, 10 and 30 small squares of changed and unchanged ground?

Landsat images of Taizhou, China, of March 2000 and February 2003, with pixels that are known to have changed and not to have
changed. For each seed the scene is cut into blocks of 50 x 50 pixels: in a random half of them squares of 3 x 3 known pixels
are drawn, and in the others all known pixels are scored that lie more than ten pixels away from any square. Every method is
scored on the same pixels:

- without labels, the length of the change vector (CVA), on bands as they are and standardised, MAD and IR-MAD, each with
  Otsu's threshold; IR-MAD as a test at a stated probability of no change, with the product's correction of the variance and
  as published;
- with labels, estimators on both dates' bands (the plain baseline) and on differences, and the vote that the product delivers;
- with ``--networks`` the network with the head of change that the product trains beside them, from nothing and from a model
  that was pre-trained on the pixels of both dates without labels (so these scores are transductive), and whether the product
  would have taken it in place of the vote.

The members of the vote were chosen on this scene, with the seeds 0 to 5; the draws of the page have other seeds.

Every finished run is a line of a JSON file, and a second start goes on where the first ended:

    OMP_WAIT_POLICY=PASSIVE nice -n 10 .venv/bin/python scripts/benchmarks/change.py ../shared/data

It writes ``scripts/benchmarks/results/change.jsonl`` and ``change.md``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

import geopandas
import numpy as np
import rasterio
import shapely
import torch
from fusion import RESULTS
from label_efficiency import pretrained
from labelled_scenes import COUNTS
from numpy.typing import NDArray
from pages import Run, cell, read
from scipy.ndimage import distance_transform_edt
from skimage.filters import threshold_otsu

from core.assessment.confusion import accuracy, confusion_matrix
from core.finetuning.change.estimators import (
    ESTIMATORS,
    VOTE,
    ChangeFeatures,
    ChangeVote,
    LabelledChange,
    cross_validated_change,
)
from core.finetuning.change.network import prepare_change_network, train_change_network
from core.jobs.change.strips import from_network
from core.jobs.process import begin
from core.jobs.schemas import DetectChangeJob
from core.labels.blocks import FOLDS, spatial_folds, spatial_split
from core.labels.label_set import LabelSet
from core.labels.rasterizing import count_pixels, rasterize
from core.labels.reading import read_labels
from core.mapping.rasters import raster_environment
from core.models import alteration
from core.models.alteration import Alteration, fit_alteration, length_at
from core.models.fusion_model import FusionModel
from core.models.model_file import ModelCard
from core.scenes.date_pair import DatePair, PairReader, pair_dates
from core.scenes.scene import Scene, SceneRequest, build_scene

BLOCK, SIDE, APART, GAP = 50, 3, 10, 2
"""In pixels: blocks, squares, how far from these is scored, and how far they lie from each other."""

EPOCHS = 8
"""Of a network: a third of the product's, so that many trainings end."""

CPU = torch.device("cpu")
FROM_NOTHING, FROM_PRETRAINED = "Network from scratch", "Network from a model pre-trained on both dates"

PROBABILITIES = (0.01, 0.001, 0.0001)
DEFAULT = DetectChangeJob.model_fields["no_change_probability"].default
NAMES = ("unchanged", "changed")
SCORES = {"f1_change": "F1 of change", "kappa": "kappa", "oa": "OA", "miou": "mIoU"}

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Place:
    """The scene.

    Attributes:
        pair: of the two dates.
        known: (rows, columns) 0 = unchanged, 1 = changed, -1 = nobody knows.
    """

    pair: DatePair
    known: NDArray[np.int64]


def open_place(data: Path) -> Place:
    folder = data / "landsat_change" / "taizhou"
    scenes = [build_scene(SceneRequest(paths={"optical": [str(folder / name)]})) for name in ("2000TM", "2003TM")]
    masks = []
    for name in ("unchanged.bmp", "change.bmp"):
        # The masks have no place on the ground; their pixels are those of the images.
        with rasterio.open(folder / name) as dataset:
            masks.append(dataset.read(1) > 0)
    return Place(pair_dates(*scenes), np.where(masks[1], 1, np.where(masks[0], 0, -1)))


def draw(place: Place, seed: int, path: Path) -> tuple[LabelSet, NDArray[np.int64], Mask]:
    """Draws squares: the labels, the number of each within its class, and which pixels are scored."""
    generator = np.random.default_rng(seed)
    rows, columns = (-(-side // BLOCK) for side in place.known.shape)
    drawn = generator.permutation(rows * columns).reshape(rows, columns) < rows * columns / 2
    learned = drawn.repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)[: place.known.shape[0], : place.known.shape[1]]
    taken = np.zeros(place.known.shape, bool)
    squares, classes, numbers = [], [], []
    for code in range(len(NAMES)):
        windows = np.lib.stride_tricks.sliding_window_view((place.known == code) & learned, (SIDE, SIDE)).all(axis=(2, 3))
        places = generator.permutation(np.argwhere(windows))
        number = 0
        for row, column in places:
            if number == COUNTS[-1]:
                break
            if taken[max(0, row - GAP) : row + SIDE + GAP, max(0, column - GAP) : column + SIDE + GAP].any():
                continue
            taken[row : row + SIDE, column : column + SIDE] = True
            left, top = place.pair.grid.transform @ (column, row)
            right, bottom = place.pair.grid.transform @ (column + SIDE, row + SIDE)
            squares.append(shapely.box(left, bottom, right, top))
            classes.append(NAMES[code])
            numbers.append(number)
            number += 1
    geopandas.GeoDataFrame({"class": classes}, geometry=squares, crs=place.pair.grid.crs).to_file(path, driver="GPKG")
    labels = read_labels(str(path), "class", place.pair.grid)
    scored = (place.known >= 0) & ~learned & (distance_transform_edt(~taken) > APART)
    return labels, np.array(numbers)[labels.feature_ids - 1], scored


@dataclass(frozen=True)
class Unlabelled:
    """Scenes that a model is pre-trained on; see ``label_efficiency.pretrained``."""

    name: str
    scene: Scene
    others: tuple[Scene, ...]
    seed: int


class Bench:
    """One draw, and every way from it to a map of change.

    Args:
        place: the scene.
        labels, number, scored: of ``draw``.
        seed: of everything random.
    """

    def __init__(self, place: Place, labels: LabelSet, number: NDArray[np.int64], scored: Mask, seed: int) -> None:
        self.place, self.labels, self.number, self.scored, self.seed = place, labels, number, scored, seed
        self.own_class = [labels.scheme.names.index(name) for name in NAMES]
        with PairReader(place.pair) as reader:
            window = place.pair.grid.window
            self.values = reader.read(window)
            started = time.perf_counter()
            self.flat = self.values.reshape(2, self.values.shape[1], -1)
            self.alteration = fit_alteration(self.flat, lambda part, phase: None)
            self.fit_seconds = time.perf_counter() - started
            self.features = ChangeFeatures(reader, self.alteration)
            self.rows = self.features.of(window)
        self.columns = self.features.columns
        self.burnt = rasterize(labels, place.pair.grid)

    def score(self, changed: Mask) -> dict[str, float]:
        """Agreement of a map, (rows, columns) bool."""
        told, true = changed[self.scored].astype(np.int64), self.place.known[self.scored]
        result = accuracy(confusion_matrix(told, true, 2), NAMES)
        return {
            "f1_change": float(result.f1[1]),
            "kappa": float(result.kappa),
            "oa": result.overall_accuracy,
            "miou": result.mean_iou,
        }

    def without_labels(self) -> dict[str, dict[str, float]]:
        """Scores by method."""
        found = {}

        def add(name: str, seconds: float, make: Callable[[], Mask]) -> None:
            started = time.perf_counter()
            changed = make()
            found[name] = self.score(changed) | {"seconds": seconds + time.perf_counter() - started}

        add("CVA, Otsu's threshold", 0, lambda: self._otsu(self.flat[1] - self.flat[0]))
        add(
            "CVA on standardised bands, Otsu's threshold",
            0,
            lambda: self._otsu(_standard(self.flat[1]) - _standard(self.flat[0])),
        )
        add("MAD, Otsu's threshold", 0, lambda: self._otsu(fit_alteration(self.flat, _quiet, 1).variates(self.flat)))
        variates = self.alteration.variates(self.flat)
        add("IR-MAD, Otsu's threshold", self.fit_seconds, lambda: self._otsu(variates))
        for probability in PROBABILITIES:
            beyond = partial(self._beyond, length_at(probability, len(variates)))
            name = f"IR-MAD, probability of no change below {probability:g}"
            add(name + (" (default)" if probability == DEFAULT else ""), self.fit_seconds, beyond)
        published = self._published().variates(self.flat)
        for probability in PROBABILITIES:
            limit = length_at(probability, len(published))
            changed = (np.linalg.norm(published, axis=0) > limit).reshape(self.scored.shape)
            found[f"IR-MAD as published, {probability:g}"] = self.score(changed) | {"seconds": self.published_seconds}
        return found

    def _published(self) -> Alteration:
        started = time.perf_counter()
        with mock.patch.object(alteration, "weighted_shrinkage", return_value=1.0):
            found = fit_alteration(self.flat, _quiet)
        self.published_seconds = time.perf_counter() - started
        return found

    def _beyond(self, limit: float) -> Mask:
        variates = self.alteration.variates(self.values)
        return np.asarray(np.sqrt((variates.astype(np.float64) ** 2).sum(axis=0)) > limit)

    def _otsu(self, vectors: NDArray[np.floating]) -> Mask:
        length = np.sqrt((vectors.astype(np.float64) ** 2).sum(axis=0)).reshape(self.scored.shape)
        return np.asarray(length > threshold_otsu(length))

    def used(self, count: int) -> Mask:
        """(n_features,) bool."""
        return np.asarray(self.number < count)

    def labelled(self, count: int) -> LabelledChange:
        inside = (self.burnt.feature >= 0) & self.used(count)[self.burnt.feature]
        feature = self.burnt.feature[inside].astype(np.int64)
        place = np.argwhere(inside)[:, ::-1]
        return LabelledChange(self.rows[:, inside].T, self.burnt.classes[inside].astype(np.int64), feature, place, 0)

    def with_labels(self, count: int) -> dict[str, dict[str, float]]:
        """Scores by estimator, fitted on all squares, and of their vote."""
        data, found, members, total = self.labelled(count), {}, [], 0.0
        for estimator in ESTIMATORS:
            started = time.perf_counter()
            columns = self.columns[estimator.columns]
            member = (columns, estimator.make(self.seed).fit(data.features[:, columns], data.classes))
            found[estimator.name] = self.score(self._told([member]))
            seconds = time.perf_counter() - started
            found[estimator.name]["seconds"] = seconds
            if estimator.votes:
                members.append(member)
                total += seconds
        found[VOTE] = self.score(self._told(members)) | {"seconds": total}
        return found

    def pretrained(self) -> tuple[FusionModel, ModelCard]:
        """A model of latent targets on the pixels of both dates."""
        pair = self.place.pair
        model, has_decoder, cost = pretrained(Unlabelled("taizhou", pair.before, (pair.after,), self.seed), "latent_targets")
        print(f"{self.seed} pre-training: {cost}", flush=True)
        card = ModelCard(
            software_version="benchmark",
            specification=model.specification,
            resolution_m=model.specification.resolution_m,
            class_scheme="",
            classes=(),
            has_trained_decoder=has_decoder,
        )
        return model, card

    def network(self, count: int, base: tuple[FusionModel, ModelCard] | None, folder: Path) -> dict[str, float]:
        """Scores of the network as the product trains it, and whether the product would take it."""
        pair = self.place.pair
        frame = geopandas.read_file(folder / "squares.gpkg")
        frame[self.used(count)[np.argsort(self.labels.feature_ids)]].to_file(folder / "used.gpkg", driver="GPKG")
        labels = read_labels(str(folder / "used.gpkg"), "class", pair.grid)
        counts = count_pixels(labels, pair.grid)
        split = spatial_split(labels, pair.grid, 1 / FOLDS, self.seed, counts=counts)
        fold = spatial_folds(labels, split, self.seed, counts)
        burnt = rasterize(labels, pair.grid)
        inside = burnt.feature >= 0
        place, feature = np.argwhere(inside)[:, ::-1], burnt.feature[inside].astype(np.int64)
        data = LabelledChange(self.rows[:, inside].T, burnt.classes[inside].astype(np.int64), feature, place, 0)
        candidates = cross_validated_change(data, self.columns, fold, 2, self.seed, _quiet)
        started = time.perf_counter()
        prepared = prepare_change_network(pair, self.alteration, labels, base, EPOCHS, self.seed, _quiet)
        path = folder / "checkpoint"
        network = train_change_network(prepared, split.validation, data, candidates, fold, CPU, path, "b", _quiet)
        path.unlink()
        unchanged, changed = (labels.scheme.names.index(name) for name in NAMES)
        codes = np.zeros(self.scored.shape, np.uint8)
        for strip in from_network(network, labels.scheme, unchanged, self.features, CPU, has_variates=False):
            codes[strip.window.row : strip.window.stop_row] = strip.codes
        seconds = time.perf_counter() - started
        score = self.score(codes == labels.scheme.codes[changed])
        return score | {"seconds": seconds, "taken": float(network.is_clearly_better)}

    def _told(self, members: Sequence[tuple[NDArray[np.int64], object]]) -> Mask:
        model = ChangeVote(tuple(members), 2, 1.0)
        shares = model.probabilities(self.rows[:, self.scored].T)
        changed = np.zeros(self.scored.shape, bool)
        changed[self.scored] = shares.argmax(axis=1) == self.own_class[1]
        return changed


def _quiet(part: float, phase: str) -> None:
    pass


def _standard(bands: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((bands - bands.mean(axis=1, keepdims=True)) / bands.std(axis=1, keepdims=True))


def table(rows: Sequence[Run]) -> str:
    """Two tables in Markdown: without labels, and with so many squares a class."""
    lines = [
        "# Change between two dates",
        "",
        "Landsat images of Taizhou, 2000 and 2003. Percent, mean and standard deviation over the draws, on known pixels in "
        "blocks of ground from which no square was drawn. The members of the vote were chosen on other draws of this scene. "
        f"A network is trained for {EPOCHS} epochs, and counts as taken where it is clearly better than the vote on the "
        "squares held out from it. Seconds are those of one fit and its answers on two busy cores. See "
        "`scripts/benchmarks/change.py`.",
        "",
        "## Without labels",
        "",
        f"| method | draws | {' | '.join(SCORES.values())} | seconds |",
        "|" + "---|" * (len(SCORES) + 3),
    ]
    free = [row for row in rows if row["polygons"] == 0]
    lines += [_line(name, [row for row in free if row["row"] == name]) for name in dict.fromkeys(row["row"] for row in free)]
    for count in COUNTS:
        own = [row for row in rows if row["polygons"] == count]
        if own:
            heading = f"| method | draws | {' | '.join(SCORES.values())} | seconds |"
            lines += ["", f"## {count} squares a class", "", heading, "|" + "---|" * (len(SCORES) + 3)]
            lines += [_line(name, [r for r in own if r["row"] == name]) for name in dict.fromkeys(r["row"] for r in own)]
    return "\n".join([*lines, ""])


def _line(name: str, runs: list[Run]) -> str:
    cells = [cell([100 * run[key] for run in runs]) for key in SCORES]
    if any(run.get("taken") for run in runs):
        name += f" (taken in {sum(run['taken'] for run in runs):.0f})"
    elif runs and "taken" in runs[0]:
        name += " (never taken)"
    return f"| {name} | {len(runs)} | {' | '.join(cells)} | {np.mean([run['seconds'] for run in runs]):.1f} |"


def networks(bench: Bench, folder: Path, done: set[tuple[str, int]], lines: Path) -> None:
    """Every training of a draw that is not done yet."""
    for row in (FROM_NOTHING, FROM_PRETRAINED):
        counts = [count for count in COUNTS if (row, count) not in done]
        base = bench.pretrained() if counts and row == FROM_PRETRAINED else None
        for count in counts:
            result = bench.network(count, base, folder)
            with lines.open("a") as stream:
                stream.write(json.dumps({"seed": bench.seed, "polygons": count, "row": row} | result) + "\n")
            print(bench.seed, count, row, f"{100 * result['f1_change']:.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the real scenes")
    parser.add_argument("--seeds", nargs="+", type=int, default=[6, 7, 8, 9, 10])
    parser.add_argument("--networks", action="store_true", help="train networks, too, which takes minutes a draw")
    parser.add_argument("--output", type=Path, default=RESULTS / "change", help="path without ending")
    options = parser.parse_args()
    begin()
    lines, page = options.output.with_suffix(".jsonl"), options.output.with_suffix(".md")
    place = open_place(options.data.resolve())
    for seed in options.seeds:
        done = {(run["row"], run["polygons"]) for run in read(lines) if run["seed"] == seed}
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(place, *draw(place, seed, Path(folder) / "squares.gpkg"), seed)
            if options.networks:
                networks(bench, Path(folder), done, lines)
                page.write_text(table(read(lines)))
        for count in (0, *COUNTS):
            wanted = (VOTE, count) if count else ("CVA, Otsu's threshold", 0)
            if wanted in done:
                continue
            with lines.open("a") as stream:
                for name, result in (bench.with_labels(count) if count else bench.without_labels()).items():
                    stream.write(json.dumps({"seed": seed, "polygons": count, "row": name} | result) + "\n")
                    print(seed, count, name, f"{100 * result['f1_change']:.1f}", flush=True)
            page.write_text(table(read(lines)))


if __name__ == "__main__":
    with raster_environment():
        main()
