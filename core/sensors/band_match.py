"""The result of matching a raster's bands, and how it is put into words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from core.errors import SensorError
from core.sensors.description import RasterDescription
from core.sensors.types import Band, Sensor

MatchedBy = Literal["name", "wavelength", "count"]


@dataclass(frozen=True)
class BandMatch:
    """A raster's sensor and bands.

    Attributes:
        sensor: from the registry, or with bands made from the file.
        bands: band name and 1-based index in the file, in the registry's order.
        by: what the match rests on.
        unused: 1-based indexes of the file's other bands.
        notes: the match as sentences for the report.
        needs_check: whether the match is a default or a guess that the user should be told of.
    """

    sensor: Sensor
    bands: tuple[tuple[str, int], ...]
    by: MatchedBy
    unused: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    needs_check: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.bands)

    @property
    def indexes(self) -> tuple[int, ...]:
        """1-based indexes in the file, in match order."""
        return tuple(index for _, index in self.bands)

    @property
    def matched_bands(self) -> tuple[Band, ...]:
        """The sensor's bands, in match order."""
        by_name = {band.name: band for band in self.sensor.bands}
        return tuple(by_name[name] for name in self.names)


def require_bands(match: BandMatch, needed: Sequence[str]) -> None:
    """Checks that a raster has all the bands a model needs.

    Raises:
        SensorError: some are missing; the message names every one.
    """
    missing = [name for name in needed if name not in match.names]
    if missing:
        raise SensorError(
            f"The raster ({match.sensor.title}) lacks {listing(missing)}, which the model needs.",
            f"It has {', '.join(match.names)}. Give a raster with all bands, or name its bands.",
        )


def build_match(
    description: RasterDescription,
    sensor: Sensor,
    named: dict[int, str],
    by: MatchedBy,
    notes: tuple[str, ...],
    *,
    bad: frozenset[int] = frozenset(),
    needs_check: bool = False,
) -> BandMatch:
    """Puts a match together: registry order, doubles refused, bad and unused bands noted."""
    doubles = [name for name, times in Counter(named.values()).items() if times > 1]
    if doubles:
        where = {name: [index for index, other in named.items() if other == name] for name in doubles}
        listed = "; ".join(f"bands {listing(indexes)} are all {name}" for name, indexes in where.items())
        raise SensorError(
            f"'{description.path}' has bands that mean the same to {sensor.title}: {listed}.",
            "Give one date or orbit alone, or set the sensor to 'generic' to use all of them.",
        )
    order = {band.name: position for position, band in enumerate(sensor.bands)}
    bands = sorted(((name, index) for index, name in named.items() if index not in bad), key=lambda entry: order[entry[0]])
    if not bands:
        raise SensorError(f"Every band of '{description.path}' is flagged as bad in its metadata (bbl = 0).")
    taken = {index for _, index in bands}
    unused = tuple(index for index in range(1, description.band_count + 1) if index not in taken)
    head = f"{sensor.title} ({sensor.name}), {plural(len(bands))} matched by {by}: {short([n for n, _ in bands])}."
    lines = [head, *notes]
    if bad:
        lines.append(f"{plural(len(bad))} flagged as bad in the metadata and left out: {short(sorted(bad))}.")
    rest = [index for index in unused if index not in bad]
    if rest:
        labels = [f"{index} ({description.description(index)})" if description.description(index) else index for index in rest]
        lines.append(f"Not used: band {short(labels)} of the file.")
    return BandMatch(sensor, tuple(bands), by, unused, tuple(lines), needs_check)


def plural(count: int) -> str:
    return "1 band" if count == 1 else f"{count} bands"


def listing(values: Sequence[object]) -> str:
    return ", ".join(str(value) for value in values)


def short(values: Sequence[object]) -> str:
    """A list of at most 15 entries, the middle left out of a longer one."""
    if len(values) <= 15:
        return listing(values)
    return f"{listing(values[:6])}, ... {listing(values[-2:])}"
