"""A model's inputs found in a scene of other sensors, orbits and pixel sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from core.errors import UsageError
from core.models.specify import check_count, specify_for_other_sensors, specify_model
from core.scenes.scene import Scene, SceneRequest, build_scene
from tests.core.scenes.ground import write

S2 = ("B2", "B3", "B4", "B8")


def radar(path: Path, orbit: str) -> str:
    values = np.random.default_rng(1).normal(-12, 3, (2, 40, 50)).astype(np.float32)
    written = write(path, values, names=["VV", "VH"])
    with rasterio.open(written, "r+") as dataset:
        dataset.update_tags(orbit_direction=orbit)
    return written


def optical(path: Path, names: tuple[str, ...] = S2) -> str:
    values = np.random.default_rng(2).integers(200, 4000, (len(names), 40, 50)).astype(np.uint16)
    return write(path, values, names=list(names))


def scene(paths: dict[str, list[str]], **sensors: str) -> Scene:
    return build_scene(SceneRequest(paths, sensors, sentinel2_offset="no"))  # type: ignore[arg-type]


def test_radar_from_the_other_orbit_is_told_apart(tmp_path: Path) -> None:
    ascending = scene({"sar": [radar(tmp_path / "a.tif", "ascending")]}, sar="sentinel1")
    model = specify_model(ascending, "unet_any_sensor", 3)
    assert {band.orbit for band in model.modalities[0].bands} == {"ascending"}
    descending = scene({"sar": [radar(tmp_path / "d.tif", "descending")]}, sar="sentinel1")
    found = specify_for_other_sensors(model, descending)
    assert {band.orbit for band in found.modalities[0].bands} == {"descending"}
    assert [band.mean for band in found.modalities[0].bands] == [band.mean for band in model.modalities[0].bands]
    assert specify_for_other_sensors(model, ascending) == model


def test_one_raster_is_not_shown_as_two_inputs(tmp_path: Path) -> None:
    first, second = (
        optical(tmp_path / "s2.tif"),
        write(tmp_path / "spot.tif", np.random.default_rng(3).integers(200, 4000, (4, 40, 50)).astype(np.uint16)),
    )
    both = build_scene(
        SceneRequest({"optical": [first], "other": [second]}, {"optical": "sentinel2_l2a"}, sentinel2_offset="no")
    )
    model = specify_model(both, "unet_any_sensor", 3)
    only = scene({"optical": [first]}, optical="sentinel2_l2a")
    found = specify_for_other_sensors(model, only)
    assert [entry.sensor for entry in found.modalities] == [entry.sensor for entry in model.modalities]


def test_too_many_inputs_are_refused_before_the_work() -> None:
    check_count(8)
    with pytest.raises(UsageError, match="make 9 inputs; a model takes at most 8"):
        check_count(9)
