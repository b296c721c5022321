"""From the job of a map to an engine that makes it; the same in every process that takes part."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pyproj.exceptions import CRSError

from core.errors import ModelFileError, UsageError
from core.jobs.devices import choose_device
from core.jobs.events import JobContext
from core.jobs.mapping.assembly import assembly_bytes
from core.jobs.mapping.layers import Layer, layers_of
from core.jobs.mapping.precision import Precision, choose_precision, has_bfloat16
from core.jobs.models.inputs import model_on_scene, model_tags, required_novelty
from core.jobs.process import MemoryPromise
from core.jobs.provenance import software, source_state
from core.jobs.schemas import MAP_LAYERS, Extent, MapJob
from core.mapping.area import PolygonMask, extent_window
from core.mapping.engine import MappingEngine
from core.models.fusion_model import FusionModel
from core.models.graphs.onnx_model import SUFFIX, load_model_or_graph
from core.models.model_file import ModelCard, class_cards
from core.scenes.grid import Bounds, Grid, Window, parsed_crs
from core.scenes.scene import Scene

RESOLUTION_TOLERANCE = 1.25
"""A scene this many times finer or coarser than the training scene is mapped with a warning."""

MAP_BYTES = 520 * 2**20
"""Wider maps are made in several parts side by side, so that they need no more memory than this above the model, where one
column of tiles needs no more."""
HELD_BYTES = 500 * 2**20
"""What a map that needs no more may hold above the model before it gives back what is free."""


@dataclass(frozen=True)
class PreparedMap:
    """All that a map is made with.

    Attributes:
        job: that asks for it.
        engine: that predicts.
        card: of the model.
        scene: that is mapped.
        window: of the map, in the scene's grid.
        layers: that are written.
        allowed: which pixels are wanted; None for all.
        allows_missing: whether it is mapped where only some of the inputs have data.
        device: that is computed on.
        precision: of the numbers that a network computes with.
    """

    job: MapJob
    engine: MappingEngine
    card: ModelCard
    scene: Scene
    window: Window
    layers: list[Layer]
    allowed: PolygonMask | None
    allows_missing: bool
    device: torch.device
    precision: Precision

    @property
    def grid(self) -> Grid:
        """Of the map."""
        return self.scene.grid.crop(self.window)

    @property
    def panels(self) -> list[Window]:
        """The parts of the map whose strips are made in turn."""
        return panels_of(self.engine, self.layers, self.window)

    @property
    def needed_bytes(self) -> int:
        """Above the model, at the peak."""
        return map_bytes(self.engine, self.layers, self.panels, self.window)

    @cached_property
    def tags(self) -> dict[str, str]:
        """Provenance; see ``core.mapping.rasters``."""
        return _tags(self.job, self.card, self.scene, self.precision)

    @property
    def shared_identity(self) -> dict[str, Any]:
        """What has to be the same in all processes that make the map, by names that the user understands."""
        return {
            "the model": self.tags["RSFUSION_MODEL_SHA256"],
            "the device": self.device.type,
            "the software": software(),
            # What computes 16 bits by itself rounds otherwise than what puts them together.
            "the precision": [self.precision, self.precision == "bfloat16" and has_bfloat16()],
        }

    @property
    def identity(self) -> dict[str, Any]:
        """What the strips of the map depend on, by names that the user understands."""
        states = {f"'{source.raster.path}'": source_state(source) for source in self.scene.sources}
        grid = self.grid
        not_asked = {"model", "output", *MAP_LAYERS, "format", "mask", "device", "workers", "scheduler", "precision"}
        return {
            **self.shared_identity,
            **states,
            # QGIS hands over a copy of its layer, which is another file each time.
            "the mask": self.allowed.digest if self.allowed else None,
            "the inputs": {entry.name: list(entry.paths) for entry in self.scene.acquisitions},
            "the extent or the resolution": [grid.crs, *grid.transform, grid.width, grid.height],
            "the settings": self.job.model_dump(mode="json", exclude=not_asked),
            "the layers": [layer.key for layer in self.layers],
        }


def prepare_map(job: MapJob, context: JobContext) -> PreparedMap:
    """Reads the model and what the rasters say of themselves.

    Raises:
        RsfusionError: the model cannot map, or not these rasters.
    """
    device = choose_device(job.device)
    is_graph = Path(job.model).suffix.lower() == SUFFIX
    if is_graph and job.device != "auto" and device.type != "cpu":
        raise UsageError(
            f"The graph '{job.model}' maps on the processor.", "Give --device cpu, or map with the model file it was made from."
        )
    if is_graph:
        device = choose_device("cpu")
    model, card = load_model_or_graph(Path(job.model))
    if not card.classes:
        raise ModelFileError(
            f"The model '{job.model}' knows no classes yet: it was trained without labels.",
            "Fine-tune it on labels first, with this model as the base model.",
        )
    if card.specification.head != "dense":
        raise ModelFileError(
            f"The model '{job.model}' has a head of the kind '{card.specification.head}', which says no class of a pixel.",
            "Give a model that was fine-tuned on labels.",
        )
    allows_missing = card.allows_missing and job.missing_inputs == "allow"
    scene, model, card = model_on_scene(model, card, job.inputs, context, allows_missing)
    _check_resolution(scene, card, context)
    window = scene.grid.window if job.extent is None else window_of(job.extent, scene.grid)
    allowed = PolygonMask(Path(job.mask), scene.grid) if job.mask else None
    novelty = None
    if job.novelty and is_graph:
        raise UsageError(
            f"The graph '{job.model}' does not say what the model has seen.", "Map with the model file, or without novelty."
        )
    if job.novelty:
        novelty = required_novelty(job.model, card, "Train it again, or map without the layer of novelty.").to(device)
    has_contributions = _asks_each_input(job, card)
    model = model.to(device)

    if job.precision == "bfloat16" and device.type != "cpu":
        raise UsageError("Numbers of 16 bits are for the processor.", "Give --device cpu, or leave the precision to 'auto'.")

    def make(precision: Precision, is_trial: bool = False) -> MappingEngine:
        return MappingEngine(
            model,
            card,
            scene,
            device,
            job.overlap,
            allows_missing,
            novelty=None if is_trial else novelty,
            has_contributions=has_contributions and not is_trial,
            dtype=getattr(torch, precision),
        )

    precision: Precision = "float32"
    if isinstance(model, FusionModel):
        precision = choose_precision(model, scene, device, make, context) if job.precision == "auto" else job.precision
    engine = make(precision)
    return PreparedMap(job, engine, card, scene, window, layers_of(job, card), allowed, allows_missing, device, precision)


def panels_of(engine: MappingEngine, layers: list[Layer], window: Window) -> list[Window]:
    """The parts of a map whose strips are made in turn."""
    return engine.panels(window, MAP_BYTES - assembly_bytes(layers, window.width, engine.tiling.stride))


def map_bytes(engine: MappingEngine, layers: list[Layer], panels: list[Window], window: Window) -> int:
    """Bytes above the model that a map takes at the peak."""
    return engine.memory_bytes(panels) + assembly_bytes(layers, window.width, engine.tiling.stride)


def promise_of(needed_bytes: int) -> MemoryPromise:
    """Keeps the process close to what a map was said to need above the model; to be made before the map is begun."""
    return MemoryPromise(min(HELD_BYTES, needed_bytes))


def _asks_each_input(job: MapJob, card: ModelCard) -> bool:
    """Whether what each input contributes is asked for.

    Raises:
        UsageError: the model cannot do without any of its inputs.
    """
    if not job.contributions:
        return False
    if len(card.specification.modalities) < 2:
        raise UsageError(
            f"The model '{job.model}' has one input, which contributes everything.", "Map without the layer of contributions."
        )
    if not card.allows_missing:
        raise UsageError(
            f"The model '{job.model}' has not learned to map without some of its inputs, so what each contributes is unknown.",
            "Train it with missing inputs allowed, or map without the layer of contributions.",
        )
    return True


def window_of(extent: Extent, grid: Grid) -> Window:
    """The part of a grid that an extent asks for.

    Raises:
        UsageError: its coordinate reference system is none.
    """
    try:
        parsed_crs(extent.crs)
    except CRSError:
        raise UsageError(
            f"extent.crs: '{extent.crs}' is no coordinate reference system.", "Write it as EPSG:code or as WKT."
        ) from None
    return extent_window(grid, Bounds(extent.left, extent.bottom, extent.right, extent.top), extent.crs)


def _tags(job: MapJob, card: ModelCard, scene: Scene, precision: Precision) -> dict[str, str]:
    settings = job.model_dump(include={"overlap", "format", "extent", "missing_inputs"}) | {"resolution": job.inputs.resolution}
    settings["precision"] = precision
    settings["mask"] = Path(job.mask).name if job.mask else None
    classes = json.dumps([entry.model_dump() for entry in class_cards(card.scheme)])
    return {**model_tags(job.model, scene, settings), "RSFUSION_CLASSES": classes}


def _check_resolution(scene: Scene, card: ModelCard, context: JobContext) -> None:
    ratio = scene.grid.resolution_m() / card.resolution_m
    if not 1 / RESOLUTION_TOLERANCE < ratio < RESOLUTION_TOLERANCE:
        context.warning(
            f"The map's pixels are {scene.grid.resolution_m():.3g} m and the model was trained at "
            f"{card.resolution_m:.3g} m: what it learned of shapes and texture may not hold. Set the resolution to "
            f"{card.resolution_m:.3g} m to map as it was trained."
        )
