"""Sentinel-1 and elevation models.

The orbit direction of a SAR image is a property of the acquisition, not of a band: it is read from the file's tags or
name (``core.sensors.backscatter.orbit_direction``) and travels beside the bands.
"""

from __future__ import annotations

from core.sensors.types import Band, Sensor

BACKSCATTER_RANGE = (-60.0, 30.0)
"""Decibels: below is the noise of a masked border, above are only corner reflectors."""

ELEVATION_RANGE = (-500.0, 9000.0)
"""Metres, from the shore of the Dead Sea to above the highest summit; the usual -9999 and -32768 lie outside."""

HEIGHT_RANGE = (-50.0, 1000.0)
"""Metres above ground: small negative values are noise of the two surfaces, towers reach 830 m."""


def _polarization_band(polarization: str, mean: float, deviation: float) -> Band:
    quantities = ("sigma0", "gamma0", "beta0", "intensity", "amplitude", "s1")
    aliases = [f"{quantity}_{polarization}" for quantity in quantities]
    aliases += [f"{polarization}_db", f"sigma0_{polarization}_db", f"gamma0_{polarization}_db"]
    return Band(
        name=polarization,
        kind="sar",
        gsd_m=10,
        polarization=polarization,
        valid_range=BACKSCATTER_RANGE,
        mean=mean,
        standard_deviation=deviation,
        aliases=tuple(aliases),
    )


def _surface_band(name: str, valid_range: tuple[float, float], *aliases: str) -> Band:
    # No statistics: the height of a whole scene says little about its cover, so the scene's own are taken.
    return Band(name=name, kind="elevation", valid_range=valid_range, aliases=aliases)


_SURFACE_NAMES = ("dem", "dsm", "dtm", "dgm", "dom", "altitude", "z", "heights")

SYNTHETIC_APERTURE_RADAR = (
    Sensor(
        "sentinel1",
        "Sentinel-1 C-band SAR",
        "sar",
        (_polarization_band("VV", -12.0, 5.0), _polarization_band("VH", -19.0, 5.0)),
        "dB",
        0.0,
    ),
)

ELEVATION = (
    Sensor(
        "dem",
        "Elevation of the terrain",
        "elevation",
        (_surface_band("elevation", ELEVATION_RANGE, *_SURFACE_NAMES),),
        "m",
        -32768.0,
    ),
    Sensor(
        "dsm",
        "Elevation of the surface",
        "elevation",
        (_surface_band("elevation", ELEVATION_RANGE, *_SURFACE_NAMES),),
        "m",
        -32768.0,
    ),
    Sensor(
        "height_above_ground",
        "Height above ground (nDSM, canopy height)",
        "elevation",
        (_surface_band("height", HEIGHT_RANGE, "hag", "chm", "ndsm", "ndom", "canopy height", "height above ground"),),
        "m",
        -32768.0,
    ),
)
