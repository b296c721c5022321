"""Estimators as graphs: what is said of a pixel depends on nothing but the pixel."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from core.finetuning.estimators.training import as_program, new_estimator
from core.models.programs import BLOCK_ROWS, Program
from core.models.specification import EstimatorSpecification

KINDS = ("forest", "boosting", "logistic")


@pytest.fixture(scope="module", params=KINDS)
def program(request: pytest.FixtureRequest) -> Program:
    generator = np.random.default_rng(0)
    rows, classes = generator.normal(size=(300, 6)).astype(np.float32), generator.integers(0, 4, 300)
    estimator = new_estimator(EstimatorSpecification(kind=request.param), 0, rows.size)
    return Program(as_program(estimator.fit(rows, classes), 6), is_linear=request.param == "logistic")


def test_threads_and_company_change_no_bit(program: Program) -> None:
    rows = np.random.default_rng(1).normal(size=(4 * BLOCK_ROWS + 7, 6)).astype(np.float32)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        whole = program.shares(rows)
        for count in (1, 2, 3, 4):
            torch.set_num_threads(count)
            for size in (1, 2, 10, 50, 129, BLOCK_ROWS, 3 * BLOCK_ROWS + 1, len(rows)):
                assert np.array_equal(program.shares(rows[:size]), whole[:size])
    finally:
        torch.set_num_threads(threads)
    assert whole.shape == (len(rows), 4)


def test_the_graph_is_the_same_in_every_process(program: Program) -> None:
    domains = [entry.domain for entry in onnx.load_from_string(program.graph).opset_import]
    assert domains == sorted(domains)
    assert len(domains) > 1 or domains == ["ai.onnx.ml"]
