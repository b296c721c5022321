"""Does a patch of one sensor find its partner in the other? Cross-sensor alignment, with and without each of its terms.

A model is trained without labels on some scenes, or on one side of a scene, by the cross-sensor alignment. On the others
64 windows are drawn that do not touch each other; each is described from one sensor alone and from the other
alone, and the score is how often the most similar of the other sensor's 64 descriptions is that of the same window
(mean of both directions; one in 64 by chance). Descriptions are what the alignment's heads say, averaged over the
window; and, as "features", what the encoder says before them, centred per sensor, since that is what fine-tuning gets.

=======================  ==================================================================================================
``sar_optical``          Sentinel-1 VH and Sentinel-2 RGB, 8-bit, 10 m: ten pairs are learned from, five are asked.
``resolutions``          Sentinel-2's bands of 10 m and of 20 m: the west of two scenes is learned from, the east is asked.
``aerial_dates``         Aerial imagery of 2010 and of 2018, 5 m: west and east as above.
``landsat_dates``        Landsat of 1985 and of 2020, 90 m: west and east as above.
=======================  ==================================================================================================

Every finished run is a line of a JSON file, and a second start goes on where the first ended:

    OMP_WAIT_POLICY=PASSIVE .venv/bin/python scripts/benchmarks/retrieval.py ../shared/data

It writes ``scripts/benchmarks/results/retrieval.jsonl`` and ``retrieval.md``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from fusion import RESULTS
from label_efficiency import CPU
from numpy.typing import NDArray
from pages import cell, read
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine, from_origin
from rasterio.windows import Window
from torch import Tensor

from core.jobs.process import begin
from core.models.features import masked_mean
from core.models.fusion_model import FusionModel
from core.models.registry import build_model
from core.models.specify import specify_for_scenes
from core.pretraining.loop import pretrain
from core.pretraining.methods import METHODS
from core.pretraining.objectives.dense_alignment import DenseAlignment, retrieval_accuracy
from core.pretraining.objectives.objective import Objective
from core.pretraining.projections import unit
from core.pretraining.recipes.build import make_recipe
from core.pretraining.scene_windows import SceneWindows
from core.scenes.grid import Window as GridWindow
from core.scenes.reading import SceneReader
from core.scenes.scene import Scene, SceneRequest, build_scene

METHOD = "cross_sensor_alignment"

VARIANTS: dict[str, dict[str, Any]] = {
    "both terms": {},
    "without alignment": {"alignment": False},
    "alignment alone": {"distillation": False},
    "both, told from all places beyond 500 m": {"radius_m": 500.0},
}
"""Without alignment is what the authors' released code does: its alignment sends no gradient."""

ASKED = 64
TRAINED_SIDE = 0.6
WINDOWS = 256

SENTINEL2 = (
    ("im10", 10, ("B4", "B3", "B2", "B8")),
    ("im20", 20, ("B5", "B6", "B7", "B8A", "B11", "B12")),
)
"""The order of the bands in the files: that of Sentinel-2's products."""

Rasters = dict[str, tuple[NDArray[Any], Affine, Any, tuple[str, ...]]]
Halves = tuple[list[SceneRequest], list[SceneRequest]]


def _pairs(data: Path, seed: int, work: Path) -> Halves:
    folders = sorted((data / "sar_optical_pairs").iterdir())
    order = np.random.default_rng(seed).permutation(len(folders))
    requests = [
        SceneRequest({"optical": [str(folder / "s2_rgb_8bit.tif")], "sar": [str(folder / "s1_vh_8bit.tif")]})
        for folder in folders
    ]
    return [requests[number] for number in order[:10]], [requests[number] for number in order[10:]]


def _resolutions(data: Path, seed: int, work: Path) -> Halves:
    both: Halves = ([], [])
    for path in sorted((data / "sentinel2_multires").glob("*.mat")):
        rasters: Rasters = {}
        for name, metres, bands in SENTINEL2:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                with rasterio.open(f"HDF5:{path}://{name}") as dataset:
                    values = dataset.read()
            rasters[name] = values, from_origin(500_000, 5_000_000, metres, metres), "EPSG:32633", bands
        _halved(rasters, ("optical", "other"), work, path.stem, both)
    return both


def _dates(paths: tuple[str, str], bands: tuple[str, ...]) -> Callable[[Path, int, Path], Halves]:
    def request(data: Path, seed: int, work: Path) -> Halves:
        rasters: Rasters = {}
        for number, path in enumerate(paths):
            with rasterio.open(data / "us_series" / path) as dataset:
                values = dataset.read()[: len(bands)]
                rasters[f"date{number}"] = values, dataset.transform, dataset.crs, bands
        both: Halves = ([], [])
        _halved(rasters, ("optical", "other"), work, Path(paths[0]).stem, both)
        return both

    return request


def _halved(rasters: Rasters, roles: tuple[Any, Any], work: Path, stem: str, both: Halves) -> None:
    """Writes the west and the east of the rasters of a scene."""
    for side, requests in enumerate(both):
        paths = {}
        for role, (name, (values, transform, crs, bands)) in zip(roles, rasters.items(), strict=True):
            width = values.shape[2]
            # An even column, so that coarser pixels begin where finer ones do.
            edge = round(TRAINED_SIDE * width / 12) * 12 if width % 12 == 0 else round(TRAINED_SIDE * width)
            first, stop = ((0, edge), (edge, width))[side]
            part = values[:, :, first:stop]
            path = work / f"{stem}_{name}_{side}.tif"
            profile = {"driver": "GTiff", "height": part.shape[1], "width": part.shape[2], "count": len(part), "crs": crs}
            moved = rasterio.windows.transform(Window(first, 0, stop - first, part.shape[1]), transform)
            with rasterio.open(path, "w", **profile, dtype=part.dtype, transform=moved) as dataset:
                dataset.write(part)
                dataset.descriptions = bands
            paths[role] = [str(path)]
        requests.append(SceneRequest(paths))


DATA: dict[str, Callable[[Path, int, Path], Halves]] = {
    "sar_optical": _pairs,
    "resolutions": _resolutions,
    "aerial_dates": _dates(
        ("naip/m_4709963_se_14_1_20100629.tif", "naip/m_4709963_se_14_1_20180716.tif"), ("red", "green", "blue", "nir")
    ),
    "landsat_dates": _dates(("landsat/1985.tif", "landsat/2020.tif"), ("swir1", "nir", "red", "green")),
}


def measure(name: str, data: Path, seed: int, switches: dict[str, Any], epochs: int) -> dict[str, Any]:
    """One training and its retrieval on what was not trained on."""
    recipe = make_recipe("cross_sensor_alignment", "small", switches)
    with tempfile.TemporaryDirectory() as folder:
        trained, asked = DATA[name](data, seed, Path(folder))
        scenes = [build_scene(request) for request in trained]
        specification, scenes_named = specify_for_scenes(scenes, METHODS[METHOD].architecture)
        settings = replace(recipe.settings("small"), seed=seed, epochs=epochs, windows_per_epoch=WINDOWS)
        specification = recipe.specification(specification.model_copy(update={"window": settings.window_size}))
        recipe.check(specification)
        torch.manual_seed(seed)
        model = build_model(specification)
        objective = recipe.objective(model)
        windows = SceneWindows(scenes_named, specification, settings.window_size, settings.batch_size)
        started = time.perf_counter()
        path = Path(folder) / "checkpoint"
        result = pretrain(model, objective, windows, settings, CPU, path, "benchmark", lambda part, phase: None)
        seconds = time.perf_counter() - started
        values = _asked([build_scene(request) for request in asked], settings.window_size, seed)
    named = dict(zip((entry.name for entry in specification.modalities), values, strict=True))
    return _retrieval(result.model, objective, named) | {"steps": result.steps, "seconds": round(seconds, 1)}


def _asked(scenes: Sequence[Scene], size: int, seed: int) -> list[Tensor]:
    """By sensor (``ASKED``, C, h, w): windows of all scenes that do not touch each other."""
    places = []
    for number, scene in enumerate(scenes):
        rows, columns = (side // (size + 1) for side in (scene.grid.height, scene.grid.width))
        step = scene.step
        places += [(number, row * -(-(size + 1) // step) * step, column * -(-(size + 1) // step) * step)
                   for row in range(rows - 1) for column in range(columns - 1)]  # fmt: skip
    order = np.random.default_rng(seed).permutation(len(places))
    found: list[list[NDArray[np.float32]]] = []
    for number in order:
        scene, row, column = scenes[places[number][0]], *places[number][1:]
        with SceneReader(scene) as reader:
            values = reader.read(GridWindow(column, row, size, size))
        if all(np.isfinite(part).mean() > 0.9 for part in values.values()):
            found.append(list(values.values()))
        if len(found) == ASKED:
            break
    if len(found) < ASKED:
        raise ValueError(f"only {len(found)} windows with data")
    return [torch.from_numpy(np.stack(parts)) for parts in zip(*found, strict=True)]


@torch.no_grad()
def _retrieval(model: FusionModel, objective: Objective, values: dict[str, Tensor]) -> dict[str, float]:
    """How often windows find each other, by features and, where there are any, by the alignment's heads."""
    pooled, tokens = [], []
    for name, given in values.items():
        parts = [model.features({name: piece}) for piece in given.split(20)]
        levels = [part.levels[-1] for part in parts]
        pooled.append(torch.cat([masked_mean(level) for level in levels]))
        tokens.append(torch.cat([level.values.flatten(2).transpose(1, 2) for level in levels]))
    centred = [rows - rows.mean(dim=0) for rows in pooled]
    result = {"features": retrieval_accuracy(*centred)}
    alignment = next((part for part in objective.modules() if isinstance(part, DenseAlignment)), None)
    if alignment is not None:
        alignment.eval()
        said = [
            unit(head(alignment.shared(rows)), dim=2).mean(dim=1) for head, rows in zip(alignment.heads, tokens, strict=True)
        ]
        result["heads"] = retrieval_accuracy(*said)
    return result


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Retrieval by data and variant, in Markdown."""
    lines = [
        "# Finding the same place in another sensor",
        "",
        f"Top-1 among {ASKED} windows of 32 pixels that were not trained on, in percent (2 by chance), mean and standard "
        "deviation over the seeds. See ``scripts/benchmarks/retrieval.py``.",
        "",
        "| data | variant | seeds | features | heads of the alignment | steps | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, variant, steps in sorted({(row["data"], row["variant"], row["steps"]) for row in rows}):
        own = [row for row in rows if (row["data"], row["variant"], row["steps"]) == (name, variant, steps)]
        cells = [name, variant, str(len(own))]
        cells += [cell([100 * row[kind] for row in own if kind in row], 0) for kind in ("features", "heads")]
        cells += [f"{steps}", f"{np.mean([row['seconds'] for row in own]):.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the real scenes")
    parser.add_argument("--only", nargs="+", choices=list(DATA), default=list(DATA))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--epochs", type=int, default=3, help=f"of {WINDOWS} windows; other results are kept apart by it")
    parser.add_argument("--output", type=Path, default=RESULTS / "retrieval", help="path without ending")
    options = parser.parse_args()
    begin()
    lines, page = options.output.with_suffix(".jsonl"), options.output.with_suffix(".md")
    for seed in options.seeds:
        for name in options.only:
            for variant in options.variants:
                key = {"data": name, "seed": seed, "variant": variant, "epochs": options.epochs}
                if any(key.items() <= row.items() for row in read(lines)):
                    continue
                result = measure(name, options.data.resolve(), seed, VARIANTS[variant], options.epochs)
                with lines.open("a") as stream:
                    stream.write(json.dumps(key | result) + "\n")
                page.write_text(table(read(lines)))
                print(*key.values(), result, flush=True)


if __name__ == "__main__":
    main()
