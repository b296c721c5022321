"""Maps a real scene from small drawn patches and compares both U-Nets with the classical baselines, over several seeds.

From a weak land-cover map of the scene, patches of a few pixels are cut as polygons, about 20 a class; everything is
trained on the same spatially blocked training part of them and scored on the pixels more than five pixels away from any
patch. The models go through the command line (``rsfusion finetune`` and ``rsfusion map``), or with ``--through
qgis_process`` through the plugin's algorithms in QGIS, so time and memory are those that a user sees. The reference is a
weak map: what is measured is agreement, not accuracy.

    OMP_WAIT_POLICY=PASSIVE .venv/bin/python scripts/benchmarks/first_map.py ../shared/data/s1s2_scenes/282D_485L_3_3 \
        --output scripts/benchmarks/results/first_map.md
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import rasterio
import rasterio.features
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from shapely.geometry import shape

from core.assessment.confusion import accuracy, confusion_matrix
from core.finetuning.estimators.baselines import BASELINES, labelled_features, neighbourhood_features, pixel_features
from core.finetuning.networks.settings import TrainingSettings
from core.finetuning.training_data import TrainingData
from core.labels.blocks import spatial_split
from core.labels.reading import read_labels
from core.scenes.reading import SceneReader
from core.scenes.scene import Scene, SceneRequest, build_scene

SIDES = (3, 6)
FEWEST_CLASS_PIXELS = 400
AWAY_PIXELS = 5
ARCHITECTURES = ("unet_early", "unet_intermediate")


def cut_patches(landcover: Path, per_class: int, seed: int, path: Path) -> tuple[NDArray[np.int64], list[int]]:
    """Writes patches of the classes that are large enough; returns the patch of each pixel (-1 = none) and the codes."""
    with rasterio.open(landcover) as dataset:
        codes, transform, crs = dataset.read(1).astype(int), dataset.transform, dataset.crs
    generator = np.random.default_rng(seed)
    height, width = codes.shape
    patch = np.full(codes.shape, -1, np.int64)
    classes = [int(code) for code in np.unique(codes) if code and (codes == code).sum() >= FEWEST_CLASS_PIXELS]
    drawn: list[int] = []
    for code in classes:
        found = 0
        for _ in range(20000):
            if found == per_class:
                break
            side = int(generator.integers(SIDES[0], SIDES[1] + 1))
            row, column = int(generator.integers(height - side)), int(generator.integers(width - side))
            own = codes[row : row + side, column : column + side] == code
            around = patch[max(0, row - 2) : row + side + 2, max(0, column - 2) : column + side + 2]
            if own.mean() < 0.6 or (around >= 0).any():
                continue
            patch[row : row + side, column : column + side][own] = len(drawn)
            drawn.append(code)
            found += 1
    parts = rasterio.features.shapes(patch.astype(np.int32), mask=patch >= 0, transform=transform)
    rows = [(drawn[int(number)], int(number), shape(geometry)) for geometry, number in parts]
    frame = geopandas.GeoDataFrame(
        {"code": [row[0] for row in rows], "patch": [row[1] for row in rows]},
        geometry=[row[2] for row in rows],
        crs=crs,
    )
    frame.dissolve("patch").reset_index(drop=True).to_file(path, driver="GPKG")
    return patch, classes


Options = dict[str, str]


def run_command(job: str, options: Options) -> tuple[float, float]:
    """Runs ``rsfusion``; returns seconds and peak memory in MiB."""
    arguments = [part for key, value in options.items() for part in (f"--{key}", value)]
    return _run([str(Path(sys.executable).with_name("rsfusion")), job, *arguments, "--json"], None)


def run_in_qgis(job: str, options: Options) -> tuple[float, float]:
    """Runs the plugin's algorithm by ``qgis_process``; the memory is that of the worker, or of QGIS if that takes more."""
    program = shutil.which("qgis_process.bin") or shutil.which("qgis_process")
    if program is None:
        raise SystemExit("qgis_process is not installed.")
    algorithm = {"finetune": "rsfusion:finetune", "map": "rsfusion:landcovermap"}[job]
    parameters = [f"{key.upper().replace('-', '_')}={value}" for key, value in options.items()]
    with tempfile.TemporaryDirectory() as profile:
        environment = os.environ | {
            "QT_QPA_PLATFORM": "offscreen",
            "QGIS_PLUGINPATH": str(Path(__file__).resolve().parents[2]),
            "QGIS_CUSTOM_CONFIG_PATH": profile,
            "RSFUSION_PYTHON": sys.executable,
        }
        subprocess.run([program, "plugins", "enable", "rsfusion_plugin"], env=environment, check=True, capture_output=True)
        return _run([program, "run", algorithm, "--", *parameters], environment)


def _run(command: list[str], environment: dict[str, str] | None) -> tuple[float, float]:
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
    assert process.stdout is not None
    tail = process.stdout.read().decode()
    # Of the process and of those that it has waited for.
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{tail[-3000:]}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


WAYS = {"rsfusion": run_command, "qgis_process": run_in_qgis}


def scores(predicted: NDArray[Any], truth: NDArray[Any], where: NDArray[np.bool_], classes: list[int]) -> dict[str, float]:
    """Agreement on the pixels chosen; predictions of other codes count as wrong."""
    index = np.full(256, -1, np.int64)
    index[classes] = np.arange(len(classes))
    mapped, reference = index[predicted[where]], index[truth[where]]
    if (mapped < 0).any():
        raise SystemExit("A pixel away from the patches was not mapped.")
    result = accuracy(confusion_matrix(mapped, reference, len(classes)), tuple(map(str, classes)))
    return {"oa": result.overall_accuracy, "f1": result.macro_f1, "miou": result.mean_iou}


def baseline_maps(scene: Scene, labels_path: Path, seed: int) -> dict[str, tuple[NDArray[np.int64], float]]:
    """Class codes of the whole scene by each baseline, trained on the same part of the patches, and seconds."""
    labels = read_labels(labels_path, "code", scene.grid)
    split = spatial_split(labels, scene.grid, 0.3, seed)
    samples = labelled_features(TrainingData(scene, labels, TrainingSettings().window_size))
    learned = ~split.validation[samples.feature]
    with SceneReader(scene) as reader:
        pixels = pixel_features(reader.read(scene.grid.window), scene)
    whole = {"pixels": pixels, "neighbourhoods": neighbourhood_features(pixels)}
    codes = np.array(labels.scheme.codes)
    maps = {}
    for baseline in BASELINES:
        started = time.perf_counter()
        estimator = baseline.make(seed)
        estimator.fit(samples.of(baseline.features)[learned], samples.classes[learned])
        features = whole[baseline.features]
        predicted = estimator.predict(features.reshape(len(features), -1).T).reshape(features.shape[1:])
        maps[baseline.name] = codes[predicted], time.perf_counter() - started
    return maps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--patches", type=int, default=20)
    parser.add_argument("--through", choices=list(WAYS), default="rsfusion")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for scene_folder in options.scenes:
        for seed in range(options.seeds):
            rows += measure(scene_folder, seed, options.patches, WAYS[options.through])
            options.output.write_text(table(rows, options.patches))
            print(table(rows, options.patches), flush=True)


def measure(folder: Path, seed: int, patches: int, run: Callable[[str, Options], tuple[float, float]]) -> list[dict[str, Any]]:
    """All models on one scene with one draw of patches."""
    optical, sar, elevation = folder / "s2_l2a.tif", folder / "s1_rtc_db.tif", folder / "dem.tif"
    inputs = {"optical": str(optical), "sar": str(sar), "elevation": str(elevation)}
    with rasterio.open(folder / "landcover.tif") as dataset:
        truth = dataset.read(1).astype(int)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        patch, classes = cut_patches(folder / "landcover.tif", patches, seed, work / "patches.gpkg")
        where = (distance_transform_edt(patch < 0) > AWAY_PIXELS) & np.isin(truth, classes)
        for architecture in ARCHITECTURES:
            model, output = work / f"{architecture}.safetensors", work / f"{architecture}.tif"
            labels = {"labels": str(work / "patches.gpkg"), "class-field": "code", "seed": str(seed)}
            network = {"mode": "scratch", "architecture": architecture, "output-model": str(model)}
            training = run("finetune", inputs | labels | network)
            mapping = run("map", inputs | {"model": str(model), "output": str(output)})
            with rasterio.open(output) as dataset:
                predicted = dataset.read(1)
            rows.append(
                {
                    "scene": folder.name,
                    "seed": seed,
                    "name": architecture,
                    "seconds": training[0] + mapping[0],
                    "memory": max(training[1], mapping[1]),
                    **scores(predicted, truth, where, classes),
                }
            )
        paths = {"optical": [str(optical)], "sar": [str(sar)], "elevation": [str(elevation)]}
        scene = build_scene(SceneRequest(paths))  # type: ignore[arg-type]
        for name, (predicted, seconds) in baseline_maps(scene, work / "patches.gpkg", seed).items():
            row = {"scene": folder.name, "seed": seed, "name": name, "seconds": seconds, "memory": float("nan")}
            rows.append(row | scores(predicted, truth, where, classes))
    return rows


def table(rows: list[dict[str, Any]], patches: int) -> str:
    """Mean and spread over the seeds, a line a model, with every single score below."""
    lines = [
        "# A first map of a real scene",
        "",
        f"About {patches} patches a class of {SIDES[0]} to {SIDES[1]} pixels a side; 70 % of them, in spatial blocks, train "
        f"every model. Agreement with a weak yearly land-cover map on the pixels more than {AWAY_PIXELS} pixels away from "
        "any patch, in percent: mean and standard deviation over the seeds. Seconds are those of fine-tuning (which trains "
        "the baselines, too) and mapping together, or of training and predicting a baseline.",
        "",
        "| scene | model | seeds | mIoU | macro F1 | overall | seconds | peak MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for scene, name in dict.fromkeys((row["scene"], row["name"]) for row in rows):
        own = [row for row in rows if (row["scene"], row["name"]) == (scene, name)]
        cells = [scene, name, str(len(own))]
        for key in ("miou", "f1", "oa"):
            values = 100 * np.array([row[key] for row in own])
            cells.append(f"{values.mean():.1f} ± {values.std(ddof=1) if len(own) > 1 else 0:.1f}")
        memory = max(row["memory"] for row in own)
        cells += [f"{np.mean([row['seconds'] for row in own]):.0f}", "" if np.isnan(memory) else f"{memory:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    plain = [{key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()} for row in rows]
    single = [json.dumps({k: v for k, v in row.items() if v == v}) for row in plain]
    return "\n".join([*lines, "", "Every run:", "", "```", *single, "```", ""])


if __name__ == "__main__":
    main()
