"""Change between the images of two dates, on a simulated pair with a known changed block."""

import json

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from shapely.geometry import box

from core.finetuning.change import estimators as change_estimators
from core.finetuning.change.estimators import ChangeFeatures
from core.jobs.change import detection
from core.jobs.change import preview as change_preview
from core.jobs.change.preview import PREVIEW_SIDE
from core.jobs.change.training import UNCHANGED_COLOUR
from core.mapping.class_raster import open_class_raster
from core.models.alteration import fit_alteration
from core.scenes.date_pair import PairReader, pair_dates
from core.scenes.grid import Window
from core.scenes.scene import SceneRequest, build_scene
from tests.core.jobs.running import check_refused, run_command, run_here, snapshot

ROWS, COLUMNS, BANDS, PIXEL = 120, 150, 4, 10
LEFT, TOP = 500_000, 5_600_000
BLOCK = (slice(40, 70), slice(60, 110))
HECTARES = 30 * 50 * PIXEL**2 / 10_000
NAMES = ("blue", "green", "red", "nir")


def write(path, values, left=LEFT, top=TOP, names=NAMES, crs="EPSG:32633"):
    profile = {"driver": "GTiff", "crs": crs, "transform": Affine(PIXEL, 0, left, 0, -PIXEL, top), "nodata": -9999}
    shape = {"count": len(values), "height": values.shape[1], "width": values.shape[2], "dtype": "float32"}
    with rasterio.open(path, "w", **profile, **shape) as dataset:
        dataset.write(values.astype(np.float32))
        dataset.descriptions = names
    return str(path)


@pytest.fixture
def images():
    """(2, C, rows, columns), with new ground in the block."""
    generator = np.random.default_rng(1)
    fields = generator.normal(size=(BANDS, ROWS // 10, COLUMNS // 10)).repeat(10, axis=1).repeat(10, axis=2)
    before = 50 + 10 * fields + generator.normal(size=(BANDS, ROWS, COLUMNS))
    after = 0.7 * before + 20 + generator.normal(size=before.shape)
    after[:, *BLOCK] = 60 + np.arange(BANDS)[:, None, None] * 10 + 3 * generator.normal(size=(BANDS, 30, 50))
    return np.stack([before, after]).astype(np.float32)


@pytest.fixture
def job(images, tmp_path):
    """Missing are the pixel (3, 5) of one band of the first date and (100, 20) of the second."""
    images[0, 1, 3, 5], images[1, 2, 100, 20] = -9999, -9999
    paths = [write(tmp_path / f"{name}.tif", values) for name, values in zip(("one", "two"), images, strict=True)]
    return {
        "kind": "detect-change",
        "inputs": {"optical": paths[:1], "optical_sensor": "generic"},
        "after_optical": paths[1:],
        "output": str(tmp_path / "change.tif"),
    }


@pytest.fixture
def labels(tmp_path):
    """Squares of 4 x 4 pixels, twelve changed and twenty unchanged."""
    squares, kinds = [], []
    for row in range(2, ROWS - 6, 12):
        for column in range(2, COLUMNS - 6, 12):
            inside = 40 <= row <= 66 and 60 <= column <= 106
            if not inside and (40 - 4 < row < 70 and 60 - 4 < column < 110):
                continue
            x, y = LEFT + column * PIXEL, TOP - row * PIXEL
            squares.append(box(x, y - 4 * PIXEL, x + 4 * PIXEL, y))
            kinds.append("new" if inside else "unchanged")
    path = tmp_path / "labels.gpkg"
    geopandas.GeoDataFrame({"kind": kinds}, geometry=squares, crs="EPSG:32633").to_file(path, driver="GPKG")
    return {"path": str(path), "class_field": "kind"}


def codes_of(path):
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def truth():
    changed = np.zeros((ROWS, COLUMNS), bool)
    changed[BLOCK] = True
    return changed


def missing():
    gaps = np.zeros((ROWS, COLUMNS), bool)
    gaps[3, 5] = gaps[100, 20] = True
    return gaps


def test_without_labels_the_changed_block_is_found(job, tmp_path):
    job |= {"probability": str(tmp_path / "probability.tif"), "variates": str(tmp_path / "variates.tif")}
    told = run_here(job)
    codes = codes_of(job["output"])
    np.testing.assert_array_equal(codes == 0, missing())
    assert ((codes == 2) != truth())[~missing()].mean() < 0.004
    assert told.outputs["CHANGED_HECTARES"] == pytest.approx(HECTARES, rel=0.02)
    assert told.outputs["OVERALL_ACCURACY"] == ""
    assert "Made without labels" in told.texts("warning")
    assert "in 0.100% of its pixels" in told.texts("info")
    assert open_class_raster(job["output"]).scheme.names == ("Unchanged", "Changed")
    with rasterio.open(job["output"]) as dataset:
        assert json.loads(dataset.tags()["RSFUSION_INPUTS"]) == {"before": ["one.tif"], "after": ["two.tif"]}
    with rasterio.open(job["variates"]) as dataset:
        variates = dataset.read()
    assert variates.shape == (BANDS + 1, ROWS, COLUMNS)
    np.testing.assert_array_equal(np.isnan(variates).any(axis=0), missing())
    np.testing.assert_allclose(variates[0], np.linalg.norm(variates[1:], axis=0), rtol=1e-4)
    probability = codes_of(job["probability"])
    assert np.nanmin(probability[truth()]) > 99
    made = {"change.tif", "change.tif.aux.xml", "change.qml", "probability.tif", "probability.qml", "variates.tif"}
    assert set(snapshot(tmp_path)) == made | {"variates.qml", "one.tif", "two.tif"}


def test_a_stated_probability_is_a_test_at_that_level(job):
    told = run_here({**job, "no_change_probability": 0.1})
    # What has not changed is a mixture with normal noise, so that the test holds its level.
    assert 0.07 < (codes_of(job["output"]) == 2)[~truth()].mean() < 0.13
    assert told.outputs["CHANGED_PERCENT"] > 100 * truth().mean()


def test_strips_of_any_height_give_the_same(job, tmp_path, monkeypatch):
    job["variates"] = str(tmp_path / "variates.tif")
    run_here(job)
    with rasterio.open(job["variates"]) as dataset:
        expected = dataset.read()
    monkeypatch.setattr(change_estimators, "_STRIP_PIXELS", 17 * COLUMNS)
    run_here(job)
    with rasterio.open(job["variates"]) as dataset:
        np.testing.assert_allclose(dataset.read(), expected, rtol=1e-5, atol=1e-5)


def test_a_large_scene_is_fitted_on_a_lattice_of_its_pixels(job, monkeypatch):
    run_here(job)
    expected = codes_of(job["output"])
    monkeypatch.setattr(detection, "MOST_VALUES", 2 * BANDS * ROWS * COLUMNS // 9)
    run_here(job)
    assert (codes_of(job["output"]) != expected).mean() < 0.005


def test_labels_make_a_map_of_kinds_of_change_with_a_report(job, labels, tmp_path):
    job |= {"labels": labels, "probability": str(tmp_path / "probability.tif"), "report": str(tmp_path / "report.html")}
    told = run_here(job)
    scheme = open_class_raster(job["output"]).scheme
    codes = codes_of(job["output"])
    new = scheme.codes[scheme.names.index("new")]
    assert scheme.colours[scheme.names.index("unchanged")] == UNCHANGED_COLOUR
    np.testing.assert_array_equal(codes == 0, missing())
    assert ((codes == new) != truth())[~missing()].mean() < 0.02
    assert told.outputs["OVERALL_ACCURACY"] > 0.97
    assert told.outputs["CHANGED_HECTARES"] == pytest.approx(HECTARES, rel=0.1)
    probability = codes_of(job["probability"])
    np.testing.assert_array_equal((probability > 50)[~missing()], (codes == new)[~missing()])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Random forest on both dates" in page
    assert "ha in the map" in page
    assert "labelled pixels in" in told.texts("info")
    assert "each told by estimators that did not learn from its part" in page
    assert "The imagery beside the map is that of the second date." in page
    first = snapshot(tmp_path)
    words = [
        "--optical",
        job["inputs"]["optical"][0],
        "--optical-sensor",
        "generic",
        "--after-optical",
        job["after_optical"][0],
    ]
    words += ["--labels", labels["path"], "--class-field", "kind", "--output", job["output"]]
    words += ["--probability", job["probability"], "--report", job["report"]]
    assert run_command("detect-change", *words).code == 0
    assert codes_of(job["output"]).tolist() == codes.tolist()
    assert set(snapshot(tmp_path)) == set(first)


@pytest.mark.parametrize("side", [PREVIEW_SIDE, 40])
def test_the_picture_of_the_map_is_every_nth_pixel_of_it(job, side, monkeypatch):
    """Whatever the height of the strips that it is collected from."""
    monkeypatch.setattr(change_preview, "PREVIEW_SIDE", side)
    scenes = [build_scene(SceneRequest({"optical": [p]}, {"optical": "generic"})) for p in _both(job)]
    preview = change_preview.ChangePreview(pair_dates(*scenes))
    codes = np.random.default_rng(0).integers(1, 9, (ROWS, COLUMNS)).astype(np.uint8)
    for row in range(0, ROWS, 7):
        preview.add(Window(0, row, COLUMNS, min(7, ROWS - row)), codes[row : row + 7])
    step = -(-COLUMNS // side)
    np.testing.assert_array_equal(preview.codes, codes[::step, ::step])
    assert preview.imagery().shape == (*preview.codes.shape, 3)


def test_features_do_not_depend_on_the_window(job):
    scenes = [build_scene(SceneRequest({"optical": [p]}, {"optical": "generic"})) for p in _both(job)]
    with PairReader(pair_dates(*scenes)) as reader:
        values = reader.read(Window(0, 0, COLUMNS, ROWS)).reshape(2, BANDS, -1)
        alteration = fit_alteration(values[:, :, np.isfinite(values[0, 0])], lambda part, phase: None)
        features = ChangeFeatures(reader, alteration)
        whole, part = features.of(Window(0, 0, COLUMNS, ROWS)), features.of(Window(30, 40, 50, 21))
    np.testing.assert_allclose(part, whole[:, 40:61, 30:80], rtol=1e-4, atol=1e-3)
    assert len(whole) == len(features.columns["all"])


def _both(job):
    return job["inputs"]["optical"] + job["after_optical"]


def test_the_second_date_may_lie_on_another_grid(job, images, tmp_path):
    """It begins 30 m further east and ends further south; what it does not show is nodata."""
    moved = np.pad(images[1][:, :, 3:], ((0, 0), (0, 5), (0, 0)), mode="edge")
    job["after_optical"] = [write(tmp_path / "two.tif", moved, left=LEFT + 3 * PIXEL)]
    assert run_here(job).code == 0
    codes = codes_of(job["output"])
    assert codes.shape == (ROWS, COLUMNS)
    assert not codes[:, :3].any()
    assert ((codes == 2) != truth())[:, 3:].mean() < 0.004


def test_classes_without_one_that_means_no_change(job, labels, tmp_path):
    job |= {"labels": labels, "unchanged": "stable"}
    told = run_here(job)
    assert told.outputs["CHANGED_HECTARES"] == ""
    assert "No class of the labels is called 'stable'" in told.texts("warning")
    for path in tmp_path.glob("change.*"):
        path.unlink()
    check_refused({**job, "probability": str(tmp_path / "p.tif")}, tmp_path, "'stable'", "'unchanged'")


def test_wrong_input_is_named(job, images, tmp_path):
    far = write(tmp_path / "far.tif", images[1], left=LEFT + 90_000)
    check_refused({**job, "after_optical": [far]}, tmp_path, "far.tif", "do not overlap")
    other = write(tmp_path / "other.tif", images[1], names=("a", "b", "c", "d"))
    check_refused({**job, "after_optical": [other]}, tmp_path, "no band of one sensor in common", "red")
    check_refused({**job, "after_optical": []}, tmp_path, "No raster of the second date", code=2)
    check_refused({**job, "report": str(tmp_path / "r.html")}, tmp_path, "nothing to measure", code=2)
    check_refused({**job, "output": job["after_optical"][0]}, tmp_path, "also an input")
    gap = np.where((np.arange(COLUMNS) < 4) & (np.arange(ROWS) < 2)[:, None], images[1], -9999)
    hardly = write(tmp_path / "hardly.tif", gap)
    check_refused({**job, "after_optical": [hardly]}, tmp_path, "cannot be compared: 8 pixels are too few for 4 bands")


def test_labels_of_one_class_are_refused(job, labels, tmp_path):
    frame = geopandas.read_file(labels["path"])
    frame[frame["kind"] == "new"].to_file(tmp_path / "one.gpkg", driver="GPKG")
    check_refused({**job, "labels": {**labels, "path": str(tmp_path / "one.gpkg")}}, tmp_path, "new")


def test_bands_of_one_date_only_are_left_out_and_named(job, images, tmp_path):
    job["after_optical"] = [write(tmp_path / "two.tif", images[1][:3], names=NAMES[:3])]
    told = run_here(job)
    assert told.code == 0
    assert "only one date has them: nir" in told.texts("warning")
    assert ((codes_of(job["output"]) == 2) != truth()).mean() < 0.01


def test_a_cancelled_job_leaves_nothing(job, tmp_path):
    before = snapshot(tmp_path)

    def stop(context, event):
        if event["event"] == "progress" and event["phase"] == "Writing the change":
            context.cancel()

    assert run_here(job, stop).code == 130
    assert snapshot(tmp_path) == before
