"""The job that draws polygons where spectral indices are sure of a class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import shapes as outlines
from scipy.ndimage import binary_opening, uniform_filter
from skimage.measure import label as connected

from core.errors import RasterError
from core.folders import write_text
from core.jobs.events import JobContext
from core.jobs.inputs import raster_paths, scene_of
from core.jobs.mapping.preparation import window_of
from core.jobs.outputs import Staging, check_outputs
from core.jobs.provenance import creation_time, input_names, software
from core.jobs.schemas import PseudolabelsJob
from core.jobs.vector_files import LayerWriter
from core.labels.polygon_style import categorised_style
from core.labels.pseudo_labels import (
    INDICES,
    SCHEME,
    IndexName,
    IndexSources,
    Layers,
    Rule,
    compute_indices,
    index_sources,
    label_by_rules,
)
from core.labels.schemes import listed
from core.mapping.polygons import on_the_ground
from core.scenes.categorical import style_path
from core.scenes.grid import Grid, Window
from core.scenes.reading import SceneReader
from core.scenes.scene import Scene

PANEL = 512
"""Side in pixels of the pieces of the scene that are searched one after the other: memory holds one."""

CELL = 16
"""Polygons end at the lines of a lattice of so many pixels: a lake is not one label, and people draw about as large."""

MOST_SAMPLED_PANELS = 64
MOST_SAMPLED = 2**21
"""Pixels that percentiles are taken of, evenly over the scene."""

SMOOTHED = 3
"""Side in pixels of the mean over backscatter: speckle alone makes single pixels dark and bright."""

KEPT = 50
"""Times the polygons wanted of a class that are kept while the scene is searched."""

CLASS_FIELD = "code"
FIELDS = ("class", CLASS_FIELD, "rule", "pixels", "area_ha", *INDICES)
NOT_TRUTH = "These polygons follow rules, not truth: look at each, correct it, and delete what is wrong before you train."

Percentiles = dict[tuple[IndexName, float], float]


def run_pseudolabels(job: PseudolabelsJob, context: JobContext) -> dict[str, Any]:
    """Runs the job; see ``core.jobs.runner``."""
    check_outputs(job, raster_paths(job.inputs))
    context.progress(0.0, "Reading the rasters")
    scene = scene_of(job.inputs, context)
    sources = index_sources(scene)
    rules = sources.rules()
    told = [SCHEME.names[rule.number] for rule in rules]
    context.info(f"Indices: {', '.join(name.upper() for name in sources.indices)}. Classes with a rule: {listed(told)}.")
    window = scene.grid.window if job.extent is None else window_of(job.extent, scene.grid)
    with SceneReader(scene) as reader:
        search = _Search(scene, sources, reader, rules)
        percentiles = search.percentiles(window, context)
        for rule in rules:
            text = ", ".join(bound.text(bound.limit(percentiles)) for bound in rule.bounds)
            context.info(f"{SCHEME.names[rule.number]}: {text}.")
        pools = search.places(window, percentiles, job, context)
    chosen = [pools[rule.number].chosen(job.count) for rule in rules]
    for rule, places in zip(rules, chosen, strict=True):
        if not places:
            context.warning(f"No place is surely '{SCHEME.names[rule.number]}'.")
    count = sum(map(len, chosen))
    if not count:
        raise RasterError(
            "No rule found a place with enough pixels.",
            "Check that the rasters overlap and are reflectance and backscatter, or ask for fewer pixels of a polygon.",
        )
    context.progress(0.95, "Writing the polygons")
    _write(job, scene, rules, percentiles, chosen, context)
    context.progress(1.0, "Done")
    for warning in (*sources.warnings, NOT_TRUTH):
        context.warning(warning)
    for rule, places in zip(rules, chosen, strict=True):
        context.info(f"{SCHEME.names[rule.number]}: {len(places)} polygons, {sum(place.pixels for place in places)} pixels.")
    return {"OUTPUT": job.output, "N_POLYGONS": count}


@dataclass(frozen=True, eq=False)
class _Place:
    """A polygon of one class.

    Attributes:
        shape: in pixels of the scene.
        centre: (2,) column and row.
        pixels: in it.
        means: of the indices, in the order of ``INDICES``; NaN where there is none.
    """

    shape: Any
    centre: NDArray[np.float64]
    pixels: int
    means: tuple[float, ...]


@dataclass(eq=False)
class _Pool:
    """Places of a class, every so-manieth of all that were offered: however large the scene, evenly over it.

    Attributes:
        most: places that are kept.
    """

    most: int
    _kept: list[_Place] = field(default_factory=list)
    _stride: int = 1
    _offered: int = 0

    def offer(self, place: _Place) -> None:
        if self._offered % self._stride == 0:
            self._kept.append(place)
            if len(self._kept) > self.most:
                self._kept, self._stride = self._kept[::2], 2 * self._stride
        self._offered += 1

    def chosen(self, count: int) -> list[_Place]:
        """At most so many, from the largest on each far from those before it; of two as far the larger."""
        if not self._kept:
            return []
        centres = np.stack([place.centre for place in self._kept])
        sides = np.sqrt([place.pixels for place in self._kept])
        taken = [int(sides.argmax())]
        distance = np.full(len(centres), np.inf)
        while len(taken) < min(count, len(centres)):
            distance = np.minimum(distance, np.linalg.norm(centres - centres[taken[-1]], axis=1))
            taken.append(int((distance * sides).argmax()))
        return [self._kept[number] for number in sorted(taken)]


class _Search:
    """The indices of a scene, window by window.

    Args:
        scene: to search.
        sources: of the indices.
        reader: of the scene.
        rules: to follow.
    """

    def __init__(self, scene: Scene, sources: IndexSources, reader: SceneReader, rules: tuple[Rule, ...]) -> None:
        self._grid = scene.grid
        self._sources = sources
        self._reader = reader
        self._rules = rules

    def percentiles(self, window: Window, context: JobContext) -> Percentiles:
        """Of the indices over a window, from pieces that lie evenly over it."""
        panels = list(window.pieces(PANEL))
        numbers = np.linspace(0, len(panels) - 1, min(len(panels), MOST_SAMPLED_PANELS)).round().astype(int)
        stride = max(1, int(np.ceil(len(numbers) * PANEL**2 / MOST_SAMPLED)))
        found: dict[IndexName, list[NDArray[np.float32]]] = {name: [] for name in self._sources.indices}
        for done, number in enumerate(numbers.tolist()):
            context.progress(0.02 + 0.38 * done / len(numbers), "Looking at the whole scene")
            for name, values in self._layers(panels[number]).items():
                found[name].append(values[np.isfinite(values)][::stride])
        limits: Percentiles = {}
        for bound in (bound for rule in self._rules for bound in rule.bounds if bound.percentile is not None):
            values = np.concatenate(found[bound.index])
            if not len(values):
                raise RasterError(
                    f"{bound.index.upper()} has no value in the part that is searched.",
                    "Check that the rasters and the extent overlap.",
                )
            limits[bound.index, bound.percentile or 0.0] = float(np.percentile(values, bound.percentile or 0.0))
        return limits

    def places(self, window: Window, percentiles: Percentiles, job: PseudolabelsJob, context: JobContext) -> list[_Pool]:
        """By class, where its rule holds."""
        pools = [_Pool(KEPT * job.count) for _ in SCHEME.classes]
        panels = list(window.pieces(PANEL))
        for done, panel in enumerate(panels):
            context.progress(0.4 + 0.55 * done / len(panels), "Following the rules")
            layers = self._layers(panel)
            classes = label_by_rules(layers, self._rules, percentiles)
            for number, place in self._found(classes, layers, panel, job.minimum_pixels):
                pools[number].offer(place)
        return pools

    def _layers(self, panel: Window) -> Layers:
        sources, optical, radar = self._sources, {}, []
        if sources.optical is not None:
            values = self._reader.read_onto(sources.optical, self._grid.crop(panel), list(sources.bands.values()))
            optical = dict(zip(sources.bands, values, strict=True))
        if sources.sar is not None:
            around = panel.padded(SMOOTHED // 2)
            values = self._reader.read_onto(sources.sar, self._grid.crop(around), list(sources.polarizations.values()))
            radar = [_smoothed(each)[panel.slices_within(around)] for each in values]
        return compute_indices(optical, radar)

    def _found(self, classes: NDArray[np.int8], layers: Layers, panel: Window, least: int) -> Iterator[tuple[int, _Place]]:
        """Class and place of connected pixels, row by row, cut at the lattice."""
        column, row = self._grid.anchor()
        down = (np.arange(panel.row, panel.stop_row) + row) // CELL
        right = (np.arange(panel.column, panel.stop_column) + column) // CELL
        cells = (down - down[0])[:, None] * (right[-1] - right[0] + 1) + (right - right[0])
        clean = np.zeros(classes.shape, np.int64)
        for rule in self._rules:
            # Threads and single pixels are mostly mixed ones.
            kept = binary_opening(classes == rule.number, np.ones((2, 2), bool))
            clean[kept] = 1 + rule.number + len(SCHEME) * cells[kept]
        ids = connected(clean, connectivity=1, background=0).astype(np.int32)  # type: ignore[no-untyped-call]
        sizes = np.bincount(ids.ravel())
        usable = sizes >= least
        usable[0] = False
        means = {name: np.bincount(ids.ravel(), values.ravel().astype(np.float64)) / sizes for name, values in layers.items()}
        numbers, first = np.unique(ids, return_index=True)
        rule_of = np.zeros(len(sizes), np.int64)
        rule_of[numbers] = classes.ravel()[first]
        place = Affine.translation(panel.column, panel.row)
        for outline, value in outlines(ids, mask=usable[ids], connectivity=4, transform=place):
            number, shape = int(value), shapely.geometry.shape(outline)
            told = tuple(float(means[name][number]) if name in means else float("nan") for name in INDICES)
            centre = shapely.get_coordinates(shapely.point_on_surface(shape))[0]
            yield int(rule_of[number]), _Place(shape, centre, int(sizes[number]), told)


def _smoothed(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of what is known around each pixel that is known."""
    known = np.isfinite(values)
    total = uniform_filter(np.where(known, values, 0).astype(np.float64), SMOOTHED, mode="constant")
    share = uniform_filter(known.astype(np.float64), SMOOTHED, mode="constant")
    return np.where(known, total / np.maximum(share, 1e-9), np.nan).astype(np.float32)


def _write(
    job: PseudolabelsJob,
    scene: Scene,
    rules: tuple[Rule, ...],
    percentiles: Percentiles,
    chosen: list[list[_Place]],
    context: JobContext,
) -> None:
    grid: Grid = scene.grid
    places = [(rule, place) for rule, found in zip(rules, chosen, strict=True) for place in found]
    texts = {rule.number: ", ".join(bound.text(bound.limit(percentiles)) for bound in rule.bounds) for rule in rules}
    areas = grid.row_pixel_areas_m2()
    rows = np.array([place.centre[1] for _, place in places]).astype(int).clip(0, grid.height - 1)
    pixels = np.array([place.pixels for _, place in places], np.int32)
    means = np.array([place.means for _, place in places])
    columns: list[NDArray[Any]] = [
        np.array([SCHEME.names[rule.number] for rule, _ in places], dtype=object),
        np.array([SCHEME.codes[rule.number] for rule, _ in places], np.int32),
        np.array([texts[rule.number] for rule, _ in places], dtype=object),
        pixels,
        np.round(pixels * areas[rows] / 10_000, 4),
        *np.round(means.T, 3),
    ]
    output = Path(job.output)
    names = "; ".join(f"{name}: {', '.join(files)}" for name, files in input_names(scene).items())
    tags = {"inputs": names, "note": NOT_TRUTH, "created": creation_time(), **software()}
    shapes = on_the_ground(np.array([place.shape for _, place in places], dtype=object), grid)
    with Staging() as staging:
        with staging.writing(output) as temporary:
            LayerWriter(temporary, output.stem, grid.crs, "Polygon", tags).write(shapes, FIELDS, columns)
            style = style_path(temporary)
            write_text(style, categorised_style(SCHEME, CLASS_FIELD))
        staging.add(style, style_path(output))
        context.commit()
        staging.put_in_place()
