"""Estimators behind a graph of what they are given: their own graphs, for the pixels that each is asked about."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import nn

from core.errors import ModelFileError
from core.models.estimator_model import LEAST_SHARE, EstimatorModel
from core.models.vote_model import VoteModel

_ML_DOMAIN = "ai.onnx.ml"
_SAME_IN_ALL_VERSIONS = {"Cast"}
"""Operators that estimators' graphs take from the standard set, which their graphs have in an older version."""


class _Nodes:
    """Adds nodes and constants to a graph, each under a name of its own."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self._count = 0

    def name(self) -> str:
        self._count += 1
        return f"estimators_{self._count}"

    def constant(self, values: ArrayLike, dtype: Any) -> str:
        from onnx import numpy_helper

        name = self.name()
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """The name of the node's output."""
        from onnx import helper

        name = self.name()
        self.graph.node.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def splice(self, program: bytes, rows: str) -> str:
        """Another graph, of rows (n, columns) to labels and probabilities; the name of these.

        Raises:
            ModelFileError: it has operators that another version may understand otherwise.
        """
        import onnx

        own = onnx.load_model_from_string(program).graph
        names = {own.input[0].name: rows, "": ""}
        for tensor in own.initializer:
            names[tensor.name] = self.name()
            copied = self.graph.initializer.add()
            copied.CopyFrom(tensor)
            copied.name = names[tensor.name]
        for node in own.node:
            if node.domain != _ML_DOMAIN and node.op_type not in _SAME_IN_ALL_VERSIONS:
                raise ModelFileError(
                    f"The estimator has an operator, '{node.op_type}', that no graph of rasters takes over.",
                    "Map with the model file itself.",
                )
            copied = self.graph.node.add()
            copied.CopyFrom(node)
            copied.name = self.name()
            for name in node.output:
                names[name] = self.name()
            for places in (copied.input, copied.output):
                places[:] = [names[name] for name in places]
        return names[own.output[1].name]


def estimators_of(model: nn.Module) -> list[EstimatorModel]:
    """The estimators that a model consists of; none of a network."""
    members = model.members if isinstance(model, VoteModel) else [model]
    return [member for member in members if isinstance(member, EstimatorModel)]


def seer_of(model: nn.Module, number: int) -> int:
    """The first estimator that is given the same as another one: what it is given is worked out once for all of them."""
    members = estimators_of(model)
    own = members[number]
    if own.base is not None:
        return number
    return next(i for i, each in enumerate(members) if each.base is None and each.pixels.counts == own.pixels.counts)


def seen_by(seer: int) -> tuple[str, str]:
    """The names of what an estimator is given: the rows, (1, columns, H, W), and the bits of the inputs known, (1, H, W)."""
    return f"rows_{seer}", f"bits_{seer}"


def append_estimators(proto: Any, model: EstimatorModel | VoteModel) -> None:
    """Turns a graph of what estimators are given into one of their scores; see ``EstimatorModel.forward``.

    Args:
        proto: the graph of what they are given, see ``seen_by``; it is changed.
        model: an estimator, or several.

    Raises:
        ModelFileError: an estimator of operators that are not known.
    """
    from onnx import TensorProto, helper

    nodes, bits = _Nodes(proto.graph), proto.graph.output[1].name
    said = [_scores(nodes, each, *seen_by(seer_of(model, number))) for number, each in enumerate(estimators_of(model))]
    scores = _mean(nodes, said, model.temperatures.tolist()) if isinstance(model, VoteModel) else said[0]
    # (H W, classes) back to the window's rows and columns.
    sides = nodes.add("Shape", bits, start=1)
    shape = nodes.add("Concat", nodes.constant([1, model.specification.n_classes], np.int64), sides, axis=0)
    turned = nodes.add("Transpose", scores, perm=[1, 0])
    proto.graph.node.append(helper.make_node("Reshape", [turned, shape], ["scores"], name="scores"))
    del proto.graph.output[:]
    sides_of_any_size = [1, model.specification.n_classes, None, None]
    proto.graph.output.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, sides_of_any_size))
    if _ML_DOMAIN not in {entry.domain for entry in proto.opset_import}:
        # That of scikit-learn's converter.
        proto.opset_import.append(helper.make_opsetid(_ML_DOMAIN, 1))


def _scores(nodes: _Nodes, member: EstimatorModel, rows: str, bits: str) -> str:
    """(H W, n_classes) logarithms of an estimator's probabilities."""
    n_classes = member.n_classes
    flat = nodes.add("Flatten", nodes.add("Transpose", rows, perm=[0, 2, 3, 1]), axis=3)
    chosen = nodes.add("Reshape", bits, nodes.constant([-1], np.int64))
    # Where nothing is known nobody is asked.
    numbers = nodes.add("Gather", nodes.constant([-1, *member.numbers_by_bits[1:]], np.int64), chosen)
    count = nodes.add("Shape", chosen)
    shape = nodes.add("Concat", count, nodes.constant([n_classes], np.int64), axis=0)
    scores = nodes.add("Expand", nodes.constant([[math.log(1 / n_classes)]], np.float32), shape)
    for number, classes in member.fitted.items():
        is_own = nodes.add("Equal", numbers, nodes.constant(number, np.int64))
        places = nodes.add("Transpose", nodes.add("NonZero", is_own), perm=[1, 0])
        columns = np.concatenate([np.r_[part] for part in member.columns_of(member.subsets[number])])
        asked = nodes.add("GatherND", flat, places)
        if len(columns) < member.n_columns:
            asked = nodes.add("Gather", asked, nodes.constant(columns, np.int64), axis=1)
        shares = nodes.splice(member.graph(number), asked)
        if classes.tolist() != list(range(n_classes)):
            # Each share to the place of its class; others get nothing.
            shares = nodes.add("MatMul", shares, nodes.constant(np.eye(n_classes)[classes], np.float32))
        said = nodes.add("Log", nodes.add("Max", shares, nodes.constant(LEAST_SHARE, np.float32)))
        scores = nodes.add("ScatterND", scores, places, said)
    return scores


def _mean(nodes: _Nodes, said: Sequence[str], temperatures: Sequence[float]) -> str:
    """See ``VoteModel.forward``."""
    shares = [
        nodes.add("Softmax", nodes.add("Div", each, nodes.constant(own, np.float32)), axis=1)
        for each, own in zip(said, temperatures, strict=True)
    ]
    mean = nodes.add("Mean", *shares)
    return nodes.add("Log", nodes.add("Max", mean, nodes.constant(LEAST_SHARE, np.float32)))
