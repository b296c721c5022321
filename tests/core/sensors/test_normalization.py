from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.sensors import get_sensor, robust_statistics
from core.sensors.statistics import surface_reflectance_statistics


def test_outliers_hardly_move_the_statistics() -> None:
    generator = np.random.default_rng(1)
    values = generator.normal(100.0, 10.0, (2, 10_000))
    clean_mean, clean_deviation = robust_statistics(values)
    values[:, :100] = 1e6
    values[1, 100:200] = np.nan
    mean, deviation = robust_statistics(values)
    np.testing.assert_allclose(mean, clean_mean, atol=0.5)
    np.testing.assert_allclose(deviation, clean_deviation, rtol=0.05)
    np.testing.assert_allclose(mean, 100.0, atol=0.6)
    np.testing.assert_allclose(deviation, 10.0, rtol=0.1)


def test_empty_and_constant_bands_never_divide_by_zero() -> None:
    mean, deviation = robust_statistics(np.array([[np.nan] * 4, [7.0] * 4, [1e6] * 4, [0.0] * 4]))
    np.testing.assert_array_equal(mean, [0.0, 7.0, 1e6, 0.0])
    np.testing.assert_array_equal(deviation, 1.0)


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=50), st.floats(0.1, 10), st.floats(-100, 100))
def test_statistics_follow_a_linear_change(values: list[float], scale: float, shift: float) -> None:
    first_mean, first_deviation = robust_statistics(np.array([values]))
    mean, deviation = robust_statistics(np.array([values]) * scale + shift)
    np.testing.assert_allclose(mean, first_mean * scale + shift, rtol=1e-6, atol=1e-6)
    if first_deviation[0] != 1.0 and first_deviation[0] > 0.1:
        np.testing.assert_allclose(deviation, first_deviation * scale, rtol=1e-6)


def test_statistics_by_wavelength_pass_through_sentinel2() -> None:
    for band in get_sensor("sentinel2_l2a").bands:
        assert surface_reflectance_statistics(band.center_nm or 0.0) == (band.mean, band.standard_deviation)
    low, high = surface_reflectance_statistics(492.7)[0], surface_reflectance_statistics(559.8)[0]
    assert surface_reflectance_statistics((492.7 + 559.8) / 2)[0] == pytest.approx((low + high) / 2)
    assert surface_reflectance_statistics(2500.0) == surface_reflectance_statistics(2202.4)
