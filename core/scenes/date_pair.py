"""Two dates of one place on one grid: the same bands of the same sensors, read together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from core.errors import GridError, SensorError
from core.scenes.grid import Grid, Window
from core.scenes.reading import SceneReader
from core.scenes.reference_grid import bounds_in, crs_name
from core.scenes.scene import Acquisition, Scene, agree_on_brightness

LATER = "_later"
"""Behind the name of an acquisition of the first date, it names that of the second in a scene of both."""


@dataclass(frozen=True)
class DatePair:
    """What both dates show.

    Attributes:
        before: scene of the first date, whose grid is that of the pair, with the common bands.
        after: scene of the second date with the same acquisitions, in the same order, under the same names.
        notes: what was left out, a line each.
    """

    before: Scene
    after: Scene
    notes: tuple[str, ...]

    @property
    def grid(self) -> Grid:
        return self.before.grid

    @property
    def band_names(self) -> tuple[str, ...]:
        """Of the C bands of a date, in their order."""
        return tuple(f"{each.name} {band}" for each in self.before.acquisitions for band in each.bands)

    @property
    def scene(self) -> Scene:
        """Both dates as one scene: the first date's acquisitions, then the second's, whose names end in ``LATER``."""
        later = tuple(replace(each, name=each.name + LATER) for each in self.after.acquisitions)
        return replace(self.before, acquisitions=(*self.before.acquisitions, *later))


def pair_dates(before: Scene, after: Scene) -> DatePair:
    """Fits the scenes of two dates together: what only one of them has cannot be compared and is left out.

    Where a sensor's values have no known unit, both dates get the scale of one, so that their difference means the same
    everywhere.

    Raises:
        SensorError: the two dates have no band of one sensor in common.
        GridError: they do not overlap.
    """
    pairs: list[tuple[Acquisition, Acquisition]] = []
    notes: list[str] = []
    for first in before.acquisitions:
        second = next((a for a in after.acquisitions if (a.role, a.sensor.name) == (first.role, first.sensor.name)), None)
        if second is None:
            continue
        bands = tuple(band for band in first.bands if band in second.bands)
        if bands:
            pairs.append((replace(first, bands=bands), replace(second, bands=bands, name=first.name, scale=first.scale)))
        notes += _bands_left_out(first, second)
    if not pairs:
        raise SensorError(
            f"The two dates have no band of one sensor in common: the first has {_listed(before)}, the second "
            f"{_listed(after)}.",
            "Give images of the same sensor for both dates, or name the sensor if it was recognised wrongly.",
        )
    compared = {(one.role, one.sensor.name) for one, _ in pairs}
    for scene, which in ((before, "first"), (after, "second")):
        only = [a for a in scene.acquisitions if (a.role, a.sensor.name) not in compared]
        if only:
            notes.append(f"Not compared, because only the {which} date has it: {', '.join(a.sensor.title for a in only)}.")
    _check_overlap(before, after)
    agreed = [_on_one_scale(*pair) for pair in pairs]
    return DatePair(
        replace(before, acquisitions=tuple(one for one, _ in agreed)),
        replace(after, grid=before.grid, acquisitions=tuple(other for _, other in agreed)),
        tuple(notes),
    )


def _bands_left_out(first: Acquisition, second: Acquisition) -> Iterable[str]:
    alone = [band for band in (*first.bands, *second.bands) if (band in first.bands) != (band in second.bands)]
    if alone:
        yield f"{first.sensor.title}: not compared, because only one date has them: {', '.join(alone)}."


def _listed(scene: Scene) -> str:
    return "; ".join(f"{a.sensor.name} ({a.role}: {', '.join(a.bands[:8])})" for a in scene.acquisitions)


def _check_overlap(before: Scene, after: Scene) -> None:
    for acquisition in after.acquisitions:
        for source in acquisition.files:
            bounds = bounds_in(source.raster, before.grid.crs)
            if bounds is not None and bounds.intersection(before.grid.bounds) is not None:
                return
    raise GridError(
        f"The images of the two dates do not overlap: '{after.main.paths[0]}' lies outside '{before.main.paths[0]}', whose "
        f"system is {crs_name(before.grid.crs)}.",
        "Choose images of one place, and check that they carry the right coordinate reference system.",
    )


def _on_one_scale(first: Acquisition, second: Acquisition) -> tuple[Acquisition, Acquisition]:
    files = agree_on_brightness([*first.files, *second.files])
    count = len(first.files)
    return replace(first, files=tuple(files[:count])), replace(second, files=tuple(files[count:]))


class PairReader:
    """Open datasets of both dates. Not for use by several threads at once.

    Args:
        pair: that is read.
    """

    def __init__(self, pair: DatePair) -> None:
        self._pair = pair
        self._readers = (SceneReader(pair.before), SceneReader(pair.after))

    def __enter__(self) -> PairReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for reader in self._readers:
            reader.close()

    def read(self, window: Window) -> NDArray[np.float32]:
        """(2, C, rows, columns) physical values of both dates on the reference grid; NaN in all bands of both dates where one
        of them is missing.

        Args:
            window: of the reference grid; it may reach beyond it.

        Raises:
            RasterError: a file cannot be read.
        """
        target = self._pair.grid.crop(window)
        values = np.stack(
            [
                np.concatenate([reader.read_onto(acquisition, target) for acquisition in reader.scene.acquisitions])
                for reader in self._readers
            ]
        )
        values[:, :, ~np.isfinite(values).all(axis=(0, 1))] = np.nan
        return values
