"""The job that compares a map with reference polygons or points."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from core.assessment.area_adjusted import AreaAdjusted, area_adjusted_accuracy
from core.assessment.confusion import AccuracyInterval, accuracy, bootstrap_interval
from core.assessment.contents import AccuracyReport
from core.assessment.report import write_accuracy_report
from core.errors import LabelError
from core.jobs.assessment.reference_sample import estimates, read_sample, strata_field_of
from core.jobs.events import JobContext
from core.jobs.inputs import read_job_labels
from core.jobs.outputs import Staging, check_outputs
from core.jobs.provenance import creation_time, software
from core.jobs.schemas import AccuracyJob
from core.labels.label_set import LabelSet
from core.labels.rasterizing import count_pixels, finish_report, rasterize
from core.mapping.class_raster import ClassRaster, class_areas, open_class_raster
from core.mapping.sidecars import ClassAreas
from core.scenes.grid import Window

BLOCK_ROWS = 512
PICTURE_SIDE = 1000


@dataclass(frozen=True, eq=False)
class _Comparison:
    """Map against reference.

    Attributes:
        confusion: (K, K) units, rows = map, columns = reference.
        n_units: features of the reference that were compared.
        areas_ha: (K,) of the map's classes.
        estimates: of accuracy and area.
        interval: over the features, where these are no sample drawn in strata.
        lines, warnings: for the report.
    """

    confusion: NDArray[np.int64]
    n_units: int
    areas_ha: NDArray[np.float64]
    estimates: AreaAdjusted
    interval: AccuracyInterval | None
    lines: tuple[str, ...]
    warnings: tuple[str, ...]


def run_accuracy(job: AccuracyJob, context: JobContext) -> dict[str, Any]:
    """Runs the job; see ``core.jobs.runner``."""
    check_outputs(job, [path for path in (job.map, job.reference.path, job.strata) if path])
    context.progress(0.0, "Reading the map and the reference")
    raster = open_class_raster(job.map)
    labels = read_job_labels(job.reference, raster.grid, raster.scheme, extends=True, fewest_classes=1)
    raster = replace(raster, scheme=labels.scheme)
    strata_field = strata_field_of(job)
    if strata_field is None:
        found = _compare_pixels(job, raster, labels, context)
    else:
        found = _compare_sample(job, strata_field, raster, labels, context)
    score = accuracy(found.confusion, raster.scheme.names)
    context.info(
        f"Overall accuracy {score.overall_accuracy:.3f}, macro F1 {score.macro_f1:.3f}, mIoU {score.mean_iou:.3f}, "
        f"kappa {score.kappa:.3f} over {int(found.confusion.sum())} pixels of {found.n_units} features."
    )
    overall = found.estimates.overall_accuracy
    if math.isfinite(overall.value):
        spread = f" ± {overall.half_width:.3f}" if math.isfinite(overall.half_width) else ""
        context.info(f"Area-adjusted overall accuracy {overall.value:.3f}{spread} (95 %).")
    if job.report:
        context.progress(0.9, "Writing the report")
        report = _report(job, raster, found)
        with Staging() as staging:
            with staging.writing(Path(job.report)) as temporary:
                write_accuracy_report(temporary, report)
            context.commit()
            staging.put_in_place()
    context.progress(1.0, "Done")
    return {
        "REPORT": job.report or "",
        "OVERALL_ACCURACY": round(score.overall_accuracy, 4),
        "MACRO_F1": round(score.macro_f1, 4),
        "AREA_ADJUSTED_ACCURACY": _defined(overall.value),
        "AREA_ADJUSTED_HALF_WIDTH": _defined(overall.half_width),
    }


def _defined(value: float) -> float | str:
    """A number for the outputs; empty where there is none."""
    return round(value, 4) if math.isfinite(value) else ""


def _compare_pixels(job: AccuracyJob, raster: ClassRaster, labels: LabelSet, context: JobContext) -> _Comparison:
    """Polygons or points of which no more is known, pixel by pixel."""
    labels = replace(labels, report=finish_report(labels, count_pixels(labels, raster.grid), minimum_pixels=0))
    for remark in labels.report.remarks():
        context.warning(remark)
    groups, missed = _count(raster, labels, context)
    confusion = groups.sum(axis=0)
    _check_any(confusion, job)
    areas = _areas_ha(class_areas(raster), raster)
    are_points = bool((shapely.get_dimensions(labels.geometries) == 0).all())
    warnings = list(labels.report.remarks())
    if missed:
        warnings.append(f"{missed} reference pixels lie where the map has no data; they do not count.")
    if are_points:
        warnings.append(
            "The points are taken for a simple random sample of the map. Where they were drawn in strata, name these; where "
            "they were placed by hand, the intervals are too sure of themselves."
        )
    else:
        warnings.append(
            "The reference is made of polygons: their pixels are no probability sample, so the area-adjusted numbers "
            "and their intervals are too sure of themselves. Draw a stratified random sample of points for numbers to publish "
            "('Sampling design')."
        )
    return _Comparison(
        confusion=confusion,
        n_units=len(groups),
        areas_ha=areas,
        estimates=area_adjusted_accuracy(confusion, areas, raster.scheme.names),
        interval=bootstrap_interval(groups, seed=0) if len(groups) > 1 else None,
        lines=(
            f"{int(confusion.sum())} reference pixels of {len(groups)} "
            f"{'points' if are_points else 'features'} were compared with the map.",
        ),
        warnings=tuple(warnings),
    )


def _compare_sample(
    job: AccuracyJob, strata_field: str, raster: ClassRaster, labels: LabelSet, context: JobContext
) -> _Comparison:
    """Points that were drawn at random within strata, unit by unit."""
    areas = class_areas(raster)
    context.progress(0.5, "Comparing")
    sample = read_sample(job, strata_field, raster, labels, areas)
    # Points beyond the map's edge do count, as ground that is not mapped.
    remarks = (*replace(labels.report, outside_scene=(), classes_outside=()).remarks(), *sample.notes)
    for remark in remarks:
        context.warning(remark)
    confusion = sample.units.confusion(len(raster.scheme))
    _check_any(confusion, job)
    found = estimates(sample, _areas_ha(areas, raster), raster.scheme.names)
    for note in found.notes:
        context.warning(note)
    used = int(confusion.sum())
    return _Comparison(
        confusion=confusion,
        n_units=used,
        areas_ha=_areas_ha(areas, raster),
        estimates=found,
        interval=None,
        lines=(
            f"{used} points of a random sample in {len(sample.strata)} strata, named by the field '{strata_field}', were "
            "compared with the map.",
        ),
        warnings=remarks,
    )


def _check_any(confusion: NDArray[np.int64], job: AccuracyJob) -> None:
    if not confusion.any():
        raise LabelError(
            f"No reference of '{job.reference.path}' lies on a mapped pixel of '{job.map}'.",
            "Choose a reference inside the map.",
        )


def _areas_ha(areas: ClassAreas, raster: ClassRaster) -> NDArray[np.float64]:
    """(K,) of the scheme's classes; 0 for those that the map does not have."""
    hectares = areas.hectares
    return np.array([hectares.get(code, 0.0) for code in raster.scheme.codes])


def _count(raster: ClassRaster, labels: LabelSet, context: JobContext) -> tuple[NDArray[np.int64], int]:
    """A confusion matrix a feature that has pixels, (G, K, K), and the number of reference pixels without a map."""
    n_classes, grid = len(raster.scheme), raster.grid
    index_of = np.full(256, -1, np.int64)
    index_of[list(raster.scheme.codes)] = np.arange(n_classes)
    counts = np.zeros((len(labels), n_classes, n_classes), np.int64)
    missed = 0
    for row in range(0, grid.height, BLOCK_ROWS):
        window = Window(0, row, grid.width, min(BLOCK_ROWS, grid.height - row))
        burnt = rasterize(labels, grid, window)
        known = burnt.feature >= 0
        if known.any():
            mapped = index_of[raster.read(window)[known]]
            reference, feature = burnt.classes[known].astype(np.int64), burnt.feature[known]
            is_mapped = mapped >= 0
            missed += int((~is_mapped).sum())
            np.add.at(counts, (feature[is_mapped], mapped[is_mapped], reference[is_mapped]), 1)
        context.progress(0.05 + 0.8 * window.stop_row / grid.height, "Comparing")
    return counts[counts.any(axis=(1, 2))], missed


def _report(job: AccuracyJob, raster: ClassRaster, found: _Comparison) -> AccuracyReport:
    return AccuracyReport(
        title=f"Accuracy of {Path(job.map).name}",
        created=creation_time(),
        accuracy=accuracy(found.confusion, raster.scheme.names),
        confusion=found.confusion,
        scheme=raster.scheme,
        n_reference_units=found.n_units,
        mapped_areas_ha=tuple(found.areas_ha.tolist()),
        area_adjusted=found.estimates,
        interval=found.interval,
        lines=found.lines,
        warnings=found.warnings,
        map_codes=_picture(raster),
        provenance={
            "map": Path(job.map).name,
            "reference": Path(job.reference.path).name,
            "class field": job.reference.class_field,
            **software(),
        },
    )


def _picture(raster: ClassRaster) -> NDArray[np.uint8]:
    """The codes, thinned out to a size for a page."""
    step = max(1, -(-max(raster.grid.width, raster.grid.height) // PICTURE_SIDE))
    rows = [raster.read(Window(0, row, raster.grid.width, 1))[:, ::step] for row in range(0, raster.grid.height, step)]
    return np.concatenate(rows)
