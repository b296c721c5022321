"""Optical satellites: Sentinel-2, Landsat, SPOT 6 and 7.

Centre wavelengths and widths (full width at half maximum) in nanometres are those that the operators publish: ESA's
spectral responses of Sentinel-2A (2B and 2C differ by at most 17 nm, in B12), NASA and USGS for TM and OLI/TIRS, Airbus
for SPOT. Statistics come from ``core.sensors.statistics``.
"""

from __future__ import annotations

from dataclasses import replace

from core.sensors.statistics import surface_reflectance_statistics, top_of_atmosphere_statistics
from core.sensors.types import Band, Sensor

REFLECTANCE_RANGE = (-0.1, 2.0)
"""Atmospheric correction leaves small negative values; glint, snow and cloud on sunward slopes pass 1."""

KELVIN_RANGE = (150.0, 400.0)


def reflective_band(
    name: str,
    center_nm: float,
    fwhm_nm: float,
    gsd_m: float | None,
    aliases: tuple[str, ...] = (),
    *,
    scale: float = 1e-4,
    offset: float = 0.0,
) -> Band:
    """A band of surface reflectance with the statistics of its wavelength."""
    mean, deviation = surface_reflectance_statistics(center_nm)
    return Band(
        name=name,
        kind="optical",
        center_nm=center_nm,
        fwhm_nm=fwhm_nm,
        gsd_m=gsd_m,
        valid_range=REFLECTANCE_RANGE,
        scale=scale,
        offset=offset,
        mean=mean,
        standard_deviation=deviation,
        aliases=aliases,
    )


_SENTINEL2_L2A_BANDS = (
    reflective_band("B1", 442.7, 20, 60, ("coastal", "coastal aerosol", "aerosol")),
    reflective_band("B2", 492.7, 65, 10, ("blue", "b")),
    reflective_band("B3", 559.8, 35, 10, ("green", "g")),
    reflective_band("B4", 664.6, 30, 10, ("red", "r")),
    reflective_band("B5", 704.1, 14, 20, ("red edge 1", "rededge", "rededge 705", "re1")),
    reflective_band("B6", 740.5, 14, 20, ("red edge 2", "rededge 740", "re2")),
    reflective_band("B7", 782.8, 19, 20, ("red edge 3", "rededge 783", "re3")),
    reflective_band("B8", 832.8, 105, 10, ("nir", "near infrared", "n", "nir broad")),
    reflective_band("B8A", 864.7, 21, 20, ("nir08", "nir narrow", "narrow nir", "nir2", "red edge 4", "re4")),
    reflective_band("B9", 945.1, 19, 60, ("water vapour", "water vapor", "nir09")),
    reflective_band("B11", 1613.7, 90, 20, ("swir 1", "swir16", "swir 1610")),
    reflective_band("B12", 2202.4, 174, 20, ("swir 2", "swir22", "swir 2190")),
)

_CIRRUS = Band(
    name="B10",
    kind="optical",
    center_nm=1373.5,
    fwhm_nm=29,
    gsd_m=60,
    valid_range=REFLECTANCE_RANGE,
    scale=1e-4,
    # Water vapour absorbs what comes from the ground: only high cloud is bright here.
    mean=0.002,
    standard_deviation=0.005,
    aliases=("cirrus",),
)


def _seen_from_above(band: Band) -> Band:
    mean, deviation = top_of_atmosphere_statistics(band.center_nm or 0.0)
    return replace(band, mean=mean, standard_deviation=deviation)


_SENTINEL2_L1C_BANDS = (
    *(_seen_from_above(band) for band in _SENTINEL2_L2A_BANDS[:10]),
    _CIRRUS,
    *(_seen_from_above(band) for band in _SENTINEL2_L2A_BANDS[10:]),
)

_COLLECTION_2_SCALE = 0.0000275
_COLLECTION_2_OFFSET = -0.2
"""Landsat Collection 2 Level 2 surface reflectance, USGS."""


def _landsat_band(name: str, center_nm: float, fwhm_nm: float, *aliases: str) -> Band:
    return reflective_band(name, center_nm, fwhm_nm, 30, aliases, scale=_COLLECTION_2_SCALE, offset=_COLLECTION_2_OFFSET)


def _landsat_thermal_band(name: str, center_nm: float, fwhm_nm: float, gsd_m: float, *aliases: str) -> Band:
    # Scale and offset: Landsat Collection 2 Level 2 surface temperature in kelvin, USGS.
    return Band(
        name=name,
        kind="thermal",
        center_nm=center_nm,
        fwhm_nm=fwhm_nm,
        gsd_m=gsd_m,
        valid_range=KELVIN_RANGE,
        scale=0.00341802,
        offset=149.0,
        mean=295.0,
        standard_deviation=15.0,
        aliases=aliases,
    )


OPTICAL_SATELLITES = (
    Sensor("sentinel2_l1c", "Sentinel-2 MSI, L1C", "optical", _SENTINEL2_L1C_BANDS, "reflectance", 0.0),
    Sensor("sentinel2_l2a", "Sentinel-2 MSI, L2A", "optical", _SENTINEL2_L2A_BANDS, "reflectance", 0.0),
    Sensor(
        "landsat_tm",
        "Landsat 5 TM and 7 ETM+",
        "optical",
        (
            _landsat_band("B1", 485, 70, "blue", "b"),
            _landsat_band("B2", 560, 80, "green", "g"),
            _landsat_band("B3", 660, 60, "red", "r"),
            _landsat_band("B4", 830, 140, "nir", "nir08", "near infrared", "n"),
            _landsat_band("B5", 1650, 200, "swir 1", "swir16"),
            _landsat_thermal_band("B6", 11450, 2100, 120, "thermal", "lwir", "tir"),
            _landsat_band("B7", 2215, 270, "swir 2", "swir22"),
        ),
        "reflectance",
        0.0,
    ),
    Sensor(
        "landsat_oli",
        "Landsat 8 and 9 OLI/TIRS",
        "optical",
        (
            _landsat_band("B1", 443.0, 16, "coastal", "coastal aerosol", "aerosol"),
            _landsat_band("B2", 482.0, 60, "blue", "b"),
            _landsat_band("B3", 561.4, 57, "green", "g"),
            _landsat_band("B4", 654.6, 37, "red", "r"),
            _landsat_band("B5", 864.7, 28, "nir", "nir08", "near infrared", "n"),
            _landsat_band("B6", 1608.9, 85, "swir 1", "swir16"),
            _landsat_band("B7", 2200.7, 187, "swir 2", "swir22"),
            replace(_landsat_band("B9", 1373.4, 20, "cirrus"), mean=0.002, standard_deviation=0.005),
            _landsat_thermal_band("B10", 10895, 590, 100, "lwir11", "thermal", "thermal 1", "tirs 1", "tir 1"),
            _landsat_thermal_band("B11", 12005, 1010, 100, "lwir12", "thermal 2", "tirs 2", "tir 2"),
        ),
        "reflectance",
        0.0,
    ),
    Sensor(
        "spot6_7",
        "SPOT 6 and 7",
        "optical",
        (
            reflective_band("B0", 485, 70, 6, ("blue", "b", "ms1", "xs0")),
            reflective_band("B1", 560, 60, 6, ("green", "g", "ms2", "xs1")),
            reflective_band("B2", 660, 70, 6, ("red", "r", "ms3", "xs2")),
            reflective_band("B3", 825, 130, 6, ("nir", "near infrared", "n", "ms4", "xs3")),
        ),
        "reflectance",
        0.0,
    ),
)
"""Thermal bands are in kelvin although the sensor's unit is reflectance."""
