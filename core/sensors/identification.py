"""The one way in: from a file's description to its sensor, its bands and their calibration."""

from __future__ import annotations

from dataclasses import dataclass, replace

from core.sensors.backscatter import OrbitDirection, orbit_direction
from core.sensors.band_match import BandMatch
from core.sensors.calibration import Calibration, calibration_for
from core.sensors.description import RasterDescription
from core.sensors.matching import match_bands
from core.sensors.sentinel2_offset import OffsetChoice
from core.sensors.types import Band, Role


@dataclass(frozen=True)
class IdentifiedRaster:
    """A raster whose sensor, bands and units are known.

    Attributes:
        match: sensor and bands.
        calibration: stored to physical values, in match order.
        orbit_direction: of a SAR image, where the file tells it; the other half, beside the polarisation, of what
            a SAR band is.
        notes: what was found and done, a sentence each, for the report.
        warnings: what was assumed and should be checked, for the user.
    """

    match: BandMatch
    calibration: Calibration
    orbit_direction: OrbitDirection | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def bands(self) -> tuple[Band, ...]:
        """The bands in match order, with the scale and offset of this file.

        Where the values are not in physical units, the statistics and the valid range of the registry do not hold and
        are left out.
        """
        result = []
        calibration = self.calibration
        for position, band in enumerate(self.match.matched_bands):
            changed = replace(
                band,
                scale=calibration.scale[position],
                offset=calibration.offset[position],
                valid_range=(calibration.lowest[position], calibration.highest[position]),
            )
            if not calibration.is_physical:
                changed = replace(changed, mean=None, standard_deviation=None)
            result.append(changed)
        return tuple(result)

    @property
    def unit(self) -> str:
        """The unit of the calibrated values: the sensor's, or ``1`` where they are not physical."""
        return self.match.sensor.unit if self.calibration.is_physical else "1"


def identify(
    description: RasterDescription,
    sensor_name: str = "auto",
    role: Role = "optical",
    sentinel2_offset: OffsetChoice = "auto",
) -> IdentifiedRaster:
    """Finds out what a raster measured and how its values become physical.

    Args:
        description: what is known of the file.
        sensor_name: a name of the registry, or ``auto``.
        role: the input under which the raster was given.
        sentinel2_offset: whether Sentinel-2 values carry the offset of 1000.

    Raises:
        SensorError: see ``match_bands`` and ``calibration_for``.
    """
    match = match_bands(description, sensor_name, role)
    calibration = calibration_for(description, match, sentinel2_offset)
    direction = orbit_direction(description) if match.sensor.kind == "sar" else None
    notes = (*match.notes, calibration.note)
    if direction is not None:
        notes = (*notes, f"Orbit: {direction}.")
    doubts = (f"'{description.path}': {' '.join(match.notes)}",) if match.needs_check else ()
    return IdentifiedRaster(match, calibration, direction, notes, (*doubts, *calibration.warnings))
