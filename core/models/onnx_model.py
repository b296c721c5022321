"""A network as an ONNX graph: one file with its card, which onnxruntime and other software run without torch.

The graph takes every input of the model, (1, C, H, W) float32 in physical units on its own scale, NaN = missing, and returns
``scores`` (1, n_classes, H, W). H and W are any multiples of the model's step.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from core.errors import ModelFileError, UsageError
from core.models.features import size_of
from core.models.fusion_model import FusionModel
from core.models.model_file import ModelCard, load_model, read_card
from core.models.registry import model_step
from core.models.specification import ModalitySpecification, ModelSpecification

SUFFIX = ".onnx"
TOLERANCE = 1e-4
"""By how much a score of the graph may differ from torch's, as part of the largest score."""

_KEY = "rsfusion"
_CHECKED_STEPS = ((8, 8), (11, 9))
"""Sides of the windows that a graph is checked on, in steps of the model; it is traced on the first."""

_MAKING = Lock()


class OnnxModel(nn.Module):
    """A graph that maps as the network did that it was made from.

    Args:
        graph: of ``export_graph``.
        specification: of the network.
    """

    def __init__(self, graph: bytes, specification: ModelSpecification) -> None:
        super().__init__()
        self.specification = specification
        self._modalities = {entry.name: entry for entry in specification.modalities}
        self._graph = graph
        self._step = model_step(specification)

    def forward(self, values: Mapping[str, Tensor]) -> Tensor:
        """(1, n_classes, H, W) scores; see ``FusionModel.forward``. An input that is left out is missing everywhere.

        Raises:
            ValueError: no modality, an unknown one, or shapes that do not belong together.
        """
        height, width = size_of(values, self._modalities)
        rows, columns = (-(-side // self._step) * self._step for side in (height, width))
        with _MAKING:
            session = self._session  # made once, and not by every thread
        scores = session.run(None, graph_inputs(self.specification, values, (rows, columns)))[0]
        return torch.from_numpy(scores)[:, :, :height, :width]

    @cached_property
    def _session(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        return onnxruntime.InferenceSession(self._graph, options, ["CPUExecutionProvider"])


def graph_inputs(
    specification: ModelSpecification, values: Mapping[str, Tensor], size: tuple[int, int] | None = None
) -> dict[str, np.ndarray[Any, Any]]:
    """What a graph is given: every input of the model, NaN where nothing is known.

    Args:
        specification: of the network.
        values: by modality (1, C, h, w), any of them.
        size: rows and columns of reference pixels to fill up to; by default those of the values.
    """
    entries = {entry.name: entry for entry in specification.modalities}
    rows, columns = size or size_of(values, entries)
    return {name: _filled(entry, values.get(name), rows, columns) for name, entry in entries.items()}


def _filled(entry: ModalitySpecification, values: Tensor | None, rows: int, columns: int) -> np.ndarray[Any, Any]:
    """(1, C, h, w) of an input over a window of that many reference pixels, NaN where nothing is given."""
    shape = (1, len(entry.bands), rows * entry.finer // entry.coarser, columns * entry.finer // entry.coarser)
    if values is not None and values.shape == shape:
        return np.ascontiguousarray(values.numpy())
    filled = np.full(shape, np.nan, np.float32)
    if values is not None:
        filled[:, :, : values.shape[2], : values.shape[3]] = values.numpy()
    return filled


class _ByPosition(nn.Module):
    """A network whose inputs are told by their place: graphs know no dictionaries."""

    def __init__(self, model: FusionModel) -> None:
        super().__init__()
        self._model = model

    def forward(self, *values: Tensor) -> Tensor:
        names = [entry.name for entry in self._model.specification.modalities]
        return torch.as_tensor(self._model(dict(zip(names, values, strict=True))))


def export_graph(model: nn.Module, card: ModelCard) -> tuple[bytes, float]:
    """A network as an ONNX graph with its card, checked against the network.

    Args:
        model: in evaluation mode, on the processor.
        card: its card.

    Returns:
        The file's bytes, and the largest difference of scores as part of the largest score: on two sizes of windows, with
        missing pixels, and without each of the inputs where the model has learned to do without.

    Raises:
        UsageError: what the export takes is not installed.
        ModelFileError: no network of pixels, it cannot be traced, or the graph says something else than the network.
    """
    if not isinstance(model, FusionModel) or card.specification.head != "dense":
        raise ModelFileError(
            "Only networks that map pixels become ONNX graphs; a forest, a regression or a vote keeps graphs of its own inside "
            "its model file.",
            "Map with the model file itself, or train with --mode scratch.",
        )
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch asks for it on the way, in words that nobody understands
    except ImportError:
        raise UsageError(
            "An export takes the package 'onnxscript'.", "Install it with: pip install 'rsfusion[export]'."
        ) from None
    specification, step = card.specification, model_step(card.specification)
    names = [entry.name for entry in specification.modalities]
    rows, columns = (torch.export.Dim(name, min=2, max=4096) for name in ("rows", "columns"))
    sides = [step * entry.finer // entry.coarser for entry in specification.modalities]
    shapes = tuple({2: side * rows, 3: side * columns} if side > 1 else {2: rows, 3: columns} for side in sides)
    example = tuple(_values(specification, *(step * count for count in _CHECKED_STEPS[0])).values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                _ByPosition(model).eval(),
                example,
                dynamo=True,
                input_names=names,
                output_names=["scores"],
                dynamic_shapes=(shapes,),
                verbose=False,
            )
        except Exception as error:  # torch's own have no common class
            raise ModelFileError(
                f"The architecture '{specification.architecture}' cannot be traced: {str(error).splitlines()[0]}",
                "Map with the model file itself.",
            ) from None
    if program is None:
        raise ModelFileError("torch has made no graph of the model.", "Map with the model file itself.")
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {_KEY: card.model_dump_json()})
    graph = proto.SerializeToString(deterministic=True)
    worst = _largest_difference(model, OnnxModel(graph, specification), card.allows_missing)
    if not worst <= TOLERANCE:
        raise ModelFileError(
            f"The graph of '{specification.architecture}' says something else than the network: scores differ by {worst:.2g} "
            f"of the largest, and {TOLERANCE:g} are allowed.",
            "Map with the model file itself.",
        )
    return graph, worst


def _values(specification: ModelSpecification, rows: int, columns: int) -> dict[str, Tensor]:
    """Random values as the bands have them, with a gap."""
    generator = torch.Generator().manual_seed(rows + columns)
    values = {}
    for entry in specification.modalities:
        shape = (1, len(entry.bands), rows * entry.finer // entry.coarser, columns * entry.finer // entry.coarser)
        mean = torch.tensor([band.mean for band in entry.bands])[:, None, None]
        deviation = torch.tensor([band.standard_deviation for band in entry.bands])[:, None, None]
        drawn = mean + deviation * torch.randn(shape, generator=generator)
        drawn[:, :, 2:5, 3:9] = torch.nan
        values[entry.name] = drawn
    return values


def _largest_difference(model: FusionModel, graph: OnnxModel, allows_missing: bool) -> float:
    specification, step = model.specification, model_step(model.specification)
    differences = []
    for counts in _CHECKED_STEPS:
        values = _values(specification, *(step * count for count in counts))
        shown = [values]
        if allows_missing and len(values) > 1:
            shown += [{name: each for name, each in values.items() if name != left} for left in values]
        for given in shown:
            with torch.inference_mode():
                expected = model(given)
            difference = (graph(given) - expected).abs().max() / expected.abs().max().clamp_min(1e-6)
            differences.append(difference)
    # The largest of tensors is NaN where one of them is; Python's own would lose it.
    return float(torch.stack(differences).max())


def load_graph(path: Path) -> tuple[OnnxModel, ModelCard]:
    """The model of an exported file, and its card.

    Raises:
        ModelFileError: no graph of ours, or a damaged one.
    """
    import onnx

    try:
        graph = path.read_bytes()
        proto = onnx.load_model_from_string(graph)
        properties = {entry.key: entry.value for entry in proto.metadata_props}
    except FileNotFoundError:
        raise ModelFileError(f"The model '{path}' does not exist.", "Check the path.") from None
    except Exception as error:  # protobuf's own have no common class
        raise ModelFileError(f"'{path}' is no ONNX graph: {error}.", "Use the original file.") from None
    if _KEY not in properties:
        raise ModelFileError(
            f"'{path}' says nothing of its inputs and classes: it was not exported by this software.",
            "Give a graph that 'rsfusion export' has made.",
        )
    card = read_card(properties[_KEY], path)
    model = OnnxModel(graph, card.specification).eval()
    try:
        model._session  # noqa: B018 - the runtime refuses a damaged graph here and not in the middle of a map
    except Exception as error:  # the runtime's errors have no common class
        raise ModelFileError(f"The graph '{path}' is damaged: {error}.", "Use the original file.") from None
    return model, card


def load_model_or_graph(path: Path) -> tuple[nn.Module, ModelCard]:
    """What maps: a model file, or an exported graph; see ``load_model`` and ``load_graph``."""
    return load_graph(path) if path.suffix.lower() == SUFFIX else load_model(path)
