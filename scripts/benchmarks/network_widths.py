"""How wide has the default network to be? Its agreement, trained from scratch on 3, 10 and 30 polygons a class, by width.

The network is the product's, alone and beside its linear models, which may outvote it; rate and epoch are chosen by the
held-out part of the polygons, as in ``label_efficiency.py``. All widths learn from the same polygons, so that differences are
taken draw by draw. Every finished run is a line of a JSON file, and a second start goes on where the first ended:

    OMP_WAIT_POLICY=PASSIVE .venv/bin/python scripts/benchmarks/network_widths.py ../shared/data

It writes ``scripts/benchmarks/results/network_widths.jsonl`` and ``network_widths.md``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fusion import RESULTS
from label_efficiency import RATE_COUNT, RATES, Bench
from labelled_scenes import COUNTS, SCENES, open_scene
from pages import cell, read

from core.jobs.process import begin

FORMER = 24
"""Channels of the finest level that the others are compared with: those of the default, until it got 16."""

WIDTHS = (16, FORMER, 32)

KINDS = {"alone": False, "beside linear models": True}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Agreement by scene and width, and the difference to the former width, in Markdown."""
    lines = [
        "# Width of the default network",
        "",
        "Mean IoU in percent of the network from scratch, mean and standard deviation over the "
        f"draws; the difference to {FORMER} channels is taken draw by draw, in points, over all numbers of polygons. Seconds "
        "are of the trainings with 10 polygons, of which there are two each. See `scripts/benchmarks/network_widths.py`.",
        "",
        f"| scene | network | channels | draws | {' | '.join(f'{count} a class' for count in COUNTS)} | more than {FORMER} "
        "| seconds |",
        f"|---|---|---|---|{'---|' * len(COUNTS)}---|---|",
    ]
    places = dict.fromkeys((row["scene"], row["kind"]) for row in rows)
    for scene, kind in places:
        of_place = [row for row in rows if (row["scene"], row["kind"]) == (scene, kind)]
        former = {(row["seed"], row["polygons"]): 100 * row["miou"] for row in of_place if row["width"] == FORMER}
        for width in sorted({row["width"] for row in of_place}):
            own = [row for row in of_place if row["width"] == width]
            cells = [scene, kind, str(width), str(len({row["seed"] for row in own}))]
            cells += [cell([100 * row["miou"] for row in own if row["polygons"] == count]) for count in COUNTS]
            pairs = [(100 * row["miou"], former.get((row["seed"], row["polygons"]))) for row in own]
            gains = [score - before for score, before in pairs if before is not None]
            cells.append("" if width == FORMER else cell(gains))
            cells.append(cell([row["seconds"] for row in own if row["polygons"] == RATE_COUNT], 0))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the real scenes")
    parser.add_argument(
        "--scenes", nargs="+", choices=list(SCENES), default=["s1s2_282D", "flood_India", "floods_SAR", "enmap_Potsdam"]
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--widths", nargs="+", type=int, default=list(WIDTHS))
    parser.add_argument("--output", type=Path, default=RESULTS / "network_widths", help="path without ending")
    options = parser.parse_args()
    begin()
    lines, page = options.output.with_suffix(".jsonl"), options.output.with_suffix(".md")
    for seed in options.seeds:
        for scene in options.scenes:
            with tempfile.TemporaryDirectory() as folder:
                bench = Bench(open_scene(scene, options.data.resolve(), seed, Path(folder)))
                for kind, width in itertools.product(KINDS, options.widths):
                    rates: tuple[float, ...] = RATES
                    for count in sorted(COUNTS, key=lambda each: each != RATE_COUNT):
                        key = {"scene": scene, "seed": seed, "kind": kind, "width": width, "polygons": count}
                        known = [row for row in read(lines) if key.items() <= row.items()]
                        if not known:
                            started = time.perf_counter()
                            result = bench.network(count, None, KINDS[kind], rates, width)
                            result["seconds"] = round(time.perf_counter() - started, 1)
                            with lines.open("a") as stream:
                                stream.write(json.dumps(key | result) + "\n")
                            page.write_text(table(read(lines)))
                            print(*key.values(), f"{100 * result['miou']:.1f}", flush=True)
                            known = [result]
                        # Chosen where labels are neither few nor many, and kept for the others.
                        rates = (known[0]["rate"],)


if __name__ == "__main__":
    main()
