"""Styles, names, tables and areas, as QGIS and GDAL read them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from core.errors import OutputError
from core.labels.scheme import ClassScheme, LandCoverClass
from core.mapping.class_raster import class_areas, open_class_raster
from core.mapping.rasters import StripWriter
from core.mapping.sidecars import (
    AGREEMENT_RAMP,
    ClassAreas,
    scheme_colormap,
    write_class_sidecars,
    write_ramp_style,
)
from core.scenes.categorical import Category, auxiliary_metadata
from core.scenes.grid import Grid

SYSTEM_PYTHON = "/usr/bin/python3"
SCHEME = ClassScheme(
    "test",
    (
        LandCoverClass(2, "W\u00e4lder & <Haine>", "#1f6b2e", "2"),
        LandCoverClass(5, 'Water "open"', "#2b6cb8", "5"),
        LandCoverClass(90, "Never mapped", "#aabbcc", "90"),
    ),
)
GRID = Grid("EPSG:32633", 310_000.0, 5_820_000.0, 10.0, 10.0, 120, 90)


def with_modules(*modules: str) -> None:
    """Skips where the system's Python lacks a module."""
    code = "import " + ", ".join(modules)
    if not Path(SYSTEM_PYTHON).exists() or subprocess.run([SYSTEM_PYTHON, "-c", code], capture_output=True).returncode:
        pytest.skip(f"the system's Python has no {' and '.join(modules)}")


def asked(script: str, *arguments: str) -> dict[str, object]:
    """What a script of the system's Python prints as JSON, in a clean environment."""
    environment = {"PATH": os.environ["PATH"], "QT_QPA_PLATFORM": "offscreen", "HOME": os.environ.get("HOME", "/")}
    environment["XDG_RUNTIME_DIR"] = "/tmp"
    done = subprocess.run(
        [SYSTEM_PYTHON, "-c", script, *arguments], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def class_map(tmp_path: Path) -> Path:
    """A class raster with all its sidecars: 30 rows of 2, 40 of 5, 20 without data."""
    codes = np.zeros((1, 90, 120), dtype=np.uint8)
    codes[:, :30], codes[:, 30:70] = 2, 5
    path = tmp_path / "map 'a'.tif"
    areas = ClassAreas(GRID)
    with StripWriter(path, GRID, 1, "uint8", 0, colormap=scheme_colormap(SCHEME), descriptions=["class"]) as writer:
        for row in range(0, 90, 25):
            writer.write(codes[:, row : row + 25], row)
            areas.add(codes[0, row : row + 25], row)
    write_class_sidecars(path, SCHEME, areas.counts, areas.hectares)
    return path


GDAL_SCRIPT = """
import json, sys
from osgeo import gdal
gdal.UseExceptions()
dataset = gdal.Open(sys.argv[1])
band = dataset.GetRasterBand(1)
table, colours = band.GetDefaultRAT(), band.GetColorTable()
print(json.dumps({
    "names": band.GetCategoryNames(),
    "colour": colours.GetColorEntry(5),
    "columns": [table.GetNameOfCol(i) for i in range(table.GetColumnCount())],
    "usages": [table.GetUsageOfCol(i) for i in range(table.GetColumnCount())],
    "rows": [[table.GetValueAsString(r, c) for c in range(table.GetColumnCount())]
             for r in range(table.GetRowCount())],
    "row_of_5": table.GetRowOfValue(5),
    "type": table.GetTableType() == gdal.GRTT_THEMATIC,
}))
"""


def test_gdal_reads_names_colours_and_table(class_map: Path) -> None:
    with_modules("osgeo.gdal")
    seen = asked(GDAL_SCRIPT, str(class_map))
    names = seen["names"]
    assert len(names) == 91
    assert (names[2], names[5], names[90], names[3]) == ("W\u00e4lder & <Haine>", 'Water "open"', "Never mapped", "")
    assert seen["colour"] == [0x2B, 0x6C, 0xB8, 255]
    assert seen["columns"] == ["Value", "Class", "Red", "Green", "Blue", "Alpha", "Count", "Area_ha"]
    assert seen["usages"] == [5, 2, 6, 7, 8, 9, 1, 0]
    assert seen["row_of_5"] == 1
    assert seen["type"]
    assert [row[:7] for row in seen["rows"]] == [
        ["2", "W\u00e4lder & <Haine>", "31", "107", "46", "255", "3600"],
        ["5", 'Water "open"', "43", "108", "184", "255", "4800"],
        ["90", "Never mapped", "170", "187", "204", "255", "0"],
    ]
    assert [float(row[7]) for row in seen["rows"]] == pytest.approx([36, 48, 0], rel=2e-3)


QGIS_SCRIPT = """
import json, sys
from qgis.core import QgsApplication, QgsRasterLayer
application = QgsApplication([], False)
application.initQgis()
layer = QgsRasterLayer(sys.argv[1], "map")
renderer = layer.renderer()
seen = {"valid": layer.isValid(), "renderer": type(renderer).__name__}
if seen["renderer"] == "QgsPalettedRasterRenderer":
    seen["classes"] = [[int(c.value), c.label, c.color.name()] for c in renderer.classes()]
else:
    ramp = renderer.shader().rasterShaderFunction()
    seen["items"] = [[i.value, i.label, i.color.name()] for i in ramp.colorRampItemList()]
    seen["range"] = [renderer.classificationMin(), renderer.classificationMax()]
    seen["interpolated"] = int(ramp.colorRampType()) == 0
    seen["middle"] = list(ramp.shade(50.0))[:4]
print(json.dumps(seen))
"""


def test_qgis_loads_the_class_style_by_itself(class_map: Path) -> None:
    with_modules("qgis.core")
    seen = asked(QGIS_SCRIPT, str(class_map))
    assert seen["valid"]
    assert seen["renderer"] == "QgsPalettedRasterRenderer"
    assert seen["classes"] == [
        [2, "W\u00e4lder & <Haine>", "#1f6b2e"],
        [5, 'Water "open"', "#2b6cb8"],
        [90, "Never mapped", "#aabbcc"],
    ]


def test_qgis_loads_the_confidence_style_by_itself(tmp_path: Path) -> None:
    with_modules("qgis.core")
    path = tmp_path / "confidence.tif"
    with StripWriter(path, GRID, 1, "uint8", 255) as writer:
        writer.write(np.full((1, 90, 120), 40, np.uint8), 0)
    assert write_ramp_style(path, AGREEMENT_RAMP) == tmp_path / "confidence.qml"
    seen = asked(QGIS_SCRIPT, str(path))
    assert seen["renderer"] == "QgsSingleBandPseudoColorRenderer"
    assert seen["range"] == [0, 100]
    assert seen["interpolated"]
    assert [item[0] for item in seen["items"]] == [0, 25, 50, 75, 100]
    assert seen["middle"] == [True, 0xF2, 0xC1, 0x4E]


def test_areas_do_not_depend_on_the_strips_and_match_the_file(class_map: Path) -> None:
    codes = np.random.default_rng(0).integers(0, 256, (90, 120), dtype=np.uint8)
    whole, parts = ClassAreas(GRID), ClassAreas(GRID)
    whole.add(codes, 0)
    for row in range(0, 90, 7):
        parts.add(codes[row : row + 7], row)
    assert (whole.counts, whole.hectares) == (parts.counts, parts.hectares)
    assert whole.counts[17] == int((codes == 17).sum())
    on_disk = class_areas(open_class_raster(str(class_map)))
    assert on_disk.counts == {0: 2400, 2: 3600, 5: 4800}
    assert on_disk.hectares[2] == pytest.approx(36, rel=2e-3)


def test_areas_in_degrees_are_those_of_the_ellipsoid() -> None:
    """One degree of latitude by one of longitude between 60 and 61 N, from the area of a zone between two parallels."""
    degrees = Grid("EPSG:4326", 10.0, 61.0, 0.01, 0.01, 100, 100)
    areas = ClassAreas(degrees)
    areas.add(np.ones((100, 100), np.uint8), 0)
    eccentricity = np.sqrt(0.00669437999014)

    def zone(latitude: float) -> float:
        sine = np.sin(np.radians(latitude))
        return sine / (1 - (eccentricity * sine) ** 2) + np.log((1 + eccentricity * sine) / (1 - eccentricity * sine)) / (
            2 * eccentricity
        )

    expected = 6356752.314245**2 / 2 * np.radians(1.0) * (zone(61) - zone(60)) / 1e4
    assert areas.hectares[1] == pytest.approx(expected, rel=1e-4)


def test_counts_beyond_32_bits_stay_what_they_are() -> None:
    text = auxiliary_metadata([Category(1, "Trees", "#1f6b2e")], {1: 3_000_000_000}, {1: 3e7})
    assert "<F>3000000000</F>" in text
    assert "<Name>Count</Name>" in text.replace("\n", "")
    count = text[text.index("<Name>Count</Name>") :]
    assert count[count.index("<Type>") :].startswith("<Type>1</Type>")


def test_sidecars_are_replaced_whole_or_named_in_the_error(class_map: Path) -> None:
    before = sorted(entry.name for entry in class_map.parent.iterdir())
    assert before == ["map 'a'.qml", "map 'a'.tif", "map 'a'.tif.aux.xml"]
    write_class_sidecars(class_map, SCHEME, {}, {})
    assert sorted(entry.name for entry in class_map.parent.iterdir()) == before
    with pytest.raises(OutputError, match="missing"):
        write_ramp_style(class_map.parent / "missing" / "confidence.tif", AGREEMENT_RAMP)
