"""How fast a scene becomes a map, and in how much memory: the engine beside what it could be at best.

Rasters of 12 bands of 10 m (16 bits), 2 bands of radar in the neighbouring zone of the coordinate system, which are warped,
and a surface model are written to a temporary folder as tiled, compressed GeoTIFFs; the map and its confidence are written
as the product writes them, compressed, with overviews, read back and compared. Each measurement is a process of its own, so
that its peak of memory is its own, above what the process holds once the model is there.

    OMP_WAIT_POLICY=PASSIVE .venv/bin/python scripts/benchmarks/mapping.py

It writes ``scripts/benchmarks/results/mapping.jsonl``, a line a measurement, and ``mapping.md``. ``--rows`` and ``--sides``
choose what is measured; what is in the first of these files already is not measured again unless ``--anew`` is given.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from affine import Affine
from fusion import RESULTS
from numpy.typing import NDArray
from pages import read
from rasterio.windows import Window as RasterioWindow
from scipy.ndimage import gaussian_filter
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor, nn

from core.finetuning.estimators.training import TREES, as_program, estimator_specification
from core.jobs.events import JobContext
from core.jobs.mapping.assembly import MapAssembly
from core.jobs.mapping.land_cover_map import run_map
from core.jobs.mapping.layers import layers_of
from core.jobs.mapping.preparation import map_bytes, panels_of, promise_of
from core.jobs.mapping.workers import WORKER_SETTINGS
from core.jobs.process import begin, give_back_memory
from core.jobs.schemas import MapJob
from core.labels.scheme import ClassScheme, LandCoverClass
from core.mapping.blending import Tiling
from core.mapping.engine import MappingEngine
from core.mapping.journal import StripJournal, remove_journal
from core.mapping.rasters import raster_environment
from core.mapping.tile_threads import TileThreads
from core.models.costs import operations_counter
from core.models.estimator_model import EstimatorModel
from core.models.inference import for_inference
from core.models.model_file import ModelCard, class_cards, load_model, save_model
from core.models.products import convolve
from core.models.programs import Program
from core.models.registry import build_model
from core.models.specification import EstimatorSpecification, ModelSpecification
from core.models.specify import specify_model, with_half_width
from core.scenes.grid import Window
from core.scenes.reading import SceneReader
from core.scenes.scene import Scene, SceneRequest, build_scene

N_CLASSES = 10
PATTERN = 1024
"""Side of the piece of ground that is laid side by side to a scene."""

S2_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
NOTHING, DEFAULT, FORWARD = "engine, a model that does nothing", "engine, default model", "default model, bare forward pass"
SIXTEEN, HALF = "engine, default model in 16 bits", "engine, default model at half the width"
FORWARD_SIXTEEN = "default model in 16 bits, bare forward pass"
FOREST, SCIKIT = "engine, forest as model", "the same forest, scikit-learn alone"
TREES_ALONE, RUNTIME_ALONE = "the same forest, its trees alone", "the same forest, ONNX's runtime alone"
ALONE = (TREES_ALONE, SCIKIT, RUNTIME_ALONE)
WHOLE, MONAI = "the same model, whole arrays in memory", "the same model, MONAI's sliding window in memory"
ONE_WORKER, TWO_WORKERS = "forest by one worker of one thread", "forest by two workers of one thread"
NETWORKS = (DEFAULT, SIXTEEN, HALF, FORWARD, FORWARD_SIXTEEN)
ROWS = (NOTHING, *NETWORKS, FOREST, *ALONE, ONE_WORKER, TWO_WORKERS, WHOLE, MONAI)
FORWARD_TILES = 24
"""Of the bare forward pass."""

ASKED = 8
"""Times that a forest alone is asked about some pixels of the scene."""

FITTED_ON = 5000
"""Pixels that the forest has learned from."""


class Nothing(nn.Module):
    """Scores that are all the same, at no cost."""

    def forward(self, values: dict[str, Tensor]) -> Tensor:
        height, width = next(iter(values.values())).shape[-2:]
        return torch.zeros(1, N_CLASSES, 1, 1).expand(1, N_CLASSES, height, width)


def write_rasters(folder: Path, width: int, height: int) -> dict[str, Path]:
    """Rasters of a scene of that many pixels of 10 m."""
    generator = np.random.default_rng(0)

    def ground(bands: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        fields = np.stack([gaussian_filter(generator.normal(size=(PATTERN, PATTERN)), 12, mode="wrap") for _ in range(bands)])
        fields /= fields.std(axis=(1, 2), keepdims=True)
        return fields + 0.2 * generator.normal(size=fields.shape)

    left, top = 500_000.0, 5_800_000.0
    kinds = {
        "optical": ((ground(12) * 400 + 3000).clip(1, 10000).astype(np.uint16), "EPSG:32633", left, top, S2_BANDS, 0),
        "sar": ((ground(2) * 3 - 12).astype(np.float32), "EPSG:32632", 0.0, 0.0, ("VV", "VH"), np.nan),
        "elevation": ((ground(1) * 30 + 200).astype(np.float32), "EPSG:32633", left, top, ("elevation",), np.nan),
    }
    paths = {}
    for name, (pattern, crs, x, y, bands, nodata) in kinds.items():
        across, down = width, height
        if name == "sar":
            corners = rasterio.warp.transform_bounds("EPSG:32633", crs, left, top - 10 * height, left + 10 * width, top)
            x, y = corners[0] - 200, corners[3] + 200
            across, down = int((corners[2] - x) / 10) + 20, int((y - corners[1]) / 10) + 20
        profile = {"driver": "GTiff", "tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
        profile |= {"crs": crs, "transform": Affine(10, 0, x, 0, -10, y), "nodata": nodata, "bigtiff": "if_safer"}
        paths[name] = folder / f"{name}.tif"
        shape = {"width": across, "height": down, "count": len(bands), "dtype": pattern.dtype.name}
        with rasterio.open(paths[name], "w", **profile, **shape) as dataset:
            dataset.descriptions = bands
            for row in range(0, down, PATTERN):
                rows = min(PATTERN, down - row)
                part = np.tile(pattern[:, :rows], (1, 1, -(-across // PATTERN)))[:, :, :across]
                dataset.write(part, window=RasterioWindow(0, row, across, rows))
    return paths


def open_rasters(folder: Path) -> Scene:
    paths = {role: [str(folder / f"{role}.tif")] for role in ("optical", "sar", "elevation")}
    sensors = {"optical": "sentinel2_l2a", "sar": "sentinel1", "elevation": "dsm"}
    return build_scene(SceneRequest(paths, sensors, sentinel2_offset="no"))  # type: ignore[arg-type]


def card_of(specification: ModelSpecification) -> ModelCard:
    classes = tuple(LandCoverClass(i + 1, f"class {i}", f"#{20 * i:02x}8040", str(i)) for i in range(N_CLASSES))
    card = {"software_version": "0", "resolution_m": 10, "class_scheme": "test", "allows_missing": True}
    return ModelCard(specification=specification, classes=class_cards(ClassScheme("test", classes)), **card)


def forest_of(scene: Scene) -> tuple[EstimatorModel, RandomForestClassifier]:
    """A forest on the 15 values of a pixel, fitted on pixels of the scene, whose values tell a little of their classes."""
    specification = estimator_specification(
        specify_model(scene, "unet_early", N_CLASSES), EstimatorSpecification(kind="forest")
    )
    model = EstimatorModel(specification)
    generator = np.random.default_rng(1)
    rows = generator.permutation(pixels_of(scene, model))[:FITTED_ON]
    told = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    classes = (told[:, :N_CLASSES] + generator.normal(size=(FITTED_ON, N_CLASSES))).argmax(axis=1)
    forest = RandomForestClassifier(TREES, n_jobs=-1, random_state=0).fit(rows, classes)
    model.put(0, as_program(forest, model.n_columns), forest.classes_)
    return model.eval(), forest


def measure(row: str, folder: Path) -> dict[str, Any]:
    """Seconds and megapixels a second of one row, and the memory above the model."""
    scene = open_rasters(folder)
    specification = specify_model(scene, "unet_intermediate", N_CLASSES)
    model: nn.Module = Nothing()
    forest = None
    if row in NETWORKS:
        torch.manual_seed(0)
        specification = with_half_width(specification) if row == HALF else specification
        model = build_model(specification).eval().requires_grad_(False)
    elif row in (*ALONE, ONE_WORKER, TWO_WORKERS):
        model, forest = forest_of(scene)
        specification = model.specification
    elif row == FOREST:
        # Fitted by another process: what fitting leaves behind in memory would be mapped in.
        path = folder / "fitted.safetensors"
        subprocess.run([sys.executable, __file__, "--fit", str(folder), str(path)], check=True)
        model, card = load_model(path)
        specification = card.specification
    tile_bytes = 0 if row == NOTHING else None
    dtype = torch.bfloat16 if row in (SIXTEEN, FORWARD_SIXTEEN) else torch.float32
    engine = MappingEngine(model, card_of(specification), scene, torch.device("cpu"), tile_bytes=tile_bytes, dtype=dtype)
    window = scene.grid.window
    if isinstance(model, EstimatorModel):
        with torch.inference_mode():  # a forest is read when it is asked for the first time
            model(next(tiles_of(specification, 96)))
    # What loading has left free would be taken anew, and not be seen.
    give_back_memory()
    before = resident_bytes()
    started, began = time.perf_counter(), time.process_time()
    pixels = window.width * window.height
    if row in (FORWARD, FORWARD_SIXTEEN):
        across, down = (-(-side // engine.tiling.stride) for side in (window.width, window.height))
        # Over the tiles of this scene: those at its edges reach beyond it.
        pixels = FORWARD_TILES * window.width * window.height // (across * down)
        forward_passes(for_inference(model, dtype), engine, specification)
    elif row in ALONE:
        given = pixels_of(scene, model)
        asked = {SCIKIT: forest.predict_proba, TREES_ALONE: Program(model.graph(0), False).shares}
        ask = asked[row] if row in asked else by_runtime(model.graph(0))
        ask(given)
        started, began = time.perf_counter(), time.process_time()
        for _ in range(ASKED):
            ask(given)
        pixels = ASKED * len(given)
    elif row in (ONE_WORKER, TWO_WORKERS):
        started = map_with_workers(2 if row == TWO_WORKERS else 1, model, folder)
    elif row in (WHOLE, MONAI):
        map_in_memory(scene, model, engine.tiling, folder, row == MONAI)
    else:
        write_map(engine, scene, specification, folder)
    seconds, processor_seconds = time.perf_counter() - started, time.process_time() - began
    peak = peak_bytes()
    is_said = row in (NOTHING, DEFAULT, SIXTEEN, HALF, FOREST)
    promised = write_map(engine, scene, specification, folder, only_said=True) if is_said else None
    operations, peak_rate = None, None
    if row in NETWORKS:
        operations = operations_of_a_tile(for_inference(model), engine, specification) / engine.tiling.tile**2
        peak_rate = matrix_rate(dtype)
    return {
        "row": row,
        "width": window.width,
        "height": window.height,
        "seconds": round(seconds, 2),
        "processor_seconds": round(processor_seconds, 2),
        "megapixels_a_second": round(pixels / seconds / 1e6, 3),
        "mib": round((peak - before) / 2**20),
        "promised_mib": round(promised / 2**20) if promised else None,
        "tile": engine.tiling.tile,
        "overlap": engine.tiling.overlap,
        "operations_a_pixel": operations,
        "matrix_gflops": peak_rate,
    }


def pixels_of(scene: Scene, model: EstimatorModel) -> NDArray[np.float32]:
    """(n, columns) what a forest sees of pixels from the middle of a scene, row by row."""
    grid, side = scene.grid, 512
    with SceneReader(scene) as reader, torch.inference_mode():
        read_values = reader.read(Window((grid.width - side) // 2, (grid.height - side) // 2, side, side))
        rows, _ = model.rows({name: torch.from_numpy(values[None]) for name, values in read_values.items()})
    return np.ascontiguousarray(rows[0].flatten(1).T.numpy())


def by_runtime(graph: bytes) -> Callable[[NDArray[np.float32]], Any]:
    """A forest as ONNX's runtime has it, on all processors."""
    import onnxruntime

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return lambda rows: session.run(None, {"X": rows})


def matrix_rate(dtype: torch.dtype) -> float:
    """The best of what this machine makes of a convolution with many channels, in 1e9 operations a second."""
    side, channels = 256, 256
    values = torch.randn(1, channels, side, side).to(dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3).to(dtype)
    best = 0.0
    with torch.inference_mode():
        for _ in range(8):
            started = time.perf_counter()
            convolve(values, weight, padding=(1, 1))
            best = max(best, 2 * 9 * channels**2 * side**2 / (time.perf_counter() - started) / 1e9)
    return round(best, 1)


def forward_passes(model: nn.Module, engine: MappingEngine, specification: ModelSpecification) -> None:
    """A model on tiles in memory, as many side by side as the engine looks at."""
    tiles = list(tiles_of(specification, engine.tiling.tile))

    def look(_: None, place: slice) -> Tensor:
        with torch.inference_mode():
            answer: Tensor = model(tiles[place.start], margin=engine.margin)
        return answer

    with TileThreads(engine.tiles_at_once) as threads:
        for _ in threads.in_order(1, lambda number: (None, [slice(n, n + 1) for n in range(len(tiles))]), look):
            pass


def operations_of_a_tile(model: nn.Module, engine: MappingEngine, specification: ModelSpecification) -> int:
    """Floating-point operations of a network on one tile, of which nobody asks about the margin."""
    tile = next(tiles_of(specification, engine.tiling.tile))
    counter = operations_counter()
    with torch.no_grad(), counter:
        model(tile, margin=engine.margin)
    return int(counter.get_total_flops())


def tiles_of(specification: ModelSpecification, tile: int) -> Iterator[dict[str, Tensor]]:
    """As many tiles as take a while, of what a tile looks like."""
    values = {}
    for entry in specification.modalities:
        side = tile * entry.finer // entry.coarser
        values[entry.name] = torch.randn(1, len(entry.bands), side, side)
    for _ in range(FORWARD_TILES):
        yield values


def write_map(
    engine: MappingEngine, scene: Scene, specification: ModelSpecification, folder: Path, only_said: bool = False
) -> int:
    """Maps as the product does; returns the bytes that it says before."""
    job = MapJob(
        inputs={"optical": [str(folder / "optical.tif")]},
        model="model.safetensors",
        output=str(folder / "map.tif"),
        confidence=str(folder / "confidence.tif"),
    )
    card, window = card_of(specification), scene.grid.window
    layers, rows = layers_of(job, card), engine.strip_rows(window)
    panels = panels_of(engine, layers, window)
    said = map_bytes(engine, layers, panels, window)
    if only_said:
        return said
    with (
        StripJournal(Path(job.output), {}, {}) as journal,
        MapAssembly(layers, card.scheme, scene.grid, panels, rows, journal, {}, job.format) as assembly,
    ):
        promise = promise_of(said)
        for strip in engine.strips(panels, reuses_memory=True):
            assembly.add(strip)
            promise.keep()
        assembly.finish()
    remove_journal(Path(job.output))
    return said


def map_with_workers(count: int, model: EstimatorModel, folder: Path) -> float:
    """Maps with workers of Dask; returns when it began, once they were there."""
    import dask
    from distributed import LocalCluster

    path = folder / "forest.safetensors"
    save_model(path, model, card_of(model.specification))
    inputs = {role: [str(folder / f"{role}.tif")] for role in ("optical", "sar", "elevation")}
    with (
        dask.config.set(WORKER_SETTINGS),
        LocalCluster(n_workers=count, threads_per_worker=1, memory_limit=0, dashboard_address=None) as cluster,
    ):
        job = MapJob(
            inputs={**inputs, "sentinel2_offset": "no"},
            model=str(path),
            output=str(folder / "map.tif"),
            confidence=str(folder / "confidence.tif"),
            scheduler=cluster.scheduler_address,
        )
        started = time.perf_counter()
        run_map(job, JobContext(lambda event: None))
        seconds = time.perf_counter() - started
    return time.perf_counter() - seconds


def map_in_memory(scene: Scene, model: nn.Module, tiling: Tiling, folder: Path, with_monai: bool) -> None:
    """What most programs do: all rasters in memory on one grid, tiles blended in arrays of the whole scene, written at once."""
    with SceneReader(scene) as reader:
        values = np.concatenate(list(reader.read(scene.grid.window).values()))[None]
    height, width = scene.grid.shape

    def scores(tiles: Tensor) -> Tensor:
        return torch.softmax(model({"all": tiles}), dim=1)

    if with_monai:
        from monai.inferers import sliding_window_inference

        overlap = tiling.overlap / tiling.tile
        with torch.inference_mode():
            answer = sliding_window_inference(
                torch.from_numpy(values), (tiling.tile, tiling.tile), 1, scores, overlap=overlap, mode="gaussian"
            )
        means = answer[0].numpy()
    else:
        means = ramps_over(values, tiling.tile, tiling.overlap, scores)
    profile = {"driver": "GTiff", "width": width, "height": height, "count": 1, "dtype": "uint8", "compress": "deflate"}
    profile |= {"tiled": True, "crs": scene.grid.crs, "transform": scene.grid.transform}
    for name, band in (("map", means.argmax(axis=0) + 1), ("confidence", np.rint(100 * means.max(axis=0)))):
        with rasterio.open(folder / f"{name}.tif", "w", **profile) as dataset:
            dataset.write(band.astype(np.uint8), 1)


def ramps_over(
    values: NDArray[np.float32], tile: int, overlap: int, probabilities: Callable[[Tensor], Tensor]
) -> NDArray[np.float32]:
    """(classes, rows, columns) of (1, bands, rows, columns), tiles blended in arrays of the whole scene."""
    height, width = values.shape[2:]
    sums, totals = np.zeros((N_CLASSES, height, width), np.float32), np.zeros((height, width), np.float32)
    ramp = np.minimum(np.arange(tile) + 1, tile - np.arange(tile)).clip(max=max(1, overlap))
    weights = np.outer(ramp, ramp).astype(np.float32)
    for row in range(0, height, tile - overlap):
        for column in range(0, width, tile - overlap):
            place = slice(row, min(row + tile, height)), slice(column, min(column + tile, width))
            given = torch.from_numpy(values[:, :, place[0], place[1]])
            part = weights[: given.shape[2], : given.shape[3]]
            sums[:, place[0], place[1]] += probabilities(given)[0].numpy() * part
            totals[place] += part
    return sums / totals


def peak_bytes() -> int:
    """The most that this process ever held, of Linux; what getrusage tells begins with what its parent held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def resident_bytes() -> int:
    """Of this process now, of Linux."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "# The mapping engine",
        "",
        "Measured by `scripts/benchmarks/mapping.py`, every row a process of its own, one after the other.",
        "",
        "12 bands of Sentinel-2, 2 of radar that are warped, 1 of elevation, 10 classes, an overlap of 25 %; map and "
        "confidence written, compressed, with overviews, and read back. Memory is the peak of the process above what it held "
        "with the model. See `scripts/benchmarks/mapping.py`.",
        "",
        "| row | scene | tile, overlap | Mpx/s | seconds | of processors | MiB above the model | said before | threads |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['row']} | {row['width']} x {row['height']} | {row['tile']}, {row['overlap']} | "
            f"{row['megapixels_a_second']:.3g} | {row['seconds']:.1f} | {row['processor_seconds']:.0f} | {row['mib']} | "
            f"{row['promised_mib'] or ''} | "
            f"{row['threads']} |"
        )
    lines += ["", *_operations(rows)]
    lines += ["", *sorted({f"Measured on: {row['machine']}." for row in rows})]
    return "\n".join([*lines, ""])


def _operations(rows: list[dict[str, Any]]) -> Iterator[str]:
    """What networks do for a pixel of the map, and how much of what the machine can do that is."""
    yield "| row | scene | kFLOP a pixel of a tile | GFLOP a second, with what tiles share | best convolution | share |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        if row.get("operations_a_pixel"):
            stride = row["tile"] - row["overlap"]
            tiles = -(-row["width"] // stride) * -(-row["height"] // stride)
            pixels = tiles * row["tile"] ** 2 / (row["width"] * row["height"])
            rate = row["megapixels_a_second"] * pixels * row["operations_a_pixel"] / 1e3
            yield (
                f"| {row['row']} | {row['width']} x {row['height']} | {row['operations_a_pixel'] / 1e3:.0f} | {rate:.0f} | "
                f"{row['matrix_gflops']:.0f} | {rate / row['matrix_gflops']:.0%} |"
            )


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return f"{line.split(':')[1].strip()}, {os.cpu_count()} processors, torch {torch.__version__}"
    return platform.processor()


def answer(measure: Callable[[str, Path], dict[str, Any]], row: str, folder: str) -> None:
    """Measures a row on rasters that are there, and prints what was found; for ``measured_apart``."""
    begin()
    with raster_environment():
        print(json.dumps(measure(row, Path(folder))))


def measured_apart(script: str, row: str, folder: str) -> dict[str, Any]:
    """What a row of a script gives, in a process of its own, and on which machine."""
    command = [sys.executable, script, "--one", row, folder]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    found: dict[str, Any] = json.loads(told.splitlines()[-1])
    return found | {"machine": processor()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--sides", nargs="+", default=["4096x4096"], help="scenes, width x height")
    parser.add_argument("--anew", action="store_true", help="measure again what was measured")
    parser.add_argument("--output", type=Path, default=RESULTS / "mapping", help="path without ending")
    parser.add_argument("--one", nargs=2, metavar=("ROW", "FOLDER"), help="measure one row on rasters that are there")
    parser.add_argument("--fit", nargs=2, metavar=("FOLDER", "MODEL"), help="fit the forest and save it")
    options = parser.parse_args()
    if options.fit:
        fitted, _ = forest_of(open_rasters(Path(options.fit[0])))
        save_model(Path(options.fit[1]), fitted, card_of(fitted.specification))
        return
    if options.one:
        answer(measure, *options.one)
        return
    lines, page = options.output.with_suffix(".jsonl"), options.output.with_suffix(".md")
    for side in options.sides:
        width, height = (int(part) for part in side.split("x"))
        with tempfile.TemporaryDirectory() as name:
            write_rasters(Path(name), width, height)
            for row in options.rows:
                known = [r for r in read(lines) if (r["row"], r["width"], r["height"]) == (row, width, height)]
                if known and not options.anew:
                    continue
                found = measured_apart(__file__, row, name) | {"threads": torch.get_num_threads()}
                rest = [r for r in read(lines) if r not in known]
                lines.write_text("".join(json.dumps(r) + "\n" for r in [*rest, found]))
                print(row, side, found["megapixels_a_second"], "Mpx/s", found["mib"], "MiB", flush=True)
    page.write_text(table(read(lines)))


if __name__ == "__main__":
    main()
