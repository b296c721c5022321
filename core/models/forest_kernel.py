"""The way of pixels down trees, compiled when this module is taken in.

Its few lines run some thousand times a pixel. Eight pixels go side by side: none waits for another, and no branch has to be
guessed, since which way to go is added to where one is.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from core.models.forest import FEATURE_BITS, LANES, LEAF, STEP_BITS

_FEATURE, _STEP = np.uint32((1 << FEATURE_BITS) - 1), np.uint32((1 << STEP_BITS) - 1)
_STEP_AT, _COMPARED_AT = np.int64(FEATURE_BITS), np.int64(32)
_LEAF = np.int64(LEAF)


@numba.njit(inline="always")
def _below(nodes, values, first, node):  # type: ignore[no-untyped-def]
    """The next node of a pixel whose values begin at ``first``; a leaf is its own."""
    entry = nodes[node]
    value = values[first + (np.uint32(entry) & _FEATURE)]
    step = np.uint32(entry >> _STEP_AT) & _STEP
    return node + step + np.uint32(value > np.int32(entry >> _COMPARED_AT))


@numba.njit(inline="always")
def _is_leaf(nodes, node):  # type: ignore[no-untyped-def]
    return (nodes[node] >> _COMPARED_AT) == _LEAF


@numba.njit(
    "void(int32[:, ::1], int64, int64[::1], uint32[::1], int32[::1], float32[:, ::1], float32[:, ::1])",
    nogil=True,
    boundscheck=False,
)
def descend(
    rows: NDArray[np.int32],
    block_rows: int,
    nodes: NDArray[np.int64],
    roots: NDArray[np.uint32],
    leaves: NDArray[np.int32],
    shares: NDArray[np.float32],
    said: NDArray[np.float32],
) -> None:
    """Adds to ``said`` what all trees say; see ``Forest``.

    Args:
        rows: (n, columns) in order-preserving whole numbers, n a multiple of ``LANES``.
        block_rows: that one tree looks at before the next, a multiple of ``LANES``.
        nodes, roots, leaves, shares: of the forest, the first of the shares being nothing.
        said: (n, classes).
    """
    columns = np.uint32(rows.shape[1])
    # What four trees say is added up at once: sums lie in memory, and are fetched less often.
    found = np.empty((block_rows, 4), np.int32)
    for first in range(0, rows.shape[0], block_rows):
        block = rows[first : first + block_rows]
        values = block.reshape(block.size)
        for tree in range(0, roots.size, 4):
            found[:] = 0
            for member, root in enumerate(roots[tree : tree + 4]):
                for row in range(0, block.shape[0], LANES):
                    at = np.uint32(row) * columns
                    a = b = c = d = e = f = g = h = root
                    while True:
                        a = _below(nodes, values, at, a)
                        b = _below(nodes, values, at + columns, b)
                        c = _below(nodes, values, at + columns * np.uint32(2), c)
                        d = _below(nodes, values, at + columns * np.uint32(3), d)
                        e = _below(nodes, values, at + columns * np.uint32(4), e)
                        f = _below(nodes, values, at + columns * np.uint32(5), f)
                        g = _below(nodes, values, at + columns * np.uint32(6), g)
                        h = _below(nodes, values, at + columns * np.uint32(7), h)
                        # All are asked: to guess which is the last would cost more.
                        half = _is_leaf(nodes, a) & _is_leaf(nodes, b) & _is_leaf(nodes, c) & _is_leaf(nodes, d)
                        if half & _is_leaf(nodes, e) & _is_leaf(nodes, f) & _is_leaf(nodes, g) & _is_leaf(nodes, h):
                            break
                    for lane, node in enumerate((a, b, c, d, e, f, g, h)):
                        found[row + lane, member] = leaves[node]
            for row in range(block.shape[0]):
                one, two, three, four = found[row, 0], found[row, 1], found[row, 2], found[row, 3]
                for number in range(shares.shape[1]):
                    pair, other = shares[one, number] + shares[two, number], shares[three, number] + shares[four, number]
                    said[first + row, number] += pair + other
