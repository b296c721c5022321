"""The job that writes a simulated scene."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.jobs.events import JobContext
from core.jobs.schemas import SampleSceneJob
from core.scenes.simulate import write_scene


def run_sample_scene(job: SampleSceneJob, context: JobContext) -> dict[str, Any]:
    """Runs the job; see ``core.jobs.runner``."""
    scene = write_scene(Path(job.output), job.size, job.seed, context.progress)
    context.info(f"A simulated scene of {job.size} x {job.size} pixels stands in '{scene.folder}'.")
    return {
        "OUTPUT": str(scene.folder),
        "OPTICAL": str(scene.optical),
        "SAR": str(scene.sar),
        "ELEVATION": str(scene.elevation),
        "LABELS": str(scene.labels),
        "REFERENCE": str(scene.reference),
        "TRUTH": str(scene.truth),
    }
