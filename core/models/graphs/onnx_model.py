"""A model as an ONNX graph: one file with its card, which onnxruntime and other software run without torch.

The graph takes every input of the model, (1, C, H, W) float32 in physical units on its own scale, NaN = missing, and returns
``scores`` (1, n_classes, H, W). H and W are any multiples of the model's step.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from core.errors import ModelFileError
from core.models.features import size_of
from core.models.model_file import ModelCard, load_model, read_card
from core.models.registry import model_step
from core.models.specification import ModalitySpecification, ModelSpecification

SUFFIX = ".onnx"
CARD_KEY = "rsfusion"
"""Under which a graph's properties hold the card."""

_MAKING = Lock()


class OnnxModel(nn.Module):
    """A graph that maps as the model did that it was made from.

    Args:
        graph: of ``export_graph``.
        specification: of the model.
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
        # On several threads the runtime adds up a forest's trees in another order, which would change the last bits.
        options.intra_op_num_threads = torch.get_num_threads() if self.specification.estimator is None else 1
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
    if CARD_KEY not in properties:
        raise ModelFileError(
            f"'{path}' says nothing of its inputs and classes: it was not exported by this software.",
            "Give a graph that 'rsfusion export' has made.",
        )
    card = read_card(properties[CARD_KEY], path)
    model = OnnxModel(graph, card.specification).eval()
    try:
        model._session  # noqa: B018 - the runtime refuses a damaged graph here and not in the middle of a map
    except Exception as error:  # the runtime's errors have no common class
        raise ModelFileError(f"The graph '{path}' is damaged: {error}.", "Use the original file.") from None
    return model, card


def load_model_or_graph(path: Path) -> tuple[nn.Module, ModelCard]:
    """What maps: a model file, or an exported graph; see ``load_model`` and ``load_graph``."""
    return load_graph(path) if path.suffix.lower() == SUFFIX else load_model(path)
