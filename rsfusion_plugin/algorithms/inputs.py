"""The parameters that several algorithms have alike, and what they become in a job."""

import os

from qgis.core import (
    QgsProcessingException,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
    QgsRasterLayer,
)

from ..compat import RASTER, VECTOR_POINT, VECTOR_POLYGON, crs_text, is_given
from ..layers.rasters import crs_warning, raster_path
from ..layers.vectors import EXPORT_LAYER, VectorExport, plain_file, style_classes
from ..texts import tr
from .choices import AUTO, DEVICES, FORMATS, LEADING_ROLES, MISSING_INPUTS, SENSORS, SENTINEL2_OFFSETS

ROLES = ("OPTICAL", "SAR", "ELEVATION", "OTHER")
"""The roles of rasters, as a dialog shows them."""


def add_inputs(algorithm):
    """Declares the rasters by role, their sensors, the resolution and the offset of Sentinel-2."""
    descriptions = {
        "OPTICAL": tr("Optical rasters"),
        "SAR": tr("SAR rasters"),
        "ELEVATION": tr("Elevation rasters"),
        "OTHER": tr("Other rasters"),
    }
    helps = {
        "OPTICAL": tr("Satellite, aerial or hyperspectral images. Several files may tile the ground."),
        "SAR": tr("Radar backscatter, in dB or linear. Several files may tile the ground."),
        "ELEVATION": tr("Terrain or surface model or height above ground, in metres."),
        "OTHER": tr("Anything else that may tell classes apart: indices, temperature, texture."),
    }
    anything = tr("Each raster keeps its own grid and coordinate reference system. At least one raster is needed.")
    for role in ROLES:
        layers = QgsProcessingParameterMultipleLayers(role, descriptions[role], RASTER, optional=True)
        algorithm.add(layers, helps[role] + " " + anything)
    for role in ROLES:
        add_choice(
            algorithm,
            role + "_SENSOR",
            tr("Sensor of: {}").format(descriptions[role]),
            (AUTO,) + SENSORS[role],
            tr("Which sensor the rasters come from. 'auto' finds out from their bands and metadata."),
        )
    resolution = QgsProcessingParameterNumber(
        "RESOLUTION", tr("Resolution"), QgsProcessingParameterNumber.Type.Double, None, True, 0.0
    )
    algorithm.add(
        resolution,
        tr(
            "Pixel size of the map, in the units of the main raster's coordinate reference system. By default the main"
            " raster's own: the first optical one, else the first of SAR, other, elevation."
        ),
        True,
    )
    add_choice(
        algorithm,
        "SENTINEL2_OFFSET",
        tr("Sentinel-2 values carry the +1000 offset"),
        SENTINEL2_OFFSETS,
        tr(
            "Since processing baseline 04.00 (January 2022) Sentinel-2 digital numbers are 1000 higher. 'auto' takes it"
            " from the metadata, or from the values with a warning."
        ),
    )


def add_device(algorithm):
    """Declares the choice of the device."""
    add_choice(
        algorithm,
        "DEVICE",
        tr("Device"),
        DEVICES,
        tr("Where the model computes: 'cuda' is an NVIDIA card, 'mps' an Apple chip, 'auto' the best there is."),
    )


def add_missing_inputs(algorithm, help_text):
    """Declares what happens where some of the rasters have no data."""
    add_choice(algorithm, "MISSING_INPUTS", tr("Where some rasters have no data"), MISSING_INPUTS, help_text)


def add_overlap(algorithm):
    """Declares how much tiles share."""
    real = QgsProcessingParameterNumber.Type.Double
    algorithm.add(
        QgsProcessingParameterNumber("OVERLAP", tr("Overlap of tiles"), real, 0.25, False, 0.0, 0.75),
        tr(
            "Part of a tile that it shares with its neighbour, at most: more hides the seams better and takes longer, up to"
            " what the model sees around a pixel."
        ),
        True,
    )


def add_format(algorithm):
    """Declares the kind of GeoTIFF."""
    add_choice(
        algorithm,
        "FORMAT",
        tr("Format"),
        FORMATS,
        tr("'gtiff' is a tiled, compressed GeoTIFF; 'cog' a cloud-optimised one with overviews."),
    )


def add_labels(algorithm, key, description, help_of_field, optional=False, more=""):
    """Declares a layer of known classes and the field that holds them; optional ones are advanced.

    Args:
        more: said of the layer beside what is true of all.
    """
    help_of_layer = tr("Polygons or points of known classes, in any coordinate reference system.")
    algorithm.add(
        QgsProcessingParameterFeatureSource(key, description, [VECTOR_POLYGON, VECTOR_POINT], None, optional),
        (help_of_layer + " " + more).strip(),
        optional,
    )
    field = QgsProcessingParameterField("CLASS_FIELD", tr("Class field"), parentLayerParameterName=key, optional=optional)
    algorithm.add(field, help_of_field, optional)


def add_map(algorithm, key, description):
    """Declares a class raster."""
    algorithm.add(
        QgsProcessingParameterRasterLayer(key, description),
        tr("Class raster: 0 or the raster's own nodata where nothing was mapped, 1 to 255 the classes, named by its style."),
    )


def add_report(algorithm, help_text):
    """Declares the report to write."""
    algorithm.add(
        QgsProcessingParameterFileDestination("REPORT", tr("Report"), tr("HTML files (*.html)"), None, True, True),
        help_text,
    )


def add_choice(algorithm, key, description, values, help_text, advanced=True):
    """Declares a choice of names; the first is the default."""
    values = list(values)
    parameter = QgsProcessingParameterEnum(key, description, values, False, values[0], False, True)
    algorithm.add(parameter, help_text, advanced)


def problem_with_inputs(parameters):
    """What is wrong with the rasters, as far as can be told at no cost; empty for nothing."""
    if any(_entries(parameters.get(role)) for role in ROLES):
        return ""
    return tr("No raster was given. Give at least one of OPTICAL, SAR, ELEVATION and OTHER.")


def inputs_from_parameters(algorithm, parameters, context, feedback):
    """The ``inputs`` of a job.

    Raises:
        LayerError: a raster is not a file.
        QgsProcessingException: a raster cannot be opened.
    """
    inputs = {}
    for role in ROLES:
        layers = raster_layers(algorithm, parameters, role, context)
        if not layers:
            continue
        for warning in filter(None, map(crs_warning, layers)):
            feedback.pushWarning(warning)
        inputs[role.lower()] = [raster_path(layer) for layer in layers]
        inputs[role.lower() + "_sensor"] = algorithm.parameterAsEnumString(parameters, role + "_SENSOR", context)
    resolution = algorithm.optional_number(parameters, "RESOLUTION", context)
    if resolution is not None:
        if resolution <= 0:
            text = tr("RESOLUTION: {} is not a pixel size; give a positive one.")
            raise QgsProcessingException(text.format(resolution))
        inputs["resolution"] = resolution
    inputs["sentinel2_offset"] = algorithm.parameterAsEnumString(parameters, "SENTINEL2_OFFSET", context)
    return inputs


def later_rasters(algorithm, parameters, context, feedback):
    """The rasters of a second date, by the keys of a job; those of a role that was not given are left out.

    Raises:
        LayerError: a raster is not a file.
        QgsProcessingException: a raster cannot be opened.
    """
    rasters = {}
    for role in ROLES:
        layers = raster_layers(algorithm, parameters, "AFTER_" + role, context)
        for warning in filter(None, map(crs_warning, layers)):
            feedback.pushWarning(warning)
        if layers:
            rasters["after_" + role.lower()] = [raster_path(layer) for layer in layers]
    return rasters


def raster_layers(algorithm, parameters, key, context):
    """The layers of a list parameter.

    Raises:
        QgsProcessingException: an entry is no raster that can be opened; QGIS itself leaves it out without a word.
    """
    layers = []
    for entry in _entries(parameters.get(key)):
        found = algorithm.parameterAsLayerList({key: [entry]}, key, context)
        found = [layer for layer in found if isinstance(layer, QgsRasterLayer)]
        if not found:
            raise QgsProcessingException(unreadable_raster(key, entry))
        layers += found
    return layers


def map_from_parameters(algorithm, parameters, key, context):
    """The path of a class raster.

    Raises:
        LayerError: it is not a file.
        QgsProcessingException: it cannot be opened.
    """
    layer = algorithm.parameterAsRasterLayer(parameters, key, context)
    if layer is None:
        raise QgsProcessingException(unreadable_raster(key, parameters.get(key)))
    return raster_path(layer)


def unreadable_raster(key, entry):
    """The message for a value that is no raster."""
    if isinstance(entry, str) and os.path.isabs(entry) and not os.path.exists(entry):
        return tr("{}: the file '{}' does not exist.").format(key, entry)
    return tr("{}: '{}' cannot be opened as a raster. Is the file complete, and is it a raster?").format(key, entry)


def extent_from_parameters(algorithm, parameters, key, context):
    """The rectangle that is asked for, with its coordinate reference system; None for none.

    Raises:
        QgsProcessingException: it has no area.
    """
    if not is_given(parameters.get(key)):
        return None
    extent = algorithm.parameterAsExtent(parameters, key, context)
    if extent.isNull() or extent.isEmpty():
        raise QgsProcessingException(
            tr("{}: '{}' is no rectangle with an area. Write it as xmin,xmax,ymin,ymax [EPSG:code].").format(
                key, parameters[key]
            )
        )
    crs = algorithm.parameterAsExtentCrs(parameters, key, context)
    if not crs.isValid():
        crs = _main_raster_crs(algorithm, parameters, key, context)
    return {
        "left": extent.xMinimum(),
        "bottom": extent.yMinimum(),
        "right": extent.xMaximum(),
        "top": extent.yMaximum(),
        "crs": crs_text(crs),
    }


def _main_raster_crs(algorithm, parameters, key, context):
    """What the coordinates of an extent without a coordinate reference system are taken for."""
    for role in LEADING_ROLES:
        for layer in raster_layers(algorithm, parameters, role, context):
            return layer.crs()
    raise QgsProcessingException(tr("{}: give its coordinate reference system, as in '... [EPSG:32633]'.").format(key))


def _entries(value):
    return [entry for entry in (value if isinstance(value, (list, tuple)) else [value]) if is_given(entry)]


def labels_from_parameters(algorithm, parameters, key, context, folder, further_fields=()):
    """The labels of a job: a file, the class field, and names and colours from the layer's style.

    Args:
        key: of the feature source; the field's is ``CLASS_FIELD``.
        folder: where a file for the worker may be written later.
        further_fields: names of fields that the worker needs beside the class.

    Returns:
        ``(labels, exports)``: plain data, and what has to be written first.

    Raises:
        QgsProcessingException: the layer cannot be opened or lacks the field.
    """
    labels, exports = features_from_parameters(algorithm, parameters, key, "CLASS_FIELD", context, folder, further_fields)
    classes = style_classes(algorithm.parameterAsVectorLayer(parameters, key, context), labels["class_field"])
    if classes:
        labels["classes"] = classes
    return labels, exports


def features_from_parameters(algorithm, parameters, key, field_key, context, folder, further_fields=()):
    """A file with features and one of their fields.

    Args:
        key: of the feature source.
        field_key: of the field; the job has it in lower case.
        folder: where a file for the worker may be written later.
        further_fields: names of fields that the worker needs beside it.

    Returns:
        ``(features, exports)``: plain data, and what has to be written first.

    Raises:
        QgsProcessingException: the layer cannot be opened or lacks the field.
    """
    field = algorithm.parameterAsString(parameters, field_key, context)
    source = algorithm.parameterAsSource(parameters, key, context)
    if source is None:
        raise QgsProcessingException(algorithm.invalidSourceError(parameters, key))
    for name_of_key, name in [(field_key, field)] + [("STRATA_FIELD", name) for name in further_fields]:
        if source.fields().indexOf(name) < 0:
            text = tr("{}: '{}' has no field '{}'. It has: {}.")
            names = ", ".join(source.fields().names())
            raise QgsProcessingException(text.format(name_of_key, source.sourceName(), name, names))
    field = source.fields().at(source.fields().indexOf(field)).name()
    layer = algorithm.parameterAsVectorLayer(parameters, key, context)
    path, layer_name, exports = _vector_file(parameters.get(key), source, layer, [field, *further_fields], key, folder)
    features = {"path": path, field_key.lower(): field}
    if layer_name:
        features["layer"] = layer_name
    return features, exports


def mask_from_parameters(algorithm, parameters, key, context, folder):
    """The file of an optional polygon layer: ``(path or None, exports)``.

    Raises:
        QgsProcessingException: the layer cannot be opened.
    """
    if not is_given(parameters.get(key)):
        return None, []
    source = algorithm.parameterAsSource(parameters, key, context)
    if source is None:
        raise QgsProcessingException(algorithm.invalidSourceError(parameters, key))
    layer = algorithm.parameterAsVectorLayer(parameters, key, context)
    path, layer_name, exports = _vector_file(parameters.get(key), source, layer, [], key, folder)
    if layer_name and not exports:
        # A mask is a path alone, and this file has several layers.
        path, exports = _export(source, [], key, folder)
    return path, exports


def _vector_file(value, source, layer, fields, key, folder):
    """``(path, layer name or None, exports)`` of a feature source."""
    plain = plain_file(value, layer, fields)
    if plain is not None:
        return plain[0], plain[1], []
    path, exports = _export(source, fields, key, folder)
    return path, EXPORT_LAYER, exports


def _export(source, fields, key, folder):
    path = os.path.join(folder, key.lower() + ".gpkg")
    return path, [VectorExport(source, source.sourceName(), fields, path)]
