"""Checks of the outputs before anything starts: the folder is there, can be written, and no input is overwritten."""

import os

from qgis.core import (
    QgsProcessing,
    QgsProcessingOutputLayerDefinition,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterVectorDestination,
)

from ..texts import tr


def problem_with_outputs(algorithm, parameters, context):
    """What is wrong with the destinations of an algorithm; empty for nothing."""
    inputs = _input_files(algorithm, parameters, context)
    taken = {}
    for definition in algorithm.parameterDefinitions():
        if not definition.isDestination():
            continue
        path = _static_path(parameters.get(definition.name()))
        if not path:
            continue
        is_folder = isinstance(definition, QgsProcessingParameterFolderDestination)
        problem = _problem_with_place(path, is_folder)
        if not problem and isinstance(definition, QgsProcessingParameterRasterDestination):
            problem = _problem_with_extension(path, (".tif", ".tiff"), tr("rasters are written as GeoTIFF"))
        if not problem and isinstance(definition, QgsProcessingParameterVectorDestination):
            problem = _problem_with_extension(path, algorithm.VECTOR_EXTENSIONS, tr("layers are written as GeoPackage"))
        if not problem and not is_folder:
            name = _canonical(path)
            if name in inputs:
                problem = tr("'{}' is an input as well; choose another name.").format(path)
            elif name in taken:
                problem = tr("'{}' is the file of {} as well; choose another name.").format(path, taken[name])
            taken[name] = definition.name()
        if problem:
            return "{}: {}".format(definition.name(), problem)
    return ""


def _static_path(value):
    """The path that a destination parameter asks for; empty for none, a temporary one, or one known only later."""
    if isinstance(value, QgsProcessingOutputLayerDefinition):
        value = value.sink.staticValue()
    if not isinstance(value, str) or value == QgsProcessing.TEMPORARY_OUTPUT:
        return ""
    return value


def _problem_with_place(path, is_folder):
    if is_folder and os.path.isdir(path):
        folder = path
    else:
        folder = os.path.dirname(os.path.abspath(path))
        if not is_folder and os.path.isdir(path):
            return tr("'{}' is a folder, and a file is to be written.").format(path)
        if is_folder and os.path.exists(path):
            return tr("'{}' is a file, and a folder is to be written.").format(path)
    if not os.path.isdir(folder):
        return tr("The folder '{}' does not exist; create it or choose another one.").format(folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        return tr("The folder '{}' cannot be written to; choose another one.").format(folder)
    if not is_folder and os.path.exists(path) and not os.access(path, os.W_OK):
        return tr("The file '{}' cannot be written to; choose another one.").format(path)
    return ""


def _problem_with_extension(path, extensions, reason):
    if os.path.splitext(path)[1].lower() in extensions:
        return ""
    return tr("'{}' has to end in {}: {}.").format(path, extensions[0], reason)


def _input_files(algorithm, parameters, context):
    """The canonical paths of all files that the parameters read."""
    files = set()
    for definition in algorithm.parameterDefinitions():
        if definition.isDestination():
            continue
        kind = definition.type()
        if kind == "multilayer":
            layers = algorithm.parameterAsLayerList(parameters, definition.name(), context)
        elif kind in ("raster", "vector", "source"):
            layers = [algorithm.parameterAsLayer(parameters, definition.name(), context)]
        elif kind == "file":
            path = algorithm.parameterAsString(parameters, definition.name(), context)
            files.update({_canonical(path)} if path else ())
            continue
        else:
            continue
        files.update(_canonical(layer.source().split("|")[0]) for layer in layers if layer is not None)
    return files


def _canonical(path):
    return os.path.normcase(os.path.realpath(path))
