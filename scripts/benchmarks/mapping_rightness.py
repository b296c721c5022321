"""Is a blended map the map that the model would make in one piece? The engine beside what most programs do.

Rasters as those of ``mapping.py``, of which one piece fits into memory. The default network, with random weights, maps them in
one call, with what lies around as far as the network sees; that is the truth. The engine, MONAI's sliding window with its
weights of a bell curve, and tiles of the whole raster that are blended by ramps are compared with it: the largest difference of
a probability, and the part of the pixels with the same class. All have the engine's tiles and overlap.

    OMP_WAIT_POLICY=PASSIVE .venv/bin/python scripts/benchmarks/mapping_rightness.py

It writes ``scripts/benchmarks/results/mapping_rightness.jsonl``, a line a way, and ``mapping_rightness.md``. Without MONAI,
which the project does not depend on, its row is left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fusion import RESULTS
from mapping import N_CLASSES, card_of, open_rasters, ramps_over, write_rasters
from numpy.typing import NDArray
from pages import read
from torch import Tensor

from core.jobs.process import begin
from core.mapping.engine import MappingEngine
from core.mapping.rasters import raster_environment
from core.models.registry import build_model, model_step, receptive_radius
from core.models.specify import specify_model
from core.scenes.grid import aligned
from core.scenes.reading import SceneReader

ENGINE, MONAI, RAMPS, CUT = "engine", "MONAI's sliding window, bell curve", "tiles blended by ramps", "tiles side by side"
Probabilities = NDArray[np.float32]


def measure(folder: Path, seed: int) -> list[dict[str, Any]]:
    """How far each way is from the map in one piece."""
    scene = open_rasters(folder)
    specification = specify_model(scene, "unet_intermediate", N_CLASSES)
    torch.manual_seed(seed)
    model = build_model(specification).eval().requires_grad_(False)
    torch.nn.init.normal_(model.head.classifier.weight)  # type: ignore[arg-type]
    card = card_of(specification)
    engine = MappingEngine(model, card, scene, torch.device("cpu"))
    tiling, grid = engine.tiling, scene.grid
    radius = receptive_radius(specification)
    assert radius is not None
    whole = aligned(grid, grid.window.padded(radius), model_step(specification))
    with SceneReader(scene) as reader:
        around = {name: torch.from_numpy(values[None]) for name, values in reader.read(whole).items()}
    rows, columns = grid.window.slices_within(whole)

    def probabilities(values: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():  # MONAI weights the answers in place
            return torch.softmax(model(values), dim=1)

    truth = probabilities(around)[0].numpy()[:, rows, columns]
    inside = {name: values[:, :, rows, columns] for name, values in around.items()}
    counts = [values.shape[1] for values in inside.values()]
    stacked = torch.cat(list(inside.values()), dim=1)

    def of_stacked(tiles: Tensor) -> Tensor:
        return probabilities(dict(zip(inside, tiles.split(counts, dim=1), strict=True)))

    def by_engine() -> Probabilities:
        found = np.empty_like(truth)
        for strip in engine.strips(grid.window):
            found[:, *strip.window.slices_within(grid.window)] = strip.probabilities
        return found

    def by_monai() -> Probabilities:
        from monai.inferers import sliding_window_inference

        size, overlap = (tiling.tile, tiling.tile), tiling.overlap / tiling.tile
        answer: Tensor = sliding_window_inference(stacked, size, 1, of_stacked, overlap=overlap, mode="gaussian")
        return answer[0].numpy()

    ways: dict[str, Callable[[], Probabilities]] = {
        ENGINE: by_engine,
        MONAI: by_monai,
        RAMPS: lambda: ramps_over(stacked.numpy(), tiling.tile, tiling.overlap, of_stacked),
        CUT: lambda: ramps_over(stacked.numpy(), tiling.tile, 0, of_stacked),
    }
    if importlib.util.find_spec("monai") is None:
        del ways[MONAI]
    found = []
    for name, way in ways.items():
        own = way()
        difference = float(np.abs(own - truth).max())
        same = float((own.argmax(axis=0) == truth.argmax(axis=0)).mean())
        entry = {"way": name, "seed": seed, "width": grid.width, "height": grid.height, "difference": difference, "same": same}
        found.append(entry | {"tile": tiling.tile, "overlap": tiling.overlap if name != CUT else 0})
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """The worst over the seeds, in Markdown."""
    lines = [
        "# Is a blended map the map in one piece?",
        "",
        "The default network with random weights, 10 classes, beside its own map in one call. The largest difference of a "
        "probability over all pixels, and the part of the pixels with the same class, the worst of the seeds. See "
        "`scripts/benchmarks/mapping_rightness.py`.",
        "",
        "| way | scene | tile, overlap | seeds | largest difference | same class |",
        "|---|---|---|---|---|---|",
    ]
    for way in dict.fromkeys(row["way"] for row in rows):
        own = [row for row in rows if row["way"] == way]
        first = own[0]
        lines.append(
            f"| {way} | {first['width']} x {first['height']} | {first['tile']}, {first['overlap']} | {len(own)} | "
            f"{max(row['difference'] for row in own):.1e} | {100 * min(row['same'] for row in own):.3f} % |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", default="1100x900", help="scene, width x height")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=RESULTS / "mapping_rightness", help="path without ending")
    options = parser.parse_args()
    begin()
    lines, page = options.output.with_suffix(".jsonl"), options.output.with_suffix(".md")
    with tempfile.TemporaryDirectory() as name, raster_environment():
        write_rasters(Path(name), *(int(part) for part in options.side.split("x")))
        found = [row for seed in options.seeds for row in measure(Path(name), seed)]
    lines.write_text("".join(json.dumps(row) + "\n" for row in found))
    page.write_text(table(read(lines)))
    print(page.read_text())


if __name__ == "__main__":
    main()
