"""Which part of a base model to train, and how fast: the fine-tuning modes on a handful of polygons.

On scenes of ``labelled_scenes.py``, with 3 and 10 polygons a class. A base model learns from all pixels of a scene without
their labels (transductive, as for whoever maps the scene that they pre-train on), then every mode trains it on the polygons;
beside them stands the same network from scratch. The linear models that the product adds to a network are left out: they
would hide what the modes differ in. Every mode is trained at each of ``RATES``; the polygons held out (about 30 %, in spatial
blocks) choose the epoch and the rate, and the score is of other pixels. Every finished run is a line of a JSON file, and a
second start goes on where the first ended:

    OMP_WAIT_POLICY=PASSIVE .venv/bin/python scripts/benchmarks/fine_tuning_modes.py ../shared/data

It writes ``scripts/benchmarks/results/fine_tuning_modes.jsonl`` and ``fine_tuning_modes.md``.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from fusion import RESULTS
from label_efficiency import CPU, NETWORK, Bench, pretrained
from labelled_scenes import SCENES, open_scene
from pages import Run, cell, read
from scipy.special import softmax

from core.assessment.calibration import reliability
from core.finetuning.evaluation import calibrated_log_loss
from core.finetuning.networks.adapters import add_adapters
from core.finetuning.networks.freezing import freeze
from core.finetuning.networks.loop import train
from core.finetuning.networks.settings import TrainingSettings
from core.finetuning.networks.start import start_model, without_classes
from core.jobs.process import begin
from core.models.fusion_model import FusionModel
from core.models.registry import count_parameters
from core.models.specify import with_classes
from core.pretraining.methods import MethodName

METHOD: MethodName = "latent_targets"
COUNTS, RATES = (3, 10), (1e-3, 3e-3)

SCRATCH = "scratch"
MODES: dict[str, dict[str, Any]] = {
    SCRATCH: {},
    f"{SCRATCH}, consistency": {"consistency": True},
    "linear": {"trained_part": "head"},
    "partial": {"trained_part": "last"},
    "full, one rate": {},
    "full, decay 0.8": {"layer_decay": 0.8},
    "full, decay 0.65": {"layer_decay": 0.65},
    "adapters, rank 4": {"trained_part": "adapters", "adapter_rank": 4, "adapter_alpha": 4.0},
    "adapters, rank 8": {"trained_part": "adapters", "adapter_rank": 8, "adapter_alpha": 8.0},
}

Save = Callable[[Run], None]


def measure(
    scenes: Sequence[str], data: Path, seed: int, counts: Sequence[int], rates: Sequence[float], rows: Sequence[Run], save: Save
) -> None:
    """Every run of a seed that is not done yet: of all scenes the one number of polygons before the other.

    Args:
        scenes: their names.
        data: folder with the real scenes.
        seed: of all draws.
        counts: of polygons a class.
        rates: of learning.
        rows: runs that are saved already.
        save: takes a run.
    """
    done = {(run["scene"], run["polygons"], run["rate"], run["row"]) for run in rows if run["seed"] == seed}
    wanted = [each for each in itertools.product(scenes, counts, rates, MODES) if each not in done]
    with ExitStack() as stack:
        benches: dict[str, Bench] = {}
        bases: dict[str, FusionModel] = {}
        for scene in dict.fromkeys(each[0] for each in wanted):
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            benches[scene] = Bench(open_scene(scene, data, seed, Path(folder)))
            bases[scene], _, cost = pretrained(benches[scene].place, METHOD)
            print(f"{scene} {seed} {METHOD}: {cost}", flush=True)
        for scene, count, rate, row in sorted(wanted, key=lambda each: -each[1]):
            settings = replace(NETWORK, seed=seed, learning_rate=rate, **MODES[row])
            result = fine_tuned(benches[scene], count, bases[scene], not row.startswith(SCRATCH), settings)
            save({"scene": scene, "seed": seed, "row": row, "polygons": count, "rate": rate} | result)


def fine_tuned(bench: Bench, count: int, base: FusionModel, keeps: bool, settings: TrainingSettings) -> dict[str, Any]:
    """One training and its scores.

    Args:
        bench: of a scene and seed.
        count: polygons of a class.
        base: pre-trained.
        keeps: start from its weights; otherwise its architecture alone is taken.
        settings: of the training.
    """
    scheme = bench.place.labels.scheme
    specification = with_classes(base.specification, len(scheme)).model_copy(update={"has_shortcut": False})
    model = start_model(specification, settings.seed, None, scheme)
    if keeps:
        model.load_state_dict(without_classes(base.state_dict()), strict=False)
    trained = _trained_parameters(model, settings)
    data, held_out = bench.reaching(specification).only(bench.used[count]), bench.held_out[count]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint"
        result = train(model, specification, data, held_out, settings, CPU, path, "benchmark", lambda part, phase: None)
    seconds = round(time.perf_counter() - started, 1)
    if result.validation is None or not isinstance(result.model, FusionModel):
        raise ValueError("the split holds out nothing")
    shares = softmax(bench.answers(result.model) / result.temperature, axis=1)
    return bench.place.score(shares.argmax(axis=1), bench.scored[:, 2]) | {
        "calibration_error": reliability(shares, bench.scored[:, 2]).expected_error,
        "held_out_loss": calibrated_log_loss(result.validation),
        "best_epoch": result.best_epoch,
        "seconds": seconds,
        "trained": trained,
    }


def _trained_parameters(model: FusionModel, settings: TrainingSettings) -> int:
    copied = copy.deepcopy(model)
    freeze(copied, settings.trained_part)
    if settings.trained_part == "adapters":
        add_adapters(copied, settings.adapter_rank, settings.adapter_alpha, settings.seed)
    return count_parameters(copied)


def chosen(runs: Sequence[Run]) -> list[Run]:
    """Of the rates of each draw that which the held-out polygons prefer."""
    draws: dict[int, list[Run]] = {}
    for run in runs:
        draws.setdefault(run["seed"], []).append(run)
    return [min(each, key=lambda run: float(run["held_out_loss"])) for each in draws.values()]


def table(rows: Sequence[Run]) -> str:
    """By scene and number of polygons, in Markdown."""
    lines = [
        "# Fine-tuning modes",
        "",
        f"Mean and standard deviation over the draws of polygons. The base model is of `{METHOD}`, pre-trained on the scene's "
        "own pixels for about a minute on one core; the network has no linear models beside it. mIoU in percent and expected "
        "calibration error (after temperature scaling) on pixels away from the polygons, at the rate that the polygons held "
        "out prefer, of those measured; the last columns hold their loss and the mIoU at each rate (– is not measured), and "
        "what one training takes (seconds on a machine with other work). Modes, scenes and numbers of polygons that are "
        "not listed are not measured. See `scripts/benchmarks/fine_tuning_modes.py`.",
    ]
    columns = ["mode", "draws", "mIoU", "calibration error", "loss held out"]
    columns += [*(f"mIoU at {rate:g}" for rate in RATES), "trained parameters", "seconds"]
    for scene in dict.fromkeys(row["scene"] for row in rows):
        for count in sorted({row["polygons"] for row in rows if row["scene"] == scene}):
            lines += [
                "",
                f"## {scene}, {count} polygons a class",
                "",
                f"| {' | '.join(columns)} |",
                "|" + "---|" * len(columns),
            ]
            for name in MODES:
                own = [run for run in rows if (run["scene"], run["polygons"], run["row"]) == (scene, count, name)]
                best = chosen(own)
                if best:
                    lines.append(f"| {' | '.join([name, str(len(best)), *_cells(best, own)])} |")
    return "\n".join([*lines, ""])


def _cells(best: Sequence[Run], own: Sequence[Run]) -> list[str]:
    rates = [[100 * run["miou"] for run in own if run["rate"] == rate] for rate in RATES]
    return [
        cell([100 * run["miou"] for run in best]),
        cell([run["calibration_error"] for run in best], 2),
        cell([run["held_out_loss"] for run in best], 2),
        *(cell(values) for values in rates),
        f"{best[0]['trained']:,}",
        f"{np.mean([run['seconds'] for run in own]):.0f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the real scenes")
    parser.add_argument("--scenes", nargs="+", choices=list(SCENES), default=["flood_India", "s1s2_282D"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--counts", nargs="+", type=int, choices=COUNTS, default=list(COUNTS))
    parser.add_argument("--rates", nargs="+", type=float, choices=RATES, default=list(RATES))
    parser.add_argument("--output", type=Path, default=RESULTS / "fine_tuning_modes", help="path without ending")
    options = parser.parse_args()
    begin()
    lines, page = options.output.with_suffix(".jsonl"), options.output.with_suffix(".md")

    def save(run: Run) -> None:
        with lines.open("a") as stream:
            stream.write(json.dumps(run) + "\n")
        page.write_text(table(read(lines)))
        print(*(run[key] for key in ("scene", "seed", "row", "polygons", "rate")), f"{100 * run['miou']:.1f}", flush=True)

    for seed in options.seeds:
        measure(options.scenes, options.data.resolve(), seed, options.counts, options.rates, read(lines), save)


if __name__ == "__main__":
    main()
