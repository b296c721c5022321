"""How this process shares the processor and the memory with others."""

from __future__ import annotations

import ctypes
import os
import sys

import psutil

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MOST_ARENAS = -1, -3, -8
"""The names of glibc's ``mallopt`` for what it gives back to the system, and for how many heaps threads share."""

_OWN_PIECES = (1 << 30, 1 << 25)
"""Bytes below which memory is the process's own; older versions of glibc take no more than the second."""

_ROOM = 1.1
"""So much more than is in use a process may hold before it gives free memory back again."""

ONE_HEAP = ("MALLOC_ARENA_MAX", 1)
"""In the environment of a process whose threads begin before it can be set up."""


def begin() -> None:
    """Sets up the process; to be called before torch or scikit-learn is imported."""
    yield_while_waiting()
    keep_memory()


def yield_while_waiting() -> None:
    """Makes idle threads sleep instead of spinning.

    OpenMP's threads spin while they wait for each other. Beside a busy QGIS on two cores a spinning thread keeps the
    core from the one that it waits for: an epoch of three seconds took over a minute. Sleeping costs some percent on an
    idle machine. A user's own setting is left alone.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def keep_memory(is_dask_worker: bool = False) -> None:
    """Keeps memory that was freed, for what is made next.

    glibc gives every large array back to the system as soon as it is freed. A network makes some hundred of them for each
    tile, and to get their pages anew took more time than to compute what is written to them: with the default network a
    tile took twice as long, see ``scripts/benchmarks/mapping.py``. All threads share one heap: those of their own hold no
    more than 64 MiB, and what is larger goes back at once. Other systems have no such settings. A user's own are left alone.

    Args:
        is_dask_worker: then the environment's threshold of trimming is Dask's, and its number of heaps ours.
    """
    ignored = {"MALLOC_TRIM_THRESHOLD_", ONE_HEAP[0]} if is_dask_worker else set()
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ.keys() - ignored):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    if any(mallopt(_MMAP_THRESHOLD, size) for size in _OWN_PIECES):
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_MOST_ARENAS, 1)


def give_back_memory() -> None:
    """Gives memory that is free back to the system, where the C library can."""
    if sys.platform == "linux":
        # Other C libraries than glibc have no such function.
        getattr(ctypes.CDLL(None), "malloc_trim", lambda padding: 0)(0)


class MemoryPromise:
    """Keeps what a process takes close to what was said before.

    Memory that was freed is kept for what is made next, see ``keep_memory``, and lies in pieces that fit less and less: a
    map of some minutes held half as much again as was in use at its peak. What is free is given back where more is held
    than was said, and no sooner, since to take it anew takes time. Where that is not possible nothing is done.

    Args:
        most_bytes: above what the process holds now.
    """

    def __init__(self, most_bytes: float) -> None:
        self._process = psutil.Process()
        self._limit = self._process.memory_info().rss + most_bytes

    def keep(self) -> None:
        """Gives back what is free, if the process holds too much."""
        if self._process.memory_info().rss <= self._limit:
            return
        give_back_memory()
        # What is in use cannot be given back: asking again after every strip would only take time.
        self._limit = max(self._limit, _ROOM * self._process.memory_info().rss)
