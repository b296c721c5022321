"""What more can be made of the same labels: spreading within super-pixels, self-training, both.

On the scenes of ``labelled_scenes.py`` with 3 and 10 polygons a class: each member of the vote, and the vote, fitted on all
polygons as they are delivered, with each switch off and on, scored on the same pixels. Every finished run is a line of a JSON
file, and a second start goes on where the first ended:

    OMP_WAIT_POLICY=PASSIVE .venv/bin/python scripts/benchmarks/label_switches.py ../shared/data

It writes ``scripts/benchmarks/results/label_switches.jsonl`` and ``label_switches.md``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from few_labels import scored
from fusion import RESULTS
from label_efficiency import Bench
from labelled_scenes import COUNTS, SCENES, open_scene
from pages import cell, read
from scipy.special import softmax

from core.finetuning.estimators.candidates import KINDS, fit_candidates
from core.finetuning.evaluation import fit_temperature
from core.finetuning.label_spreading import spread_labels
from core.jobs.process import begin
from core.models.specify import specify_model

FEW = COUNTS[:2]
ROUNDS = 3

SWITCHES: dict[str, tuple[bool, int]] = {
    "off": (False, 0),
    "spread": (True, 0),
    "self-training": (False, ROUNDS),
    "both": (True, ROUNDS),
}
"""Whether labels spread, and rounds of self-training."""

SHORT = {
    "Logistic regression on pixels": "regression, pixels",
    "Random forest on pixels": "forest, pixels",
    "Random forest on pixels and neighbourhoods": "forest, neighbourhoods",
}
"""The members of the vote."""


def measure(bench: Bench, count: int, switch: str) -> dict[str, dict[str, float]]:
    """Scores by row of the vote and its members."""
    spreads, rounds = SWITCHES[switch]
    place = bench.place
    specification = specify_model(place.scene, "unet_intermediate", len(place.labels.scheme))
    data = bench.reaching(specification).only(bench.used[count])
    extra: dict[str, float] = {}
    started = time.perf_counter()
    if spreads:
        spread = spread_labels(data, specification, place.block(count))
        data = data.with_spread(spread)
        extra = {"spread_pixels": len(spread), "drawn_pixels": len(data.pixels)}
    kinds = tuple(kind for kind in KINDS if kind != "boosting")
    seed = place.seed
    candidates = fit_candidates(
        specification, data, place.fold(count), seed, None, False, kinds, lambda part, phase: None, rounds
    )
    seconds = time.perf_counter() - started
    rows, answers = {}, {}
    members = [candidate for candidate in candidates if candidate.name in SHORT]
    for candidate in members:
        answers[candidate.name] = bench.answers(candidate.model())
        temperature = fit_temperature(candidate.cross_validated)
        rows[SHORT[candidate.name]] = scored(bench, answers[candidate.name], temperature)
    vote = candidates[-1]
    # As the model of the vote does; its members are mapped once.
    by_kind = [next(c.name for c in members if c.trainings == (part,)) for part in vote.trainings]
    told = [softmax(answers[name] / each, axis=1) for name, each in zip(by_kind, vote.temperatures, strict=True)]
    rows["vote"] = scored(bench, np.log(np.mean(told, axis=0)), fit_temperature(vote.cross_validated))
    return {name: row | {"seconds": seconds, **extra} for name, row in rows.items()}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Mean IoU by row and switch, and the gain over no switch draw by draw, in Markdown."""
    lines = [
        "# More from the same labels",
        "",
        "Mean IoU in percent, mean and standard deviation over the draws; under each switch the gain over 'off' on the same "
        "draws, in points. Three rounds of self-training. See `scripts/benchmarks/label_switches.py`.",
    ]
    key = {(r["scene"], r["seed"], r["polygons"], r["switch"], r["row"]): r for r in rows}
    for scene in dict.fromkeys(row["scene"] for row in rows):
        columns = ["model", "polygons a class", "draws", "off", *(f"{name}, gain" for name in list(SWITCHES)[1:])]
        lines += ["", f"## {scene}", "", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
        for count in FEW:
            for name in (*SHORT.values(), "vote"):
                off = {
                    r["seed"]: r
                    for r in rows
                    if (r["scene"], r["polygons"], r["switch"], r["row"]) == (scene, count, "off", name)
                }
                cells = [cell([100 * run["miou"] for run in off.values()])]
                for switch in list(SWITCHES)[1:]:
                    pairs = [(key.get((scene, seed, count, switch, name)), run) for seed, run in off.items()]
                    gains = [100 * (on["miou"] - run["miou"]) for on, run in pairs if on is not None]
                    cells.append(_signed(gains))
                lines.append(f"| {' | '.join([name, str(count), str(len(off)), *cells])} |")
    return "\n".join([*lines, ""])


def _signed(gains: Sequence[float]) -> str:
    spread = f" ± {np.std(gains, ddof=1):.1f}" if len(gains) > 1 else ""
    return f"{np.mean(gains):+.1f}{spread} ({len(gains)})" if gains else "–"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the real scenes")
    parser.add_argument("--scenes", nargs="+", choices=list(SCENES), default=list(SCENES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=RESULTS / "label_switches", help="path without ending")
    options = parser.parse_args()
    begin()
    lines, page = options.output.with_suffix(".jsonl"), options.output.with_suffix(".md")
    for seed in options.seeds:
        for scene in options.scenes:
            done = {(r["polygons"], r["switch"]) for r in read(lines) if (r["scene"], r["seed"]) == (scene, seed)}
            wanted = [(count, switch) for count in FEW for switch in SWITCHES if (count, switch) not in done]
            if not wanted:
                continue
            with tempfile.TemporaryDirectory() as folder:
                bench = Bench(open_scene(scene, options.data.resolve(), seed, Path(folder)))
                for count, switch in wanted:
                    measured = measure(bench, count, switch)
                    with lines.open("a") as stream:
                        for name, result in measured.items():
                            run = {"scene": scene, "seed": seed, "polygons": count, "switch": switch, "row": name} | result
                            stream.write(json.dumps(run) + "\n")
                    print(scene, seed, count, switch, f"{100 * measured['vote']['miou']:.1f}", flush=True)
                    page.write_text(table(read(lines)))


if __name__ == "__main__":
    main()
