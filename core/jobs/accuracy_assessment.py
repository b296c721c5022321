"""The job that compares a map with reference polygons or points."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from core.assessment.area_adjusted import area_adjusted_accuracy
from core.assessment.confusion import accuracy, bootstrap_interval
from core.assessment.contents import AccuracyReport
from core.assessment.report import write_accuracy_report
from core.errors import LabelError
from core.jobs.events import JobContext
from core.jobs.inputs import read_job_labels
from core.jobs.outputs import Staging, check_outputs
from core.jobs.provenance import creation_time, software
from core.jobs.schemas import AccuracyJob
from core.labels.label_set import LabelSet
from core.labels.rasterizing import count_pixels, finish_report, rasterize
from core.mapping.class_raster import ClassRaster, class_areas, open_class_raster
from core.scenes.grid import Window

BLOCK_ROWS = 512
PICTURE_SIDE = 1000


def run_accuracy(job: AccuracyJob, context: JobContext) -> dict[str, Any]:
    """Runs the job; see ``core.jobs.runner``."""
    check_outputs(job, [job.map, job.reference.path])
    context.progress(0.0, "Reading the map and the reference")
    raster = open_class_raster(job.map)
    labels = read_job_labels(job.reference, raster.grid, raster.scheme)
    labels = replace(labels, report=finish_report(labels, count_pixels(labels, raster.grid), minimum_pixels=0))
    for remark in labels.report.remarks():
        context.warning(remark)
    groups, missed = _compare(raster, labels, context)
    if not groups.any():
        raise LabelError(
            f"No reference of '{job.reference.path}' lies on a mapped pixel of '{job.map}'.",
            "Choose a reference inside the map.",
        )
    confusion = groups.sum(axis=0)
    score = accuracy(confusion, raster.scheme.names)
    context.info(
        f"Overall accuracy {score.overall_accuracy:.3f}, macro F1 {score.macro_f1:.3f}, mIoU {score.mean_iou:.3f}, "
        f"kappa {score.kappa:.3f} over {int(confusion.sum())} pixels of {len(groups)} features."
    )
    if job.report:
        context.progress(0.9, "Writing the report")
        report = _report(job, raster, labels, groups, missed)
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
    }


def _compare(raster: ClassRaster, labels: LabelSet, context: JobContext) -> tuple[NDArray[np.int64], int]:
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


def _report(job: AccuracyJob, raster: ClassRaster, labels: LabelSet, groups: NDArray[np.int64], missed: int) -> AccuracyReport:
    confusion = groups.sum(axis=0)
    hectares = class_areas(raster).hectares
    areas = tuple(hectares.get(code, 0.0) for code in raster.scheme.codes)
    are_points = bool((shapely.get_dimensions(labels.geometries) == 0).all())
    warnings = list(labels.report.remarks())
    if missed:
        warnings.append(f"{missed} reference pixels lie where the map has no data; they do not count.")
    if not are_points:
        warnings.append(
            "The reference is made of polygons: their pixels are no probability sample, so the area-adjusted numbers "
            "and their intervals are too sure of themselves. Draw a stratified random sample of points for numbers to publish."
        )
    return AccuracyReport(
        title=f"Accuracy of {Path(job.map).name}",
        created=creation_time(),
        accuracy=accuracy(confusion, raster.scheme.names),
        confusion=confusion,
        scheme=raster.scheme,
        n_reference_units=len(groups),
        mapped_areas_ha=areas,
        area_adjusted=area_adjusted_accuracy(confusion, np.array(areas), raster.scheme.names),
        interval=bootstrap_interval(groups, seed=0) if len(groups) > 1 else None,
        lines=(
            f"{int(confusion.sum())} reference pixels of {len(groups)} "
            f"{'points' if are_points else 'features'} were compared with the map.",
        ),
        warnings=tuple(warnings),
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
