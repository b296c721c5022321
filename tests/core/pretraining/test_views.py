"""Views: where each pixel goes, and that features of two views meet on the same ground."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from core.models.features import FeatureMap
from core.pretraining.objectives.objective import Windows
from core.pretraining.views import ViewSettings, aligned_features, composed, draw_maps, inverse, vary, view_of, warp

SIDE = 32
EXACT = ViewSettings(turns=True, shift=0.25)
RESIZED = ViewSettings(least_side=0.4, most_side=0.9)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ground(count: int, side: int = SIDE) -> Tensor:
    """(B, 2, side, side) each pixel's own place in its window, east and south, in pixels of a window of ``SIDE``."""
    centres = (torch.arange(side) + 0.5) * SIDE / side
    east, south = centres.expand(side, side), centres[:, None].expand(side, side)
    return torch.stack([east, south]).expand(count, 2, side, side).clone()


def windows_of(**values: Tensor) -> Windows:
    count = len(next(iter(values.values())))
    return Windows(values, torch.zeros(count, 3, dtype=torch.float64))


def as_features(values: Tensor, stride: int = 1) -> FeatureMap:
    """What an encoder says that only looks at the ground: the mean over each cell."""
    known = torch.isfinite(values[:, :1]).float()
    share = functional.avg_pool2d(known, stride)
    means = functional.avg_pool2d(torch.nan_to_num(values), stride) / share.clamp_min(1e-6)
    # Cells on the border of what a view shows have their mean elsewhere.
    whole = (share == 1).float()
    return FeatureMap(means * whole, whole, stride)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_aligned_places_of_turned_and_shifted_views_show_the_same_ground(stride: int, seed: int) -> None:
    """Exactly: whole pixels are moved to whole pixels."""
    source, windows = generator(seed), windows_of(optical=ground(6))
    one, two = (draw_maps(6, EXACT, source) for _ in range(2))
    first, second = (as_features(view_of(windows, maps).values["optical"], stride) for maps in (one, two))
    moved = aligned_features(second, two, one)
    both = (first.known * moved.known).expand_as(first.values) > 0
    assert float(both.float().mean()) > 0.4
    torch.testing.assert_close(moved.values[both], first.values[both], rtol=0, atol=1e-4)
    assert not moved.values[(moved.known == 0).expand_as(moved.values)].any()


@pytest.mark.parametrize("seed", range(4))
def test_aligned_places_of_crops_show_the_same_ground(seed: int) -> None:
    """But for the margins, where a pixel is interpolated from those on one side of it."""
    source, windows = generator(seed), windows_of(optical=ground(6))
    one, two = (draw_maps(6, RESIZED, source) for _ in range(2))
    first, second = (as_features(view_of(windows, maps).values["optical"]) for maps in (one, two))
    moved = aligned_features(second, two, one)
    known = (first.known * moved.known)[:, 0] > 0
    off = (moved.values - first.values).abs().amax(dim=1)[known]
    assert int(known.sum()) > 200
    assert float(off.max()) < 1.0
    assert float((off < 1e-3).float().mean()) > 0.6


def test_what_only_one_view_shows_is_unknown() -> None:
    windows = windows_of(optical=ground(1))
    # The first shows the west half of the window, the second the east half.
    west, east = (torch.tensor([[[0.5, 0.0, x], [0.0, 1.0, 0.0]]], dtype=torch.float64) for x in (-0.5, 0.5))
    second = as_features(view_of(windows, east).values["optical"])
    assert not aligned_features(second, east, west).known.any()
    whole = torch.eye(2, 3, dtype=torch.float64)[None]
    back = aligned_features(second, east, whole)
    assert not back.known[..., : SIDE // 2].any()
    assert back.known[..., SIDE // 2 :].all()
    inside = back.values[..., SIDE // 2 + 1 : -1]
    torch.testing.assert_close(inside, ground(1)[..., SIDE // 2 + 1 : -1], rtol=0, atol=1e-4)


def test_the_axes_of_a_map_are_east_and_south() -> None:
    values = ground(1)
    moved = torch.tensor([[[1.0, 0.0, 2 * 3 / SIDE], [0.0, 1.0, -2 * 5 / SIDE]]], dtype=torch.float64)
    view = view_of(windows_of(optical=values), moved).values["optical"]
    assert torch.equal(view[..., 5:, :-3], values[..., :-5, 3:])
    assert torch.isnan(view[..., :5, :]).all()
    assert torch.isnan(view[..., -3:]).all()


def test_turns_are_the_eight_symmetries_and_exact() -> None:
    values = torch.rand(64, 1, 8, 8, generator=generator())
    view = view_of(windows_of(optical=values), draw_maps(64, ViewSettings(), generator())).values["optical"]
    seen = set()
    for before, after in zip(values, view, strict=True):
        options = [torch.rot90(each, quarter, (1, 2)) for each in (before, before.flip(2)) for quarter in range(4)]
        matches = [number for number, option in enumerate(options) if torch.equal(option, after)]
        assert len(matches) == 1
        seen.add(matches[0])
    assert seen == set(range(8))


def test_shifts_are_whole_sixteenths_within_their_bounds() -> None:
    maps = draw_maps(500, ViewSettings(turns=False, shift=0.2), generator())
    sixteenths = maps[:, :, 2] * 8
    assert torch.equal(sixteenths, sixteenths.round())
    assert sorted(set(sixteenths.flatten().tolist())) == [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]
    assert torch.equal(maps[:, :, :2], torch.eye(2, dtype=torch.float64).expand(500, 2, 2))


def test_crops_lie_within_their_window_and_are_of_the_sides_asked_for() -> None:
    maps = draw_maps(500, ViewSettings(least_side=0.3, most_side=0.7), generator())
    sides = maps[:, :, :2].abs().sum(dim=2)
    torch.testing.assert_close(sides[:, 0], sides[:, 1])
    assert float(sides.min()) > 0.3
    assert float(sides.max()) < 0.7
    assert float((maps[:, :, 2].abs() + sides).max()) <= 1 + 1e-12
    view = view_of(windows_of(optical=ground(500)), maps).values["optical"]
    assert torch.isfinite(view).all()


def test_all_modalities_show_the_same_ground_whatever_their_pixels() -> None:
    windows = windows_of(optical=ground(8), dsm=ground(8, 2 * SIDE), sar=ground(8, SIDE // 2))
    view = view_of(windows, draw_maps(8, ViewSettings(shift=0.25), generator())).values
    coarse = as_features(view["optical"], 2)
    for other in (as_features(view["dsm"], 4), as_features(view["sar"])):
        assert torch.equal(other.known, coarse.known)
        torch.testing.assert_close(other.values, coarse.values, rtol=0, atol=1e-4)


def test_smaller_views_show_the_same_ground_on_fewer_pixels() -> None:
    windows = windows_of(optical=ground(8), dsm=ground(8, 2 * SIDE))
    maps = draw_maps(8, RESIZED, generator())
    whole, small = view_of(windows, maps), view_of(windows, maps, shrink=2)
    assert small.values["optical"].shape[-2:] == (SIDE // 2, SIDE // 2)
    assert small.values["dsm"].shape[-2:] == (SIDE, SIDE)
    expected = functional.avg_pool2d(whole.values["optical"], 2)
    torch.testing.assert_close(small.values["optical"][..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], rtol=0, atol=1e-3)


def test_missing_pixels_stay_missing_and_harm_no_other() -> None:
    values = torch.rand(4, 1, 16, 16, generator=generator())
    values[:, :, 3, 5] = torch.nan
    maps = draw_maps(4, ViewSettings(), generator())
    view = view_of(windows_of(optical=values), maps).values["optical"]
    assert torch.isnan(view).flatten(1).sum(dim=1).tolist() == [1] * 4
    infinite = values.clone()
    infinite[:, :, 3, 5] = torch.inf
    crops = draw_maps(4, RESIZED, generator(1))
    seen = [warp(each, crops) for each in (values, infinite)]
    assert torch.equal(torch.nan_to_num(seen[0], nan=-1), torch.nan_to_num(seen[1], nan=-1))
    assert float(torch.nan_to_num(seen[0]).max()) <= 1


def test_maps_are_composed_and_inverted() -> None:
    source = generator()
    one, two = (draw_maps(5, ViewSettings(0.4, 0.9, shift=0.2), source) for _ in range(2))
    points = torch.rand(5, 2, 7, dtype=torch.float64, generator=source)

    def applied(maps: Tensor, at: Tensor) -> Tensor:
        return maps[:, :, :2] @ at + maps[:, :, 2:]

    torch.testing.assert_close(applied(composed(one, two), points), applied(one, applied(two, points)))
    torch.testing.assert_close(applied(inverse(one), applied(one, points)), points)


def test_radiometry_varies_by_kind_and_leaves_gaps() -> None:
    values = torch.rand(3, 2, 8, 8, generator=generator()) + 1
    values[0, :, 2:4] = torch.nan
    settings, deviation = ViewSettings(gain=0.2, offset=0.1, noise=0.5), torch.tensor([1.0, 3.0])
    optical = vary(values, "optical", deviation, settings, generator(1))
    assert torch.equal(optical.isnan(), values.isnan())
    # One line through all pixels of a band of a window.
    for before, after in zip(values.flatten(0, 1), optical.flatten(0, 1), strict=True):
        x, y = (each[torch.isfinite(before)] for each in (before, after))
        gain = (y[0] - y[1]) / (x[0] - x[1])
        assert 0.8 <= float(gain) <= 1.2
        torch.testing.assert_close(y, gain * x + (y[0] - gain * x[0]), rtol=0, atol=1e-3)
    sar = vary(values, "sar", deviation, settings, generator(1))
    assert torch.equal(sar.isnan(), values.isnan())
    moved = (sar - values)[1:].std(dim=(0, 2, 3))
    torch.testing.assert_close(moved, 0.5 * deviation, rtol=0.2, atol=0)
    still = ViewSettings()
    assert all(torch.equal(vary(values[1:], kind, deviation, still, generator()), values[1:]) for kind in ("optical", "sar"))


def test_the_same_generator_draws_the_same_views() -> None:
    settings = ViewSettings(0.5, 1.0, shift=0.2)
    assert torch.equal(draw_maps(9, settings, generator(3)), draw_maps(9, settings, generator(3)))
    assert not torch.equal(draw_maps(9, settings, generator(3)), draw_maps(9, settings, generator(4)))
