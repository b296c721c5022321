"""A scene in two parts: one to learn on, one to see what was learned."""

from __future__ import annotations

import math
from dataclasses import replace

from core.scenes.grid import Window
from core.scenes.scene import Scene


def divided(scene: Scene, fraction: float, least: int) -> tuple[Scene, Scene] | None:
    """A scene cut across its longer side; None where it is too small for that.

    Args:
        scene: to divide.
        fraction: of its longer side that the second part has.
        least: pixels along that side which each part has at least.
    """
    grid = scene.grid
    side = max(grid.width, grid.height)
    kept = side - max(least, math.ceil(fraction * side))
    if kept < least:
        return None
    if grid.width >= grid.height:
        windows = Window(0, 0, kept, grid.height), Window(kept, 0, side - kept, grid.height)
    else:
        windows = Window(0, 0, grid.width, kept), Window(0, kept, grid.width, side - kept)
    first, second = (replace(scene, grid=grid.crop(window)) for window in windows)
    return first, second
