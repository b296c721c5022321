"""Maps beside what they should be: pixel by pixel, in one piece, and whatever part is asked for."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from core.labels.scheme import ClassScheme, LandCoverClass
from core.mapping import engine as engine_module
from core.mapping.blending import Tiling, choose_tiling, fixed_tiling
from core.mapping.engine import MappingEngine
from core.models.architectures import ArchitectureName
from core.models.encoders.vit import VITS
from core.models.model_file import ModelCard, class_cards, save_model
from core.models.registry import model_step, receptive_radius
from core.models.specification import ModelSpecification
from core.scenes.grid import Window, aligned
from core.scenes.reading import SceneReader, valid_pixels
from core.scenes.scene import Scene, SceneRequest, build_scene
from tests.core.finetuning.scenes import mixed_scene, specification_for, write_raster
from tests.core.models.specifications import random_model

ROOT = Path(__file__).resolve().parents[3]
CPU = torch.device("cpu")
CLASSES = 3


def card_of(specification: ModelSpecification, temperature: float = 1.0, **options: Any) -> ModelCard:
    classes = tuple(LandCoverClass(i + 1, f"class {i}", "#000000", str(i)) for i in range(specification.n_classes))
    return ModelCard(
        software_version="0",
        specification=specification,
        resolution_m=10,
        class_scheme="test",
        classes=class_cards(ClassScheme("test", classes)),
        temperature=temperature,
        **options,
    )


class PixelModel(nn.Module):
    """Scores of a pixel from that pixel alone: the first bands of the main input, and what it counts of tiles."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.calls = 0

    def forward(self, values: dict[str, Tensor]) -> Tensor:
        self.calls += 1
        return 5 * torch.nan_to_num(values[self.name][:, :CLASSES])


@contextmanager
def threads_of_torch(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def engine_of(
    scene: Scene,
    model: nn.Module,
    card: ModelCard,
    tiling: tuple[int, int] | None = None,
    overlap: float = 0.25,
    **options: Any,
) -> MappingEngine:
    """An engine with tiles of its own choice, or of ours: side and stride."""
    with pytest.MonkeyPatch.context() as patch:
        if tiling is not None:
            patch.setattr(engine_module, "choose_tiling", lambda *_: Tiling(*tiling))
        return MappingEngine(model, card, scene, CPU, overlap, **options)


def mapped(
    engine: MappingEngine, window: Window, allowed: Callable[[Window], np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and mask of a window, put together from strips that must follow each other without a gap."""
    strips = list(engine.strips(window, allowed))
    row = window.row
    for strip in strips:
        assert (strip.window.column, strip.window.width, strip.window.row) == (window.column, window.width, row)
        assert strip.probabilities.shape[1:] == strip.mapped.shape == strip.window.shape
        assert strip.probabilities.dtype == np.float32
        row = strip.window.stop_row
    assert row == window.stop_row
    return np.concatenate([s.probabilities for s in strips], axis=1), np.concatenate([s.mapped for s in strips])


def direct(scene: Scene, window: Window, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """What ``PixelModel`` says of each pixel, and where all inputs are valid."""
    whole = aligned(scene.grid, window, scene.step)
    with SceneReader(scene) as reader:
        values = reader.read(whole)
    valid = np.logical_and.reduce([valid_pixels(values[entry.name], entry) for entry in scene.acquisitions])
    scores = 5 * np.nan_to_num(values[scene.main.name][:CLASSES].astype(np.float64)) / temperature
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=0)
    rows, columns = window.slices_within(whole)
    valid = valid[rows, columns]
    return np.where(valid, probabilities[:, rows, columns], 0), valid


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Three resolutions, none of them on the lattice's origin, with gaps."""
    return mixed_scene(tmp_path_factory.mktemp("mixed"), 95, 71)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """One complete raster of 61 x 47 pixels on the other side of the origin of its system."""
    values = np.random.default_rng(1).uniform(0.05, 0.6, (4, 47, 61))
    path = write_raster(tmp_path_factory.mktemp("plain") / "optical.tif", values, 10, -330, -70)
    return build_scene(SceneRequest({"optical": [path]}, {"optical": "spot6_7"}))


def windows_of(scene: Scene) -> st.SearchStrategy[Window]:
    def window(corners: tuple[int, int, int, int]) -> Window:
        left, right, top, bottom = corners
        return Window(min(left, right), min(top, bottom), abs(right - left) + 1, abs(bottom - top) + 1)

    columns, rows = st.integers(0, scene.grid.width - 1), st.integers(0, scene.grid.height - 1)
    return st.tuples(columns, columns, rows, rows).map(window)


@given(data=st.data(), tile=st.integers(1, 12), share=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_a_model_of_pixels_maps_every_pixel_as_itself(plain: Scene, data: st.DataObject, tile: int, share: float) -> None:
    window = data.draw(windows_of(plain))
    tile, stride = 4 * tile, max(1, round(share * tile)) * 4
    card = card_of(specification_for(plain, CLASSES))
    probabilities, is_mapped = mapped(engine_of(plain, PixelModel("spot6_7"), card, (tile, stride)), window)
    expected, valid = direct(plain, window)
    np.testing.assert_array_equal(is_mapped, valid)
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)


@given(data=st.data(), tile=st.integers(1, 8), share=st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_mixed_resolutions_and_gaps_stay_in_place(mixed: Scene, data: st.DataObject, tile: int, share: float) -> None:
    window = data.draw(windows_of(mixed))
    tile, stride = 12 * tile, max(1, round(share * tile)) * 12
    card = card_of(specification_for(mixed, CLASSES), temperature=2.5)
    probabilities, is_mapped = mapped(engine_of(mixed, PixelModel("spot6_7"), card, (tile, stride)), window)
    expected, valid = direct(mixed, window, 2.5)
    np.testing.assert_array_equal(is_mapped, valid)
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)


@given(data=st.data(), tile=st.integers(2, 6), share=st.floats(0, 1), kept=st.sampled_from((1e-9, 1e-4, 1.0)))
@settings(max_examples=30, deadline=None)
def test_windows_that_are_mapped_in_turn_are_the_map(
    mixed: Scene, data: st.DataObject, tile: int, share: float, kept: float
) -> None:
    tile, stride = 12 * tile, max(1, round(share * tile)) * 12
    card = card_of(specification_for(mixed, CLASSES))
    model = PixelModel("spot6_7")
    expected, is_mapped = mapped(engine_of(mixed, model, card, (tile, stride)), mixed.grid.window)
    width, height = mixed.grid.width, mixed.grid.height
    cuts = sorted(data.draw(st.sets(st.integers(1, width - 1), max_size=3)))
    windows = []
    for left, right in itertools.pairwise([0, *cuts, width]):
        # What an interrupted map leaves: some strips of each panel, in runs.
        rows = sorted(data.draw(st.sets(st.integers(0, height), min_size=2, max_size=4)))
        windows += [Window(left, top, right - left, stop - top) for top, stop in itertools.pairwise(rows)][::2]
    with pytest.MonkeyPatch.context() as patch:
        # Blocks of a few columns, or of all of them, are kept.
        patch.setattr(engine_module, "KEPT_OF_CACHE", kept)
        strips = list(engine_of(mixed, model, card, (tile, stride)).strips(data.draw(st.permutations(windows))))
    asked, said = np.zeros(mixed.grid.shape, int), np.zeros(mixed.grid.shape, int)
    for window in windows:
        asked[window.slices_within(mixed.grid.window)] += 1
    for strip in strips:
        place = strip.window.slices_within(mixed.grid.window)
        said[place] += 1
        np.testing.assert_array_equal(strip.probabilities, expected[:, *place])
        np.testing.assert_array_equal(strip.mapped, is_mapped[place])
    np.testing.assert_array_equal(said, asked)


def test_windows_side_by_side_are_mapped_strip_by_strip_where_their_blocks_are_kept(mixed: Scene) -> None:
    halves = [Window(0, 0, 40, mixed.grid.height), Window(40, 0, mixed.grid.width - 40, mixed.grid.height)]
    engine = engine_of(mixed, PixelModel("spot6_7"), card_of(specification_for(mixed, CLASSES)), (24, 12))
    rows = engine.strip_rows(mixed.grid.window)
    order = [(strip.window.row, strip.window.column) for strip in engine.strips(halves)]
    assert order == [(row.row, half.column) for row in rows for half in halves]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_module, "KEPT_OF_CACHE", 1e-9)
        order = [(strip.window.row, strip.window.column) for strip in engine.strips(halves)]
    assert order == [(row.row, half.column) for half in halves for row in rows]


def test_how_much_of_a_row_of_blocks_is_kept_does_not_depend_on_the_number_of_files(tmp_path: Path) -> None:
    """The same values in one file, in a file for each band, and in files side by side."""
    values = np.random.default_rng(3).uniform(0.05, 0.6, (4, 40, 60))
    names = ("B2", "B3", "B4", "B8")

    def named(name: str, part: np.ndarray, bands: Sequence[str], left: int = 0) -> str:
        path = write_raster(tmp_path / f"{name}.tif", part, 10, 10.0 * left, 0)
        with rasterio.open(path, "r+") as dataset:
            dataset.descriptions = bands
        return path

    whole = [named("whole", values, names)]
    bands = [named(name, values[[row]], [name]) for row, name in enumerate(names)]
    halves = [named(str(left), values[:, :, left : left + 30], names, left) for left in (0, 30)]
    kept = []
    for paths in (whole, bands, halves):
        scene = build_scene(SceneRequest({"optical": paths}, {"optical": "sentinel2_l2a"}, sentinel2_offset="no"))
        model = PixelModel("sentinel2_l2a")
        kept.append(engine_of(scene, model, card_of(specification_for(scene, CLASSES)), (24, 12))._kept_columns)
    assert kept[0] == kept[1] == kept[2] > 1000


def one_piece(scene: Scene, model: nn.Module, card: ModelCard) -> np.ndarray:
    """Probabilities of the whole scene by one call of the model, with what lies around as far as the model sees."""
    specification = card.specification
    whole = aligned(scene.grid, scene.grid.window.padded(receptive_radius(specification)), model_step(specification))
    with SceneReader(scene) as reader:
        values = {name: torch.from_numpy(array)[None] for name, array in reader.read(whole).items()}
    with torch.inference_mode():
        probabilities = torch.softmax(model(values)[0] / card.temperature, dim=0).numpy()
    rows, columns = scene.grid.window.slices_within(whole)
    return np.asarray(probabilities[:, rows, columns])


@given(
    architecture=st.sampled_from(("unet_early", "unet_intermediate")),
    depth=st.integers(1, 2),
    spare=st.integers(0, 2),
    stride=st.integers(2, 8),
    threads=st.integers(1, 3),
)
@settings(max_examples=12, deadline=None)
def test_a_blended_map_is_the_map_in_one_piece(
    mixed: Scene, architecture: ArchitectureName, depth: int, spare: int, stride: int, threads: int
) -> None:
    stride, spare = 12 * stride, 12 * spare
    specification = specification_for(mixed, CLASSES, architecture).model_copy(update={"depth": depth})
    model, card = random_model(specification), card_of(specification, 0.5)
    # Twice the radius and more is shared, sometimes by more than two tiles.
    shared = -(-2 * receptive_radius(specification) // 12) * 12 + spare
    with threads_of_torch(threads):
        engine = engine_of(mixed, model, card, (shared + stride, stride))
        probabilities, is_mapped = mapped(engine, mixed.grid.window)
    expected = one_piece(mixed, model, card)
    assert np.ptp(expected, axis=(1, 2)).min() > 0.05
    np.testing.assert_allclose(probabilities[:, is_mapped], expected[:, is_mapped], atol=1e-4)
    assert (probabilities[:, ~is_mapped] == 0).all()


def test_the_usual_tiles_give_the_map_in_one_piece(tmp_path: Path) -> None:
    values = np.random.default_rng(1).uniform(0.05, 0.6, (4, 200, 330))
    path = write_raster(tmp_path / "optical.tif", values, 10)
    scene = build_scene(SceneRequest({"optical": [path]}, {"optical": "spot6_7"}))
    specification = specification_for(scene, CLASSES)
    model, card = random_model(specification), card_of(specification)
    engine = engine_of(scene, model, card)
    assert engine.tiling == choose_tiling(4, receptive_radius(specification), 0.25, 1)
    probabilities, is_mapped = mapped(engine, scene.grid.window)
    assert is_mapped.all()
    np.testing.assert_allclose(probabilities, one_piece(scene, model, card), atol=1e-4)
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-5)


@given(data=st.data(), stride=st.integers(1, 8), overlap=st.integers(0, 3), threads=st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_the_map_of_an_extent_is_the_extent_of_the_map(
    mixed: Scene, data: st.DataObject, stride: int, overlap: int, threads: int
) -> None:
    """Whatever the extent, down to a pixel, and whatever number of threads looks at its tiles."""
    extent = data.draw(windows_of(mixed))
    specification = specification_for(mixed, CLASSES)
    model, card, tiling = random_model(specification), card_of(specification), (12 * (stride + overlap), 12 * stride)
    probabilities, is_mapped = mapped(engine_of(mixed, model, card, tiling), mixed.grid.window)
    with threads_of_torch(threads):
        cut, is_cut = mapped(engine_of(mixed, model, card, tiling), extent)
    rows, columns = extent.slices_within(mixed.grid.window)
    np.testing.assert_array_equal(cut, probabilities[:, rows, columns])
    np.testing.assert_array_equal(is_cut, is_mapped[rows, columns])


@pytest.mark.parametrize("overlap", [0.0, 0.25])
def test_an_extent_of_a_warped_scene_with_the_usual_tiles(sample: Any, overlap: float) -> None:
    paths = {"optical": [str(sample.optical)], "sar": [str(sample.sar)], "elevation": [str(sample.elevation)]}
    scene = build_scene(SceneRequest(paths))  # type: ignore[arg-type]
    specification = specification_for(scene, CLASSES)
    engine = engine_of(scene, random_model(specification), card_of(specification), overlap=overlap)
    probabilities, is_mapped = mapped(engine, scene.grid.window)
    assert 0.5 < is_mapped.mean() < 1
    extent = Window(31, 57, 40, 50)
    rows, columns = extent.slices_within(scene.grid.window)
    cut, is_cut = mapped(engine, extent)
    np.testing.assert_array_equal(cut, probabilities[:, rows, columns])
    np.testing.assert_array_equal(is_cut, is_mapped[rows, columns])


@pytest.mark.parametrize("overlap", [0.25, 0.5])
def test_tiles_end_with_the_scene_and_say_the_same(tmp_path: Path, overlap: float) -> None:
    values = np.random.default_rng(5).uniform(0, 1, (4, 300, 390))
    path = write_raster(tmp_path / "scene.tif", values, 10, -330, -70)
    scene = build_scene(SceneRequest({"optical": [path]}, {"optical": "spot6_7"}))
    specification = specification_for(scene, CLASSES)
    model = random_model(specification)
    pixels: list[int] = []

    def counted(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        pixels.append(arguments[0][scene.main.name].shape[-1] * arguments[0][scene.main.name].shape[-2])

    model.register_forward_pre_hook(counted)
    engine = engine_of(scene, model, card_of(specification), overlap=overlap)
    assert engine.margin > 0
    short = mapped(engine, scene.grid.window)
    few = sum(pixels)
    pixels.clear()
    engine._trims = False
    whole = mapped(engine, scene.grid.window)
    for one, other in zip(short, whole, strict=True):
        np.testing.assert_array_equal(one, other)
    assert few < 0.8 * sum(pixels)


@given(
    row=st.integers(0, 46),
    column=st.integers(0, 60),
    band=st.integers(0, 3),
    tiling=st.sampled_from(((96, 16), (48, 32), (16, 16), None)),
)
@settings(max_examples=15, deadline=None)
def test_one_missing_pixel_makes_one_pixel_nodata(
    plain: Scene,
    tmp_path_factory: pytest.TempPathFactory,
    row: int,
    column: int,
    band: int,
    tiling: tuple[int, int] | None,
) -> None:
    with SceneReader(plain) as reader:
        values = reader.read(plain.grid.window)["spot6_7"].astype(np.float64)
    values[band, row, column] = np.nan
    path = write_raster(tmp_path_factory.mktemp("gap") / "gap.tif", values, 10, -330, -70)
    gapped = build_scene(SceneRequest({"optical": [path]}, {"optical": "spot6_7"}))
    specification = specification_for(plain, CLASSES)
    engine = engine_of(gapped, random_model(specification), card_of(specification), tiling)
    probabilities, is_mapped = mapped(engine, gapped.grid.window)
    assert np.argwhere(~is_mapped).tolist() == [[row, column]]
    assert np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities.sum(axis=0)[is_mapped], 1, atol=1e-5)


@pytest.mark.parametrize(("tile", "stride"), [(64, 48), (64, 64), (32, 24)])
def test_what_one_tile_says_everything_of_takes_one_tile(plain: Scene, tile: int, stride: int) -> None:
    model = PixelModel(plain.main.name)
    engine = engine_of(plain, model, card_of(specification_for(plain, CLASSES)), (tile, stride))
    window = engine.within_a_tile(plain.grid.height // 2, plain.grid.width // 2)
    assert window.width == window.height == 2 * stride - engine._inner
    inside = window.intersection(plain.grid.window)
    assert not inside.is_empty
    list(engine.strips(inside))
    assert model.calls == 1


def test_where_tiles_share_more_than_half_a_pixel_is_left(plain: Scene) -> None:
    engine = engine_of(plain, PixelModel(plain.main.name), card_of(specification_for(plain, CLASSES)), (64, 16))
    assert engine.within_a_tile(20, 30).shape == (1, 1)


class Cramped(nn.Module):
    """A model on a device that holds so many tiles at once."""

    def __init__(self, model: nn.Module, most: int) -> None:
        super().__init__()
        self.model, self.most = model, most
        self.batches: list[int] = []

    def forward(self, values: dict[str, Tensor]) -> Tensor:
        count = len(next(iter(values.values())))
        if count > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.batches.append(count)
        answer: Tensor = self.model(values)
        return answer


@pytest.mark.parametrize(("batch", "most", "expected"), [(1, 9, 1), (3, 9, 3), (64, 9, 9), (64, 3, 2), (5, 1, 1)])
def test_tiles_in_batches_give_the_same_map_and_fewer_where_they_do_not_fit(
    gapped: Scene, batch: int, most: int, expected: int
) -> None:
    model = random_model(specification_for(gapped, CLASSES, "unet_intermediate").model_copy(update={"depth": 1}))
    card = card_of(model.specification, 0.5, allows_missing=True)
    alone = engine_of(gapped, model, card, (48, 12))
    cramped = Cramped(model, most)
    engine = engine_of(gapped, cramped, card, (48, 12), tiles_in_batch=batch)
    (one, is_mapped), (many, is_mapped_too) = (mapped(each, gapped.grid.window) for each in (alone, engine))
    np.testing.assert_array_equal(is_mapped, is_mapped_too)
    np.testing.assert_allclose(one, many, atol=1e-5)
    assert max(cramped.batches) <= min(expected, most)
    assert (max(cramped.batches) > 1) == (expected > 1)


def test_a_tile_that_does_not_fit_alone_is_told(plain: Scene) -> None:
    engine = engine_of(plain, Cramped(PixelModel("spot6_7"), 0), card_of(specification_for(plain, CLASSES)), tiles_in_batch=4)
    with pytest.raises(torch.OutOfMemoryError):
        mapped(engine, plain.grid.window)


@given(threads=st.integers(2, 4), stride=st.integers(1, 6), overlap=st.integers(0, 3))
@settings(max_examples=10, deadline=None)
def test_tiles_side_by_side_give_the_same_map(gapped: Scene, threads: int, stride: int, overlap: int) -> None:
    model = random_model(specification_for(gapped, CLASSES, "unet_intermediate").model_copy(update={"depth": 1}))
    card = card_of(model.specification, 0.5, allows_missing=True)
    found = []
    for count in (1, threads):
        with threads_of_torch(count):
            engine = engine_of(gapped, model, card, (12 * (stride + overlap), 12 * stride))
            assert engine.tiles_at_once == count
            found.append(mapped(engine, gapped.grid.window))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("width", "height"), [(2, 1), (5, 3), (1, 40)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.75])
def test_a_raster_smaller_than_a_tile(tmp_path: Path, width: int, height: int, overlap: float) -> None:
    values = np.random.default_rng(2).uniform(0.05, 0.6, (4, height, width))
    path = write_raster(tmp_path / "small.tif", values, 10)
    scene = build_scene(SceneRequest({"optical": [path]}, {"optical": "spot6_7"}))
    specification = specification_for(scene, CLASSES)
    engine = engine_of(scene, PixelModel("spot6_7"), card_of(specification), overlap=overlap)
    assert engine.tiling.tile >= 128
    probabilities, is_mapped = mapped(engine, scene.grid.window)
    assert is_mapped.all()
    np.testing.assert_allclose(probabilities, direct(scene, scene.grid.window)[0], atol=1e-6)
    real = engine_of(scene, random_model(specification), card_of(specification), overlap=overlap)
    found = mapped(real, scene.grid.window)[0]
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)


def test_only_what_is_allowed_is_mapped_and_the_same_as_without_a_mask(mixed: Scene) -> None:
    specification = specification_for(mixed, CLASSES)
    engine = engine_of(mixed, random_model(specification), card_of(specification), (48, 24))
    wanted = np.random.default_rng(3).random(mixed.grid.shape) < 0.3
    wanted[:, 60:] = False

    def allowed(window: Window) -> np.ndarray:
        part = np.zeros(window.shape, bool)
        inside = window.intersection(mixed.grid.window)
        part[inside.slices_within(window)] = wanted[inside.slices_within(mixed.grid.window)]
        return part

    probabilities, is_mapped = mapped(engine, mixed.grid.window, allowed)
    everywhere, everything = mapped(engine, mixed.grid.window)
    np.testing.assert_array_equal(is_mapped, everything & wanted)
    np.testing.assert_array_equal(probabilities, np.where(is_mapped, everywhere, 0))


def test_tiles_without_a_wanted_pixel_are_not_computed(plain: Scene) -> None:
    model = PixelModel("spot6_7")
    engine = engine_of(plain, model, card_of(specification_for(plain, CLASSES)), (16, 16))
    mapped(engine, plain.grid.window)
    # 61 x 47 pixels from absolute column -33 and row 7.
    assert model.calls == 5 * 4
    model.calls = 0
    is_mapped = mapped(engine, plain.grid.window, lambda window: np.zeros(window.shape, bool))[1]
    assert model.calls == 0
    assert not is_mapped.any()
    assert list(engine.strips(Window(3, 3, 1, 1)))
    assert model.calls == 1


def test_strips_are_not_changed_by_those_that_follow(mixed: Scene) -> None:
    engine = engine_of(mixed, PixelModel("spot6_7"), card_of(specification_for(mixed, CLASSES)), (24, 12))
    kept: list[tuple[Any, np.ndarray, np.ndarray]] = []
    for strip in engine.strips(mixed.grid.window):
        kept.append((strip, strip.probabilities.copy(), strip.mapped.copy()))
    for strip, probabilities, is_mapped in kept:
        np.testing.assert_array_equal(strip.probabilities, probabilities)
        np.testing.assert_array_equal(strip.mapped, is_mapped)


class Striped(Exception):  # noqa: N818 - what a caller raises to stop
    pass


def test_a_map_that_is_given_up_closes_its_rasters(mixed: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []
    close = SceneReader.close
    monkeypatch.setattr(SceneReader, "close", lambda reader: (close(reader), closed.append(True))[0])
    strips: Iterator[Any] = engine_of(
        mixed, PixelModel("spot6_7"), card_of(specification_for(mixed, CLASSES)), (24, 12)
    ).strips(mixed.grid.window)
    next(strips)
    assert not closed
    with pytest.raises(Striped):
        strips.throw(Striped)  # type: ignore[attr-defined]
    assert closed == [True] * len(mixed.acquisitions)


def peak_bytes(engine: MappingEngine, window: Window) -> int:
    """Most memory that numpy held while the map was made and thrown away strip by strip."""
    tracemalloc.start()
    try:
        for _ in engine.strips(window):
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_depends_on_the_width_and_not_on_the_height(tmp_path: Path) -> None:
    values = np.random.default_rng(1).uniform(0.05, 0.6, (4, 1500, 512)).astype(np.float32)
    path = write_raster(tmp_path / "tall.tif", values, 10, 500_000, 5_800_000)
    scene = build_scene(SceneRequest({"optical": [path]}, {"optical": "spot6_7"}))
    specification = specification_for(scene, CLASSES)
    engine = engine_of(scene, PixelModel("spot6_7"), card_of(specification), (96, 64))
    # Reading ahead meets the rest at another moment in each run: a few strips show the peak less often than many.
    short = max(peak_bytes(engine, Window(0, 0, 512, 200)) for _ in range(6))
    tall = peak_bytes(engine, Window(0, 0, 512, 1500))
    narrow = peak_bytes(engine, Window(0, 0, 128, 1500))
    assert tall < 1.1 * short
    assert narrow < 0.6 * tall
    said = [engine.memory_bytes(Window(0, 0, width, 200)) for width in (256, 512, 1024)]
    assert said[2] - said[1] == pytest.approx(2 * (said[1] - said[0]))
    assert said[1] - said[0] > (tall - narrow) * 256 / 384


MEASURED = """
import resource, sys
from pathlib import Path

import torch

from core.mapping.engine import MappingEngine
from core.mapping.rasters import raster_environment
from core.models.model_file import load_model
from core.scenes.scene import SceneRequest, build_scene

model, card = load_model(Path(sys.argv[1]))
scene = build_scene(SceneRequest({"optical": [sys.argv[2]], "elevation": [sys.argv[3]]}))
engine = MappingEngine(model, card, scene, torch.device("cpu"))
before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024
with raster_environment():
    for strip in engine.strips(scene.grid.window):
        pass
# Not what getrusage tells: that begins with what the process was before it became this program, a copy of its parent.
peak = next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(peak - before, engine.memory_bytes(scene.grid.window) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is in KiB on Linux only")
def test_a_process_stays_below_the_memory_that_is_said(sample: Any, tmp_path: Path) -> None:
    paths = {"optical": [str(sample.optical)], "elevation": [str(sample.elevation)]}
    specification = specification_for(build_scene(SceneRequest(paths)), CLASSES, width=24)  # type: ignore[arg-type]
    save_model(tmp_path / "model.safetensors", random_model(specification), card_of(specification))
    program = [sys.executable, "-c", MEASURED, str(tmp_path / "model.safetensors"), str(sample.optical), str(sample.elevation)]
    told = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True)
    taken, said = (int(word) for word in told.stdout.split())
    assert 2**16 < taken < said


def test_finer_inputs_need_more_memory_and_coarser_ones_less(mixed: Scene) -> None:
    specification = specification_for(mixed, CLASSES)
    sizes = []
    for finer, coarser in ((4, 1), (1, 1), (1, 6)):
        entry = specification.modalities[0].model_copy(update={"finer": finer, "coarser": coarser})
        changed = specification.model_copy(update={"modalities": (entry, *specification.modalities[1:])})
        sizes.append(engine_of(mixed, PixelModel("x"), card_of(changed), (48, 24)).memory_bytes(Window(0, 0, 1000, 1000)))
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3


def test_a_scene_without_any_valid_pixel_is_mapped_as_nothing(mixed: Scene) -> None:
    model = PixelModel("spot6_7")
    beside = replace(mixed, grid=mixed.grid.crop(Window(500, 500, 20, 20)))
    engine = engine_of(beside, model, card_of(specification_for(mixed, CLASSES)), (24, 12))
    probabilities, is_mapped = mapped(engine, beside.grid.window)
    assert not is_mapped.any()
    assert not probabilities.any()
    assert model.calls == 0


class SumModel(nn.Module):
    """Scores of a pixel from whichever inputs are there: the main input's bands, and a constant for each of the others."""

    def __init__(self, scene: Scene) -> None:
        super().__init__()
        self.entries = {entry.name: entry for entry in scene.acquisitions}

    def forward(self, values: dict[str, Tensor]) -> Tensor:
        total = torch.zeros(1)
        for number, (name, shown) in enumerate(values.items()):
            entry = self.entries[name]
            known = torch.isfinite(shown).all(dim=1, keepdim=True)[..., :: entry.scale.finer, :: entry.scale.finer]
            known = known.repeat_interleave(entry.scale.coarser, 2).repeat_interleave(entry.scale.coarser, 3)
            total = total + known * torch.tensor([1.0, -2.0, 0.5]).roll(number)[:, None, None]
        return total


def with_gaps(folder: Path) -> Scene:
    """Spot and heights of which a part each is missing: both, either and none of them there."""
    values = np.random.default_rng(4).uniform(0.05, 0.6, (4, 47, 61))
    values[:, :, 30:] = np.nan
    heights = np.random.default_rng(5).uniform(0, 40, (1, 47, 61))
    heights[:, 20:] = np.nan
    radar = np.random.default_rng(6).uniform(-20, -5, (2, 47, 61))
    radar[:, 10:35, 20:50] = np.nan
    paths = {
        "optical": [write_raster(folder / "optical.tif", values, 10, -330, -70)],
        "other": [write_raster(folder / "other.tif", radar, 10, -330, -70)],
        "elevation": [write_raster(folder / "heights.tif", heights, 10, -330, -70)],
    }
    return build_scene(SceneRequest(paths, {"optical": "spot6_7", "other": "generic", "elevation": "dsm"}))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def gapped(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return with_gaps(tmp_path_factory.mktemp("gapped"))


def subsets_of(scene: Scene) -> np.ndarray:
    """(rows, columns) number of the set of inputs at each pixel: bit i stands for the i-th."""
    with SceneReader(scene) as reader:
        values = reader.read(scene.grid.window)
    return sum(np.isfinite(values[a.name]).all(axis=0) * (1 << i) for i, a in enumerate(scene.acquisitions))  # type: ignore[return-value]


def test_a_pixel_is_mapped_with_what_is_there_and_never_from_heights_alone(gapped: Scene) -> None:
    specification = specification_for(gapped, CLASSES)
    card = card_of(specification, allows_missing=True)
    subset = subsets_of(gapped)
    assert set(np.unique(subset)) == {0, 1, 2, 3, 4, 5, 6, 7}
    for tiling in ((16, 16), (24, 8), None):
        engine = engine_of(gapped, random_model(specification), card, tiling)
        strips = list(engine.strips(gapped.grid.window))
        is_mapped = np.concatenate([strip.mapped for strip in strips])
        np.testing.assert_array_equal(np.concatenate([strip.subset for strip in strips]), subset)
        np.testing.assert_array_equal(is_mapped, (subset & 3) > 0)
        probabilities = np.concatenate([strip.probabilities for strip in strips], axis=1)
        np.testing.assert_allclose(probabilities.sum(axis=0), is_mapped, atol=1e-5)
    assert engine.inputs.names(5) == ["spot6_7", "dsm"]


def test_gaps_stay_empty_where_nothing_may_be_missing(gapped: Scene) -> None:
    specification = specification_for(gapped, CLASSES)
    model, complete = random_model(specification), subsets_of(gapped) == 7
    lenient, strict = card_of(specification, allows_missing=True), card_of(specification)
    found, is_mapped = mapped(MappingEngine(model, lenient, gapped, CPU, allows_missing=False), gapped.grid.window)
    np.testing.assert_array_equal(is_mapped, complete)
    # A model that has not learned it cannot be asked to.
    again, is_again = mapped(MappingEngine(model, strict, gapped, CPU, allows_missing=True), gapped.grid.window)
    np.testing.assert_array_equal(is_again, complete)
    np.testing.assert_array_equal(again, found)
    everywhere, _ = mapped(MappingEngine(model, lenient, gapped, CPU), gapped.grid.window)
    np.testing.assert_array_equal(everywhere[:, complete], found[:, complete])


def test_each_set_of_inputs_has_its_own_temperature(gapped: Scene) -> None:
    specification = specification_for(gapped, CLASSES)
    temperatures = {"spot6_7": 2.0, "dsm+spot6_7": 3.0, "generic+spot6_7": 0.5, "generic": 4.0}
    card = card_of(specification, 1.5, allows_missing=True, temperatures=temperatures)
    # A set that was not measured is no surer than the least sure that was.
    expected = {7: 1.5, 1: 2.0, 5: 3.0, 3: 0.5, 2: 4.0, 6: 4.0}
    probabilities, is_mapped = mapped(engine_of(gapped, SumModel(gapped), card, (16, 16)), gapped.grid.window)
    subset = subsets_of(gapped)
    for number, temperature in expected.items():
        here = (subset == number) & is_mapped
        assert here.any()
        scores = sum(np.roll([1.0, -2.0, 0.5], bit) for bit in range(3) if number >> bit & 1) / temperature
        found = np.exp(scores) / np.exp(scores).sum()
        np.testing.assert_allclose(probabilities[:, here], np.broadcast_to(found[:, None], (3, here.sum())), atol=1e-5)


@pytest.mark.parametrize("names", [("spot6_7",), ("generic",), ("spot6_7", "dsm"), ("spot6_7", "generic")])
def test_inputs_that_are_not_given_count_as_missing_everywhere(gapped: Scene, names: tuple[str, ...]) -> None:
    specification = specification_for(gapped, CLASSES)
    model, card = random_model(specification), card_of(specification, allows_missing=True)
    part = replace(gapped, acquisitions=tuple(entry for entry in gapped.acquisitions if entry.name in names))
    probabilities, is_mapped = mapped(engine_of(part, model, card), gapped.grid.window)
    bits = [1 << i for i, entry in enumerate(gapped.acquisitions) if entry.name in names]
    telling = [bit for bit in bits if bit != 4]
    np.testing.assert_array_equal(is_mapped, (subsets_of(gapped) & sum(telling)) > 0)
    whole = aligned(gapped.grid, gapped.grid.window.padded(receptive_radius(specification) or 0), model_step(specification))
    with SceneReader(gapped) as reader:
        values = {name: torch.from_numpy(each)[None] for name, each in reader.read(whole).items() if name in names}
    with torch.inference_mode():
        expected = torch.softmax(model(values)[0], dim=0).numpy()
    rows, columns = gapped.grid.window.slices_within(whole)
    np.testing.assert_allclose(probabilities[:, is_mapped], expected[:, rows, columns][:, is_mapped], atol=1e-3)


def test_the_map_of_an_extent_with_gaps_is_the_extent_of_the_map(gapped: Scene) -> None:
    specification = specification_for(gapped, CLASSES, "unet_late")
    temperatures = {"spot6_7": 2.0, "generic": 0.7}
    card = card_of(specification, allows_missing=True, temperatures=temperatures)
    engine = engine_of(gapped, random_model(specification), card, (24, 12))
    probabilities, is_mapped = mapped(engine, gapped.grid.window)
    for extent in (Window(25, 5, 20, 20), Window(60, 46, 1, 1), Window(0, 15, 61, 10)):
        rows, columns = extent.slices_within(gapped.grid.window)
        cut, is_cut = mapped(engine, extent)
        np.testing.assert_array_equal(cut, probabilities[:, rows, columns])
        np.testing.assert_array_equal(is_cut, is_mapped[rows, columns])


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_a_model_with_a_global_view_maps_with_the_windows_it_was_trained_on(mixed: Scene, overlap: float) -> None:
    specification = specification_for(mixed, CLASSES, "unet_asymmetric_attention", window=24, depth=1)
    assert receptive_radius(specification) is None
    model, card = random_model(specification), card_of(specification)
    engine = MappingEngine(model, card, mixed, CPU, overlap)
    assert engine.tiling == fixed_tiling(model_step(specification), 24, overlap)
    assert engine.tiling.tile == 24
    probabilities, is_mapped = mapped(engine, mixed.grid.window)
    np.testing.assert_array_equal(is_mapped, direct(mixed, mixed.grid.window)[1])
    np.testing.assert_allclose(probabilities.sum(axis=0), is_mapped, atol=1e-5)
    for extent in (Window(0, 0, 1, 1), Window(13, 7, 40, 30), Window(94, 70, 1, 1), Window(50, 0, 3, 71)):
        rows, columns = extent.slices_within(mixed.grid.window)
        cut, is_cut = mapped(engine, extent)
        np.testing.assert_array_equal(cut, probabilities[:, rows, columns])
        np.testing.assert_array_equal(is_cut, is_mapped[rows, columns])


def test_a_transformer_maps(plain: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VITS, "tiny", (16, 4, 2))
    specification = specification_for(plain, CLASSES, "vit_joint_tokens", window=32, finest=4, resolution_m=10.25)
    engine = MappingEngine(random_model(specification), card_of(specification), plain, CPU, 0.5)
    assert engine.tiling == Tiling(32, 16)
    probabilities, is_mapped = mapped(engine, plain.grid.window)
    assert is_mapped.all()
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-5)
    assert np.ptp(probabilities, axis=(1, 2)).min() > 0.01
