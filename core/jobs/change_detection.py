"""The job that finds change between the images of two dates."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import core
from core.assessment.report import write_training_report
from core.errors import LabelError, RasterError
from core.finetuning.change_estimators import ChangeFeatures, ChangeVote, feature_strips
from core.jobs.change_training import (
    UNCHANGED_COLOUR,
    TrainedChange,
    change_report,
    tell_change_scores,
    train_change,
    unchanged_index,
)
from core.jobs.class_maps import tell_areas
from core.jobs.events import JobContext
from core.jobs.inputs import raster_paths, scene_of
from core.jobs.outputs import Staging, check_outputs
from core.jobs.provenance import creation_time
from core.jobs.schemas import DetectChangeJob
from core.labels.scheme import NODATA_CODE, ClassScheme, LandCoverClass
from core.labels.schemes import listed
from core.mapping.class_raster import CLASSES_TAG
from core.mapping.rasters import StripWriter, check_space
from core.mapping.sidecars import DOUBT_RAMP, ClassAreas, Ramp, scheme_colormap, write_class_sidecars, write_ramp_style
from core.models.alteration import Alteration, fit_alteration, length_at, no_change_probability
from core.scenes.categorical import auxiliary_path, style_path
from core.scenes.date_pair import DatePair, PairReader, pair_dates
from core.scenes.grid import Window

MOST_VALUES = 2**24
"""Of both dates, on which the transformation is fitted: of a larger scene every second, third, ... row and column counts."""

WITHOUT_LABELS = (
    "Made without labels: changed is what differs more than chance allows, whatever the reason. Seasons, clouds and haze, "
    "tides and images that do not lie exactly on each other are differences, too, and nothing says how accurate this map is: "
    "take reference points of the change, or draw labels of changed and unchanged ground."
)

UNLABELLED = ClassScheme(
    "change",
    (LandCoverClass(1, "Unchanged", UNCHANGED_COLOUR, "unchanged"), LandCoverClass(2, "Changed", "#c8352b", "changed")),
)


@dataclass(frozen=True, eq=False)
class ChangeStrip:
    """Rows of the result.

    Attributes:
        window: of the grid.
        codes: (rows, columns) uint8, 0 = a date lacks data.
        probability: (rows, columns) float32 of change in percent, NaN where a date lacks data.
        variates: (p + 1, rows, columns) float32, their length first; None where the job does not ask for them.
    """

    window: Window
    codes: NDArray[np.uint8]
    probability: NDArray[np.float32]
    variates: NDArray[np.float32] | None


def run_detect_change(job: DetectChangeJob, context: JobContext) -> dict[str, str | float]:
    """Runs the job; see ``core.jobs.runner``."""
    inputs = [*raster_paths(job.inputs), *raster_paths(job.after_inputs), *([job.labels.path] if job.labels else [])]
    check_outputs(job, inputs)
    pair = _paired(job, context)
    with PairReader(pair) as reader:
        alteration = _fitted(pair, reader, context)
        features = ChangeFeatures(reader, alteration)
        trained: TrainedChange | None = None
        unchanged: int | None = 0
        if job.labels is None:
            scheme = UNLABELLED
            strips = _without_labels(reader, alteration, job.no_change_probability, pair)
        else:
            trained = train_change(job, job.labels, pair, features, context)
            scheme = trained.labels.scheme
            unchanged = _unchanged_class(job, scheme, context)
            strips = _from_labels(features, trained.model, scheme, unchanged, pair, bool(job.variates))
        areas = _write(job, pair, scheme, len(alteration.correlations), strips, trained, context)
    context.progress(1.0, "Done")
    tell_areas(context, scheme, None, areas)
    changed = _changed(areas, scheme, unchanged)
    if changed:
        context.info(f"Changed: {changed[0]:.2f} ha, {changed[1]:.2f} percent of what both dates show.")
    if trained is None:
        context.info(
            f"Unchanged ground that varies as assumed would be called changed in {job.no_change_probability:.3%} of its pixels;"
            " real ground varies more."
        )
        context.warning(WITHOUT_LABELS)
    else:
        tell_change_scores(trained, context)
    score = None if trained is None else trained.scores[0].score
    return {
        "OUTPUT": job.output,
        **{key.upper(): getattr(job, key) or "" for key in ("probability", "variates", "report")},
        "CHANGED_HECTARES": round(changed[0], 4) if changed else "",
        "CHANGED_PERCENT": round(changed[1], 4) if changed else "",
        "OVERALL_ACCURACY": round(score.overall_accuracy, 4) if score else "",
        "MACRO_F1": round(score.macro_f1, 4) if score else "",
    }


def _paired(job: DetectChangeJob, context: JobContext) -> DatePair:
    context.progress(0.0, "Reading the rasters of the first date")
    context.info("First date:")
    before = scene_of(job.inputs, context)
    context.progress(0.02, "Reading the rasters of the second date")
    context.info("Second date, which is read on the grid of the first:")
    after = scene_of(job.after_inputs, context)
    pair = pair_dates(before, after)
    for note in pair.notes:
        context.warning(note)
    context.info(f"Compared on the grid of the first date: {listed(pair.band_names)}.")
    return pair


def _fitted(pair: DatePair, reader: PairReader, context: JobContext) -> Alteration:
    """The transformation to MAD variates.

    Raises:
        RasterError: hardly a pixel has data at both dates, or all have the same.
    """
    sample = _sample(pair, reader, context)
    try:
        alteration = fit_alteration(sample, context.part(0.12, 0.3))
    except ValueError as error:
        raise RasterError(
            f"The two dates cannot be compared: {error}.",
            "Check nodata values, and that the images of both dates overlap and show more than one value.",
        ) from None
    correlations = ", ".join(f"{value:.2f}" for value in alteration.correlations)
    context.info(f"IR-MAD: {alteration.iterations} rounds; canonical correlations {correlations}.")
    return alteration


def _sample(pair: DatePair, reader: PairReader, context: JobContext) -> NDArray[np.float32]:
    """(2, C, n) pixels that both dates show, on a lattice over the scene."""
    grid, count = pair.grid, len(pair.band_names)
    step = max(1, math.ceil(math.sqrt(2 * count * grid.width * grid.height / MOST_VALUES)))
    parts = []
    for window in feature_strips(grid):
        context.progress(0.03 + 0.09 * window.row / grid.height, "Reading both dates")
        first = -window.row % step
        values = reader.read(window)[:, :, first::step, ::step].reshape(2, count, -1)
        parts.append(values[:, :, np.isfinite(values[0, 0])])
    return np.concatenate(parts, axis=2)


def _without_labels(reader: PairReader, alteration: Alteration, level: float, pair: DatePair) -> Iterator[ChangeStrip]:
    unchanged, changed = UNLABELLED.codes
    threshold = length_at(level, len(alteration.correlations))
    for window in feature_strips(pair.grid):
        variates = alteration.variates(reader.read(window))
        length = _length(variates)
        codes = np.where(length > threshold, changed, unchanged)
        percent = 100 * (1 - no_change_probability(variates))
        yield ChangeStrip(
            window,
            np.where(np.isnan(length), NODATA_CODE, codes).astype(np.uint8),
            percent.astype(np.float32),
            np.concatenate([length[None], variates]),
        )


def _from_labels(
    features: ChangeFeatures,
    model: ChangeVote,
    scheme: ClassScheme,
    unchanged: int | None,
    pair: DatePair,
    has_variates: bool,
) -> Iterator[ChangeStrip]:
    table = np.array(scheme.codes, np.uint8)
    for window in feature_strips(pair.grid):
        values = features.of(window)
        known = np.isfinite(values[0])
        codes = np.full(window.shape, NODATA_CODE, np.uint8)
        percent = np.full(window.shape, np.nan, np.float32)
        if known.any():
            shares = model.probabilities(values[:, known].T)
            codes[known] = table[shares.argmax(axis=1)]
            percent[known] = 100 * (1 - shares[:, unchanged]) if unchanged is not None else np.nan
        variates = None
        if has_variates:
            signed = features.alteration.variates(features.reader.read(window))
            variates = np.concatenate([_length(signed)[None], signed])
        yield ChangeStrip(window, codes, percent, variates)


def _length(variates: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.sqrt(np.square(variates, dtype=np.float64).sum(axis=0)), np.float32)


def _unchanged_class(job: DetectChangeJob, scheme: ClassScheme, context: JobContext) -> int | None:
    """The index of the class that means no change; None where the labels have none.

    Raises:
        LabelError: it has to be known and is not.
    """
    index = unchanged_index(scheme, job.unchanged)
    if index is not None:
        return index
    text = f"No class of the labels is called '{job.unchanged}'; they are {listed(scheme.names)}."
    hint = "Name the class that means no change in 'unchanged'."
    if job.probability:
        raise LabelError(f"{text} So the probability of change is not known.", hint)
    context.warning(f"{text} So the area of change is not known. {hint}")
    return None


def _changed(areas: ClassAreas, scheme: ClassScheme, unchanged: int | None) -> tuple[float, float] | None:
    """Hectares of change, and percent of what was mapped; None where no class means no change."""
    if unchanged is None:
        return None
    hectares = {code: area for code, area in areas.hectares.items() if code != NODATA_CODE}
    total = sum(hectares.values())
    changed = total - hectares.get(scheme.codes[unchanged], 0.0)
    return changed, 100 * changed / total


def _write(
    job: DetectChangeJob,
    pair: DatePair,
    scheme: ClassScheme,
    n_variates: int,
    strips: Iterator[ChangeStrip],
    trained: TrainedChange | None,
    context: JobContext,
) -> ClassAreas:
    """Writes all that the job asks for, and puts it in place together."""
    grid, areas = pair.grid, ClassAreas(pair.grid)
    with Staging() as staging, ExitStack() as stack:
        writers = _writers(job, pair, scheme, n_variates, stack)
        for strip in strips:
            areas.add(strip.codes, strip.window.row)
            layers = (strip.codes[None], strip.probability[None], strip.variates)
            for writer, values in zip(writers, layers, strict=True):
                if writer is not None and values is not None:
                    writer.write(values, strip.window.row)
            context.progress(0.55 + 0.4 * strip.window.stop_row / grid.height, "Writing the change")
        for writer in writers:
            if writer is not None:
                writer.finish()
        output = Path(job.output)
        with staging.writing(output) as temporary:
            style, auxiliary = write_class_sidecars(temporary, scheme, areas.counts, areas.hectares)
        staging.add(style, style_path(output))
        staging.add(auxiliary, auxiliary_path(output))
        _stage_ramp(staging, job.probability, DOUBT_RAMP)
        _stage_ramp(staging, job.variates, LENGTH_RAMP)
        if job.report and trained is not None:
            with staging.writing(Path(job.report)) as temporary:
                write_training_report(temporary, change_report(job, pair, trained, areas))
        context.commit()
        stack.close()
        staging.put_in_place()
    return areas


LENGTH_RAMP: Ramp = (
    (0.0, "#f7f7f7", "0: as unchanged ground"),
    (5.0, "#f2c14e", "5 deviations"),
    (15.0, "#d1603d", "15"),
    (30.0, "#7b1e2b", "30"),
)
"""Of the length of the variates."""


def _stage_ramp(staging: Staging, place: str | None, ramp: Ramp) -> None:
    if place:
        with staging.writing(Path(place)) as temporary:
            staging.add(write_ramp_style(temporary, ramp), style_path(Path(place)))


def _writers(
    job: DetectChangeJob, pair: DatePair, scheme: ClassScheme, n_variates: int, stack: ExitStack
) -> list[StripWriter | None]:
    """Of classes, probability and variates; None for what is not asked for."""
    tags = _tags(job, pair)
    names = ("length of the MAD variates", *(f"MAD {number}" for number in range(1, n_variates + 1)))
    wanted = (
        (job.output, "uint8", NODATA_CODE, ("change",)),
        (job.probability, "float32", math.nan, ("probability of change in percent",)),
        (job.variates, "float32", math.nan, names),
    )
    writers: list[StripWriter | None] = []
    for path, dtype, nodata, descriptions in wanted:
        if not path:
            writers.append(None)
            continue
        is_classes = dtype == "uint8"
        size = pair.grid.width * pair.grid.height * np.dtype(dtype).itemsize * len(descriptions)
        check_space(Path(path), int(size * (0.5 if is_classes else 1) * 4 / 3))
        classes = {CLASSES_TAG: json.dumps([asdict(entry) for entry in scheme.classes])} if is_classes else {}
        writer = StripWriter(
            Path(path),
            pair.grid,
            len(descriptions),
            dtype,
            nodata,
            descriptions=descriptions,
            tags={**tags, **classes},
            colormap=scheme_colormap(scheme) if is_classes else None,
        )
        writers.append(stack.enter_context(writer))
    return writers


def _tags(job: DetectChangeJob, pair: DatePair) -> dict[str, str]:
    settings = job.model_dump(include={"unchanged", "no_change_probability", "seed"}) | {
        "labels": Path(job.labels.path).name if job.labels else None,
        "resolution": job.inputs.resolution,
    }
    return {
        "RSFUSION_VERSION": core.__version__,
        "RSFUSION_CREATED": creation_time(),
        "RSFUSION_INPUTS": json.dumps(
            {
                "before": [Path(path).name for path in pair.before.paths],
                "after": [Path(path).name for path in pair.after.paths],
            }
        ),
        "RSFUSION_SETTINGS": json.dumps(settings),
    }
