"""Estimators as ONNX graphs, which are data and run no code of their own; ``onnxruntime`` runs them."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

BLOCK_ROWS = 1 << 12
"""Rows that a graph is asked about at a time."""

NODES_AT_ONCE = 1 << 14
"""Nodes of a forest's trees that a graph holds: about half a megabyte."""


_MAKING = Lock()


class Program:
    """A fitted estimator, which says the same of a pixel in whatever company and on however many threads.

    Args:
        graph: an ONNX graph of rows (n, columns) float32 to labels and probabilities (n, classes).
        is_linear: its products depend on how many rows they are made of, in the last bits: it is asked about whole blocks.
    """

    def __init__(self, graph: bytes, is_linear: bool) -> None:
        self.graph = graph
        self._is_linear = is_linear

    def shares(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, classes) probabilities.

        Args:
            rows: (n, columns).

        Raises:
            Exception: the graph is damaged, or is of other rows; the runtime's errors have no common class.
        """
        blocks = [rows[start : start + BLOCK_ROWS] for start in range(0, max(1, len(rows)), BLOCK_ROWS)]
        threads = min(torch.get_num_threads(), len(blocks))
        with _MAKING:
            _ = self._sessions  # made once, and not by every thread
        if threads < 2:
            return np.concatenate([self._of_block(block) for block in blocks])
        with ThreadPoolExecutor(threads) as pool:
            return np.concatenate(list(pool.map(self._of_block, blocks)))

    def _of_block(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        added = BLOCK_ROWS - len(rows) if self._is_linear else 0
        given = np.pad(rows, ((0, added), (0, 0))) if added else np.ascontiguousarray(rows)
        first, *others = self._sessions
        shares: NDArray[np.float32] = first.run(None, {"X": given})[1]
        for session in others:
            shares += session.run(None, {"X": given})[1]
        return shares[: len(rows)]

    @cached_property
    def _sessions(self) -> list[Any]:
        """Of the graph; of a large forest several, whose shares add up to those of the forest."""
        # Taken in here: networks do without it.
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # On several threads the runtime shares the trees out among them where the rows are few, and adds up in another order.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        return [onnxruntime.InferenceSession(part, options, ["CPUExecutionProvider"]) for part in forest_parts(self.graph)]


def forest_parts(graph: bytes) -> list[bytes]:
    """A forest of more than ``NODES_AT_ONCE`` nodes as several, each with some of its trees; any other graph as it is.

    The runtime sends every row through all trees before the next. Trees that the processor's cache holds together are asked
    about a whole block of rows two to three times as fast, see ``scripts/benchmarks/mapping.py``.
    """
    import onnx

    model = onnx.load_model_from_string(graph)
    forests = [node for node in model.graph.node if node.op_type == "TreeEnsembleClassifier"]
    if len(forests) != 1:
        return [graph]
    lists = {entry.name: onnx.helper.get_attribute_value(entry) for entry in forests[0].attribute}
    trees, leaves = np.array(lists["nodes_treeids"]), np.array(lists["class_treeids"])
    # Of two classes the runtime works out one from the other, which adds up to more than a whole.
    n_classes = len(lists.get("classlabels_int64s", ()))
    sums_up = lists.get("post_transform", b"NONE") == b"NONE" and not lists.get("base_values") and n_classes > 2
    is_ordered = (np.diff(trees) >= 0).all() and (np.diff(leaves) >= 0).all()
    if len(trees) <= NODES_AT_ONCE or not (sums_up and is_ordered):
        return [graph]
    numbers, firsts = np.unique(trees, return_index=True)
    groups = firsts // NODES_AT_ONCE
    edges = [*numbers[np.flatnonzero(np.diff(groups, prepend=-1))].tolist(), int(numbers[-1]) + 1]
    parts = []
    for first, stop in itertools.pairwise(edges):
        kept = {
            kind: slice(*np.searchsorted(own, (first, stop)).tolist()) for kind, own in (("nodes", trees), ("class", leaves))
        }
        for entry in forests[0].attribute:
            place = kept.get(entry.name.partition("_")[0])
            if place is not None:
                entry.CopyFrom(onnx.helper.make_attribute(entry.name, lists[entry.name][place]))
        parts.append(model.SerializeToString(deterministic=True))
    return parts
