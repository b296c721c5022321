"""A picture of the imagery, to be shown beside a map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from core.scenes.grid import Grid
from core.scenes.reading import SceneReader
from core.scenes.scene import Acquisition, Scene

TRUE_COLOUR_NM = (660.0, 560.0, 490.0)
"""Wavelengths shown as red, green and blue."""

STRETCH_PERCENT = (2.0, 98.0)


def imagery_picture(scene: Scene, target: Grid) -> NDArray[np.uint8]:
    """The main acquisition in true colour if it is optical, else its first bands; missing pixels are white.

    Args:
        scene: whose main acquisition is shown.
        target: grid of the picture.

    Returns:
        (H, W, 3) uint8.
    """
    acquisition = next((a for a in scene.acquisitions if a.role == "optical"), scene.main)
    with SceneReader(scene) as reader:
        values = reader.read_onto(acquisition, target, _shown_bands(acquisition))
    if acquisition.sensor.kind == "optical":
        # One stretch for all three keeps the colours true to each other.
        low, high = _limits(values)
        stretched = (values - low) / max(high - low, 1e-6)
    else:
        limits = [_limits(band) for band in values]
        stretched = np.stack([(band - low) / max(high - low, 1e-6) for band, (low, high) in zip(values, limits, strict=True)])
    missing = np.isnan(stretched).any(axis=0)
    picture = np.clip(np.nan_to_num(stretched), 0, 1) * 255
    picture[:, missing] = 255
    return np.ascontiguousarray(picture.round().astype(np.uint8).transpose(1, 2, 0))


def _shown_bands(acquisition: Acquisition) -> list[str]:
    known = {name: acquisition.sensor.band(name).center_nm for name in acquisition.bands}
    wavelengths = {name: center for name, center in known.items() if center is not None}
    if len(wavelengths) >= 3:
        return [min(wavelengths, key=lambda name: abs(wavelengths[name] - wanted)) for wanted in TRUE_COLOUR_NM]
    names = list(acquisition.bands)
    return [names[min(index, len(names) - 1)] for index in range(3)]


def _limits(values: NDArray[np.float32]) -> tuple[float, float]:
    if not np.isfinite(values).any():
        return 0.0, 1.0
    low, high = np.nanpercentile(values, STRETCH_PERCENT)
    return float(low), float(high)
