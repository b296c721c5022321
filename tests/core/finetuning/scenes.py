"""Scenes, labels and models that are small enough to train on in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from rasterio.transform import from_origin

from core.labels.label_set import LabelReport, LabelSet
from core.labels.scheme import ClassScheme, LandCoverClass
from core.models.architectures import ARCHITECTURES, ArchitectureName
from core.models.specification import BandSpecification, ModalitySpecification, ModelSpecification
from core.scenes.grid import Grid
from core.scenes.scene import Scene, SceneRequest, build_scene

LEFT, TOP = 500_010.0, 5_800_020.0
"""No multiple of 30 m, so that coarse pixels begin before the scene does."""


def write_raster(path: Path, values: np.ndarray, pixel: float, left: float = LEFT, top: float = TOP) -> str:
    """A GeoTIFF of (bands, rows, columns) float32 in UTM, NaN = no data."""
    bands, height, width = values.shape
    profile = {"driver": "GTiff", "width": width, "height": height, "count": bands, "dtype": "float32", "nodata": np.nan}
    with rasterio.open(path, "w", crs="EPSG:32633", transform=from_origin(left, top, pixel, pixel), **profile) as dataset:
        dataset.write(values.astype(np.float32))
    return str(path)


def mixed_scene(folder: Path, width: int = 150, height: int = 130) -> Scene:
    """Spot at 10 m, an unknown sensor at 30 m, heights at 5 m; a few pixels are missing from each."""
    generator = np.random.default_rng(5)

    def drawn(bands: int, rows: int, columns: int) -> np.ndarray:
        values = generator.uniform(0.05, 0.6, (bands, rows, columns))
        values[:, generator.random((rows, columns)) < 0.02] = np.nan
        return values

    optical = write_raster(folder / "optical.tif", drawn(4, height, width), 10)
    coarse = write_raster(folder / "coarse.tif", drawn(2, height // 3 + 2, width // 3 + 2), 30, LEFT - 30, TOP + 30)
    heights = write_raster(folder / "heights.tif", 100 * drawn(1, 2 * height, 2 * width), 5)
    paths = {"optical": [optical], "other": [coarse], "elevation": [heights]}
    sensors = {"optical": "spot6_7", "other": "generic", "elevation": "dsm"}
    return build_scene(SceneRequest(paths, sensors))  # type: ignore[arg-type]


def labels_at(grid: Grid, boxes: Sequence[tuple[int, int, int, int]], classes: Sequence[int]) -> LabelSet:
    """Rectangles of whole pixels, given as first column, first row, stop column, stop row."""
    shapes = np.empty(len(boxes), object)
    shapes[:] = [
        shapely.box(
            grid.left + left * grid.pixel_width,
            grid.top - bottom * grid.pixel_height,
            grid.left + right * grid.pixel_width,
            grid.top - top * grid.pixel_height,
        )
        for left, top, right, bottom in boxes
    ]
    count = max(classes) + 1
    scheme = ClassScheme("test", tuple(LandCoverClass(i + 1, f"class {i}", "#102030", f"class {i}") for i in range(count)))
    report = LabelReport(len(boxes), 0, 0, (), (), (), (), tuple(np.bincount(classes, minlength=count).tolist()))
    return LabelSet(shapes, grid.crs, np.asarray(classes, np.int16), np.arange(len(boxes)), scheme, report)


def specification_for(
    scene: Scene, n_classes: int, architecture: ArchitectureName = "unet_early", width: int = 4, **options: Any
) -> ModelSpecification:
    """A narrow model over all acquisitions of a scene."""
    entry = ARCHITECTURES[architecture]
    parts = {"stem": entry.stem, "encoder": entry.encoder, "size": entry.size, "fusion": entry.fusion, "width": width}
    modalities = tuple(
        ModalitySpecification(
            name=entry.name,
            role=entry.role,
            sensor=entry.sensor.name,
            kind=entry.sensor.kind,
            bands=tuple(BandSpecification(name=band, mean=0.3, standard_deviation=0.2) for band in entry.bands),
            finer=entry.scale.finer,
            coarser=entry.scale.coarser,
        )
        for entry in scene.acquisitions
    )
    return ModelSpecification(architecture=architecture, modalities=modalities, n_classes=n_classes, **(parts | options))
