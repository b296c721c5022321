"""The Processing provider: the list of the algorithms."""

import configparser
import os

from qgis.core import QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from .algorithms import ALGORITHMS
from .settings import register_options, unregister_options
from .texts import TAG

_FOLDER = os.path.dirname(os.path.abspath(__file__))


class RsfusionProvider(QgsProcessingProvider):
    """Offers every algorithm of the plugin under the id ``rsfusion``."""

    def id(self):
        return "rsfusion"

    def name(self):
        return TAG

    def longName(self):
        return "RS Fusion: land-cover maps from several sensors"

    def icon(self):
        return QIcon(self.svgIconPath())

    def svgIconPath(self):
        return os.path.join(_FOLDER, "icons", "provider.svg")

    def versionInfo(self):
        metadata = configparser.ConfigParser(interpolation=None)
        metadata.read(os.path.join(_FOLDER, "metadata.txt"), encoding="utf-8")
        return metadata.get("general", "version", fallback="")

    def load(self):
        register_options(self.icon())
        self.refreshAlgorithms()
        return True

    def unload(self):
        unregister_options()

    def loadAlgorithms(self):
        for algorithm in ALGORITHMS:
            self.addAlgorithm(algorithm())

    def supportedOutputRasterLayerExtensions(self):
        return ["tif", "tiff"]

    def supportedOutputVectorLayerExtensions(self):
        return ["gpkg", "csv"]

    def defaultRasterFileExtension(self):
        return "tif"

    def defaultVectorFileExtension(self, hasGeometry=True):
        return "gpkg"
