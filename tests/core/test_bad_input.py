"""Bad input, end to end: a clear error that says where and what to do, nothing half written and nothing lost."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.core.jobs.running import ROOT, check_refused, rewrite_raster, run_command, run_here, snapshot

ODD_NAME = 'drone\'s "été" 2021 ü %d'


def with_optical(job: dict, *paths: str | Path) -> dict:
    return {**job, "inputs": {**job["inputs"], "optical": [str(path) for path in paths]}}


def existing(path: str) -> None:
    Path(path).write_bytes(b"what was here before")


@pytest.fixture
def jobs(map_job: dict, finetune_job_beside: dict) -> list[dict]:
    """One job that maps and one that trains; whatever they would write is there already."""
    return [map_job, finetune_job_beside]


@pytest.fixture
def finetune_job_beside(map_job: dict, sample, tmp_path: Path) -> dict:
    job = {
        "kind": "finetune",
        "inputs": map_job["inputs"],
        "labels": {"path": str(sample.labels), "class_field": "class"},
        "output_model": str(tmp_path / "out" / "model.safetensors"),
        "report": str(tmp_path / "out" / "report.html"),
    }
    for path in (map_job["output"], job["output_model"], job["report"]):
        existing(path)
    return job


# --- rasters ---------------------------------------------------------------------------------------------------------


def test_no_crs(jobs, sample, tmp_path):
    path = rewrite_raster(sample.optical, tmp_path / "nowhere.tif", crs=None)
    for job in jobs:
        check_refused(with_optical(job, path), tmp_path, path, "coordinate reference system", "Assign projection")


def test_rasters_that_do_not_overlap(jobs, sample, tmp_path):
    from affine import Affine

    path = rewrite_raster(sample.sar, tmp_path / "elsewhere.tif", transform=Affine(10, 0, 9e5, 0, -10, 5e6))
    for job in jobs:
        job = {**job, "inputs": {**job["inputs"], "sar": [path]}}
        check_refused(job, tmp_path, path, str(sample.optical), "does not overlap")


def test_nothing_but_nodata(jobs, sample, tmp_path):
    path = rewrite_raster(sample.optical, tmp_path / "empty.tif", lambda values, _: values * 0)
    for job in jobs:
        check_refused(with_optical(job, path), tmp_path, path, "nothing but nodata")


def test_the_same_value_everywhere(jobs, sample, tmp_path):
    path = rewrite_raster(sample.optical, tmp_path / "flat.tif", lambda values, _: values * 0 + 700)
    for job in jobs:
        check_refused(with_optical(job, path), tmp_path, path, "the same value everywhere", "700")


def test_missing_raster(jobs, tmp_path):
    for job in jobs:
        check_refused(with_optical(job, tmp_path / "none.tif"), tmp_path, str(tmp_path / "none.tif"), "does not exist")


@pytest.mark.parametrize("kept", [0.5, 0.01])
def test_truncated_raster(jobs, sample, tmp_path, kept):
    path = tmp_path / "cut.tif"
    content = sample.optical.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    for job in jobs:
        check_refused(with_optical(job, path), tmp_path, str(path), "truncated")


def test_a_file_that_is_no_raster(jobs, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("no raster")
    for job in jobs:
        check_refused(with_optical(job, path), tmp_path, str(path), "cannot be opened")


@pytest.mark.parametrize(
    "source",
    [
        "contextualWMSLegend=0&crs=EPSG:3857&format=image/png&layers=a&styles=&url=http://example.org/wms",
        "type=xyz&url=https://example.org/{z}/{x}/{y}.png",
        "WMS:http://example.org/wms?LAYERS=a",
    ],
)
def test_web_service(jobs, tmp_path, source):
    for job in jobs:
        check_refused(with_optical(job, source), tmp_path, source, "web service", "GeoTIFF")


def test_description_file_of_a_web_service(jobs, tmp_path):
    path = tmp_path / "service.xml"
    path.write_text(
        "<GDAL_WMS><Service name='TMS'><ServerUrl>http://127.0.0.1:9/${z}/${x}/${y}.png</ServerUrl></Service><DataWindow>"
        "<UpperLeftX>-20037508</UpperLeftX><UpperLeftY>20037508</UpperLeftY><LowerRightX>20037508</LowerRightX>"
        "<LowerRightY>-20037508</LowerRightY><TileLevel>3</TileLevel><TileCountX>1</TileCountX><TileCountY>1</TileCountY>"
        "<YOrigin>top</YOrigin></DataWindow><Projection>EPSG:3857</Projection><BandsCount>3</BandsCount></GDAL_WMS>"
    )
    for job in jobs:
        check_refused(with_optical(job, path), tmp_path, str(path), "web service")


def test_no_raster_at_all(jobs, tmp_path):
    for job in jobs:
        check_refused({**job, "inputs": {}}, tmp_path, "inputs", "at least one of optical, sar", code=2)


def test_integer_and_64_bit_nodata_work(map_job, sample, tmp_path):
    """The same pixels missing under any type of value: the same map."""
    nodata = {"uint16": 0, "int16": -9999, "int64": -(2**40), "uint64": 2**50, "float64": -1e300}
    maps = {}
    for kind, missing in nodata.items():

        def change(values, profile, kind=kind, missing=missing):
            values = values.astype(kind)
            values[:, 30:60, 40:90] = missing
            profile["nodata"] = missing
            return values

        path = rewrite_raster(sample.optical, tmp_path / f"{kind}.tif", change)
        output = str(tmp_path / "out" / f"{kind}.tif")
        told = run_here({**with_optical(map_job, path), "missing_inputs": "require", "output": output})
        assert told.code == 0, told.last
        maps[kind] = read_codes(told.outputs["OUTPUT"])
    for kind, codes in maps.items():
        np.testing.assert_array_equal(codes, maps["uint16"], err_msg=kind)
    assert not maps["uint16"][30:60, 40:90].any()
    assert maps["uint16"][:30].any()


def read_codes(path: str | Path) -> np.ndarray:
    import rasterio

    with rasterio.open(path) as dataset:
        return dataset.read(1)


# --- models ----------------------------------------------------------------------------------------------------------


def test_a_band_that_the_model_needs_is_named(map_job, sample, tmp_path):
    existing(map_job["output"])
    path = tmp_path / "eleven.tif"
    import rasterio

    with rasterio.open(sample.optical) as dataset:
        names, tags, values, profile = dataset.descriptions, dataset.tags(), dataset.read(), dataset.profile
    kept = [index for index, name in enumerate(names) if name != "B8A"]
    profile.update(count=len(kept))
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(values[kept])
        dataset.descriptions = tuple(names[index] for index in kept)
        dataset.update_tags(**tags)
    check_refused(with_optical(map_job, path), tmp_path, "band B8A of sentinel2_l2a", str(path))


def test_a_model_of_other_sensors(map_job, sample, tmp_path):
    existing(map_job["output"])
    without_radar = {**map_job, "inputs": {"optical": [str(sample.optical)]}, "missing_inputs": "require"}
    check_refused(without_radar, tmp_path, "sentinel1 as sar input")
    only_height = {"elevation": [str(sample.elevation)]}
    check_refused({**map_job, "inputs": only_height}, tmp_path, "sentinel2_l2a as optical", "sentinel1 as sar", "dsm")


def test_a_base_model_of_other_sensors(finetune_job, sample, trained, tmp_path):
    """Some of its inputs may be missing where that is allowed, but not all of them."""
    job = {**finetune_job, "mode": "full", "base_model": str(trained.model)}
    check_refused({**job, "missing_inputs": "require"}, tmp_path, "sentinel1 as sar input")
    heights = {**job, "inputs": {"elevation": [str(sample.elevation)]}}
    check_refused(heights, tmp_path, "sentinel2_l2a as optical input", "sentinel1 as sar input")


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"encoder": "vit"}, ["encoder 'vit'"]),
        ({"fusion": "late", "encoder": "unet"}, ["fusion 'late'"]),
        ({"size": "base", "fusion": "early", "encoder": "resnet"}, ["encoder 'resnet', fusion 'early', size 'base'"]),
        ({"encoder": "vit", "size": "large"}, ["encoder 'vit', size 'large'"]),
    ],
)
def test_parts_that_a_base_model_does_not_have(finetune_job_beside, trained, tmp_path, parts, words):
    job = {**finetune_job_beside, "mode": "full", "base_model": str(trained.model), **parts}
    has = "encoder 'unet', fusion 'intermediate', size 'tiny'"
    told = check_refused(job, tmp_path, *words, str(trained.model), has, code=2)
    assert "without a base model" in told.last["hint"]


class Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.pkl", "model.safetensors"])
def test_a_pickle_is_refused_and_never_opened(map_job, finetune_job_beside, tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.write_bytes(pickle.dumps(Bomb()))
    for job in ({**map_job, "model": str(path)}, {**finetune_job_beside, "base_model": str(path)}):
        check_refused(job, tmp_path, str(path), ".safetensors")
    assert not (tmp_path / "exploded").exists()


def test_missing_damaged_and_foreign_models(map_job, trained, tmp_path):
    existing(map_job["output"])
    check_refused({**map_job, "model": str(tmp_path / "none.safetensors")}, tmp_path, "none.safetensors", "does not exist")
    content = trained.model.read_bytes()
    for name, damaged in (("cut", content[: len(content) // 2]), ("empty", b""), ("noise", b"\xff" * 200)):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(damaged)
        check_refused({**map_job, "model": str(path)}, tmp_path, str(path))
    from safetensors.numpy import save_file

    save_file({"weight": np.zeros(3, np.float32)}, tmp_path / "foreign.safetensors")
    check_refused({**map_job, "model": str(tmp_path / "foreign.safetensors")}, tmp_path, "foreign.safetensors")


# --- labels ----------------------------------------------------------------------------------------------------------


def with_labels(job: dict, **changes: object) -> dict:
    return {**job, "labels": {**job["labels"], **changes}}


def vector(sample, path: Path, change=lambda frame: frame) -> str:
    import geopandas

    change(geopandas.read_file(sample.labels)).to_file(path, driver="GPKG")
    return str(path)


def test_a_field_that_does_not_exist(finetune_job_beside, sample, tmp_path):
    told = check_refused(with_labels(finetune_job_beside, class_field="klass"), tmp_path, "'klass'", str(sample.labels))
    assert "'class'" in told.message
    assert "'code'" in told.message


def test_labels_elsewhere(finetune_job_beside, sample, tmp_path):
    path = vector(sample, tmp_path / "far.gpkg", lambda frame: frame.set_geometry(frame.translate(20, 0)))
    check_refused(with_labels(finetune_job_beside, path=path), tmp_path, path, "No label", "inside the scene", "CRS")


def test_labels_of_one_class(finetune_job_beside, sample, tmp_path):
    path = vector(sample, tmp_path / "one.gpkg", lambda frame: frame[frame["class"] == "Water"])
    check_refused(with_labels(finetune_job_beside, path=path), tmp_path, path, "'Water'", "at least two classes")


def test_labels_in_one_place(finetune_job_beside, sample, tmp_path):
    path = vector(sample, tmp_path / "few.gpkg", lambda frame: frame.groupby("class").head(1))
    check_refused(with_labels(finetune_job_beside, path=path), tmp_path, "validated", "at least two polygons a class")


def test_labels_missing_damaged_or_without_crs(finetune_job_beside, sample, tmp_path):
    job = finetune_job_beside
    check_refused(with_labels(job, path=str(tmp_path / "none.gpkg")), tmp_path, "none.gpkg", "does not exist")
    path = tmp_path / "cut.gpkg"
    path.write_bytes(sample.labels.read_bytes()[:5000])
    check_refused(with_labels(job, path=str(path)), tmp_path, str(path))
    lost = vector(sample, tmp_path / "lost.gpkg", lambda frame: frame.set_crs(None, allow_override=True))
    check_refused(with_labels(job, path=lost), tmp_path, lost)
    check_refused(with_labels(job, layer="fields"), tmp_path, "'fields'", "'labels'")
    check_refused(with_labels(job, class_scheme="corine_9"), tmp_path, "'corine_9'", "corine_level1")


def test_labels_where_a_raster_has_no_data(finetune_job_beside, sample, tmp_path):
    """Two classes on paper, one where there are pixels to learn from."""
    import geopandas
    import rasterio
    from rasterio.features import geometry_mask

    frame = geopandas.read_file(sample.labels)
    with rasterio.open(sample.optical) as dataset:
        shapes = frame[frame["class"] != "Water"].to_crs(dataset.crs).geometry
        gone = geometry_mask(shapes.buffer(15), dataset.shape, dataset.transform, invert=True)

    path = rewrite_raster(sample.optical, tmp_path / "gaps.tif", lambda values, _: np.where(gone, 0, values).astype("uint16"))
    job = {**finetune_job_beside, "inputs": {"optical": [path]}}
    told = check_refused(job, tmp_path, "Only the labels of 'Water'", "at least two classes")
    assert "lie where a raster has no data" in told.texts("warning")


def test_a_reference_that_does_not_fit_the_map(sample, tmp_path):
    existing(str(tmp_path / "report.html"))
    job = {"kind": "accuracy", "map": str(sample.truth), "report": str(tmp_path / "report.html")}
    reference = {"path": str(sample.reference), "class_field": "class"}
    far = vector(sample, tmp_path / "far.gpkg", lambda frame: frame.set_geometry(frame.translate(20, 0)))
    check_refused({**job, "reference": {**reference, "path": far}}, tmp_path, far, "No label")
    check_refused({**job, "reference": {**reference, "class_field": "kind"}}, tmp_path, "'kind'", "'class'")
    check_refused({**job, "map": str(sample.optical), "reference": reference}, tmp_path, "12 bands")
    check_refused({**job, "map": str(sample.sar), "reference": reference}, tmp_path, "2 bands")
    renamed = vector(sample, tmp_path / "moon.gpkg", lambda frame: frame.replace({"class": {"Water": "Mare"}}))
    check_refused({**job, "reference": {**reference, "path": renamed}}, tmp_path, "'Mare'", "Water")
    one = rewrite_raster(sample.truth, tmp_path / "one.tif", lambda values, _: values * 0 + 3)
    check_refused({**job, "map": one, "reference": reference}, tmp_path, one)


# --- outputs ---------------------------------------------------------------------------------------------------------


def test_output_that_is_an_input(map_job, finetune_job_beside, sample, tmp_path):
    optical = tmp_path / "optical.tif"
    shutil.copy(sample.optical, optical)
    link = tmp_path / "link.tif"
    link.symlink_to(optical)
    job = with_optical(map_job, optical)
    for path in (optical, link, tmp_path / "out" / ".." / "optical.tif"):
        check_refused({**job, "output": str(path)}, tmp_path, "also an input")
        check_refused({**job, "confidence": str(path)}, tmp_path, "also an input")
    base = tmp_path / "base.safetensors"
    base.write_bytes(b"a model")
    check_refused({**finetune_job_beside, "base_model": str(base), "output_model": str(base)}, tmp_path, "also an input")
    page = tmp_path / "reference.html"
    page.write_bytes(b"labels of a strange kind")
    accuracy = {"kind": "accuracy", "map": str(sample.truth), "reference": {"path": str(page), "class_field": "class"}}
    check_refused({**accuracy, "report": str(page)}, tmp_path, "also an input")


def test_two_outputs_in_one_file(map_job, finetune_job_beside, tmp_path):
    check_refused({**map_job, "probabilities": map_job["output"]}, tmp_path, "output", "probabilities", "the same file")
    again = str(tmp_path / "out" / "." / "map.tif")
    check_refused({**map_job, "confidence": again}, tmp_path, "output", "confidence", "the same file")
    same_style = str(tmp_path / "out" / "map.tiff")
    check_refused({**map_job, "confidence": same_style}, tmp_path, "style", "differs in more than its suffix")


@pytest.mark.parametrize(
    ("key", "name", "suffix"),
    [
        ("output_model", "model.pt", ".safetensors"),
        ("output_model", "model", ".safetensors"),
        ("report", "report.pdf", ".html"),
        ("report", "model.safetensors", ".html"),
    ],
)
def test_training_outputs_with_another_suffix(finetune_job_beside, tmp_path, key, name, suffix):
    check_refused({**finetune_job_beside, key: str(tmp_path / "out" / name)}, tmp_path, key, name, suffix)


@pytest.mark.parametrize("key", ["output", "confidence", "probabilities"])
def test_map_outputs_with_another_suffix(map_job, tmp_path, key):
    check_refused({**map_job, key: str(tmp_path / "out" / "map.png")}, tmp_path, key, "map.png", ".tif")


def test_style_of_another_layer_is_not_replaced(map_job, sample, tmp_path):
    """QGIS keeps the style of places.gpkg in places.qml, where that of places.tif would go."""
    folder = tmp_path / "out"
    shutil.copy(sample.labels, folder / "places.gpkg")
    (folder / "places.qml").write_text("drawn with care")
    check_refused({**map_job, "output": str(folder / "places.tif")}, tmp_path, "places.qml", "places.gpkg")


@pytest.mark.parametrize("key", ["output", "confidence", "probabilities"])
def test_folder_that_is_missing_or_none(map_job, tmp_path, key):
    check_refused({**map_job, key: str(tmp_path / "none" / "map.tif")}, tmp_path, str(tmp_path / "none"), "does not exist")
    existing(map_job["output"])
    inside_a_file = str(Path(map_job["output"]) / "map.tif")
    check_refused({**map_job, key: inside_a_file}, tmp_path, map_job["output"])
    folder = tmp_path / "folder.tif"
    folder.mkdir()
    check_refused({**map_job, key: str(folder)}, tmp_path, str(folder), "is a folder")


@pytest.fixture
def as_somebody():
    """The rest of the test has no rights beyond those that the files give it."""
    if not hasattr(os, "geteuid"):
        pytest.skip("this system has no user numbers")
    if os.geteuid() != 0:
        yield
        return
    os.setegid(65534)
    os.seteuid(65534)
    yield
    os.seteuid(0)
    os.setegid(0)


def test_read_only_folder_and_file(map_job, finetune_job_beside, sample, trained, tmp_path, request):
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "old.tif").write_bytes(b"old")
    (tmp_path / "out" / "protected.tif").write_bytes(b"old")
    (tmp_path / "out" / "protected.tif").chmod(0o444)
    os.chmod(tmp_path / "out", 0o777)
    closed.chmod(0o555)
    for folder in (tmp_path, *tmp_path.parents[:3], trained.model.parent, sample.folder, sample.folder.parent):
        folder.chmod(folder.stat().st_mode | 0o055)
    for name in ("map.tif", "model.safetensors", "report.html"):
        (tmp_path / "out" / name).chmod(0o666)
    request.getfixturevalue("as_somebody")
    check_refused({**map_job, "output": str(closed / "map.tif")}, tmp_path, str(closed), "cannot be written to")
    check_refused({**map_job, "output": str(closed / "old.tif")}, tmp_path, str(closed), "cannot be written to")
    check_refused({**map_job, "output": str(tmp_path / "out" / "protected.tif")}, tmp_path, "protected.tif", "read-only")
    check_refused({**finetune_job_beside, "output_model": str(closed / "m.safetensors")}, tmp_path, str(closed))
    check_refused({**finetune_job_beside, "report": str(closed / "r.html")}, tmp_path, str(closed))
    check_refused({"kind": "sample-scene", "output": str(closed / "scene"), "size": 64}, tmp_path, str(closed))


@pytest.fixture
def small_disk(tmp_path: Path):
    """A folder on a disk of its own, made with a size in KiB."""
    places = []

    def make(kibibytes: int) -> Path:
        place = tmp_path / "disk"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(place)]
        if not hasattr(os, "geteuid") or os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("a disk of a chosen size needs the right to mount one")
        places.append(place)
        return place

    yield make
    for place in places:
        subprocess.run(["umount", str(place)], check=True)


def test_full_disk_of_a_map(map_job, small_disk):
    """Room for the check, for an old map and for part of the new rasters."""
    disk = small_disk(340)
    job = {**map_job, "output": str(disk / "map.tif"), "confidence": str(disk / "confidence.tif")}
    job["probabilities"] = str(disk / "probabilities.tif")
    for key in ("output", "confidence", "probabilities"):
        existing(job[key])
    check_refused(job, disk, "probabilities.tif", "Free some space")


def test_disk_that_is_full_at_the_very_end(map_job, small_disk):
    """The rasters fit and their attribute table does not: nothing is replaced, and nothing has to be mapped again."""
    disk = small_disk(64)
    filler = disk / "filler"
    existing(map_job["output"])
    job = {**map_job, "output": str(disk / "map.tif")}
    existing(job["output"])

    def fill(context, event) -> None:
        if event.get("phase") == "Finishing the rasters":
            with filler.open("wb") as file:
                try:
                    while True:
                        file.write(b"x" * 512)
                        file.flush()
                except OSError:
                    pass

    before = snapshot(disk)
    told = run_here(job, fill)
    filler.unlink()
    assert told.code == 1
    assert "disk" in told.message or "space" in told.message
    strips = {name for name in snapshot(disk) if name.startswith(".map.tif.strips")}
    assert {name: data for name, data in snapshot(disk).items() if name not in strips} == before
    again = run_here(job)
    assert again.code == 0, again.last
    assert "are taken over" in again.texts("info")
    assert not [name for name in snapshot(disk) if name.startswith(".")]


def test_full_disk_of_a_training(finetune_job, small_disk):
    disk = small_disk(1024)
    job = {**finetune_job, "output_model": str(disk / "model.safetensors"), "report": str(disk / "report.html")}
    existing(job["output_model"])
    told = check_refused(job, disk, "model.safetensors", "MiB are free", "Free some space")
    assert not [event for event in told.events if "Training" in event.get("phase", "")]


def test_report_that_does_not_fit(sample, small_disk):
    disk = small_disk(32)
    job = {"kind": "accuracy", "map": str(sample.truth), "reference": {"path": str(sample.reference), "class_field": "class"}}
    job["report"] = str(disk / "report.html")
    existing(job["report"])
    check_refused(job, disk, f"'{job['report']}' cannot be written", "space")


def test_full_disk_of_a_scene(small_disk):
    disk = small_disk(512)
    check_refused({"kind": "sample-scene", "output": str(disk / "scene"), "size": 256}, disk, "MiB left", "Free some space")


def test_a_file_that_may_not_grow(map_job, tmp_path):
    """A quota shows as an error of the operating system in the middle of a raster, on a disk with room to spare."""
    job = {**map_job, "output": str(tmp_path / "out" / "map.tif"), "probabilities": str(tmp_path / "out" / "p.tif")}
    existing(job["output"])
    before = snapshot(tmp_path / "out")
    (tmp_path / "job.json").write_text(json.dumps(job))
    limited = (
        "import resource, signal, sys\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60000, 60000))\n"
        "from core.cli import main\nsys.argv = ['rsfusion', *sys.argv[1:]]\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, "run", str(tmp_path / "job.json"), "--json"], cwd=ROOT, capture_output=True, text=True
    )
    last = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 1
    assert last["event"] == "error"
    assert "p.tif" in last["message"]
    assert "traceback" not in last
    assert snapshot(tmp_path / "out") == before


# --- keys and values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"overlaps": 0.5}, ["overlaps", "Extra inputs"]),
        ({"overlap": "much"}, ["overlap", "'much'"]),
        ({"overlap": 0.9}, ["overlap", "0.75", "0.9"]),
        ({"overlap": float("nan")}, ["overlap"]),
        ({"format": "png"}, ["format", "gtiff", "cog"]),
        ({"missing_inputs": True}, ["missing_inputs", "'allow' or 'require'"]),
        ({"output": None}, ["output"]),
        ({"output": 7}, ["output", "7"]),
        ({"model": ["a"]}, ["model"]),
        ({"extent": {"left": 2, "right": 1, "bottom": 0, "top": 1, "crs": "EPSG:4326"}}, ["extent", "no area"]),
        ({"extent": {"left": 0, "right": float("inf"), "bottom": 0, "top": 1, "crs": "EPSG:4326"}}, ["extent.right"]),
        ({"extent": {"left": 0, "right": 1, "bottom": 0, "top": 1, "crs": "here"}}, ["extent.crs", "'here'"]),
        ({"kind": "guess"}, ["guess", "sample-scene"]),
    ],
)
def test_wrong_keys_and_values(map_job, tmp_path, changes, words):
    check_refused({**map_job, **changes}, tmp_path, *words, code=2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 0}, ["epochs", "greater than or equal to 1"]),
        ({"epochs": 1.5}, ["epochs", "1.5"]),
        ({"seed": -1}, ["seed"]),
        ({"validation_fraction": 1.0}, ["validation_fraction"]),
        ({"block_size": 0}, ["block_size"]),
        ({"architecture": "resnet"}, ["architecture", "unet_early"]),
        ({"encoder": "resunet", "size": "tiny"}, ["'resunet'", "'tiny'", "small, base, large"]),
        ({"fusion": "middle"}, ["fusion", "'middle'", "joint_tokens"]),
        ({"missing_inputs": "no"}, ["missing_inputs", "'allow' or 'require'"]),
        ({"labels": {"path": "a.gpkg"}}, ["labels.class_field"]),
        ({"inputs": {"optical": "a.tif"}}, ["inputs.optical", "list"]),
        ({"inputs": {"optical": ["a.tif"], "resolution": float("inf")}}, ["inputs.resolution"]),
        ({"inputs": {"optical": ["a.tif"], "sentinel2_offset": "maybe"}}, ["inputs.sentinel2_offset", "auto"]),
    ],
)
def test_wrong_keys_and_values_of_a_training(finetune_job, tmp_path, changes, words):
    check_refused({**finetune_job, **changes}, tmp_path, *words, code=2)


@pytest.mark.parametrize("device", ["cuda:7", "abacus", "meta", "mps:3"])
def test_device_that_is_not_there(jobs, tmp_path, device):
    import torch

    if device.startswith("mps") and torch.backends.mps.is_available():
        pytest.skip("this machine has the device")
    for job in jobs:
        check_refused({**job, "device": device}, tmp_path, f"'{device}'", "cpu")


def test_sensor_that_nobody_knows(jobs, tmp_path):
    for job in jobs:
        check_refused({**job, "inputs": {**job["inputs"], "optical_sensor": "sputnik"}}, tmp_path, "sputnik", "sentinel2_l2a")


def test_resolution_in_the_wrong_unit(jobs, sample, tmp_path):
    for job in jobs:
        for resolution in (0.0001, 50000):
            wrong = {**job, "inputs": {**job["inputs"], "resolution": resolution}}
            check_refused(wrong, tmp_path, f"resolution of {resolution:g}", str(sample.optical), "metre")


def test_extent_and_mask_outside(map_job, sample, tmp_path):
    existing(map_job["output"])
    extent = {"left": 0, "bottom": 0, "right": 1, "top": 1, "crs": "EPSG:4326"}
    check_refused({**map_job, "extent": extent}, tmp_path, "(0.0, 0.0, 1.0, 1.0)", "does not overlap", "inside the scene")
    far = vector(sample, tmp_path / "far.gpkg", lambda frame: frame.set_geometry(frame.translate(20, 0)))
    check_refused({**map_job, "mask": far}, tmp_path, far, "overlaps the scene")
    check_refused({**map_job, "mask": str(sample.reference)}, tmp_path, str(sample.reference), "no polygon")
    check_refused({**map_job, "mask": str(tmp_path / "none.gpkg")}, tmp_path, "none.gpkg")
    corner = {"left": 311_278, "bottom": 5_818_721, "right": 311_279, "top": 5_818_722, "crs": "EPSG:32633"}
    beyond_the_swath = {**map_job, "extent": corner, "missing_inputs": "require"}
    check_refused(beyond_the_swath, tmp_path, "Nothing was mapped", "every raster of the model", "nodata")
    radar_alone = {**map_job, "extent": corner, "inputs": {"sar": map_job["inputs"]["sar"]}}
    check_refused(radar_alone, tmp_path, "Nothing was mapped", "any raster that shows the ground")


# --- through the real programs ---------------------------------------------------------------------------------------


def test_odd_paths_work(sample, trained, tmp_path):
    folder = tmp_path / ODD_NAME
    folder.mkdir()
    inputs = []
    for source in (sample.optical, sample.sar, trained.model):
        inputs.append(folder / f"{ODD_NAME} {source.name}")
        shutil.copy(source, inputs[-1])
    output = folder / f"{ODD_NAME}.tif"
    arguments = ["--optical", inputs[0], "--sar", inputs[1], "--model", inputs[2], "--output", output]
    told = run_command("map", *map(str, arguments), "--confidence", str(folder / "c.tif"), cwd=folder)
    assert told.code == 0, (told.events[-1:], told.stderr)
    assert told.outputs["OUTPUT"] == str(output)
    made = {path.name for path in folder.iterdir()} - {path.name for path in inputs}
    assert made == {output.name, f"{output.name}.aux.xml", output.with_suffix(".qml").name, "c.tif", "c.qml"}


def test_commands_end_with_the_codes(sample, trained, tmp_path):
    inputs = ["--optical", str(tmp_path / "none.tif"), "--model", str(trained.model), "--output", str(tmp_path / "map.tif")]
    told = run_command("map", *inputs)
    assert (told.code, told.last["kind"]) == (1, "RasterError")
    assert "none.tif" in told.message
    told = run_command("map", *inputs, "--overlap", "2")
    assert (told.code, told.last["kind"]) == (2, "UsageError")
    assert "overlap" in told.message
    assert run_command("map", "--optical", "a.tif").code == 2
    assert not list(tmp_path.iterdir())
