"""What three instruments see of the landscape.

Reflectances and backscatter are typical values of the field (summer, mid-latitudes), set by hand, not measured.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve1d, uniform_filter

from core.scenes.simulation.landscape import COVERS, CROPS, TREES, WATER, Landscape, Patch
from core.scenes.simulation.noise import FloatArray, smooth_noise, unit

OPTICAL_BANDS = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B11", "B12")
SAR_BANDS = ("VV", "VH")
LOOKS = 5

_SUBPIXELS = 2
"""Points along each side of a 10 m pixel at which the landscape is looked at; a border pixel is their mixture."""
_MARGIN = 8
"""Pixels around a tile that the point spread and the slopes reach for; the 60 m bands reach 3."""

# Bottom-of-atmosphere reflectance x 10,000 in the order of OPTICAL_BANDS, and backscatter in dB (VV, VH).
_PROPERTIES: dict[str, tuple[tuple[float, ...], tuple[float, float]]] = {
    "clear water": ((330, 360, 390, 260, 240, 190, 180, 160, 140, 120, 70, 50), (-20.5, -27.5)),
    "turbid water": ((480, 580, 790, 640, 600, 380, 360, 320, 270, 230, 120, 90), (-19.0, -26.0)),
    "broadleaf": ((220, 270, 490, 300, 790, 2250, 2800, 2950, 3150, 3200, 1500, 680), (-9.5, -14.8)),
    "conifer": ((190, 215, 350, 245, 520, 1400, 1700, 1760, 1920, 1960, 880, 420), (-10.0, -15.2)),
    "fresh grass": ((310, 390, 730, 480, 1090, 2500, 3050, 3200, 3400, 3450, 2000, 1020), (-13.2, -20.4)),
    "dry grass": ((450, 570, 930, 960, 1500, 2280, 2600, 2750, 2950, 3000, 2850, 1750), (-14.0, -21.4)),
    "maize": ((240, 290, 530, 310, 810, 2350, 2950, 3100, 3300, 3350, 1550, 700), (-9.8, -15.2)),
    "ripe cereal": ((560, 720, 1070, 1270, 1700, 2220, 2450, 2600, 2800, 2850, 3050, 2150), (-11.6, -17.6)),
    "beet": ((310, 390, 780, 430, 1120, 2950, 3750, 3950, 4150, 4150, 1850, 880), (-10.2, -16.4)),
    "tilled soil": ((640, 790, 1090, 1370, 1620, 1830, 1980, 2120, 2280, 2330, 2750, 2350), (-11.0, -18.6)),
    "tile roof": ((620, 740, 960, 1330, 1570, 1740, 1880, 2030, 2130, 2150, 2450, 2120), (-3.0, -11.0)),
    "bright roof": ((1050, 1220, 1400, 1560, 1680, 1770, 1860, 1980, 2030, 2050, 2250, 2040), (-2.0, -10.5)),
    "asphalt": ((610, 720, 880, 1010, 1120, 1230, 1300, 1400, 1450, 1460, 1620, 1450), (-12.5, -20.0)),
    "sand": ((880, 1090, 1430, 1740, 1970, 2150, 2290, 2430, 2570, 2610, 3100, 2750), (-16.0, -24.5)),
    "gravel": ((680, 820, 1060, 1270, 1430, 1560, 1650, 1760, 1850, 1880, 2200, 1980), (-14.8, -23.2)),
    "reed": ((290, 350, 610, 480, 960, 2050, 2450, 2570, 2720, 2700, 1550, 800), (-8.2, -16.4)),
}
_SPECTRA = np.array([_PROPERTIES[name][0] for name in COVERS], dtype=np.float32)
_BACKSCATTER = np.power(10.0, np.array([_PROPERTIES[name][1] for name in COVERS]) / 10).astype(np.float32)

# Bands that vary together within a class: visible, red edge and near infrared, short-wave infrared.
_BAND_GROUP = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2])
_HAZE = np.array([110, 90, 60, 42, 34, 28, 24, 20, 16, 14, 5, 3], dtype=np.float32)
_FOOTPRINT = np.array([6, 1, 1, 1, 2, 2, 2, 1, 2, 6, 2, 2])
"""Width of a band's own pixel in pixels of 10 m."""
_POINT_SPREAD = np.array([0.14, 0.72, 0.14], dtype=np.float32)

_SUN_AZIMUTH, _SUN_ELEVATION = math.radians(157), math.radians(52)
_LOOK_AZIMUTH = math.radians(80)
"""A right-looking radar on an ascending orbit."""


def _sampled(landscape: Landscape, column: int, row: int, width: int, height: int, pixel_m: float) -> Patch:
    """The landscape at sub-pixel points of a window of pixels with its margin."""
    return landscape.patch(
        (column - _MARGIN) * pixel_m,
        (row - _MARGIN) * pixel_m,
        (width + 2 * _MARGIN) * _SUBPIXELS,
        (height + 2 * _MARGIN) * _SUBPIXELS,
        pixel_m / _SUBPIXELS,
    )


def _pixel_means(values: FloatArray) -> FloatArray:
    """Means over the sub-pixel points, (..., H, W)."""
    *lead, height, width = values.shape
    shape = (*lead, height // _SUBPIXELS, _SUBPIXELS, width // _SUBPIXELS, _SUBPIXELS)
    means: FloatArray = values.reshape(shape).mean(axis=(-3, -1))
    return means


def _pixel_codes(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The commonest class of a pixel's points; among equals the one of the upper left point."""
    height, width = codes.shape
    blocks = codes.reshape(height // _SUBPIXELS, _SUBPIXELS, width // _SUBPIXELS, _SUBPIXELS)
    points = blocks.transpose(0, 2, 1, 3).reshape(height // _SUBPIXELS, width // _SUBPIXELS, -1)
    votes = (points[..., :, None] == points[..., None, :]).sum(axis=-1)
    chosen = votes.argmax(axis=-1)
    return np.take_along_axis(points, chosen[..., None], axis=-1)[..., 0]


class Tile:
    """One tile of the scene as the three instruments and the truth have it.

    Args:
        landscape: of the scene.
        column, row, width, height: the tile in pixels of the scene.
        pixel_m: the scene's pixel size.
        generator: of this tile's pixel noise.
    """

    def __init__(
        self,
        landscape: Landscape,
        column: int,
        row: int,
        width: int,
        height: int,
        pixel_m: float,
        generator: np.random.Generator,
    ) -> None:
        self._landscape = landscape
        self._patch = _sampled(landscape, column, row, width, height, pixel_m)
        self._generator = generator
        point_m = pixel_m / _SUBPIXELS
        shape = self._patch.codes.shape
        self._xs = (column - _MARGIN) * pixel_m + (np.arange(shape[1]) + 0.5) * point_m
        self._ys = (row - _MARGIN) * pixel_m + (np.arange(shape[0]) + 0.5) * point_m
        to_south, to_east = np.gradient(self._patch.terrain, point_m)
        self._to_south, self._to_east = to_south, to_east
        self._inside = (slice(_MARGIN, _MARGIN + height), slice(_MARGIN, _MARGIN + width))

    def truth(self) -> NDArray[np.uint8]:
        """(H, W) class codes."""
        return _pixel_codes(self._patch.codes)[self._inside]

    def optical(self) -> NDArray[np.uint16]:
        """(12, H, W) surface reflectance x 10,000; never 0, which means no data."""
        patch, landscape = self._patch, self._landscape
        illumination = self._illumination()
        parcel_tone = np.where(patch.codes == CROPS, unit(patch.parcel, 2) - np.float32(0.5), 0).astype(np.float32)
        brightness = (
            np.float32(0.045) * smooth_noise(self._xs, self._ys, 130, landscape.key(40))
            + np.float32(0.050) * smooth_noise(self._xs, self._ys, 32, landscape.key(41))
            + np.float32(0.22) * parcel_tone
        )
        is_trees = patch.codes == TREES
        crowns = np.float32(0.14) * smooth_noise(self._xs, self._ys, 11, landscape.key(42))
        brightness += np.where(is_trees, crowns, 0)
        groups = [np.float32(0.055) * smooth_noise(self._xs, self._ys, 55, landscape.key(43 + group)) for group in range(3)]
        haze = np.clip(0.8 + 0.5 * smooth_noise(self._xs[::2], self._ys[::2], 2500, landscape.key(47)), 0, 3)
        result = np.empty((len(OPTICAL_BANDS), *self.truth().shape), dtype=np.uint16)
        for band in range(len(OPTICAL_BANDS)):
            main, second = _SPECTRA[:, band][patch.cover], _SPECTRA[:, band][patch.other_cover]
            points = main + patch.other_share * (second - main)
            points *= np.clip(1 + brightness + groups[_BAND_GROUP[band]], 0.3, 2.0) * illumination
            pixels = _spread(_pixel_means(points), int(_FOOTPRINT[band])) + _HAZE[band] * haze
            inner = pixels[self._inside]
            noise = self._generator.standard_normal(inner.shape, dtype=np.float32)
            inner = inner + noise * (np.float32(14) + np.float32(0.018) * inner)
            result[band] = np.clip(np.rint(inner), 1, 15000).astype(np.uint16)
        return result

    def sar(self) -> FloatArray:
        """(2, H, W) backscatter in dB, VV and VH, with the speckle of ``LOOKS`` looks."""
        patch, landscape = self._patch, self._landscape
        towards = -(np.float32(math.sin(_LOOK_AZIMUTH)) * self._to_east - np.float32(math.cos(_LOOK_AZIMUTH)) * self._to_south)
        decibels = np.clip(14 * towards, -4, 6) + np.float32(0.7) * smooth_noise(self._xs, self._ys, 70, landscape.key(50))
        decibels = decibels + np.where(patch.codes == CROPS, np.float32(2.2) * (unit(patch.parcel, 3) - 0.5), 0)
        wind = np.float32(1.6) * smooth_noise(self._xs, self._ys, 900, landscape.key(51))
        decibels = np.where(patch.codes == WATER, wind, decibels)
        gain = np.power(np.float32(10), (decibels / 10).astype(np.float32))
        result = np.empty((len(SAR_BANDS), *self.truth().shape), dtype=np.float32)
        for band in range(len(SAR_BANDS)):
            main, second = _BACKSCATTER[:, band][patch.cover], _BACKSCATTER[:, band][patch.other_cover]
            points = (main + patch.other_share * np.float32(0.6) * (second - main)) * gain
            inner = _spread(_pixel_means(points), 2)[self._inside]
            speckle = self._generator.standard_gamma(LOOKS, inner.shape, dtype=np.float32) / np.float32(LOOKS)
            values = 10 * np.log10(np.maximum(inner * speckle, np.float32(1e-4)))
            # To a 64th of a decibel: finer digits are noise that would not compress.
            result[band] = np.rint(values * 64) / 64
        return result

    def _illumination(self) -> FloatArray:
        """Light on the slope over light on the level (cosine correction, softened by the light of the sky)."""
        sun_east = math.cos(_SUN_ELEVATION) * math.sin(_SUN_AZIMUTH)
        sun_south = -math.cos(_SUN_ELEVATION) * math.cos(_SUN_AZIMUTH)
        up = math.sin(_SUN_ELEVATION)
        direct = (up - self._to_east * np.float32(sun_east) - self._to_south * np.float32(sun_south)) / np.sqrt(
            1 + np.square(self._to_east) + np.square(self._to_south)
        )
        return np.asarray(0.2 + 0.8 * np.clip(direct / up, 0, 2), dtype=np.float32)


def _spread(pixels: FloatArray, footprint: int) -> FloatArray:
    """The point spread of a band whose own pixel is ``footprint`` pixels wide."""
    if footprint > 1:
        pixels = uniform_filter(pixels, footprint, mode="nearest")
    blurred = convolve1d(convolve1d(pixels, _POINT_SPREAD, axis=0, mode="nearest"), _POINT_SPREAD, axis=1, mode="nearest")
    return np.asarray(blurred, dtype=np.float32)


def surface(landscape: Landscape, left: float, top: float, width: int, height: int, pixel_m: float) -> FloatArray:
    """(H, W) heights of the surface with all that stands on it, in metres above sea level."""
    patch = landscape.patch(left, top, width, height, pixel_m)
    return patch.terrain + patch.objects
