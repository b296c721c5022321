"""Class names and colours from the style that QGIS keeps with a layer, without QGIS.

A style is an XML document: a ``.qml`` file beside the data, or a row of the table ``layer_styles`` of a GeoPackage. Of
a vector layer the categorised renderer is read, of a raster layer the paletted one.
"""

from __future__ import annotations

import re
import sqlite3

# Documents with a document type of their own making are refused below, before they are parsed: what makes XML from
# strangers unsafe are the entities declared there, and the parser fetches nothing from outside.
import xml.etree.ElementTree as ElementTree  # nosec B405
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from core.errors import LabelError
from core.labels.palette import colours_for

_DOCTYPE_OF_QGIS = re.compile(r"<!DOCTYPE\s+qgis\s+PUBLIC\s+(['\"])[^'\"\[\]<>]*\1\s+(['\"])[^'\"\[\]<>]*\2\s*>")
_DECLARATION = re.compile(r"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)
_LARGEST_STYLE = 50_000_000
"""Bytes; a style with embedded pictures has a few million."""

_COLOUR_KEYS = ("color", "color1", "line_color", "outline_color", "gradient_color1")
"""Where symbol layers keep their main colour, the fill before the outline."""


@dataclass(frozen=True)
class StyleEntry:
    """A class as the layer's style shows it.

    Attributes:
        value: what the class field holds, as text.
        name: the legend's text, or the value where that is empty.
        colour: ``#rrggbb``, lower case.
    """

    value: str
    name: str
    colour: str


def entries_from_qml(path: str | Path) -> list[StyleEntry]:
    """The classes of a style file, in the legend's order.

    Returns:
        The categories of a vector style or the palette of a raster style; none where it has neither.

    Raises:
        LabelError: the file cannot be read, is no XML, or declares entities.
    """
    root = _parsed(_read(Path(path)), str(path))
    categorised = _categorised(root)
    return _paletted(root) if categorised is None else categorised[1]


def entries_for(path: str | Path, layer: str | None, class_field: str) -> list[StyleEntry]:
    """The classes that the style kept with a vector file gives to a field.

    A ``.qml`` beside the file counts before the default style in a GeoPackage.

    Args:
        path: of the vector file.
        layer: of a GeoPackage; None where it has one only.
        class_field: a style that shows another field is not used.

    Returns:
        The classes in the legend's order; none where there is no style with categories of that field.

    Raises:
        LabelError: there is a style, and it cannot be read.
    """
    path = Path(path)
    beside = path.with_suffix(".qml")
    if beside.is_file():
        categorised = _categorised(_parsed(_read(beside), str(beside)))
        if categorised is not None and categorised[0] == class_field:
            return categorised[1]
    for document in _stored_styles(path, layer):
        categorised = _categorised(_parsed(document, f"{path}, table layer_styles"))
        if categorised is not None and categorised[0] == class_field:
            return categorised[1]
    return []


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_STYLE:
            raise LabelError(f"The style file '{path}' is larger than any style.", "Save the layer's style again.")
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise LabelError(f"The style file '{path}' cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise LabelError(f"The style file '{path}' is not UTF-8 text.", "Save the layer's style again.") from None


def _parsed(document: str, origin: str) -> ElementTree.Element:
    # QGIS writes a document type that names a file on the web and declares nothing. Any other one may declare entities.
    document = _DOCTYPE_OF_QGIS.sub("", document, count=1)
    if _DECLARATION.search(document):
        raise LabelError(
            f"The style of '{origin}' declares a document type or entities of its own, which no style of QGIS does.",
            "Save the layer's style again in QGIS.",
        )
    try:
        # A document without declarations cannot expand or fetch anything.
        return ElementTree.fromstring(document)  # nosec B314
    except ElementTree.ParseError as error:
        raise LabelError(f"The style of '{origin}' is not valid XML: {error}.", "Save the layer's style again.") from None


def _categorised(root: ElementTree.Element) -> tuple[str, list[StyleEntry]] | None:
    """The field and the classes of the first categorised renderer, which others may wrap."""
    for renderer in root.iter("renderer-v2"):
        if renderer.get("type") != "categorizedSymbol":
            continue
        colours = {symbol.get("name"): _symbol_colour(symbol) for symbol in renderer.iterfind("symbols/symbol")}
        found = []
        for category in renderer.iterfind("categories/category"):
            # A category of several values has them as children; one without a value stands for all others.
            values = [child.get("value", "") for child in category.iterfind("val")] or [category.get("value", "")]
            label, colour = category.get("label", ""), colours.get(category.get("symbol"))
            found += [(value, label.strip() or value, colour) for value in values if value.strip()]
        return renderer.get("attr", "").strip().strip('"'), _completed(found)
    return None


def _paletted(root: ElementTree.Element) -> list[StyleEntry]:
    for renderer in root.iter("rasterrenderer"):
        if renderer.get("type") == "paletted":
            return _completed(
                [
                    (value, entry.get("label", "").strip() or value, _hexadecimal(entry.get("color", "")))
                    for entry in renderer.iter("paletteEntry")
                    if (value := entry.get("value", ""))
                ]
            )
    return []


def _completed(found: list[tuple[str, str, str | None]]) -> list[StyleEntry]:
    """Entries with made colours where the style has pictures or patterns in place of one."""
    names = [name for _, name, colour in found if colour is None]
    made = iter(colours_for(names, [colour for _, _, colour in found if colour is not None]))
    return [StyleEntry(value, name, next(made) if colour is None else colour) for value, name, colour in found]


def _symbol_colour(symbol: ElementTree.Element) -> str | None:
    """The main colour of the uppermost enabled layer that has one; of an unfilled symbol, that of its outline."""
    for layer in reversed(symbol.findall("layer")):
        if layer.get("enabled") == "0":
            continue
        settings = {entry.get("k", ""): entry.get("v", "") for entry in layer.iterfind("prop")}
        settings |= {entry.get("name", ""): entry.get("value", "") for entry in layer.iterfind("Option/Option")}
        keys = ("outline_color",) if settings.get("style") == "no" else _COLOUR_KEYS
        for key in keys:
            colour = _hexadecimal(settings.get(key, ""))
            if colour is not None:
                return colour
        for inner in layer.iterfind("symbol"):
            colour = _symbol_colour(inner)
            if colour is not None:
                return colour
    return None


def _hexadecimal(text: str) -> str | None:
    """``#rrggbb`` from that or from QGIS's ``red,green,blue,alpha``."""
    if re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        return text.lower()
    parts = re.match(r"(\d{1,3}),(\d{1,3}),(\d{1,3})(,|$)", text)
    numbers = [int(part) for part in parts.groups()[:3]] if parts else []
    return "#" + "".join(f"{number:02x}" for number in numbers) if numbers and max(numbers) <= 255 else None


def _stored_styles(path: Path, layer: str | None) -> list[str]:
    """Style documents of a GeoPackage's layer, the default before the latest; none for any other file."""
    if path.suffix.lower() != ".gpkg" or not path.is_file():
        return []
    query = "SELECT styleQML, f_table_name FROM layer_styles ORDER BY useAsDefault DESC, update_time DESC"
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            table = "SELECT 1 FROM sqlite_master WHERE name = 'layer_styles'"
            rows = database.execute(query).fetchall() if database.execute(table).fetchone() else []
    except sqlite3.Error as error:
        raise LabelError(f"The styles in '{path}' cannot be read: {error}.", "The file may be damaged.") from None
    tables = {name for _, name in rows}
    if layer is None and len(tables) > 1:
        return []
    return [document for document, name in rows if document and (layer is None or name == layer)]
