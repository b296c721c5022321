"""The eight symmetries, and changes of brightness that leave what they must alone."""

from __future__ import annotations

import numpy as np
import pytest

from core.finetuning.networks.augmentation import symmetry, vary_radiometry
from tests.core.models.specifications import MODALITY_SETS, modality

ODD = np.arange(2 * 5 * 5).reshape(2, 5, 5)


def test_eight_different_symmetries_that_are_closed_under_composition() -> None:
    images = [symmetry(ODD, number) for number in range(8)]
    assert len({image.tobytes() for image in images}) == 8
    for image in images:
        assert np.array_equal(np.sort(image, axis=None), ODD.ravel())
        assert image.flags.c_contiguous
        composed = {symmetry(image, number).tobytes() for number in range(8)}
        assert composed == {other.tobytes() for other in images}
    assert np.array_equal(images[0], ODD)


@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize("factor", [2, 4])
def test_finer_and_coarser_grids_turn_alike(number: int, factor: int) -> None:
    fine = ODD.repeat(factor, 1).repeat(factor, 2)
    turned = symmetry(ODD, number)
    assert np.array_equal(symmetry(fine, number), turned.repeat(factor, 1).repeat(factor, 2))


@pytest.mark.parametrize("number", range(8))
def test_channels_stay_in_order_and_axes_swap_with_quarter_turns(number: int) -> None:
    values = np.zeros((3, 4, 6)) + np.arange(3)[:, None, None]
    turned = symmetry(values, number)
    assert turned.shape == ((3, 6, 4) if number % 2 else (3, 4, 6))
    assert np.array_equal(turned.mean(axis=(1, 2)), np.arange(3))


def drawn() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    values = {
        entry.name: generator.uniform(0, 1, (len(entry.bands), 6, 6)).astype(np.float32) for entry in MODALITY_SETS["usual"]
    }
    values["sentinel1"][1, 2, 3] = np.nan
    return values


def test_bands_vary_one_by_one_and_missing_values_stay_missing() -> None:
    values = drawn()
    varied = vary_radiometry(values, MODALITY_SETS["usual"], 0.1, np.random.default_rng(1))
    for entry in MODALITY_SETS["usual"]:
        before, after = values[entry.name], varied[entry.name]
        assert after.dtype == np.float32
        np.testing.assert_array_equal(np.isnan(after), np.isnan(before))
        pairs = [(b[np.isfinite(b)], a[np.isfinite(a)]) for b, a in zip(before, after, strict=True)]
        changes = [np.polyfit(b, a, 1).round(5) for b, a in pairs]
        gains, offsets = np.array(changes).T
        if entry.kind == "elevation":
            np.testing.assert_array_equal(after, before)
        else:
            assert len(set(offsets)) == len(offsets)
            assert (len(set(gains)) == len(gains)) == (entry.kind == "optical")
    assert values["sentinel1"][0, 0, 0] == drawn()["sentinel1"][0, 0, 0]


def test_strength_is_the_spread_of_gain_and_offset() -> None:
    entry = modality("optical", 1)
    generator = np.random.default_rng(2)
    values = {"optical": np.array([[[0.0, 1.0]]], np.float32)}
    pairs = np.array([vary_radiometry(values, [entry], 0.1, generator)["optical"].ravel() for _ in range(2000)])
    offsets, gains = pairs[:, 0], pairs[:, 1] - pairs[:, 0]
    assert abs(gains.std() - 0.1) < 0.01
    assert abs(gains.mean() - 1) < 0.01
    assert abs(offsets.std() - 0.1 * entry.bands[0].standard_deviation) < 0.005


def test_no_strength_changes_nothing_and_a_seed_repeats() -> None:
    modalities = MODALITY_SETS["usual"]
    still = vary_radiometry(drawn(), modalities, 0.0, np.random.default_rng(0))
    first, again = (vary_radiometry(drawn(), modalities, 0.3, np.random.default_rng(9)) for _ in range(2))
    for name, values in drawn().items():
        np.testing.assert_array_equal(still[name], values)
        np.testing.assert_array_equal(first[name], again[name])
