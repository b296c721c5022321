"""The real scenes with 3, 10 and 30 small polygons a class, and what is scored: for all that asks how much labels are worth.

The polygons of a scene and seed are drawn once, 30 of a class: of the smaller numbers each is the first part of the next, and
what is scored is the same for all. A part of each is held out, in spatial blocks, for whatever has to be chosen.

==================  ==================================================================================================
``s1s2_282D``       Sentinel-1, Sentinel-2 and a DEM; a weak yearly map, scored more than five pixels away from any polygon.
                    Two more scenes of the same sensors without labels.
``flood_India``     Sentinel-1 and Sentinel-2 of a flood, drawn by hand; scored as above.
``floods_SAR``      Sentinel-1 of eleven floods, drawn by hand: polygons on six of them, the other five are scored.
``enmap_Potsdam``   EnMAP's two spectrometers; polygons of at most 3 x 3 pixels on some tiles, the other tiles are scored.
``neon_MLBS``       Airborne spectrometer, canopy height and 0.1 m imagery; crowns of some plots, those of others are scored.
==================  ==================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import rasterio
from fusion_data import Task, flood, sentinel_scene, spectrometer, trees
from numpy.typing import NDArray
from shapely.geometry import box

from core.assessment.confusion import accuracy, confusion_matrix
from core.finetuning.training_data import TrainingData
from core.labels.blocks import Split, spatial_folds, spatial_split
from core.labels.label_set import LabelSet
from core.labels.rasterizing import count_pixels
from core.labels.reading import read_labels
from core.scenes.scene import Scene, build_scene

COUNTS = (3, 10, 30)
VALIDATION = 0.3

MOST_SCORED = 50_000
"""Pixels with a reference, drawn at random where there are more."""

QUARTER, GAP, CHIPS_A_ROW = 256, 64, 4
"""Of each flood one quarter is taken, that with the most of its rarer class; they lie beside each other, with gaps."""

SMALL_PIECE = 3
"""Side in pixels of the pieces that the labels of the spectrometer's tiles are cut into."""


@dataclass(frozen=True, eq=False)
class LabelledScene:
    """A scene, its polygons and what is scored.

    Attributes:
        name: one of ``SCENES``.
        task: inputs and files.
        scene: of all inputs.
        others: scenes of the same sensors without labels.
        labels: all polygons, those that are scored among them.
        rank: (n_features,) number of a polygon within its class; -1 = it is scored, and never learned from.
        seed: of draws and splits.
    """

    name: str
    task: Task
    scene: Scene
    others: tuple[Scene, ...]
    labels: LabelSet
    rank: NDArray[np.int64]
    seed: int

    @property
    def has_map(self) -> bool:
        """Whether single pixels away from the polygons are scored; otherwise other polygons are."""
        return self.task.truth is not None

    def used(self, count: int) -> NDArray[np.bool_]:
        """(n_features,) bool, the first so many polygons of each class."""
        return (self.rank >= 0) & (self.rank < count)

    def held_out(self, count: int) -> NDArray[np.bool_]:
        """(n_features,) bool, those of ``used`` that are not learned from."""
        used, held_out = self.used(count), np.zeros(len(self.rank), bool)
        held_out[used] = self._split(count)[1].validation
        return held_out

    def fold(self, count: int) -> NDArray[np.int64]:
        """(n_features,) of ``spatial_folds`` of those of ``used``, the first part as ``held_out``; -1 elsewhere."""
        subset, split = self._split(count)
        fold = np.full(len(self.rank), -1, np.int64)
        fold[self.used(count)] = spatial_folds(subset, split, self.seed, count_pixels(subset, self.scene.grid))
        return fold

    def block(self, count: int) -> NDArray[np.int64]:
        """(n_features,) the ground that is kept together, of ``spatial_split`` of those of ``used``; -1 elsewhere."""
        block = np.full(len(self.rank), -1, np.int64)
        block[self.used(count)] = self._split(count)[1].block
        return block

    def _split(self, count: int) -> tuple[LabelSet, Split]:
        used = self.used(count)
        subset = replace(
            self.labels,
            geometries=self.labels.geometries[used],
            class_index=self.labels.class_index[used],
            feature_ids=self.labels.feature_ids[used],
        )
        return subset, spatial_split(subset, self.scene.grid, VALIDATION, self.seed)

    def training_data(self, reach: int) -> TrainingData:
        """The surroundings of all polygons; all inputs cover them."""
        return TrainingData(self.scene, self.labels, reach, allows_missing=False)

    def scored_pixels(self, data: TrainingData) -> NDArray[np.int64]:
        """(n, 3) column, row and class of what is scored."""
        if self.task.truth is None or self.task.where is None:
            pixels = data.pixels
            return np.asarray(pixels[self.rank[pixels[:, 3]] < 0][:, :3])
        number = {int(entry.value): index for index, entry in enumerate(self.labels.scheme.classes)}
        table = np.array([number.get(code, -1) for code in range(int(self.task.truth.max()) + 1)])
        classes = np.where(self.task.where, table[np.clip(self.task.truth, 0, None)], -1)
        rows, columns = np.nonzero(classes >= 0)
        if len(rows) > MOST_SCORED:
            kept = np.sort(np.random.default_rng(self.seed).choice(len(rows), MOST_SCORED, replace=False))
            rows, columns = rows[kept], columns[kept]
        return np.stack([columns, rows, classes[rows, columns]], axis=1)

    def score(self, predicted: NDArray[np.int64], classes: NDArray[np.int64]) -> dict[str, float]:
        """Agreement of class numbers."""
        result = accuracy(confusion_matrix(predicted, classes, len(self.labels.scheme)), self.labels.scheme.names)
        return {"miou": result.mean_iou, "f1": result.macro_f1, "oa": result.overall_accuracy}


def open_scene(name: str, data: Path, seed: int, work: Path) -> LabelledScene:
    """Draws the polygons of a scene into an empty folder.

    Args:
        name: one of ``SCENES``.
        data: folder with the real scenes.
        seed: of all draws.
        work: an empty folder that lasts as long as the scene is used.
    """
    task, others = SCENES[name](data, seed, work)
    scene = build_scene(task.request(tuple(task.inputs)))
    labels = read_labels(str(task.labels), task.class_field, scene.grid)
    rank = np.zeros(len(labels), np.int64)
    if task.is_test is not None:
        frame = geopandas.read_file(task.labels, fid_as_index=True)
        rank[frame[task.is_test].loc[labels.feature_ids].to_numpy() == 1] = -1
    generator = np.random.default_rng(seed)
    for number in range(len(labels.scheme)):
        own = np.flatnonzero((labels.class_index == number) & (rank >= 0))
        rank[own] = generator.permutation(len(own))
    # More polygons than the largest number are neither learned from nor scored.
    return LabelledScene(name, task, scene, tuple(build_scene(o) for o in others), labels, rank, seed)


Opened = tuple[Task, tuple[Any, ...]]


def _sentinels(data: Path, seed: int, work: Path) -> Opened:
    task = sentinel_scene(data, seed, work, COUNTS[-1])
    others = []
    for folder in sorted((data / "s1s2_scenes").iterdir()):
        files = {name: (role, [str(folder / Path(paths[0]).name)]) for name, (role, paths) in task.inputs.items()}
        if files != task.inputs:
            others.append(replace(task, inputs=files).request(tuple(files)))
    return task, tuple(others)


def _flood(data: Path, seed: int, work: Path) -> Opened:
    return flood(data, seed, work, COUNTS[-1]), ()


def _radar_floods(data: Path, seed: int, work: Path) -> Opened:
    """Quarters of the floods side by side in one raster, polygons on those of a random half."""
    from first_map import cut_patches

    quarters = []
    for folder in sorted((data / "floods").iterdir()):
        with rasterio.open(folder / "s1_db.tif") as dataset:
            radar = dataset.read()
        with rasterio.open(folder / "labels.tif") as dataset:
            codes = dataset.read(1).astype(np.int16) + 1
        codes[~np.isfinite(radar).all(axis=0)] = 0
        best = max(_quarters(), key=lambda part: min((codes[part] == code).sum() for code in (1, 2)))
        if min((codes[best] == code).sum() for code in (1, 2)):
            quarters.append((radar[:, *best], codes[best]))
    cell = QUARTER + GAP
    shape = (-(-len(quarters) // CHIPS_A_ROW) * cell, CHIPS_A_ROW * cell)
    radar = np.full((2, *shape), np.nan, np.float32)
    truth, chip = np.zeros(shape, np.int16), np.full(shape, -1, np.int16)
    for number, (values, codes) in enumerate(quarters):
        row, column = (cell * part for part in divmod(number, CHIPS_A_ROW))
        place = (slice(row, row + QUARTER), slice(column, column + QUARTER))
        radar[:, *place], truth[place], chip[place] = values, codes, number
    scored = np.random.default_rng(seed).choice(len(quarters), len(quarters) // 2, replace=False)
    profile = {
        "driver": "GTiff",
        "height": shape[0],
        "width": shape[1],
        "crs": "EPSG:32633",
        "transform": rasterio.transform.from_origin(500_000, 5_000_000, 10, 10),
    }
    _write(work / "s1.tif", radar, profile | {"count": 2, "dtype": "float32", "nodata": float("nan")}, ("VV", "VH"))
    learned = np.where(np.isin(chip, scored), 0, truth)
    _write(work / "learned.tif", learned[None], profile | {"count": 1, "dtype": "int16", "nodata": 0}, ("code",))
    cut_patches(work / "learned.tif", COUNTS[-1], seed, work / "patches.gpkg")
    where = np.isin(chip, scored) & (truth > 0)
    inputs = {"S1": ("sar", [str(work / "s1.tif")])}
    return Task(inputs, work / "patches.gpkg", "code", truth=truth.astype(np.int64), where=where), ()  # type: ignore[arg-type]


def _quarters() -> list[tuple[slice, slice]]:
    sides = (slice(0, QUARTER), slice(QUARTER, 2 * QUARTER))
    return [(rows, columns) for rows in sides for columns in sides]


def _write(path: Path, values: NDArray[Any], profile: dict[str, Any], names: tuple[str, ...]) -> None:
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(values)
        dataset.descriptions = names


def _spectrometer(data: Path, seed: int, work: Path) -> Opened:
    """The labels of ``spectrometer`` in small pieces: some of them are whole fields."""
    task = spectrometer(data, seed, work)
    frame = geopandas.read_file(task.labels)
    with rasterio.open(task.inputs["VNIR"][1][0]) as dataset:
        side = SMALL_PIECE * dataset.res[0]
        left, top = dataset.bounds.left, dataset.bounds.top
    rows = []
    for code, test, geometry in zip(frame["code"], frame["test"], frame.geometry, strict=True):
        if test:
            rows.append((code, test, geometry))
            continue
        west, south, east, north = geometry.bounds
        for column in range(int((west - left) // side), int((east - left) // side) + 1):
            for row in range(int((top - north) // side), int((top - south) // side) + 1):
                x, y = left + column * side, top - row * side
                piece = geometry.intersection(box(x, y - side, x + side, y))
                if piece.area > 0:
                    rows.append((code, test, piece))
    columns = {"code": [row[0] for row in rows], "test": [row[1] for row in rows]}
    pieces = geopandas.GeoDataFrame(columns, geometry=[row[2] for row in rows], crs=frame.crs)
    pieces.to_file(work / "pieces.gpkg", driver="GPKG")
    return replace(task, labels=work / "pieces.gpkg"), ()


def _trees(data: Path, seed: int, work: Path) -> Opened:
    return trees(data, seed, work), ()


SCENES: dict[str, Callable[[Path, int, Path], Opened]] = {
    "s1s2_282D": _sentinels,
    "flood_India": _flood,
    "floods_SAR": _radar_floods,
    "enmap_Potsdam": _spectrometer,
    "neon_MLBS": _trees,
}
