"""A QGIS without a window and with a profile of its own, for the tests of the plugin.

Run with the Python that QGIS uses: ``/usr/bin/python3 -m pytest tests/plugin``.
"""

import gc
import os
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Before anything of Qt or QGIS is imported: both look at these once.
_PROFILE = tempfile.TemporaryDirectory(prefix="rsfusion-profile-")
os.environ["QT_QPA_PLATFORM"] = "offscreen"
os.environ["QGIS_CUSTOM_CONFIG_PATH"] = _PROFILE.name
REAL_PYTHON = os.environ.pop("RSFUSION_PYTHON", "") or str(ROOT / ".venv" / "bin" / "python")
sys.path.insert(0, str(ROOT))


_applications = []


def pytest_sessionfinish():
    # Not in the fixture's own teardown: the last test's layers are let go of after that, and need a living QGIS.
    gc.collect()
    for application in _applications:
        application.exitQgis()


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes more than a few seconds")


@pytest.fixture(scope="session")
def qgis_app():
    """QGIS with the native algorithms and Processing's own part."""
    from qgis.core import QgsApplication

    application = QgsApplication([], False)
    application.initQgis()
    plugins = os.path.join(application.pkgDataPath(), "python", "plugins")
    sys.path.insert(0, plugins)
    from processing.core.Processing import Processing

    Processing.initialize()
    _applications.append(application)
    return application


@pytest.fixture
def provider(qgis_app):
    """Our provider, registered by the plugin as under ``qgis_process``: without an interface."""
    import rsfusion_plugin

    plugin = rsfusion_plugin.classFactory(None)
    plugin.initProcessing()
    yield plugin.provider
    plugin.unload()


@pytest.fixture
def algorithm(provider):
    """An algorithm by its name."""
    return lambda name: provider.algorithm(name).create()


@pytest.fixture
def feedback(qgis_app):
    """Collects what an algorithm says."""
    from qgis.core import QgsProcessingFeedback

    class Collector(QgsProcessingFeedback):
        def __init__(self):
            super().__init__(False)
            self.warnings, self.infos, self.commands, self.errors, self.debug = [], [], [], [], []
            self.phases, self.fractions = [], []
            self.progressChanged.connect(self.fractions.append)

        def pushWarning(self, text):
            self.warnings.append(text)

        def pushInfo(self, text):
            self.infos.append(text)

        def pushCommandInfo(self, text):
            self.commands.append(text)

        def pushDebugInfo(self, text):
            self.debug.append(text)

        def reportError(self, text, fatalError=False):
            self.errors.append(text)

        def setProgressText(self, text):
            self.phases.append(text)

    return Collector()


@pytest.fixture
def context(qgis_app):
    """A context with an empty project."""
    from qgis.core import QgsProcessingContext, QgsProject

    context = QgsProcessingContext()
    context.setProject(QgsProject.instance())
    yield context
    QgsProject.instance().removeAllMapLayers()


@pytest.fixture
def raster(tmp_path, qgis_app):
    """Makes a small GeoTIFF; returns its path."""
    from osgeo import gdal, osr

    def make(name="optical.tif", bands=4, size=20, epsg=32633, folder=None):
        path = str((folder or tmp_path) / name)
        dataset = gdal.GetDriverByName("GTiff").Create(path, size, size, bands, gdal.GDT_Float32)
        dataset.SetGeoTransform((500000, 10, 0, 5000000, 0, -10))
        if epsg:
            reference = osr.SpatialReference()
            reference.ImportFromEPSG(epsg)
            dataset.SetProjection(reference.ExportToWkt())
        for band in range(bands):
            dataset.GetRasterBand(band + 1).Fill(band + 1)
        dataset = None
        return path

    return make


@pytest.fixture
def polygons(qgis_app):
    """Makes a memory layer with four squares: fields ``class`` (text) and ``code`` (integer)."""
    from qgis.core import QgsFeature, QgsGeometry, QgsRectangle, QgsVectorLayer

    def make(name="squares"):
        uri = "Polygon?crs=EPSG:32633&field=class:string(20)&field=code:integer"
        layer = QgsVectorLayer(uri, name, "memory")
        features = []
        for number, (text, code) in enumerate([("water", 1), ("water", 1), ("forest", 2), ("crops", 3)]):
            feature = QgsFeature(layer.fields())
            feature.setAttributes([text, code])
            left = 500000 + 40 * number
            feature.setGeometry(QgsGeometry.fromRect(QgsRectangle(left, 4999900, left + 30, 4999950)))
            features.append(feature)
        layer.dataProvider().addFeatures(features)
        layer.updateExtents()
        return layer

    return make


@pytest.fixture(scope="session")
def real_python():
    """The Python of a real worker environment, or a skip where there is none."""
    if not os.path.exists(REAL_PYTHON):
        pytest.skip("there is no worker environment: neither RSFUSION_PYTHON nor .venv")
    return REAL_PYTHON


@pytest.fixture
def worker_setting():
    """Sets the Python of the worker, and takes it back."""
    from rsfusion_plugin import settings

    yield settings.set_worker_python
    settings.set_worker_python("")
