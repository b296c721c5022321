"""The job that writes a model for other software."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.errors import OutputError
from core.jobs.events import JobContext
from core.jobs.outputs import Staging, check_outputs
from core.jobs.schemas import ExportJob
from core.models.model_file import load_model
from core.models.onnx_model import export_graph
from core.models.stac_item import stac_item


def run_export(job: ExportJob, context: JobContext) -> dict[str, Any]:
    """Runs the job; see ``core.jobs.runner``."""
    check_outputs(job, [job.model])
    context.progress(0.0, "Reading the model")
    model, card = load_model(Path(job.model))
    context.progress(0.1, "Tracing the network, which takes a minute or two")
    graph, difference = export_graph(model, card)
    output = Path(job.output)
    context.info(
        f"The graph takes {len(graph) / 2**20:.1f} MiB; its scores differ from those of the network by {difference:.1g} of the "
        "largest."
    )
    with Staging() as staging:
        _write(staging.beside(output), graph, output)
        if job.stac:
            item = stac_item(card, output)
            _write(staging.beside(Path(job.stac)), item.encode(), Path(job.stac))
        context.commit()
        staging.put_in_place()
    context.progress(1.0, "Done")
    return {"OUTPUT": job.output, "STAC": job.stac or "", "LARGEST_DIFFERENCE": difference}


def _write(temporary: Path, data: bytes, path: Path) -> None:
    try:
        temporary.write_bytes(data)
    except OSError as error:
        raise OutputError(
            f"'{path}' cannot be written: {error.strerror}.", "Free some space, or choose another disk."
        ) from None
