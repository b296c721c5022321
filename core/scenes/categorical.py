"""What a raster of codes carries beside its pixels, so that any program shows names and colours.

A GeoTIFF holds a colour table and nothing else about its codes. The names and the attribute table go into GDAL's
auxiliary file (``<raster>.aux.xml``), the legend of QGIS into a style of the raster's name (``<raster without suffix>.qml``),
which QGIS loads with the layer by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

# XML is only written here, never parsed.
from xml.etree import ElementTree  # nosec B405

_INTEGER, _REAL, _TEXT = "0", "1", "2"
_GENERIC, _PIXEL_COUNT, _NAME, _MIN_MAX, _RED, _GREEN, _BLUE, _ALPHA = "0", "1", "2", "5", "6", "7", "8", "9"
"""Field types and usages of GDAL's raster attribute table (``GDALRATFieldType``, ``GDALRATFieldUsage``)."""
_LARGEST_INTEGER = 2**31 - 1


class Category(NamedTuple):
    """One code of a raster: its value, the name shown, the colour as ``#rrggbb``."""

    code: int
    name: str
    colour: str


def red_green_blue(colour: str) -> tuple[int, int, int]:
    """The parts, 0 to 255, of ``#rrggbb``."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def colour_table(categories: Sequence[Category]) -> dict[int, tuple[int, int, int, int]]:
    """The colour table for a TIFF: red, green, blue and alpha of every code, and 0 transparent."""
    return {0: (0, 0, 0, 0)} | {entry.code: (*red_green_blue(entry.colour), 255) for entry in categories}


def paletted_style(categories: Sequence[Category]) -> str:
    """A QGIS style that shows the codes of band 1 in their colours under their names."""
    root = ElementTree.Element("qgis", version="3.22.0", styleCategories="Symbology")
    pipe = ElementTree.SubElement(root, "pipe")
    renderer = ElementTree.SubElement(
        pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1", nodataColor=""
    )
    ElementTree.SubElement(renderer, "rasterTransparency")
    palette = ElementTree.SubElement(renderer, "colorPalette")
    for entry in categories:
        ElementTree.SubElement(
            palette, "paletteEntry", value=str(entry.code), color=entry.colour, alpha="255", label=entry.name
        )
    ElementTree.SubElement(root, "blendMode").text = "0"
    return style_text(root)


def style_text(root: ElementTree.Element) -> str:
    """The text of a QGIS style file."""
    ElementTree.indent(root)
    doctype = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>"
    return f"{doctype}\n{ElementTree.tostring(root, encoding='unicode')}\n"


def auxiliary_metadata(
    categories: Sequence[Category],
    counts: Mapping[int, int] | None = None,
    hectares: Mapping[int, float] | None = None,
) -> str:
    """GDAL's auxiliary file with the category names and a raster attribute table for band 1.

    Args:
        categories: what the codes mean.
        counts: pixels of each code; the table has no such column where this is None.
        hectares: area of each code; likewise.
    """
    root = ElementTree.Element("PAMDataset")
    band = ElementTree.SubElement(root, "PAMRasterBand", band="1")
    names = {entry.code: entry.name for entry in categories}
    listed = ElementTree.SubElement(band, "CategoryNames")
    for code in range(max(names, default=0) + 1):
        ElementTree.SubElement(listed, "Category").text = names.get(code, "")

    colours = [red_green_blue(entry.colour) for entry in categories]
    columns: list[tuple[str, str, str, list[str]]] = [
        ("Value", _INTEGER, _MIN_MAX, [str(entry.code) for entry in categories]),
        ("Class", _TEXT, _NAME, [entry.name for entry in categories]),
        ("Red", _INTEGER, _RED, [str(red) for red, _, _ in colours]),
        ("Green", _INTEGER, _GREEN, [str(green) for _, green, _ in colours]),
        ("Blue", _INTEGER, _BLUE, [str(blue) for _, _, blue in colours]),
        ("Alpha", _INTEGER, _ALPHA, ["255"] * len(colours)),
    ]
    if counts is not None:
        pixels = [counts.get(entry.code, 0) for entry in categories]
        # The table's integers have 32 bits; a national map has more pixels than that.
        kind = _INTEGER if max(pixels, default=0) <= _LARGEST_INTEGER else _REAL
        columns.append(("Count", kind, _PIXEL_COUNT, [str(count) for count in pixels]))
    if hectares is not None:
        areas = [f"{hectares.get(entry.code, 0.0):.4f}" for entry in categories]
        columns.append(("Area_ha", _REAL, _GENERIC, areas))
    _append_table(band, columns)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _append_table(band: ElementTree.Element, columns: list[tuple[str, str, str, list[str]]]) -> None:
    """Appends a ``GDALRasterAttributeTable`` of columns (name, type, usage, values)."""
    table = ElementTree.SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    for index, (name, kind, usage, _) in enumerate(columns):
        field = ElementTree.SubElement(table, "FieldDefn", index=str(index))
        ElementTree.SubElement(field, "Name").text = name
        ElementTree.SubElement(field, "Type").text = kind
        ElementTree.SubElement(field, "Usage").text = usage
    for index, values in enumerate(zip(*(column[3] for column in columns), strict=True)):
        row = ElementTree.SubElement(table, "Row", index=str(index))
        for value in values:
            ElementTree.SubElement(row, "F").text = value


def auxiliary_path(raster: Path) -> Path:
    """Where GDAL looks for what does not fit into the raster."""
    return raster.with_name(raster.name + ".aux.xml")


def style_path(raster: Path) -> Path:
    """Where QGIS looks for a raster's style."""
    return raster.with_suffix(".qml")
