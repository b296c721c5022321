"""The real scenes of ``fusion.py``: rasters by input, labels to draw on, and what is scored.

The first two scenes have a reference for every pixel: small patches are cut from it as drawn polygons, and the pixels away
from any patch are scored. The other two have drawn labels only: whole tiles, or plots, of them are held out and scored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas
import rasterio
from first_map import AWAY_PIXELS, cut_patches
from numpy.typing import NDArray
from rasterio.features import shapes
from scipy.ndimage import distance_transform_edt
from shapely.geometry import box, shape

from core.scenes.scene import SceneRequest
from core.sensors import Role

Input = tuple[Role, list[str]]

FEWEST_CROWNS = 20
TEST_PART = 0.3


@dataclass(frozen=True, eq=False)
class Task:
    """One draw of labels on one scene.

    Attributes:
        inputs: name to role and files.
        labels: vector file.
        class_field: that holds the class.
        is_test: field of the labels that is 1 where they are held out for scoring; None where ``truth`` is scored.
        truth: (rows, columns) codes of every pixel of the main raster.
        where: (rows, columns) which of them are scored.
        kept: what has been read of it, by key.
    """

    inputs: dict[str, Input]
    labels: Path
    class_field: str
    is_test: str | None = None
    truth: NDArray[np.int64] | None = None
    where: NDArray[np.bool_] | None = None
    kept: dict[Any, Any] = field(default_factory=dict)

    def request(self, names: tuple[str, ...]) -> SceneRequest:
        """The scene of some of the inputs."""
        paths: dict[Role, list[str]] = {}
        for name in names:
            role, files = self.inputs[name]
            paths.setdefault(role, []).extend(files)
        return SceneRequest(paths)


def sentinel_scene(data: Path, seed: int, work: Path, patches: int = 20) -> Task:
    """Sentinel-1, Sentinel-2 and a DEM; the reference is a weak yearly map."""
    folder = data / "s1s2_scenes" / "282D_485L_3_3"
    inputs: dict[str, Input] = {
        "S2": ("optical", [str(folder / "s2_l2a.tif")]),
        "S1": ("sar", [str(folder / "s1_rtc_db.tif")]),
        "DEM": ("elevation", [str(folder / "dem.tif")]),
    }
    return _patches(folder / "landcover.tif", 0, inputs, seed, work, patches)


def flood(data: Path, seed: int, work: Path, patches: int = 20) -> Task:
    """Sentinel-1 and Sentinel-2 of a flood in India; water and other, drawn by hand."""
    folder = data / "floods" / "India_900498"
    with rasterio.open(folder / "labels.tif") as dataset:
        codes = dataset.read(1).astype(np.int16) + 1
        profile = dataset.profile | {"dtype": "int16", "nodata": 0}
    reference = work / "labels.tif"
    with rasterio.open(reference, "w", **profile) as dataset:
        dataset.write(codes, 1)
    inputs: dict[str, Input] = {
        "S2": ("optical", [str(folder / "s2_l1c.tif")]),
        "S1": ("sar", [str(folder / "s1_db.tif")]),
    }
    return _patches(reference, 0, inputs, seed, work, patches)


def _patches(reference: Path, nodata: int, inputs: dict[str, Input], seed: int, work: Path, count: int) -> Task:
    path = work / "patches.gpkg"
    patch, classes = cut_patches(reference, count, seed, path)
    with rasterio.open(reference) as dataset:
        truth = dataset.read(1).astype(np.int64)
    where = (distance_transform_edt(patch < 0) > AWAY_PIXELS) & np.isin(truth, classes) & (truth != nodata)
    return Task(inputs, path, "code", truth=truth, where=where)


def spectrometer(data: Path, seed: int, work: Path) -> Task:
    """EnMAP's two spectrometers, visible to near infrared and short-wave infrared, as two inputs; sparse labels."""
    folder = data / "enmap_potsdam"
    files = sorted((folder / "images").glob("*.tif"))
    inputs: dict[str, Input] = {"VNIR": ("optical", []), "SWIR": ("other", [])}
    for path in files:
        with rasterio.open(path) as dataset:
            nanometres = np.array([float(dataset.tags(band)["wavelength"]) for band in dataset.indexes])
            good = np.array([dataset.tags(band).get("bbl", "1") == "1" for band in dataset.indexes])
            # The second spectrometer starts where wavelengths fall back to about 900 nm.
            first_swir = int(np.flatnonzero(np.diff(nanometres) < 0)[0]) + 1 if (np.diff(nanometres) < 0).any() else None
            is_swir = nanometres > 1000 if first_swir is None else np.arange(len(nanometres)) >= first_swir
            for name, chosen in (("VNIR", good & ~is_swir), ("SWIR", good & is_swir)):
                part = work / f"{name}_{path.name}"
                bands = [int(number) + 1 for number in np.flatnonzero(chosen)]
                with rasterio.open(part, "w", **(dataset.profile | {"count": len(bands), "driver": "GTiff"})) as target:
                    target.write(dataset.read(bands))
                    for number, band in enumerate(bands, 1):
                        target.update_tags(number, **dataset.tags(band))
                        target.set_band_description(number, dataset.descriptions[band - 1])
                inputs[name][1].append(str(part))
    generator = np.random.default_rng(seed)
    names = [path.name for path in files]
    held_out = _held_out_tiles(folder / "labels", names, generator)
    rows = []
    for name in names:
        with rasterio.open(folder / "labels" / name) as dataset:
            codes = dataset.read(1).astype(np.int32)
            parts = shapes(codes, mask=codes > 0, transform=dataset.transform)
            rows += [(int(code), int(name in held_out), shape(geometry)) for geometry, code in parts]
            crs = dataset.crs
    columns = {"code": [row[0] for row in rows], "test": [row[1] for row in rows]}
    frame = geopandas.GeoDataFrame(columns, geometry=[row[2] for row in rows], crs=crs)
    frame.to_file(work / "labels.gpkg", driver="GPKG")
    return Task(inputs, work / "labels.gpkg", "code", is_test="test")


def _held_out_tiles(folder: Path, names: list[str], generator: np.random.Generator) -> set[str]:
    """Tiles for scoring, such that every class is on both sides if any draw allows it."""
    present = {}
    for name in names:
        with rasterio.open(folder / name) as dataset:
            present[name] = set(np.unique(dataset.read(1))) - {0}
    count = max(1, round(TEST_PART * len(names)))
    best: tuple[int, set[str]] = (-1, set())
    for _ in range(200):
        chosen = set(generator.choice(names, count, replace=False).tolist())
        inside = set().union(*(present[name] for name in chosen))
        outside = set().union(*(present[name] for name in names if name not in chosen))
        if len(inside & outside) > best[0]:
            best = len(inside & outside), chosen
    return best[1]


def trees(data: Path, seed: int, work: Path) -> Task:
    """Airborne spectrometer, canopy height and 0.1 m imagery; crowns of the taxa with at least 20 of them.

    Whole plots are held out. The crowns' ``nlcdClass`` is one and the same here, so that only taxa can be mapped.
    """
    folder = data / "neon_trees" / "MLBS"
    inputs: dict[str, Input] = {
        "HSI": ("optical", _files(folder / "hsi")),
        "RGB": ("optical", _files(folder / "rgb")),
        "CHM": ("elevation", _files(folder / "chm")),
    }
    crowns = geopandas.read_file(folder / "crowns.gpkg").merge(pandas.read_csv(folder / "train_data.csv"), on="indvdID")
    counts = crowns["taxonID"].value_counts()
    crowns = crowns[crowns["taxonID"].isin(counts[counts >= FEWEST_CROWNS].index)]
    generator = np.random.default_rng(seed)
    plots = _plots(inputs["HSI"][1], crowns)
    names = sorted(set(plots))
    held_out = set(generator.choice(names, max(1, round(TEST_PART * len(names))), replace=False).tolist())
    frame = crowns[["taxonID", "geometry"]].assign(test=[int(plot in held_out) for plot in plots])
    frame.to_file(work / "crowns.gpkg", driver="GPKG")
    return Task(inputs, work / "crowns.gpkg", "taxonID", is_test="test")


def _plots(files: list[str], crowns: geopandas.GeoDataFrame) -> list[int]:
    """Number of the plot of each crown: overlapping plots count as one."""
    bounds = []
    for path in files:
        with rasterio.open(path) as dataset:
            bounds.append(box(*dataset.bounds))
    merged = geopandas.GeoSeries(bounds, crs=crowns.crs).union_all()
    parts = list(merged.geoms) if merged.geom_type == "MultiPolygon" else [merged]
    centres = crowns.geometry.centroid
    return [int(np.argmin([part.distance(centre) for part in parts])) for centre in centres]


def _files(folder: Path) -> list[str]:
    return [str(path) for path in sorted(folder.glob("*.tif"))]


TASKS: dict[str, Callable[..., Task]] = {
    "s1s2_282D": sentinel_scene,
    "flood_India": flood,
    "enmap_Potsdam": spectrometer,
    "neon_MLBS": trees,
}
