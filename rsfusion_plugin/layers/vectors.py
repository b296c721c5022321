"""Vector layers to files that the worker can open, and their styles to class names and colours."""

import os

from qgis.core import (
    QgsCategorizedSymbolRenderer,
    QgsFeature,
    QgsFeatureRequest,
    QgsFields,
    QgsGeometry,
    QgsProcessingFeatureSource,
    QgsProcessingFeatureSourceDefinition,
    QgsProject,
    QgsProviderRegistry,
    QgsVectorFileWriter,
    QgsVectorLayer,
    QgsWkbTypes,
)

from ..compat import is_null
from ..texts import tr
from . import LayerError

EXPORT_LAYER = "features"
"""The layer in the GeoPackages that are written for the worker."""


class VectorExport:
    """Features that are written to a GeoPackage before the worker starts.

    Args:
        source: the ``QgsProcessingFeatureSource``, made on the main thread; reading it is safe on any thread.
        name: what the user calls it, for messages.
        fields: names of the fields to keep; none for geometries alone.
        path: the file to write.
    """

    def __init__(self, source, name, fields, path):
        self.source = source
        self.name = name
        self.fields = list(fields)
        self.path = path

    def write(self, transform_context, is_cancelled):
        """Writes the file.

        Returns:
            The number of features written.

        Raises:
            LayerError: nothing to write, or the file cannot be written.
        """
        fields = QgsFields()
        indices = [self.source.fields().indexOf(name) for name in self.fields]
        for index in indices:
            fields.append(self.source.fields().at(index))
        options = QgsVectorFileWriter.SaveVectorOptions()
        options.driverName = "GPKG"
        options.layerName = EXPORT_LAYER
        # Names that no class field has, or a field named 'fid' or 'geom' could not be written.
        options.layerOptions = ["FID=rsfusion_fid", "GEOMETRY_NAME=rsfusion_geometry"]
        geometry_type = QgsWkbTypes.multiType(QgsWkbTypes.linearType(self.source.wkbType()))
        writer = QgsVectorFileWriter.create(
            self.path, fields, geometry_type, self.source.sourceCrs(), transform_context, options
        )
        try:
            self._refuse(writer)
            count = self._copy(writer, fields, indices, is_cancelled)
        finally:
            del writer  # closes the file
        if not count and not is_cancelled():
            raise LayerError(tr("'{}' has no features to use. Is a selection or a filter on?").format(self.name))
        return count

    def _copy(self, writer, fields, indices, is_cancelled):
        request = QgsFeatureRequest()
        request.setSubsetOfAttributes(indices)
        # Invalid geometries are repaired, or named, by the worker.
        flag = QgsProcessingFeatureSource.Flag.FlagSkipGeometryValidityChecks
        count = 0
        for feature in self.source.getFeatures(request, flag):
            if is_cancelled():
                break
            geometry = feature.geometry()
            if QgsWkbTypes.isCurvedType(geometry.wkbType()):
                geometry = QgsGeometry(geometry.constGet().segmentize())
            geometry.convertToMultiType()
            copy = QgsFeature(fields)
            copy.setGeometry(geometry)
            copy.setAttributes([feature.attribute(index) for index in indices])
            if not writer.addFeature(copy):
                self._refuse(writer)
            count += 1
        return count

    def _refuse(self, writer):
        if writer.hasError() != QgsVectorFileWriter.WriterError.NoError:
            raise LayerError(tr("'{}' cannot be written to '{}': {}").format(self.name, self.path, writer.errorMessage()))


def has_table(path, name):
    """Whether a file has a layer or table of a name."""
    return QgsVectorLayer("{}|layername={}".format(path, name), name, "ogr").isValid()


def plain_file(value, layer, fields):
    """The file of a layer that the worker can read as it stands, so that nothing has to be copied.

    Args:
        value: the parameter's value, which tells of a selection.
        layer: the ``QgsVectorLayer``; None where the value is none.
        fields: names of the fields that are needed; none for geometries alone.

    Returns:
        ``(path, layer name or None)``; None where the features that QGIS shows are not those of the file: a selection,
        a filter, unsaved edits, a virtual field, another projection, a database or a memory layer.
    """
    if isinstance(value, QgsProcessingFeatureSourceDefinition):
        limited = value.selectedFeaturesOnly or value.featureLimit >= 0 or getattr(value, "filterExpression", "")
        if limited:
            return None
    if layer is None or layer.providerType() != "ogr":
        return None
    if layer.subsetString() or layer.isModified() or layer.crs() != layer.dataProvider().crs():
        return None
    if any(layer.dataProvider().fields().indexOf(name) < 0 for name in fields):
        return None
    parts = QgsProviderRegistry.instance().decodeUri("ogr", layer.source())
    if any(parts.get(key) for key in parts if key not in ("path", "layerName")) or parts.get("layerId") is not None:
        return None
    path = str(parts.get("path") or "")
    if not os.path.isfile(path):
        return None
    return os.path.abspath(path), (parts.get("layerName") or None)


def style_classes(layer, field):
    """Class names and colours from the categorised style of a layer.

    A layer that Processing has opened itself comes without the style saved beside its file, which is looked up here.

    Args:
        layer: the ``QgsVectorLayer``; None for none.
        field: the class field; a style on another field tells nothing about the classes.

    Returns:
        A list of ``{"value", "name", "colour"}``, empty where there is no such style.
    """
    if layer is None:
        return []
    renderer = layer.renderer()
    if not _shows(renderer, field) and QgsProject.instance().mapLayer(layer.id()) is None:
        styled = layer.clone()  # which leaves alone a layer that a script has passed
        styled.loadDefaultStyle()
        renderer = styled.renderer()
    if not _shows(renderer, field):
        return []
    classes = []
    for category in renderer.categories():
        if category.symbol() is None:
            continue
        values = category.value() if isinstance(category.value(), (list, tuple)) else [category.value()]
        for value in values:
            text = _value_text(value)
            if text:
                name = category.label().strip() or text
                classes.append({"value": text, "name": name, "colour": category.symbol().color().name()})
    return classes


def _shows(renderer, field):
    """Whether a style tells classes of this field apart."""
    return isinstance(renderer, QgsCategorizedSymbolRenderer) and renderer.classAttribute().strip('"') == field


def _value_text(value):
    """A category's value as the class field's text; empty for the category of all other values."""
    if is_null(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
