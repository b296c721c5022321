"""Descriptors of polygons against values computed by hand, on a scene of two rasters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
import torch
from rasterio.transform import from_origin

from core.labels.scene_labels import Units
from core.mapping import unit_descriptors
from core.mapping.unit_descriptors import UnitDescriptors, describe_units
from core.models.scene_model import SceneModel
from core.models.specification import EstimatorSpecification
from core.models.specify import specify_model
from core.scenes.scene import Scene, SceneRequest, build_scene, select

LEFT, TOP, SIDE = 500_000.0, 5_600_000.0, 40
CPU = torch.device("cpu")


def write_raster(path: Path, values: np.ndarray, names: tuple[str, ...], metres: float = 10.0) -> str:
    profile = {"driver": "GTiff", "count": len(values), "dtype": "float32", "nodata": float("nan"), "crs": "EPSG:32633"}
    profile |= {"height": values.shape[1], "width": values.shape[2], "transform": from_origin(LEFT, TOP, metres, metres)}
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(values.astype(np.float32))
        dataset.descriptions = names
    return str(path)


def box(column: float, row: float, width: float, height: float) -> shapely.Polygon:
    """The rectangle of some pixels."""
    return shapely.box(LEFT + 10 * column, TOP - 10 * (row + height), LEFT + 10 * (column + width), TOP - 10 * row)


def units_of(*shapes: shapely.Polygon) -> Units:
    return Units(np.array(shapes, object), np.arange(1, len(shapes) + 1), "EPSG:32633")


@pytest.fixture
def radar() -> np.ndarray:
    """VV and VH in dB, of which the last columns are missing."""
    values = np.random.default_rng(0).uniform(-20, -5, (2, SIDE, SIDE)).astype(np.float32)
    values[:, :, 36:] = np.nan
    return values


@pytest.fixture
def heights() -> np.ndarray:
    values = np.random.default_rng(1).uniform(100, 140, (1, SIDE, SIDE)).astype(np.float32)
    values[:, 30:] = np.nan
    return values


@pytest.fixture
def scene(radar, heights, tmp_path) -> Scene:
    sar = write_raster(tmp_path / "s1.tif", radar, ("VV", "VH"))
    height = write_raster(tmp_path / "hag.tif", heights, ("height",))
    sensors = {"sar": "sentinel1", "elevation": "height_above_ground"}
    return build_scene(SceneRequest({"sar": [sar], "elevation": [height]}, sensors))


def model_of(scene: Scene) -> SceneModel:
    specification = specify_model(scene, "unet_early", 2)
    changed = {"head": "scene", "has_shortcut": False, "estimator": EstimatorSpecification(kind="logistic")}
    return SceneModel(specification.model_copy(update=changed)).eval()


def described(scene: Scene, units: Units, model: SceneModel | None = None) -> UnitDescriptors:
    return describe_units(model or model_of(scene), scene, units, CPU, lambda fraction, phase: None)


def by_hand(model: SceneModel, name: str, values: np.ndarray) -> np.ndarray:
    """Statistics of (bands, n) physical values; bands in the order of their names."""
    bands = sorted(model.modalities[name].bands, key=lambda band: band.name)
    order = [model.modalities[name].band_names.index(band.name) for band in bands]
    mean, deviation = (np.array([getattr(b, key) for b in bands])[:, None] for key in ("mean", "standard_deviation"))
    normal = (values[order] - mean) / deviation
    return np.concatenate([normal.mean(axis=1), normal.std(axis=1), *np.quantile(normal, (0.1, 0.5, 0.9), axis=1)])


def test_statistics_of_a_polygon(scene, radar, heights):
    model = model_of(scene)
    found = described(scene, units_of(box(2, 3, 7, 5)), model)
    assert found.pixels.tolist() == [35]
    assert found.valid_share.tolist() == [1.0]
    parts = dict(zip(model.layout.names, model.layout.parts, strict=True))
    for name, values in (("sentinel1", radar), ("height_above_ground", heights)):
        expected = by_hand(model, name, values[:, 3:8, 2:9].reshape(len(values), -1).astype(np.float64))
        np.testing.assert_allclose(found.rows[0, parts[name]], expected, rtol=1e-4, atol=1e-4)


def test_what_is_missing_does_not_count(scene, radar):
    """A quarter of a polygon without radar, one without heights, one beyond the scene, one without anything."""
    model = model_of(scene)
    found = described(scene, units_of(box(32, 2, 8, 4), box(4, 32, 4, 4), box(-4, 2, 8, 4), box(37, 32, 2, 2)), model)
    assert found.valid_share.tolist() == [0.5, 1.0, 0.5, 0.0]
    assert found.pixels.tolist() == [16, 16, 16, 0]
    radar_part, height_part = model.layout.parts
    expected = by_hand(model, "sentinel1", radar[:, 2:6, 32:36].reshape(2, -1).astype(np.float64))
    np.testing.assert_allclose(found.rows[0, radar_part], expected, rtol=1e-4, atol=1e-4)
    assert np.isfinite(found.rows[1, radar_part]).all()
    assert np.isnan(found.rows[1, height_part]).all()
    assert np.isnan(found.rows[3]).all()
    assert [sorted(model.layout.subsets[number]) for number in model.layout.numbers(found.rows)[:3]] == [
        ["height_above_ground", "sentinel1"],
        ["sentinel1"],
        ["height_above_ground", "sentinel1"],
    ]


def test_blocks_do_not_show(scene, monkeypatch):
    units = units_of(box(0, 0, 40, 40), box(3, 5, 30, 9), shapely.Point(LEFT + 200, TOP - 200).buffer(130))
    whole = described(scene, units)
    monkeypatch.setattr(unit_descriptors, "BLOCK", 16)
    parts = described(scene, units)
    np.testing.assert_array_equal(parts.pixels, whole.pixels)
    np.testing.assert_allclose(parts.rows, whole.rows, rtol=1e-5, atol=1e-6)


def test_large_polygons_are_thinned_for_their_quantiles(scene, radar, monkeypatch):
    from core.models import scene_descriptors

    model, units = model_of(scene), units_of(box(0, 0, 36, 30))
    whole = described(scene, units, model)
    monkeypatch.setattr(scene_descriptors, "QUANTILE_PIXELS", 200)
    thinned = described(scene, units, model)
    exact = slice(0, 2 * 2)
    np.testing.assert_array_equal(thinned.rows[:, exact], whole.rows[:, exact])
    difference = np.abs(thinned.rows - whole.rows)[0, model.layout.parts[0]]
    assert 0 < difference.max() < 0.2


def test_a_sensor_that_was_not_given_is_missing(scene):
    model = model_of(scene)
    needed = [(each.name, each.role, each.sensor, each.band_names, each.scale) for each in model.modalities.values()]
    alone = select(scene, needed[:1], True)
    found = described(alone, units_of(box(2, 3, 7, 5)), model)
    assert np.isfinite(found.rows[:, model.layout.parts[0]]).all()
    assert np.isnan(found.rows[:, model.layout.parts[1]]).all()
