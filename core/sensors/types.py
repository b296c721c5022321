"""What a band and a sensor are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SensorKind = Literal["optical", "sar", "elevation", "thermal", "index", "other"]
Role = Literal["optical", "sar", "elevation", "other"]


@dataclass(frozen=True)
class Band:
    """One band of a sensor.

    Attributes:
        name: the band's name within its sensor, such as ``B8A`` or ``VV``.
        kind: what the band measures.
        center_nm, fwhm_nm: centre wavelength and full width at half maximum in nanometres; None where there is none.
        gsd_m: ground sample distance in metres; None where it depends on the product.
        polarization: ``VV``, ``VH``, ``HH`` or ``HV`` for SAR.
        valid_range: lowest and highest plausible value in physical units; values outside are missing data.
        scale, offset: ``physical = stored * scale + offset``.
        mean, standard_deviation: of the physical values over many scenes, for normalisation; None for "take the
            scene's own robust statistics".
        aliases: other names under which products carry the band.
    """

    name: str
    kind: SensorKind
    center_nm: float | None = None
    fwhm_nm: float | None = None
    gsd_m: float | None = None
    polarization: str | None = None
    valid_range: tuple[float, float] = (float("-inf"), float("inf"))
    scale: float = 1.0
    offset: float = 0.0
    mean: float | None = None
    standard_deviation: float | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sensor:
    """A set of bands that one instrument, or one product, delivers.

    Attributes:
        name: the registry's key, such as ``sentinel2_l2a``.
        title: the name people know.
        kind: what it measures.
        bands: in the registry's order; a raster's own order is never implied by it.
        unit: of the physical values: ``reflectance``, ``dB``, ``m``, ``1`` (display values scaled to 0..1).
        fill_value: the stored value that means "no data" in every band at once by the product's specification, even
            where the file does not declare it.
    """

    name: str
    title: str
    kind: SensorKind
    bands: tuple[Band, ...]
    unit: str = "1"
    fill_value: float | None = None

    @property
    def role(self) -> Role:
        """The input that rasters of this sensor belong to."""
        return self.kind if self.kind in ("optical", "sar", "elevation") else "other"

    def band(self, name: str) -> Band:
        """The band of that name.

        Raises:
            KeyError: no such band.
        """
        for band in self.bands:
            if band.name == name:
                return band
        raise KeyError(name)
