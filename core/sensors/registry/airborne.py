"""Aerial cameras and imagery that was stretched for display.

Aerial photographs are rarely calibrated: their values are the camera's, scaled to 0..1. Wavelengths are typical of large
digital mapping cameras and only say which colour a band is.
"""

from __future__ import annotations

from core.sensors.types import Band, Sensor

UNIT_RANGE = (0.0, 1.0)

_RED = (650.0, 80.0, ("red", "r"))
_GREEN = (555.0, 80.0, ("green", "g"))
_BLUE = (465.0, 80.0, ("blue", "b"))
_NIR = (830.0, 120.0, ("nir", "near infrared", "n", "ir", "cir"))


def _display_band(colour: tuple[float, float, tuple[str, ...]], mean: float, deviation: float, gsd: float | None) -> Band:
    center_nm, fwhm_nm, (name, *aliases) = colour
    return Band(
        name=name,
        kind="optical",
        center_nm=center_nm,
        fwhm_nm=fwhm_nm,
        gsd_m=gsd,
        valid_range=UNIT_RANGE,
        scale=1 / 255,
        mean=mean,
        standard_deviation=deviation,
        aliases=tuple(aliases),
    )


def _backscatter_display_band(polarization: str) -> Band:
    return Band(
        name=polarization,
        kind="sar",
        polarization=polarization,
        valid_range=UNIT_RANGE,
        scale=1 / 255,
        mean=0.45,
        standard_deviation=0.2,
    )


_CAMERA_RGB = (
    _display_band(_RED, 0.42, 0.17, None),
    _display_band(_GREEN, 0.44, 0.16, None),
    _display_band(_BLUE, 0.38, 0.14, None),
)

AIRBORNE = (
    Sensor("aerial_rgb", "Aerial camera, RGB", "optical", _CAMERA_RGB, "1"),
    Sensor(
        "aerial_rgbnir",
        "Aerial camera, RGB and NIR",
        "optical",
        (*_CAMERA_RGB, _display_band(_NIR, 0.45, 0.18, None)),
        "1",
    ),
    Sensor(
        "display_8bit",
        "Imagery stretched to 8 bits for display",
        "other",
        (
            _display_band(_RED, 0.45, 0.2, None),
            _display_band(_GREEN, 0.45, 0.2, None),
            _display_band(_BLUE, 0.45, 0.2, None),
            _display_band(_NIR, 0.45, 0.2, None),
            _backscatter_display_band("VV"),
            _backscatter_display_band("VH"),
        ),
        "1",
    ),
)
"""``display_8bit`` is a template: the bands of a file are named after it where they can be, and numbered otherwise."""
