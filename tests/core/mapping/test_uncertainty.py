"""Doubt, worked out by hand."""

import numpy as np
import pytest

from core.mapping.uncertainty import entropy, likeliest, margin


def confidence(probabilities):
    return likeliest(probabilities)[1]


CERTAIN, EVEN, TWO = (1.0, 0.0, 0.0, 0.0), (0.25, 0.25, 0.25, 0.25), (0.5, 0.5, 0.0, 0.0)
PROBABILITIES = np.array([CERTAIN, EVEN, TWO, (0.1, 0.6, 0.3, 0.0)], np.float32).T.reshape(4, 2, 2)


def test_doubt_by_hand():
    np.testing.assert_allclose(confidence(PROBABILITIES), [[1, 0.25], [0.5, 0.6]])
    np.testing.assert_allclose(margin(PROBABILITIES), [[1, 0], [0, 0.3]], atol=1e-7)
    # Of two classes in four: log 2 / log 4.
    last = -(0.1 * np.log(0.1) + 0.6 * np.log(0.6) + 0.3 * np.log(0.3)) / np.log(4)
    np.testing.assert_allclose(entropy(PROBABILITIES), [[0, 1], [0.5, last]], atol=1e-6)


@pytest.mark.parametrize("measure", [confidence, entropy, margin])
def test_two_classes_do(measure):
    found = measure(np.array([[[0.3]], [[0.7]]], np.float32))
    assert found.shape == (1, 1)
    assert found.dtype == np.float32


def test_the_likeliest_class_is_the_first_of_those_that_are_alike():
    probabilities = np.random.default_rng(0).integers(0, 4, (5, 37, 11)).astype(np.float32)
    best, highest = likeliest(probabilities)
    np.testing.assert_array_equal(best, probabilities.argmax(axis=0))
    np.testing.assert_array_equal(highest, probabilities.max(axis=0))
