"""The job that compares two maps of one place."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import GridError
from core.folders import write_text
from core.jobs.events import JobContext
from core.jobs.outputs import Staging, check_outputs
from core.jobs.products.class_maps import provenance_tags, write_class_map
from core.jobs.schemas import ChangeMapJob
from core.labels.schemes import listed
from core.mapping.class_raster import ClassRaster, open_class_raster
from core.mapping.majority import ReadCodes
from core.mapping.onto_grid import places_across, reader_on
from core.mapping.patches import STRIP_PIXELS, strips
from core.mapping.transitions import CommonClasses, TransitionAreas, common_classes, transition_scheme
from core.scenes.grid import Window

BOTH_ERRORS = (
    "The difference of two maps has the errors of both: where each is right in 90 percent of its pixels, up to a fifth of all "
    "pixels may differ without any change on the ground. Small changes, and thin ones along the borders of classes, are "
    "suspect; take reference points of the change itself before you publish its area."
)
_MOST_TOLD = 8


def run_change(job: ChangeMapJob, context: JobContext) -> dict[str, Any]:
    """Runs the job; see ``core.jobs.runner``."""
    check_outputs(job, [job.before, job.after])
    context.progress(0.0, "Reading the maps")
    before, after = (open_class_raster(path, fewest_classes=1) for path in (job.before, job.after))
    classes = common_classes(before.scheme, after.scheme)
    _tell_classes(classes, context)
    pairs = _Pairs(before, after, classes, context)
    areas = TransitionAreas(len(classes.names), before.grid.row_pixel_areas_m2())
    for window, one, other in pairs.read(0.02, 0.45, "Comparing"):
        areas.add(one, other, window.row)
    hectares = areas.hectares
    if not hectares.any():
        raise GridError(
            f"'{job.before}' and '{job.after}' have no mapped pixel in common.",
            "Choose two maps of one place, and check their coordinate reference systems.",
        )
    scheme, codes = transition_scheme(classes, hectares)

    def coded() -> Iterator[tuple[int, NDArray[np.uint8]]]:
        for window, one, other in pairs.read(0.5, 0.95, "Writing the transitions"):
            both = (one >= 0) & (other >= 0)
            yield window.row, np.where(both, codes[one, other], np.uint8(0))

    with Staging() as staging:
        tables = ((job.matrix, _matrix(classes, hectares)), (job.summary, _summary(classes, hectares)))
        for path, text in tables:
            if path:
                with staging.writing(Path(path)) as temporary:
                    write_text(temporary, text)
        tags = provenance_tags({"before": before, "after": after}, {})
        write_class_map(Path(job.output), before.grid, scheme, tags, coded(), staging, context)
    context.progress(1.0, "Done")
    changed = float(hectares.sum() - np.trace(hectares))
    _tell(classes, hectares, areas.missing_m2 / 10_000, changed, context)
    return {
        "OUTPUT": job.output,
        "MATRIX": job.matrix or "",
        "SUMMARY": job.summary or "",
        "CHANGED_HECTARES": round(changed, 4),
        "CHANGED_PERCENT": round(100 * changed / float(hectares.sum()), 4),
    }


class _Pairs:
    """The classes of both maps on the grid of the first, strip by strip."""

    def __init__(self, before: ClassRaster, after: ClassRaster, classes: CommonClasses, context: JobContext) -> None:
        self._before = before
        self._classes = classes
        self._context = context
        is_same = before.grid == after.grid
        places = 1 if is_same else places_across(after, before.grid)
        self._read_after: ReadCodes = after.read if is_same else reader_on(after, before.grid)
        self._windows = tuple(strips(before.grid, max(1, STRIP_PIXELS // places**2)))
        if not is_same:
            how = "the most frequent class within each pixel" if places > 1 else "the class under each pixel's centre"
            context.info(f"The second map lies on another grid; it is read on that of the first: {how}.")

    def read(self, start: float, stop: float, phase: str) -> Iterator[tuple[Window, NDArray[np.int64], NDArray[np.int64]]]:
        """Window and class indices of both, -1 = nodata."""
        height = self._before.grid.height
        for window in self._windows:
            one = self._classes.before[self._before.read(window)]
            yield window, one, self._classes.after[self._read_after(window)]
            self._context.progress(start + (stop - start) * window.stop_row / height, phase)


def _matrix(classes: CommonClasses, hectares: NDArray[np.float64]) -> str:
    rows: list[list[object]] = [["from_to_ha", *classes.names, "total"]]
    for name, row in zip(classes.names, hectares, strict=True):
        rows.append([name, *_rounded(row), *_rounded([row.sum()])])
    rows.append(["total", *_rounded(hectares.sum(axis=0)), *_rounded([hectares.sum()])])
    return _csv(rows)


def _summary(classes: CommonClasses, hectares: NDArray[np.float64]) -> str:
    rows: list[list[object]] = [["class", "before_ha", "after_ha", "unchanged_ha", "gain_ha", "loss_ha", "net_ha"]]
    for name, *numbers in zip(classes.names, *_balance(hectares), strict=True):
        rows.append([name, *_rounded(numbers)])
    return _csv(rows)


def _balance(hectares: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """(K,) each: before, after, unchanged, gain, loss, net."""
    before, after, unchanged = hectares.sum(axis=1), hectares.sum(axis=0), np.diag(hectares)
    return before, after, unchanged, after - unchanged, before - unchanged, after - before


def _rounded(values: Iterable[float]) -> list[str]:
    # What rounds to zero has no sign.
    return [f"{round(float(value), 4) + 0.0:.4f}" for value in values]


def _csv(rows: list[list[object]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def _tell_classes(classes: CommonClasses, context: JobContext) -> None:
    for names, which in ((classes.only_before, "first"), (classes.only_after, "second")):
        if names:
            context.warning(
                f"Only the {which} map knows {listed(names)}: all of it counts as change. Are these classes named differently?"
            )


def _tell(classes: CommonClasses, hectares: NDArray[np.float64], missing: float, changed: float, context: JobContext) -> None:
    for name, before, after, _, gain, loss, net in zip(classes.names, *_balance(hectares), strict=True):
        context.info(
            f"{name}: {before:.2f} ha before, {after:.2f} ha after; gained {gain:.2f}, lost {loss:.2f}, net {net:+.2f}."
        )
    off = hectares - np.diag(np.diag(hectares))
    for place in np.argsort(-off, axis=None, kind="stable")[:_MOST_TOLD]:
        one, other = np.unravel_index(place, off.shape)
        if off[one, other]:
            context.info(f"{classes.names[one]} -> {classes.names[other]}: {off[one, other]:.2f} ha.")
    if missing:
        context.info(f"{missing:.2f} ha of the first map's extent are not mapped in both and are left out.")
    context.info(f"Changed: {changed:.2f} of {hectares.sum():.2f} ha ({changed / hectares.sum():.1%}).")
    context.warning(BOTH_ERRORS)
