from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from core.errors import LabelError
from core.labels.reading import read_labels
from core.labels.style import StyleEntry, entries_for, entries_from_qml
from tests.core.labels.scenes import GRID, square, write

DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"

OLD_SYMBOL = (
    '<symbol name="{name}" type="fill"><layer enabled="1" class="SimpleFill"><prop k="color" v="{colour}"/></layer></symbol>'
)
NEW_SYMBOL = (
    '<symbol name="{name}" type="fill"><layer enabled="1" class="SimpleFill"><Option type="Map">'
    '<Option name="color" type="QString" value="{colour}"/></Option></layer></symbol>'
)


def qml(attribute: str, categories: str, symbols: str) -> str:
    return (
        f'{DOCTYPE}<qgis version="3.28"><renderer-v2 type="categorizedSymbol" attr="{attribute}">'
        f"<categories>{categories}</categories><symbols>{symbols}</symbols></renderer-v2></qgis>"
    )


def two_classes(attribute: str) -> str:
    return qml(
        attribute,
        '<category value="water" symbol="0" label="Open water" render="true"/>'
        '<category value="forest" symbol="1" label="" render="true"/>'
        '<category value="" symbol="2" label="all others" render="true"/>',
        OLD_SYMBOL.format(name="0", colour="0,0,255,255")
        + NEW_SYMBOL.format(name="1", colour="0,128,0,255,rgb:0,0.5,0,1")
        + OLD_SYMBOL.format(name="2", colour="9,9,9,255"),
    )


TWO_CLASSES = [StyleEntry("water", "Open water", "#0000ff"), StyleEntry("forest", "forest", "#008000")]


def test_the_categories_of_old_and_new_versions_of_qgis(tmp_path: Path) -> None:
    path = tmp_path / "é style.qml"
    path.write_text(two_classes("class"), encoding="utf-8")
    assert entries_from_qml(path) == TWO_CLASSES


def test_outlines_pictures_and_several_values_to_a_category(tmp_path: Path) -> None:
    outline = (
        '<symbol name="0"><layer enabled="1"><prop k="style" v="no"/><prop k="color" v="1,1,1,255"/>'
        '<prop k="outline_color" v="255,0,0,255"/></layer></symbol>'
    )
    hidden = (
        '<symbol name="1"><layer enabled="1"><prop k="color" v="0,255,0,255"/></layer>'
        '<layer enabled="0"><prop k="color" v="7,7,7,255"/></layer></symbol>'
    )
    nested = (
        '<symbol name="2"><layer enabled="1" class="CentroidFill"><symbol name="@2@0"><layer enabled="1">'
        '<prop k="color" v="0,0,250,255"/></layer></symbol></layer></symbol>'
    )
    picture = '<symbol name="3"><layer enabled="1" class="RasterFill"><prop k="imageFile" v="x.png"/></layer></symbol>'
    categories = (
        '<category value="a" symbol="0" label="A"/>'
        '<category symbol="1" label="B"><val value="b1"/><val value="b2"/></category>'
        '<category value="c" symbol="2" label="C"/><category value="d" symbol="3" label="D"/>'
    )
    path = tmp_path / "style.qml"
    path.write_text(qml("class", categories, outline + hidden + nested + picture), encoding="utf-8")
    entries = entries_from_qml(path)
    assert entries[:4] == [
        StyleEntry("a", "A", "#ff0000"),
        StyleEntry("b1", "B", "#00ff00"),
        StyleEntry("b2", "B", "#00ff00"),
        StyleEntry("c", "C", "#0000fa"),
    ]
    assert entries[4].name == "D"
    assert len({entry.colour for entry in entries}) == 4


def test_a_style_without_categories_has_no_entries(tmp_path: Path) -> None:
    path = tmp_path / "style.qml"
    path.write_text(f'{DOCTYPE}<qgis><renderer-v2 type="singleSymbol"/></qgis>', encoding="utf-8")
    assert entries_from_qml(path) == []


@pytest.mark.parametrize(
    "head",
    [
        '<!DOCTYPE qgis [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>',
        '<!DOCTYPE qgis SYSTEM "file:///etc/hostname">',
        "<!DOCTYPE qgis PUBLIC 'x' 'y' [<!ENTITY a SYSTEM 'file:///etc/hostname'>]>",
        DOCTYPE + '<!DOCTYPE qgis [<!ENTITY a "b">]>',
    ],
)
def test_declarations_of_strangers_are_refused(tmp_path: Path, head: str) -> None:
    path = tmp_path / "style.qml"
    path.write_text(f"{head}<qgis/>", encoding="utf-8")
    with pytest.raises(LabelError, match="declares a document type or entities"):
        entries_from_qml(path)


def test_styles_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="cannot be read"):
        entries_from_qml(tmp_path / "none.qml")
    path = tmp_path / "style.qml"
    path.write_text("<qgis>", encoding="utf-8")
    with pytest.raises(LabelError, match="not valid XML"):
        entries_from_qml(path)
    path.write_bytes("<qgis/>".encode("utf-16"))
    with pytest.raises(LabelError, match="not UTF-8"):
        entries_from_qml(path)


def store_style(path: Path, table: str, document: str, default: int) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "CREATE TABLE IF NOT EXISTS layer_styles (f_table_name TEXT, styleName TEXT, styleQML TEXT, "
            "useAsDefault BOOLEAN, update_time DATETIME)"
        )
        database.execute("INSERT INTO layer_styles VALUES (?, 's', ?, ?, '2024-01-01T00:00:00')", (table, document, default))


def test_the_style_beside_the_file_is_used_for_its_field_only(tmp_path: Path) -> None:
    path = write(tmp_path / "my labels.gpkg", ["forest", "water"], [square(10, 10), square(30, 10)])
    assert entries_for(path, None, "class") == []
    path.with_suffix(".qml").write_text(two_classes("&quot;class&quot;"), encoding="utf-8")
    assert entries_for(path, None, "class") == TWO_CLASSES
    assert entries_for(path, None, "other") == []
    labels = read_labels(path, "class", GRID, entries=entries_for(path, None, "class"))
    assert labels.scheme.names == ("Open water", "forest")


def test_the_default_style_in_a_geopackage(tmp_path: Path) -> None:
    path = write(tmp_path / "it's é.gpkg", ["forest", "water"], [square(10, 10), square(30, 10)], layer="drawn")
    assert entries_for(path, "drawn", "class") == []
    store_style(path, "drawn", two_classes("class").replace("Open water", "Old name"), default=0)
    store_style(path, "drawn", two_classes("class"), default=1)
    assert entries_for(path, "drawn", "class") == TWO_CLASSES
    assert entries_for(path, None, "class") == TWO_CLASSES
    assert entries_for(path, "drawn", "other") == []
    assert entries_for(path, "other", "class") == []
    store_style(path, "other", two_classes("class"), default=1)
    assert entries_for(path, None, "class") == [], "two styled layers, and none was named"
    assert len(read_labels(path, "class", GRID)) == 2, "the table of styles is no layer of shapes"


def test_other_files_have_no_stored_style(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.geojson", ["forest", "water"], [square(10, 10), square(30, 10)])
    assert entries_for(path, None, "class") == []


def test_real_styles_of_rasters_and_polygons(shared_data: Path) -> None:
    folder = shared_data / "berlin_landcover"
    palette = entries_from_qml(folder / "landcover_polygon_1m.qml")
    assert [entry.name for entry in palette] == ["roof", "pavement", "low vegetation", "tree", "soil", "water"]
    assert palette[5] == StyleEntry("6", "water", "#0064ff")
    polygons = entries_from_qml(folder / "landcover_polygon_3classes.qml")
    assert [(entry.value, entry.colour) for entry in polygons] == [
        ("roof", "#e60000"),
        ("tree", "#267300"),
        ("water", "#0064ff"),
    ]
