"""Augmentation of windows: the eight symmetries of the square, and changes of brightness as light and sensors make them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from core.models.specification import ModalitySpecification

Scalar = TypeVar("Scalar", bound=np.generic)


def symmetry(values: NDArray[Scalar], number: int) -> NDArray[Scalar]:
    """One of the eight symmetries of the square (the dihedral group D4) over the last two axes.

    Args:
        values: (..., H, W).
        number: 0 to 7; 4 and above mirror, the rest of the division by 4 counts quarter turns.
    """
    mirrored = values[..., ::-1] if number >= 4 else values
    return np.ascontiguousarray(np.rot90(mirrored, number % 4, axes=(-2, -1)))


def vary_radiometry(
    values: dict[str, NDArray[np.float32]],
    modalities: Sequence[ModalitySpecification],
    strength: float,
    generator: np.random.Generator,
) -> dict[str, NDArray[np.float32]]:
    """Gain and offset drawn anew for each band, in units of the band's spread.

    Optical bands vary by gain around zero reflectance and by offset; SAR in dB and other values by offset alone;
    elevation stays as it is: relief would not see an offset.

    Args:
        values: by modality (C, H, W) in physical units.
        modalities: the model's inputs.
        strength: standard deviation of gain, and of the offset in units of the band's spread.
        generator: of the randomness.
    """
    varied = {}
    for modality in modalities:
        if modality.name not in values:
            continue
        count = len(modality.bands)
        deviation = np.array([band.standard_deviation for band in modality.bands])
        gain = 1 + strength * generator.standard_normal(count) * (modality.kind == "optical")
        offset = strength * deviation * generator.standard_normal(count) * (modality.kind != "elevation")
        parts = gain.astype(np.float32)[:, None, None], offset.astype(np.float32)[:, None, None]
        varied[modality.name] = values[modality.name] * parts[0] + parts[1]
    return varied
