"""The few places where QGIS 3.22 to 3.44 and QGIS 4 differ. Everything else is written the same for all of them."""

from qgis.core import Qgis, QgsCoordinateReferenceSystem, QgsProcessing

if hasattr(Qgis, "ProcessingSourceType"):
    RASTER = Qgis.ProcessingSourceType.Raster
    VECTOR_POINT = Qgis.ProcessingSourceType.VectorPoint
    VECTOR_POLYGON = Qgis.ProcessingSourceType.VectorPolygon
else:  # before QGIS 3.36
    RASTER = QgsProcessing.SourceType.TypeRaster
    VECTOR_POINT = QgsProcessing.SourceType.TypeVectorPoint
    VECTOR_POLYGON = QgsProcessing.SourceType.TypeVectorPolygon

if hasattr(Qgis, "CrsWktVariant"):
    _WKT2 = Qgis.CrsWktVariant.Preferred
else:  # before QGIS 3.36
    _WKT2 = QgsCoordinateReferenceSystem.WktVariant.WKT_PREFERRED


def crs_text(crs):
    """A coordinate reference system as the worker reads it: an authority code that everybody knows, else WKT."""
    code = crs.authid()
    return code if code.split(":")[0] in ("EPSG", "ESRI", "OGC", "IGNF") else crs.toWkt(_WKT2)


def is_null(value):
    """Whether an attribute has no value: None, or the NULL of Qt 5."""
    if value is None:
        return True
    test = getattr(value, "isNull", None)
    return bool(test()) if callable(test) else False


def is_given(value):
    """Whether an optional parameter has a value: dialogs, models and qgis_process leave it out in different ways."""
    return not is_null(value) and value != ""
