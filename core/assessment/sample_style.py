"""How QGIS shows the points of a sample: a form with the classes to choose from, and the colour of the class chosen.

The strata are kept from the form. An interpreter who knows what the map says tends to agree with it.
"""

from __future__ import annotations

from collections.abc import Mapping

# XML is only written here, never parsed.
from xml.etree import ElementTree  # nosec B405

from core.scenes.categorical import red_green_blue, style_text

_HIDDEN = ("stratum", "stratum_value", "inclusion_probability")
_CONFIDENCES = ("high", "medium", "low")
_UNFILLED = "#ffffff"


def interpretation_style(field: str, classes: Mapping[str, str]) -> str:
    """A QGIS style for the points.

    Args:
        field: that the interpreter fills in.
        classes: what to fill in to the class's colour.
    """
    root = ElementTree.Element("qgis", version="3.22.0", styleCategories="Symbology|Fields|Forms")
    fields = ElementTree.SubElement(root, "fieldConfiguration")
    _choice(fields, field, list(classes))
    _choice(fields, "confidence", list(_CONFIDENCES))
    for name in _HIDDEN:
        widget = ElementTree.SubElement(ElementTree.SubElement(fields, "field", name=name), "editWidget", type="Hidden")
        ElementTree.SubElement(ElementTree.SubElement(widget, "config"), "Option")
    renderer = ElementTree.SubElement(root, "renderer-v2", type="categorizedSymbol", attr=field, symbollevels="0")
    categories = ElementTree.SubElement(renderer, "categories")
    symbols = ElementTree.SubElement(renderer, "symbols")
    # The category without a value stands for all that is not filled in.
    shown = [*((text, text, colour) for text, colour in classes.items()), ("", "to be interpreted", _UNFILLED)]
    for number, (value, label, colour) in enumerate(shown):
        ElementTree.SubElement(categories, "category", value=value, label=label, symbol=str(number), render="true")
        _marker(symbols, str(number), colour)
    return style_text(root)


def _choice(fields: ElementTree.Element, name: str, values: list[str]) -> None:
    """A field that is filled in from a list."""
    widget = ElementTree.SubElement(ElementTree.SubElement(fields, "field", name=name), "editWidget", type="ValueMap")
    options = ElementTree.SubElement(ElementTree.SubElement(widget, "config"), "Option", type="Map")
    entries = ElementTree.SubElement(options, "Option", name="map", type="List")
    for value in values:
        entry = ElementTree.SubElement(entries, "Option", type="Map")
        ElementTree.SubElement(entry, "Option", name=value, type="QString", value=value)


def _marker(symbols: ElementTree.Element, name: str, colour: str) -> None:
    """A small disc with a dark rim, to be seen on any imagery."""
    symbol = ElementTree.SubElement(symbols, "symbol", type="marker", name=name, alpha="1", clip_to_extent="1")
    layer = ElementTree.SubElement(symbol, "layer", {"class": "SimpleMarker", "enabled": "1"})
    options = ElementTree.SubElement(layer, "Option", type="Map")
    fill = ",".join(map(str, red_green_blue(colour)))
    for key, value in (
        ("name", "circle"),
        ("color", f"{fill},255"),
        ("outline_color", "35,35,35,255"),
        ("outline_width", "0.4"),
        ("size", "2.6"),
    ):
        ElementTree.SubElement(options, "Option", name=key, type="QString", value=value)
