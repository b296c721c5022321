"""What a network loses when it is made smaller or computed in fewer bits, on real scenes.

A network is trained from scratch on 30 polygons a class of a scene of ``labelled_scenes.py``, without the linear models
beside it, which would hide the difference. Then the whole scene is mapped with it: as it is, with numbers of 16 bits, as an
ONNX graph, as a graph in eight bits (calibrated on one half of the scene, compared on the other), and by a network of half its
width distilled from it on the scene without labels (a fifth is left out). Every row is scored on the same pixels, and compared
with the network's own map.

    OMP_WAIT_POLICY=PASSIVE .venv/bin/python scripts/benchmarks/smaller_models.py ../shared/data

It writes ``scripts/benchmarks/results/smaller_models.jsonl`` and ``smaller_models.md``; what is there is not measured again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fusion import RESULTS
from label_efficiency import CPU, NETWORK, Bench
from labelled_scenes import COUNTS, SCENES, open_scene
from pages import Run, cell, read
from torch import nn

from core.finetuning.networks.loop import train
from core.finetuning.networks.start import start_model
from core.jobs.learning.distillation import BATCH_SIZE, HELD_OUT, LEARNING_RATE
from core.jobs.models.export import WINDOW_SIZE, windows_of
from core.jobs.process import begin
from core.mapping.engine import MappingEngine
from core.mapping.rasters import raster_environment
from core.models.fusion_model import FusionModel
from core.models.graphs.export import export_graph
from core.models.graphs.int8 import int8_graph
from core.models.graphs.onnx_model import OnnxModel
from core.models.model_file import ModelCard, class_cards
from core.models.registry import build_model, count_parameters
from core.models.specification import ModelSpecification
from core.models.specify import specify_model, with_half_width
from core.pretraining.loop import pretrain
from core.pretraining.objectives.distillation import Distillation
from core.pretraining.scene_windows import SceneWindows
from core.pretraining.settings import PretrainingSettings
from core.scenes.division import divided

NETWORK_ROW, SIXTEEN, GRAPH, EIGHT, HALF = (
    "network",
    "with numbers of 16 bits",
    "as an ONNX graph",
    "as a graph in eight bits",
    "distilled to half its width",
)
EPOCHS = 12
"""Of the distillation, as the product's."""


def measure(bench: Bench, seed: int) -> dict[str, Run]:
    """Scores by row."""
    scene, scheme = bench.place.scene, bench.place.labels.scheme
    specification = specify_model(scene, "unet_intermediate", len(scheme)).model_copy(update={"has_shortcut": False})
    model = trained(bench, specification, seed)
    card = ModelCard(
        software_version="benchmark",
        specification=specification,
        resolution_m=specification.resolution_m,
        class_scheme=scheme.name,
        classes=class_cards(scheme),
        allows_missing=True,
    )
    size = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    rows: dict[str, Run] = {}
    own, rows[NETWORK_ROW] = mapped(bench, model, card, None, size)
    _, rows[SIXTEEN] = mapped(bench, model, card, own, None, torch.bfloat16)
    graph, _ = export_graph(model, card)
    _, rows[GRAPH] = mapped(bench, OnnxModel(graph, specification), card, own, len(graph))
    small, _ = int8_graph(graph, specification, *windows_of(scene, specification), True)
    _, rows[EIGHT] = mapped(bench, OnnxModel(small, specification), card, own, len(small))
    half = with_half_width(specification)
    student, seconds = distilled(bench, model, half, seed)
    size = sum(value.numel() * value.element_size() for value in student.state_dict().values())
    _, rows[HALF] = mapped(bench, student, card.model_copy(update={"specification": half}), own, size)
    rows[HALF] |= {"seconds": seconds, "parameters": count_parameters(student)}
    rows[NETWORK_ROW]["parameters"] = count_parameters(model)
    return rows


def trained(bench: Bench, specification: ModelSpecification, seed: int) -> FusionModel:
    model = start_model(specification, seed, None, bench.place.labels.scheme)
    data, held_out = bench.reaching(specification).only(bench.used[COUNTS[-1]]), bench.held_out[COUNTS[-1]]
    with tempfile.TemporaryDirectory() as folder:
        path, settings = Path(folder) / "checkpoint", replace(NETWORK, seed=seed)
        result = train(model, specification, data, held_out, settings, CPU, path, "benchmark", lambda part, phase: None)
    if not isinstance(result.model, FusionModel):
        raise TypeError("no network was trained")
    return result.model.eval()


def distilled(bench: Bench, model: FusionModel, half: ModelSpecification, seed: int) -> tuple[FusionModel, float]:
    """A network of half the width, and the seconds that it took."""
    torch.manual_seed(seed)
    student = build_model(half)
    settings = PretrainingSettings(
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        window_size=WINDOW_SIZE,
        learning_rate=LEARNING_RATE,
        weight_decay=0.0,
        seed=seed,
    )
    parts = divided(bench.place.scene, HELD_OUT, WINDOW_SIZE)
    learned = parts[0] if parts else bench.place.scene
    windows = SceneWindows([learned], half, settings.window_size, settings.batch_size)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint"
        objective = Distillation(model, 1.0, True)
        told: Callable[[float, str], None] = lambda part, phase: None  # noqa: E731
        result = pretrain(student, objective, windows, settings, CPU, path, "benchmark", told)
    return result.model, round(time.perf_counter() - started, 1)


def mapped(
    bench: Bench,
    model: nn.Module,
    card: ModelCard,
    own: np.ndarray[Any, np.dtype[np.uint8]] | None,
    size: int | None,
    dtype: torch.dtype = torch.float32,
) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], Run]:
    """The classes of the scene, 255 where nothing was mapped, and what they are worth.

    Args:
        bench: of the scene.
        model, card: that map.
        own: the network's own classes.
        size: of the file, in bytes; None where there is no other file.
        dtype: that a network computes in.
    """
    scene = bench.place.scene
    engine = MappingEngine(model, card, scene, CPU, dtype=dtype)
    classes = np.full(scene.grid.shape, 255, np.uint8)
    started = time.perf_counter()
    for strip in engine.strips(scene.grid.window, reuses_memory=True):
        rows, columns = strip.window.slices_within(scene.grid.window)
        classes[rows, columns] = np.where(strip.mapped, strip.likeliest[0], 255)
    seconds = time.perf_counter() - started
    found = classes[bench.scored[:, 1], bench.scored[:, 0]]
    alike = 1.0 if own is None else float((classes == own)[own != 255].mean())
    scores = bench.place.score(found, bench.scored[:, 2])
    return classes, scores | {"alike": alike, "megapixels_a_second": classes.size / seconds / 1e6, "mib": size and size / 2**20}


def table(rows: Sequence[Run]) -> str:
    lines = [
        "# Smaller networks, and fewer bits",
        "",
        "U-Nets with intermediate fusion, trained from scratch on 30 polygons a class, without linear models beside them; mean "
        "and standard deviation over the draws. Agreement is with labels of the scene that were not learned from; the same "
        "classes are those of the network's own map of the whole scene. See `scripts/benchmarks/smaller_models.py`.",
    ]
    for scene in dict.fromkeys(row["scene"] for row in rows):
        own = [row for row in rows if row["scene"] == scene]
        lines += [
            "",
            f"## {scene}",
            "",
            "| model | draws | mIoU | same classes, % | Mpx/s | MiB |",
            "|---|---|---|---|---|---|",
        ]
        for name in dict.fromkeys(row["row"] for row in own):
            runs = [row for row in own if row["row"] == name]
            cells = [
                cell([100 * run["miou"] for run in runs]),
                cell([100 * run["alike"] for run in runs], 2),
                cell([run["megapixels_a_second"] for run in runs], 2),
                f"{np.mean([run['mib'] for run in runs]):.2f}" if runs[0]["mib"] else "as above",
            ]
            lines.append(f"| {name} | {len(runs)} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the real scenes")
    parser.add_argument("--scenes", nargs="+", choices=list(SCENES), default=["s1s2_282D", "flood_India"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=RESULTS / "smaller_models", help="path without ending")
    options = parser.parse_args()
    begin()
    lines, page = options.output.with_suffix(".jsonl"), options.output.with_suffix(".md")
    for seed in options.seeds:
        for scene in options.scenes:
            if any((row["scene"], row["seed"]) == (scene, seed) for row in read(lines)):
                continue
            with tempfile.TemporaryDirectory() as folder, raster_environment():
                bench = Bench(open_scene(scene, options.data.resolve(), seed, Path(folder)))
                rows = measure(bench, seed)
            with lines.open("a") as stream:
                for name, result in rows.items():
                    stream.write(json.dumps({"scene": scene, "seed": seed, "row": name} | result) + "\n")
                    print(scene, seed, name, f"{100 * result['miou']:.1f} {100 * result['alike']:.2f}", flush=True)
            page.write_text(table(read(lines)))


if __name__ == "__main__":
    main()
