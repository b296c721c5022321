"""The whole way through ``qgis_process`` with the real worker, each time from a profile that did not exist before."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow

AFTER_THE_MAP = ("cleanmap", "vectorizemap", "zonalareas", "changemap")


class QgisProcess:
    """``qgis_process`` with a profile of its own.

    Args:
        profile: folder of the profile; made by QGIS.
        plugins: folder in which QGIS finds the plugin; None for the profile's own.
        python: of the worker; None for none.
    """

    # Debian's wrapper passes an option that the program of 3.22 refuses.
    PROGRAM = shutil.which("qgis_process.bin") or shutil.which("qgis_process")

    def __init__(self, profile, plugins=None, python=None):
        self.environment = {key: value for key, value in os.environ.items() if key != "RSFUSION_PYTHON"}
        self.environment.update(QGIS_CUSTOM_CONFIG_PATH=str(profile), QT_QPA_PLATFORM="offscreen")
        if plugins is not None:
            self.environment["QGIS_PLUGINPATH"] = str(plugins)
        if python is not None:
            self.environment["RSFUSION_PYTHON"] = python

    def __call__(self, *words, timeout=900):
        return subprocess.run(
            [self.PROGRAM, *map(str, words)],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )

    def command(self, name, values):
        words = [self.PROGRAM, "run", "rsfusion:" + name, "--"]
        for key, value in values.items():
            words += [f"{key}={entry}" for entry in (value if isinstance(value, list) else [value])]
        return words

    def run(self, name, **values):
        return self(*self.command(name, values)[1:])


def outputs_of(answer):
    """The results that ``qgis_process`` prints."""
    assert answer.returncode == 0, answer.stdout[-3000:] + answer.stderr[-3000:]
    return dict(re.findall(r"^([A-Z0-9_]+):\t(.*)$", answer.stdout.partition("Results")[2], re.MULTILINE))


@pytest.fixture(scope="module")
def qgis(tmp_path_factory, real_python):
    """A fresh profile with the plugin of this checkout enabled."""
    process = QgisProcess(tmp_path_factory.mktemp("profile"), ROOT, real_python)
    enabled = process("plugins", "enable", "rsfusion_plugin")
    assert enabled.returncode == 0, enabled.stderr
    return process


@pytest.fixture(scope="module")
def scene(qgis, tmp_path_factory):
    folder = tmp_path_factory.mktemp("with a space, an é and a 'quote'") / "scene"
    outputs = outputs_of(qgis.run("samplescene", SIZE=96, SEED=4, OUTPUT=folder))
    assert outputs["OUTPUT"] == str(folder)
    return outputs


@pytest.fixture(scope="module")
def model(qgis, scene, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    answer = qgis.run(
        "finetune",
        OPTICAL=scene["OPTICAL"],
        SAR=scene["SAR"],
        ELEVATION=scene["ELEVATION"],
        LABELS=scene["LABELS"],
        CLASS_FIELD="class",
        EPOCHS=2,
        DEVICE="cpu",
        OUTPUT_MODEL=folder / "model.safetensors",
        REPORT=folder / "report.html",
    )
    outputs = outputs_of(answer)
    assert 0 < float(outputs["OVERALL_ACCURACY"]) <= 1
    assert 0 < float(outputs["MACRO_F1"]) <= 1
    assert 0 < float(outputs["EXPECTED_CALIBRATION_ERROR"]) < 1
    assert "pixels" in outputs["MODEL_USED"] or "U-Net" in outputs["MODEL_USED"]
    assert outputs["DEVICE_USED"].startswith("cpu")
    assert "<html" in (folder / "report.html").read_text(encoding="utf-8").lower()
    assert "rsfusion finetune --optical" in answer.stdout + answer.stderr
    return outputs["OUTPUT_MODEL"]


def test_the_algorithms_are_listed_and_documented(qgis):
    listing = qgis("list").stdout
    for name in (
        "setupenvironment",
        "samplescene",
        "pretrain",
        "finetune",
        "landcovermap",
        "features",
        "classifyscenes",
        "suggestlabels",
        "pseudolabels",
        "samplingdesign",
        "accuracy",
        *AFTER_THE_MAP,
    ):
        assert "rsfusion:" + name in listing
    help_text = qgis("help", "rsfusion:landcovermap").stdout
    assert "OPTICAL_SENSOR" in help_text
    assert "MISSING_INPUTS" in help_text
    help_text = qgis("help", "rsfusion:finetune").stdout
    for word in ("ENCODER", "FUSION", "SIZE", "MISSING_INPUTS", "resunet_late", "asymmetric_attention"):
        assert word in help_text
    assert "sentinel2_l2a" in help_text


def test_parts_of_a_model_are_asked_for_by_their_names(qgis, scene, tmp_path):
    """The refusal of what does not exist shows that all of them arrive, in seconds."""
    values = {"OPTICAL": scene["OPTICAL"], "LABELS": scene["LABELS"], "CLASS_FIELD": "class"}
    parts = {"ARCHITECTURE": "unet_late", "ENCODER": "resunet", "FUSION": "cross_modality", "SIZE": "tiny"}
    answer = qgis.run("finetune", OUTPUT_MODEL=tmp_path / "m.safetensors", MISSING_INPUTS="require", **parts, **values)
    said = answer.stdout + answer.stderr
    assert answer.returncode != 0
    assert "The encoder 'resunet' does not come in the size 'tiny'. Choose one of small, base, large." in said
    assert "--architecture unet_late --encoder resunet --fusion cross_modality --size tiny --missing-inputs require" in said
    assert os.listdir(tmp_path) == []


def test_from_rasters_alone_to_a_model_and_its_features(qgis, scene, tmp_path):
    from osgeo import gdal

    values = {"OPTICAL": scene["OPTICAL"], "SAR": scene["SAR"]}
    answer = qgis.run(
        "pretrain",
        **values,
        SIZE="tiny",
        EPOCHS=1,
        WINDOWS=8,
        BATCH_SIZE=4,
        SWITCHES="ratio=0.4",
        OUTPUT_MODEL=tmp_path / "base.safetensors",
        REPORT=tmp_path / "report.html",
    )
    outputs = outputs_of(answer)
    assert float(outputs["EFFECTIVE_RANK"]) > 1
    assert "--switch ratio=0.4" in answer.stdout + answer.stderr
    assert "<html" in (tmp_path / "report.html").read_text(encoding="utf-8").lower()
    answer = qgis.run("features", **values, MODEL=outputs["OUTPUT_MODEL"], PICTURE="true", OUTPUT=tmp_path / "picture.tif")
    dataset = gdal.Open(outputs_of(answer)["OUTPUT"])
    assert (dataset.RasterCount, dataset.RasterXSize) == (3, 96)
    assert dataset.ReadAsArray().std() > 10
    labels = {"LABELS": scene["LABELS"], "CLASS_FIELD": "class", "BASE_MODEL": outputs["OUTPUT_MODEL"], "EPOCHS": 2}
    answer = qgis.run("finetune", **values, **labels, MODE="adapters", OUTPUT_MODEL=tmp_path / "model.safetensors")
    assert "U-Net" in outputs_of(answer)["MODEL_USED"]
    assert "--mode adapters" in answer.stdout + answer.stderr


def test_scenes_are_classified_from_polygons_with_classes(qgis, scene, tmp_path):
    from osgeo import ogr

    values = {"OPTICAL": scene["OPTICAL"], "SAR": scene["SAR"], "TRAINING": scene["LABELS"], "CLASS_FIELD": "class"}
    files = {"OUTPUT": tmp_path / "scenes.gpkg", "OUTPUT_MODEL": tmp_path / "m.safetensors", "REPORT": tmp_path / "r.html"}
    answer = qgis.run("classifyscenes", CELL_SIZE=160, **values, **files)
    outputs = outputs_of(answer)
    assert "rsfusion scenes --optical" in answer.stdout + answer.stderr
    assert "on scenes" in outputs["CLASSIFIER_USED"]
    for key in ("TOP1", "TOP3", "MACRO_F1", "MAP"):
        assert 0 < float(outputs[key]) <= 1, key
    assert int(float(outputs["VALIDATION_UNITS"])) > 5
    assert sorted(os.listdir(tmp_path)) == ["m.safetensors", "r.html", "scenes.gpkg", "scenes.qml"]
    dataset = ogr.Open(outputs["OUTPUT"])
    layer = dataset.GetLayer()
    assert layer.GetFeatureCount() == 36
    assert {"class", "class_2", "valid_share", "p_Water"} <= {field.name for field in layer.schema}
    # With the model in place of the polygons, on polygons of the user's and without the radar.
    given = {"OPTICAL": scene["OPTICAL"], "MODEL": outputs["OUTPUT_MODEL"], "UNITS": scene["LABELS"]}
    again = outputs_of(qgis.run("classifyscenes", OUTPUT=tmp_path / "again.gpkg", **given))
    assert again["TOP1"] == ""
    polygons = ogr.Open(again["OUTPUT"])
    assert polygons.GetLayer().GetFeatureCount() == ogr.Open(scene["LABELS"]).GetLayer().GetFeatureCount()
    refused = qgis.run("classifyscenes", OUTPUT=tmp_path / "x.gpkg", OPTICAL=scene["OPTICAL"])
    assert refused.returncode != 0
    assert "give one of them" in refused.stdout + refused.stderr


def test_a_map_without_the_radar(qgis, scene, model, tmp_path):
    from osgeo import gdal

    values = {"OPTICAL": scene["OPTICAL"], "ELEVATION": scene["ELEVATION"], "MODEL": model}
    answer = qgis.run("landcovermap", OUTPUT=tmp_path / "map.tif", **values)
    codes = gdal.Open(outputs_of(answer)["OUTPUT"]).ReadAsArray()
    assert (codes > 0).mean() > 0.9
    assert "Mapped without sentinel1 (sar)" in answer.stdout + answer.stderr


def test_from_rasters_and_polygons_to_a_styled_map_and_its_accuracy(qgis, scene, model, tmp_path):
    from osgeo import gdal

    values = {"OPTICAL": scene["OPTICAL"], "SAR": scene["SAR"], "ELEVATION": scene["ELEVATION"], "MODEL": model}
    outputs = outputs_of(qgis.run("landcovermap", OUTPUT=tmp_path / "map.tif", CONFIDENCE=tmp_path / "c.tif", **values))
    assert sorted(outputs) == [
        "CONFIDENCE",
        "CONTRIBUTIONS",
        "DEVICE_USED",
        "ENTROPY",
        "MARGIN",
        "NOVELTY",
        "OUTPUT",
        "PROBABILITIES",
    ]
    assert outputs["PROBABILITIES"] == ""
    dataset = gdal.Open(outputs["OUTPUT"])
    assert (dataset.RasterXSize, dataset.RasterYSize) == (96, 96)
    band = dataset.GetRasterBand(1)
    assert band.GetColorTable() is not None
    assert "Water" in band.GetCategoryNames()
    assert band.GetDefaultRAT() is not None
    assert os.path.exists(tmp_path / "map.qml")
    confidence = gdal.Open(outputs["CONFIDENCE"])
    assert confidence.GetRasterBand(1).DataType == gdal.GDT_Byte
    answer = qgis.run(
        "accuracy",
        MAP=outputs["OUTPUT"],
        REFERENCE=scene["REFERENCE"],
        CLASS_FIELD="class",
        REPORT=tmp_path / "accuracy.html",
    )
    assessed = outputs_of(answer)
    assert 0 < float(assessed["OVERALL_ACCURACY"]) <= 1
    assert os.path.getsize(assessed["REPORT"]) > 1000


def test_polygons_are_drawn_from_indices_and_trained_on(qgis, scene, tmp_path):
    from osgeo import ogr

    rasters = {"OPTICAL": scene["OPTICAL"], "SAR": scene["SAR"]}
    answer = qgis.run("pseudolabels", COUNT=8, OUTPUT=tmp_path / "seeds.gpkg", **rasters)
    told = outputs_of(answer)
    assert "rsfusion pseudolabels --optical" in answer.stdout + answer.stderr
    assert "rules, not truth" in answer.stdout + answer.stderr
    source = ogr.Open(told["OUTPUT"])
    classes = {place.GetField("class") for place in source.GetLayer(0)}
    assert str(source.GetLayer(0).GetFeatureCount()) == told["N_POLYGONS"]
    assert {"Water", "Vegetation"} <= classes
    assert (tmp_path / "seeds.qml").exists()
    values = {"LABELS": told["OUTPUT"], "CLASS_FIELD": "code", "MODE": "logistic", "OUTPUT_MODEL": tmp_path / "m.safetensors"}
    trained = outputs_of(qgis.run("finetune", SPREAD_LABELS=True, SELF_TRAINING=1, **rasters, **values))
    assert float(trained["OVERALL_ACCURACY"]) > 0.5


def test_places_to_label_are_suggested(qgis, scene, model, tmp_path):
    from osgeo import ogr

    values = {"OPTICAL": scene["OPTICAL"], "ELEVATION": scene["ELEVATION"], "MODEL": model, "EXISTING_LABELS": scene["LABELS"]}
    answer = qgis.run("suggestlabels", COUNT=6, OUTPUT=tmp_path / "places.gpkg", **values)
    told = outputs_of(answer)
    assert told["N_PLACES"] == "6"
    assert "rsfusion suggest --optical" in answer.stdout + answer.stderr
    source = ogr.Open(told["OUTPUT"])
    assert [place.GetField("rank") for place in source.GetLayer(0)] == list(range(1, 7))
    layers = {key: tmp_path / (key.lower() + ".tif") for key in ("OUTPUT", "ENTROPY", "MARGIN", "NOVELTY", "CONTRIBUTIONS")}
    del values["EXISTING_LABELS"]
    drawn = outputs_of(qgis.run("landcovermap", **layers, **values))
    for key, path in layers.items():
        assert drawn[key] == str(path)
        assert path.is_file()
        assert path.with_suffix(".qml").is_file()


def test_points_are_drawn_interpreted_and_assessed(qgis, scene, tmp_path):
    """A map with known errors, and the true classes filled into the points, as a person would."""
    from osgeo import gdal, ogr

    truth = gdal.Open(scene["TRUTH"])
    codes = truth.ReadAsArray()
    path = str(tmp_path / "map.tif")
    changed = gdal.GetDriverByName("GTiff").CreateCopy(path, truth)
    wrong = codes.copy()
    wrong[::7] = codes[::-1][::7]
    changed.GetRasterBand(1).WriteArray(wrong)
    changed = None
    points = tmp_path / "points to interpret.gpkg"
    answer = qgis.run("samplingdesign", MAP=path, SIZE=300, MINIMUM=30, EXPECTED_ACCURACY="0.85", OUTPUT=points)
    drawn = outputs_of(answer)
    assert drawn["OUTPUT"] == str(points)
    assert drawn["SAMPLE_SIZE"] == "300"
    assert 0 < float(drawn["EXPECTED_STANDARD_ERROR"]) < 0.05
    assert "rsfusion sample --map" in answer.stdout + answer.stderr

    left, pixel, _, top, _, _ = truth.GetGeoTransform()
    source = ogr.Open(str(points), update=1)
    for feature in source.GetLayerByName("sample"):
        place = feature.GetGeometryRef()
        code = codes[int((top - place.GetY()) / pixel), int((place.GetX() - left) / pixel)]
        feature.SetField("reference", str(code))
        source.GetLayerByName("sample").SetFeature(feature)
    source = None
    report = tmp_path / "accuracy.html"
    answer = qgis.run("accuracy", MAP=path, REFERENCE=points, CLASS_FIELD="reference", REPORT=report)
    assessed = outputs_of(answer)
    width = float(assessed["AREA_ADJUSTED_HALF_WIDTH"])
    assert 0 < width < 0.1
    assert abs(float(assessed["AREA_ADJUSTED_ACCURACY"]) - (wrong == codes).mean()) < 1.5 * width
    page = report.read_text(encoding="utf-8")
    assert "Olofsson et al. (2014)" in page
    assert "Strata of the sample" in page


def test_from_a_map_to_clean_polygons_areas_and_change(qgis, scene, tmp_path):
    """Each step takes what the one before has written."""
    from osgeo import gdal, ogr

    cleaned = outputs_of(qgis.run("cleanmap", MAP=scene["TRUTH"], KEEP="Water; Built-up", OUTPUT=tmp_path / "clean.tif"))
    assert int(cleaned["SMALL_PATCHES"]) > 0
    truth, result = gdal.Open(scene["TRUTH"]), gdal.Open(cleaned["OUTPUT"])
    assert result.GetRasterBand(1).GetCategoryNames() == truth.GetRasterBand(1).GetCategoryNames()
    values = {"MAP": cleaned["OUTPUT"], "SIMPLIFY": 1, "OUTPUT": tmp_path / "polygons.gpkg"}
    answer = qgis.run("vectorizemap", **values)
    drawn = outputs_of(answer)
    assert "rsfusion vectorize --map" in answer.stdout + answer.stderr
    polygons = ogr.Open(drawn["OUTPUT"])
    assert polygons.GetLayer(0).GetFeatureCount() == int(drawn["N_POLYGONS"]) > 3
    assert os.path.exists(tmp_path / "polygons.qml")
    values = {"MAP": cleaned["OUTPUT"], "ZONES": drawn["OUTPUT"], "ID_FIELD": "name", "OUTPUT": tmp_path / "areas.csv"}
    measured = outputs_of(qgis.run("zonalareas", **values))
    assert measured["N_ZONES"] == drawn["N_POLYGONS"]
    lines = Path(measured["OUTPUT"]).read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("name,Water_ha,")
    answer = qgis.run(
        "changemap",
        BEFORE=scene["TRUTH"],
        AFTER=cleaned["OUTPUT"],
        OUTPUT=tmp_path / "change.tif",
        MATRIX=tmp_path / "matrix.csv",
    )
    changed = outputs_of(answer)
    assert 0 < float(changed["CHANGED_PERCENT"]) < 20
    assert "has the errors of both" in answer.stdout + answer.stderr
    assert (tmp_path / "matrix.csv").read_text(encoding="utf-8").startswith("from_to_ha,")
    assert changed["SUMMARY"] == ""
    answer = qgis.run("cleanmap", MAP=scene["TRUTH"], KEEP="Lava", OUTPUT=tmp_path / "none.tif")
    assert answer.returncode != 0
    assert "no class 'Lava'" in answer.stdout + answer.stderr
    assert not (tmp_path / "none.tif").exists()


def test_change_between_images_with_labels_and_without(qgis, scene, tmp_path):
    """The second date is the first with a square of other ground and other light."""
    from osgeo import gdal, ogr

    later = gdal.GetDriverByName("GTiff").CreateCopy(str(tmp_path / "later.tif"), gdal.Open(scene["OPTICAL"]))
    bands = later.RasterCount
    for number in range(1, bands + 1):
        values = later.GetRasterBand(number).ReadAsArray()
        values[20:50, 30:70] = values[20:50, 30:70][::-1, ::-1] // 2 + 150 * number
        later.GetRasterBand(number).WriteArray(values)
    transform, reference = later.GetGeoTransform(), later.GetSpatialRef()
    later = None
    values = {"OPTICAL": scene["OPTICAL"], "AFTER_OPTICAL": tmp_path / "later.tif", "OUTPUT": tmp_path / "change.tif"}
    answer = qgis.run("detectchange", **values)
    found = outputs_of(answer)
    assert float(found["CHANGED_PERCENT"]) > 0
    assert "rsfusion detect-change --optical" in answer.stdout + answer.stderr
    assert "Made without labels" in answer.stdout + answer.stderr
    told = gdal.Open(found["OUTPUT"])
    band = told.GetRasterBand(1)
    # GDAL 3.6 reads the auxiliary file when it is asked for the table, and has no names before.
    assert band.GetDefaultRAT() is not None
    assert band.GetCategoryNames()[1:] == ["Unchanged", "Changed"]
    codes = band.ReadAsArray()
    assert (codes[22:48, 32:68] == 2).mean() > 0.9
    drawn = ogr.GetDriverByName("GPKG").CreateDataSource(str(tmp_path / "labels.gpkg"))
    layer = drawn.CreateLayer("labels", reference, ogr.wkbPolygon)
    layer.CreateField(ogr.FieldDefn("kind", ogr.OFTString))
    for row in range(2, 100, 8):
        for column in range(2, 100, 8):
            is_inside = 20 <= row <= 46 and 30 <= column <= 66
            if not is_inside and 14 <= row <= 50 and 24 <= column <= 70:
                continue
            west, north = transform[0] + column * transform[1], transform[3] + row * transform[5]
            east, south = west + 4 * transform[1], north + 4 * transform[5]
            corners = ((west, north), (east, north), (east, south), (west, south), (west, north))
            feature = ogr.Feature(layer.GetLayerDefn())
            feature.SetField("kind", "changed" if is_inside else "unchanged")
            text = ", ".join(f"{x} {y}" for x, y in corners)
            feature.SetGeometry(ogr.CreateGeometryFromWkt(f"POLYGON (({text}))"))
            layer.CreateFeature(feature)
    drawn = layer = feature = None
    values |= {"LABELS": tmp_path / "labels.gpkg", "CLASS_FIELD": "kind", "REPORT": tmp_path / "report.html"}
    learned = outputs_of(qgis.run("detectchange", **values, PROBABILITY=tmp_path / "probability.tif"))
    assert float(learned["OVERALL_ACCURACY"]) > 0.9
    assert os.path.exists(tmp_path / "probability.qml")
    assert "Vote of a logistic regression" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_model_of_map_clean_and_polygons(qgis, scene, tmp_path, provider):
    """A model file of the designer, run by ``qgis_process`` with an output that is loaded in between."""
    from osgeo import ogr
    from qgis.core import (
        QgsProcessingModelAlgorithm,
        QgsProcessingModelChildAlgorithm,
        QgsProcessingModelChildParameterSource,
        QgsProcessingModelOutput,
        QgsProcessingModelParameter,
        QgsProcessingParameterRasterLayer,
    )

    source = QgsProcessingModelChildParameterSource
    model = QgsProcessingModelAlgorithm("clean polygons", "tests")
    model.addModelParameter(QgsProcessingParameterRasterLayer("map", "Map"), QgsProcessingModelParameter("map"))

    def step(identifier, name, map_source):
        child = QgsProcessingModelChildAlgorithm("rsfusion:" + name)
        child.setChildId(identifier)
        for definition in child.algorithm().parameterDefinitions():
            # The designer writes every default into the step.
            if not definition.isDestination() and definition.defaultValue() is not None:
                child.addParameterSources(definition.name(), [source.fromStaticValue(definition.defaultValue())])
        child.addParameterSources("MAP", [map_source])
        return child

    model.addChildAlgorithm(step("clean", "cleanmap", source.fromModelParameter("map")))
    draw = step("draw", "vectorizemap", source.fromChildOutput("clean", "OUTPUT"))
    output = QgsProcessingModelOutput("polygons")
    output.setChildId("draw")
    output.setChildOutputName("OUTPUT")
    draw.setModelOutputs({"polygons": output})
    model.addChildAlgorithm(draw)
    model.updateDestinationParameters()
    assert model.validate()[0], model.validate()
    path = tmp_path / "model.model3"
    assert model.toFile(str(path))
    key = model.destinationParameterDefinitions()[0].name()
    answer = qgis("run", path, "--", "map=" + scene["TRUTH"], "{}={}".format(key, tmp_path / "drawn.gpkg"))
    assert answer.returncode == 0, answer.stdout[-3000:] + answer.stderr[-3000:]
    polygons = ogr.Open(str(tmp_path / "drawn.gpkg"))
    assert polygons.GetLayer(0).GetFeatureCount() > 2
    assert (tmp_path / "drawn.qml").is_file()


def test_a_part_a_mask_and_a_temporary_output(qgis, scene, model, tmp_path):
    from osgeo import gdal

    whole = gdal.Open(scene["OPTICAL"])
    left, pixel, _, top, _, _ = whole.GetGeoTransform()
    extent = f"{left},{left + 40 * pixel},{top - 30 * pixel},{top} [EPSG:32633]"
    answer = qgis.run(
        "landcovermap",
        OPTICAL=scene["OPTICAL"],
        SAR=scene["SAR"],
        ELEVATION=scene["ELEVATION"],
        MODEL=model,
        EXTENT=extent,
        MASK=scene["LABELS"],
        FORMAT="cog",
        OUTPUT=tmp_path / "part.tif",
    )
    dataset = gdal.Open(outputs_of(answer)["OUTPUT"])
    assert (dataset.RasterXSize, dataset.RasterYSize) == (40, 30)
    assert dataset.GetMetadata("IMAGE_STRUCTURE")["LAYOUT"] == "COG"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"MODEL": "PICKLE"}, "model.pth"),
        ({"MODEL": "/nowhere/model.safetensors"}, "/nowhere/model.safetensors"),
        ({"OPTICAL": "/nowhere/optical.tif"}, "/nowhere/optical.tif"),
        ({"OPTICAL": "TRUNCATED"}, "truncated.tif"),
        ({"SAR": None, "MISSING_INPUTS": "require"}, "sentinel1"),
        ({"OPTICAL": "WITHOUT B11"}, "B11"),
        ({"OUTPUT": "/nowhere/map.tif"}, "/nowhere"),
        ({"OUTPUT": "OPTICAL"}, "input"),
        ({"EXTENT": "0,10,0,10 [EPSG:32633]"}, "extent"),
    ],
    ids=["pickle", "no model", "no raster", "truncated", "sensor", "band", "no folder", "output is input", "elsewhere"],
)
def test_bad_input_is_named_and_leaves_nothing(qgis, scene, model, tmp_path, change, message):
    (tmp_path / "model.pth").write_bytes(b"\x80\x04\x95" + bytes(100))
    (tmp_path / "truncated.tif").write_bytes(Path(scene["OPTICAL"]).read_bytes()[:3000])
    from osgeo import gdal

    optical = gdal.Open(scene["OPTICAL"])
    names = [optical.GetRasterBand(number).GetDescription() for number in range(1, 13)]
    kept = [number for number, name in enumerate(names, 1) if name != "B11"]
    gdal.Translate(str(tmp_path / "without.tif"), scene["OPTICAL"], bandList=kept)
    out = tmp_path / "out"
    out.mkdir()
    special = {
        "WITHOUT B11": tmp_path / "without.tif",
        "PICKLE": tmp_path / "model.pth",
        "TRUNCATED": tmp_path / "truncated.tif",
        "OPTICAL": scene["OPTICAL"],
    }
    values = {key: scene[key] for key in ("OPTICAL", "SAR", "ELEVATION")}
    values.update(MODEL=model, OUTPUT=out / "map.tif")
    values.update({key: special.get(value, value) for key, value in change.items()})
    before = Path(scene["OPTICAL"]).read_bytes()
    answer = qgis.run("landcovermap", **{key: value for key, value in values.items() if value is not None})
    assert answer.returncode != 0
    assert message in answer.stdout + answer.stderr
    assert "Traceback" not in answer.stdout + answer.stderr
    assert os.listdir(out) == []
    assert Path(scene["OPTICAL"]).read_bytes() == before


def test_without_a_worker_it_fails_and_says_what_to_do(tmp_path):
    lonely = QgisProcess(tmp_path / "profile", ROOT)
    lonely("plugins", "enable", "rsfusion_plugin")
    answer = lonely.run("samplescene", OUTPUT=tmp_path / "scene")
    assert answer.returncode == 1
    assert "rsfusion:setupenvironment" in answer.stdout + answer.stderr
    assert not (tmp_path / "scene").exists()


def running_workers(folder):
    """Process numbers of the workers whose command line names a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.startswith(os.fsencode(folder)) and word.endswith(b"job.json") for word in words):
            found.append(int(entry.name))
    return found


def wait_for(condition, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not condition():
        time.sleep(0.1)
    return condition()


def test_when_qgis_is_killed_the_worker_ends_and_leaves_no_file(qgis, scene, tmp_path):
    out, temporary = tmp_path / "out", tmp_path / "tmp"
    out.mkdir()
    temporary.mkdir()
    values = {key: scene[key] for key in ("OPTICAL", "SAR", "ELEVATION", "LABELS")}
    values.update(CLASS_FIELD="class", EPOCHS=10000, OUTPUT_MODEL=out / "m.safetensors", REPORT=out / "r.html")
    environment = dict(qgis.environment, TMPDIR=str(temporary))
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(qgis.command("finetune", values), env=environment, stdout=log, stderr=log)
    try:
        assert wait_for(lambda: b"Training" in (tmp_path / "log").read_bytes(), 180), (tmp_path / "log").read_text()
        assert running_workers(temporary)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert wait_for(lambda: not running_workers(temporary), 40)
    assert os.listdir(out) == []


def test_cancelling_a_real_job_is_quick_and_leaves_no_file(
    algorithm, context, feedback, scene, real_python, tmp_path, monkeypatch
):
    monkeypatch.setenv("RSFUSION_PYTHON", real_python)
    cancelled_at = []

    def cancel(fraction):
        if not cancelled_at and any("Training" in phase for phase in feedback.phases):
            cancelled_at.append(time.monotonic())
            feedback.cancel()

    feedback.progressChanged.connect(cancel)
    values = {key: [scene[key]] for key in ("OPTICAL", "SAR", "ELEVATION")}
    values.update(
        LABELS=scene["LABELS"],
        CLASS_FIELD="class",
        EPOCHS=10000,
        OUTPUT_MODEL=str(tmp_path / "m.safetensors"),
        REPORT=str(tmp_path / "r.html"),
    )
    assert not algorithm("finetune").run(values, context, feedback)[1]
    seconds = time.monotonic() - cancelled_at[0]
    assert seconds < 3.0, "a worker that is cancelled stops within two seconds, and QGIS has it by the third"
    assert os.listdir(tmp_path) == []


def test_the_zip_installs_into_an_empty_profile_and_works(real_python, tmp_path):
    """As the plugin manager does: unpacked into the profile, where its folder is called ``rsfusion``."""
    target = tmp_path / "rsfusion_plugin.zip"
    subprocess.run([sys.executable, str(ROOT / "scripts" / "package.py"), str(target)], check=True)
    profile = tmp_path / "profile"
    installed = QgisProcess(profile, None, real_python)
    assert "rsfusion" not in installed("list").stdout
    with zipfile.ZipFile(target) as archive:
        archive.extractall(profile / "profiles" / "default" / "python" / "plugins")
    assert installed("plugins", "enable", "rsfusion").returncode == 0
    outputs = outputs_of(installed.run("samplescene", SIZE=64, OUTPUT=tmp_path / "scene"))
    assert os.path.exists(outputs["TRUTH"])
