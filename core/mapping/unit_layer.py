"""A vector layer of classified polygons, with a style that shows their classes in their colours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

# XML is only written here, never parsed.
from xml.etree import ElementTree  # nosec B405

import geopandas
import numpy as np
import pyogrio
from numpy.typing import NDArray

from core.folders import write_text
from core.labels.scene_labels import Units
from core.labels.scheme import ClassScheme
from core.scenes.categorical import red_green_blue, style_path, style_text
from core.scenes.vector_writing import writing_vectors

SHOWN_BEST = ("class", "class_2", "class_3")
"""The fields of the three most probable classes."""


def unit_table(
    units: Units,
    scheme: ClassScheme,
    probabilities: NDArray[np.float64],
    valid_share: NDArray[np.float64],
    given: NDArray[np.bool_] | None,
) -> dict[str, Any]:
    """The fields of classified units; those without data have no class.

    Args:
        units: N of them.
        scheme: the K classes.
        probabilities: (N, K), NaN where a unit has no data.
        valid_share: (N,) part of a unit's area with data.
        given: (N, K) bool, the classes of each unit where it may have several; None where it has one.
    """
    known: NDArray[np.bool_] = np.asarray(np.isfinite(probabilities).all(axis=1))
    order = np.argsort(-np.nan_to_num(probabilities), axis=1, kind="stable")
    names = np.array(scheme.names, object)
    table: dict[str, Any] = {"unit": units.ids}
    for place, field in enumerate(SHOWN_BEST[: len(scheme)]):
        table[field] = np.array(
            [name if is_known else None for name, is_known in zip(names[order[:, place]], known, strict=True)], object
        )
        suffix = field.removeprefix("class")
        table["probability" + suffix] = np.take_along_axis(probabilities, order[:, place : place + 1], axis=1)[:, 0]
    if given is not None:
        listed = ["; ".join(names[row]) if is_known else None for row, is_known in zip(given, known, strict=True)]
        table["classes"] = np.array(listed, object)
    table["valid_share"] = np.round(valid_share, 4)
    taken = set(table)
    for index, name in enumerate(scheme.names):
        # GeoPackage tells no capitals in the names of fields.
        field = f"p_{name}"
        field = field if field.casefold() not in taken else f"{field}_{scheme.codes[index]}"
        taken.add(field.casefold())
        table[field] = probabilities[:, index]
    return {field: np.round(each, 4) if field.startswith("p") else each for field, each in table.items()}


def write_units(
    path: Path, layer: str, units: Units, table: Mapping[str, Any], scheme: ClassScheme, tags: Mapping[str, str], created: str
) -> Path:
    """Writes a GeoPackage of polygons and, beside it, its style.

    Args:
        path: of the file.
        layer: its name inside.
        units, table: shapes and fields.
        scheme: names and colours of the field ``class``.
        tags: provenance, kept as the file's metadata.
        created: date and time that the file says it was changed, ISO 8601.

    Returns:
        The style's path.

    Raises:
        OutputError: the files cannot be written.
    """
    frame = geopandas.GeoDataFrame(dict(table), geometry=units.geometries, crs=units.crs)
    with writing_vectors(path, created):
        pyogrio.write_dataframe(
            frame,
            path,
            layer=layer,
            driver="GPKG",
            promote_to_multi=True,
            geometry_type="MultiPolygon",
            layer_metadata=dict(tags),
            # The GDAL of older QGIS warns of a newer one.
            dataset_options={"VERSION": "1.3"},
        )
    style = style_path(path)
    write_text(style, _categorised_style("class", scheme))
    return style


def _categorised_style(field: str, scheme: ClassScheme) -> str:
    """A QGIS style that fills polygons in the colour of their class, half transparent, so that the image shows through."""
    root = ElementTree.Element("qgis", version="3.22.0", styleCategories="Symbology")
    renderer = ElementTree.SubElement(
        root, "renderer-v2", type="categorizedSymbol", attr=field, symbollevels="0", enableorderby="0", forceraster="0"
    )
    categories = ElementTree.SubElement(renderer, "categories")
    symbols = ElementTree.SubElement(renderer, "symbols")
    for number, entry in enumerate(scheme.classes):
        values = {"value": entry.name, "label": entry.name, "symbol": str(number), "render": "true", "type": "string"}
        ElementTree.SubElement(categories, "category", values)
        symbol = ElementTree.SubElement(
            symbols, "symbol", {"type": "fill", "name": str(number), "alpha": "0.6", "clip_to_extent": "1", "force_rhr": "0"}
        )
        layer = ElementTree.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0"})
        red, green, blue = red_green_blue(entry.colour)
        settings = {"color": f"{red},{green},{blue},255", "style": "solid", "outline_color": "60,60,60,255"}
        settings |= {"outline_style": "solid", "outline_width": "0.1", "outline_width_unit": "MM"}
        for key, value in settings.items():
            ElementTree.SubElement(layer, "prop", k=key, v=value)
    ElementTree.SubElement(root, "blendMode").text = "0"
    return style_text(root)
