"""From points that were drawn in strata to the units of an estimate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import shapely
from numpy.typing import NDArray

from core.assessment.area_adjusted import AreaAdjusted, Stratum, area_adjusted_accuracy
from core.assessment.sample_layer import STRATUM_FIELD, has_strata, read_strata
from core.assessment.stratified import NOT_MAPPED, SampleUnits, stratified_accuracy
from core.errors import LabelError
from core.jobs.schemas import AccuracyJob
from core.labels.label_set import LabelSet
from core.labels.reading import has_field, read_texts
from core.labels.scheme import NODATA_CODE, ClassScheme
from core.labels.schemes import find_class, listed
from core.mapping.class_raster import ClassRaster
from core.mapping.sidecars import ClassAreas
from core.scenes.grid import Window

IntArray = NDArray[np.int64]

_STRIP_PIXELS = 2**24
_SAME_PLACE = 1e-3
"""Part of a pixel: points as near as this are the same point twice."""
_SAME_AREA = 1e-6
"""Relative difference up to which strata and classes have the same area: both are sums of the same pixels."""

_OTHER_GROUND = 1e-3
"""Relative difference of areas from which strata and map are said to cover different ground; pixels at an edge make less."""


@dataclass(frozen=True, eq=False)
class ReferenceSample:
    """A sample drawn in strata, with what the map says of it.

    Attributes:
        units: those with a reference.
        strata: with the numbers of units drawn and used.
        classes_are_strata: whether the strata are the classes of the map that is assessed.
        notes: what was found out about the sample, sentences for the user.
    """

    units: SampleUnits
    strata: tuple[Stratum, ...]
    classes_are_strata: bool
    notes: tuple[str, ...]


def strata_field_of(job: AccuracyJob) -> str | None:
    """The field with the strata: the one asked for, else that of our own sampling design; None where there is none."""
    reference = job.reference
    if job.strata_field is not None:
        return job.strata_field
    is_design = has_strata(job.strata or reference.path) and has_field(
        reference.path, reference.layer, reference.class_field, STRATUM_FIELD
    )
    if job.strata is not None and not is_design:
        raise LabelError(
            f"The reference '{reference.path}' has no field '{STRATUM_FIELD}', or '{job.strata}' no table of strata.",
            "Name the field that holds the stratum of each point, and give the GeoPackage of the sampling design.",
        )
    return STRATUM_FIELD if is_design else None


def read_sample(
    job: AccuracyJob, strata_field: str, raster: ClassRaster, labels: LabelSet, areas: ClassAreas
) -> ReferenceSample:
    """The units of a sample of points.

    Args:
        job: that names the files.
        strata_field: field of the points' strata.
        raster: the map.
        labels: of the points that have a class and touch the map.
        areas: pixels and areas of the map's classes.

    Raises:
        LabelError: the reference is not made of single points, a point has no stratum, or one of which nothing is known.
    """
    known = _known_strata(job, raster.scheme, areas)
    stratum_of = _strata_of_points(job, strata_field, known)
    places = _places(raster, labels)
    kept, notes = _without_repetitions(labels, places)
    rows, columns = places[kept].astype(np.int64).T
    # What lies outside the map is ground of the strata of which the map says nothing; its class does not matter.
    outside = labels.report.outside_scene
    unmapped = np.full(len(outside), NOT_MAPPED)
    filled = [*labels.feature_ids[kept].tolist(), *outside]
    units = SampleUnits(
        np.array([stratum_of[number] for number in filled], np.int64),
        np.concatenate([_mapped(raster, rows, columns), unmapped]),
        np.concatenate([labels.class_index[kept].astype(np.int64), unmapped]),
    )
    drawn = np.bincount(list(stratum_of.values()), minlength=len(known.strata))
    used = np.bincount(units.stratum, minlength=len(known.strata))
    strata = tuple(
        replace(entry, drawn=max(entry.drawn, int(n)), used=int(m))
        for entry, n, m in zip(known.strata, drawn, used, strict=True)
    )
    _check_sizes(strata)
    if known.are_of_the_map:
        notes.append("The reference has no table of strata: its strata were taken to be the classes of this map.")
    are_classes = _are_classes(known, strata, units, raster.scheme, areas)
    ground, mapped = sum(entry.area for entry in strata), sum(areas.hectares.values()) - areas.hectares.get(NODATA_CODE, 0.0)
    if not are_classes and abs(ground - mapped) > _OTHER_GROUND * ground:
        notes.append(
            f"The strata cover {ground:.4g} ha and the map {mapped:.4g} ha. The estimates are of the ground that both cover."
        )
    missing = int((units.mapped == NOT_MAPPED).sum())
    if missing:
        notes.append(
            f"{missing} points lie where the map has no data or beyond its edge; they count as ground that is not mapped."
        )
    return ReferenceSample(units, strata, are_classes, tuple(notes))


def estimates(sample: ReferenceSample, mapped_areas: NDArray[np.float64], names: tuple[str, ...]) -> AreaAdjusted:
    """Accuracy and areas, by the estimator that the sample's strata ask for."""
    if sample.classes_are_strata:
        found = area_adjusted_accuracy(sample.units.confusion(len(names)), mapped_areas, names)
    else:
        found = stratified_accuracy(sample.units, sample.strata, mapped_areas, names)
    return replace(found, strata=sample.strata)


@dataclass(frozen=True, eq=False)
class _KnownStrata:
    """Strata, how a text is found among them, and whether they are the classes of the map that is assessed."""

    strata: tuple[Stratum, ...]
    index_of: Callable[[str], int | None]
    are_of_the_map: bool


def _known_strata(job: AccuracyJob, scheme: ClassScheme, areas: ClassAreas) -> _KnownStrata:
    """The strata of the table; without one the classes of the map."""
    path = job.strata or job.reference.path
    if job.strata is not None or has_strata(path):
        table, names = read_strata(path)
        order = {name: index for index, name in enumerate(table)}
        # A name counts before a code: where names are numbers, a code of the same text may mean another stratum.
        texts = {value: order[name] for value, name in names.items()} | order
        return _KnownStrata(tuple(table.values()), texts.get, False)
    counts, hectares = areas.counts, areas.hectares
    present = {index: entry for index, entry in enumerate(scheme.classes) if entry.code in counts}
    position: dict[int | None, int] = {index: number for number, index in enumerate(present)}
    return _KnownStrata(
        tuple(Stratum(entry.name, counts[entry.code], hectares[entry.code]) for entry in present.values()),
        lambda text: position.get(find_class(scheme, text)),
        True,
    )


def _strata_of_points(job: AccuracyJob, strata_field: str, known: _KnownStrata) -> dict[int, int]:
    """The index of the stratum of every point, by the points' ids, unfilled ones included."""
    reference = job.reference
    texts = read_texts(reference.path, reference.layer, reference.class_field, strata_field)
    empty = sum(text is None for text in texts.values())
    if empty:
        raise LabelError(
            f"{empty} of {len(texts)} points of '{reference.path}' have no stratum in '{strata_field}'.",
            "Fill the field, or leave these points out: what they stand for is not known.",
        )
    found = {text: known.index_of(text) for text in sorted({text for text in texts.values() if text is not None})}
    unknown = [text for text, index in found.items() if index is None]
    if unknown:
        origin = "classes of the map" if known.are_of_the_map else "lines of the table of strata"
        raise LabelError(
            f"The strata {listed(unknown)} in '{strata_field}' are no {origin}: "
            f"{listed([entry.name for entry in known.strata])}.",
            "Name the field with the strata, and give the GeoPackage that holds their table.",
        )
    return {number: found[text] for number, text in texts.items()}  # type: ignore[index, misc]


def _places(raster: ClassRaster, labels: LabelSet) -> NDArray[np.float64]:
    """(n, 2) row and column of every point, with the place inside the pixel as fraction."""
    is_single = (shapely.get_dimensions(labels.geometries) == 0) & (shapely.get_num_coordinates(labels.geometries) == 1)
    if not is_single.all():
        raise LabelError(
            f"Strata are asked for, and '{labels.source}' holds features that are no single points: "
            f"{listed(labels.feature_ids[~is_single].tolist(), most=5)}.",
            "Give the points that were drawn; convert multipoints to single parts.",
        )
    grid = raster.grid
    x, y = shapely.get_coordinates(labels.geometries).T
    places = np.column_stack([(grid.top - y) / grid.pixel_height, (x - grid.left) / grid.pixel_width])
    # A point on the very edge touches the map and belongs to its last pixel.
    inside: NDArray[np.float64] = np.clip(places, 0, np.nextafter(grid.shape, 0.0))
    return inside


def _without_repetitions(labels: LabelSet, places: NDArray[np.float64]) -> tuple[IntArray, list[str]]:
    """The points that count, and what was found about points in one pixel.

    Points at the same place are one unit that was entered twice: the first counts, or none where their classes differ.
    Points at different places in one pixel are units of their own: the map is coarser than what they were drawn from.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for index, (row, column) in enumerate(np.round(places / _SAME_PLACE).astype(np.int64).tolist()):
        groups.setdefault((row, column), []).append(index)
    kept, repeated, contradicting = [], 0, 0
    for group in groups.values():
        if len({int(labels.class_index[index]) for index in group}) > 1:
            contradicting += len(group)
        else:
            kept.append(group[0])
            repeated += len(group) - 1
    notes = []
    if repeated:
        notes.append(f"{repeated} points lie where another point of the same class lies; each place counts once.")
    if contradicting:
        notes.append(f"{contradicting} points share their place with a point of another class and were left out.")
    chosen = np.array(sorted(kept), np.int64)
    pixels = places[chosen].astype(np.int64)
    shared = len(pixels) - len(np.unique(pixels, axis=0))
    if shared:
        notes.append(
            f"{shared} points share a pixel of the map with another point at another place; each counts as a unit of its own."
        )
    return chosen, notes


def _mapped(raster: ClassRaster, rows: IntArray, columns: IntArray) -> IntArray:
    """The map's class at pixels, as index into the scheme, or ``NOT_MAPPED``; read strip by strip."""
    grid = raster.grid
    index_of = np.full(256, NOT_MAPPED)
    index_of[list(raster.scheme.codes)] = np.arange(len(raster.scheme))
    found = np.full(len(rows), NOT_MAPPED)
    height = max(1, _STRIP_PIXELS // grid.width)
    for first in range(0, grid.height, height):
        inside = np.flatnonzero((rows >= first) & (rows < first + height))
        if len(inside):
            codes = raster.read(Window(0, first, grid.width, min(height, grid.height - first)))
            found[inside] = index_of[codes[rows[inside] - first, columns[inside]]]
    return found


def _check_sizes(strata: tuple[Stratum, ...]) -> None:
    for entry in strata:
        if entry.used > entry.pixels:
            raise LabelError(
                f"The stratum '{entry.name}' has {entry.used} points and {entry.pixels} pixels.",
                "Give the table of strata that belongs to the points.",
            )


def _are_classes(
    known: _KnownStrata, strata: tuple[Stratum, ...], units: SampleUnits, scheme: ClassScheme, areas: ClassAreas
) -> bool:
    """Whether the strata are the classes of this map: by the classes of all points, and by the areas."""
    classes = [find_class(scheme, entry.name) for entry in strata]
    if known.are_of_the_map:
        classes = [index for index, entry in enumerate(scheme.classes) if entry.code in areas.counts]
    if None in classes or len(set(classes)) < len(classes):
        return False
    codes = [scheme.classes[index].code for index in classes if index is not None]
    if set(codes) != set(areas.counts) - {NODATA_CODE}:
        return False
    same_area = all(
        entry.pixels == areas.counts[code] and math.isclose(entry.area, areas.hectares[code], rel_tol=_SAME_AREA)
        for entry, code in zip(strata, codes, strict=True)
    )
    return same_area and bool((units.mapped == np.array(classes)[units.stratum]).all())
