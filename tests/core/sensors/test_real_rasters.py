"""The real scenes: every file is described as it is on disk and has to be recognised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio

from core.errors import SensorError
from core.sensors import IdentifiedRaster, RasterDescription, Role, identify

Describe = Callable[[Path], RasterDescription]


@pytest.mark.parametrize(
    ("path", "role", "sensor", "by", "count"),
    [
        ("s1s2_scenes/282D_485L_3_3/s2_l1c.tif", "optical", "sentinel2_l1c", "name", 13),
        ("s1s2_scenes/282D_485L_3_3/s2_l2a.tif", "optical", "sentinel2_l2a", "name", 12),
        ("s1s2_scenes/282D_485L_3_3/s1_rtc_db.tif", "sar", "sentinel1", "name", 2),
        ("s1s2_scenes/282D_485L_3_3/dem.tif", "elevation", "dem", "name", 1),
        ("floods/India_900498/s2_l1c.tif", "optical", "sentinel2_l1c", "name", 13),
        ("floods/Paraguay_34417/s1_db.tif", "sar", "sentinel1", "name", 2),
        ("neon_trees/MLBS/rgb/MLBS_1.tif", "optical", "aerial_rgb", "name", 3),
        ("neon_trees/MLBS/chm/MLBS_1.tif", "elevation", "height_above_ground", "count", 1),
        ("neon_trees/MLBS/hsi/MLBS_1.tif", "optical", "generic", "count", 369),
        ("enmap_potsdam/images/enmap_potsdam_tile_64_0.tif", "optical", "enmap", "wavelength", 218),
        ("treesatai_sample/Abies_alba_1_1005_WEFL_NLF.tif", "optical", "aerial_rgbnir", "count", 4),
        ("us_series/naip/m_4709963_se_14_1_20100629.tif", "optical", "aerial_rgbnir", "count", 4),
        ("us_series/landsat/1985.tif", "optical", "display_8bit", "count", 4),
        ("us_series/elevation/hag.tif", "elevation", "height_above_ground", "count", 1),
        ("us_series/elevation/dsm.tif", "elevation", "dsm", "count", 1),
        ("us_series/elevation/dtm.tif", "elevation", "dem", "count", 1),
        ("landsat_change/taizhou/2000TM", "optical", "landsat_tm", "wavelength", 6),
        ("sar_optical_pairs/T11SLT_018/s1_vh_8bit.tif", "sar", "display_8bit", "name", 1),
        ("sar_optical_pairs/T11SLT_018/s2_rgb_8bit.tif", "optical", "display_8bit", "name", 3),
    ],
)
def test_recognised(shared_data: Path, describe: Describe, path: str, role: Role, sensor: str, by: str, count: int) -> None:
    raster = identify(describe(shared_data / path), "auto", role)
    assert (raster.match.sensor.name, raster.match.by, len(raster.match.bands)) == (sensor, by, count)


def physical(path: Path, raster: IdentifiedRaster) -> np.ndarray:
    with rasterio.open(path) as source:
        stored = source.read(list(raster.match.indexes), masked=True).astype(np.float32).filled(np.nan)
    return raster.calibration.apply(stored)


@pytest.mark.parametrize(
    ("path", "applies"),
    [
        ("s1s2_scenes/282D_485L_3_3/s2_l1c.tif", True),
        ("s1s2_scenes/282D_485L_3_3/s2_l2a.tif", False),
        ("s1s2_scenes/38D_378R_2_3/s2_l1c.tif", False),
        ("s1s2_scenes/38D_378R_2_3/s2_l2a.tif", False),
        ("s1s2_scenes/609U_541L_3_0/s2_l1c.tif", True),
        ("s1s2_scenes/609U_541L_3_0/s2_l2a.tif", False),
        ("floods/India_900498/s2_l1c.tif", False),
    ],
)
@pytest.mark.parametrize("kept", ["all", "without_cirrus"])
def test_offset_is_guessed_right_and_said(shared_data: Path, describe: Describe, path: str, applies: bool, kept: str) -> None:
    description = describe(shared_data / path)
    if kept == "without_cirrus":
        names = tuple(None if name == "B10" else name for name in description.descriptions)
        description = replace(description, descriptions=names)
    raster = identify(description)
    assert all(band.offset == (pytest.approx(-0.1) if applies else 0.0) for band in raster.bands)
    assert any("sentinel2_offset" in warning for warning in raster.warnings)


def test_the_two_levels_of_a_scene_agree_after_calibration(shared_data: Path, describe: Describe) -> None:
    """282D: the stored numbers are 1000 apart, the reflectances in the shortwave infrared nearly equal."""
    folder = shared_data / "s1s2_scenes" / "282D_485L_3_3"
    medians = {}
    for level in ("l1c", "l2a"):
        path = folder / f"s2_{level}.tif"
        raster = identify(describe(path))
        medians[level] = np.nanmedian(physical(path, raster)[raster.match.names.index("B11")])
    assert abs(medians["l1c"] - medians["l2a"]) < 0.02


def test_snow_above_one_is_kept(shared_data: Path, describe: Describe) -> None:
    path = shared_data / "s1s2_scenes" / "609U_541L_3_0" / "s2_l2a.tif"
    values = physical(path, identify(describe(path)))
    assert np.isfinite(values).all()
    assert values.max() > 1.2


def test_backscatter_of_every_flood_scene_is_in_decibels(shared_data: Path, describe: Describe) -> None:
    paths = sorted((shared_data / "floods").glob("*/s1_db.tif"))
    assert len(paths) > 5
    for path in paths:
        raster = identify(describe(path), "auto", "sar")
        assert raster.calibration.decibel_factor is None
        values = physical(path, raster)
        if "Paraguay" in str(path):
            assert np.isnan(values).all()
            assert raster.warnings
        else:
            assert -25 < np.nanmedian(values) < -5


def test_enmap_is_reflectance_in_the_product_s_order(shared_data: Path, describe: Describe) -> None:
    path = shared_data / "enmap_potsdam" / "images" / "enmap_potsdam_tile_64_0.tif"
    raster = identify(describe(path))
    assert raster.match.indexes == tuple(index for index in range(1, 225) if not 130 <= index <= 135)
    assert any("130, 131, 132, 133, 134, 135" in note for note in raster.notes)
    values = physical(path, raster)
    assert 0.05 < np.nanmedian(values) < 0.5
    assert all(band.mean is not None for band in raster.bands)


def test_eight_bit_landsat_is_left_to_the_scene_s_statistics(shared_data: Path, describe: Describe) -> None:
    raster = identify(describe(shared_data / "landsat_change" / "taizhou" / "2000TM"))
    assert raster.match.names == ("B1", "B2", "B3", "B4", "B5", "B7")
    assert not raster.calibration.is_physical


def test_an_unnamed_sentinel2_cut_needs_to_be_told(shared_data: Path, describe: Describe) -> None:
    full = describe(shared_data / "s1s2_scenes" / "282D_485L_3_3" / "s2_l2a.tif")
    assert full.sample is not None
    cut = RasterDescription("cut.tif", 4, "uint16", resolution_m=10.0, sample=full.sample[[1, 2, 3, 7]])
    with pytest.raises(SensorError, match="several sensors"):
        identify(cut)
