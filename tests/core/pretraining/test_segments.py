"""Means over segments against a plain loop, single places, and pairs of the same segments."""

from __future__ import annotations

import torch
from torch import Tensor

from core.pretraining.segments import SegmentFeatures, mean_of_segments, one_place_each, paired


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def case(batch: int = 3, side: int = 9) -> tuple[Tensor, Tensor, Tensor]:
    """Values, segments with gaps in their numbers and places of none, and weights of which a third is zero."""
    source = generator()
    values = torch.randn(batch, 4, side, side, generator=source)
    segments = torch.randint(0, 6, (batch, side, side), generator=source) * 7
    known = torch.rand(batch, 1, side, side, generator=source)
    return values, segments, known * (known > 0.33)


def looped(values: Tensor, segments: Tensor, known: Tensor) -> list[tuple[int, int, Tensor]]:
    rows = []
    for window in range(len(values)):
        for number in sorted(set(segments[window].flatten().tolist()) - {0}):
            weight = known[window, 0] * (segments[window] == number)
            if weight.sum() > 0:
                rows.append((window, number, (values[window] * weight).sum((1, 2)) / weight.sum()))
    return rows


def assert_same(found: SegmentFeatures, expected: list[tuple[int, int, Tensor]]) -> None:
    assert found.windows.tolist() == [window for window, _, _ in expected]
    assert found.ids.tolist() == [number for _, number, _ in expected]
    torch.testing.assert_close(found.features, torch.stack([row for _, _, row in expected]))


def test_means_are_those_of_a_loop() -> None:
    values, segments, known = case()
    assert_same(mean_of_segments(values, segments, known), looped(values, segments, known))


def test_segments_without_a_known_place_and_places_without_a_segment_do_not_count() -> None:
    values, segments, known = case()
    known[1][:, segments[1] == 14] = 0
    found = mean_of_segments(values, segments, known)
    assert_same(found, looped(values, segments, known))
    assert not ((found.windows == 1) & (found.ids == 14)).any()
    empty = mean_of_segments(values, torch.zeros_like(segments), known)
    assert empty.features.shape == (0, 4)
    assert mean_of_segments(values, segments, torch.zeros_like(known)).features.shape == (0, 4)


def test_gradients_reach_known_places_alone() -> None:
    values, segments, known = case()
    values.requires_grad_(True)
    mean_of_segments(values, segments, known).features.square().sum().backward()  # type: ignore[no-untyped-call]
    assert values.grad is not None
    counts = (segments[:, None] > 0) & (known > 0)
    assert torch.equal((values.grad != 0).any(dim=1, keepdim=True), counts)


def test_one_place_of_each_segment_is_kept_and_every_place_can_be() -> None:
    values, segments, known = case(2, 5)
    kept_at = torch.zeros_like(segments)
    for seed in range(300):
        kept = one_place_each(segments, known, generator(seed))
        assert torch.equal(kept[kept > 0], segments[kept > 0])
        full = mean_of_segments(values, segments, known)
        found = mean_of_segments(values, kept, known)
        assert torch.equal(found.ids, full.ids)
        assert torch.equal(found.windows, full.windows)
        assert int((kept > 0).sum()) == len(full)
        kept_at += kept > 0
    possible = (segments > 0) & (known[:, 0] > 0)
    assert torch.equal(kept_at > 0, possible)
    assert torch.equal(one_place_each(segments, known, generator(1)), one_place_each(segments, known, generator(1)))


def test_pairs_are_of_the_segments_that_both_views_show() -> None:
    def row(window: int, number: int) -> list[float]:
        return [float(window), float(number)]

    def view(keys: list[tuple[int, int]]) -> SegmentFeatures:
        windows, ids = torch.tensor([w for w, _ in keys]), torch.tensor([i for _, i in keys])
        return SegmentFeatures(torch.tensor([row(*key) for key in keys]), windows, ids)

    # The same number in another window is another segment, and the largest ids of the views differ.
    first, second = view([(0, 2), (0, 5), (1, 1), (2, 9)]), view([(0, 1), (0, 5), (1, 1), (1, 2), (2, 3), (2, 11)])
    one, other = paired(first, second, generator())
    assert torch.equal(one, other)
    assert one.tolist() == [row(0, 5), row(1, 1)]
    nothing = SegmentFeatures(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    assert [len(part) for part in paired(first, nothing, generator())] == [0, 0]


def test_at_most_as_many_as_asked_for_are_drawn() -> None:
    ids = torch.arange(1, 51)
    view = SegmentFeatures(ids[:, None].float(), torch.zeros(50, dtype=torch.int64), ids)
    draws = [paired(view, view, generator(seed), most=10) for seed in range(40)]
    for one, other in draws:
        assert torch.equal(one, other)
        assert len(set(one[:, 0].tolist())) == 10
    assert len({value for one, _ in draws for value in one[:, 0].tolist()}) == 50
