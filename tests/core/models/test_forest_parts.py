"""Large forests in parts say what they say as a whole."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from core.finetuning.estimators.training import as_program
from core.models import programs
from core.models.programs import Program, forest_parts


@pytest.fixture(scope="module")
def forest() -> RandomForestClassifier:
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(600, 6)).astype(np.float32)
    classes = (rows[:, :4] + generator.normal(size=(600, 4))).argmax(axis=1)
    return RandomForestClassifier(20, random_state=0).fit(rows, classes)


@pytest.mark.parametrize(("nodes", "least"), [(1, 20), (1000, 3), (1 << 20, 1)])
def test_the_parts_add_up(forest: RandomForestClassifier, monkeypatch: pytest.MonkeyPatch, nodes: int, least: int) -> None:
    monkeypatch.setattr(programs, "NODES_AT_ONCE", nodes)
    graph = as_program(forest, 6)
    parts = forest_parts(graph)
    assert (len(parts) == 1) if least == 1 else (least <= len(parts) <= 20)
    rows = np.random.default_rng(1).normal(size=(5000, 6)).astype(np.float32)
    np.testing.assert_allclose(Program(graph, False).shares(rows), forest.predict_proba(rows), atol=1e-5)


def test_two_classes_are_left_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "NODES_AT_ONCE", 1)
    rows = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    forest = RandomForestClassifier(5, random_state=0).fit(rows, rows[:, 0] + 0.5 * rows[:, 1] > 0)
    graph = as_program(forest, 3)
    assert forest_parts(graph) == [graph]
    np.testing.assert_allclose(Program(graph, False).shares(rows), forest.predict_proba(rows), atol=1e-5)
