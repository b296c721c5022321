"""The job that writes a model for other software."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from core.errors import ModelFileError
from core.folders import write_bytes, write_text
from core.jobs.events import JobContext
from core.jobs.inputs import raster_paths, scene_for_model
from core.jobs.outputs import Staging, check_outputs
from core.jobs.schemas import ExportJob, Inputs
from core.models.architectures import title_of
from core.models.costs import forward_bytes
from core.models.graphs.export import export_graph
from core.models.graphs.int8 import int8_graph
from core.models.model_file import ModelCard, load_model
from core.models.registry import model_step
from core.models.specification import ModelSpecification
from core.models.stac_item import stac_item
from core.pretraining.scene_windows import SceneWindows
from core.scenes.division import divided
from core.scenes.scene import Scene

WINDOWS, FEWEST_WINDOWS = 32, 4
"""Of the rasters, that show the range of the values; and as many others, on which the classes are compared."""

CALIBRATION_BYTES = 2**30
"""The runtime keeps all that a network makes of all windows, about twice the peak of each, until it has seen the last."""

WINDOW_SIZE = 128


Seen = list[dict[str, Tensor]]


def run_export(job: ExportJob, context: JobContext) -> dict[str, Any]:
    """Runs the job; see ``core.jobs.runner``."""
    check_outputs(job, [job.model, *(raster_paths(job.inputs) if job.inputs else [])])
    context.progress(0.0, "Reading the model")
    model, card = load_model(Path(job.model))
    if job.int8 and card.specification.estimator is not None:
        raise ModelFileError(
            f"'{job.model}' is a {title_of(card.specification)}: it has no convolutions that could be written in eight bits.",
            "Export it without int8.",
        )
    windows = _windows(job.inputs, card, context) if job.int8 and job.inputs else None
    context.progress(0.1, "Tracing the model, which takes a minute or two")
    graph, difference = export_graph(model, card)
    output, alike = Path(job.output), None
    context.info(
        f"The graph takes {len(graph) / 2**20:.1f} MiB; its scores differ from those of the model by {difference:.1g} of the "
        "largest."
    )
    if windows is not None:
        context.progress(0.5, "Writing it in eight bits")
        graph, alike = int8_graph(graph, card.specification, *windows, card.allows_missing)
        context.info(f"In eight bits it takes {len(graph) / 2**20:.1f} MiB; {alike:.2%} of the pixels keep their class.")
    with Staging() as staging:
        with staging.writing(output) as temporary:
            write_bytes(temporary, graph)
        if job.stac:
            with staging.writing(Path(job.stac)) as temporary:
                write_text(temporary, stac_item(card, output, Path(job.stac).parent))
        context.commit()
        staging.put_in_place()
    context.progress(1.0, "Done")
    return {
        "OUTPUT": job.output,
        "STAC": job.stac or "",
        "LARGEST_DIFFERENCE": difference,
        "SAME_CLASSES": None if alike is None else round(alike, 5),
    }


def _windows(inputs: Inputs, card: ModelCard, context: JobContext) -> tuple[Seen, Seen]:
    """Windows of one part of the rasters, and of another."""
    # All inputs have to be shown: of what is never seen the range is not known.
    scene, seen = scene_for_model(inputs, card.specification, context)
    if seen != card.specification:
        raise ModelFileError(
            "A graph knows the sensors and the resolution that it was exported for, and these rasters are others.",
            "Give rasters like those that the model was trained on.",
        )
    return windows_of(scene, card.specification)


def windows_of(scene: Scene, specification: ModelSpecification) -> tuple[Seen, Seen]:
    """Windows of one half of a scene, which show the range of its values, and of the other, to compare classes on; of the whole
    where it is too small to be divided."""
    step = model_step(specification)
    side = -(-WINDOW_SIZE // step) * step
    found = []
    count = max(FEWEST_WINDOWS, min(WINDOWS, int(CALIBRATION_BYTES / (2 * forward_bytes(specification, side, side)))))
    for seed, part in enumerate(divided(scene, 0.5, side) or (scene, scene)):
        windows = SceneWindows([part], specification, side, 1)
        windows.open_epoch(seed, 0)
        generator = np.random.default_rng(seed)
        found.append([windows.batch(generator).values for _ in range(count)])
    return found[0], found[1]
