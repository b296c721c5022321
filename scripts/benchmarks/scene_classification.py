"""Which classifier of whole scenes: logistic regression, a forest, or the one that cross-validation chooses?

Cells of 16 x 16 pixels on two real scenes of Sentinel-1, Sentinel-2 and a DEM are labelled by a weak yearly map: by the
class of most of their pixels (``one class``), and by all classes with a fifth of them (``several classes``). Each draw
holds out blocks of ground with about a half of the cells; cells to learn from that touch one of these are left out, so that
the two lie apart. The rest is cross-validated in blocks, as the product does; that alone chooses regularisation,
classifier and threshold. A row that says each class as often as it was learned shows what the classes' shares alone give.

Every finished draw is a line of a JSON file, and a second start goes on where the first ended:

    OMP_WAIT_POLICY=PASSIVE nice -n 10 .venv/bin/python scripts/benchmarks/scene_classification.py ../shared/data

It writes ``scripts/benchmarks/results/scene_classification.jsonl`` and ``scene_classification.md``.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import rasterio
import shapely
import torch
from fusion import RESULTS
from numpy.typing import NDArray
from pages import cell, read

from core.assessment.scene_scores import given_classes, scene_scores
from core.finetuning.estimators.scene_classifiers import Tried, best_of, best_threshold, fit_classifier, try_candidates
from core.jobs.process import begin
from core.labels.blocks import spatial_split
from core.labels.scene_labels import SceneLabels, read_scene_labels
from core.mapping.rasters import raster_environment
from core.mapping.unit_descriptors import describe_units
from core.models.scene_model import SceneModel
from core.models.specification import EstimatorSpecification
from core.models.specify import specify_model
from core.scenes.scene import Scene, SceneRequest, build_scene

SCENES = {"282D": "282D_485L_3_3", "38D": "38D_378R_2_3"}
NAMES = {1: "water", 2: "trees", 3: "flooded vegetation", 4: "crops", 5: "built", 6: "bare", 7: "snow", 9: "rangeland"}
"""Of the yearly map; clouds are none."""

CELL, PRESENT = 16, 0.2
HELD_OUT = 0.5
TASKS = ("one class", "several classes")
SCORES = ("top1", "top3", "macro_f1", "mean_average_precision")
HEADINGS = ("top-1", "top-3", "macro-F1", "mAP")


def write_cells(reference: Path, path: Path) -> None:
    """Cells of the reference with the field ``one class`` and ``several classes``."""
    with rasterio.open(reference) as dataset:
        codes, transform, crs = dataset.read(1), dataset.transform, dataset.crs
    rows: list[dict[str, Any]] = []
    for row in range(0, codes.shape[0] - CELL + 1, CELL):
        for column in range(0, codes.shape[1] - CELL + 1, CELL):
            counts = np.bincount(codes[row : row + CELL, column : column + CELL].ravel(), minlength=256)
            known = {name: counts[code] for code, name in NAMES.items() if counts[code]}
            if sum(known.values()) < CELL**2 / 2:
                continue
            left, top = transform @ (column, row)
            right, bottom = transform @ (column + CELL, row + CELL)
            several = [name for name, count in known.items() if count >= PRESENT * sum(known.values())]
            texts = {TASKS[0]: max(known, key=lambda name: known[name]), TASKS[1]: "; ".join(several)}
            rows.append(texts | {"geometry": shapely.box(left, bottom, right, top)})
    geopandas.GeoDataFrame(rows, crs=crs).to_file(path, driver="GPKG")


def open_task(
    folder: Path, task: str, work: Path
) -> tuple[SceneLabels, SceneModel, NDArray[np.float64], NDArray[np.int64], Scene]:
    """The cells of a scene with their classes, a model without estimators, descriptors and numbers of pixels."""
    scene = build_scene(
        SceneRequest(
            {
                "optical": [str(folder / "s2_l2a.tif")],
                "sar": [str(folder / "s1_rtc_db.tif")],
                "elevation": [str(folder / "dem.tif")],
            },
            sentinel2_offset="no",
        )
    )
    path = work / "cells.gpkg"
    write_cells(folder / "landcover.tif", path)
    choice = "yes" if task == TASKS[1] else "no"
    labels = read_scene_labels(path, task, scene.grid, multi_label=choice)
    estimator = EstimatorSpecification(kind="logistic", multi_label=labels.is_multi_label)
    changed = {"head": "scene", "has_shortcut": False, "estimator": estimator}
    model = SceneModel(specify_model(scene, "unet_early", len(labels.scheme)).model_copy(update=changed)).eval()
    found = describe_units(model, scene, labels.units, torch.device("cpu"), lambda part, phase: None)
    return labels, model, found.rows, found.pixels, scene


def measure(folder: Path, task: str, seed: int, work: Path) -> list[dict[str, Any]]:
    """The scores of every row on one draw."""
    labels, model, rows, pixels, scene = open_task(folder, task, work)
    multi, classes = labels.is_multi_label, labels.classes
    split = spatial_split(labels.of_rarest_class(), scene.grid, HELD_OUT, seed, counts=labels.counts(pixels), joins_near=False)
    asked = split.validation
    # Neighbours resemble each other: no cell that is learned from touches one that is asked about.
    border = shapely.union_all(labels.units.geometries[asked]).buffer(1.0)
    learned = ~asked & ~shapely.intersects(labels.units.geometries, border)
    given = rows[learned], classes[learned]
    started = time.perf_counter()
    tried = try_candidates(*given, split.block[learned], model.layout, multi, seed, lambda part, phase: None)
    seconds = time.perf_counter() - started
    by_row = {
        "logistic regression": [each for each in tried if each.candidate.kind == "logistic"],
        "forest": [each for each in tried if each.candidate.kind == "forest"],
        "chosen": tried,
    }

    def scored(row: str, probabilities: NDArray[np.float64], threshold: float | None, chosen: str) -> dict[str, Any]:
        found = scene_scores(probabilities, classes[asked], given_classes(probabilities, threshold), labels.scheme.names)
        numbers = {key: round(float(getattr(found, key)), 4) for key in SCORES}
        counts = {"learned": int(learned.sum()), "asked": found.n_units}
        return {"row": row, "chosen": chosen, "seconds": round(seconds, 1)} | counts | numbers

    shares = np.tile(given[1].mean(axis=0), (int(asked.sum()), 1))
    found = [scored("shares of the classes", shares, 0.5 if multi else None, "")]
    for row, candidates in by_row.items():
        best = best_of(candidates, multi)
        said: Tried = next(each for each in candidates if each.candidate is best)
        threshold = best_threshold(said.probabilities, given[1]) if multi else None
        fitted = fit_classifier(best, *given, model.layout, multi, seed)
        found.append(scored(row, fitted.probabilities(rows[asked]), threshold, best.name))
    return found


def table(runs: list[dict[str, Any]]) -> str:
    lines = [
        "# Scene classification",
        "",
        f"Cells of {CELL} x {CELL} pixels of 10 m with Sentinel-1, Sentinel-2 and a DEM, labelled by a weak yearly map:",
        "this is agreement, not accuracy. Percent, mean and standard deviation over draws of the blocks that are held out;",
        "cells that are learned from touch none of these. What each draw chose stands in `scene_classification.jsonl`.",
    ]
    for scene, task in dict.fromkeys((run["scene"], run["task"]) for run in runs):
        own = [run for run in runs if (run["scene"], run["task"]) == (scene, task)]
        counts = [f"{round(float(np.mean([run[key] for run in own])))}" for key in ("learned", "asked")]
        lines += [
            "",
            f"## {scene}, {task}",
            "",
            f"In the mean {counts[0]} cells to learn from and {counts[1]} asked about.",
            "",
        ]
        lines += [f"| classifier | draws | {' | '.join(HEADINGS)} |", "|" + "---|" * (2 + len(HEADINGS))]
        for name in dict.fromkeys(run["row"] for run in own):
            rows = [run for run in own if run["row"] == name]
            cells = [cell([100 * run[key] for run in rows if math.isfinite(run[key])]) for key in SCORES]
            lines.append(f"| {name} | {len(rows)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the real scenes")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=RESULTS / "scene_classification", help="path without ending")
    options = parser.parse_args()
    begin()
    torch.set_num_threads(1)
    lines, page = options.output.with_suffix(".jsonl"), options.output.with_suffix(".md")
    for scene, folder in SCENES.items():
        for task in TASKS:
            for seed in options.seeds:
                if any((run["scene"], run["task"], run["seed"]) == (scene, task, seed) for run in read(lines)):
                    continue
                with tempfile.TemporaryDirectory() as work, raster_environment():
                    found = measure(options.data.resolve() / "s1s2_scenes" / folder, task, seed, Path(work))
                with lines.open("a") as stream:
                    for run in found:
                        stream.write(json.dumps({"scene": scene, "task": task, "seed": seed} | run) + "\n")
                page.write_text(table(read(lines)))
                print(scene, task, seed, found[-1]["chosen"], found[-1]["macro_f1"], flush=True)


if __name__ == "__main__":
    main()
