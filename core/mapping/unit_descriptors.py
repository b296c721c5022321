"""What the polygons of a scene look like: read block by block, each pixel once, whatever the number of polygons.

Memory depends on a block, on the polygons that reach beyond it, and on the number of polygons times that of columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import shapely
import torch
from numpy.typing import NDArray

import core
from core.labels.pixel_shapes import PixelShapes, pixel_shapes
from core.labels.scene_labels import Units
from core.mapping.engine import MappingEngine
from core.models.estimator_model import base_specification
from core.models.model_file import ModelCard
from core.models.scene_descriptors import Description, Moments
from core.models.scene_model import SceneModel
from core.scenes.grid import Window, aligned
from core.scenes.reading import SceneReader, usable_pixels
from core.scenes.scene import Scene

BLOCK = 512
FINEST_BLOCK = 4096
"""Sides of what is read at once: in pixels of the map, and in those of the finest raster."""

_ROW_STRIDE = 7919
"""A prime: pixels counted along rows so far apart are thinned evenly in columns, too."""


@dataclass(frozen=True, eq=False)
class UnitDescriptors:
    """What is known of the units of a scene.

    Attributes:
        rows: (N, columns) float64 as ``SceneModel`` takes them, NaN = missing.
        pixels: (N,) int64 of each unit that have data.
        valid_share: (N,) float64 part of a unit's area that has data in any raster that shows the ground.
    """

    rows: NDArray[np.float64]
    pixels: NDArray[np.int64]
    valid_share: NDArray[np.float64]


def describe_units(
    model: SceneModel,
    scene: Scene,
    units: Units,
    device: torch.device,
    progress: Callable[[float, str], None],
    allows_missing: bool = True,
) -> UnitDescriptors:
    """Describes units as a model wants it, those without data by NaN.

    Args:
        model: whose channels and base model are used, not its estimators; on the CPU.
        scene: with the model's inputs; some may be missing altogether.
        units: in the system of the scene's grid.
        device: for the base model.
        progress: told of the part done; raises to cancel.
        allows_missing: whether the base model knows what to do where some inputs have no data.

    Raises:
        RasterError: a raster cannot be read.
    """
    shapes = pixel_shapes(units, scene.grid)
    areas = shapely.area(units.geometries) / (scene.grid.pixel_width * scene.grid.pixel_height)
    share = 0.5 if model.base is not None else 1.0
    found = _Gathered(model, areas)
    with SceneReader(scene) as reader:
        blocks = _blocks(model, scene, shapes)
        for number, block in enumerate(blocks):
            _add_block(found, model, reader, shapes, block)
            progress(share * (number + 1) / len(blocks), "Describing polygons")
    rows = found.rows
    if model.base is not None:
        rows[:, model.base_part] = _base_moments(
            model, scene, units, device, lambda part: progress(0.5 + 0.5 * part, "Features of polygons"), allows_missing
        )
    return UnitDescriptors(rows, found.pixels, np.minimum(found.pixels / np.maximum(areas, 1.0), 1.0))


class _Gathered:
    """Descriptions of the units that have begun, and rows of those that are done."""

    def __init__(self, model: SceneModel, areas: NDArray[np.float64]) -> None:
        self._layout = model.layout
        self._areas = areas
        self._open: dict[int, dict[str, Description]] = {}
        self.rows = np.full((len(areas), model.layout.n_columns), np.nan)
        self.pixels = np.zeros(len(areas), np.int64)

    def add(self, unit: int, name: str, pixels: NDArray[np.float32], numbers: NDArray[np.int64]) -> None:
        """Counts known pixels of an input for a unit; see ``Description.add``."""
        described = self._open.setdefault(unit, {})
        if name not in described:
            described[name] = Description(len(pixels), self._areas[unit])
        described[name].add(pixels, numbers)

    def finish(self, unit: int) -> None:
        """Writes the row of a unit whose last block is done."""
        for name, description in self._open.pop(unit, {}).items():
            self.rows[unit, self._layout.parts[self._layout.names.index(name)]] = description.result()


def _blocks(model: SceneModel, scene: Scene, shapes: PixelShapes) -> list[Window]:
    """Blocks of the scene with units in them, row by row."""
    finest = max((acquisition.scale.finer for acquisition in scene.acquisitions), default=1)
    side = min(BLOCK, max(64, FINEST_BLOCK // finest))
    return [window for window in scene.grid.window.pieces(side) if len(shapes.touching(window))]


def _add_block(found: _Gathered, model: SceneModel, reader: SceneReader, shapes: PixelShapes, block: Window) -> None:
    scene = reader.scene
    around = aligned(scene.grid, block.padded(model.reach), scene.step)
    values = reader.read(around)
    inner = block.slices_within(around)
    usable = usable_pixels(values, scene.acquisitions, allows_missing=True)[inner]
    with torch.inference_mode():
        channels = model.pixel_channels({name: torch.from_numpy(each[None]) for name, each in values.items()})
    channels = {name: (each[:, *inner], known[inner]) for name, (each, known) in channels.items()}
    for unit in shapes.touching(block).tolist():
        part, mask = shapes.mask(unit, block)
        rows, columns = part.slices_within(block)
        found.pixels[unit] += int((mask & usable[rows, columns]).sum())
        for name, (each, known) in channels.items():
            inside = mask & known[rows, columns]
            if inside.any():
                numbers = _numbers(scene, part)[inside]
                found.add(unit, name, each[:, rows, columns][:, inside], numbers)
        first_column, first_row, stop_column, stop_row = shapes.boxes[unit].tolist()
        box = Window(first_column, first_row, stop_column - first_column, stop_row - first_row)
        end = box.intersection(scene.grid.window)
        if end.stop_row <= block.stop_row and end.stop_column <= block.stop_column:
            found.finish(unit)


def _numbers(scene: Scene, window: Window) -> NDArray[np.int64]:
    """(rows, columns) a number of each pixel that does not depend on the window nor on the crop of the scene."""
    anchor = scene.grid.anchor()
    rows = np.arange(window.row, window.stop_row, dtype=np.int64) + anchor[1]
    columns = np.arange(window.column, window.stop_column, dtype=np.int64) + anchor[0]
    return np.asarray(rows[:, None] * _ROW_STRIDE + columns)


def _base_moments(
    model: SceneModel,
    scene: Scene,
    units: Units,
    device: torch.device,
    progress: Callable[[float], None],
    allows_missing: bool,
) -> NDArray[np.float64]:
    """(N, 2 * features) mean and standard deviation of the base model's features in each unit, NaN where it has none."""
    features = model.features()
    card = ModelCard(
        software_version=core.__version__,
        specification=base_specification(model.specification),
        resolution_m=scene.grid.resolution_m(),
        class_scheme="",
        classes=(),
        allows_missing=allows_missing,
    )
    engine = MappingEngine(features.to(device).eval(), card, scene, device, n_features=features.n_features)
    shapes = pixel_shapes(units, scene.grid)
    moments = [Moments(features.n_features) for _ in range(len(units))]
    window = _around(shapes, scene)
    for strip in engine.strips(window):
        for unit in shapes.touching(strip.window).tolist():
            part, mask = shapes.mask(unit, strip.window)
            rows, columns = part.slices_within(strip.window)
            inside = mask & strip.mapped[rows, columns]
            moments[unit].add(strip.probabilities[:, rows, columns][:, inside])
        progress((strip.window.stop_row - window.row) / window.height)
    features.to("cpu")
    return np.array([np.concatenate(each.result()) for each in moments])


def _around(shapes: PixelShapes, scene: Scene) -> Window:
    """The part of the scene with units in it."""
    low, high = shapes.boxes[:, :2].min(axis=0), shapes.boxes[:, 2:].max(axis=0)
    window = Window(int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1]))
    return window.intersection(scene.grid.window)
