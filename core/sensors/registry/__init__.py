"""The sensors that the project knows."""

from __future__ import annotations

from core.errors import SensorError
from core.sensors.registry.airborne import AIRBORNE
from core.sensors.registry.radar_and_elevation import ELEVATION, SYNTHETIC_APERTURE_RADAR
from core.sensors.registry.satellites import OPTICAL_SATELLITES
from core.sensors.registry.spectrometers import SPECTROMETERS
from core.sensors.types import Role, Sensor

GENERIC = Sensor("generic", "Any raster; bands as in the file", "other", (), "1")

SENSORS: dict[str, Sensor] = {
    sensor.name: sensor
    for sensor in (*SYNTHETIC_APERTURE_RADAR, *OPTICAL_SATELLITES, *AIRBORNE, *SPECTROMETERS, *ELEVATION, GENERIC)
}
"""Every sensor by name. ``hyperspectral`` and ``generic`` have no bands of their own: a file's bands make them."""

_OF_ANY_ROLE = ("display_8bit", "generic")


def get_sensor(name: str) -> Sensor:
    """The sensor of that name.

    Raises:
        SensorError: no such sensor; the hint lists those there are.
    """
    if name not in SENSORS:
        raise SensorError(f"There is no sensor '{name}'.", f"Known sensors: {', '.join(SENSORS)}; or 'auto'.")
    return SENSORS[name]


def sensors_of_role(role: Role) -> tuple[Sensor, ...]:
    """The sensors whose rasters may be given in a role; for ``other`` that is every sensor."""
    return tuple(sensor for sensor in SENSORS.values() if role in ("other", sensor.role) or sensor.name in _OF_ANY_ROLE)
