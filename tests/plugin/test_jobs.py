"""Parameters to jobs: what is asked for in QGIS arrives in the job, without the worker being run."""

import json
import os
import re
import shlex

import pytest


def build(algorithm, parameters, context, feedback, folder):
    """The job of an algorithm, and the exports it needs written."""
    fine, message = algorithm.checkParameterValues(parameters, context)
    assert fine, message
    return algorithm.job_from_parameters(parameters, context, feedback, str(folder))


def styled(layer, field, categories):
    from qgis.core import QgsCategorizedSymbolRenderer, QgsFillSymbol, QgsRendererCategory

    entries = [
        QgsRendererCategory(value, QgsFillSymbol.createSimple({"color": colour}), label) for value, label, colour in categories
    ]
    layer.setRenderer(QgsCategorizedSymbolRenderer(field, entries))
    return layer


def read_back(path):
    """Layer, fields and rows of a GeoPackage."""
    from osgeo import ogr

    dataset = ogr.Open(path)
    layer = dataset.GetLayer(0)
    names = [layer.GetLayerDefn().GetFieldDefn(i).GetName() for i in range(layer.GetLayerDefn().GetFieldCount())]
    rows = [tuple(feature.GetField(name) for name in names) for feature in layer]
    return layer.GetName(), names, rows, layer.GetSpatialRef().GetAuthorityCode(None)


def finetune_parameters(raster, labels, tmp_path, **more):
    values = {
        "OPTICAL": [raster],
        "LABELS": labels,
        "CLASS_FIELD": "class",
        "OUTPUT_MODEL": str(tmp_path / "model.safetensors"),
    }
    values.update(more)
    return values


def test_defaults_make_a_whole_finetune_job(algorithm, context, feedback, raster, polygons, tmp_path):
    path = raster()
    request = build(algorithm("finetune"), finetune_parameters(path, polygons(), tmp_path), context, feedback, tmp_path)
    assert request.job == {
        "kind": "finetune",
        "inputs": {"optical": [path], "optical_sensor": "auto", "sentinel2_offset": "auto"},
        "labels": {
            "path": str(tmp_path / "labels.gpkg"),
            "layer": "features",
            "class_field": "class",
            "class_scheme": "auto",
        },
        "architecture": "unet_intermediate",
        "missing_inputs": "allow",
        "mode": "auto",
        "spread_labels": False,
        "self_training": 0,
        "consistency": False,
        "epochs": 24,
        "seed": 0,
        "device": "auto",
        "validation_fraction": 0.3,
        "output_model": str(tmp_path / "model.safetensors"),
    }


def test_every_value_arrives(algorithm, context, feedback, raster, polygons, tmp_path):
    paths = [raster(name) for name in ("a.tif", "b.tif", "c.tif", "d.tif", "e.tif")]
    (tmp_path / "base.safetensors").write_bytes(b"x")
    parameters = finetune_parameters(
        paths[0],
        polygons(),
        tmp_path,
        OPTICAL=paths[:2],
        SAR=[paths[2]],
        ELEVATION=paths[3],
        OTHER=[paths[4]],
        OPTICAL_SENSOR="sentinel2_l2a",
        SAR_SENSOR="sentinel1",
        ELEVATION_SENSOR="dsm",
        OTHER_SENSOR="generic",
        RESOLUTION=2.5,
        SENTINEL2_OFFSET="no",
        BASE_MODEL=str(tmp_path / "base.safetensors"),
        ARCHITECTURE="unet_early",
        ENCODER="resunet",
        ENCODER_WEIGHTS=str(tmp_path / "public.safetensors"),
        ENCODER_KEYS="timm_resnet",
        FUSION="asymmetric_attention",
        SIZE="base",
        MISSING_INPUTS="require",
        MODE="auto",
        SPREAD_LABELS=True,
        SELF_TRAINING=2,
        CONSISTENCY=True,
        EPOCHS=3,
        MINUTES=12.5,
        SEED=7,
        DEVICE="cpu",
        VALIDATION_FRACTION=0.2,
        BLOCK_SIZE=300,
        CLASS_SCHEME="ipcc",
        REPORT=str(tmp_path / "report.html"),
    )
    job = build(algorithm("finetune"), parameters, context, feedback, tmp_path).job
    assert job["inputs"] == {
        "optical": paths[:2],
        "optical_sensor": "sentinel2_l2a",
        "sar": [paths[2]],
        "sar_sensor": "sentinel1",
        "elevation": [paths[3]],
        "elevation_sensor": "dsm",
        "other": [paths[4]],
        "other_sensor": "generic",
        "resolution": 2.5,
        "sentinel2_offset": "no",
    }
    assert job["labels"]["class_scheme"] == "ipcc"
    del job["inputs"], job["labels"]
    assert job == {
        "kind": "finetune",
        "base_model": str(tmp_path / "base.safetensors"),
        "architecture": "unet_early",
        "encoder": "resunet",
        "encoder_weights": str(tmp_path / "public.safetensors"),
        "encoder_keys": "timm_resnet",
        "fusion": "asymmetric_attention",
        "size": "base",
        "missing_inputs": "require",
        "mode": "auto",
        "spread_labels": True,
        "self_training": 2,
        "consistency": True,
        "epochs": 3,
        "minutes": 12.5,
        "seed": 7,
        "device": "cpu",
        "validation_fraction": 0.2,
        "block_size": 300,
        "output_model": str(tmp_path / "model.safetensors"),
        "report": str(tmp_path / "report.html"),
    }


def test_minutes_are_for_trying_several_networks(algorithm, context, raster, polygons, tmp_path):
    parameters = finetune_parameters(raster(), polygons(), tmp_path, MINUTES=5)
    assert algorithm("finetune").checkParameterValues(parameters, context)[0]
    fine, message = algorithm("finetune").checkParameterValues(parameters | {"MODE": "forest"}, context)
    assert not fine
    assert "MINUTES" in message


def test_a_memory_layer_is_written_out(algorithm, context, feedback, raster, polygons, tmp_path):
    parameters = finetune_parameters(raster(), polygons(), tmp_path)
    request = build(algorithm("finetune"), parameters, context, feedback, tmp_path)
    assert [export.write(context.transformContext(), lambda: False) for export in request.exports] == [4]
    name, fields, rows, epsg = read_back(request.job["labels"]["path"])
    assert (name, fields, epsg) == (request.job["labels"]["layer"], ["class"], "32633")
    assert rows == [("water",), ("water",), ("forest",), ("crops",)]


def test_only_the_selection_is_used(algorithm, context, feedback, raster, polygons, tmp_path):
    from qgis.core import QgsProcessingFeatureSourceDefinition, QgsProject

    layer = polygons()
    QgsProject.instance().addMapLayer(layer)
    layer.selectByExpression("\"class\" = 'forest'")
    labels = QgsProcessingFeatureSourceDefinition(layer.id(), True)
    parameters = finetune_parameters(raster(), labels, tmp_path, CLASS_FIELD="code")
    request = build(algorithm("finetune"), parameters, context, feedback, tmp_path)
    assert request.exports[0].write(context.transformContext(), lambda: False) == 1
    assert read_back(request.job["labels"]["path"])[2] == [(2,)]


def test_an_empty_selection_is_an_error(algorithm, context, feedback, raster, polygons, tmp_path):
    from qgis.core import QgsProcessingFeatureSourceDefinition, QgsProject

    from rsfusion_plugin.layers import LayerError

    layer = polygons("my labels")
    QgsProject.instance().addMapLayer(layer)
    labels = QgsProcessingFeatureSourceDefinition(layer.id(), True)
    parameters = finetune_parameters(raster(), labels, tmp_path)
    request = build(algorithm("finetune"), parameters, context, feedback, tmp_path)
    with pytest.raises(LayerError, match="no features"):
        request.exports[0].write(context.transformContext(), lambda: False)


@pytest.fixture
def stored(polygons, tmp_path):
    """The squares as a file on disk."""

    def make(name="squares.gpkg", driver="GPKG", layer_name="squares"):
        from qgis.core import QgsProject, QgsVectorFileWriter

        path = str(tmp_path / name)
        options = QgsVectorFileWriter.SaveVectorOptions()
        options.driverName, options.layerName = driver, layer_name
        if os.path.exists(path):
            options.actionOnExistingFile = QgsVectorFileWriter.ActionOnExistingFile.CreateOrOverwriteLayer
        context = QgsProject.instance().transformContext()
        code, message = QgsVectorFileWriter.writeAsVectorFormatV3(polygons(), path, context, options)[:2]
        assert code == QgsVectorFileWriter.WriterError.NoError, message
        return path

    return make


def test_a_file_is_read_where_it_is(algorithm, context, feedback, raster, stored, tmp_path):
    path = stored()
    for value, layer in ((path, None), (path + "|layername=squares", "squares")):
        parameters = finetune_parameters(raster(), value, tmp_path)
        request = build(algorithm("finetune"), parameters, context, feedback, tmp_path)
        assert request.exports == []
        assert request.job["labels"]["path"] == path
        assert request.job["labels"].get("layer") == layer


def test_a_filter_a_virtual_field_an_edit_and_another_crs_are_honoured(algorithm, context, feedback, raster, stored, tmp_path):
    """In each of them QGIS shows something else than the file holds."""
    from qgis.core import QgsCoordinateReferenceSystem, QgsField, QgsProject, QgsVectorLayer
    from qgis.PyQt.QtCore import QVariant

    path = stored()

    def filtered(layer):
        layer.setSubsetString("\"class\" = 'water'")

    def virtual(layer):
        layer.addExpressionField("'v' || \"code\"", QgsField("virtual", QVariant.String))

    def edited(layer):
        layer.startEditing()
        layer.deleteFeature(next(layer.getFeatures()).id())

    def elsewhere(layer):
        layer.setCrs(QgsCoordinateReferenceSystem("EPSG:32634"))

    expected = {filtered: 2, virtual: 4, edited: 3, elsewhere: 4}
    for number, (change, count) in enumerate(expected.items()):
        layer = QgsVectorLayer(path, "squares", "ogr")
        QgsProject.instance().addMapLayer(layer)
        change(layer)
        field = "virtual" if change is virtual else "class"
        folder = tmp_path / str(number)
        folder.mkdir()
        parameters = finetune_parameters(raster(), layer.id(), tmp_path, CLASS_FIELD=field)
        request = build(algorithm("finetune"), parameters, context, feedback, folder)
        assert len(request.exports) == 1, change.__name__
        assert request.exports[0].write(context.transformContext(), lambda: False) == count, change.__name__
        _, fields, rows, epsg = read_back(request.job["labels"]["path"])
        assert fields == [field]
        assert epsg == ("32634" if change is elsewhere else "32633")
        if change is virtual:
            assert rows[0] == ("v1",)
        layer.rollBack()


def test_awkward_field_names_survive(algorithm, context, feedback, raster, tmp_path):
    from qgis.core import QgsFeature, QgsGeometry, QgsVectorLayer

    for field in ("fid", "geom", "Landbedeckung ä"):
        uri = f"Polygon?crs=EPSG:4326&field={field}:integer"
        layer = QgsVectorLayer(uri, "odd", "memory")
        feature = QgsFeature(layer.fields())
        feature.setAttributes([5])
        feature.setGeometry(QgsGeometry.fromWkt("CurvePolygon(CircularString(0 0, 1 1, 2 0, 1 -1, 0 0))"))
        layer.dataProvider().addFeatures([feature])
        folder = tmp_path / field
        folder.mkdir()
        parameters = finetune_parameters(raster(), layer, tmp_path, CLASS_FIELD=field)
        request = build(algorithm("finetune"), parameters, context, feedback, folder)
        request.exports[0].write(context.transformContext(), lambda: False)
        assert read_back(request.job["labels"]["path"])[1:3] == ([field], [(5,)])


def test_names_and_colours_come_from_the_categorised_style(algorithm, context, feedback, raster, polygons, tmp_path):
    layer = styled(
        polygons(),
        "code",
        [(1, "Open water", "#0000ff"), ([2, 3], "Green", "#00aa00"), (None, "all other values", "#999999")],
    )
    parameters = finetune_parameters(raster(), layer, tmp_path, CLASS_FIELD="code")
    job = build(algorithm("finetune"), parameters, context, feedback, tmp_path).job
    assert job["labels"]["classes"] == [
        {"value": "1", "name": "Open water", "colour": "#0000ff"},
        {"value": "2", "name": "Green", "colour": "#00aa00"},
        {"value": "3", "name": "Green", "colour": "#00aa00"},
    ]
    parameters["CLASS_FIELD"] = "class"
    assert "classes" not in build(algorithm("finetune"), parameters, context, feedback, tmp_path).job["labels"]


def test_the_style_beside_a_file_is_read_as_well(algorithm, context, feedback, raster, stored, tmp_path):
    """Processing opens a path without the style that is saved beside it."""
    from qgis.core import QgsVectorLayer

    path = stored("styled.geojson", "GeoJSON")
    layer = styled(QgsVectorLayer(path, "styled", "ogr"), "class", [("water", "Open water", "#0000ff")])
    layer.saveNamedStyle(str(tmp_path / "styled.qml"))
    job = build(algorithm("finetune"), finetune_parameters(raster(), path, tmp_path), context, feedback, tmp_path).job
    assert job["labels"]["classes"] == [{"value": "water", "name": "Open water", "colour": "#0000ff"}]


def test_a_missing_class_field_lists_those_there_are(algorithm, context, feedback, raster, polygons, tmp_path):
    from qgis.core import QgsProcessingException

    parameters = finetune_parameters(raster(), polygons(), tmp_path, CLASS_FIELD="klass")
    with pytest.raises(QgsProcessingException, match=r"has no field 'klass'\. It has: class, code"):
        algorithm("finetune").job_from_parameters(parameters, context, feedback, str(tmp_path))


def map_parameters(raster, tmp_path, **more):
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"x")
    values = {"SAR": [raster], "MODEL": str(model), "OUTPUT": str(tmp_path / "map.tif")}
    values.update(more)
    return values


def test_a_map_job(algorithm, context, feedback, raster, polygons, stored, tmp_path):
    path = raster()
    subject = algorithm("landcovermap")
    request = build(subject, map_parameters(path, tmp_path), context, feedback, tmp_path)
    assert request.exports == []
    assert request.job == {
        "kind": "map",
        "inputs": {"sar": [path], "sar_sensor": "auto", "sentinel2_offset": "auto"},
        "model": str(tmp_path / "model.safetensors"),
        "overlap": 0.25,
        "device": "auto",
        "missing_inputs": "allow",
        "precision": "auto",
        "format": "gtiff",
        "output": str(tmp_path / "map.tif"),
    }
    parameters = map_parameters(
        path,
        tmp_path,
        EXTENT="500000,500100,4999900,5000000 [EPSG:32633]",
        MASK=polygons(),
        OVERLAP=0.5,
        MISSING_INPUTS="require",
        PRECISION="float32",
        FORMAT="cog",
        CONFIDENCE=str(tmp_path / "confidence.tif"),
        PROBABILITIES="TEMPORARY_OUTPUT",
    )
    request = build(subject, parameters, context, feedback, tmp_path)
    job = request.job
    assert job["missing_inputs"] == "require"
    assert job["precision"] == "float32"
    assert job["extent"] == {
        "left": 500000.0,
        "bottom": 4999900.0,
        "right": 500100.0,
        "top": 5000000.0,
        "crs": "EPSG:32633",
    }
    assert (job["overlap"], job["format"]) == (0.5, "cog")
    assert job["confidence"] == str(tmp_path / "confidence.tif")
    assert job["probabilities"].endswith(".tif")
    assert os.path.isabs(job["probabilities"])
    assert request.exports[0].write(context.transformContext(), lambda: False) == 4
    assert read_back(job["mask"])[1] == []
    plain = stored("mask.geojson", "GeoJSON")
    assert build(subject, map_parameters(path, tmp_path, MASK=plain), context, feedback, tmp_path).job["mask"] == plain
    # A mask is a path alone: of a file with two layers, the one that is meant is written out.
    double = stored("double.gpkg", layer_name="one")
    stored("double.gpkg", layer_name="two")
    request = build(subject, map_parameters(path, tmp_path, MASK=double + "|layername=two"), context, feedback, tmp_path)
    assert len(request.exports) == 1


def test_an_extent_without_crs_is_in_that_of_the_main_raster(algorithm, context, feedback, raster, tmp_path):
    from qgis.core import QgsProcessingException

    parameters = map_parameters(raster(), tmp_path, EXTENT="500000,500100,4999900,5000000")
    job = algorithm("landcovermap").job_from_parameters(parameters, context, feedback, str(tmp_path)).job
    assert job["extent"]["crs"] == "EPSG:32633"
    parameters["EXTENT"] = "500000,500000,4999900,5000000 [EPSG:32633]"
    with pytest.raises(QgsProcessingException, match=r"EXTENT: .* no rectangle with an area"):
        algorithm("landcovermap").job_from_parameters(parameters, context, feedback, str(tmp_path))


def test_the_other_jobs(algorithm, context, feedback, raster, polygons, tmp_path):
    path = raster("map.tif", 1)
    parameters = {"MAP": path, "REFERENCE": polygons(), "CLASS_FIELD": "code", "REPORT": str(tmp_path / "r.html")}
    job = build(algorithm("accuracy"), parameters, context, feedback, tmp_path).job
    assert job == {
        "kind": "accuracy",
        "map": path,
        "reference": {"path": str(tmp_path / "reference.gpkg"), "layer": "features", "class_field": "code"},
        "report": str(tmp_path / "r.html"),
    }
    parameters = {"MAP": path, "SIZE": 120, "OUTPUT": str(tmp_path / "points.gpkg")}
    design = build(algorithm("samplingdesign"), parameters, context, feedback, tmp_path).job
    assert design == {
        "kind": "sampling-design",
        "map": path,
        "expected_accuracy": "0.8",
        "target_standard_error": 0.01,
        "size": 120,
        "allocation": "balanced",
        "minimum": 50,
        "minimum_distance": 0.0,
        "seed": 0,
        "output": str(tmp_path / "points.gpkg"),
    }
    scene = build(algorithm("samplescene"), {"OUTPUT": str(tmp_path / "scene")}, context, feedback, tmp_path).job
    assert scene == {"kind": "sample-scene", "output": str(tmp_path / "scene"), "size": 500, "seed": 0}


def sampling_design(path):
    """A GeoPackage as 'Sampling design' writes it, with three points."""
    from osgeo import ogr, osr

    source = ogr.GetDriverByName("GPKG").CreateDataSource(str(path))
    system = osr.SpatialReference()
    system.ImportFromEPSG(32633)
    points = source.CreateLayer("sample", system, ogr.wkbPoint)
    for name in ("reference", "note", "stratum"):
        points.CreateField(ogr.FieldDefn(name, ogr.OFTString))
    for number in range(3):
        feature = ogr.Feature(points.GetLayerDefn())
        feature.SetGeometry(ogr.CreateGeometryFromWkt(f"POINT ({500005 + 10 * number} 4999995)"))
        feature.SetField("reference", "water")
        feature.SetField("stratum", "forest")
        points.CreateFeature(feature)
    source.CreateLayer("strata", None, ogr.wkbNone)
    return str(path)


def test_a_sample_keeps_its_strata_also_where_points_are_selected(algorithm, context, feedback, raster, tmp_path):
    from qgis.core import QgsProcessingFeatureSourceDefinition, QgsProject, QgsVectorLayer

    path, design = raster("map.tif", 1), sampling_design(tmp_path / "points.gpkg")
    parameters = {"MAP": path, "REFERENCE": design, "CLASS_FIELD": "reference", "REPORT": str(tmp_path / "r.html")}
    request = build(algorithm("accuracy"), parameters, context, feedback, tmp_path)
    assert request.exports == []
    assert request.job["reference"] == {"path": design, "class_field": "reference"}
    assert request.job["strata_field"] == "stratum"
    assert "strata" not in request.job

    layer = QgsVectorLayer(design + "|layername=sample", "points", "ogr")
    QgsProject.instance().addMapLayer(layer)
    try:
        layer.selectByIds([1, 3])
        parameters["REFERENCE"] = QgsProcessingFeatureSourceDefinition(layer.id(), True)
        (tmp_path / "job").mkdir()
        request = build(algorithm("accuracy"), parameters, context, feedback, tmp_path / "job")
    finally:
        QgsProject.instance().removeMapLayer(layer.id())
    assert request.job["strata_field"] == "stratum"
    assert request.job["strata"] == design
    [export] = request.exports
    assert export.write(context.transformContext(), lambda: False) == 2
    _, names, rows, crs = read_back(export.path)
    assert (names, rows, crs) == (["reference", "stratum"], [("water", "forest")] * 2, "32633")


def test_a_field_of_strata_that_is_not_there_is_named(algorithm, context, feedback, raster, tmp_path):
    from qgis.core import QgsProcessingException

    design = sampling_design(tmp_path / "points.gpkg")
    parameters = {"MAP": raster("map.tif", 1), "REFERENCE": design, "CLASS_FIELD": "reference", "STRATA_FIELD": "layer"}
    with pytest.raises(QgsProcessingException, match=r"STRATA_FIELD: .* no field 'layer'"):
        algorithm("accuracy").job_from_parameters(parameters, context, feedback, str(tmp_path))


def test_a_sample_is_written_as_geopackage(algorithm, context, raster, tmp_path):
    parameters = {"MAP": raster("map.tif", 1), "OUTPUT": str(tmp_path / "points.shp")}
    fine, message = algorithm("samplingdesign").checkParameterValues(parameters, context)
    assert not fine
    assert ".gpkg" in message


def test_jobs_on_a_finished_map(algorithm, context, feedback, raster, polygons, tmp_path):
    path, output = raster("map.tif", 1), str(tmp_path / "clean.tif")
    job = build(algorithm("cleanmap"), {"MAP": path, "OUTPUT": output}, context, feedback, tmp_path).job
    assert job == {
        "kind": "clean-map",
        "map": path,
        "minimum_area": 0.5,
        "unit": "hectares",
        "connectedness": "4",
        "majority": 1,
        "keep": [],
        "output": output,
    }
    job = build(
        algorithm("cleanmap"), {"MAP": path, "KEEP": "Open water; 3;", "OUTPUT": output}, context, feedback, tmp_path
    ).job
    assert job["keep"] == ["Open water", "3"]
    fine, message = algorithm("cleanmap").checkParameterValues({"MAP": path, "MAJORITY": 4, "OUTPUT": output}, context)
    assert not fine
    assert "odd" in message
    output = str(tmp_path / "polygons.gpkg")
    job = build(algorithm("vectorizemap"), {"MAP": path, "SIMPLIFY": 1, "OUTPUT": output}, context, feedback, tmp_path).job
    assert job == {"kind": "vectorize-map", "map": path, "polygons": "patches", "simplify": 1, "output": output}
    output = str(tmp_path / "areas.csv")
    parameters = {"MAP": path, "ZONES": polygons(), "ID_FIELD": "code", "OUTPUT": output}
    request = build(algorithm("zonalareas"), parameters, context, feedback, tmp_path)
    zones = {"path": str(tmp_path / "zones.gpkg"), "layer": "features", "id_field": "code"}
    assert request.job == {"kind": "zonal-areas", "map": path, "zones": zones, "output": output}
    assert len(request.exports) == 1
    output = str(tmp_path / "change.tif")
    other = raster("other.tif", 1)
    job = build(algorithm("changemap"), {"BEFORE": path, "AFTER": other, "OUTPUT": output}, context, feedback, tmp_path).job
    assert job == {"kind": "change-map", "before": path, "after": other, "output": output}


def test_rasters_that_are_no_files_are_named(algorithm, context, feedback, polygons, raster, tmp_path):
    from qgis.core import QgsProcessingException, QgsProject, QgsRasterLayer

    from rsfusion_plugin.layers import LayerError
    from rsfusion_plugin.layers.rasters import raster_path

    wms = "crs=EPSG:3857&format&type=xyz&url=http://localhost:1/%7Bz%7D/%7Bx%7D/%7By%7D.png&zmax=3&zmin=0"
    layer = QgsRasterLayer(wms, "Street tiles", "wms")
    assert layer.isValid()
    QgsProject.instance().addMapLayer(layer)
    with pytest.raises(LayerError, match="'Street tiles' comes from 'wms'"):
        build(
            algorithm("finetune"),
            finetune_parameters(layer.id(), polygons(), tmp_path),
            context,
            feedback,
            tmp_path,
        )
    service = tmp_path / "service.xml"
    service.write_text('<GDAL_WMS><Service name="TMS"><ServerUrl>http://localhost:1/</ServerUrl></Service></GDAL_WMS>')
    with pytest.raises(LayerError, match="a web service described by"):
        raster_path(QgsRasterLayer(str(service), "By description", "gdal"))
    for value, message in (
        (str(tmp_path / "missing.tif"), "does not exist"),
        (str(service.with_name("text.tif")), "cannot be opened as a raster"),
    ):
        (tmp_path / "text.tif").write_text("no raster")
        with pytest.raises(QgsProcessingException, match="OPTICAL: .*" + message):
            algorithm("finetune").job_from_parameters(
                finetune_parameters(raster(), polygons(), tmp_path, OPTICAL=[raster(), value]),
                context,
                feedback,
                str(tmp_path),
            )


def test_rasters_inside_other_files_keep_their_full_names(raster, tmp_path):
    import zipfile

    from qgis.core import QgsRasterLayer

    from rsfusion_plugin.layers.rasters import raster_path

    path = raster("inside.tif")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(path, "inside.tif")
    name = "/vsizip/{}/inside.tif".format(tmp_path / "all.zip")
    layer = QgsRasterLayer(name, "zipped", "gdal")
    assert layer.isValid()
    assert os.path.normpath(raster_path(layer)) == os.path.normpath(name)
    netcdf = 'NETCDF:"{}":Band1'.format(tmp_path / "a.nc")
    from osgeo import gdal

    gdal.Translate(str(tmp_path / "a.nc"), path, format="netCDF")
    layer = QgsRasterLayer(netcdf, "variable", "gdal")
    assert layer.isValid()
    assert raster_path(layer) == netcdf
    assert raster_path(QgsRasterLayer(path + "|option:NUM_THREADS=2", "with options", "gdal")) == path


def test_a_crs_given_only_in_qgis_is_told(algorithm, context, feedback, raster, polygons, tmp_path):
    from qgis.core import QgsCoordinateReferenceSystem, QgsProject, QgsRasterLayer

    layer = QgsRasterLayer(raster(), "moved", "gdal")
    layer.setCrs(QgsCoordinateReferenceSystem("EPSG:32634"))
    QgsProject.instance().addMapLayer(layer)
    parameters = finetune_parameters(layer.id(), polygons(), tmp_path)
    build(algorithm("finetune"), parameters, context, feedback, tmp_path)
    assert "'moved' is shown in EPSG:32634, but its file says EPSG:32633" in feedback.warnings[0]


def test_defaults_make_a_whole_pretraining_job(algorithm, context, feedback, raster, tmp_path):
    path = raster()
    parameters = {"OPTICAL": [path], "OUTPUT_MODEL": str(tmp_path / "base.safetensors")}
    job = build(algorithm("pretrain"), parameters, context, feedback, tmp_path).job
    assert job == {
        "kind": "pretrain",
        "scenes": [{"optical": [path], "optical_sensor": "auto", "sentinel2_offset": "auto"}],
        "method": "latent_targets",
        "setting": "small",
        "accumulation": 1,
        "seed": 0,
        "device": "auto",
        "output_model": str(tmp_path / "base.safetensors"),
    }


def test_every_wish_for_a_pretraining_arrives(algorithm, context, feedback, raster, polygons, tmp_path):
    path = raster()
    (tmp_path / "scenes").mkdir()
    (tmp_path / "initial.safetensors").write_bytes(b"x")
    parameters = {
        "OPTICAL": [path],
        "SCENES": str(tmp_path / "scenes"),
        "LABELS": polygons(),
        "CLASS_FIELD": "class",
        "METHOD": "cross_scale_mae",
        "SETTING": "paper",
        "SWITCHES": "contrast=false, mask_ratio = 0.5",
        "ARCHITECTURE": "vit_cross_scale",
        "ENCODER": "vit",
        "SIZE": "small",
        "INITIAL_MODEL": str(tmp_path / "initial.safetensors"),
        "MINUTES": 1.5,
        "WINDOWS": 64,
        "BATCH_SIZE": 8,
        "ACCUMULATION": 2,
        "SEED": 3,
        "DEVICE": "cpu",
        "OUTPUT_MODEL": str(tmp_path / "base.safetensors"),
        "REPORT": str(tmp_path / "report.html"),
    }
    request = build(algorithm("pretrain"), parameters, context, feedback, tmp_path)
    job = request.job
    del job["scenes"]
    assert len(request.exports) == 1
    assert job == {
        "kind": "pretrain",
        "scenes_folder": str(tmp_path / "scenes"),
        "labels": {"path": str(tmp_path / "labels.gpkg"), "layer": "features", "class_field": "class"},
        "method": "cross_scale_mae",
        "setting": "paper",
        "switches": {"contrast": "false", "mask_ratio": "0.5"},
        "architecture": "vit_cross_scale",
        "encoder": "vit",
        "size": "small",
        "initial_model": str(tmp_path / "initial.safetensors"),
        "minutes": 1.5,
        "windows": 64,
        "batch_size": 8,
        "accumulation": 2,
        "seed": 3,
        "device": "cpu",
        "output_model": str(tmp_path / "base.safetensors"),
        "report": str(tmp_path / "report.html"),
    }


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"EPOCHS": 3, "MINUTES": 2.0}, "give one of them"),
        ({"CLASS_FIELD": "class"}, "give both or none"),
        ({"SWITCHES": "contrast"}, "'contrast' is not name=value"),
        ({"OPTICAL": []}, "at least one of OPTICAL"),
    ],
)
def test_wrong_wishes_for_a_pretraining_are_named(algorithm, context, raster, tmp_path, more, words):
    parameters = {"OPTICAL": [raster()], "OUTPUT_MODEL": str(tmp_path / "base.safetensors")} | more
    fine, message = algorithm("pretrain").checkParameterValues(parameters, context)
    assert not fine
    assert words in message


def scenes_parameters(raster, tmp_path, **more):
    return {"OPTICAL": [raster], "OUTPUT": str(tmp_path / "scenes.gpkg"), **more}


def test_a_job_of_scenes_from_polygons(algorithm, context, feedback, raster, polygons, tmp_path):
    path = raster()
    parameters = scenes_parameters(
        path,
        tmp_path,
        TRAINING=polygons(),
        CLASS_FIELD="class",
        MULTI_LABEL="yes",
        UNITS=polygons(),
        BASE_MODEL=str(tmp_path / "base.safetensors"),
        SEED=3,
        OUTPUT_MODEL=str(tmp_path / "m.safetensors"),
    )
    request = build(algorithm("classifyscenes"), parameters, context, feedback, tmp_path)
    assert request.job == {
        "kind": "classify-scenes",
        "inputs": {"optical": [path], "optical_sensor": "auto", "sentinel2_offset": "auto"},
        "training": {"path": str(tmp_path / "training.gpkg"), "layer": "features", "class_field": "class"},
        "multi_label": "yes",
        "units": str(tmp_path / "units.gpkg"),
        "base_model": str(tmp_path / "base.safetensors"),
        "validation_fraction": 0.3,
        "seed": 3,
        "device": "auto",
        "output": str(tmp_path / "scenes.gpkg"),
        "output_model": str(tmp_path / "m.safetensors"),
    }
    assert [export.path for export in request.exports] == [str(tmp_path / "training.gpkg"), str(tmp_path / "units.gpkg")]


def test_a_job_of_scenes_from_a_model(algorithm, context, feedback, raster, tmp_path):
    path = raster()
    parameters = scenes_parameters(path, tmp_path, MODEL=str(tmp_path / "m.safetensors"), CELL_SIZE=320)
    request = build(algorithm("classifyscenes"), parameters, context, feedback, tmp_path)
    assert request.job["model"] == str(tmp_path / "m.safetensors")
    assert request.job["cell_size"] == 320
    assert "training" not in request.job
    assert not request.exports


def test_what_is_wrong_with_scenes_is_said_before_anything_starts(algorithm, context, raster, polygons, tmp_path):
    path, training = raster(), polygons()
    wrong = [
        ({}, "give one of them"),
        ({"TRAINING": training, "CLASS_FIELD": "class", "MODEL": "/m.safetensors"}, "give one of them"),
        ({"TRAINING": training}, "CLASS_FIELD"),
        ({"MODEL": "/m.safetensors", "OUTPUT": str(tmp_path / "scenes.shp")}, "has to end in .gpkg"),
    ]
    for more, words in wrong:
        fine, message = algorithm("classifyscenes").checkParameterValues(scenes_parameters(path, tmp_path, **more), context)
        assert not fine
        assert words in message


def test_a_distillation_job(algorithm, context, feedback, raster, tmp_path):
    path, model = raster(), str(tmp_path / "small.safetensors")
    parameters = {"SAR": [path], "MODEL": str(tmp_path / "model.safetensors"), "OUTPUT_MODEL": model}
    assert build(algorithm("distil"), parameters, context, feedback, tmp_path).job == {
        "kind": "distil",
        "inputs": {"sar": [path], "sar_sensor": "auto", "sentinel2_offset": "auto"},
        "model": str(tmp_path / "model.safetensors"),
        "epochs": 12,
        "seed": 0,
        "device": "auto",
        "output_model": model,
    }
    more = {"EPOCHS": 3, "MINUTES": 2.5, "WINDOWS": 40, "SEED": 7, "DEVICE": "cpu"}
    job = build(algorithm("distil"), {**parameters, **more}, context, feedback, tmp_path).job
    assert (job["epochs"], job["minutes"], job["windows"], job["seed"], job["device"]) == (3, 2.5, 40, 7, "cpu")


def test_a_features_job(algorithm, context, feedback, raster, tmp_path):
    path = raster()
    (tmp_path / "m.safetensors").write_bytes(b"x")
    parameters = {
        "OPTICAL": [path],
        "MODEL": str(tmp_path / "m.safetensors"),
        "COMPONENTS": 2,
        "PICTURE": True,
        "EXTENT": "500000,500100,5600000,5600200 [EPSG:32633]",
        "OUTPUT": str(tmp_path / "features.tif"),
    }
    job = build(algorithm("features"), parameters, context, feedback, tmp_path).job
    del job["inputs"]
    assert job == {
        "kind": "features",
        "model": str(tmp_path / "m.safetensors"),
        "components": 2,
        "picture": True,
        "extent": {"left": 500000, "bottom": 5600000, "right": 500100, "top": 5600200, "crs": "EPSG:32633"},
        "overlap": 0.25,
        "device": "auto",
        "format": "gtiff",
        "output": str(tmp_path / "features.tif"),
    }


@pytest.mark.parametrize("name", ["finetune", "landcovermap"])
def test_at_least_one_raster(algorithm, context, polygons, raster, tmp_path, name):
    parameters = finetune_parameters(None, polygons(), tmp_path)
    parameters.update(map_parameters(None, tmp_path), OPTICAL=[], SAR=None)
    fine, message = algorithm(name).checkParameterValues(parameters, context)
    assert not fine
    assert "at least one of OPTICAL, SAR, ELEVATION and OTHER" in message


def test_outputs_are_checked_before_anything_starts(algorithm, context, raster, tmp_path):
    path = raster()
    (tmp_path / "folder.tif").mkdir()
    subject = algorithm("landcovermap")
    os.symlink(path, tmp_path / "link.tif")
    for more, message in (
        ({"OUTPUT": path}, "OUTPUT: .* is an input as well"),
        ({"OUTPUT": str(tmp_path / "link.tif")}, "is an input as well"),
        ({"OUTPUT": os.path.join(str(tmp_path), ".", "model.safetensors")}, r"has to end in \.tif"),
        ({"OUTPUT": str(tmp_path / "missing" / "map.tif")}, "missing' does not exist"),
        ({"OUTPUT": str(tmp_path / "map.png")}, r"has to end in \.tif"),
        ({"OUTPUT": str(tmp_path / "folder.tif")}, "is a folder"),
        ({"CONFIDENCE": str(tmp_path / "map.tif")}, "CONFIDENCE: .* is the file of OUTPUT as well"),
    ):
        fine, found = subject.checkParameterValues(map_parameters(path, tmp_path, **more), context)
        assert not fine
        assert re.search(message, found), found
    assert subject.checkParameterValues(map_parameters(path, tmp_path, OUTPUT="TEMPORARY_OUTPUT"), context)[0]
    fine, found = algorithm("samplescene").checkParameterValues({"OUTPUT": path}, context)
    assert not fine
    assert "is a file, and a folder is to be written" in found


def test_a_read_only_folder_is_named(algorithm, context, raster, tmp_path, monkeypatch):
    path = raster()
    locked = tmp_path / "locked"
    locked.mkdir()
    if os.geteuid() == 0:
        # Root may write anywhere, so what a user gets from the system is said in its place.
        real = os.access
        monkeypatch.setattr(os, "access", lambda name, mode: str(name) != str(locked) and real(name, mode))
    else:
        locked.chmod(0o500)
    parameters = map_parameters(path, tmp_path, OUTPUT=str(locked / "map.tif"))
    fine, message = algorithm("landcovermap").checkParameterValues(parameters, context)
    assert not fine
    assert "cannot be written to" in message


def test_the_command_line_mirrors_the_job(algorithm, context, feedback, raster, polygons, tmp_path):
    from rsfusion_plugin.algorithms.command_line import command_line

    folder = tmp_path / "it's a folder"
    folder.mkdir()
    path = raster(folder=folder)
    parameters = finetune_parameters(path, polygons(), tmp_path, RESOLUTION=5)
    line = command_line(build(algorithm("finetune"), parameters, context, feedback, tmp_path).job)
    words = shlex.split(line)
    assert words[:4] == ["rsfusion", "finetune", "--optical", path]
    options = dict(zip(words[2::2], words[3::2], strict=True))
    assert options["--labels"] == str(tmp_path / "labels.gpkg")
    assert options["--class-field"] == "class"
    assert options["--output-model"] == str(tmp_path / "model.safetensors")
    assert options["--resolution"] == "5.0"
    assert command_line({"kind": "sample-scene", "output": "/a b", "size": 64, "seed": 1}) == (
        "rsfusion sample-scene '/a b' --size 64 --seed 1"
    )


def test_jobs_are_plain_data(algorithm, context, feedback, raster, polygons, tmp_path):
    layer = styled(polygons(), "class", [("water", "Water", "#0000ff")])
    job = build(algorithm("finetune"), finetune_parameters(raster(), layer, tmp_path), context, feedback, tmp_path).job
    assert json.loads(json.dumps(job)) == job


def test_every_way_to_leave_out_an_optional_value_is_understood(algorithm, context, feedback, raster, tmp_path):
    from qgis.PyQt.QtCore import QVariant

    path = raster()
    expected = build(algorithm("landcovermap"), map_parameters(path, tmp_path), context, feedback, tmp_path).job
    keys = ("OPTICAL", "ELEVATION", "RESOLUTION", "EXTENT", "MASK", "CONFIDENCE", "PROBABILITIES")
    for nothing in (None, "", QVariant()):
        more = dict.fromkeys(keys, nothing)
        parameters = map_parameters(path, tmp_path, **more)
        assert algorithm("landcovermap").job_from_parameters(parameters, context, feedback, "").job == expected
