"""Estimators as ONNX graphs, which are data and run no code of their own.

``onnxruntime`` runs them, but for forests; see ``forest``.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.models.forest import FOREST_ROWS, Forest, read_forest

BLOCK_ROWS = 1 << 12
"""Rows that a graph is asked about at a time."""

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
        with _MAKING:
            _ = self._forest or self._session  # made once, and not by every thread
        threads = torch.get_num_threads()
        size = BLOCK_ROWS if self._forest is None else min(FOREST_ROWS, max(BLOCK_ROWS, -(-len(rows) // threads)))
        blocks = [rows[start : start + size] for start in range(0, max(1, len(rows)), size)]
        threads = min(threads, len(blocks))
        if threads < 2:
            return np.concatenate([self._of_block(block) for block in blocks])
        with ThreadPoolExecutor(threads) as pool:
            return np.concatenate(list(pool.map(self._of_block, blocks)))

    def _of_block(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._forest is not None:
            return self._forest.probabilities(rows)
        added = BLOCK_ROWS - len(rows) if self._is_linear else 0
        given = np.pad(rows, ((0, added), (0, 0))) if added else np.ascontiguousarray(rows)
        shares: NDArray[np.float32] = self._session.run(None, {"X": given})[1]
        return shares[: len(rows)]

    @cached_property
    def _forest(self) -> Forest | None:
        return None if self._is_linear else read_forest(self.graph)

    @cached_property
    def _session(self) -> Any:
        # Taken in here: networks do without it.
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # On several threads the runtime shares the trees out among them where the rows are few, and adds up in another order.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        return onnxruntime.InferenceSession(self.graph, options, ["CPUExecutionProvider"])
