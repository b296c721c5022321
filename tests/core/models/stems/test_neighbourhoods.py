"""Statistics of neighbourhoods are the same with and without gradients, and wherever a tile begins."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.models.stems.neighbourhoods import NeighbourhoodStatistics


def drawn(channels: int, height: int, width: int, missing: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Values, zero where they are not known, and where they are."""
    generator = torch.Generator().manual_seed(seed)
    known = (torch.rand(2, 1, height, width, generator=generator) >= missing).float()
    return torch.randn(2, channels, height, width, generator=generator) * known, known


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.sampled_from([1, 3, 8, 12]),
    missing=st.sampled_from([0.0, 0.2, 0.9, 1.0]),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_the_swift_way_says_what_the_other_does(height: int, width: int, channels: int, missing: float, seed: int) -> None:
    values, known = drawn(channels, height, width, missing, seed)
    statistics = NeighbourhoodStatistics()
    expected = statistics(values.requires_grad_(), known).detach()
    with torch.inference_mode():
        found = statistics(values.detach(), known)
    # A spread is the root of a difference: a last bit of the mean's square is some thousandths of it.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-3)
    means = [0, *range(1, 1 + 2 * len(statistics.windows), 2)]
    for view in means:
        part = slice(view * channels, (view + 1) * channels)
        torch.testing.assert_close(found[:, part], expected[:, part], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [2, 12])
def test_a_gap_changes_no_bit_beyond_its_neighbourhood(channels: int) -> None:
    values, known = drawn(channels, 70, 60, 0.0, 0)
    statistics, reach = NeighbourhoodStatistics(), 8
    with torch.inference_mode():
        whole = statistics(values, known)
        known[:, :, 30, 30] = 0
        holed = statistics(values * known, known)
    far = torch.ones(70, 60, dtype=torch.bool)
    far[30 - reach : 31 + reach, 30 - reach : 31 + reach] = False
    assert torch.equal(whole[:, :, far], holed[:, :, far])
    assert not torch.equal(whole, holed)


@pytest.mark.parametrize("channels", [2, 12])
@pytest.mark.parametrize("threads", [1, 2])
def test_where_a_tile_begins_changes_no_bit(channels: int, threads: int) -> None:
    values, known = drawn(channels, 90, 83, 0.0, 1)
    statistics, before = NeighbourhoodStatistics(), torch.get_num_threads()
    with torch.inference_mode():
        whole = statistics(values, known)
        torch.set_num_threads(threads)
        try:
            part = statistics(values[:, :, 11:, 7:], known[:, :, 11:, 7:])
        finally:
            torch.set_num_threads(before)
    assert torch.equal(whole[:, :, 19:, 15:], part[:, :, 8:, 8:])
