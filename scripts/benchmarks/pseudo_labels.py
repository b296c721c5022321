"""What labels from spectral indices are worth, as they come: the same model from them alone and from few drawn polygons.

Nobody corrects the polygons here, as a user should. On ``s1s2_282D`` (whose reference is a weak yearly map) and ``flood_India``
of ``labelled_scenes.py``, the vote is trained on the job's polygons and, for comparison, on 3 and 10 drawn polygons a class.
Both are scored on the same pixels, away from the drawn polygons, over the classes that correspond. How many of the job's own
pixels agree with the reference is told beside it. Every finished run is a line of a JSON file, and a second start goes on:

    OMP_WAIT_POLICY=PASSIVE .venv/bin/python scripts/benchmarks/pseudo_labels.py ../shared/data

It writes ``scripts/benchmarks/results/pseudo_labels.jsonl`` and ``pseudo_labels.md``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from fusion import RESULTS
from label_efficiency import Bench
from labelled_scenes import COUNTS, LabelledScene, open_scene
from numpy.typing import NDArray
from pages import cell, read

from core.assessment.confusion import accuracy, confusion_matrix
from core.finetuning.estimators.candidates import KINDS, best_of, fit_candidates
from core.jobs.events import JobContext
from core.jobs.process import begin
from core.jobs.runner import run_job
from core.jobs.schemas import parse_job
from core.labels.pseudo_labels import SCHEME
from core.labels.reading import read_labels
from core.models.specify import specify_model

COMMON: dict[str, tuple[tuple[str, ...], dict[str, int], dict[int, int]]] = {
    "s1s2_282D": (("water", "vegetation", "bare"), {"1": 0, "2": 1, "9": 1, "6": 2}, {0: 0, 1: 1, 2: 2}),
    "flood_India": (("water", "other"), {"2": 0, "1": 1}, {0: 0, 1: 1, 2: 1, 3: 1}),
}
"""Names of the classes that correspond; which of them a value of the reference is, and which a rule's class is."""

PSEUDO = "labels from spectral indices"
DRAWN = "{} drawn polygons a class"
MOST = COUNTS[-1]


def from_indices(place: LabelledScene, work: Path) -> LabelledScene:
    """The scene with the job's polygons in place of the drawn ones."""
    roles: dict[str, list[str]] = {}
    for role, paths in place.task.inputs.values():
        roles.setdefault(role, []).extend(paths)
    output = work / "seeds.gpkg"
    job = {"kind": "pseudolabels", "inputs": roles, "count": MOST, "output": str(output)}
    run_job(parse_job(job), JobContext(lambda event: None))
    labels = read_labels(str(output), "code", place.scene.grid)
    rank = np.zeros(len(labels), np.int64)
    for number in range(len(labels.scheme)):
        own = np.flatnonzero(labels.class_index == number)
        rank[own] = np.arange(len(own))
    return replace(place, labels=labels, rank=rank)


def predicted(bench: Bench, count: int) -> NDArray[np.int64]:
    """What the vote says of the scored pixels."""
    place = bench.place
    specification = specify_model(place.scene, "unet_intermediate", len(place.labels.scheme))
    data = bench.reaching(specification).only(bench.used[count])
    kinds = tuple(kind for kind in KINDS if kind != "boosting")
    fold = place.fold(count)
    candidates = fit_candidates(specification, data, fold, place.seed, None, False, kinds, lambda part, phase: None)
    return np.asarray(bench.answers(best_of(candidates).model()).argmax(axis=1), np.int64)


def measure(name: str, place: LabelledScene, work: Path) -> dict[str, dict[str, float]]:
    """Scores by what was learned from."""
    classes, of_value, of_rule = COMMON[name]
    bench = Bench(place)
    drawn = np.array([of_value.get(entry.value, -1) for entry in place.labels.scheme.classes])
    truth = drawn[bench.scored[:, 2]]
    counted = truth >= 0

    def score(told: NDArray[np.int64]) -> dict[str, float]:
        result = accuracy(confusion_matrix(told[counted], truth[counted], len(classes)), classes)
        return {"miou": result.mean_iou, "f1": result.macro_f1, "oa": result.overall_accuracy}

    rows = {DRAWN.format(count): score(drawn[predicted(bench, count)]) for count in COUNTS[:2]}
    seeds = Bench(from_indices(place, work))
    table = place.task.truth
    assert table is not None
    columns, lines, numbers, _ = seeds.pixels.T
    codes = np.array([of_rule[SCHEME.codes.index(int(entry.code))] for entry in seeds.place.labels.scheme.classes])
    known = np.array([of_value.get(str(code), -1) for code in range(int(table.max()) + 1)])[table[lines, columns]]
    right = (codes[numbers] == known)[known >= 0].mean()
    seeds.scored = bench.scored
    rows[PSEUDO] = score(codes[predicted(seeds, MOST)]) | {"right": float(right), "polygons": len(seeds.place.labels)}
    return rows


def page_of(rows: Sequence[dict[str, Any]]) -> str:
    """Scores by scene and by what was learned from, in Markdown."""
    lines = [
        "# Labels from spectral indices",
        "",
        "The vote from the job's polygons, uncorrected, and from few drawn polygons; mean and standard deviation over the "
        "draws of the polygons and of the scored pixels (the job's own polygons are always the same). In percent, over the "
        "classes that correspond. See `scripts/benchmarks/pseudo_labels.py`.",
        "",
        "| scene | classes | learned from | draws | mean IoU | overall agreement | of the labels right |",
        "|---|---|---|---|---|---|---|",
    ]
    for scene in dict.fromkeys(row["scene"] for row in rows):
        for name in dict.fromkeys(row["row"] for row in rows if row["scene"] == scene):
            own = [row for row in rows if (row["scene"], row["row"]) == (scene, name)]
            cells = [scene, ", ".join(COMMON[scene][0]), name, str(len(own))]
            cells += [cell([100 * row[key] for row in own]) for key in ("miou", "oa")]
            cells.append(cell([100 * row["right"] for row in own if "right" in row]))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the real scenes")
    parser.add_argument("--scenes", nargs="+", choices=list(COMMON), default=list(COMMON))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=RESULTS / "pseudo_labels", help="path without ending")
    options = parser.parse_args()
    begin()
    lines, page = options.output.with_suffix(".jsonl"), options.output.with_suffix(".md")
    for seed in options.seeds:
        for scene in options.scenes:
            if any((row["scene"], row["seed"]) == (scene, seed) for row in read(lines)):
                continue
            with tempfile.TemporaryDirectory() as folder:
                place = open_scene(scene, options.data.resolve(), seed, Path(folder))
                with lines.open("a") as stream:
                    for name, result in measure(scene, place, Path(folder)).items():
                        stream.write(json.dumps({"scene": scene, "seed": seed, "row": name} | result) + "\n")
                        print(scene, seed, name, f"{100 * result['miou']:.1f}", flush=True)
                page.write_text(page_of(read(lines)))


if __name__ == "__main__":
    main()
