"""Indices and rules: which bands they are made of, whatever a sensor calls them, and what they say of known spectra."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from core.errors import SensorError
from core.labels.pseudo_labels import (
    BARE,
    BUILT,
    VEGETATION,
    WATER,
    Layers,
    compute_indices,
    index_sources,
    label_by_rules,
)
from core.scenes.scene import Scene, SceneRequest, build_scene

LANDSAT = ("B1", "B2", "B3", "B4", "B5", "B6", "B7")
"""As its surface reflectance is delivered, without the other bands."""

PERCENTILES = {("ndvi", 80.0): 0.6, ("dbsi", 90.0): 0.1, ("sar", 15.0): -18.0, ("sar", 90.0): -9.0}


def scene_of(folder: Path, **sensors: tuple[str, int]) -> Scene:
    """Rasters of a sensor and a number of bands, by role."""
    paths = {}
    for role, (_, bands) in sensors.items():
        path = folder / f"{role}.tif"
        profile = {"driver": "GTiff", "width": 20, "height": 20, "count": bands, "dtype": "float32"}
        place = from_origin(500_000, 5_800_000, 10, 10)
        with rasterio.open(path, "w", crs="EPSG:32633", transform=place, **profile) as dataset:
            if bands == 7:
                dataset.descriptions = LANDSAT
            dataset.write(np.random.default_rng(0).uniform(0.05, 0.3, (bands, 20, 20)).astype(np.float32))
        paths[role] = [str(path)]
    return build_scene(SceneRequest(paths, {role: name for role, (name, _) in sensors.items()}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sensor", "bands", "expected"),
    [
        ("sentinel2_l2a", 12, {"green": "B3", "red": "B4", "nir": "B8", "swir": "B11"}),
        ("landsat_oli", 7, {"green": "B3", "red": "B4", "nir": "B5", "swir": "B6"}),
        ("spot6_7", 4, {"green": "B1", "red": "B2", "nir": "B3"}),
    ],
)
def test_bands_are_found_by_wavelength(tmp_path: Path, sensor: str, bands: int, expected: dict[str, str]) -> None:
    sources = index_sources(scene_of(tmp_path, optical=(sensor, bands)))
    assert dict(sources.bands) == expected
    rules = [rule.number for rule in sources.rules()]
    if "swir" in expected:
        assert sources.indices == ("ndvi", "ndwi", "mndwi", "dbsi")
        assert rules == [WATER, VEGETATION, BARE]
    else:
        assert sources.indices == ("ndvi", "ndwi")
        assert rules == [WATER, VEGETATION]


def test_radar_alone_tells_water_and_says_how_badly(tmp_path: Path) -> None:
    sources = index_sources(scene_of(tmp_path, sar=("sentinel1", 2)))
    assert [rule.number for rule in sources.rules()] == [WATER]
    assert "dry sand" in sources.warnings[0]
    together = index_sources(scene_of(tmp_path, sar=("sentinel1", 2), optical=("sentinel2_l2a", 12)))
    assert [rule.number for rule in together.rules()] == [WATER, VEGETATION, BARE, BUILT]
    assert together.warnings == ()


def test_what_no_index_can_be_made_of_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SensorError, match="No spectral index") as error:
        index_sources(scene_of(tmp_path, elevation=("dem", 1)))
    assert "near infrared" in error.value.hint


def spectra() -> Layers:
    """One pixel each of water, forest, soil, roofs, of what two rules claim, and of what lacks its radar."""
    one = {
        "green": [0.06, 0.05, 0.12, 0.12, 0.06, 0.06],
        "red": [0.04, 0.03, 0.18, 0.14, 0.04, 0.04],
        "nir": [0.02, 0.40, 0.22, 0.20, 0.02, 0.02],
        "swir": [0.01, 0.15, 0.35, 0.15, 0.01, 0.01],
    }
    optical = {name: np.array([values], np.float32) for name, values in one.items()}
    radar = [np.array([[-22, -11, -13, -2, -22, np.nan]], np.float32), np.array([[-26, -17, -19, -8, -26, -20]], np.float32)]
    return compute_indices(optical, radar)


def test_indices_are_those_of_their_papers() -> None:
    layers = spectra()
    assert layers["ndvi"][0, 1] == pytest.approx((0.40 - 0.03) / 0.43)
    assert layers["ndwi"][0, 0] == pytest.approx(0.04 / 0.08)
    assert layers["mndwi"][0, 0] == pytest.approx(0.05 / 0.07)
    assert layers["dbsi"][0, 2] == pytest.approx((0.35 - 0.12) / 0.47 - 0.04 / 0.40)
    assert layers["sar"][0].tolist()[:2] == [-24, -14]
    assert np.isnan(layers["sar"][0, 5])


def test_rules_name_what_is_known_and_leave_the_rest(tmp_path: Path) -> None:
    rules = index_sources(scene_of(tmp_path, sar=("sentinel1", 2), optical=("sentinel2_l2a", 12))).rules()
    layers = spectra()
    layers["ndvi"][0, 4] = 0.7
    told = label_by_rules(layers, rules, PERCENTILES)  # type: ignore[arg-type]
    assert told[0].tolist() == [WATER, VEGETATION, BARE, BUILT, -1, -1]
    # The greenest fifth of a desert is no vegetation.
    layers["ndvi"][0, 1] = 0.2
    assert label_by_rules(layers, rules, {**PERCENTILES, ("ndvi", 80.0): 0.1})[0, 1] == -1  # type: ignore[dict-item]
