"""Do suggested labels help more than random ones? A simulated labeller, on real scenes.

From three polygons a class a forest is trained; then three polygons a class are added in each of three rounds, either those
that the product suggests or as many at random from the same pieces of the image. Each gets the class that most of its pixels
have in the reference, as a person would see it, on those pixels alone. After each round the model is trained anew, by the
product's own jobs, and its map is scored on the pixels that no polygon of either way has touched, more than five pixels away
from the first polygons. Every finished seed is a few lines of a JSON file, and a second start goes on where the first ended:

    OMP_WAIT_POLICY=PASSIVE .venv/bin/python scripts/benchmarks/label_suggestions.py ../shared/data

It writes ``scripts/benchmarks/results/label_suggestions.jsonl`` and ``label_suggestions.md``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import rasterio
import shapely
from fusion import RESULTS
from labelled_scenes import LabelledScene, open_scene
from numpy.typing import NDArray
from pages import cell, read
from rasterio.features import rasterize, shapes
from shapely.geometry import shape

from core.jobs.events import JobContext
from core.jobs.process import begin
from core.jobs.runner import run_job
from core.jobs.schemas import parse_job
from core.mapping.class_raster import open_class_raster

SCENES = ("s1s2_282D", "flood_India")
FIRST, ROUNDS = 3, 3
SUGGESTED, RANDOM = "suggested", "random"

EVERYWHERE = 400
"""Places asked for to draw the random ones from: about as many as a scene has apart from each other."""


Round = tuple[NDArray[np.int64], geopandas.GeoDataFrame]
"""Predicted class of each pixel, and the labels that it comes from."""


class Labeller:
    """One scene with one seed.

    Args:
        place: the scene.
        mode: of fine-tuning.
        folder: empty, for files in between.
    """

    def __init__(self, place: LabelledScene, mode: str, folder: Path) -> None:
        if place.task.truth is None or place.task.where is None:
            raise ValueError(f"{place.name} has no reference for every pixel")
        self.place, self.mode, self.folder = place, mode, folder
        self.truth = np.where(place.task.truth > 0, place.task.truth, 0)
        self.n_classes = len(place.labels.scheme)
        frame = geopandas.read_file(place.task.labels, fid_as_index=True)
        used = place.used(FIRST)
        self.first = frame.loc[place.labels.feature_ids[used], [place.task.class_field, "geometry"]].set_crs(
            frame.crs, allow_override=True
        )
        self.first = self.first.to_crs(place.scene.grid.crs).rename(columns={place.task.class_field: "code"})
        self.grid = place.scene.grid
        self.transform = rasterio.transform.from_origin(
            self.grid.left, self.grid.top, self.grid.pixel_width, self.grid.pixel_height
        )

    def inputs(self) -> dict[str, Any]:
        """Of every job."""
        found: dict[str, Any] = {}
        for role, paths in self.place.task.inputs.values():
            found.setdefault(role, []).extend(paths)
        return found

    def run(self, strategy: str, counts: Sequence[int]) -> list[Round]:
        """After each round the predicted classes of all pixels, and the labels.

        Args:
            strategy: ``SUGGESTED`` or ``RANDOM``.
            counts: polygons to add in each round; of the suggested ones those count that have a reference.
        """
        labels, generator, told = self.first, np.random.default_rng(self.place.seed), []
        for number in range(ROUNDS + 1):
            stem = self.folder / f"{strategy}_{number}"
            labels.to_file(stem.with_suffix(".gpkg"), driver="GPKG")
            self._job(
                "finetune",
                labels={"path": str(stem.with_suffix(".gpkg")), "class_field": "code"},
                mode=self.mode,
                missing_inputs="require",
                seed=self.place.seed,
                output_model=str(stem.with_suffix(".safetensors")),
            )
            model = {"model": str(stem.with_suffix(".safetensors"))}
            self._job("map", output=str(stem.with_suffix(".tif")), **model)
            told.append((self._classes(stem.with_suffix(".tif")), labels))
            if number < ROUNDS:
                wanted = counts[number]
                output = self.folder / f"{strategy}_{number}_places.gpkg"
                existing = str(stem.with_suffix(".gpkg"))
                count = wanted if strategy == SUGGESTED else EVERYWHERE
                self._job("suggest-labels", existing_labels=existing, count=count, output=str(output), **model)
                places = self._labelled(geopandas.read_file(output))
                if strategy == RANDOM:
                    places = places.iloc[generator.permutation(len(places))[:wanted]]
                labels = geopandas.GeoDataFrame(
                    np.concatenate([labels[["code", "geometry"]].to_numpy(), places[["code", "geometry"]].to_numpy()]),
                    columns=["code", "geometry"],
                    geometry="geometry",
                    crs=self.grid.crs,
                )
                labels["code"] = labels["code"].astype(int)
        return told

    def _classes(self, path: Path) -> NDArray[np.int64]:
        """The map in the numbers of the scene's classes; -1 where it has none of them."""
        raster = open_class_raster(str(path))
        index = {entry.value: number for number, entry in enumerate(self.place.labels.scheme.classes)}
        table = np.full(256, -1, np.int64)
        for entry in raster.scheme.classes:
            table[entry.code] = index[entry.value]
        return table[raster.read(raster.grid.window)]

    def _labelled(self, places: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
        """The places with the class that most of their pixels have, cut to those pixels; those without any are left out."""
        rows = []
        for polygon in places.geometry:
            inside = rasterize([polygon], self.truth.shape, transform=self.transform, dtype="uint8").astype(bool)
            counts = np.bincount(self.truth[inside])
            counts[:1] = 0
            if counts.sum() < FIRST:
                continue
            code = int(counts.argmax())
            own = inside & (self.truth == code)
            pieces = [shape(piece) for piece, _ in shapes(own.astype(np.uint8), mask=own, transform=self.transform)]
            rows.append((code, shapely.unary_union(pieces)))
        return geopandas.GeoDataFrame(
            {"code": [code for code, _ in rows]}, geometry=[piece for _, piece in rows], crs=self.grid.crs
        )

    def _job(self, kind: str, **more: Any) -> None:
        run_job(parse_job({"kind": kind, "inputs": self.inputs(), **more}), JobContext(lambda event: None))

    def scores(self, told: dict[str, list[Round]]) -> list[dict[str, Any]]:
        """Of each way and round, on the pixels that none has labelled."""
        polygons = [polygon for rounds in told.values() for polygon in rounds[-1][1].geometry]
        touched = rasterize(polygons, self.truth.shape, transform=self.transform, all_touched=True, dtype="uint8") > 0
        pixels = self.place.scored_pixels(self.place.training_data(32))
        pixels = pixels[~touched[pixels[:, 1], pixels[:, 0]]]
        rows = []
        for strategy, rounds in told.items():
            for number, (classes, labels) in enumerate(rounds):
                score = self.place.score(classes[pixels[:, 1], pixels[:, 0]], pixels[:, 2])
                rows.append({"row": strategy, "round": number, "labels": len(labels), "pixels": len(pixels)} | score)
        return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Mean IoU by way and round, and the difference seed by seed, in Markdown."""
    lines = [
        "# Suggested labels",
        "",
        "Mean IoU in percent of a forest after each round of three polygons a class, mean and standard deviation over the "
        "seeds; the last row is the difference, seed by seed. See `scripts/benchmarks/label_suggestions.py`.",
    ]
    for scene in dict.fromkeys(row["scene"] for row in rows):
        own = [row for row in rows if row["scene"] == scene]
        rounds = sorted({row["round"] for row in own})
        lines += ["", f"## {scene}", "", "| labels | seeds | " + " | ".join(f"round {number}" for number in rounds) + " |"]
        lines.append("|---" * (2 + len(rounds)) + "|")
        found = {(row["row"], row["round"], row["seed"]): 100 * row["miou"] for row in own}
        seeds = sorted({row["seed"] for row in own})
        for strategy in (SUGGESTED, RANDOM):
            cells = [cell([found[strategy, number, seed] for seed in seeds]) for number in rounds]
            lines.append(f"| {strategy} | {len(seeds)} | " + " | ".join(cells) + " |")
        gains = [cell([found[SUGGESTED, number, seed] - found[RANDOM, number, seed] for seed in seeds]) for number in rounds]
        lines.append(f"| difference | {len(seeds)} | " + " | ".join(gains) + " |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the real scenes")
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--mode", choices=("forest", "logistic"), default="forest", help="of fine-tuning")
    parser.add_argument("--output", type=Path, default=RESULTS / "label_suggestions", help="path without ending")
    options = parser.parse_args()
    begin()
    lines, page = options.output.with_suffix(".jsonl"), options.output.with_suffix(".md")
    for seed in options.seeds:
        for scene in options.scenes:
            if any((row["scene"], row["seed"]) == (scene, seed) for row in read(lines)):
                continue
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "scene").mkdir()
                (Path(folder) / "files").mkdir()
                place = open_scene(scene, options.data.resolve(), seed, Path(folder) / "scene")
                labeller = Labeller(place, options.mode, Path(folder) / "files")
                suggested = labeller.run(SUGGESTED, [FIRST * labeller.n_classes] * ROUNDS)
                sizes = [len(labels) for _, labels in suggested]
                drawn = labeller.run(RANDOM, np.diff(sizes).tolist())
                rows = labeller.scores({SUGGESTED: suggested, RANDOM: drawn})
            with lines.open("a") as stream:
                for row in rows:
                    stream.write(json.dumps({"scene": scene, "seed": seed} | row) + "\n")
                    print(scene, seed, row["row"], row["round"], row["labels"], f"{100 * row['miou']:.1f}", flush=True)
            page.write_text(table(read(lines)))


if __name__ == "__main__":
    main()
