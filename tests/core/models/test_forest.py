"""Forests say what scikit-learn and ONNX's runtime make of the same trees, and damaged ones are left to the runtime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

from core.finetuning.estimators.training import as_program
from core.models.forest import LANES, ordered, read_forest
from core.models.programs import Program


def fitted(n_classes: int, columns: int, trees: int, n_rows: int = 400) -> tuple[RandomForestClassifier, bytes]:
    generator = np.random.default_rng(n_classes + columns)
    rows = generator.normal(size=(n_rows, columns)).astype(np.float32)
    classes = (rows[:, [0]] + generator.normal(size=(n_rows, n_classes))).argmax(axis=1)
    classes[:n_classes] = np.arange(n_classes)
    forest = RandomForestClassifier(trees, class_weight="balanced", random_state=0).fit(rows, classes)
    return forest, as_program(forest, columns)


@pytest.mark.parametrize("n_classes", [2, 3, 10])
@pytest.mark.parametrize("columns", [1, 15, 300])
def test_a_forest_says_what_its_trees_say(n_classes: int, columns: int) -> None:
    forest, graph = fitted(n_classes, columns, 20)
    rows = np.random.default_rng(1).normal(size=(1003, columns)).astype(np.float32)
    walked = read_forest(graph)
    assert walked is not None
    said = walked.probabilities(rows)
    np.testing.assert_allclose(said, forest.predict_proba(rows), atol=2e-6)
    np.testing.assert_allclose(said, onnxruntime.InferenceSession(graph).run(None, {"X": rows})[1], atol=2e-6)
    sure = np.sort(said, axis=1)[:, -2:] @ [-1, 1] > 1e-5
    assert sure.mean() > 0.5
    assert np.array_equal(said.argmax(axis=1)[sure], forest.predict(rows)[sure])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 3 * LANES), st.integers(0, 5000))
def test_company_changes_no_bit(first: int, count: int) -> None:
    _, graph = fitted(4, 6, 5)
    walked = read_forest(graph)
    assert walked is not None
    rows = np.random.default_rng(2).normal(size=(6000, 6)).astype(np.float32)
    whole = walked.probabilities(rows)
    assert np.array_equal(walked.probabilities(rows[first : first + count]), whole[first : first + count])


def test_what_a_threshold_says_goes_left() -> None:
    forest, graph = fitted(3, 2, 10)
    walked = read_forest(graph)
    assert walked is not None
    thresholds = np.concatenate([tree.tree_.threshold[tree.tree_.feature == 0] for tree in forest.estimators_])
    values = thresholds.astype(np.float32)
    near = np.concatenate([values, np.nextafter(values, np.float32(-9)), np.nextafter(values, np.float32(9))])
    rows = np.stack([near, np.zeros_like(near)], axis=1)
    np.testing.assert_allclose(
        walked.probabilities(rows), onnxruntime.InferenceSession(graph).run(None, {"X": rows})[1], atol=2e-6
    )


def test_order_is_kept() -> None:
    values = np.array([-np.inf, -3.5, -1e-40, 0.0, 1e-40, 2.0, np.inf], np.float32)
    assert (np.diff(ordered(values).astype(np.int64)) > 0).all()
    assert ordered(np.array([-0.0], np.float32)) == ordered(np.array([0.0], np.float32))


def test_a_single_leaf_is_a_tree() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    forest = RandomForestClassifier(3, max_leaf_nodes=2, min_samples_leaf=25, random_state=0).fit(rows, np.arange(50) % 3)
    walked = read_forest(as_program(forest, 3))
    assert walked is not None
    np.testing.assert_allclose(walked.probabilities(rows), forest.predict_proba(rows), atol=2e-6)


def test_boosted_trees_are_left_to_the_runtime() -> None:
    rows = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    boosting = HistGradientBoostingClassifier(max_iter=3).fit(rows, np.arange(200) % 3)
    assert read_forest(as_program(boosting, 3)) is None


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("nodes_featureids", lambda numbers: [5000, *numbers[1:]]),
        ("nodes_featureids", lambda numbers: [-1, *numbers[1:]]),
        ("nodes_featureids", lambda numbers: numbers[1:]),
        ("nodes_truenodeids", lambda numbers: [99999, *numbers[1:]]),
        ("nodes_truenodeids", lambda numbers: [0, *numbers[1:]]),
        ("nodes_falsenodeids", lambda numbers: [1, *numbers[1:]]),
        ("nodes_nodeids", lambda numbers: [1, *numbers[1:]]),
        ("nodes_treeids", lambda numbers: [-1, *numbers[1:]]),
        ("class_ids", lambda numbers: [7, *numbers[1:]]),
        ("class_nodeids", lambda numbers: [0, *numbers[1:]]),
        ("class_weights", lambda numbers: numbers[1:]),
        ("nodes_values", lambda numbers: numbers[1:]),
    ],
)
def test_damaged_trees_are_not_walked(name: str, damage: object) -> None:
    _, graph = fitted(3, 4, 3)
    model = onnx.load_model_from_string(graph)
    (node,) = (each for each in model.graph.node if each.op_type == "TreeEnsembleClassifier")
    (entry,) = (each for each in node.attribute if each.name == name)
    assert callable(damage)
    entry.CopyFrom(onnx.helper.make_attribute(name, damage(list(onnx.helper.get_attribute_value(entry)))))
    assert read_forest(model.SerializeToString()) is None


def test_other_columns_are_refused() -> None:
    program = Program(fitted(3, 4, 3)[1], is_linear=False)
    with pytest.raises(ValueError, match="4 values"):
        program.shares(np.zeros((2, 5), np.float32))
