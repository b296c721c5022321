"""Tiles side by side: in order, never further ahead than the next strip, and with their errors."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from core.mapping.tile_threads import TileThreads

STRIPS = (3, 0, 1, 5, 0, 0, 2)
"""Tiles of each strip."""


def places(count: int) -> list[slice]:
    return [slice(number, number + 1) for number in range(count)]


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_answers_come_in_order_and_strips_begin_no_earlier_than_they_may(threads: int) -> None:
    told: list[tuple[int, int | None]] = []
    ended: list[int] = []

    def begin(number: int) -> tuple[int, list[slice]]:
        # The strip before the last has to be done: its memory is that of this one.
        assert all(earlier in ended for earlier in range(number - 1))
        return number, places(STRIPS[number])

    def look(strip: int, place: slice) -> Tensor:
        # Those that are asked for first take longest.
        time.sleep(0.002 * (6 - place.start))
        return torch.tensor([strip, place.start])

    with TileThreads(threads) as pool:
        for strip, answer in pool.in_order(len(STRIPS), begin, look):
            if answer is None:
                ended.append(strip)
                told.append((strip, None))
            else:
                assert answer[1].tolist() == [strip, answer[0].start]
                told.append((strip, answer[0].start))
    expected: list[tuple[int, int | None]] = []
    for number, count in enumerate(STRIPS):
        expected += [(number, place) for place in range(count)] + [(number, None)]
    assert told == expected


def test_threads_share_out_those_of_torch() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(6)
    try:
        with TileThreads(3) as pool:
            found = pool.in_order(1, lambda number: (number, places(4)), lambda *_: torch.tensor(torch.get_num_threads()))
            assert [int(answer[1]) for _, answer in found if answer is not None] == [2, 2, 2, 2]
        assert torch.get_num_threads() == 6
        # Nor do threads that others begin afterwards keep what those of the pool had.
        with ThreadPoolExecutor(1) as other:
            assert other.submit(torch.get_num_threads).result() == 6
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_of_a_tile_is_told_and_no_more_are_begun(threads: int) -> None:
    looked_at: list[int] = []

    def look(_: int, place: slice) -> Tensor:
        looked_at.append(place.start)
        if place.start == 1:
            raise ValueError("tile 1")
        return torch.zeros(1)

    with pytest.raises(ValueError, match="tile 1"), TileThreads(threads) as pool:
        for _ in pool.in_order(1, lambda number: (number, places(50)), look):
            pass
    assert len(looked_at) < 50
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tile")]


@pytest.mark.parametrize("threads", [2, 4])
def test_tiles_are_looked_at_at_the_same_time(threads: int) -> None:
    together = threading.Barrier(threads, timeout=20)

    def look(*_: object) -> Tensor:
        together.wait()
        return torch.zeros(1)

    with TileThreads(threads) as pool:
        # Each strip alone has too few tiles for all threads.
        answers = list(pool.in_order(2, lambda number: (number, places(threads // 2)), look))
    assert len(answers) == threads + 2
