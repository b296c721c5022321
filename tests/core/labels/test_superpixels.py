"""Super-pixels: ids, gaps, pieces that look alike, and what is published of them."""

from __future__ import annotations

import sys
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from core.labels.superpixels import SuperpixelMethod, superpixels, visible_bands

METHODS: tuple[SuperpixelMethod, ...] = get_args(SuperpixelMethod)
EVERY_METHOD = pytest.mark.parametrize("method", METHODS)


def fields(bands: int = 3, noise: float = 0.01) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """An image of sixteen fields of 12 x 12 pixels, in reflectance, and which field a pixel is in."""
    source = np.random.default_rng(3)
    plan = np.arange(16).reshape(4, 4)
    colours = np.stack([source.permutation(16).reshape(4, 4) / 40 for _ in range(bands)])
    image = np.kron(colours, np.ones((12, 12))) + noise * source.standard_normal((bands, 48, 48)) / 40
    return image.astype(np.float32), np.kron(plan, np.ones((12, 12), int))


@EVERY_METHOD
def test_super_pixels_lie_within_fields(method: SuperpixelMethod) -> None:
    image, plan = fields()
    ids = superpixels(image, method)
    assert ids.dtype == np.int32
    assert np.unique(ids).tolist() == list(range(1, ids.max() + 1))
    assert ids.max() >= 16
    most = [np.bincount(plan[ids == number]).max() / (ids == number).sum() for number in range(1, ids.max() + 1)]
    assert np.mean(most) > 0.95


def test_felzenszwalb_finds_the_fields_themselves() -> None:
    """Without the Gaussian, which leaves slivers of mixed pixels between them."""
    image, plan = fields()
    ids = superpixels(image, sigma=0.0)
    assert ids.max() == 16
    assert all(len(np.unique(plan[ids == number])) == 1 for number in range(1, 17))


@EVERY_METHOD
def test_super_pixels_are_connected(method: SuperpixelMethod) -> None:
    ids = superpixels(fields(noise=2.0)[0], method)
    # Felzenszwalb's graph joins diagonal neighbours.
    assert all(ndimage.label(ids == number, np.ones((3, 3)))[1] == 1 for number in range(1, ids.max() + 1))


@EVERY_METHOD
@pytest.mark.parametrize("bands", [1, 2, 5])
def test_any_number_of_bands_can_be_cut_without_a_warning(method: SuperpixelMethod, bands: int) -> None:
    assert superpixels(fields(bands)[0], method).max() > 4


@EVERY_METHOD
def test_missing_pixels_belong_to_none(method: SuperpixelMethod) -> None:
    image, plan = fields()
    image[1, 5:20, 3:9] = np.nan
    image[:, 30, 40] = np.inf
    ids = superpixels(image, method)
    assert np.array_equal(ids == 0, ~np.isfinite(image).all(axis=0))
    assert np.unique(ids).tolist() == list(range(ids.max() + 1))
    most = [np.bincount(plan[ids == number]).max() / (ids == number).sum() for number in range(1, ids.max() + 1)]
    assert np.mean(most) > 0.9


@EVERY_METHOD
def test_degenerate_images_are_cut(method: SuperpixelMethod) -> None:
    assert not superpixels(np.full((3, 8, 8), np.nan), method).any()
    assert superpixels(np.full((3, 16, 16), 0.3), method).min() == 1
    single = np.full((2, 8, 8), np.nan)
    single[:, 4, 4] = 1
    assert superpixels(single, method).sum() == 1


@EVERY_METHOD
def test_physical_units_do_not_matter(method: SuperpixelMethod) -> None:
    image = fields(noise=1.0)[0].astype(np.float64)
    assert np.array_equal(superpixels(image, method), superpixels(256 * image - 32, method))


def test_scale_and_least_size_set_the_size() -> None:
    image = fields(noise=3.0)[0]
    counts = [superpixels(image, scale=scale).max() for scale in (20, 200, 2000)]
    assert counts[0] > counts[1] > counts[2]
    assert np.bincount(superpixels(image).ravel())[1:].min() >= 30
    assert superpixels(image, least=5).max() > counts[1]


def test_the_scale_is_meant_for_values_of_a_byte() -> None:
    """Two fields that differ by d in 0 to 1, of n pixels without noise, stay apart as long as d > scale / 255 / n."""
    image = np.zeros((1, 10, 20))
    image[:, :, 10:] = 0.5
    image[:, 0, 0] = 1.0
    for scale, count in ((0.4 * 255 * 100, 2), (2.0 * 255 * 100, 1)):
        assert superpixels(image, scale=scale, sigma=0.0, least=2).max() == count


def test_slic_has_the_size_asked_for() -> None:
    image = fields(noise=3.0)[0]
    for pixels in (36, 144):
        assert 0.6 < superpixels(image, "slic", pixels=pixels).max() / (48 * 48 / pixels) < 1.6


def test_the_visible_bands_are_those_nearest_to_red_green_and_blue() -> None:
    sentinel2 = [443, 492, 560, 665, 704, 740, 783, 833, 865, 1614, 2202]
    assert visible_bands([float(each) for each in sentinel2]) == [1, 2, 3]
    assert visible_bands([833.0, 665.0]) == [1]
    assert visible_bands([None, None]) == [0, 1]
    assert visible_bands([None] * 5) == [0, 1, 2]
    assert visible_bands([None, 665.0]) == [1]


def test_importing_it_does_not_load_scikit_image() -> None:
    import subprocess

    program = "import sys, core.labels.superpixels; print('skimage' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
