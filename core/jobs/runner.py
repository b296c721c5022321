"""Runs a job of any kind and says how it went."""

from __future__ import annotations

import errno
import traceback
from contextlib import suppress
from typing import Any

from core.errors import Cancelled, OutputError, RsfusionError, UsageError
from core.jobs.events import Event, JobContext
from core.jobs.schemas import (
    AccuracyJob,
    AnyJob,
    ChangeMapJob,
    ClassifyScenesJob,
    CleanMapJob,
    DetectChangeJob,
    DistilJob,
    ExportJob,
    FeaturesJob,
    FinetuneJob,
    MapJob,
    PretrainJob,
    PseudolabelsJob,
    SampleSceneJob,
    SamplingDesignJob,
    SuggestLabelsJob,
    VectorizeMapJob,
    ZonalAreasJob,
)
from core.pretraining.launch import started_processes


def run_job(job: AnyJob, context: JobContext) -> dict[str, Any]:
    """Runs a job in this process.

    Args:
        job: of any kind.
        context: to speak to; cancels the job.

    Returns:
        The outputs: key of the Processing algorithm to path, number or text.

    Raises:
        RsfusionError: what the user can mend, or the cancellation.
    """
    from core.mapping.rasters import raster_environment

    if started_processes() > 1 and not isinstance(job, PretrainJob):
        raise UsageError("Only 'pretrain' runs in several processes together.", "Start it without torchrun.")

    with raster_environment():
        match job:
            case SampleSceneJob():
                from core.jobs.mapping.sample_scene import run_sample_scene

                return run_sample_scene(job, context)
            case PretrainJob():
                from core.jobs.learning.pretrain import run_pretrain

                return run_pretrain(job, context)
            case FeaturesJob():
                from core.jobs.mapping.feature_raster import run_features

                return run_features(job, context)
            case FinetuneJob():
                from core.jobs.learning.finetune import run_finetune

                return run_finetune(job, context)
            case DistilJob():
                from core.jobs.learning.distillation import run_distil

                return run_distil(job, context)
            case MapJob():
                from core.jobs.mapping.land_cover_map import run_map

                return run_map(job, context)
            case ExportJob():
                from core.jobs.models.export import run_export

                return run_export(job, context)
            case AccuracyJob():
                from core.jobs.assessment.accuracy import run_accuracy

                return run_accuracy(job, context)
            case SamplingDesignJob():
                from core.jobs.assessment.sampling_design import run_sampling_design

                return run_sampling_design(job, context)
            case SuggestLabelsJob():
                from core.jobs.labelling.label_suggestions import run_suggest_labels

                return run_suggest_labels(job, context)
            case PseudolabelsJob():
                from core.jobs.labelling.pseudolabels import run_pseudolabels

                return run_pseudolabels(job, context)
            case CleanMapJob():
                from core.jobs.products.cleaning import run_clean

                return run_clean(job, context)
            case VectorizeMapJob():
                from core.jobs.products.polygons import run_vectorize

                return run_vectorize(job, context)
            case ZonalAreasJob():
                from core.jobs.products.zonal_areas import run_areas

                return run_areas(job, context)
            case ChangeMapJob():
                from core.jobs.products.change import run_change

                return run_change(job, context)
            case DetectChangeJob():
                from core.jobs.change.detection import run_detect_change

                return run_detect_change(job, context)
            case ClassifyScenesJob():
                from core.jobs.scenes.classification import run_classify_scenes

                return run_classify_scenes(job, context)


def run_and_report(job: AnyJob, context: JobContext) -> int:
    """Runs a job, sends its last event, and returns the exit code: 0, 1 failed, 2 wrong use, 130 cancelled."""
    try:
        outputs = run_job(job, context)
    except (Exception, KeyboardInterrupt) as error:
        return report_failure(error, context)
    # The files are in place: that nobody listens any more does not make the job a failure.
    with suppress(BrokenPipeError):
        context.send({"event": "result", "outputs": outputs})
    return 0


def report_failure(error: BaseException, context: JobContext) -> int:
    """Sends the event that an error deserves, and returns the exit code."""
    if isinstance(error, BrokenPipeError):
        return Cancelled.exit_code
    event, code = _ending(error)
    with suppress(BrokenPipeError):
        context.send(event)
    return code


def _ending(error: BaseException) -> tuple[Event, int]:
    if isinstance(error, Cancelled | KeyboardInterrupt):
        return {"event": "cancelled"}, Cancelled.exit_code
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = f" while writing '{error.filename}'" if error.filename else ""
        error = OutputError(f"The disk is full{place}.", "Free some space, or choose another disk.")
    if _is_out_of_memory(error):
        error = RsfusionError(
            "The memory is full.", "Close other programs, choose a smaller extent, or compute on the device 'cpu'."
        )
    if isinstance(error, RsfusionError):
        event = {"event": "error", "kind": error.kind, "message": error.message, "hint": error.hint}
        return event, error.exit_code
    return {
        "event": "error",
        "kind": type(error).__name__,
        "message": f"{type(error).__name__}: {error}",
        "hint": "This is a defect of the software; please report it.",
        "traceback": "".join(traceback.format_exception(error)),
    }, 1


def _is_out_of_memory(error: BaseException) -> bool:
    # torch has an error of its own for a GPU, and a plain one with its allocator's name for the processor.
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "CPUAllocator" in str(error)
