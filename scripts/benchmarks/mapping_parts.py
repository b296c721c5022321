"""Where the time of a map goes, and what would make it faster next.

The scene and the rows of ``mapping.py``, but the processors' seconds of each part are counted by clocks of the threads that do
it: unpacking files, the rest of reading (warping the radar, converting), the model, writing. What is left is blending, the
order of things and the interpreter; idle is what the processors had left to give.

    OMP_WAIT_POLICY=PASSIVE .venv/bin/python scripts/benchmarks/mapping_parts.py

It writes ``scripts/benchmarks/results/mapping_parts.jsonl``, a line a row, and ``mapping_parts.md``. ``--note`` names a state
of the code, so that what was measured before a change and after it stand beside each other.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from fusion import RESULTS
from mapping import (
    DEFAULT,
    FOREST,
    N_CLASSES,
    NOTHING,
    SIXTEEN,
    Nothing,
    answer,
    card_of,
    forest_of,
    measured_apart,
    open_rasters,
    tiles_of,
    write_map,
    write_rasters,
)
from pages import read

from core.jobs.mapping.assembly import MapAssembly
from core.mapping.engine import MappingEngine
from core.mapping.strip_reader import StripReader
from core.models.estimator_model import EstimatorModel
from core.models.registry import build_model
from core.models.specify import specify_model
from core.scenes import reading

ROWS = (NOTHING, DEFAULT, SIXTEEN, FOREST)
UNPACKING, READING, MODEL, WRITING, REST, IDLE = "unpacking", "rest of reading", "model", "writing", "rest", "idle"
PARTS = (UNPACKING, READING, MODEL, WRITING, REST, IDLE)


class Clocks:
    """Seconds of the processor by part, added up over all threads."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        self._lock = threading.Lock()

    def watch(self, owner: Any, name: str, part: str) -> None:
        """Counts what a function takes from now on, wherever it is called."""
        original: Callable[..., Any] = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            began = time.thread_time()
            try:
                return original(*args, **kwargs)
            finally:
                with self._lock:
                    self.seconds[part] += time.thread_time() - began

        setattr(owner, name, counted)


def measure(row: str, folder: Path) -> dict[str, Any]:
    """Seconds by part of one row."""
    scene = open_rasters(folder)
    specification = specify_model(scene, "unet_intermediate", N_CLASSES)
    model: Any = Nothing()
    if row == FOREST:
        model, _ = forest_of(scene)
        specification = model.specification
    elif row != NOTHING:
        torch.manual_seed(0)
        model = build_model(specification).eval().requires_grad_(False)
    dtype = torch.bfloat16 if row == SIXTEEN else torch.float32
    tile_bytes = 0 if row == NOTHING else None
    engine = MappingEngine(model, card_of(specification), scene, torch.device("cpu"), tile_bytes=tile_bytes, dtype=dtype)
    if isinstance(model, EstimatorModel):
        with torch.inference_mode():  # a forest is read when it is asked for the first time
            model(next(tiles_of(specification, 96)))
    clocks = Clocks()
    clocks.watch(reading, "read_stored", UNPACKING)
    clocks.watch(StripReader, "_read", READING)
    clocks.watch(MappingEngine, "_look", MODEL)
    clocks.watch(MapAssembly, "_take", WRITING)
    clocks.watch(MapAssembly, "finish", WRITING)
    started, began = time.perf_counter(), time.process_time()
    write_map(engine, scene, specification, folder)
    seconds, processor_seconds = time.perf_counter() - started, time.process_time() - began
    found = clocks.seconds
    found[READING] -= found[UNPACKING]
    found[REST] = processor_seconds - sum(found[part] for part in (UNPACKING, READING, MODEL, WRITING))
    found[IDLE] = torch.get_num_threads() * seconds - processor_seconds
    pixels = scene.grid.width * scene.grid.height
    return {
        "row": row,
        "width": scene.grid.width,
        "height": scene.grid.height,
        "seconds": round(seconds, 2),
        "megapixels_a_second": round(pixels / seconds / 1e6, 3),
        "parts": {part: round(value, 2) for part, value in found.items()},
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Nanoseconds of a processor for each pixel of the map, and which part takes most, in Markdown."""
    lines = [
        "# Where the time of a map goes",
        "",
        "Nanoseconds of a processor for each pixel of the map; idle is what the processors had left to give meanwhile. One run "
        "each. See `scripts/benchmarks/mapping_parts.py`.",
        "",
        "| row | scene | code | Mpx/s | " + " | ".join(PARTS) + " | most |",
        "|---" * (5 + len(PARTS)) + "|",
    ]
    for row in rows:
        pixels = row["width"] * row["height"]
        parts = {part: 1e9 * seconds / pixels for part, seconds in row["parts"].items()}
        busy = {part: value for part, value in parts.items() if part != IDLE}
        largest = max(busy, key=lambda part: busy[part])
        lines.append(
            f"| {row['row']} | {row['width']} x {row['height']} | {row['note']} | {row['megapixels_a_second']:.3g} | "
            + " | ".join(f"{parts[part]:.0f}" for part in PARTS)
            + f" | {largest}, {busy[largest] / sum(busy.values()):.0%} |"
        )
    lines += ["", *sorted({f"Measured on: {row['machine']}." for row in rows})]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--side", default="4096x4096", help="scene, width x height")
    parser.add_argument("--note", default="as it is", help="of the state of the code")
    parser.add_argument("--output", type=Path, default=RESULTS / "mapping_parts", help="path without ending")
    parser.add_argument("--one", nargs=2, metavar=("ROW", "FOLDER"), help="measure one row on rasters that are there")
    options = parser.parse_args()
    if options.one:
        answer(measure, *options.one)
        return
    lines, page = options.output.with_suffix(".jsonl"), options.output.with_suffix(".md")
    with tempfile.TemporaryDirectory() as name:
        write_rasters(Path(name), *(int(part) for part in options.side.split("x")))
        for row in options.rows:
            found = measured_apart(__file__, row, name) | {"note": options.note}
            key = {part: found[part] for part in ("row", "width", "height", "note")}
            rest = [each for each in read(lines) if not key.items() <= each.items()]
            lines.write_text("".join(json.dumps(each) + "\n" for each in [*rest, found]))
            print(row, found["megapixels_a_second"], "Mpx/s", found["parts"], flush=True)
    page.write_text(table(read(lines)))


if __name__ == "__main__":
    main()
