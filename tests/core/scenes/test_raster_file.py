"""Files as they come: every way to say 'no data', and every file that is refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import Transformer
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp, Resampling

from core.errors import RasterError
from core.scenes.grid import Window, transformer_between
from core.scenes.raster_file import is_constant, open_raster, read_raster_file, read_stored
from tests.core.scenes.ground import BASE, LEFT, TOP, sample_of, truth_file, write

NORTH_UP = Affine(10, 0, LEFT, 0, -10, TOP)
SYSTEM_PYTHON = "/usr/bin/python3"


def stored(path: str, bands: tuple[int, ...] = (1,), stride: int = 1) -> np.ndarray:
    with open_raster(path) as dataset:
        window = Window(0, 0, dataset.width // stride, dataset.height // stride)
        return read_stored(dataset, bands, window, stride)


def values_of(dtype: str) -> np.ndarray:
    """Values from 1 to 120, none of which is used as nodata."""
    return (np.arange(200).reshape(10, 20) % 120 + 1).astype(dtype)


def check_refused(path: str, *texts: str) -> None:
    with pytest.raises(RasterError) as caught:
        read_raster_file(path)
    assert path in caught.value.message
    assert caught.value.hint
    for text in texts:
        assert text in str(caught.value)


# --- no data ---


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        ("float32", np.nan),
        ("float32", 0.0),
        ("float32", -9999.0),
        ("float32", -3.4028234663852886e38),
        ("float64", -1.7976931348623157e308),
        ("float64", np.nan),
        ("uint8", 0),
        ("uint8", 255),
        ("int8", -128),
        ("int16", -32768),
        ("int16", -9999),
        ("uint16", 0),
        ("uint16", 65535),
        ("int32", -2147483648),
        ("uint32", 4294967295),
        ("int64", -9999),
        ("int64", 0),
    ],
)
def test_declared_nodata_is_missing_and_nothing_else_is(dtype: str, nodata: float, tmp_path: Path) -> None:
    values = values_of(dtype)
    values[3, 5], values[0, 0] = nodata, nodata
    read = stored(write(tmp_path / "a.tif", values, nodata=nodata))[0]
    assert read.dtype == np.float32
    assert np.argwhere(np.isnan(read)).tolist() == [[0, 0], [3, 5]]
    there = np.isfinite(read)
    np.testing.assert_array_equal(read[there], values[there].astype(np.float32))


@pytest.mark.parametrize(("kind", "nodata"), [("Int64", -(2**63)), ("Int64", -(2**53) - 1), ("UInt64", 2**64 - 1)])
def test_nodata_of_64_bits_written_by_gdal(kind: str, nodata: int, tmp_path: Path) -> None:
    """Written by the system's own GDAL: these values are no whole numbers in a float of 64 bits, or not exact."""
    script = (
        "import sys, json\nfrom osgeo import gdal, osr\nimport numpy as np\n"
        "path, kind, nodata = sys.argv[1], sys.argv[2], int(sys.argv[3])\n"
        "data = gdal.GetDriverByName('GTiff').Create(path, 20, 10, 1, getattr(gdal, 'GDT_' + kind))\n"
        f"data.SetGeoTransform({list(NORTH_UP.to_gdal())})\n"
        "system = osr.SpatialReference(); system.ImportFromEPSG(32633); data.SetProjection(system.ExportToWkt())\n"
        "values = (np.arange(200).reshape(10, 20) % 120 + 1).astype(kind.lower())\n"
        "values[3, 5] = nodata; values[4, 6] = nodata + (1 if nodata < 0 else -1)\n"
        "band = data.GetRasterBand(1)\n"
        "band.SetNoDataValueAsInt64(nodata) if kind == 'Int64' else band.SetNoDataValueAsUInt64(nodata)\n"
        "band.WriteArray(values); data.FlushCache()\n"
    )
    needed = [SYSTEM_PYTHON, "-c", "from osgeo import gdal_array; from osgeo import gdal; gdal.GDT_Int64"]
    if not Path(SYSTEM_PYTHON).exists() or subprocess.run(needed, capture_output=True).returncode:
        pytest.skip("the system's Python has no GDAL with 64-bit integers")
    path = tmp_path / "a.tif"
    done = subprocess.run([SYSTEM_PYTHON, "-c", script, str(path), kind, str(nodata)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read_raster_file(str(path)).description.dtype == kind.lower()
    # The neighbour in value is no nodata: the comparison is made in the band's own type.
    assert np.argwhere(np.isnan(stored(str(path))[0])).tolist() == [[3, 5]]


def test_without_nodata_every_value_counts(tmp_path: Path) -> None:
    for value in (0, -9999, -32768):
        values = values_of("int16")
        values[2, 2] = value
        np.testing.assert_array_equal(stored(write(tmp_path / "a.tif", values))[0], values)


def test_infinite_values_are_missing(tmp_path: Path) -> None:
    values = values_of("float32")
    values[0, :3] = np.inf, -np.inf, np.nan
    assert np.argwhere(np.isnan(stored(write(tmp_path / "a.tif", values))[0])).tolist() == [[0, 0], [0, 1], [0, 2]]


def test_an_internal_mask_holds_for_all_bands(tmp_path: Path) -> None:
    values = np.stack([values_of("uint8"), values_of("uint8")])
    mask = np.ones((10, 20), bool)
    mask[4, 7:9] = False
    read = stored(write(tmp_path / "a.tif", values, mask=mask), (1, 2))
    np.testing.assert_array_equal(np.isnan(read), np.stack([~mask, ~mask]))


def test_nodata_holds_band_by_band(tmp_path: Path) -> None:
    values = np.stack([values_of("int16"), values_of("int16")])
    values[0, 1, 1], values[1, 2, 2] = -1, -1
    read = stored(write(tmp_path / "a.tif", values, nodata=-1), (2, 1))
    assert np.argwhere(np.isnan(read)).tolist() == [[0, 2, 2], [1, 1, 1]]


def test_bands_with_nodata_of_their_own(tmp_path: Path) -> None:
    """A VRT gives every band its own value, as stacks made in QGIS do."""
    values = np.stack([values_of("int16"), values_of("int16")])
    values[:, 0, 0], values[:, 0, 1] = -1, -2
    source = write(tmp_path / "a.tif", values)
    bands = "".join(
        f'<VRTRasterBand dataType="Int16" band="{band}"><NoDataValue>{-band}</NoDataValue><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">a.tif</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource>'
        "</VRTRasterBand>"
        for band in (1, 2)
    )
    transform = ", ".join(map(str, NORTH_UP.to_gdal()))
    vrt = tmp_path / "a.vrt"
    vrt.write_text(
        f'<VRTDataset rasterXSize="20" rasterYSize="10"><SRS>{BASE}</SRS><GeoTransform>{transform}</GeoTransform>{bands}'
        "</VRTDataset>"
    )
    assert Path(source).exists()
    assert np.argwhere(np.isnan(stored(str(vrt), (1, 2)))).tolist() == [[0, 0, 0], [1, 0, 1]]


def test_transparent_pixels_are_missing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.stack([values_of("uint8")] * 3 + [np.full((10, 20), 255, np.uint8)]))
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
        dataset.write(np.zeros((1, 1), np.uint8), 4, window=((5, 6), (7, 8)))
    read = stored(path, (1, 2, 3))
    assert np.argwhere(np.isnan(read)).tolist() == [[band, 5, 7] for band in range(3)]


def test_every_second_pixel_and_its_mask_are_the_same_pixel(tmp_path: Path) -> None:
    values = np.arange(101 * 67).reshape(67, 101).astype(np.int32)
    values[np.random.default_rng(1).random(values.shape) < 0.3] = -5
    path = write(tmp_path / "a.tif", values, nodata=-5)
    whole = stored(path)[0]
    for stride in (2, 4, 8):
        thin = stored(path, stride=stride)[0]
        assert thin.shape == (67 // stride, 101 // stride)
        half = stride // 2
        rows, columns = thin.shape
        np.testing.assert_array_equal(thin, whole[half::stride, half::stride][:rows, :columns])


def test_overviews_are_used_for_pictures(tmp_path: Path) -> None:
    path = truth_file(tmp_path / "a.tif", NORTH_UP, 256, 256, tiled=True, blockxsize=64, blockysize=64)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4], Resampling.average)
    whole = stored(path)[0]
    np.testing.assert_allclose(stored(path, stride=4)[0], whole.reshape(64, 4, 64, 4).mean(axis=(1, 3)), rtol=1e-5)


# --- the sample ---


def test_a_sample_that_tells_nothing_is_replaced(tmp_path: Path) -> None:
    """A canopy model of a meadow with one tree is no constant raster, wherever the tree stands."""
    values = np.zeros((1, 400, 400), np.float32)
    values[0, 110:113, 290:294] = 12
    sample = sample_of(write(tmp_path / "a.tif", values, tiled=True, blockxsize=64, blockysize=64))
    assert not is_constant(sample)
    assert sample.max() == 12
    values[0, 110:113, 290:294] = 0
    assert is_constant(sample_of(write(tmp_path / "b.tif", values)))


def test_values_in_one_corner_are_found(tmp_path: Path) -> None:
    values = np.full((2, 400, 400), -1, np.int16)
    values[:, 130:132, 250] = [[3, 4], [7, 8]]
    sample = sample_of(write(tmp_path / "a.tif", values, nodata=-1, tiled=True, blockxsize=64, blockysize=64))
    assert np.nanmin(sample, axis=1).tolist() == [3, 7]
    assert np.nanmax(sample, axis=1).tolist() == [4, 8]


@pytest.mark.parametrize(
    ("values", "constant"),
    [
        ([[1, 1, 1]], True),
        ([[1, 1, 2]], False),
        ([[1, 1], [2, 2]], True),
        ([[1, np.nan], [2, 2]], True),
        ([[np.nan, np.nan], [2, 3]], False),
        ([[np.nan, np.nan]], True),
    ],
)
def test_constant_means_that_no_band_tells_pixels_apart(values: list[list[float]], constant: bool) -> None:
    assert is_constant(np.array(values, np.float32)) == constant


def test_the_description_is_that_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.stack([values_of("uint16")] * 2), names=["B4", "B8"])
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(BOA_ADD_OFFSET="-1000")
        dataset.update_tags(2, wavelength="842")
        dataset.scales, dataset.offsets = (0.1, 0.2), (0, -1)
    file = read_raster_file(path)
    assert (file.crs, file.transform, file.width, file.height) == (BASE, NORTH_UP, 20, 10)
    assert file.bounds == (LEFT, TOP - 100, LEFT + 200, TOP)
    described = file.description
    assert (described.band_count, described.dtype, described.descriptions) == (2, "uint16", ("B4", "B8"))
    assert described.tags["BOA_ADD_OFFSET"] == "-1000"
    assert described.band_tags[1]["wavelength"] == "842"
    assert (described.scales, described.offsets) == ((0.1, 0.2), (0, -1))
    assert described.resolution_m == pytest.approx(10, rel=1e-3)


# --- coordinate reference systems ---


def test_a_system_that_is_only_alike_keeps_its_own_definition(tmp_path: Path) -> None:
    """A search by likeness finds EPSG:23033 for it, whose way to WGS 84 is another one than the file's own."""
    own = "+proj=tmerc +lat_0=0 +lon_0=15 +k=0.9996 +x_0=500000 +y_0=0 +ellps=intl +towgs84=-187,-98,-121 +units=m"
    system = rasterio.crs.CRS.from_proj4(own)
    assert system.to_authority() == ("EPSG", "23033")
    crs = read_raster_file(write(tmp_path / "a.tif", values_of("uint8"), crs=system.to_wkt())).crs
    expected = Transformer.from_crs(own, "EPSG:4326", always_xy=True).transform(LEFT, TOP)
    assert transformer_between(crs, "EPSG:4326").transform(LEFT, TOP) == pytest.approx(expected, abs=1e-9)


def test_a_system_without_its_code_is_recognised(tmp_path: Path) -> None:
    text = rasterio.crs.CRS.from_epsg(32633).to_wkt().replace(',AUTHORITY["EPSG","32633"]', "")
    assert read_raster_file(write(tmp_path / "a.tif", values_of("uint8"), crs=text)).crs == BASE


def test_a_system_without_a_place_on_the_earth_is_refused(tmp_path: Path) -> None:
    local = 'LOCAL_CS["Arbitrary",UNIT["metre",1]]'
    check_refused(write(tmp_path / "a.tif", values_of("uint8"), crs=local), "coordinate reference system")


@pytest.mark.parametrize(("x", "y"), [(LEFT, TOP), (15.0, TOP), (LEFT, 51.0)])
def test_coordinates_that_do_not_belong_to_the_system_are_refused(x: float, y: float, tmp_path: Path) -> None:
    metres_as_degrees = write(tmp_path / "a.tif", values_of("uint8"), Affine(1, 0, x, 0, -1, y), "EPSG:4326")
    check_refused(metres_as_degrees, "no place on the Earth")


# --- what is refused ---


def test_no_coordinate_reference_system(tmp_path: Path) -> None:
    check_refused(write(tmp_path / "a.tif", values_of("uint8"), crs=None), "no coordinate reference system")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_no_geotransform(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", values_of("uint8"), Affine.identity())
    check_refused(path, "no geotransform", "Georeference")
    without = write(tmp_path / "b.png", values_of("uint8"), Affine.identity(), None, driver="PNG")
    check_refused(without, "no geotransform")


def test_what_is_not_georeferenced_warns_nobody(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    path = str(tmp_path / "a.pgm")
    Path(path).write_bytes(b"P5 4 4 255\n" + bytes(range(16)))
    check_refused(path, "no geotransform")
    assert [str(warning.message) for warning in recwarn if "georeferenc" in str(warning.message)] == []


def test_ground_control_points_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "a.tif")
    points = [GroundControlPoint(row, column, LEFT + 11 * column, TOP - 9 * row) for row in (0, 10) for column in (0, 20)]
    options = {"driver": "GTiff", "width": 20, "height": 10, "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", gcps=points, crs=BASE, **options) as dataset:
        dataset.write(values_of("uint8"), 1)
    check_refused(path, "no geotransform", "ground control points", "gdalwarp")


def test_a_geotransform_without_an_area(tmp_path: Path) -> None:
    check_refused(write(tmp_path / "a.tif", values_of("uint8"), Affine(10, 10, LEFT, 10, 10, TOP)), "no geotransform")


@pytest.mark.parametrize(("dtype", "nodata"), [("uint16", 0), ("float32", np.nan), ("int16", -9999)])
def test_nothing_but_nodata(dtype: str, nodata: float, tmp_path: Path) -> None:
    check_refused(write(tmp_path / "a.tif", np.full((2, 90, 70), nodata, dtype), nodata=nodata), "nothing but nodata")


def test_a_missing_file(tmp_path: Path) -> None:
    check_refused(str(tmp_path / "none.tif"), "does not exist")
    check_refused("/vsizip/" + str(tmp_path / "none.zip/a.tif"), "cannot be opened")


def test_files_that_are_no_rasters(tmp_path: Path) -> None:
    text, empty = tmp_path / "text.tif", tmp_path / "empty.tif"
    text.write_text("This is a letter and no picture.\n")
    empty.touch()
    for path in (text, empty, tmp_path):
        check_refused(str(path), "cannot be opened")


def test_what_gdal_says_is_passed_on_in_a_line(tmp_path: Path) -> None:
    text = tmp_path / "text.tif"
    text.write_text("no picture")
    with pytest.raises(RasterError, match="not recognized as being in a supported file format") as caught:
        open_raster(str(text))
    assert "\n" not in str(caught.value)
    assert ".." not in str(caught.value)


def test_a_file_of_several_rasters_names_them(tmp_path: Path) -> None:
    gpkg = str(tmp_path / "a.gpkg")
    for table, mode in (("first", {}), ("second", {"APPEND_SUBDATASET": "YES"})):
        write(Path(gpkg), values_of("uint8"), driver="GPKG", RASTER_TABLE=table, **mode)
    check_refused(gpkg, "GPKG:", "first", "second", "full name")
    assert read_raster_file(f"GPKG:{gpkg}:second").width == 20


@pytest.mark.parametrize(
    "path",
    [
        "WMS:https://example.org/wms?SERVICE=WMS&LAYERS=map",
        "type=xyz&url=https://tile.example.org/{z}/{x}/{y}.png&zmax=19",
        "contextualWMSLegend=0&crs=EPSG:3857&layers=map&url=https://example.org/wms",
        "<GDAL_WMS><Service name='TMS'/></GDAL_WMS>",
        "WMTS:https://example.org/wmts,layer=map",
    ],
)
def test_web_services(path: str) -> None:
    check_refused(path, "web service", "GeoTIFF")


def test_the_description_of_a_web_service(tmp_path: Path) -> None:
    path = tmp_path / "osm.xml"
    path.write_text(
        "<GDAL_WMS><Service name='TMS'><ServerUrl>http://127.0.0.1:9/${z}/${x}/${y}.png</ServerUrl></Service><DataWindow>"
        "<UpperLeftX>-20037508.34</UpperLeftX><UpperLeftY>20037508.34</UpperLeftY><LowerRightX>20037508.34</LowerRightX>"
        "<LowerRightY>-20037508.34</LowerRightY><TileLevel>18</TileLevel><TileCountX>1</TileCountX><TileCountY>1</TileCountY>"
        "<YOrigin>top</YOrigin></DataWindow><Projection>EPSG:3857</Projection><BandsCount>3</BandsCount></GDAL_WMS>"
    )
    check_refused(str(path), "web service")


def read_to_the_end(path: str) -> None:
    read_raster_file(path)
    stored(path, (1, 2))


@pytest.mark.parametrize("options", [{}, {"compress": "deflate"}, {"tiled": True, "compress": "lzw", "predictor": 2}])
def test_truncated_files_fail_and_say_where(options: dict[str, object], tmp_path: Path) -> None:
    """Cut at any length: either it is refused when it is opened, or when the part that is gone is read."""
    values = np.random.default_rng(3).integers(0, 4000, (2, 300, 310)).astype(np.uint16)
    whole = Path(write(tmp_path / "whole.tif", values, nodata=0, **options)).read_bytes()
    for part in (0.999, 0.9, 0.6, 0.3, 0.05, 0.002):
        cut = tmp_path / f"cut {part}.tif"
        cut.write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(RasterError) as caught:
            read_to_the_end(str(cut))
        assert str(cut) in caught.value.message
        # Where the directory itself is cut, the georeference may be gone first.
        assert "truncated" in caught.value.hint or (part < 0.01 and "no geotransform" in caught.value.message)
        assert "See previous exception" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["with space.tif", "Übersicht é.tif", "it's.tif", 'say "hi".tif', "a&b;c,d#e%20f.tif", "日本.tif", "-o.tif"]
)
def test_paths_of_all_kinds(name: str, tmp_path: Path) -> None:
    folder = tmp_path / f"folder of {name[:-4]}"
    folder.mkdir()
    values = values_of("uint16")
    path = write(folder / name, values)
    assert read_raster_file(path).path == path
    np.testing.assert_array_equal(stored(path)[0], values)


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.tif", values_of("uint8"))
    monkeypatch.chdir(tmp_path)
    assert read_raster_file("a.tif").width == 20
