"""A network's graph with convolutions in whole numbers of eight bits: a quarter of the size, and faster where the processor
has instructions for them."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.errors import ModelFileError
from core.models.onnx_model import OnnxModel, graph_inputs
from core.models.specification import ModelSpecification

LEAST_ALIKE = 0.99
"""Part of the pixels that have to keep their class."""

_KINDS = ["Conv", "Relu", "Add", "Concat", "MaxPool", "AveragePool", "Resize"]
"""Of operations. Those between two convolutions are taken along, so that values stay in eight bits from one to the next."""

_EDGES = 1
"""Convolutions at either end of the graph that are left as they are where the whole loses too many classes."""

Windows = Sequence[dict[str, Tensor]]


def int8_graph(graph: bytes, specification: ModelSpecification, calibration: Windows, checked: Windows) -> tuple[bytes, float]:
    """A graph with static quantisation of its convolutions, weights for each channel (Jacob et al. 2018, arXiv:1712.05877,
    sections 2 and 3, there with training), by onnxruntime.

    First of all convolutions with what lies between them, then of the convolutions alone, then of all but the first and the
    last, whichever first keeps ``LEAST_ALIKE`` of the classes.

    Args:
        graph: of ``export_graph``.
        specification: of the network.
        calibration: by input (1, C, h, w), windows that show the range of the values.
        checked: other windows, on which the classes are compared.

    Returns:
        The file's bytes, and the part of the pixels of ``checked`` that keep their class.

    Raises:
        ModelFileError: too many change their class in every way.
    """
    import onnx

    proto = onnx.load_model_from_string(graph)
    properties = {entry.key: entry.value for entry in proto.metadata_props}
    convolutions = [node.name for node in proto.graph.node if node.op_type == "Conv"]
    inner = convolutions[_EDGES : len(convolutions) - _EDGES]
    ways: list[tuple[list[str], list[str]]] = [(_KINDS, []), (["Conv"], []), (["Conv"], inner)]
    found = []
    for kinds, nodes in ways:
        quantised = _quantised(proto, specification, calibration, kinds, nodes)
        onnx.helper.set_model_props(quantised, properties)
        told = quantised.SerializeToString(deterministic=True)
        alike = part_alike(OnnxModel(graph, specification), OnnxModel(told, specification), checked)
        if alike >= LEAST_ALIKE:
            return told, alike
        found.append(alike)
    raise ModelFileError(
        f"In eight bits {1 - max(found):.1%} of the pixels would get another class, and {1 - LEAST_ALIKE:.0%} are allowed.",
        "Export without --int8, or distil the model to half its width with 'rsfusion distil'.",
    )


def part_alike(first: OnnxModel, second: OnnxModel, windows: Windows) -> float:
    """Part of the pixels to which two graphs give the same class, where any input is known."""
    same = total = 0
    for values in windows:
        one, other = (graph(values).argmax(dim=1) for graph in (first, second))
        is_known = torch.zeros(one.shape, dtype=torch.bool)
        for given in values.values():
            whole = torch.isfinite(given).all(dim=1, keepdim=True).float()
            is_known |= torch.nn.functional.interpolate(whole, size=one.shape[-2:])[:, 0] > 0
        same += int((one == other)[is_known].sum())
        total += int(is_known.sum())
    return same / total if total else 0.0


def _quantised(proto: Any, specification: ModelSpecification, calibration: Windows, kinds: list[str], nodes: list[str]) -> Any:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._windows: Iterator[dict[str, np.ndarray[Any, Any]]] = (
                graph_inputs(specification, values) for values in calibration
            )

        def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
            return next(self._windows, None)

    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # the library logs its advice to its own callers
    try:
        with tempfile.TemporaryDirectory() as name:
            prepared, output = Path(name) / "prepared.onnx", Path(name) / "int8.onnx"
            quant_pre_process(proto, str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared),
                str(output),
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=kinds,
                per_channel=True,
                # With seven bits no processor's sums overflow, and the answers are the same on all of them.
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_quantize=nodes or None,
            )
            return onnx.load(str(output))
    finally:
        logging.getLogger().setLevel(level)
