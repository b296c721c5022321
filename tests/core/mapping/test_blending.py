"""Sizes of tiles and the weights with which they fade into each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.mapping.blending import LEAST_WEIGHT, Tiling, blending_weights, choose_tiling

STEPS = st.sampled_from([2, 4, 6, 12, 16, 32, 48, 96])
OVERLAPS = st.sampled_from([0.0, 0.01, 0.1, 0.25, 0.5, 0.6, 0.75]) | st.floats(0, 0.75)


@given(step=STEPS, radius=st.integers(0, 500), overlap=OVERLAPS, finest=st.integers(1, 16))
def test_tiles_are_whole_steps_and_bounded(step: int, radius: int, overlap: float, finest: int) -> None:
    tiling = choose_tiling(step, radius, overlap, finest)
    assert tiling.tile % step == tiling.stride % step == 0
    assert 0 < tiling.stride <= tiling.tile
    assert tiling.overlap == tiling.tile - tiling.stride
    assert tiling.tile <= max(2 * step, max(96, 512 if finest == 1 else 1024 / finest) + step / 2)
    assert (tiling.overlap == 0) == (round(overlap * tiling.tile) == 0 or radius == 0)
    assert tiling.overlap <= overlap * tiling.tile + step
    assert tiling.overlap < 2 * radius + step or radius == 0, "what tiles share beyond that is the same in both"
    if tiling.stride > step:
        assert tiling.overlap >= min(overlap * tiling.tile - 0.5, 2 * radius)


@given(step=STEPS, radius=st.integers(1, 60), overlap=st.floats(0.25, 0.75))
def test_overlap_covers_the_receptive_field_where_memory_allows(step: int, radius: int, overlap: float) -> None:
    tiling = choose_tiling(step, radius, overlap, 1)
    assert tiling.overlap >= 2 * radius or tiling.tile + step > 512


@pytest.mark.parametrize(
    ("radius", "finest", "tile", "overlap"),
    [
        (40, 1, 448, 80),
        (56, 1, 448, 112),
        (56, 4, 256, 64),
        (24, 1, 288, 48),
        (300, 16, 96, 24),
        (8, 1, 256, 16),
        (0, 1, 256, 0),
    ],
)
def test_usual_models_have_usual_tiles(radius: int, finest: int, tile: int, overlap: int) -> None:
    tiling = choose_tiling(4, radius, 0.25, finest)
    assert (tiling.tile, tiling.overlap) == (tile, overlap)


@st.composite
def tilings(draw: st.DrawFn) -> tuple[Tiling, int]:
    tile = draw(st.integers(1, 120))
    stride = draw(st.integers(1, tile))
    return Tiling(tile, stride), draw(st.integers(0, 80))


@given(tilings())
def test_weights_are_positive_symmetric_and_highest_in_the_middle(case: tuple[Tiling, int]) -> None:
    tiling, radius = case
    weights = blending_weights(tiling, radius)
    assert weights.shape == (tiling.tile,)
    assert weights.dtype == np.float32
    assert (weights > 0).all()
    assert weights.max() <= 1
    np.testing.assert_array_equal(weights, weights[::-1])
    assert (np.diff(weights[: (tiling.tile + 1) // 2]) >= 0).all()
    if 2 * tiling.overlap <= tiling.tile:
        inner = weights[tiling.overlap : tiling.tile - tiling.overlap]
        assert (inner == 1).all()


@given(tilings())
def test_a_pixel_near_an_edge_counts_only_where_no_other_tile_knows_better(case: tuple[Tiling, int]) -> None:
    tiling, radius = case
    weights = blending_weights(tiling, radius)
    if 2 * radius <= tiling.overlap:
        np.testing.assert_allclose(weights[:radius], LEAST_WEIGHT)
        if tiling.overlap > 2 * radius:
            assert (weights[radius : tiling.tile - radius] > 0.001).all()


@given(tilings())
def test_neighbours_add_up_to_one_along_the_lattice(case: tuple[Tiling, int]) -> None:
    tiling, radius = case
    weights = blending_weights(tiling, radius).astype(np.float64)
    total = np.zeros(tiling.tile + 8 * tiling.stride + tiling.tile)
    for start in range(0, len(total) - tiling.tile + 1, tiling.stride):
        total[start : start + tiling.tile] += weights
    inside = total[tiling.tile : len(total) - 2 * tiling.tile]
    assert (inside > 0).all()
    if 2 * tiling.overlap <= tiling.tile and 2 * radius != tiling.overlap:
        np.testing.assert_allclose(inside, 1, atol=3 * LEAST_WEIGHT)


def test_without_overlap_all_pixels_weigh_one() -> None:
    np.testing.assert_array_equal(blending_weights(Tiling(16, 16), 40), np.ones(16))
