"""A scene: acquisitions over one area, each on its own grid, and the reference grid that maps are made on."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date

import numpy as np
import shapely
from shapely import STRtree

from core.errors import GridError, RasterError, SensorError
from core.scenes.grid import Bounds, Grid, Scale, nearest_scale, same_crs
from core.scenes.raster_file import RasterFile, is_constant, read_raster_file
from core.scenes.reference_grid import bounds_in, crs_name, reference_grid
from core.sensors import Band, IdentifiedRaster, Role, Sensor, acquisition_date, identify
from core.sensors.sentinel2_offset import OffsetChoice, OffsetSetting, darkest_level, sentinel2_offset

ROLES: tuple[Role, ...] = ("optical", "sar", "other", "elevation")
"""In the order in which they are asked to lead the scene: an elevation model is the last to say what a map shows."""


@dataclass(frozen=True)
class SourceFile:
    """A raster with its place, its bands and the way to physical units."""

    raster: RasterFile
    identified: IdentifiedRaster

    def band_index(self, name: str) -> int | None:
        """The 1-based index of a sensor's band in this file; None where the file lacks it."""
        return next((index for band, index in self.identified.match.bands if band == name), None)

    @property
    def date(self) -> date | None:
        """The day on which it was taken, where the file or its name says so."""
        return acquisition_date(self.raster.description)


@dataclass(frozen=True)
class Acquisition:
    """One raster of a sensor, or several that tile the ground or hold a band each.

    Attributes:
        name: unique in the scene: the sensor's name, numbered where two roles use the same sensor.
        role: the input list it came from.
        sensor: what measured it.
        bands: names of the bands that are there, in the sensor's order.
        files: where pixels of several files cover the same ground, the first valid one counts.
        scale: the pixel size of its finest file relative to the reference grid's.
    """

    name: str
    role: Role
    sensor: Sensor
    bands: tuple[str, ...]
    files: tuple[SourceFile, ...]
    scale: Scale = field(default_factory=Scale)

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(source.raster.path for source in self.files)

    @property
    def resolution_m(self) -> float:
        """Of its finest file."""
        return min(source.raster.description.resolution_m or math.nan for source in self.files)


@dataclass(frozen=True)
class SceneRequest:
    """Which files make the scene.

    Attributes:
        paths: files by role.
        sensors: sensor by role; ``auto`` where it is left out.
        resolution: pixel size of the reference grid in units of its system; the main raster's own where None.
        sentinel2_offset: ``auto``, ``yes`` or ``no``.
    """

    paths: Mapping[Role, Sequence[str]]
    sensors: Mapping[Role, str] = field(default_factory=dict)
    resolution: float | None = None
    sentinel2_offset: OffsetSetting = "auto"


@dataclass(frozen=True)
class Scene:
    """Acquisitions and their reference grid.

    Attributes:
        grid: of the main acquisition, north-up.
        acquisitions: the main one first.
        notes: how bands were matched and values converted, a line each.
        warnings: what the user should look at.
    """

    grid: Grid
    acquisitions: tuple[Acquisition, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def main(self) -> Acquisition:
        return self.acquisitions[0]

    def acquisition(self, name: str) -> Acquisition:
        """Raises:
        KeyError: no acquisition has that name.
        """
        for acquisition in self.acquisitions:
            if acquisition.name == name:
                return acquisition
        raise KeyError(name)

    @property
    def step(self) -> int:
        """Windows that are read have absolute edges at multiples of this many reference pixels."""
        return math.lcm(*(acquisition.scale.coarser for acquisition in self.acquisitions))

    @property
    def sources(self) -> tuple[SourceFile, ...]:
        """The files of all acquisitions, each once: one file may hold the bands of several."""
        every = (source for acquisition in self.acquisitions for source in acquisition.files)
        return tuple({source.raster.path: source for source in every}.values())

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(path for acquisition in self.acquisitions for path in acquisition.paths)


def build_scene(request: SceneRequest) -> Scene:
    """Reads what the files say of themselves and fits them together.

    Raises:
        RasterError, SensorError: a file cannot be used.
        GridError: files that do not overlap, or a resolution that makes no sense.
    """
    notes: list[str] = []
    warnings: list[str] = []
    acquisitions: list[Acquisition] = []
    for role in ROLES:
        for acquisition in _acquisitions_of_role(request, role, notes, warnings):
            name = free_name(acquisition.name, {other.name for other in acquisitions})
            acquisitions.append(replace(acquisition, name=name))
    if not acquisitions:
        raise RasterError("No raster was given.", "Give at least one optical, SAR, elevation or other raster.")
    grid = reference_grid([source.raster for source in acquisitions[0].files], request.resolution, notes)
    placed = []
    for acquisition in [_overlapping(each, acquisitions[0], grid, notes, warnings) for each in acquisitions]:
        placed.append(replace(acquisition, scale=nearest_scale(grid.resolution_m(), acquisition.resolution_m)))
        notes.append(_scale_note(placed[-1], grid))
    return Scene(grid, tuple(placed), tuple(notes), tuple(dict.fromkeys(warnings)))


def free_name(name: str, taken: Collection[str]) -> str:
    """The name, numbered from two where others have it."""
    names = (name, *(f"{name}_{number}" for number in range(2, len(taken) + 3)))
    return next(each for each in names if each not in taken)


def _acquisitions_of_role(request: SceneRequest, role: Role, notes: list[str], warnings: list[str]) -> Iterable[Acquisition]:
    """Groups the files of a role by sensor; files of one sensor tile the ground or hold different bands."""
    groups: dict[str, list[SourceFile]] = {}
    wanted = request.sensors.get(role, "auto")
    for raster in [read_raster_file(path) for path in request.paths.get(role, ())]:
        identified = identify(raster.description, wanted, role, request.sentinel2_offset)
        groups.setdefault(identified.match.sensor.name, []).append(SourceFile(raster, identified))
    for name, files in groups.items():
        warnings.extend(_constant_files(files))
        if name.startswith("sentinel2") and len(files) > 1 and request.sentinel2_offset == "auto":
            groups[name] = _agree_on_offset(files, wanted, role)
        groups[name] = agree_on_brightness(groups[name])
        for source in groups[name]:
            notes.extend(source.identified.notes)
            warnings.extend(source.identified.warnings)
    for files in groups.values():
        sensor = _common_sensor(files)
        bands = _bands_of(sensor, files)
        if len(files) > 1:
            warnings.extend(_doubles(files))
            notes.append(f"{sensor.title}: {len(files)} files make one acquisition of {len(bands)} bands.")
        yield Acquisition(sensor.name, role, sensor, bands, tuple(files))


def _common_sensor(files: Sequence[SourceFile]) -> Sensor:
    """The files' sensor; where each file makes its own bands (generic rasters), with the bands of all."""
    bands: dict[str, Band] = {}
    for source in files:
        for band in source.identified.match.sensor.bands:
            bands.setdefault(band.name, band)
    return replace(files[0].identified.match.sensor, bands=tuple(bands.values()))


def _bands_of(sensor: Sensor, files: Sequence[SourceFile]) -> tuple[str, ...]:
    """Names of the bands that any of the files has, in the sensor's order."""
    present = {band for source in files for band, _ in source.identified.match.bands}
    return tuple(band.name for band in sensor.bands if band.name in present)


def _doubles(files: Sequence[SourceFile]) -> Iterable[str]:
    """Warnings of files that hold the same bands of the same ground.

    Raises:
        SensorError: they are generic rasters, whose bands may be called alike and mean different things.
    """
    for first, second, bounds in _near_pairs(files):
        shared = set(first.identified.match.names) & set(second.identified.match.names)
        if not shared:
            continue
        common = bounds.intersection(first.raster.bounds)
        if common is None or common.area < 0.5 * min(bounds.area, first.raster.bounds.area):
            continue
        text = f"'{first.raster.path}' and '{second.raster.path}' cover the same ground and both hold"
        if first.identified.match.sensor.name == "generic":
            raise SensorError(
                f"{text} a band that is called {', '.join(sorted(shared))}: nothing tells them apart.",
                "Name the bands (band descriptions), or stack the rasters into one file.",
            )
        yield (
            f"{text} {', '.join(sorted(shared))}: where both have data, the first counts. Other dates or orbits are no other "
            "input; stack them into one file and set the sensor to 'generic' if the model is to see all of them."
        )


def _near_pairs(files: Sequence[SourceFile]) -> Iterable[tuple[SourceFile, SourceFile, Bounds]]:
    """Files whose rectangles meet, the one given first before the other, with the other's rectangle in its system. Of a mosaic
    of hundreds few do."""
    found: dict[str, tuple[list[Bounds | None], STRtree]] = {}
    for number, first in enumerate(files):
        crs = first.raster.crs
        if crs not in found:
            places = [bounds_in(source.raster, crs) for source in files]
            found[crs] = places, STRtree([shapely.Point() if each is None else shapely.box(*each) for each in places])
        places, tree = found[crs]
        for other in np.sort(tree.query(shapely.box(*first.raster.bounds))):
            bounds = places[other]
            if other > number and bounds is not None:
                yield first, files[other], bounds


def _agree_on_offset(files: list[SourceFile], sensor: str, role: Role) -> list[SourceFile]:
    """Tiles of one product carry the offset all or none: the darkest of them tell for those that show no dark ground."""
    decisions = [sentinel2_offset(source.raster.description, source.identified.match) for source in files]
    if len({decision.applies for decision in decisions}) == 1 or any(d.how == "metadata" for d in decisions):
        return files
    levels = [darkest_level(source.raster.description, source.identified.match) for source in files]
    choice: OffsetChoice = "like others" if decisions[int(np.argmin(levels))].applies else "unlike others"
    return [replace(s, identified=identify(s.raster.description, sensor, role, choice)) for s in files]


def agree_on_brightness(files: list[SourceFile]) -> list[SourceFile]:
    """Tiles, or dates, of one sensor without a known brightest value have one scale: that of the brightest of them."""
    guessed = [source.identified.calibration for source in files if not source.identified.calibration.is_physical]
    if len({calibration.scale[0] for calibration in guessed}) < 2:
        return files
    scale = min(calibration.scale[0] for calibration in guessed)

    def agreed(source: SourceFile) -> SourceFile:
        calibration = source.identified.calibration
        if calibration.is_physical:
            return source
        calibration = replace(calibration, scale=(scale,) * len(calibration.scale))
        return replace(source, identified=replace(source.identified, calibration=calibration))

    return [agreed(source) for source in files]


def _constant_files(files: Sequence[SourceFile]) -> Iterable[str]:
    """Warnings of files that hold one value, as a tile of sea does beside others.

    Raises:
        RasterError: all of them do, and tell nothing apart.
    """
    constant = [s.raster for s in files if s.raster.description.sample is not None and is_constant(s.raster.description.sample)]
    for raster in constant:
        sample = raster.description.sample
        values = "" if sample is None else ", ".join(f"{value:g}" for value in sample[:8, 0])
        more = ", ..." if sample is not None and len(sample) > 8 else ""
        text = f"The raster '{raster.path}' holds the same value everywhere: {values}{more}."
        if len(constant) == len(files):
            raise RasterError(text, "It tells nothing apart: leave it out.")
        yield f"{text} It is used beside the others."


def _overlapping(acquisition: Acquisition, main: Acquisition, grid: Grid, notes: list[str], warnings: list[str]) -> Acquisition:
    """The acquisition without the files that lie beside the reference grid.

    Raises:
        GridError: all of them do.
    """
    bounds = [bounds_in(source.raster, grid.crs) for source in acquisition.files]
    near = [each is not None and each.intersection(grid.bounds) is not None for each in bounds]
    if not any(near):
        where = "nothing" if bounds[0] is None else _text(bounds[0])
        raise GridError(
            f"'{acquisition.paths[0]}' does not overlap '{main.paths[0]}': in {crs_name(grid.crs)} it covers {where}, "
            f"and the main raster {_text(grid.bounds)}.",
            "Check that both show the same place and carry the right coordinate reference system.",
        )
    if not all(near):
        far = [path for path, is_near in zip(acquisition.paths, near, strict=True) if not is_near]
        warnings.append(f"Left out, because they do not overlap '{main.paths[0]}': {', '.join(map(repr, far))}.")
    files = tuple(source for source, is_near in zip(acquisition.files, near, strict=True) if is_near)
    kept = replace(acquisition, files=files, bands=_bands_of(acquisition.sensor, files))
    covered = _covered_part([each for each, is_near in zip(bounds, near, strict=True) if each and is_near], grid)
    if covered < 0.99:
        notes.append(
            f"{acquisition.sensor.title} covers about {covered:.0%} of the reference grid; elsewhere there is only what the "
            "other rasters show."
        )
    return kept


def _covered_part(rectangles: Sequence[Bounds], grid: Grid) -> float:
    """Share of the reference grid inside any of the rectangles, on a coarse raster of points."""
    xs, ys = np.meshgrid(
        np.linspace(grid.bounds.left, grid.bounds.right, 66)[1:-1],
        np.linspace(grid.bounds.bottom, grid.bounds.top, 66)[1:-1],
    )
    inside = np.zeros(xs.shape, bool)
    for bounds in rectangles:
        inside |= (xs >= bounds.left) & (xs <= bounds.right) & (ys >= bounds.bottom) & (ys <= bounds.top)
    return float(inside.mean())


def _scale_note(acquisition: Acquisition, grid: Grid) -> str:
    own, reference = acquisition.resolution_m, grid.resolution_m()
    where = "" if same_crs(acquisition.files[0].raster.crs, grid.crs) else ", another coordinate reference system"
    finer, coarser = acquisition.scale.finer, acquisition.scale.coarser
    if finer > 1:
        how = f"read at {reference / finer:.3g} m, {finer} x {finer} pixels to a pixel of the map"
    elif coarser > 1:
        how = f"read at {reference * coarser:.3g} m, a pixel to {coarser} x {coarser} of the map"
    else:
        how = "read at the pixel size of the map"
    return f"{acquisition.name}: {own:.3g} m{where}, {how} ({reference:.3g} m)."


def _text(bounds: Bounds) -> str:
    return f"x {bounds.left:.6g} to {bounds.right:.6g}, y {bounds.bottom:.6g} to {bounds.top:.6g}"


def shows_ground(role: Role, roles: Sequence[Role]) -> bool:
    """Whether a map can rest on an input of that role alone: on heights only where there is nothing else."""
    return role != "elevation" or all(other == "elevation" for other in roles)


def select(
    scene: Scene,
    needed: Sequence[tuple[str, Role, str, tuple[str, ...], Scale]],
    allows_missing: bool = False,
    keeps_others: bool = False,
) -> Scene:
    """The scene as a model wants it: its acquisitions, bands and scales, in the model's order.

    Args:
        scene: what the user gave.
        needed: name, role, sensor, bands and scale of each of the model's inputs.
        allows_missing: whether some of the inputs may be missing altogether; a missing band is never allowed.
        keeps_others: whether what the model does not know stays, behind what it does, under names that it does not use.

    Raises:
        SensorError: an input or a band is missing; the message names all of them.
    """
    chosen, missing, absent = [], [], []
    for name, role, sensor, bands, scale in needed:
        found = next((a for a in scene.acquisitions if a.role == role and a.sensor.name == sensor), None)
        if found is None:
            given = ", ".join(f"{a.sensor.name} ({a.role})" for a in scene.acquisitions)
            absent.append((role, sensor, f"{sensor} as {role} input (given: {given})"))
            continue
        lacking = [band for band in bands if band not in found.bands]
        if lacking:
            missing.append(f"band {', '.join(lacking)} of {sensor} in {', '.join(repr(path) for path in found.paths)}")
        chosen.append(replace(found, name=name, bands=bands, scale=scale))
    roles = [role for _, role, _, _, _ in needed]
    if not allows_missing or not any(shows_ground(a.role, roles) for a in chosen):
        missing = [text for _, _, text in absent] + missing
    if missing:
        raise SensorError(
            f"The model needs what the rasters lack: {'; '.join(missing)}.",
            "Give rasters of the sensors that the model was trained on, or name the sensor if it was recognised wrongly.",
        )
    extra = [a for a in scene.acquisitions if not any(a.role == c.role and a.sensor == c.sensor for c in chosen)]
    notes = scene.notes
    if extra and keeps_others:
        taken = {name for name, *_ in needed}
        for acquisition in extra:
            own = free_name(acquisition.name, taken)
            taken.add(own)
            chosen.append(replace(acquisition, name=own))
        notes += (f"New to the model, whose parts for it start afresh: {', '.join(a.name for a in extra)}.",)
    elif extra:
        notes += (f"Not used, because the model was trained without: {', '.join(a.name for a in extra)}.",)
    warnings = scene.warnings
    if absent:
        names = ", ".join(f"{sensor} ({role})" for role, sensor, _ in absent)
        warnings += (f"Mapped without {names}: the confidence says how much surer the model is with it.",)
    return replace(scene, acquisitions=tuple(chosen), notes=notes, warnings=warnings)
