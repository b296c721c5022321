"""The job that draws a stratified random sample of points from a map, for a person to say what is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.assessment.drawing import CANDIDATES_A_UNIT, DrawnPixels, RowCounts, apart, count_rows, draw_pixels
from core.assessment.sample_layer import StratumRow, class_label, write_sample
from core.assessment.sample_size import (
    FEWEST_UNITS,
    allocate,
    expected_standard_error,
    needed_for_allocation,
    needed_size,
    smallest_shares,
)
from core.errors import LabelError, UsageError
from core.jobs.events import JobContext
from core.jobs.outputs import Staging, check_outputs
from core.jobs.provenance import creation_time, software
from core.jobs.schemas import SamplingDesignJob
from core.labels.scheme import ClassScheme
from core.labels.schemes import match_classes
from core.mapping.class_raster import ClassRaster, open_class_raster

DEFAULT_ACCURACY = 0.8
"""Expected user's accuracy of the classes for which nothing is said."""

SHORT_OF_TARGET = 1.02
"""A larger expected error than this many times the one asked for is told."""

UNEVEN_PIXELS = 1.05
"""Where the largest pixel covers more ground than this many times the smallest, it is told."""


def run_sampling_design(job: SamplingDesignJob, context: JobContext) -> dict[str, Any]:
    """Runs the job; see ``core.jobs.runner``."""
    check_outputs(job, [job.map])
    context.progress(0.0, "Reading the map")
    raster = open_class_raster(job.map)
    accuracies = expected_accuracies(job.expected_accuracy, raster.scheme)
    rows = count_rows(raster, context.part(0.05, 0.5))
    expected = np.array([accuracies[raster.scheme.codes.index(code)] for code in rows.codes.tolist()])
    weights = rows.hectares / rows.hectares.sum()
    units = _planned_units(job, rows, weights, expected, context)
    drawn = _draw(job, raster, rows, units, context)
    sizes = np.bincount(drawn.stratum, minlength=len(units))
    if (sizes < np.minimum(FEWEST_UNITS, rows.pixels)).any():
        raise UsageError(
            f"With {job.minimum_distance:g} m between the points some classes get fewer than {FEWEST_UNITS} of them.",
            "Choose a shorter distance.",
        )
    error = expected_standard_error(sizes, rows.pixels, weights, expected)
    if job.size is None and error > SHORT_OF_TARGET * job.target_standard_error:
        context.warning(
            f"The expected standard error is {error:.4f}, and {job.target_standard_error:g} was asked for: the points that "
            "could not be placed are missing."
        )
    strata = [
        StratumRow(int(code), int(pixels), float(area), int(size), float(accuracy))
        for code, pixels, area, size, accuracy in zip(rows.codes, rows.pixels, rows.hectares, sizes, expected, strict=True)
    ]
    _tell(raster, strata, int(units.sum()), error, context)
    context.progress(0.95, "Writing the points")
    provenance = {
        "map": Path(job.map).name,
        "allocation": job.allocation,
        "seed": str(job.seed),
        "minimum distance in metres": f"{job.minimum_distance:g}",
        "created": creation_time(),
        **software(),
    }
    with Staging() as staging:
        with staging.writing(Path(job.output)) as temporary:
            write_sample(temporary, drawn, strata, raster.grid, raster.scheme, creation_time(), provenance)
        context.commit()
        staging.put_in_place()
    context.progress(1.0, "Done")
    return {"OUTPUT": job.output, "SAMPLE_SIZE": len(drawn), "EXPECTED_STANDARD_ERROR": round(error, 6)}


def expected_accuracies(text: str, scheme: ClassScheme) -> tuple[float, ...]:
    """The expected user's accuracy of each class of a scheme.

    Args:
        text: a number for all classes, or ``class=number`` after commas; a number among these is for all other classes.
        scheme: of the map.

    Raises:
        UsageError: a part is no number between 0 and 1, or means no class or one that was named before.
    """
    rest: float | None = None
    named: dict[str, float] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, _, number = (word.strip() for word in part.rpartition("="))
        value = _accuracy(number, part)
        if name:
            if name in named:
                raise UsageError(f"expected_accuracy: the class '{name}' occurs twice.", "Name every class once.")
            named[name] = value
        elif rest is None:
            rest = value
        else:
            raise UsageError(f"expected_accuracy: '{text}' holds several numbers without a class.", "Write class=number.")
    found: dict[int, float] = {}
    try:
        indices = match_classes(scheme, named)
    except LabelError as error:
        raise UsageError(f"expected_accuracy: {error.message}", "Name classes as the map does, or by their codes.") from None
    for name, index in indices.items():
        if index in found:
            raise UsageError(f"expected_accuracy: '{name}' means a class that was named before.", "Name every class once.")
        found[index] = named[name]
    return tuple(found.get(index, DEFAULT_ACCURACY if rest is None else rest) for index in range(len(scheme)))


def _accuracy(number: str, part: str) -> float:
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    if not 0 < value < 1:
        raise UsageError(
            f"expected_accuracy: '{part}' is no accuracy: a number above 0 and below 1, or class=number.",
            "An example: 0.8, forest=0.9, water=0.95",
        )
    return value


def _planned_units(
    job: SamplingDesignJob, rows: RowCounts, weights: NDArray[np.float64], expected: NDArray[np.float64], context: JobContext
) -> NDArray[np.int64]:
    """Points of each stratum, (H,)."""
    minimum = job.minimum if job.allocation == "balanced" else FEWEST_UNITS
    least = int(smallest_shares(rows.pixels, job.allocation, minimum).sum())
    if job.size is None:
        size = needed_size(weights, rows.pixels, expected, job.target_standard_error)
        context.info(
            f"A standard error of {job.target_standard_error:g} of overall accuracy asks for {size} points "
            "(Cochran 1977, eq. 5.25; Olofsson et al. 2014, eq. 13)."
        )
        if size < least:
            context.info(f"At least {minimum} points in each class make {least}.")
        shared = needed_for_allocation(weights, rows.pixels, expected, job.target_standard_error, job.allocation, minimum)
        if shared > max(size, least):
            context.info(f"That is for the optimal shares; with the allocation '{job.allocation}' it takes {shared} points.")
        size = max(size, shared)
    else:
        size = job.size
        if size < FEWEST_UNITS * len(expected):
            raise UsageError(
                f"size: {size} points are fewer than {FEWEST_UNITS} in each of the {len(expected)} classes of the map.",
                "Ask for more points, or merge classes.",
            )
        if size < least:
            minimum = max(FEWEST_UNITS, size // len(expected))
            context.warning(
                f"{size} points do not suffice for {job.minimum} in each class; the classes get at least {minimum}."
            )
    return allocate(size, rows.pixels, weights, expected, job.allocation, minimum)


def _draw(
    job: SamplingDesignJob, raster: ClassRaster, rows: RowCounts, units: NDArray[np.int64], context: JobContext
) -> DrawnPixels:
    generator = np.random.default_rng(job.seed)
    if not job.minimum_distance:
        return draw_pixels(raster, rows, units, generator, context.part(0.5, 0.95))
    candidates = np.minimum(CANDIDATES_A_UNIT * units, rows.pixels)
    drawn = draw_pixels(raster, rows, candidates, generator, context.part(0.5, 0.9))
    context.progress(0.9, "Keeping the points apart")
    drawn = apart(drawn, raster.grid, units, job.minimum_distance)
    context.warning(
        "A distance between the points favours pixels away from others of the sample: the chance of a pixel to be drawn is no "
        "longer quite the same within a stratum, and later intervals are approximate."
    )
    return drawn


def _tell(raster: ClassRaster, strata: Sequence[StratumRow], planned: int, error: float, context: JobContext) -> None:
    """What was drawn, and what is short of what was asked."""
    areas = raster.grid.row_pixel_areas_m2(np.array([0, raster.grid.height // 2, raster.grid.height - 1]))
    if areas.max() > UNEVEN_PIXELS * areas.min():
        context.warning(
            f"The map's pixels cover from {areas.min():.4g} to {areas.max():.4g} m². Points are drawn by pixels, so ground "
            "under small pixels is drawn more often; warp the map to an equal-area system to sample the ground evenly."
        )
    for row in strata:
        name = class_label(raster.scheme, raster.scheme.codes.index(row.code))
        spread = (
            row.expected_accuracy * (1 - row.expected_accuracy) / row.sample_size * (1 - row.sample_size / row.pixels)
        ) ** 0.5
        whole = " (all of it)" if row.sample_size == row.pixels else ""
        context.info(
            f"'{name}': {row.sample_size} of {row.pixels} pixels{whole}, {row.hectares:.4g} ha; expected user's accuracy "
            f"{row.expected_accuracy:g} ± {1.96 * spread:.3f}."
        )
        if row.sample_size == row.pixels:
            context.warning(f"The stratum '{name}' has {row.pixels} pixels only and was taken whole.")
    size = sum(row.sample_size for row in strata)
    if size < planned:
        context.warning(f"{size} of {planned} points could be placed; a shorter distance makes room for more.")
    context.info(f"{size} points; expected standard error of overall accuracy {error:.4f}.")
