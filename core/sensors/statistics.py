"""Typical reflectance of land, by wavelength: what optical bands are normalised with.

The two curves give a mean and a standard deviation at the centres of Sentinel-2's bands, rounded from the order of
magnitude of global Sentinel-2 samples (vegetation, soil, water, snow and some cloud mixed). That they are exact matters
little; that they are fixed matters much, because a model then sees the same numbers for the same ground in every scene.
Every other optical sensor takes its statistics from the surface curve at its own wavelengths.
"""

from __future__ import annotations

import numpy as np

_CENTERS_NM = (442.7, 492.7, 559.8, 664.6, 704.1, 740.5, 782.8, 832.8, 864.7, 945.1, 1613.7, 2202.4)
"""Sentinel-2 without its cirrus band, which sees no ground."""

_SURFACE_MEANS = (0.085, 0.095, 0.115, 0.125, 0.155, 0.21, 0.235, 0.25, 0.26, 0.26, 0.225, 0.16)
_SURFACE_DEVIATIONS = (0.10, 0.10, 0.10, 0.11, 0.11, 0.11, 0.115, 0.12, 0.12, 0.12, 0.12, 0.11)

_TOP_OF_ATMOSPHERE_MEANS = (0.16, 0.14, 0.13, 0.135, 0.155, 0.21, 0.24, 0.23, 0.26, 0.085, 0.22, 0.155)
_TOP_OF_ATMOSPHERE_DEVIATIONS = (0.08, 0.085, 0.09, 0.11, 0.11, 0.115, 0.125, 0.125, 0.135, 0.06, 0.13, 0.115)


def surface_reflectance_statistics(center_nm: float) -> tuple[float, float]:
    """Mean and standard deviation of surface reflectance at a wavelength.

    Linear between the bands of Sentinel-2 L2A, constant beyond the first and the last.
    """
    return _interpolated(center_nm, _SURFACE_MEANS, _SURFACE_DEVIATIONS)


def top_of_atmosphere_statistics(center_nm: float) -> tuple[float, float]:
    """Mean and standard deviation of top-of-atmosphere reflectance at a wavelength outside absorption bands.

    Linear between the bands of Sentinel-2 L1C, constant beyond the first and the last.
    """
    return _interpolated(center_nm, _TOP_OF_ATMOSPHERE_MEANS, _TOP_OF_ATMOSPHERE_DEVIATIONS)


def _interpolated(center_nm: float, means: tuple[float, ...], deviations: tuple[float, ...]) -> tuple[float, float]:
    mean = float(np.interp(center_nm, _CENTERS_NM, means))
    deviation = float(np.interp(center_nm, _CENTERS_NM, deviations))
    return round(mean, 4), round(deviation, 4)
