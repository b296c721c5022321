"""Random forests: eight pixels at a time go down a tree, and a block of pixels through one tree before the next.

ONNX's runtime sends a pixel through all trees before the next pixel, so that every step waits for the one before it and every
tree is fetched anew: it takes four to ten times as long, see ``scripts/benchmarks/mapping.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

LANES = 8
"""Pixels that go down a tree together."""

FEATURE_BITS, STEP_BITS = 12, 20
"""Of a node's number: which value it looks at, and how far behind it its branches lie. What is compared takes the other 32."""

LEAF = np.iinfo(np.int32).max
"""What a leaf compares with: no number is larger, so that whoever is there stays."""

FOREST_ROWS = 1 << 14
"""Pixels that a tree looks at before the next: the more, the less often trees are fetched from memory."""

_VALUES_AT_ONCE = 1 << 18
"""Of such a block, at most, so that they, too, stay in the processor's cache."""

_KINDS = {b"BRANCH_LEQ", b"LEAF"}


@dataclass(frozen=True, eq=False)
class Forest:
    """A forest's trees one after the other, each level by level, the two branches of a node side by side.

    Attributes:
        nodes: (n,) int64: what to compare with, as a number of the same order (see ``ordered``); the step to the left branch;
            the value to look at.
        leaves: (n,) int32 row of ``shares`` of a leaf.
        roots: (trees,) uint32.
        shares: (n, classes) float32, what a leaf adds, of two classes only to the second; the first row is zero. Most leaves of
            grown trees are of one class, and share a row.
        n_columns: values of a pixel.
        n_classes: of the answer.
    """

    nodes: NDArray[np.int64]
    leaves: NDArray[np.int32]
    roots: NDArray[np.uint32]
    shares: NDArray[np.float32]
    n_columns: int
    n_classes: int

    @property
    def block_rows(self) -> int:
        """Pixels that are looked at by one tree before the next."""
        return max(LANES, min(FOREST_ROWS, _VALUES_AT_ONCE // self.n_columns) // LANES * LANES)

    def probabilities(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, classes), the same of a pixel in whatever company.

        Args:
            rows: (n, columns).

        Raises:
            ValueError: other columns.
        """
        if rows.shape[1] != self.n_columns:
            raise ValueError(f"the forest looks at {self.n_columns} values, and there are {rows.shape[1]}")
        filled = np.zeros((-(-len(rows) // LANES) * LANES, rows.shape[1]), np.int32)
        filled[: len(rows)] = ordered(rows)
        said = np.zeros((len(filled), self.shares.shape[1]), np.float32)
        block = min(self.block_rows, max(LANES, len(filled)))
        self._descend(filled, block, self.nodes, self.roots, self.leaves, self.shares, said)
        said = said[: len(rows)]
        return np.concatenate([1 - said, said], axis=1) if said.shape[1] < self.n_classes else said

    @cached_property
    def _descend(self) -> Any:
        # Compiled when it is taken in, which takes a second or two: who asks no forest does without.
        from core.models.forest_kernel import descend

        return descend


def ordered(values: NDArray[np.float32]) -> NDArray[np.int32]:
    """Whole numbers in the order of the values; both zeros are one."""
    bits = (np.ascontiguousarray(values, np.float32) + np.float32(0)).view(np.int32)
    return bits ^ ((bits >> 31) & LEAF)


def read_forest(graph: bytes) -> Forest | None:
    """The forest of an ONNX graph; None where it is anything else, or trees that are not in order."""
    import onnx

    model = onnx.load_model_from_string(graph)
    trees = [node for node in model.graph.node if node.op_type == "TreeEnsembleClassifier"]
    # The one other node gives the label in other numbers.
    if len(trees) != 1 or any(node.op_type != "Cast" for node in model.graph.node if node is not trees[0]):
        return None
    lists = {entry.name: onnx.helper.get_attribute_value(entry) for entry in trees[0].attribute}
    is_sum = lists.get("post_transform", b"NONE") == b"NONE" and not lists.get("base_values")
    n_classes = len(lists.get("classlabels_int64s") or lists.get("classlabels_strings") or ())
    if not is_sum or n_classes < 2 or not set(lists.get("nodes_modes", ())) <= _KINDS:
        return None
    if any(lists.get("nodes_missing_value_tracks_true", ())):
        return None
    try:
        return _laid_out(lists, model.graph.input[0].type.tensor_type.shape.dim[1].dim_value, n_classes)
    except (KeyError, IndexError, ValueError):
        return None


def _laid_out(lists: dict[str, Any], n_columns: int, n_classes: int) -> Forest:
    """Raises:
    KeyError, IndexError, ValueError: these are no trees, or larger ones than fit.
    """
    tree, own = (np.asarray(lists[f"nodes_{name}"], np.int64) for name in ("treeids", "nodeids"))
    feature = np.asarray(lists["nodes_featureids"], np.int64)
    is_leaf = np.array([mode == b"LEAF" for mode in lists["nodes_modes"]])
    count, span = len(tree), int(own.max()) + 1
    if min(tree.min(), own.min(), feature.min()) < 0 or feature.max() >= min(n_columns, 1 << FEATURE_BITS) or span > count:
        raise ValueError("numbers of nodes or values that there are not")
    names = tree * span + own
    order = np.argsort(names, kind="stable")
    if (np.diff(names[order]) == 0).any():
        raise ValueError("two nodes of one number")

    def found(trees: NDArray[np.int64], nodes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where nodes of trees are listed."""
        wanted = trees * span + nodes
        places: NDArray[np.int64] = order[np.searchsorted(names[order], wanted).clip(max=count - 1)]
        if (names[places] != wanted).any():
            raise ValueError("a branch leads nowhere")
        return places

    branches = np.zeros((count, 2), np.int64)
    inner = np.flatnonzero(~is_leaf)
    for side, name in enumerate(("nodes_truenodeids", "nodes_falsenodeids")):
        branches[inner, side] = found(tree[inner], np.asarray(lists[name], np.int64)[inner])
    # Level by level through all trees; a node that two branches lead to would be met twice.
    firsts = np.unique(tree, return_index=True)[1]
    levels = [firsts]
    met = len(firsts)
    while len(parents := levels[-1][~is_leaf[levels[-1]]]):
        levels.append(branches[parents].ravel())
        met += len(levels[-1])
        if met > count:
            raise ValueError("the branches are no trees")
    walked = np.concatenate(levels)
    if len(np.unique(walked)) != count:
        raise ValueError("the branches are no trees")
    walked = walked[np.argsort(tree[walked], kind="stable")]
    place = np.empty(count, np.int64)
    place[walked] = np.arange(count)
    step = np.where(is_leaf, 0, place[branches[:, 0]] - place)
    if step.max() >= 1 << STEP_BITS or count >= 1 << 31:
        raise ValueError("a tree is too large")
    compared = np.where(is_leaf, LEAF, ordered(np.asarray(lists["nodes_values"], np.float32)))
    nodes = compared.astype(np.int64) << 32 | step << FEATURE_BITS | np.where(is_leaf, 0, feature)

    numbers = np.cumsum(is_leaf) - 1
    classes = np.asarray(lists["class_ids"], np.int64)
    said = found(np.asarray(lists["class_treeids"], np.int64), np.asarray(lists["class_nodeids"], np.int64))
    # Of two classes the weights of one are listed, and mean the second, whatever number they are given.
    n_listed = 1 if n_classes == 2 else n_classes
    if not is_leaf[said].all() or classes.min() < 0 or classes.max() >= n_classes or len(set(classes)) > n_listed:
        raise ValueError("classes of no leaf")
    shares = np.zeros((int(is_leaf.sum()) + 1, n_listed), np.float32)
    shares[numbers[said], classes if n_listed > 1 else 0] = np.asarray(lists["class_weights"], np.float32)
    # As bytes, which is quicker than class by class; zeros are the least of them.
    rows = shares.view(f"V{shares.shape[1] * shares.itemsize}")[:, 0]
    _, distinct, row_of_leaf = np.unique(rows, return_index=True, return_inverse=True)
    return Forest(
        nodes=nodes[walked],
        leaves=np.where(is_leaf, row_of_leaf[numbers], 0)[walked].astype(np.int32),
        roots=place[firsts].astype(np.uint32),
        shares=shares[distinct],
        n_columns=n_columns,
        n_classes=n_classes,
    )
