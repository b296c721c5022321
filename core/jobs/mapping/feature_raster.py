"""The job that writes what a model knows of each pixel: all of its features, or their principal components."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import ModelFileError, RasterError, UsageError
from core.jobs.devices import choose_device, describe_device
from core.jobs.events import JobContext
from core.jobs.inputs import raster_paths
from core.jobs.mapping.pace import Pace
from core.jobs.mapping.preparation import MAP_BYTES, promise_of, window_of
from core.jobs.models.inputs import model_on_scene, model_tags
from core.jobs.outputs import check_outputs
from core.jobs.process import MemoryPromise
from core.jobs.schemas import FeaturesJob
from core.mapping.engine import MappingEngine
from core.mapping.rasters import StripWriter, check_space, file_bytes, gathered_bytes
from core.models.feature_model import FeatureModel
from core.models.fusion_model import FusionModel
from core.models.heads import SceneHead
from core.models.model_file import load_model
from core.scenes.grid import Window
from core.scenes.scene import Scene

SAMPLE_SQUARES = 3
"""Along each side of the scene, whose pixels the principal components are of."""

SAMPLE_PIXELS = 20000

PICTURE_DEVIATIONS = 2.0
"""A picture's components are stretched over so many standard deviations to each side."""


def run_features(job: FeaturesJob, context: JobContext) -> dict[str, Any]:
    """Runs the job; see ``core.jobs.runner``."""
    check_outputs(job, [*raster_paths(job.inputs), job.model])
    device = choose_device(job.device)
    context.info(f"Device: {describe_device(device)}.")
    context.progress(0.0, "Reading the model and the rasters")
    loaded, card = load_model(Path(job.model))
    scene, loaded, card = model_on_scene(loaded, card, job.inputs, context, card.allows_missing)
    if not isinstance(loaded, FusionModel) or isinstance(loaded.head, SceneHead):
        raise ModelFileError(f"The model '{job.model}' is one of whole scenes.", "Give a model of pixels.")
    model = FeatureModel(loaded, card.has_trained_decoder).to(device).eval()
    if job.picture and job.components not in (0, 3):
        raise UsageError(
            f"A picture shows three components, and {job.components} were asked for.", "Ask for components or for a picture."
        )
    count = 3 if job.picture else job.components or model.n_features
    if count > model.n_features:
        raise UsageError(f"components: the model has {model.n_features} features, not {count}.", "Ask for fewer components.")
    window = scene.grid.window if job.extent is None else window_of(job.extent, scene.grid)
    engine = MappingEngine(model, card, scene, device, job.overlap, n_features=model.n_features, whole_rows=True)
    panels = engine.panels(window, MAP_BYTES)
    kind = "uint8" if job.picture else "float32"
    pixel_bytes = count * np.dtype(kind).itemsize
    in_memory, on_disk = gathered_bytes(scene.grid.crop(window), pixel_bytes, engine.tiling.tile)
    # Of a part of a strip there are the values, and what is written of them.
    part = engine.tiling.stride * max(panel.width for panel in panels) * 4 * (2 * count + model.n_features)
    needed = engine.memory_bytes(panels) + in_memory + part
    context.info(
        f"{model.n_features} features of {'the decoder' if model.uses_decoder else 'all levels'}; needs about "
        f"{needed / 2**20:.0f} MiB above the model."
    )
    check_space(Path(job.output), int(file_bytes(window.width * window.height, pixel_bytes, kind, job.format)) + on_disk)
    promise = promise_of(needed)
    components = None
    if job.components or job.picture:
        context.progress(0.02, "Looking for the principal components")
        components = _components(engine, window, count)
        context.info(f"The components hold {components.share:.0%} of the features' variance.")
    _write(job, engine, window, panels, components, count, scene, promise, context)
    context.progress(1.0, "Done")
    return {"OUTPUT": job.output, "N_FEATURES": model.n_features, "DEVICE_USED": describe_device(device)}


def _write(
    job: FeaturesJob,
    engine: MappingEngine,
    window: Window,
    panels: list[Window],
    components: _Components | None,
    count: int,
    scene: Scene,
    promise: MemoryPromise,
    context: JobContext,
) -> None:
    """Writes the raster strip by strip."""
    kind, nodata = ("uint8", 0.0) if job.picture else ("float32", float("nan"))
    grid = scene.grid.crop(window)
    pace, mapped = Pace(window.width * window.height, engine.device), 0
    settings = job.model_dump(include={"components", "picture", "extent", "overlap", "format"})
    names = tuple(f"{'component' if components else 'feature'} {number + 1}" for number in range(count))
    keywords: dict[str, Any] = {
        "tags": model_tags(job.model, scene, settings),
        "file_format": job.format,
        "descriptions": names,
    }
    with StripWriter(Path(job.output), grid, count, kind, nodata, **keywords) as writer:
        for strip in engine.strips(panels, reuses_memory=True):
            values = strip.probabilities if components is None else components.of(strip.probabilities)
            filled = _picture(values, strip.mapped) if job.picture else np.where(strip.mapped, values, np.nan)
            writer.write_part(filled.astype(kind), strip.window.row - window.row, strip.window.column - window.column)
            mapped += int(strip.mapped.sum())
            promise.keep()
            context.progress(0.05 + 0.9 * pace.done(strip.window), pace.text("Writing"))
        if not mapped:
            raise RasterError("Nothing was written: no pixel asked for has data.", "Check nodata values and the extent.")
        writer.finish()
        context.commit()


class _Components:
    """Principal components of a sample of pixels, standardised by their own spread."""

    def __init__(self, sample: NDArray[np.float32], count: int) -> None:
        self.mean = sample.mean(axis=0)
        # Features of small spread tell as much as those of large: each counts alike.
        self.scale = np.maximum(sample.std(axis=0), 1e-6)
        _, values, vectors = np.linalg.svd((sample - self.mean) / self.scale, full_matrices=False)
        # The sign of a component is free: the largest weight is positive, on every machine.
        rows = vectors[:count]
        signs = np.sign(rows[np.arange(len(rows)), np.abs(rows).argmax(axis=1)])
        spread = np.maximum(values[:count] / np.sqrt(max(1, len(sample) - 1)), 1e-6)
        # In the numbers of the features, of which there is a copy otherwise in twice as many bytes.
        self.matrix = np.asarray((rows * signs[:, None]) / spread[:, None], np.float32)
        self.share = float((values[:count] ** 2).sum() / max(1e-12, (values**2).sum()))

    def of(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(count, rows, columns) from (features, rows, columns)."""
        flat = features.reshape(len(features), -1).T - self.mean
        flat /= self.scale
        result = flat @ self.matrix.T
        return np.asarray(result.T.reshape(-1, *features.shape[1:]), np.float32)


def _components(engine: MappingEngine, window: Window, count: int) -> _Components:
    """Of pixels on squares of a tile that lie evenly over the window; of all of it where these would cover it anyhow."""
    side = engine.tiling.tile
    parts = [window]
    if window.width * window.height > SAMPLE_SQUARES**2 * side**2:
        own = min(side, window.width), min(side, window.height)
        columns = np.linspace(0, window.width - own[0], SAMPLE_SQUARES).astype(int)
        rows = np.linspace(0, window.height - own[1], SAMPLE_SQUARES).astype(int)
        corners = [(int(column), int(row)) for row in np.unique(rows) for column in np.unique(columns)]
        parts = [Window(window.column + column, window.row + row, *own) for column, row in corners]
    pixels = _sampled(engine, parts)
    if len(pixels) <= count and parts != [window]:
        # What lies evenly over the window has missed its data.
        pixels = _sampled(engine, [window])
    if len(pixels) <= count:
        raise RasterError(
            f"{len(pixels)} pixels have data, too few for {count} principal components.", "Check nodata values and the extent."
        )
    return _Components(pixels, count)


def _sampled(engine: MappingEngine, parts: list[Window]) -> NDArray[np.float32]:
    """(n, features) of some of the pixels with data, evenly over parts of the scene."""
    step = max(1, sum(part.width * part.height for part in parts) // SAMPLE_PIXELS)
    sample = []
    for part in parts:
        for strip in engine.strips(engine.panels(part, MAP_BYTES), reuses_memory=True):
            known = strip.probabilities[:, strip.mapped]
            # A strip with few pixels gives them all.
            sample.append(known[:, :: step if known.shape[1] > step else 1].T)
    return np.concatenate(sample)


def _picture(values: NDArray[np.float32], mapped: NDArray[np.bool_]) -> NDArray[np.float32]:
    """1 to 255 over some standard deviations; 0 = nodata."""
    stretched = np.clip(values / (2 * PICTURE_DEVIATIONS) + 0.5, 0, 1) * 254 + 1
    return np.where(mapped, np.rint(stretched), 0)
