"""How far should a temperature be believed? The calibration error of the vote under several priors, on the rest of the scenes.

With 3, 10 and 30 polygons a class of the scenes of ``labelled_scenes.py`` the vote is cross-validated and fitted as ``auto``
does. Its temperature is fitted on the cross-validation with the logarithm's prior deviation given in the table ("none" = 1, no
temperature; "free" = hardly any prior), and the expected calibration error is taken on the pixels that are scored, which chose
nothing. Every finished run is a line of a JSON file, and a second start goes on where the first ended:

    OMP_WAIT_POLICY=PASSIVE .venv/bin/python scripts/benchmarks/temperatures.py ../shared/data

It writes ``scripts/benchmarks/results/temperatures.jsonl`` and ``temperatures.md``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fusion import RESULTS
from label_efficiency import Bench
from labelled_scenes import COUNTS, SCENES, open_scene
from pages import cell, read
from scipy.special import softmax

from core.assessment.calibration import reliability
from core.finetuning.estimators.candidates import best_of, fit_candidates
from core.finetuning.evaluation import DELIVERED, fit_temperature
from core.jobs.process import begin
from core.models.specify import specify_model

PRIORS = {"none": 1e-3, "0.25": 0.25, "0.5": 0.5, "1": 1.0, "2": 2.0, "free": 50.0}
"""Deviations of the temperature's logarithm."""


def measure(bench: Bench, count: int) -> dict[str, Any]:
    """Errors and temperatures by prior, with the mean IoU of the vote."""
    place, seed = bench.place, bench.place.seed
    specification = specify_model(place.scene, "unet_intermediate", len(place.labels.scheme))
    data = bench.reaching(specification).only(bench.used[count])
    kinds = ("forest", "logistic")
    vote = best_of(fit_candidates(specification, data, place.fold(count), seed, None, False, kinds, lambda part, phase: None))
    answers = bench.answers(vote.model()).astype(np.float64)
    found = {}
    for name, spread in PRIORS.items():
        temperature = fit_temperature(vote.cross_validated, spread)
        error = reliability(softmax(answers / temperature, axis=1), bench.scored[:, 2]).expected_error
        found[name] = {"error": error, "temperature": temperature}
    return {"priors": found, **bench.score(softmax(answers, axis=1))}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The errors by scene and number of polygons, in Markdown."""
    lines = [
        "# Temperatures",
        "",
        "Expected calibration error of the vote on the rest of the scene, mean and standard deviation over the draws, in "
        f"hundredths, by the prior of the temperature; delivered is that of {DELIVERED:g}. See "
        "`scripts/benchmarks/temperatures.py`.",
        "",
        "| scene | polygons a class | draws | " + " | ".join(PRIORS) + " |",
        "|---" * (3 + len(PRIORS)) + "|",
    ]

    def line(title: str, count: int | str, runs: list[dict[str, Any]]) -> str:
        cells = [cell([100 * run["priors"][name]["error"] for run in runs]) for name in PRIORS]
        return f"| {title} | {count} | {len(runs)} | " + " | ".join(cells) + " |"

    for scene in dict.fromkeys(row["scene"] for row in rows):
        for count in COUNTS:
            runs = [row for row in rows if row["scene"] == scene and row["polygons"] == count]
            if runs:
                lines.append(line(scene, count, runs))
    for count in COUNTS:
        lines.append(line("all", count, [row for row in rows if row["polygons"] == count]))
    lines.append(line("all", "all", list(rows)))
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the real scenes")
    parser.add_argument("--scenes", nargs="+", choices=list(SCENES), default=list(SCENES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=RESULTS / "temperatures", help="path without ending")
    options = parser.parse_args()
    begin()
    lines, page = options.output.with_suffix(".jsonl"), options.output.with_suffix(".md")
    for seed in options.seeds:
        for scene in options.scenes:
            done = {row["polygons"] for row in read(lines) if (row["scene"], row["seed"]) == (scene, seed)}
            if set(COUNTS) <= done:
                continue
            with tempfile.TemporaryDirectory() as folder:
                bench = Bench(open_scene(scene, options.data.resolve(), seed, Path(folder)))
                for count in COUNTS:
                    if count not in done:
                        run = {"scene": scene, "seed": seed, "polygons": count} | measure(bench, count)
                        with lines.open("a") as stream:
                            stream.write(json.dumps(run) + "\n")
                        errors = {name: round(100 * entry["error"], 1) for name, entry in run["priors"].items()}
                        print(scene, seed, count, errors, flush=True)
                        page.write_text(table(read(lines)))


if __name__ == "__main__":
    main()
