"""A network's graph with convolutions in whole numbers of eight bits: a quarter of the size, and faster where the processor
has instructions for them."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from core.errors import ModelFileError
from core.models.graphs.onnx_model import OnnxModel, graph_inputs
from core.models.specification import ModelSpecification
from core.models.subsets import mapped_pixels

LEAST_ALIKE = 0.99
"""Part of the pixels that have to keep their class."""

PERCENTILE = 99.99
"""Of the values that are seen: what lies beyond is cut, so that a glint does not coarsen all others. On a network of random
weights it kept 99.4 % of the classes, and the whole range 99.2 %."""

Windows = Sequence[dict[str, Tensor]]


def int8_graph(
    graph: bytes, specification: ModelSpecification, calibration: Windows, checked: Windows, allows_missing: bool
) -> tuple[bytes, float]:
    """A graph with static quantisation of its convolutions, weights for each channel (Jacob et al. 2018, arXiv:1712.05877,
    sections 2 and 3, there with training), by onnxruntime.

    First of all convolutions; then of those between the first that looks at neighbours and the classifier, without those
    of the inputs' statistics, whose ranges are wide; then of those that look at neighbours, which cost most. The first that
    keeps ``LEAST_ALIKE`` of the classes is taken.

    Args:
        graph: of ``export_graph``.
        specification: of the network.
        calibration: by input (1, C, h, w), windows that show the range of the values.
        checked: other windows, on which the classes are compared.
        allows_missing: whether the model maps where some of its inputs are missing.

    Returns:
        The file's bytes, and the part of the pixels of ``checked`` that keep their class.

    Raises:
        ModelFileError: too many change their class in every way.
    """
    import onnx

    proto = onnx.load_model_from_string(graph)
    properties = {entry.key: entry.value for entry in proto.metadata_props}
    found = []
    for nodes in _choices(proto):
        quantised = _quantised(proto, specification, calibration, nodes)
        onnx.helper.set_model_props(quantised, properties)
        told = quantised.SerializeToString(deterministic=True)
        alike = part_alike(OnnxModel(graph, specification), OnnxModel(told, specification), checked, allows_missing)
        if alike >= LEAST_ALIKE:
            return told, alike
        found.append(alike)
    raise ModelFileError(
        f"In eight bits {1 - max(found):.1%} of the pixels would get another class, and {1 - LEAST_ALIKE:.0%} are allowed.",
        "Export without --int8, or distil the model to half its width with 'rsfusion distil'.",
    )


def part_alike(first: OnnxModel, second: OnnxModel, windows: Windows, allows_missing: bool) -> float:
    """Part of the pixels that are mapped to which two graphs give the same class."""
    same = total = 0
    for values in windows:
        one, other = (graph(values).argmax(dim=1) for graph in (first, second))
        is_mapped = mapped_pixels(values, first.specification, (one.shape[-2], one.shape[-1]), allows_missing)
        same += int((one == other)[is_mapped].sum())
        total += int(is_mapped.sum())
    return same / total if total else 0.0


def _choices(proto: Any) -> list[list[str]]:
    """Names of convolutions, most of them first."""
    shapes = {entry.name: list(entry.dims) for entry in proto.graph.initializer}
    convolutions = [node for node in proto.graph.node if node.op_type == "Conv"]
    sides = [max(shapes.get(node.input[1], [1])[2:], default=1) for node in convolutions]
    names = [node.name for node in convolutions]
    looking = [number for number, side in enumerate(sides) if side > 1]
    inner = names[looking[0] : -1] if looking else []
    every = [names, inner, [names[number] for number in looking]]
    return [each for number, each in enumerate(every) if each and each not in every[:number]]


def _quantised(proto: Any, specification: ModelSpecification, calibration: Windows, nodes: list[str]) -> Any:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
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
        with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
            whole, prepared, output = (Path(name) / f"{part}.onnx" for part in ("whole", "prepared", "int8"))
            onnx.save(proto, str(whole))
            quant_pre_process(str(whole), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared),
                str(output),
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                calibrate_method=CalibrationMethod.Percentile,
                extra_options={"CalibPercentile": PERCENTILE},
                per_channel=True,
                # With seven bits no processor's sums overflow, and the answers are the same on all of them.
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_quantize=nodes,
            )
            return onnx.load(str(output))
    finally:
        logging.getLogger().setLevel(level)
