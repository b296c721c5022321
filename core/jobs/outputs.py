"""The files that a job writes: checked before any work, put in place together, and gone when the job stops half-way."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import Cancelled, OutputError, ReadError, RsfusionError, WorkersError
from core.jobs.events import JobContext
from core.jobs.schemas import (
    MAP_LAYERS,
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

if TYPE_CHECKING:
    from torch import nn

MODEL_SUFFIXES = (".safetensors",)
RASTER_SUFFIXES = (".tif", ".tiff")
REPORT_SUFFIXES = (".html", ".htm")
VECTOR_SUFFIXES = (".gpkg",)
TABLE_SUFFIXES = (".csv", ".gpkg")

_STYLED_SUFFIXES = (
    ".asc",
    ".bil",
    ".csv",
    ".dat",
    ".dem",
    ".fgb",
    ".geojson",
    ".gml",
    ".gpkg",
    ".img",
    ".jp2",
    ".json",
    ".kml",
    ".nc",
    ".shp",
    ".sqlite",
    ".tif",
    ".tiff",
    ".vrt",
)
"""Files whose style QGIS keeps in a ``.qml`` of the same name."""

_HALF_DONE = re.compile(r"\.(part|partial|probe)\b")
_CHECKPOINT = ".checkpoint.safetensors"
CHECKPOINT_COPIES = 12
"""A checkpoint holds the weights five times: model, average, best and two moments. Two of them, and the model, fit in."""
FURTHER_COPIES = 5
"""Of the weights in the checkpoint of each further network."""


@dataclass(frozen=True)
class Output:
    """A file that a job is asked to write.

    Attributes:
        key: of the job, for messages.
        path: as the user wrote it.
        suffixes: with which its name may end, lower case.
    """

    key: str
    path: str
    suffixes: tuple[str, ...]


def outputs_of(job: AnyJob) -> list[Output]:
    """The files that a job writes, sidecars apart; none for a job that writes a folder."""
    match job:
        case FinetuneJob() | PretrainJob():
            found = [("output_model", job.output_model, MODEL_SUFFIXES), ("report", job.report, REPORT_SUFFIXES)]
        case DistilJob():
            found = [("output_model", job.output_model, MODEL_SUFFIXES)]
        case MapJob():
            found = [(key, getattr(job, key), RASTER_SUFFIXES) for key in ("output", *MAP_LAYERS)]
        case FeaturesJob() | CleanMapJob():
            found = [("output", job.output, RASTER_SUFFIXES)]
        case AccuracyJob():
            found = [("report", job.report, REPORT_SUFFIXES)]
        case VectorizeMapJob() | SamplingDesignJob() | SuggestLabelsJob() | PseudolabelsJob():
            found = [("output", job.output, VECTOR_SUFFIXES)]
        case ZonalAreasJob():
            found = [("output", job.output, TABLE_SUFFIXES)]
        case ChangeMapJob():
            found = [("output", job.output, RASTER_SUFFIXES)]
            found += [(key, getattr(job, key), (".csv",)) for key in ("matrix", "summary")]
        case DetectChangeJob():
            found = [(key, getattr(job, key), RASTER_SUFFIXES) for key in ("output", "probability", "variates")]
            found += [("report", job.report, REPORT_SUFFIXES)]
        case ClassifyScenesJob():
            found = [("output", job.output, VECTOR_SUFFIXES)]
            found += [("output_model", job.output_model, MODEL_SUFFIXES), ("report", job.report, REPORT_SUFFIXES)]
        case ExportJob():
            found = [("output", job.output, (".onnx",)), ("stac", job.stac, (".json",))]
        case SampleSceneJob():
            found = []
    return [Output(key, path, suffixes) for key, path, suffixes in found if path]


def check_outputs(job: AnyJob, inputs: Iterable[str]) -> None:
    """Checks, before any work, that all files of a job can be written and that none of them takes another's place.

    Args:
        job: that writes files.
        inputs: what it reads.

    Raises:
        OutputError: the folder is missing or read-only; the name has another suffix than its kind of file; the file is
            an input or another output; its style would replace that of another layer.
    """
    from core.mapping.rasters import check_output

    inputs = list(inputs)
    taken: list[Output] = []
    for output in outputs_of(job):
        path = Path(output.path)
        if path.suffix.lower() not in output.suffixes:
            raise OutputError(
                f"{output.key}: '{path}' has to end in {' or '.join(output.suffixes)}.", "Choose a name that does."
            )
        for other in taken:
            if _same_place(path, Path(other.path)):
                raise OutputError(f"{output.key} and {other.key} are the same file, '{path}'.", "Give each its own name.")
        check_output(path, inputs)
        if output.suffixes in (RASTER_SUFFIXES, VECTOR_SUFFIXES):
            # Polygons of a map have its name more often than not, and a raster takes up their style if it has none.
            others = inputs if output.suffixes == VECTOR_SUFFIXES else ()
            _check_style(path, [*(Path(other.path) for other in taken), *map(Path, others)])
        taken.append(output)


def _same_place(first: Path, second: Path) -> bool:
    # Two names of one file on disk, and one name in two spellings where the file system ignores the case.
    if first.exists() and second.exists():
        return first.samefile(second)
    return os.path.normcase(first.resolve()) == os.path.normcase(second.resolve())


def _check_style(path: Path, others: Iterable[Path]) -> None:
    """QGIS looks for a layer's style under the layer's name without its suffix, which two layers may share."""
    style = path.with_suffix(".qml")
    beside = list(others)
    if style.exists():
        beside += [other for other in path.absolute().parent.iterdir() if other.suffix.lower() in _STYLED_SUFFIXES]
    for other in beside:
        if _same_place(other.with_suffix(".qml"), style) and not _same_place(other, path):
            raise OutputError(
                f"'{path}' would bring the style '{style}', which belongs to '{other}'.",
                "Choose a name that differs in more than its suffix.",
            )


def checkpoint_path(model: Path) -> Path:
    """Where the training of a model keeps its state while it runs."""
    return model.with_name(f".{model.name}{_CHECKPOINT}")


def trial_checkpoint(checkpoint: Path, number: int) -> Path:
    """Where the training of a further network of the same model keeps its state; of the first, number 0, the checkpoint."""
    return checkpoint.with_name(checkpoint.name.removesuffix(_CHECKPOINT) + f".{number}{_CHECKPOINT}") if number else checkpoint


def _checkpoints(first: Path) -> list[Path]:
    """Those of the first network and of all others."""
    named = re.compile(re.escape(first.name.removesuffix(_CHECKPOINT)) + r"(\.\d+)?" + re.escape(_CHECKPOINT))
    folder = first.absolute().parent
    return [entry for entry in folder.iterdir() if named.fullmatch(entry.name)] if folder.is_dir() else []


def check_training_space(path: Path, model: nn.Module, n_networks: int = 1) -> None:
    """Raises an error while nothing is lost yet: a disk that is full in the last epoch has cost the training.

    Args:
        path: of the model file.
        model: that is trained.
        n_networks: that may be trained.
    """
    copies = CHECKPOINT_COPIES + FURTHER_COPIES * (n_networks - 1)
    size = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    free = shutil.disk_usage(path.absolute().parent).free
    # What an interrupted run has left is part of it.
    free += sum(entry.stat().st_size for entry in _checkpoints(checkpoint_path(path)))
    if free < copies * size:
        raise OutputError(
            f"Training '{path}' takes {copies * size / 2**20:.0f} MiB on its disk for a while, for the model "
            f"and the state of the training, and {free / 2**20:.0f} MiB are free.",
            "Free some space, or choose another disk.",
        )


@contextmanager
def keeping_checkpoint(checkpoint: Path, context: JobContext) -> Iterator[None]:
    """Removes a training's state when it is done with; see ``keeping_progress``."""
    has_state, told = checkpoint.is_file, "What has been trained so far is kept: the same job goes on from there."
    with keeping_progress(has_state, lambda: _remove_checkpoints(checkpoint), told, context):
        yield


@contextmanager
def keeping_strips(output: Path, context: JobContext) -> Iterator[None]:
    """Removes the finished strips of a map when they are done with; see ``keeping_progress``."""
    from core.mapping.journal import has_strips, is_in_use, remove_journal

    def remove() -> None:
        # Of another process that makes the same map now, and is why this one has ended, nothing is touched.
        if not is_in_use(output):
            remove_journal(output)

    told = "What has been mapped so far is kept: the same job goes on from there."
    with keeping_progress(lambda: has_strips(output), remove, told, context):
        yield


@contextmanager
def keeping_progress(
    has_state: Callable[[], bool], remove: Callable[[], None], told: str, context: JobContext
) -> Iterator[None]:
    """Removes what lets a job go on later when it is done with: on success, on the user's cancellation, and after errors
    that the same job would meet again. What the disk, the network, the memory or the system's end of the job spoilt goes on
    from it.

    Args:
        has_state: whether there is anything to go on from.
        remove: removes it.
        told: to the user, where it is kept after an error.
        context: of the job.
    """
    try:
        yield
    except BaseException as error:
        may_pass = Cancelled | OutputError | ReadError | WorkersError
        would_fail_again = isinstance(error, RsfusionError) and not isinstance(error, may_pass)
        is_unwanted = isinstance(error, Cancelled | KeyboardInterrupt) and not context.is_resumable
        if would_fail_again or is_unwanted or not has_state():
            remove()
        elif not isinstance(error, Cancelled | KeyboardInterrupt):
            with suppress(Exception):
                context.info(told)
        raise
    remove()


def _remove_checkpoints(first: Path) -> None:
    for path in _checkpoints(first):
        path.unlink(missing_ok=True)


class Staging:
    """Files written under temporary names beside their places, and moved there together."""

    def __init__(self) -> None:
        self._moves: list[tuple[Path, Path]] = []

    def beside(self, path: Path) -> Path:
        """A temporary name for a file; ``add`` is for what is written next to it under names made from this one."""
        temporary = path.absolute().with_name(f".{path.name}.{secrets.token_hex(4)}.part{path.suffix}")
        self.add(temporary, path)
        return temporary

    def add(self, temporary: Path, path: Path) -> None:
        self._moves.append((temporary, path))

    @contextmanager
    def writing(self, path: Path) -> Iterator[Path]:
        """A temporary name to write to; errors name the file that was asked for.

        Raises:
            OutputError: the file cannot be written.
        """
        temporary = self.beside(path)
        try:
            yield temporary
        except OutputError as error:
            raise OutputError(error.message.replace(str(temporary), str(path)), error.hint) from None

    def put_in_place(self) -> None:
        """Moves all files that were written to their places.

        Raises:
            OutputError: another program holds one of them open.
        """
        for temporary, path in self._moves:
            if temporary.exists():
                try:
                    os.replace(temporary, path)
                except OSError as error:
                    raise OutputError(
                        f"'{path}' cannot be replaced: {error.strerror}.", "Close it in other programs."
                    ) from None

    def __enter__(self) -> Staging:
        return self

    def __exit__(self, *error: object) -> None:
        for temporary, _ in self._moves:
            temporary.unlink(missing_ok=True)


def remove_half_done(job: AnyJob, keep_checkpoint: bool = False) -> None:
    """Removes what a job has half written, for a process that has to end in the middle of it.

    Args:
        job: that is abandoned.
        keep_checkpoint: whether to leave the state of a training, so that it can go on.
    """
    from core.mapping.journal import is_in_use, journal_folder

    paths = [Path(output.path) for output in outputs_of(job)]
    if isinstance(job, SampleSceneJob):
        paths = [Path(os.path.abspath(job.output))]
    paths += [path.with_suffix(".qml") for path in paths if path.suffix.lower() in RASTER_SUFFIXES + VECTOR_SUFFIXES]
    for path in paths:
        folder = path.absolute().parent
        if not keep_checkpoint and is_in_use(path):
            continue  # by another process, which makes the same map
        checkpoints = _checkpoints(checkpoint_path(path.absolute()))
        for entry in list(folder.iterdir()) if folder.is_dir() else []:
            name, own = entry.name.lstrip("."), f"{path.name}."
            is_half_done = entry.name != name and name.startswith(own) and _HALF_DONE.search(name, len(path.name))
            is_checkpoint = entry in checkpoints or entry == journal_folder(path)
            if is_half_done or (is_checkpoint and not keep_checkpoint):
                # Windows does not remove a file that is still open; the process has no time left to argue.
                with suppress(OSError):
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
