"""The job that maps: where, in which form, and what stands beside the map."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.windows import from_bounds

from core.jobs.schemas import MAP_LAYERS
from tests.core.jobs.running import EPOCH, rewrite_raster, run_here, snapshot

INNER = {"left": 310_200.0, "bottom": 5_819_000.0, "right": 310_900.0, "top": 5_819_600.0, "crs": "EPSG:32633"}


def read(path: str | Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read()


@pytest.fixture(scope="module")
def mapped(sample, trained, tmp_path_factory):
    """All rasters of the whole scene, and what was said on the way."""
    folder = tmp_path_factory.mktemp("mapped")
    job = {"kind": "map", "inputs": trained.job["inputs"], "model": str(trained.model), "overlap": 0.0}
    for key in ("output", *MAP_LAYERS):
        job[key] = str(folder / f"{key}.tif")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", EPOCH)
        told = run_here(job)
    assert told.code == 0, told.last
    return job, told, folder


def test_the_rasters_say_the_same(mapped, sample):
    job, told, folder = mapped
    codes, confidence, probabilities = (read(job[key]) for key in ("output", "confidence", "probabilities"))
    check_agreement(codes[0], confidence[0], probabilities)
    assert (codes[0] > 0).all(), "the radar's swath ends inside the scene, and the optical raster covers it all"
    with rasterio.open(job["output"]) as ours, rasterio.open(sample.optical) as optical:
        assert (ours.crs, ours.transform, ours.shape) == (optical.crs, optical.transform, optical.shape)
        assert (ours.nodata, ours.dtypes) == (0, ("uint8",))
    with rasterio.open(job["confidence"]) as dataset:
        assert dataset.nodata == 255
    with rasterio.open(job["probabilities"]) as dataset:
        assert np.isnan(dataset.nodata)
        assert dataset.descriptions == ("Bare ground", "Built-up", "Crops", "Grassland", "Trees", "Water", "Wetland")
    assert set(told.outputs) == {"OUTPUT", *(key.upper() for key in MAP_LAYERS), "DEVICE_USED"}
    names = {"output.tif", "output.tif.aux.xml", "output.qml", *(f"{key}.tif" for key in MAP_LAYERS)}
    names |= {f"{key}.qml" for key in MAP_LAYERS if key != "probabilities"}
    assert set(snapshot(folder)) == names


def check_agreement(codes, confidence, probabilities) -> None:
    is_mapped = codes > 0
    assert is_mapped.mean() > 0.9
    np.testing.assert_allclose(probabilities.sum(axis=0)[is_mapped], 1, atol=1e-5)
    assert np.isnan(probabilities[:, ~is_mapped]).all()
    assert (confidence[~is_mapped] == 255).all()
    assert confidence[is_mapped].max() <= 100
    best = probabilities[:, is_mapped]
    np.testing.assert_array_equal(codes[is_mapped], best.argmax(axis=0) + 1)
    np.testing.assert_array_equal(confidence[is_mapped], np.rint(best.max(axis=0) * 100))


def test_doubt_is_that_of_the_probabilities(mapped):
    job, _, _ = mapped
    probabilities = read(job["probabilities"]).astype(np.float64)
    ordered = np.sort(probabilities, axis=0)
    np.testing.assert_allclose(read(job["margin"])[0], 100 * (ordered[-1] - ordered[-2]), atol=0.51)
    terms = np.where(probabilities > 0, probabilities * np.log(np.maximum(probabilities, 1e-30)), 0)
    np.testing.assert_allclose(read(job["entropy"])[0], -100 * terms.sum(axis=0) / np.log(7), atol=0.51)


def test_an_input_contributes_where_it_is(mapped, sample):
    job, _, _ = mapped
    with rasterio.open(job["contributions"]) as dataset:
        assert dataset.descriptions == ("sentinel2_l2a", "sentinel1")
        contributions = dataset.read()
    covered = np.isfinite(read(sample.sar)).all(axis=0)
    assert not covered.all()
    # Away from the swath's border, where tiles are no others for its presence: nothing comes of what is not there.
    assert (contributions[1][~covered] == 0).mean() > 0.9
    assert contributions[1][covered].mean() > 1
    assert contributions[0].mean() > contributions[1].mean(), "the optical raster tells most of the simulated classes"


def test_novelty_is_low_on_labelled_ground_and_high_on_strange_ground(mapped, map_job, sample, trained, tmp_path):
    job, _, _ = mapped
    familiar = read(job["novelty"])[0]
    assert np.median(familiar) < 1
    strange = tmp_path / "strange.tif"

    def change(values, profile):
        values[:, :64, :64] = values[:, :64, :64][::-1] * 3
        return values

    rewrite_raster(sample.optical, strange, change)
    inputs = {**job["inputs"], "optical": [str(strange)]}
    told = run_here({**map_job, "inputs": inputs, "novelty": str(tmp_path / "novelty.tif")})
    assert told.code == 0, told.last
    found = read(tmp_path / "novelty.tif")[0]
    assert np.median(found[8:56, 8:56]) > 2 * np.median(familiar[8:56, 8:56])
    np.testing.assert_allclose(found[200:, 200:], familiar[200:, 200:], atol=1e-4)


def test_a_map_of_places_that_all_inputs_cover(mapped, map_job, sample, tmp_path):
    """The radar's swath ends inside the scene: beyond it the map is left empty, and elsewhere it is the same."""
    job = {**map_job, "missing_inputs": "require"}
    job |= {key: str(tmp_path / f"{key}.tif") for key in ("confidence", "probabilities")}
    told = run_here(job)
    assert told.code == 0, told.last
    codes, confidence, probabilities = (read(job[key]) for key in ("output", "confidence", "probabilities"))
    check_agreement(codes[0], confidence[0], probabilities)
    covered = np.isfinite(read(sample.sar)).all(axis=0)
    assert not covered.all()
    np.testing.assert_array_equal(codes[0] > 0, covered)
    np.testing.assert_array_equal(codes[0][covered], read(mapped[0]["output"])[0][covered])
    assert f"Not mapped: {np.count_nonzero(~covered)} of {128 * 128} pixels" in told.texts("info")
    assert "of the map rests on" not in told.texts("info")


def test_what_a_map_rests_on_is_said(mapped, sample):
    part = np.isfinite(read(sample.sar)).all(axis=0).mean()
    assert f"{part:.1%} of the map rests on sentinel2_l2a, sentinel1." in mapped[1].texts("info")
    assert f"{1 - part:.1%} of the map rests on sentinel2_l2a." in mapped[1].texts("info")


@pytest.mark.parametrize(("role", "other"), [("optical", "sentinel1 (sar)"), ("sar", "sentinel2_l2a (optical)")])
def test_a_map_without_one_of_the_inputs(map_job, sample, role, other):
    job = {**map_job, "inputs": {role: map_job["inputs"][role]}}
    told = run_here(job)
    assert told.code == 0, told.last
    assert f"Mapped without {other}" in told.texts("warning")
    covered = np.isfinite(read(sample.sar)).all(axis=0) if role == "sar" else np.ones((128, 128), bool)
    np.testing.assert_array_equal(read(job["output"])[0] > 0, covered)
    refused = run_here({**job, "missing_inputs": "require"})
    assert (refused.code, refused.last["kind"]) == (1, "SensorError")
    assert other.split()[0] in refused.message


def test_the_map_says_where_it_comes_from(mapped, trained):
    from core.models.model_file import file_digest

    with rasterio.open(mapped[0]["output"]) as dataset:
        tags = dataset.tags()
    assert tags["RSFUSION_MODEL_SHA256"] == file_digest(trained.model)
    assert tags["RSFUSION_CREATED"] == "2023-11-14T22:13:20+00:00"
    assert json.loads(tags["RSFUSION_INPUTS"]) == {"sentinel2_l2a": ["sentinel2_l2a.tif"], "sentinel1": ["sentinel1_vv_vh.tif"]}
    assert json.loads(tags["RSFUSION_SETTINGS"]) == {
        "overlap": 0.0,
        "format": "gtiff",
        "extent": None,
        "missing_inputs": "allow",
        "precision": "float32",
        "resolution": None,
        "mask": None,
    }
    assert [entry["name"] for entry in json.loads(tags["RSFUSION_CLASSES"])][:2] == ["Bare ground", "Built-up"]
    assert str(trained.model.parent) not in json.dumps(tags), "folders say more of the user than of the data"


def test_areas_in_the_log_are_those_of_the_map(mapped):
    job, told, _ = mapped
    codes, counts = np.unique(read(job["output"]), return_counts=True)
    count = dict(zip(codes.tolist(), counts.tolist(), strict=True))
    assert f"Water: {count[6]} pixels, " in told.texts("info")
    assert "Not mapped" not in told.texts("info")
    # A pixel of 100 square metres on the map is some permille more on the ground.
    hectares = float(told.texts("info").split(f"Water: {count[6]} pixels, ")[1].split(" ha")[0])
    assert hectares == pytest.approx(count[6] / 100, rel=0.005, abs=0.06)


def test_the_same_map_twice_and_no_progress_back(mapped, tmp_path):
    job, told, folder = mapped
    again = run_here(job | {key: str(tmp_path / f"{key}.tif") for key in ("output", *MAP_LAYERS)})
    assert snapshot(tmp_path) == snapshot(folder)
    for each in (told, again):
        assert each.fractions == sorted(each.fractions)
        assert (each.fractions[0], each.fractions[-1]) == (0.0, 1.0)


def test_the_map_of_an_extent_is_that_part_of_the_map(mapped, map_job):
    told = run_here({**map_job, "extent": INNER})
    with rasterio.open(mapped[0]["output"]) as whole, rasterio.open(told.outputs["OUTPUT"]) as part:
        window = from_bounds(INNER["left"], INNER["bottom"], INNER["right"], INNER["top"], whole.transform)
        assert part.bounds == (INNER["left"], INNER["bottom"], INNER["right"], INNER["top"])
        np.testing.assert_array_equal(part.read(1), whole.read(1, window=window))


def test_an_extent_in_degrees_covers_the_same_ground(map_job):
    from rasterio.warp import transform_bounds

    left, bottom, right, top = transform_bounds(
        "EPSG:32633", "EPSG:4326", *(INNER[k] for k in ("left", "bottom", "right", "top"))
    )
    extent = {"left": left, "bottom": bottom, "right": right, "top": top, "crs": "EPSG:4326"}
    told = run_here({**map_job, "extent": extent})
    with rasterio.open(told.outputs["OUTPUT"]) as part:
        assert part.bounds.left <= INNER["left"] < part.bounds.left + 40
        assert part.bounds.top - 40 < INNER["top"] <= part.bounds.top


def test_a_mask_limits_the_map(mapped, map_job, tmp_path):
    import geopandas
    from rasterio.features import geometry_mask
    from shapely.geometry import Point

    circle = geopandas.GeoDataFrame(geometry=[Point(310_600, 5_819_400).buffer(250)], crs="EPSG:32633")
    circle.to_crs("EPSG:4326").to_file(tmp_path / "mask.gpkg", driver="GPKG")
    told = run_here({**map_job, "mask": str(tmp_path / "mask.gpkg")})
    whole, part = read(mapped[0]["output"])[0], read(told.outputs["OUTPUT"])[0]
    with rasterio.open(told.outputs["OUTPUT"]) as dataset:
        inside = geometry_mask(circle.geometry, dataset.shape, dataset.transform, invert=True)
    assert inside.sum() > 1500
    assert ((part > 0) != inside).sum() <= 4, "a pixel on the line may fall either way after two projections"
    both = (part > 0) & inside
    np.testing.assert_array_equal(part[both], whole[both])


def test_a_cloud_optimised_map(mapped, map_job):
    told = run_here({**map_job, "format": "cog"})
    with rasterio.open(told.outputs["OUTPUT"]) as dataset:
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dataset.tags()["RSFUSION_MODEL"] == "model.safetensors"
        assert dataset.colormap(1)[1][3] == 255
    np.testing.assert_array_equal(read(told.outputs["OUTPUT"]), read(mapped[0]["output"]))


def test_another_resolution_is_a_warning(map_job):
    told = run_here({**map_job, "inputs": {**map_job["inputs"], "resolution": 20}, "extent": INNER})
    assert told.code == 0
    with rasterio.open(told.outputs["OUTPUT"]) as dataset:
        assert dataset.res == (20, 20)
    assert "20 m and the model was trained at 10 m" in told.texts("warning")


def test_rasters_that_the_model_does_not_know_are_left_out(mapped, map_job, sample):
    told = run_here({**map_job, "inputs": {**map_job["inputs"], "elevation": [str(sample.elevation)]}})
    assert "Not used, because the model was trained without: dsm" in told.texts("info")
    np.testing.assert_array_equal(read(told.outputs["OUTPUT"]), read(mapped[0]["output"]))


def test_a_raster_that_does_not_say_what_it_is(mapped, map_job, sample, tmp_path):
    """Twelve nameless bands: the sensor that the model knows is tried."""
    with rasterio.open(sample.optical) as dataset:
        values, profile = dataset.read(), dataset.profile
    path = tmp_path / "unnamed.tif"
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(values)
    told = run_here({**map_job, "inputs": {**map_job["inputs"], "optical": [str(path)], "sentinel2_offset": "no"}})
    np.testing.assert_array_equal(read(told.outputs["OUTPUT"]), read(mapped[0]["output"]))


def test_files_of_one_role_tile_the_ground(mapped, map_job, sample, tmp_path):
    halves = []
    for name, columns in (("west", slice(0, 70)), ("east", slice(60, 128))):

        def crop(values, profile, columns=columns):
            profile["transform"] = profile["transform"] @ rasterio.Affine.translation(columns.start, 0)
            return values[:, :, columns]

        halves.append(rewrite_raster(sample.optical, tmp_path / f"{name}.tif", crop))
    told = run_here({**map_job, "inputs": {**map_job["inputs"], "optical": halves}})
    assert told.code == 0, told.last
    np.testing.assert_array_equal(read(told.outputs["OUTPUT"]), read(mapped[0]["output"]))


def test_cancelling_a_map_leaves_the_old_one(map_job, tmp_path):
    Path(map_job["output"]).write_bytes(b"old")
    before = snapshot(tmp_path)

    def cancel(context, event) -> None:
        if event.get("phase", "").startswith("Mapping"):
            assert snapshot(tmp_path) != before
            context.cancel()

    told = run_here({**map_job, "confidence": str(tmp_path / "out" / "c.tif")}, cancel)
    assert (told.code, told.last) == (130, {"event": "cancelled"})
    assert snapshot(tmp_path) == before


def test_a_map_replaces_an_old_one_with_its_style(mapped, map_job):
    output = Path(map_job["output"])
    for path in (output, output.with_suffix(".qml"), Path(f"{output}.aux.xml"), Path(f"{output}.ovr")):
        path.write_bytes(b"old")
    told = run_here(map_job)
    assert told.code == 0, told.last
    assert set(snapshot(output.parent)) == {"map.tif", "map.qml", "map.tif.aux.xml"}
    assert "Built-up" in output.with_suffix(".qml").read_text()
    assert "Built-up" in Path(f"{output}.aux.xml").read_text()
