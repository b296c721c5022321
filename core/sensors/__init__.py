"""What was measured: sensors, bands, and the way from stored numbers to physical values.

``identify`` is the way in: it takes a ``RasterDescription`` and returns sensor, bands and calibration. Nothing here opens
files.
"""

from core.sensors.acquisition_date import acquisition_date
from core.sensors.band_match import BandMatch, require_bands
from core.sensors.calibration import Calibration
from core.sensors.description import RasterDescription
from core.sensors.identification import IdentifiedRaster, identify
from core.sensors.matching import match_bands
from core.sensors.normalization import band_statistics, robust_statistics
from core.sensors.registry import SENSORS, get_sensor, sensors_of_role
from core.sensors.types import Band, Role, Sensor, SensorKind

__all__ = [
    "SENSORS",
    "Band",
    "BandMatch",
    "Calibration",
    "IdentifiedRaster",
    "RasterDescription",
    "Role",
    "Sensor",
    "SensorKind",
    "acquisition_date",
    "band_statistics",
    "get_sensor",
    "identify",
    "match_bands",
    "require_bands",
    "robust_statistics",
    "sensors_of_role",
]
