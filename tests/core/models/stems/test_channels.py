"""Channels beside plain loops over pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.models.blocks import NORMALISED_LIMIT, box_sums
from core.models.specification import ModalitySpecification
from core.models.stems.channels import RELIEF, BandChannels, view_names
from core.models.stems.neighbourhoods import STATISTICS_WINDOWS
from tests.core.models.specifications import modality

ROUNDING = 1e-6
"""Added to variances below the root."""


def around(window: int, row: int, column: int) -> tuple[slice, slice]:
    """The square around a pixel, cut off at the upper and left borders; numpy cuts it at the others."""
    half = window // 2
    return slice(max(0, row - half), row + half + 1), slice(max(0, column - half), column + half + 1)


def plain_statistics(channels: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(C, H, W), of which ``known`` (H, W) counts -> values, then for each window all means and all deviations."""
    _, height, width = channels.shape
    parts = [np.where(known, channels, 0)]
    for window in STATISTICS_WINDOWS:
        means, deviations = np.zeros(channels.shape), np.full(channels.shape, np.sqrt(ROUNDING))
        for row, column in np.ndindex(height, width):
            box = around(window, row, column)
            inside = channels[:, *box][:, known[box]]
            if inside.size:
                means[:, row, column] = inside.mean(axis=1)
                deviations[:, row, column] = np.sqrt(inside.var(axis=1) + ROUNDING)
        parts += [means, deviations]
    return np.concatenate(parts)


def plain_normalisation(values: np.ndarray, entry: ModalitySpecification) -> tuple[np.ndarray, np.ndarray]:
    """Values cut to the limit, and which pixels have all bands."""
    scaled = [(band - b.mean) / b.standard_deviation for band, b in zip(values, entry.bands, strict=True)]
    return np.nan_to_num(np.clip(np.array(scaled), -NORMALISED_LIMIT, NORMALISED_LIMIT)), np.isfinite(values).all(axis=0)


def pooled(channels: np.ndarray, known: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """(C, H * f, W * f) -> means, then deviations, of what is known in cells of f x f; and where anything is."""
    count, rows, columns = channels.shape
    shape = rows // factor, columns // factor
    found, any_known = np.zeros((2 * count, *shape)), np.zeros(shape, bool)
    for row, column in np.ndindex(shape):
        cell = slice(row * factor, (row + 1) * factor), slice(column * factor, (column + 1) * factor)
        inside = channels[:, *cell][:, known[cell]]
        if inside.size:
            any_known[row, column] = True
            found[:count, row, column] = inside.mean(axis=1)
            found[count:, row, column] = np.sqrt(inside.var(axis=1) + ROUNDING)
    return found, any_known


def plain_relief(heights: np.ndarray, finer: int) -> np.ndarray:
    """(1, H, W) with NaN -> a channel for each neighbourhood, counted in cells of ``finer`` pixels."""
    parts = []
    _, height, width = heights.shape
    for window, metres in RELIEF:
        relief = np.zeros((height, width))
        for row in range(height):
            for column in range(width):
                if np.isfinite(heights[0, row, column]):
                    rows, columns = row // finer - window // 2, column // finer - window // 2
                    box = heights[
                        0,
                        max(0, rows * finer) : (rows + window) * finer,
                        max(0, columns * finer) : (columns + window) * finer,
                    ]
                    above = (heights[0, row, column] - np.nanmean(box)) / metres
                    relief[row, column] = np.sign(above) * np.log1p(abs(above))
        parts.append(relief)
    return np.array(parts)


def drawn(shape: tuple[int, ...], missing: float, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    values = generator.normal(0, 2, shape)
    values[generator.random(shape) < missing] = np.nan
    return values


def seen(entry: ModalitySpecification, values: np.ndarray) -> np.ndarray:
    layer = BandChannels(entry, on_reference_grid=True, has_statistics=True).double()
    channels, known = layer(torch.from_numpy(values)[None])
    assert channels.shape[1] == len(layer.views) * values.shape[0]
    assert not channels[0, : values.shape[0]][:, known[0, 0] == 0].any()
    return np.asarray(channels[0].numpy())


@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    windows=st.lists(st.sampled_from([1, 3, 5, 9, 17, 33]), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_box_sums_end_at_borders(height: int, width: int, windows: list[int], seed: int) -> None:
    values = drawn((height, width), 0.0, seed)
    for window, found in zip(windows, box_sums(torch.from_numpy(values)[None, None], windows), strict=True):
        expected = [[values[around(window, row, column)].sum() for column in range(width)] for row in range(height)]
        np.testing.assert_allclose(found[0, 0].numpy(), expected, atol=1e-11)


def test_box_sums_do_not_depend_on_where_a_tile_begins() -> None:
    values = torch.randn(1, 2, 60, 60, generator=torch.Generator().manual_seed(0)) * 1000
    whole = box_sums(values, (5, 9, 17))
    part = box_sums(values[:, :, 11:, 7:], (5, 9, 17))
    for one, other in zip(whole, part, strict=True):
        assert torch.equal(one[:, :, 19:, 15:], other[:, :, 8:, 8:])


@pytest.mark.parametrize("missing", [0.0, 0.3, 1.0])
def test_statistics_count_what_is_inside_and_known(missing: float) -> None:
    entry = modality("optical", 3)
    values = drawn((3, 14, 20), missing)
    values[:, 3:, 12:] = np.nan
    expected = plain_statistics(*plain_normalisation(values, entry))
    np.testing.assert_allclose(seen(entry, values), expected, atol=1e-6)


@pytest.mark.parametrize("finer", [2, 3, 16])
@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_finer_pixels_are_summed_up_by_mean_and_deviation(finer: int, missing: float) -> None:
    entry = modality("aerial", 2, finer=finer)
    values = drawn((2, 9 * finer, 12 * finer), missing)
    expected = plain_statistics(*pooled(*plain_normalisation(values, entry), finer))
    np.testing.assert_allclose(seen(entry, values), expected, atol=1e-6)


def along(values: np.ndarray, factor: int) -> np.ndarray:
    """Straight lines between the centres of the last axis's pixels, at the centres of ``factor`` times finer ones."""
    count = values.shape[-1]
    places = np.clip((np.arange(count * factor) + 0.5) / factor - 0.5, 0, count - 1)
    return np.apply_along_axis(lambda line: np.interp(places, np.arange(count), line), -1, values)


@pytest.mark.parametrize("coarser", [2, 3, 12])
@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_coarser_pixels_are_interpolated_between_the_known_centres(coarser: int, missing: float) -> None:
    entry = modality("thermal", 1, "other", coarser=coarser)
    normal, known = plain_normalisation(drawn((1, 4, 5), missing), entry)

    def finer(values: np.ndarray) -> np.ndarray:
        return along(along(values, coarser).swapaxes(-1, -2), coarser).swapaxes(-1, -2)

    share = finer(known.astype(float))
    mean = np.divide(finer(normal * known), share, out=np.zeros((1, *share.shape)), where=share > 0)
    expected = plain_statistics(mean, share > 0)
    np.testing.assert_allclose(seen(entry, drawn((1, 4, 5), missing)), expected, atol=1e-6)


@pytest.mark.parametrize(("finer", "missing"), [(1, 0.0), (1, 0.4), (1, 1.0), (4, 0.4)])
def test_relief_is_the_height_above_what_is_known_around(finer: int, missing: float) -> None:
    entry = modality("dsm", 1, "elevation", finer=finer)
    values = 300 + 30 * drawn((1, 12 * finer, 20 * finer), missing)
    relief, known = plain_relief(values, finer), np.isfinite(values[0])
    expected = plain_statistics(*(pooled(relief, known, finer) if finer > 1 else (relief, known)))
    np.testing.assert_allclose(seen(entry, values), expected, atol=1e-6)


def test_relief_forgets_the_height_above_the_sea_and_height_above_ground_does_not() -> None:
    values = 10 * drawn((1, 20, 20), 0.1)
    for sensor, is_forgotten in (("dem", True), ("dsm", True), ("height_above_ground", False)):
        entry = modality(sensor, 1, "elevation")
        assert np.allclose(seen(entry, values), seen(entry, values + 4), atol=1e-9) == is_forgotten


def test_relief_keeps_centimetres_on_high_mountains_in_single_precision() -> None:
    values = 0.05 * drawn((1, 24, 24), 0.1)
    layer = BandChannels(modality("dem", 1, "elevation"), on_reference_grid=True, has_statistics=True)
    low, high = (layer(torch.from_numpy(values + height).float()[None])[0][0, :2] for height in (0, 8000))
    # Five centimetres are a hundredth of the first neighbourhood's unit; a float of 8000 m has steps of half a millimetre.
    np.testing.assert_allclose(high.numpy(), low.numpy(), atol=3e-4)


def test_relief_does_not_look_at_pixels_that_lack_another_height() -> None:
    entry = modality("surface_and_terrain", 2, "elevation")
    values = 10 * drawn((2, 20, 20), 0.0)
    values[1, 5:9, 5:9] = np.nan
    changed = values.copy()
    changed[0, 5:9, 5:9] = 500
    np.testing.assert_array_equal(seen(entry, values), seen(entry, changed))


def test_views_are_named_in_the_order_of_the_channels() -> None:
    assert view_names(False, False, False) == ("value",)
    assert view_names(True, False, False) == ("relief9", "relief33")
    assert view_names(False, True, False) == ("value", "value/spread")
    statistics = ("", "/mean5", "/deviation5", "/mean9", "/deviation9", "/mean17", "/deviation17")
    assert view_names(False, False, True) == tuple(f"value{name}" for name in statistics)
    everything = view_names(True, True, True)
    assert len(everything) == len(set(everything)) == 2 * 2 * 7
    assert everything[4:8] == ("relief9/mean5", "relief33/mean5", "relief9/spread/mean5", "relief33/spread/mean5")


def test_bands_stand_in_alphabetical_order_whatever_the_order_given() -> None:
    entry = modality("many", 12)
    layer = BandChannels(entry, on_reference_grid=False, has_statistics=False)
    assert layer.bands == tuple(sorted(entry.band_names)) != entry.band_names
    values = torch.randn(1, 12, 3, 4)
    channels, _ = layer(values)
    turned, _ = layer(values.flip(1), entry.band_names[::-1])
    assert torch.equal(channels, turned)
    place = layer.bands.index("b10")
    band = entry.bands[10]
    torch.testing.assert_close(channels[0, place], (values[0, 10] - band.mean) / band.standard_deviation)
    part, _ = layer(values[:, [10, 2]], ["b10", "b2"])
    assert torch.equal(part, channels[:, [place, layer.bands.index("b2")]])


def test_values_of_an_own_grid_are_not_resampled() -> None:
    for options in ({"finer": 3}, {"coarser": 3}):
        layer = BandChannels(modality("own", 2, **options), on_reference_grid=False, has_statistics=False)
        channels, known = layer(torch.randn(1, 2, 6, 9))
        assert channels.shape == (1, 2, 6, 9)
        assert known.shape == (1, 1, 6, 9)
