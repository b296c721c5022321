"""Strip writer: what is written is whole, the same bytes, and named errors where it cannot be."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.env
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import OutputError
from core.mapping import rasters
from core.mapping.rasters import (
    BLOCK_CACHE_BYTES,
    StripWriter,
    check_output,
    check_space,
    raster_environment,
)
from core.scenes.grid import Grid

ROOT = Path(__file__).resolve().parents[3]
TAGS = {"RSFUSION_VERSION": "0.1", "RSFUSION_INPUTS": '{"optical": ["caf\u00e9 \'1\'.tif"]}'}
COLOURS = {0: (0, 0, 0, 0), 1: (10, 20, 30, 255), 7: (200, 100, 0, 255)}


def grid(width: int, height: int) -> Grid:
    return Grid("EPSG:32633", 310_000.0, 5_820_000.0, 10.0, 10.0, width, height)


def codes(width: int, height: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 8, (height // 9 + 1, width // 9 + 1), dtype=np.uint8)
    return np.kron(coarse, np.ones((9, 9), np.uint8))[None, :height, :width]


def write(path: Path, values: np.ndarray, heights: list[int], **options: Any) -> None:
    options = {"nodata": 0, "tags": TAGS} | options
    with StripWriter(path, grid(values.shape[2], values.shape[1]), len(values), values.dtype.name, **options) as writer:
        row, turn = 0, 0
        while row < values.shape[1]:
            height = min(heights[turn % len(heights)], values.shape[1] - row)
            writer.write(values[:, row : row + height], row)
            row, turn = row + height, turn + 1


@pytest.mark.parametrize("in_memory", [0, 2**30])
def test_parts_of_strips_make_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int) -> None:
    values = np.random.default_rng(0).normal(size=(40, 290, 330)).astype(np.float32)
    write(tmp_path / "whole.tif", values, [97], nodata=None)
    monkeypatch.setattr(rasters, "_IN_MEMORY_BYTES", in_memory)
    with StripWriter(tmp_path / "parts.tif", grid(330, 290), 40, "float32", None, tags=TAGS) as writer:
        for row in range(0, 290, 97):
            for column in (0, 100, 250):
                stop = {0: 100, 100: 250, 250: 330}[column]
                writer.write_part(values[:, row : row + 97, column:stop], row, column)
    assert (tmp_path / "parts.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts.tif", "whole.tif"]
    # Forty bands of a block lie together: it is smaller than that of one band.
    with rasterio.open(tmp_path / "parts.tif") as dataset:
        assert dataset.block_shapes[0] == (256, 256)
        np.testing.assert_array_equal(dataset.read(), values)


def test_bands_by_the_hundred_lie_in_small_blocks(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(300, 130, 140)).astype(np.float32)
    write(tmp_path / "many.tif", values, [50], nodata=None)
    with rasterio.open(tmp_path / "many.tif") as dataset:
        assert dataset.block_shapes[0] == (64, 64)
        np.testing.assert_array_equal(dataset.read(), values)


def test_parts_that_do_not_follow_each_other_are_refused(tmp_path: Path) -> None:
    part = np.zeros((1, 10, 20), np.uint8)
    writer = StripWriter(tmp_path / "map.tif", grid(50, 50), 1, "uint8", 0)
    writer.write_part(part, 0, 0)
    wrong = [
        (part, 0, 40),
        (part, 10, 20),
        (np.zeros((1, 12, 20), np.uint8), 0, 20),
        (np.zeros((1, 8, 20), np.uint8), 0, 20),
        (np.zeros((1, 10, 31), np.uint8), 0, 20),
        (part.astype(np.float64), 0, 20),
    ]
    for values, row, column in wrong:
        with pytest.raises(ValueError, match="10 rows of uint8 at row 0, column 20"):
            writer.write_part(values, row, column)
    writer.abort()


@pytest.mark.parametrize("file_format", ["gtiff", "cog"])
@pytest.mark.parametrize(("width", "height"), [(70, 33), (513, 700), (1100, 1030)])
def test_class_raster_is_whole_tagged_and_coloured(tmp_path: Path, file_format: Any, width: int, height: int) -> None:
    path = tmp_path / "d\u00e9j\u00e0 'vu'.tif"
    values = codes(width, height)
    write(path, values, [100], colormap=COLOURS, descriptions=["class"], file_format=file_format)
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(), values)
        assert dataset.crs.to_epsg() == 32633
        assert dataset.transform == grid(width, height).transform
        assert dataset.nodata == 0
        assert dataset.descriptions == ("class",)
        assert dataset.tags() | TAGS == dataset.tags()
        assert dataset.colormap(1)[7] == COLOURS[7]
        assert dataset.profile["tiled"]
        assert dataset.profile["compress"] == "deflate"
        layout = dataset.tags(ns="IMAGE_STRUCTURE").get("LAYOUT")
        assert (layout == "COG") == (file_format == "cog")
        assert bool(dataset.overviews(1)) == (width > 1024 or (file_format == "cog" and width > 512))
        if dataset.overviews(1):
            small = dataset.read(1, out_shape=(height // 2, width // 2))
            assert set(np.unique(small)) <= set(np.unique(values))
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("file_format", ["gtiff", "cog"])
@pytest.mark.parametrize("dtype", ["float32", "uint8", "int16", "uint16"])
def test_several_bands_of_every_type(tmp_path: Path, dtype: str, file_format: Any) -> None:
    values = (np.random.default_rng(0).random((3, 301, 530)) * 100).astype(dtype)
    path = tmp_path / "p.tif"
    if dtype == "float32":
        values[:, 5, 7] = np.nan
    nodata = np.nan if dtype == "float32" else 255
    write(path, values, [64, 1], nodata=nodata, descriptions=["a", "b", "c"], file_format=file_format)
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(), values)
        assert dataset.descriptions == ("a", "b", "c")
        assert np.isnan(dataset.nodata) if dtype == "float32" else dataset.nodata == 255


@settings(max_examples=15, deadline=None)
@given(heights=st.lists(st.integers(1, 700), min_size=1, max_size=6), count=st.integers(1, 2))
def test_the_bytes_do_not_depend_on_the_strips(heights: list[int], count: int) -> None:
    values = np.concatenate([codes(600, 1100, seed) for seed in range(count)])
    with tempfile.TemporaryDirectory() as folder:
        one, other = Path(folder) / "one.tif", Path(folder) / "other.tif"
        write(one, values, [1100])
        write(other, values, heights)
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(("count", "file_format"), [(1, "gtiff"), (3, "gtiff"), (3, "cog")])
def test_the_bytes_do_not_depend_on_the_block_cache(tmp_path: Path, count: int, file_format: str) -> None:
    script = """
import sys
from pathlib import Path
import numpy as np
import core.mapping.rasters as rasters
from core.scenes.grid import Grid

path, count, file_format, rasters.BLOCK_CACHE_BYTES = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
values = np.random.default_rng(0).integers(0, 255, (count, 1500, 1300), dtype=np.uint8)
grid = Grid("EPSG:32633", 0, 0, 10, 10, 1300, 1500)
with rasters.StripWriter(path, grid, count, "uint8", None, file_format=file_format) as writer:
    for row in range(0, 1500, 50):
        writer.write(values[:, row : row + 50], row)
"""
    paths = [tmp_path / "small.tif", tmp_path / "large.tif"]
    for path, size in zip(paths, (2**20, 2**28), strict=True):
        arguments = [str(path), str(count), file_format, str(size)]
        subprocess.run([sys.executable, "-c", script, *arguments], check=True, cwd=ROOT)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_cache_is_set_in_bytes() -> None:
    with raster_environment():
        assert rasterio.env.get_gdal_config("GDAL_CACHEMAX") == BLOCK_CACHE_BYTES == 117_440_512


def test_a_finished_file_may_be_read_by_others(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    write(tmp_path / "map.tif", codes(50, 50), [50])
    assert stat.S_IMODE((tmp_path / "map.tif").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def write_twice(writer: StripWriter, values: np.ndarray) -> None:
    writer.write(values, 0)
    writer.write(values[:, :20], 0)


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "map.tif"
    path.write_text("the old map")
    writer = StripWriter(path, grid(300, 300), 1, "uint8", 0)
    with pytest.raises(ValueError, match="row 280"), writer:
        write_twice(writer, codes(300, 280))
    assert path.read_text() == "the old map"
    assert list(tmp_path.iterdir()) == [path]


def test_missing_rows_are_no_map(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="300 rows and 280"),
        StripWriter(tmp_path / "map.tif", grid(300, 300), 1, "uint8", 0) as writer,
    ):
        writer.write(codes(300, 280), 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("values", "row"),
    [
        (np.zeros((1, 10, 50), np.uint8), 5),
        (np.zeros((1, 10, 49), np.uint8), 0),
        (np.zeros((2, 10, 50), np.uint8), 0),
        (np.zeros((1, 51, 50), np.uint8), 0),
        (np.zeros((10, 50), np.uint8), 0),
        (np.zeros((1, 10, 50), np.float32), 0),
    ],
)
def test_wrong_strips_are_refused(tmp_path: Path, values: np.ndarray, row: int) -> None:
    with StripWriter(tmp_path / "map.tif", grid(50, 50), 1, "uint8", 0) as writer:
        with pytest.raises(ValueError, match="Expected"):
            writer.write(values, row)
        writer.write(codes(50, 50), 0)


def test_what_described_the_old_raster_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "map.tif"
    for suffix in (".aux.xml", ".ovr", ".msk"):
        (tmp_path / f"map.tif{suffix}").write_text("old")
    write(path, codes(50, 50), [50])
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_lost_on_the_way_is_noticed(tmp_path: Path) -> None:
    class Careless(StripWriter):
        def _read_back(self) -> None:
            size = self._partial.stat().st_size
            with self._partial.open("r+b") as stream:
                stream.truncate(size - 2000)
            super()._read_back()

    values = np.random.default_rng(0).integers(0, 255, (1, 600, 600), dtype=np.uint8)
    with (
        pytest.raises(OutputError, match="cannot be written"),
        Careless(tmp_path / "map.tif", grid(600, 600), 1, "uint8", 0) as writer,
    ):
        writer.write(values, 0)
    assert not list(tmp_path.iterdir())


FULL = """
import sys, resource
from pathlib import Path
import numpy as np
from core.errors import OutputError
from core.mapping.rasters import StripWriter
from core.scenes.grid import Grid

path, size, limit = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
values = np.random.default_rng(0).integers(0, 255, (1, size, size), dtype=np.uint8)
try:
    with StripWriter(path, Grid("EPSG:32633", 0, 0, 10, 10, size, size), 1, "uint8", None) as writer:
        for row in range(0, size, 64):
            writer.write(values[:, row : row + 64], row)
except OutputError as error:
    print("OUTPUT ERROR", error, [entry.name for entry in path.parent.iterdir()])
"""


# Sizes around the limit: the write itself fails for the large one, only the silent close for those just above it.
@pytest.mark.parametrize("size", [780, 800, 1500])
@pytest.mark.skipif(os.name == "nt", reason="Windows limits no file sizes")
def test_a_file_that_does_not_fit_is_an_error_and_leaves_nothing(tmp_path: Path, size: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "map.tif"), str(size), "600000"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("OUTPUT ERROR"), done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("[]")


@pytest.mark.parametrize("size", [790, 800, 1500])
def test_a_full_disk_is_called_full(tmp_path: Path, size: int) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(tmp_path)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk takes root")
    try:
        done = subprocess.run(
            [sys.executable, "-c", FULL, str(tmp_path / "map.tif"), str(size), "0"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        left = list(tmp_path.iterdir())
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert "the disk is full" in done.stdout
    assert not left


def test_check_output_names_what_is_wrong(tmp_path: Path) -> None:
    given = tmp_path / "input.tif"
    given.write_text("x")
    check_output(tmp_path / "map.tif", [given, "NETCDF:" + "x" * 300])
    check_output(tmp_path / "map.tif")
    with pytest.raises(OutputError, match="does not exist"):
        check_output(tmp_path / "missing" / "map.tif")
    with pytest.raises(OutputError, match="is a folder"):
        check_output(tmp_path)
    with pytest.raises(OutputError, match="also an input"):
        check_output(given, [given])
    (tmp_path / "sub").mkdir()
    with pytest.raises(OutputError, match="also an input"):
        check_output(tmp_path / "sub" / ".." / "map.tif", [tmp_path / "map.tif"])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["input.tif", "sub"]


def test_an_input_is_known_under_every_name(tmp_path: Path) -> None:
    given, soft, hard = tmp_path / "input.tif", tmp_path / "soft.tif", tmp_path / "hard.tif"
    given.write_text("x")
    soft.symlink_to(given)
    os.link(given, hard)
    for name in (soft, hard):
        with pytest.raises(OutputError, match="also an input"):
            check_output(name, [given])


@pytest.mark.skipif(os.name == "nt", reason="folders have no such permissions on Windows")
def test_check_output_in_a_read_only_folder() -> None:
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(OutputError, match="cannot be written to: Permission denied"):
                check_output(Path(place) / "map.tif")
            with pytest.raises(OutputError, match="cannot be written"):
                StripWriter(Path(place) / "map.tif", grid(50, 50), 1, "uint8", 0)
        finally:
            os.seteuid(user)


def test_check_space(tmp_path: Path) -> None:
    check_space(tmp_path / "map.tif", 1000)
    with pytest.raises(OutputError, match="MiB left"):
        check_space(tmp_path / "map.tif", 2**60)
