"""What a result says it was made from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil

from core.jobs.provenance import source_state
from core.scenes.scene import SceneRequest, SourceFile, build_scene
from tests.core.finetuning.scenes import write_raster


def source_of(path: str) -> SourceFile:
    return build_scene(SceneRequest({"optical": [path]}, {"optical": "spot6_7"})).main.files[0]


def test_a_raster_of_another_machine_is_told_by_its_values(tmp_path: Path) -> None:
    """GDAL's memory stands in for a server: it has no size and time of change that the system knows."""
    values = np.random.default_rng(1).uniform(0.05, 0.6, (4, 60, 50))
    states = []
    for factor in (1.0, 1.0, 0.5):
        local = write_raster(tmp_path / "local.tif", values * factor, 10)
        rasterio.shutil.copy(local, "/vsimem/remote.tif")
        states.append(source_state(source_of("/vsimem/remote.tif")))
        rasterio.shutil.delete("/vsimem/remote.tif")
    assert states[0] == states[1] != states[2]


def test_a_mosaic_changes_with_each_of_its_files(tmp_path: Path) -> None:
    values = np.random.default_rng(1).uniform(0.05, 0.6, (4, 60, 50))
    part = write_raster(tmp_path / "part.tif", values, 10)
    rasterio.shutil.copy(part, tmp_path / "mosaic.vrt", driver="VRT")
    before = source_state(source_of(str(tmp_path / "mosaic.vrt")))
    write_raster(tmp_path / "part.tif", values[:, ::-1], 10)
    assert source_state(source_of(str(tmp_path / "mosaic.vrt"))) != before
