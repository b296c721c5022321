"""Class rasters read back: our own, those that QGIS styled, and those that are none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from core.errors import RasterError
from core.labels.scheme import ClassScheme, LandCoverClass
from core.mapping.class_raster import CLASSES_TAG, open_class_raster
from core.mapping.rasters import StripWriter
from core.mapping.sidecars import ClassAreas, write_class_sidecars
from core.scenes.categorical import Category, paletted_style
from core.scenes.grid import Grid, Window

GRID = Grid("EPSG:32633", 310_000.0, 5_820_000.0, 10.0, 10.0, 90, 60)
SCHEME = ClassScheme("m", (LandCoverClass(2, "Wälder", "#1f6b2e", "w"), LandCoverClass(5, "Water", "#2b6cb8", "5")))


def codes() -> np.ndarray:
    values = np.zeros((60, 90), np.uint8)
    values[:20], values[20:40] = 2, 5
    return values


def write(path: Path, values: np.ndarray, transform: Affine = GRID.transform, **options: object) -> str:
    tags = options.pop("tags", {})
    values = values if values.ndim == 3 else values[None]
    profile = {"driver": "GTiff", "dtype": values.dtype.name, "crs": GRID.crs, "transform": transform, **options}
    with rasterio.open(path, "w", width=values.shape[2], height=values.shape[1], count=values.shape[0], **profile) as dataset:
        dataset.write(values)
        dataset.update_tags(**tags)
    return str(path)


def tag(*classes: dict[str, object]) -> dict[str, str]:
    return {CLASSES_TAG: json.dumps(classes)}


def check_refused(path: str, *texts: str) -> None:
    with pytest.raises(RasterError) as caught:
        open_class_raster(path)
    for text in (path, *texts):
        assert text in caught.value.message
    assert caught.value.hint


def test_our_own_tag_gives_codes_names_and_colours(tmp_path: Path) -> None:
    classes = [{"code": c.code, "name": c.name, "colour": c.colour, "value": c.value} for c in SCHEME.classes]
    raster = open_class_raster(write(tmp_path / "map.tif", codes(), nodata=0, tags=tag(*classes)))
    assert raster.grid == GRID
    assert raster.scheme.classes == SCHEME.classes
    np.testing.assert_array_equal(raster.read(GRID.window), codes())
    window = Window(7, 15, 20, 30)
    part = raster.read(window)
    assert part.dtype == np.uint8
    np.testing.assert_array_equal(part, codes()[15:45, 7:27])


def test_the_sidecars_that_we_write_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "map.tif"
    path_text = write(path, codes(), nodata=0)
    path.with_suffix(".qml").write_text(
        paletted_style([Category(entry.code, entry.name, entry.colour) for entry in SCHEME.classes]), encoding="utf-8"
    )
    scheme = open_class_raster(path_text).scheme
    assert (scheme.codes, scheme.names, scheme.colours) == (SCHEME.codes, SCHEME.names, SCHEME.colours)


def test_a_class_that_the_map_lacks_stays_in_the_scheme(tmp_path: Path) -> None:
    classes = [{"code": code, "name": f"class {code}", "colour": "#102030", "value": str(code)} for code in (2, 5, 9)]
    assert open_class_raster(write(tmp_path / "map.tif", codes(), tags=tag(*classes))).scheme.codes == (2, 5, 9)


@pytest.mark.parametrize("how", ["tag", "style"])
def test_codes_that_nothing_names_are_called_by_their_number(how: str, tmp_path: Path) -> None:
    """A map that was edited has codes that its tag or its style does not know."""
    values = codes()
    values[50:] = 7
    tags = tag({"code": 2, "name": "Woods", "colour": "#1f6b2e", "value": "2"}) if how == "tag" else {}
    path = write(tmp_path / "map.tif", values, tags=tags)
    if how == "style":
        (tmp_path / "map.qml").write_text(paletted_style([Category(2, "Woods", "#1f6b2e")]))
    scheme = open_class_raster(path).scheme
    assert scheme.codes == (2, 5, 7)
    assert scheme.names == ("Woods", "5", "7")
    assert len(set(scheme.colours)) == 3


def test_without_names_the_codes_are_the_names(tmp_path: Path) -> None:
    scheme = open_class_raster(write(tmp_path / "map.tif", codes())).scheme
    assert scheme.names == ("2", "5")
    assert scheme.name == "map"


@pytest.mark.parametrize("style", ["", "no xml <", "<!DOCTYPE x [<!ENTITY a 'b'>]><qgis/>", "<qgis><pipe/></qgis>"])
def test_a_style_that_cannot_be_used_is_left_aside(style: str, tmp_path: Path) -> None:
    path = write(tmp_path / "map.tif", codes())
    (tmp_path / "map.qml").write_text(style)
    assert open_class_raster(path).scheme.names == ("2", "5")


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("uint8", 0), ("uint8", 255), ("int16", -1), ("int64", -9999), ("float32", np.nan), ("uint16", None)]
)
def test_every_type_and_nodata_value(dtype: str, nodata: float | None, tmp_path: Path) -> None:
    values = codes().astype(dtype)
    values[40:] = 0 if nodata is None else nodata
    raster = open_class_raster(write(tmp_path / "map.tif", values, nodata=nodata))
    assert raster.scheme.codes == (2, 5)
    np.testing.assert_array_equal(raster.read(GRID.window), codes())


def test_our_own_map_with_all_its_files(tmp_path: Path) -> None:
    path = tmp_path / "map é.tif"
    with StripWriter(path, GRID, 1, "uint8", nodata=0) as writer:
        writer.write(codes()[None], 0)
    areas = ClassAreas(GRID)
    areas.add(codes(), 0)
    write_class_sidecars(path, SCHEME, areas.counts, areas.hectares)
    scheme = open_class_raster(str(path)).scheme
    assert (scheme.codes, scheme.names, scheme.colours) == (SCHEME.codes, SCHEME.names, SCHEME.colours)


# --- what is refused ---


def test_values_that_are_no_codes(tmp_path: Path) -> None:
    for value, dtype in ((2.5, "float32"), (300, "int16"), (-4, "int16")):
        values = codes().astype(dtype)
        values[3, 3] = value
        check_refused(write(tmp_path / "map.tif", values), "no class codes", f"such as {value:g}")


def test_one_class_and_nodata_only(tmp_path: Path) -> None:
    values = np.where(codes() == 5, 0, codes()).astype(np.uint8)
    check_refused(write(tmp_path / "one.tif", values, nodata=0), "one class only (code 2)")
    check_refused(write(tmp_path / "same.tif", np.full((60, 90), 4, np.uint8)), "one class only (code 4)")
    check_refused(write(tmp_path / "none.tif", np.zeros((60, 90), np.uint8), nodata=0), "nothing but nodata")
    check_refused(write(tmp_path / "zero.tif", np.zeros((60, 90), np.uint8)), "nodata only")


def test_several_bands_and_other_orientations(tmp_path: Path) -> None:
    check_refused(write(tmp_path / "rgb.tif", np.stack([codes()] * 3)), "3 bands")
    south_up = Affine(10, 0, 310_000, 0, 10, 5_819_400)
    check_refused(write(tmp_path / "south.tif", codes(), south_up), "rotated or south-up")
    check_refused(write(tmp_path / "turned.tif", codes(), GRID.transform @ Affine.rotation(10)), "rotated or south-up")


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        '{"code": 2}',
        '[{"code": 2}]',
        '[{"code": 2, "name": "a", "colour": "red", "value": "a"}]',
        '[{"code": 400, "name": "a", "colour": "#102030", "value": "a"}]',
        '[{"code": 2, "name": "a", "colour": "#102030", "value": "a"}, '
        '{"code": 2, "name": "b", "colour": "#102030", "value": "b"}]',
    ],
)
def test_a_damaged_tag(text: str, tmp_path: Path) -> None:
    check_refused(write(tmp_path / "map.tif", codes(), tags={CLASSES_TAG: text}), CLASSES_TAG, "damaged")


def test_a_missing_map(tmp_path: Path) -> None:
    check_refused(str(tmp_path / "none.tif"), "does not exist")
