"""Tiles that are looked at side by side, a thread each, and whose answers come in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch

WAITING_TILES = 2
"""Tiles to each thread that are computed or wait to be asked for: as many again as there are threads, so that none runs dry."""

Strip = TypeVar("Strip")
Place = TypeVar("Place")
Answer = TypeVar("Answer")


@dataclass(eq=False)
class _Begun(Generic[Strip, Place, Answer]):
    """A strip whose tiles are looked at.

    Attributes:
        strip: itself.
        places: of the tiles, or groups of them, that nobody has begun.
        waiting: what was begun and not given away, in order.
    """

    strip: Strip
    places: deque[Place]
    waiting: deque[tuple[Place, Future[Answer]]] = field(default_factory=deque)


class TileThreads:
    """Threads that look at a tile each; torch's own are shared out among them.

    A thread on a tile of its own waits for nobody: two of them are up to 1.7 times as fast as two on one tile, see
    ``scripts/benchmarks/mapping.py``.

    Args:
        count: of the threads; with one, tiles are looked at where they are asked for, by all of torch's threads.
        waits_elsewhere: one thread is worth its while, too: it waits for a graphics card while another puts answers together.
    """

    def __init__(self, count: int, waits_elsewhere: bool = False) -> None:
        self._count = count
        own = max(1, torch.get_num_threads() // count)
        has_pool = count > 1 or waits_elsewhere
        self._pool = ThreadPoolExecutor(count, "tile", torch.set_num_threads, (own,)) if has_pool else None

    def __enter__(self) -> TileThreads:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            # What a thread of the pool was given is what torch gives to any new thread from then on.
            torch.set_num_threads(torch.get_num_threads())

    def in_order(
        self, count: int, begin: Callable[[int], tuple[Strip, Sequence[Place]]], look: Callable[[Strip, Place], Answer]
    ) -> Iterator[tuple[Strip, tuple[Place, Answer] | None]]:
        """What is said of each tile, strip by strip, and of each strip's tiles in order.

        The tiles of a strip are begun while those of the one before it are not all done, so that no thread waits for the
        slowest; never those of the strip after it.

        Args:
            count: of strips.
            begin: makes a strip and says where its tiles are, in turn.
            look: says something of a tile, on a thread.

        Yields:
            A strip and one of its tiles with its answer; and after the last of them the strip and None.
        """
        begun: deque[_Begun[Strip, Place, Answer]] = deque()
        number = 0
        while begun or number < count:
            if begun and not begun[0].places and not begun[0].waiting:
                yield begun.popleft().strip, None
                continue
            while sum(len(each.waiting) for each in begun) < self._most_waiting:
                if begun and begun[-1].places:
                    self._submit(begun[-1], look)
                elif number < count and len(begun) < self._most_begun:
                    strip, places = begin(number)
                    begun.append(_Begun(strip, deque(places)))
                    number += 1
                else:
                    break
            if begun[0].waiting:
                place, answer = begun[0].waiting.popleft()
                yield begun[0].strip, (place, answer.result())

    @property
    def _most_begun(self) -> int:
        return 1 if self._pool is None else 2

    @property
    def _most_waiting(self) -> int:
        return 1 if self._pool is None else WAITING_TILES * self._count

    def _submit(self, begun: _Begun[Strip, Place, Answer], look: Callable[[Strip, Place], Answer]) -> None:
        place = begun.places.popleft()
        if self._pool is not None:
            begun.waiting.append((place, self._pool.submit(look, begun.strip, place)))
            return
        answer: Future[Answer] = Future()
        answer.set_result(look(begun.strip, place))
        begun.waiting.append((place, answer))
