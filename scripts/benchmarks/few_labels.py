"""What a handful of polygons is worth in each mode, and whether ``auto`` picks the best of them.

On the scenes of ``labelled_scenes.py`` with 3, 10 and 30 polygons a class: every estimator on pixels and on pixels with their
neighbourhoods, fitted on all polygons as it is delivered, the network from scratch as the product trains it (beside its
linear models), what ``auto`` delivers, and what it would deliver if it picked by cross-validation: all are fitted once and
scored on the same pixels. Every finished run is a line of a JSON file, and a second start goes on where the first ended:

    OMP_WAIT_POLICY=PASSIVE .venv/bin/python scripts/benchmarks/few_labels.py ../shared/data

It writes ``scripts/benchmarks/results/few_labels.jsonl`` and ``few_labels.md``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from fusion import RESULTS
from label_efficiency import CPU, NETWORK, Bench
from labelled_scenes import COUNTS, SCENES, open_scene
from numpy.typing import NDArray
from pages import cell, read, tables_by_scene
from scipy.special import softmax

from core.finetuning.estimators.candidates import KINDS, best_of, fit_candidates, replaces
from core.finetuning.evaluation import calibrated_log_loss, fit_temperature, is_clearly_better
from core.finetuning.networks.linear_start import fit_linear_start
from core.finetuning.networks.loop import train
from core.finetuning.networks.start import start_model
from core.jobs.process import begin
from core.models.specify import specify_model

AUTO, NETWORK_ROW = "auto", "U-Net from scratch, beside linear models"
PICKED = "the clearly best of a cross-validation, or else the vote"
"""What ``auto`` could deliver in place of the vote."""

CALIBRATION_BINS = 15


def measure(bench: Bench, count: int, with_network: bool) -> dict[str, dict[str, float]]:
    """Scores by row: of every candidate, of the network and of what ``auto`` picks of them."""
    place, seed = bench.place, bench.place.seed
    specification = specify_model(place.scene, "unet_intermediate", len(place.labels.scheme))
    data = bench.reaching(specification).only(bench.used[count])
    held_out = bench.held_out[count]
    candidates = fit_candidates(specification, data, place.fold(count), seed, None, False, KINDS, lambda part, phase: None)
    rows = {}
    for candidate in candidates:
        temperature = fit_temperature(candidate.cross_validated)
        answers = bench.answers(candidate.model())
        rows[candidate.name] = scored(bench, answers, temperature) | {"seconds": candidate.seconds}
    offered = [candidate for candidate in candidates if candidate.kind != "boosting"]
    best = best_of(offered)
    first = min(offered, key=lambda candidate: calibrated_log_loss(candidate.cross_validated))
    picked = first if is_clearly_better(first.cross_validated, best.cross_validated) else best
    seconds = sum(candidate.seconds for candidate in candidates)
    rows[PICKED] = rows[picked.name] | {"seconds": seconds}
    if not with_network:
        return rows
    started = time.perf_counter()
    model = start_model(specification, seed, None, place.labels.scheme)
    fit_linear_start(model, specification, data, bench.used[count] & ~held_out)
    with tempfile.TemporaryDirectory() as folder:
        path, settings = Path(folder) / "checkpoint", replace(NETWORK, seed=seed)
        result = train(model, specification, data, held_out, settings, CPU, path, "b", lambda part, phase: None)
    trained = time.perf_counter() - started
    rows[NETWORK_ROW] = scored(bench, bench.answers(result.model), result.temperature) | {"seconds": trained}
    delivered = rows[best.name] if replaces(best, result) else rows[NETWORK_ROW]
    rows[AUTO] = delivered | {"seconds": seconds + rows[NETWORK_ROW]["seconds"]}
    return rows


def scored(bench: Bench, scores: NDArray[np.float32], temperature: float) -> dict[str, float]:
    """Agreement, and the expected calibration error of the calibrated probabilities on the scored pixels."""
    shares = softmax(scores / temperature, axis=1)
    sure, right = shares.max(axis=1), shares.argmax(axis=1) == bench.scored[:, 2]
    bins = np.minimum((sure * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    error = sum(abs(float((sure - right)[bins == number].sum())) for number in range(CALIBRATION_BINS)) / len(sure)
    return bench.score(shares) | {"calibration_error": error}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Mean IoU and calibration by row and number of polygons, in Markdown."""
    lines = [
        "# A handful of polygons",
        "",
        "Mean IoU in percent, mean and standard deviation over the draws; the expected calibration error after temperature "
        "scaling, and the seconds of the cross-validation, with 10 polygons a class. Estimators are fitted on all polygons; "
        "the network leaves out about 30 %, which choose its epoch. See `scripts/benchmarks/few_labels.py`.",
    ]
    return "\n".join([*lines, *_summary(rows), *tables_by_scene(rows, ["calibration error", "seconds"], _middle), ""])


def _summary(rows: Sequence[dict[str, Any]]) -> list[str]:
    """By scene what ``auto`` delivers beside the best of all other rows, means over all numbers of polygons and draws that both
    have. Where no network was trained, ``auto`` is the vote."""
    lines = ["", "## In the mean over 3, 10 and 30 polygons", ""]
    lines += [
        "| scene | runs | auto | best other row, known afterwards | its mean | auto ahead by |",
        "|---|---|---|---|---|---|",
    ]
    for scene in dict.fromkeys(row["scene"] for row in rows):
        by_row: dict[str, dict[tuple[int, int], float]] = {}
        for row in rows:
            if row["scene"] == scene:
                by_row.setdefault(row["row"], {})[row["seed"], row["polygons"]] = 100 * row["miou"]
        vote = next((name for name in by_row if name.startswith("Vote")), "")
        auto = by_row.get(vote, {}) | by_row.get(AUTO, {})
        others = {name: runs for name, runs in by_row.items() if name not in (vote, AUTO, PICKED) and set(auto) <= set(runs)}
        if not auto or not others:
            continue
        means = {name: float(np.mean([runs[key] for key in auto])) for name, runs in others.items()}
        best = max(means, key=lambda name: means[name])
        ahead = cell([auto[key] - others[best][key] for key in auto])
        lines.append(f"| {scene} | {len(auto)} | {np.mean(list(auto.values())):.1f} | {best} | {means[best]:.1f} | {ahead} |")
    return lines


def _middle(runs: list[dict[str, Any]]) -> list[str]:
    middle = [run for run in runs if run["polygons"] == COUNTS[1]]
    digits = {"calibration_error": 2, "seconds": 0}
    return [f"{np.mean([run[key] for run in middle]):.{count}f}" if middle else "–" for key, count in digits.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the real scenes")
    parser.add_argument("--scenes", nargs="+", choices=list(SCENES), default=list(SCENES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--no-network", dest="network", action="store_false", help="estimators alone")
    parser.add_argument("--output", type=Path, default=RESULTS / "few_labels", help="path without ending")
    options = parser.parse_args()
    begin()
    lines, page = options.output.with_suffix(".jsonl"), options.output.with_suffix(".md")
    for seed in options.seeds:
        for scene in options.scenes:
            done = {(row["row"], row["polygons"]) for row in read(lines) if (row["scene"], row["seed"]) == (scene, seed)}
            wanted = AUTO if options.network else PICKED
            if all((wanted, count) in done for count in COUNTS):
                continue
            with tempfile.TemporaryDirectory() as folder:
                bench = Bench(open_scene(scene, options.data.resolve(), seed, Path(folder)))
                for count in COUNTS:
                    if (wanted, count) in done:
                        continue
                    with lines.open("a") as stream:
                        for name, result in measure(bench, count, options.network).items():
                            if (name, count) not in done:
                                run = {"scene": scene, "seed": seed, "polygons": count, "row": name} | result
                                stream.write(json.dumps(run) + "\n")
                                print(scene, seed, count, name, f"{100 * result['miou']:.1f}", flush=True)
                    page.write_text(table(read(lines)))


if __name__ == "__main__":
    main()
