"""Pixels drawn from a map: uniformly within each class, and without the map in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from scipy import stats

from core.assessment import drawing
from core.assessment.drawing import apart, centres, count_rows, draw_pixels
from core.mapping.class_raster import ClassRaster, class_areas, open_class_raster

HEIGHT, WIDTH = 83, 61


def silent(fraction: float, phase: str) -> None:
    pass


def write(path: Path, codes: np.ndarray, crs: str = "EPSG:32633", pixel: float = 10.0) -> ClassRaster:
    origin = (500_000.0, 5_600_000.0) if crs == "EPSG:32633" else (12.0, 51.0)
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "nodata": 0, "crs": crs}
    profile |= {"height": codes.shape[0], "width": codes.shape[1]}
    with rasterio.open(path, "w", **profile, transform=Affine(pixel, 0, origin[0], 0, -pixel, origin[1])) as dataset:
        dataset.write(codes, 1)
    return open_class_raster(str(path))


@pytest.fixture
def codes() -> np.ndarray:
    generator = np.random.default_rng(5)
    values = generator.choice(np.array([0, 2, 7, 9], np.uint8), (HEIGHT, WIDTH), p=[0.2, 0.5, 0.27, 0.03])
    values[30:40] = 0
    return values


@pytest.fixture(params=[2**24, 200], ids=["one strip", "strips of three rows"])
def strips(request, monkeypatch) -> None:
    monkeypatch.setattr(drawing, "STRIP_PIXELS", request.param)


def test_counts_and_areas_are_those_of_the_map(codes, strips, tmp_path) -> None:
    raster = write(tmp_path / "map.tif", codes)
    rows = count_rows(raster, silent)
    assert rows.codes.tolist() == [2, 7, 9]
    assert rows.pixels.tolist() == [int((codes == code).sum()) for code in (2, 7, 9)]
    assert dict(zip(rows.codes.tolist(), rows.hectares, strict=True)) == pytest.approx(
        {code: area for code, area in class_areas(raster).hectares.items() if code}
    )


def test_points_lie_in_their_class_once_each(codes, strips, tmp_path) -> None:
    raster = write(tmp_path / "map.tif", codes)
    rows = count_rows(raster, silent)
    units = np.array([300, 200, rows.pixels[2]])
    drawn = draw_pixels(raster, rows, units, np.random.default_rng(1), silent)
    assert (codes[drawn.rows, drawn.columns] == rows.codes[drawn.stratum]).all()
    assert np.bincount(drawn.stratum).tolist() == units.tolist()
    assert len({*zip(drawn.rows.tolist(), drawn.columns.tolist(), strict=True)}) == len(drawn)


def test_the_strips_do_not_matter(codes, tmp_path, monkeypatch) -> None:
    raster = write(tmp_path / "map.tif", codes)
    found = []
    for pixels in (2**24, 200, 1):
        monkeypatch.setattr(drawing, "STRIP_PIXELS", pixels)
        rows = count_rows(raster, silent)
        found.append(draw_pixels(raster, rows, np.array([30, 20, 10]), np.random.default_rng(1), silent))
    for other in found[1:]:
        for key in ("stratum", "rows", "columns"):
            np.testing.assert_array_equal(getattr(found[0], key), getattr(other, key))


def test_every_pixel_of_a_class_is_as_likely(codes, tmp_path) -> None:
    """Chi-squared over all pixels of all classes in 3000 samples."""
    raster = write(tmp_path / "map.tif", codes)
    rows = count_rows(raster, silent)
    units = np.array([40, 40, 40])
    hits = np.zeros(codes.shape, np.int64)
    generator = np.random.default_rng(11)
    for _ in range(3000):
        drawn = draw_pixels(raster, rows, units, generator, silent)
        hits[drawn.rows, drawn.columns] += 1
    assert not hits[codes == 0].any()
    for code, pixels in zip(rows.codes, rows.pixels, strict=True):
        own = hits[codes == code]
        expected = 3000 * 40 / pixels
        # Of a draw without replacement a count's variance is smaller by the share that is not drawn.
        statistic = ((own - expected) ** 2 / expected / (1 - 40 / pixels)).sum()
        assert 0.001 < stats.chi2.sf(statistic, pixels - 1) < 0.999, code


def test_the_order_tells_nothing_of_the_class(codes, tmp_path) -> None:
    raster = write(tmp_path / "map.tif", codes)
    rows = count_rows(raster, silent)
    drawn = draw_pixels(raster, rows, np.array([200, 100, 50]), np.random.default_rng(2), silent)
    places = [np.flatnonzero(drawn.stratum == k) for k in range(3)]
    assert stats.kruskal(*places).pvalue > 0.01
    assert stats.spearmanr(np.arange(len(drawn)), drawn.rows).pvalue > 0.01


@pytest.mark.parametrize(("crs", "pixel"), [("EPSG:32633", 10.0), ("EPSG:4326", 0.0001)])
def test_points_keep_their_distance_in_metres(codes, tmp_path, crs, pixel) -> None:
    from pyproj import Geod

    raster = write(tmp_path / "map.tif", codes, crs, pixel)
    rows = count_rows(raster, silent)
    candidates = draw_pixels(raster, rows, rows.pixels, np.random.default_rng(3), silent)
    chosen = apart(candidates, raster.grid, np.array([20, 15, 5]), 45.0)
    assert np.bincount(chosen.stratum).tolist() == [20, 15, 5]
    from core.scenes.grid import transformer_between

    longitudes, latitudes = transformer_between(crs, "EPSG:4326").transform(*centres(raster.grid, chosen))
    one, two = np.triu_indices(len(chosen), 1)
    distances = Geod(ellps="WGS84").inv(longitudes[one], latitudes[one], longitudes[two], latitudes[two])[2]
    assert 45.0 * (1 - 1e-5) < distances.min() < 70
    crowded = apart(candidates, raster.grid, np.array([2000, 1000, 100]), 200.0)
    assert 3 < len(crowded) < 60
