"""Which places are worth a label, on units that can be followed by hand."""

import numpy as np
import pytest
import shapely

from core.assessment.suggestions import Units, candidates, choose_places, doubt, joined, reason


def units(probabilities, features=None, novelty=None, centres=None) -> Units:
    count = len(probabilities)
    places = np.array([(100.0 * i, 0.0) for i in range(count)]) if centres is None else np.array(centres, float)
    return Units(
        shapes=np.array([shapely.Point(place).buffer(5) for place in places], dtype=object),
        centres=places,
        diameters=np.full(count, 10.0),
        probabilities=np.array(probabilities, float),
        novelty=np.full(count, 0.5) if novelty is None else np.array(novelty, float),
        features=np.arange(count, dtype=float)[:, None] if features is None else np.array(features, float),
    )


def test_doubt_is_entropy():
    found = doubt(units([(1, 0), (0.5, 0.5), (0.9, 0.1)]))
    assert found == pytest.approx([0, 1, -(0.9 * np.log2(0.9) + 0.1 * np.log2(0.1))], abs=1e-6)


@pytest.mark.parametrize(("count", "wanted"), [(9, 0), (10, 1), (20, 2)])
def test_a_tenth_of_the_places_is_on_strange_ground_that_the_model_is_sure_of(count, wanted):
    generator = np.random.default_rng(0)
    shares = [(1, 0)] * 6 + [(0.5 + 0.4 * part, 0.5 - 0.4 * part) for part in generator.random(60)]
    # Two kinds of strange ground, one of them more common.
    features = [(1000.0 + i,) for i in range(4)] + [(2000.0,), (2001.0,)] + [(100 * part,) for part in generator.random(60)]
    given = units(shares, features, novelty=[3.0] * 6 + [0.5] * 60)
    found = choose_places(given, count, 0).tolist()
    assert [row for row in found if row < 6] == found[:wanted]
    if wanted == 1:
        assert found[0] in range(4)
    if wanted == 2:
        assert sum(row in range(4) for row in found[:2]) == 1
    kept = candidates(given, 1)
    assert set(range(6)) <= set(kept.tolist())


def test_of_look_alikes_the_middle_is_taken():
    features = [(float(place),) for place in (0, 1, 2, 3, 4, 100, 101, 102)]
    found = choose_places(units([(0.5, 0.5)] + [(0.52, 0.48)] * 7, features), 2, seed=0)
    assert set(found.tolist()) == {2, 6}


def test_of_look_alikes_one_is_taken_and_the_most_doubtful_comes_first():
    # Three kinds of doubtful ground, of which the first is the most common; and certain ground.
    probabilities = [(0.5, 0.5)] * 6 + [(0.6, 0.4), (0.55, 0.45)] + [(0.7, 0.3)] + [(1, 0)] * 20
    features = [(0.0,)] * 6 + [(50.0,), (51.0,)] + [(100.0,)] + [(200.0 + i,) for i in range(20)]
    found = choose_places(units(probabilities[:9], features[:9]), 3, seed=0)
    assert found[0] in range(6)
    assert found[1] in (6, 7)
    assert found[2] == 8
    assert set(choose_places(units(probabilities, features), 2, seed=0).tolist()) & set(range(9))


def test_no_two_lie_in_one_place():
    centres = [(0, 0), (15, 0), (40, 0), (500, 0)]
    found = choose_places(units([(0.5, 0.5)] * 3 + [(0.9, 0.1)], centres=centres), 4, seed=1)
    chosen = np.array(centres, float)[found]
    apart = np.hypot(*(chosen[:, None] - chosen[None]).transpose(2, 0, 1))[np.triu_indices(len(chosen), 1)]
    assert (apart >= 20).all()
    assert 3 in found
    assert len(found) == 3


@pytest.mark.parametrize("count", [1, 5, 40])
def test_as_many_as_are_wanted_or_there_are_and_the_same_twice(count):
    generator = np.random.default_rng(2)
    shares = generator.dirichlet((1, 1, 1), 30)
    given = units(shares, generator.normal(size=(30, 4)), centres=1000 * generator.random((30, 2)))
    first, again = choose_places(given, count, 7), choose_places(given, count, 7)
    np.testing.assert_array_equal(first, again)
    assert len(first) == len(set(first.tolist())) <= min(count, 30)
    if count < 30:
        assert len(first) == count
    doubts = doubt(given)[first]
    assert (np.diff(doubts) <= 0).all()


def test_units_of_several_panels_are_joined_in_order():
    parts = [units([(1, 0)]), units([(0.5, 0.5), (0, 1)])]
    whole = joined(parts)
    assert len(whole) == 3
    np.testing.assert_array_equal(whole.probabilities, [(1, 0), (0.5, 0.5), (0, 1)])
    np.testing.assert_array_equal(whole.some(np.array([2])).probabilities, [(0, 1)])


def test_the_reason_in_words():
    names = ("Water", "Trees", "Crops")
    assert reason(np.array([0.2, 0.45, 0.35]), 0.8, names) == "undecided: Trees 45%, Crops 35%"
    assert reason(np.array([0.9, 0.1, 0]), 3.14, names) == (
        "unlike all labels (3.1 times as far as most of them); the model says Water"
    )
