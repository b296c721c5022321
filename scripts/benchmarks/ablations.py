"""Do the published claims hold here? Each system with and without its parts, on one scene, by what frozen features are worth.

A variant is trained on a scene without labels, and a logistic regression on its frozen features is scored with 3, 10 and 30
polygons a class (``label_efficiency.py``); what a variant is worth is the mean of the three. All variants of a claim take the
same number of steps and see the same windows in the same order, so that the difference to the system as published is taken
draw by draw. Every finished run is a line of a JSON file, and a second start goes on where the first ended:

    OMP_WAIT_POLICY=PASSIVE .venv/bin/python scripts/benchmarks/ablations.py ../shared/data

It writes ``scripts/benchmarks/results/ablations.jsonl`` and ``ablations.md``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from fusion import RESULTS
from label_efficiency import Bench, pretrained
from labelled_scenes import COUNTS, SCENES, open_scene
from pages import cell, read

from core.errors import TrainingError
from core.jobs.process import begin
from core.models.specification import FusionName
from core.pretraining.methods import MethodName


@dataclass(frozen=True)
class Variant:
    """A system with something changed.

    Attributes:
        name: in the table.
        method: of the recipe.
        switches: of it.
        fusion: in place of the system's own.
    """

    name: str
    method: MethodName
    switches: dict[str, Any] = field(default_factory=dict)
    fusion: FusionName | None = None


@dataclass(frozen=True)
class Claim:
    """A published claim, or what we say of a recipe of our own.

    Attributes:
        text: the claim.
        times: length of the trainings, in those of ``label_efficiency.py``.
        whole: the variant that should be the best.
        others: those that it is compared with.
    """

    text: str
    times: float
    whole: Variant
    others: tuple[Variant, ...]


CLAIMS: dict[str, Claim] = {
    "fusion": Claim(
        "Chen and Bruzzone: intermediate fusion is the best of early, intermediate and late.",
        2.0,
        Variant("intermediate", "sar_optical_contrast_intermediate"),
        (Variant("early", "sar_optical_contrast_early"), Variant("late", "sar_optical_contrast_late")),
    ),
    "terms": Claim(
        "Chen and Bruzzone: super-pixels, windows and modalities each add.",
        2.0,
        Variant("all terms", "sar_optical_contrast_intermediate"),
        (
            Variant("without super-pixels", "sar_optical_contrast_intermediate", {"superpixel": False}),
            Variant("without windows and modalities", "sar_optical_contrast_intermediate", {"image": False}),
            Variant("without modalities", "sar_optical_contrast_intermediate", {"cross_modal": False}),
        ),
    ),
    "asymmetry": Claim(
        "Xu et al.: asymmetric attention with a transfer gate is better than early and late fusion.",
        2.0,
        Variant("asymmetric attention", "asymmetric_attention"),
        (
            Variant("early", "asymmetric_attention", fusion="early"),
            Variant("late", "asymmetric_attention", fusion="late"),
            Variant("symmetric attention", "asymmetric_attention", {"asymmetry": False}),
            Variant("without transfer gate", "asymmetric_attention", {"transfer_gate": False}),
        ),
    ),
    "attention": Claim(
        "Fudan University: of its parts, the cross-attention before the encoder (CAF) is worth most.",
        4.0,
        Variant("whole", "cross_scale_mae"),
        (
            Variant("without CAF", "cross_scale_mae", {"cross_attention": False}),
            Variant("without CMF", "cross_scale_mae", {"cross_modality": False}),
            Variant("without contrast", "cross_scale_mae", {"contrast": False}),
        ),
    ),
    "crop": Claim(
        "Fudan University: crops of 0.4 to 0.6 of the side are the best.",
        4.0,
        Variant("0.4 to 0.6", "cross_scale_mae"),
        (
            Variant("0.2 to 0.4", "cross_scale_mae", {"least_ratio": 0.2, "most_ratio": 0.4}),
            Variant("0.6 to 0.8", "cross_scale_mae", {"least_ratio": 0.6, "most_ratio": 0.8}),
        ),
    ),
    "anchor": Claim(
        "Zhang et al.: masks that follow an anchor, and geography, help.",
        4.0,
        Variant("whole", "anchor_aware_mae"),
        (
            Variant("independent masks", "anchor_aware_mae", {"anchor": False}),
            Variant("without geography", "anchor_aware_mae", {"geography": False}),
        ),
    ),
    "latent": Claim(
        "Ours: targets of single pixels, of patches told apart, with inputs withheld, days and pixel sizes told.",
        1.0,
        Variant("whole", "latent_targets"),
        (
            Variant("without targets of pixels", "latent_targets", {"pixels": 0.0}),
            Variant("direction alone, no contrast", "latent_targets", {"loss": "cosine"}),
            Variant("no input withheld", "latent_targets", {"withheld": 0.0}),
            Variant("no decoder", "latent_targets", {"decoder": False}),
            Variant("not told days and pixel sizes", "latent_targets", {"circumstances": False}),
        ),
    ),
}


LEAST_DRAWS = 3
"""That a verdict rests on."""


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Worth and difference by variant, in Markdown."""
    lines = [
        "# Ablations",
        "",
        "Mean IoU in percent of a logistic regression on frozen features, mean over 3, 10 and 30 polygons a class, mean and "
        "standard deviation over the draws; the difference to the first row is taken draw by draw. A claim holds where the "
        "difference is larger than its spread. Draws whose features collapsed were stopped and have "
        "no score. See ``scripts/benchmarks/ablations.py``.",
    ]
    for scene, key in dict.fromkeys((row["scene"], row["claim"]) for row in rows):
        own = [row for row in rows if (row["scene"], row["claim"]) == (scene, key)]
        finished = [row for row in own if row["miou"] is not None]
        claim = CLAIMS[key]
        lines += [
            "",
            f"## {claim.text}",
            "",
            f"On {scene}, {finished[0]['steps']:.0f} steps, {finished[0]['seconds']:.0f} s a training.",
            "",
        ]
        lines += ["| variant | draws | collapsed | mIoU | less than the first | what it adds |", "|---|---|---|---|---|---|"]
        whole = {row["seed"]: 100 * row["miou"] for row in finished if row["variant"] == claim.whole.name}
        for variant in (claim.whole, *claim.others):
            scores = {row["seed"]: 100 * row["miou"] for row in finished if row["variant"] == variant.name}
            count = sum(row["variant"] == variant.name for row in own)
            shared = [whole[seed] - scores[seed] for seed in scores if seed in whole]
            cells = [variant.name, str(count), str(count - len(scores)), cell(list(scores.values())), "", ""]
            if variant is not claim.whole and len(shared) > 1:
                cells[4:] = [cell(shared), _verdict(shared)]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def _verdict(gains: Sequence[float]) -> str:
    if len(gains) < LEAST_DRAWS:
        return "too few draws"
    mean, spread = float(np.mean(gains)), float(np.std(gains, ddof=1))
    return "within the spread" if abs(mean) <= spread else "yes" if mean > 0 else "no, it costs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the real scenes")
    parser.add_argument("--scene", choices=list(SCENES), default="s1s2_282D")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--claims", nargs="+", choices=list(CLAIMS), default=list(CLAIMS))
    parser.add_argument("--output", type=Path, default=RESULTS / "ablations", help="path without ending")
    options = parser.parse_args()
    begin()
    lines, page = options.output.with_suffix(".jsonl"), options.output.with_suffix(".md")
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(open_scene(options.scene, options.data.resolve(), seed, Path(folder)))
            for key in options.claims:
                for variant in (CLAIMS[key].whole, *CLAIMS[key].others):
                    name = {"scene": options.scene, "seed": seed, "claim": key, "variant": variant.name}
                    if any(name.items() <= row.items() for row in read(lines)):
                        continue
                    result = measure(bench, variant, CLAIMS[key].times)
                    with lines.open("a") as stream:
                        stream.write(json.dumps(name | result) + "\n")
                    page.write_text(table(read(lines)))
                    print(*name.values(), result["miou"], flush=True)


def measure(bench: Bench, variant: Variant, times: float) -> dict[str, Any]:
    """What the frozen features of a variant are worth; nothing where they collapsed."""
    try:
        model, has_decoder, cost = pretrained(bench.place, variant.method, variant.switches, times, variant.fusion)
    except TrainingError as error:
        # A training that collapses is stopped, in the product too: there is nothing to score.
        return {"miou": None, "error": error.message}
    features = bench.features(model, has_decoder)
    scores = {str(count): bench.score(bench.logistic(features, count))["miou"] for count in COUNTS}
    return {"miou": float(np.mean(list(scores.values()))), "by_count": scores} | cost


if __name__ == "__main__":
    main()
