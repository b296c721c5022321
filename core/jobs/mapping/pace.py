"""How fast a map grows, and how long it will take."""

from __future__ import annotations

import time

import psutil
import torch

from core.scenes.grid import Window


class Pace:
    """Of a map that grows window by window.

    Args:
        pixels: of the whole map.
        device: that the model computes on.
    """

    def __init__(self, pixels: int, device: torch.device) -> None:
        self._pixels = pixels
        self._device = device
        self._done = 0
        self._fresh = 0
        self._started = time.perf_counter()
        self._process = psutil.Process()

    def skip(self, pixels: int) -> None:
        """Counts what was there before; it says nothing of the speed."""
        self._done += pixels

    def done(self, window: Window) -> float:
        """Counts a window; returns the part of the map that is done."""
        self._done += window.width * window.height
        self._fresh += window.width * window.height
        return self._done / self._pixels

    def text(self, what: str) -> str:
        """Megapixels a second, time left, device and memory of the process."""
        rate = self._fresh / max(time.perf_counter() - self._started, 1e-6)
        left = duration((self._pixels - self._done) / max(rate, 1e-6))
        memory = self._process.memory_info().rss
        if self._device.type == "cuda":
            memory = torch.cuda.memory_allocated(self._device)
        return f"{what}: {rate / 1e6:.3g} Mpx/s, {left} left, {self._device.type}, {memory / 2**20:.0f} MiB"


def duration(seconds: float) -> str:
    """As people say it: the two largest units."""
    whole = round(seconds)
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, seconds = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    first = next((number for number, (count, _) in enumerate(parts) if count), len(parts) - 1)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2])
