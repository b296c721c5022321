"""The job that finds change between the images of two dates."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import core
from core.assessment.report import write_training_report
from core.errors import RasterError
from core.finetuning.change.estimators import ChangeFeatures, feature_strips
from core.finetuning.change.network import ChangeNetwork
from core.jobs.change.network_training import base_of
from core.jobs.change.preview import ChangePreview
from core.jobs.change.strips import UNLABELLED, ChangeStrip, from_network, from_vote, without_labels
from core.jobs.change.training import TrainedChange, change_report, tell_change_scores, train_change
from core.jobs.devices import choose_device
from core.jobs.events import JobContext
from core.jobs.inputs import raster_paths, scene_of
from core.jobs.outputs import Staging, check_outputs, checkpoint_path, keeping_checkpoint
from core.jobs.products.class_maps import tell_areas
from core.jobs.provenance import creation_time
from core.jobs.schemas import DetectChangeJob
from core.labels.scheme import NODATA_CODE, ClassScheme
from core.labels.schemes import listed
from core.mapping.class_raster import CLASSES_TAG
from core.mapping.rasters import StripWriter, check_space
from core.mapping.sidecars import DOUBT_RAMP, ClassAreas, Ramp, scheme_colormap, write_class_sidecars, write_ramp_style
from core.models.alteration import Alteration, fit_alteration
from core.scenes.categorical import auxiliary_path, style_path
from core.scenes.date_pair import DatePair, PairReader, pair_dates

MOST_VALUES = 2**24
"""Of both dates, on which the transformation is fitted: of a larger scene every second, third, ... row and column counts."""

WITHOUT_LABELS = (
    "Made without labels: changed is what differs more than chance allows, whatever the reason. Seasons, clouds and haze, "
    "tides and images that do not lie exactly on each other are differences, too, and nothing says how accurate this map is: "
    "take reference points of the change, or draw labels of changed and unchanged ground."
)


def run_detect_change(job: DetectChangeJob, context: JobContext) -> dict[str, str | float]:
    """Runs the job; see ``core.jobs.runner``."""
    rasters = [*raster_paths(job.inputs), *raster_paths(job.after_inputs)]
    check_outputs(job, [*rasters, *([job.labels.path] if job.labels else []), *filter(None, [job.base_model])])
    base = base_of(job)
    pair = _paired(job, context)
    with PairReader(pair) as reader, keeping_checkpoint(checkpoint_path(Path(job.output)), context):
        alteration = _fitted(pair, reader, context)
        features = ChangeFeatures(reader, alteration)
        trained: TrainedChange | None = None
        unchanged: int | None = 0
        if job.labels is None:
            scheme = UNLABELLED
            strips = without_labels(reader, alteration, job.no_change_probability, pair)
        else:
            trained = train_change(job, job.labels, base, pair, features, context)
            scheme, unchanged = trained.labels.scheme, trained.unchanged
            strips = _mapped(job, trained, features, pair)
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
        "MODEL_USED": trained.scores[0].row.name if trained else "",
    }


def _mapped(job: DetectChangeJob, trained: TrainedChange, features: ChangeFeatures, pair: DatePair) -> Iterator[ChangeStrip]:
    scheme, unchanged, has_variates = trained.labels.scheme, trained.unchanged, bool(job.variates)
    if isinstance(trained.model, ChangeNetwork):
        return from_network(trained.model, scheme, unchanged, features, choose_device(job.device), has_variates)
    return from_vote(features, trained.model, scheme, unchanged, pair, has_variates)


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
    grid, areas, preview = pair.grid, ClassAreas(pair.grid), ChangePreview(pair)
    with Staging() as staging, ExitStack() as stack:
        writers = _writers(job, pair, scheme, n_variates, stack)
        for strip in strips:
            areas.add(strip.codes, strip.window.row)
            preview.add(strip.window, strip.codes)
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
                write_training_report(temporary, change_report(job, pair, trained, areas, preview))
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
    settings = job.model_dump(include={"unchanged", "mode", "epochs", "no_change_probability", "seed"}) | {
        "base_model": Path(job.base_model).name if job.base_model else None,
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
