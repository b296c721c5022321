"""The style that shows polygons of classes in QGIS."""

from __future__ import annotations

# XML is only written here, never parsed.
from xml.etree import ElementTree  # nosec B405

from core.labels.scheme import ClassScheme
from core.scenes.categorical import red_green_blue, style_text


def categorised_style(scheme: ClassScheme, class_field: str) -> str:
    """A QGIS style that shows polygons in the colours of their classes.

    Args:
        scheme: the classes.
        class_field: field that holds the codes.
    """
    root = ElementTree.Element("qgis", version="3.22.0", styleCategories="Symbology")
    renderer = ElementTree.SubElement(
        root, "renderer-v2", type="categorizedSymbol", attr=class_field, symbollevels="0", enableorderby="0", forceraster="0"
    )
    listed = ElementTree.SubElement(renderer, "categories")
    symbols = ElementTree.SubElement(renderer, "symbols")
    for index, entry in enumerate(scheme.classes):
        ElementTree.SubElement(
            listed, "category", value=str(entry.code), type="long", symbol=str(index), label=entry.name, render="true"
        )
        symbol = ElementTree.SubElement(symbols, "symbol", name=str(index), type="fill", alpha="1", clip_to_extent="1")
        layer = ElementTree.SubElement(symbol, "layer", {"class": "SimpleFill"}, enabled="1", locked="0")
        layer.set("pass", "0")
        red, green, blue = red_green_blue(entry.colour)
        dark = ",".join(str(round(0.6 * part)) for part in (red, green, blue))
        settings = {
            "color": f"{red},{green},{blue},255",
            "style": "solid",
            "outline_color": f"{dark},255",
            "outline_style": "solid",
            "outline_width": "0.1",
            "outline_width_unit": "MM",
        }
        options = ElementTree.SubElement(layer, "Option", type="Map")
        for key, value in settings.items():
            ElementTree.SubElement(options, "Option", name=key, type="QString", value=value)
            # QGIS before 3.26 reads these.
            ElementTree.SubElement(layer, "prop", k=key, v=value)
    return style_text(root)
