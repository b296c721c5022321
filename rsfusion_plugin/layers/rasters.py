"""Raster layers to paths that the worker can open."""

import os
import re

from qgis.core import QgsProviderRegistry, QgsRasterLayer

from ..texts import tr
from . import LayerError

_SUBDATASET = re.compile(r"[A-Za-z0-9_]+:")
"""How GDAL's names of a dataset inside a file start, such as ``NETCDF:"a.nc":var``."""

_SERVICES = ("WMS:", "WMTS:", "WCS:", "PG:", "http:", "https:", "ftp:", "<")
"""Names of datasets that are no files."""


def raster_path(layer):
    """The name under which GDAL opens a layer's file.

    Raises:
        LayerError: the layer is no raster file: a web service, a database, a virtual layer.
    """
    if not isinstance(layer, QgsRasterLayer):
        raise LayerError(tr("The layer '{}' is not a raster layer.").format(layer.name()))
    provider = layer.providerType()
    if provider != "gdal":
        raise LayerError(
            tr(
                "The raster layer '{}' comes from '{}', and only raster files can be read."
                " Save it as a GeoTIFF first (Export > Save As)."
            ).format(layer.name(), provider)
        )
    parts = QgsProviderRegistry.instance().decodeUri("gdal", layer.source())
    path = str(parts.get("path") or "")
    if parts.get("vsiPrefix"):
        path = parts["vsiPrefix"] + path + (parts.get("vsiSuffix") or "")
    if parts.get("layerName"):
        return layer.source()  # a raster inside a GeoPackage keeps its full name
    if os.path.isfile(path):
        _refuse_service_file(layer, path)
        return os.path.abspath(path)
    if os.path.isdir(path):
        return os.path.abspath(path)
    if path.startswith("/vsi"):
        return path
    if path.startswith(_SERVICES) or not _SUBDATASET.match(path):
        raise LayerError(
            tr("The raster layer '{}' is not a file: '{}'. Save it as a GeoTIFF first (Export > Save As).").format(
                layer.name(), path
            )
        )
    return path


def _refuse_service_file(layer, path):
    """Stops at a file that only describes a web service.

    Raises:
        LayerError: it does.
    """
    if os.path.splitext(path)[1].lower() != ".xml":
        return
    with open(path, "rb") as file:
        start = file.read(2000)
    if b"<GDAL_WM" in start or b"<WCS_GDAL" in start:
        raise LayerError(
            tr(
                "The raster layer '{}' is a web service described by '{}', and only raster files can be read."
                " Save it as a GeoTIFF first (Export > Save As)."
            ).format(layer.name(), path)
        )


def crs_warning(layer):
    """A text where the user gave a layer another coordinate reference system than its file has; else empty."""
    own = layer.dataProvider().crs()
    if layer.crs() == own or not own.isValid():
        return ""
    return tr(
        "The layer '{}' is shown in {}, but its file says {}: the file is what counts. Assign the projection to the"
        " file if it is wrong."
    ).format(layer.name(), layer.crs().authid(), own.authid())
