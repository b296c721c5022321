"""The job that says where to label next."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import torch
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import shapes as outlines
from scipy.linalg import solve_triangular

from core.assessment.suggestions import Units, candidates, choose_places, doubt, joined, reason
from core.errors import ModelFileError, NothingInsideError, RasterError
from core.jobs.devices import choose_device, describe_device
from core.jobs.events import JobContext
from core.jobs.inputs import raster_paths
from core.jobs.mapping.preparation import window_of
from core.jobs.models.inputs import model_on_scene, required_novelty
from core.jobs.outputs import Staging, check_outputs
from core.jobs.provenance import creation_time, software
from core.jobs.schemas import SuggestLabelsJob
from core.jobs.vector_files import LayerWriter
from core.labels.pixel_shapes import PixelShapes, pixel_shapes
from core.labels.reading import read_shapes
from core.labels.superpixels import superpixels, visible_bands
from core.mapping.engine import MappingEngine
from core.mapping.polygons import on_the_ground
from core.models.model_file import ModelCard, load_model
from core.models.novelty import Novelty
from core.scenes.grid import Grid, Window
from core.scenes.reading import SceneReader
from core.scenes.scene import Scene

PANEL = 512
"""Side in pixels of the pieces of the scene that are cut into units one after the other: memory holds one."""

FIELDS = ("rank", "class", "reason", "likely", "probability", "doubt", "novelty", "area_ha")
"""The class is left empty, for whoever looks at the place."""


def run_suggest_labels(job: SuggestLabelsJob, context: JobContext) -> dict[str, Any]:
    """Runs the job; see ``core.jobs.runner``."""
    inputs = [*raster_paths(job.inputs), job.model, *([job.existing_labels] if job.existing_labels else [])]
    check_outputs(job, inputs)
    device = choose_device(job.device)
    context.info(f"Device: {describe_device(device)}.")
    context.progress(0.0, "Reading the model and the rasters")
    model, card = load_model(Path(job.model))
    if not card.classes or card.specification.head != "dense":
        raise ModelFileError(f"The model '{job.model}' says no class of a pixel.", "Give a model of 'Fine-tune on labels'.")
    scene, model, card = model_on_scene(model, card, job.inputs, context, card.allows_missing)
    novelty = required_novelty(job.model, card, "Train it again.")
    known = job.existing_labels
    labels = None
    if known:
        try:
            labels = pixel_shapes(read_shapes(known, None, scene.grid), scene.grid)
        except NothingInsideError as error:
            # As with a model that was trained elsewhere: there is nothing to keep away from.
            context.warning(f"{error.message} All places of the scene may be suggested.")
    engine = MappingEngine(
        model.to(device), card, scene, device, allows_missing=card.allows_missing, novelty=novelty.to(device)
    )
    window = scene.grid.window if job.extent is None else window_of(job.extent, scene.grid)
    units = _best_units(job, engine, scene, novelty, window, labels, context)
    chosen = units.some(choose_places(units, job.count, job.seed))
    if len(chosen) < job.count:
        context.warning(f"Only {len(chosen)} places lie apart from each other and from the labels; {job.count} were asked for.")
    context.progress(0.95, "Writing the places")
    _write(job, chosen, card, scene.grid, context)
    context.progress(1.0, "Done")
    for rank, (probabilities, distance) in enumerate(zip(chosen.probabilities, chosen.novelty, strict=True), 1):
        context.info(f"{rank}: {reason(probabilities, float(distance), card.scheme.names)}.")
    return {"OUTPUT": job.output, "N_PLACES": len(chosen), "DEVICE_USED": describe_device(device)}


def _best_units(
    job: SuggestLabelsJob,
    engine: MappingEngine,
    scene: Scene,
    novelty: Novelty,
    window: Window,
    labels: PixelShapes | None,
    context: JobContext,
) -> Units:
    """The most doubtful units of a window, some more than are wanted.

    Raises:
        RasterError: there is none.
    """
    best: Units | None = None
    panels = list(window.pieces(PANEL))
    with SceneReader(scene) as reader:
        for number, panel in enumerate(panels):
            context.progress(0.05 + 0.9 * number / len(panels), "Looking for places")
            found = _units_of(job, engine, scene, novelty, reader, panel, labels)
            if found is None:
                continue
            best = found if best is None else joined([best, found])
            best = best.some(candidates(best, job.count))
    if best is None:
        raise RasterError(
            "No place was found: nothing can be mapped there, or labels lie everywhere.",
            "Check that the rasters and the extent overlap, or choose smaller units.",
        )
    return best


def _units_of(
    job: SuggestLabelsJob,
    engine: MappingEngine,
    scene: Scene,
    novelty: Novelty,
    reader: SceneReader,
    panel: Window,
    labels: PixelShapes | None,
) -> Units | None:
    """The units of a panel that hold no label; None where there is none."""
    strips = list(engine.strips(panel))
    mapped = np.concatenate([strip.mapped for strip in strips])
    if not mapped.any():
        return None
    values = reader.read(panel)
    device = novelty.means.device
    with torch.inference_mode():
        rows = novelty.pixels({name: torch.from_numpy(each)[None].to(device) for name, each in values.items()})[0][0]
    seen = rows.cpu().numpy()
    ids = superpixels(np.where(mapped, _picture(scene, novelty, seen), np.nan), "slic", pixels=job.unit_pixels)
    ids[~mapped] = 0
    sizes = np.bincount(ids.ravel())
    # Slivers at the panel's edge are no places to draw a polygon.
    usable = sizes >= job.unit_pixels / 4
    usable[0] = False
    if labels is not None:
        usable[np.unique(ids[labels.covered(panel)])] = False
    numbers = np.flatnonzero(usable)
    if not len(numbers):
        return None

    def means(layers: NDArray[np.float32]) -> NDArray[np.float64]:
        """(units, layers) over the pixels of each unit."""
        totals = [np.bincount(ids.ravel(), layer.ravel().astype(np.float64), len(sizes)) for layer in layers]
        return np.stack(totals, axis=1)[numbers] / sizes[numbers, None]

    probabilities = means(np.concatenate([strip.probabilities for strip in strips], axis=1))
    distances = means(np.concatenate([strip.novelty for strip in strips], axis=1))[:, 0]
    # In deviations of the labelled ground: what varies within a class tells no units apart.
    root = np.linalg.cholesky(novelty.covariance.double().cpu().numpy())
    features = solve_triangular(root, means(seen).T, lower=True).T
    drawn, centres, areas = _drawn(ids, usable, numbers, panel, scene.grid)
    return Units(drawn, centres, 2 * np.sqrt(areas / math.pi), probabilities, distances, features)


def _picture(scene: Scene, novelty: Novelty, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """(bands, rows, columns) of the main raster on the reference grid, that units are cut from: its visible bands if it has
    such.

    Args:
        scene: of the panel.
        novelty: whose columns are those of ``rows``.
        rows: (columns, rows, columns) of the panel.
    """
    main = scene.acquisitions[0]
    part = novelty.pixels.columns()[main.name]
    own = rows[part]
    if len(own) < len(main.bands):
        # Mixtures of many bands: the first hold the most.
        return own[:3]
    # Channels are in alphabetical order.
    return own[visible_bands([main.sensor.band(name).center_nm for name in sorted(main.bands)])]


def _drawn(
    ids: NDArray[np.int32], usable: NDArray[np.bool_], numbers: NDArray[np.int64], panel: Window, grid: Grid
) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64]]:
    """Polygons of units on the ground, their centres and areas in the grid's units."""
    place = Affine.translation(panel.column, panel.row)
    largest: dict[int, Any] = {}
    for shape, value in outlines(ids, mask=usable[ids], connectivity=4, transform=place):
        polygon = shapely.geometry.shape(shape)
        if int(value) not in largest or polygon.area > largest[int(value)].area:
            largest[int(value)] = polygon
    drawn = on_the_ground(np.array([largest[int(number)] for number in numbers], dtype=object), grid)
    centres = shapely.get_coordinates(shapely.point_on_surface(drawn))
    return drawn, centres, shapely.area(drawn)


def _write(job: SuggestLabelsJob, chosen: Units, card: ModelCard, grid: Grid, context: JobContext) -> None:
    names = card.scheme.names
    areas = grid.row_pixel_areas_m2()
    rows = ((grid.top - chosen.centres[:, 1]) / grid.pixel_height).astype(int).clip(0, grid.height - 1)
    hectares = shapely.area(chosen.shapes) / (grid.pixel_width * grid.pixel_height) * areas[rows] / 10_000
    reasons = [reason(p, float(n), names) for p, n in zip(chosen.probabilities, chosen.novelty, strict=True)]
    columns = [
        np.arange(1, len(chosen) + 1, dtype=np.int32),
        np.array([""] * len(chosen), dtype=object),
        np.array(reasons, dtype=object),
        np.array([names[index] for index in chosen.probabilities.argmax(axis=1)], dtype=object),
        np.round(100 * chosen.probabilities.max(axis=1), 1),
        np.round(100 * doubt(chosen), 1),
        np.round(chosen.novelty, 2),
        np.round(hectares, 4),
    ]
    output = Path(job.output)
    tags = {"model": Path(job.model).name, "seed": str(job.seed), "created": creation_time(), **software()}
    with Staging() as staging:
        with staging.writing(output) as temporary:
            writer = LayerWriter(temporary, output.stem, grid.crs, "Polygon", tags)
            writer.write(chosen.shapes, FIELDS, columns)
        context.commit()
        staging.put_in_place()
