"""Patches of pixels and of features: places, means, groups of bands, normalisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.models.features import FeatureMap
from core.models.specification import BandSpecification, EncoderName, FusionName, ModalitySpecification
from core.pretraining.patches import (
    LEAST_SPREAD,
    band_groups,
    feature_channels,
    normalised_patches,
    on_lattice,
    pixel_patches,
    standardised,
    target_side,
)
from core.sensors.registry import SENSORS
from tests.core.models.specifications import ENCODERS, FUSIONS, modality
from tests.core.pretraining.models import small_model, small_specification


@pytest.mark.parametrize(("stride", "patch"), [(1, 4), (2, 8), (4, 4), (8, 4), (4, 6), (32, 8)])
def test_features_on_the_lattice_are_means_of_what_is_known_on_the_ground(stride: int, patch: int) -> None:
    generator = torch.Generator().manual_seed(0)
    side = 96 // stride
    known = (torch.rand(2, 1, side, side, generator=generator) > 0.5).float()
    values = torch.randn(2, 3, side, side, generator=generator) * known
    size = (10, 11)
    found = on_lattice(FeatureMap(values, known, stride), patch, size)
    assert found.stride == patch
    for row, column in ((0, 0), (3, 7), (9, 10)):
        # By single reference pixels; the lattice may end before or after the features.
        pixels = [(y, x) for y in range(patch * row, patch * (row + 1)) for x in range(patch * column, patch * (column + 1))]
        places = [(y // stride, x // stride) for y, x in pixels if y < 96 and x < 96]
        for window in range(2):
            seen = [values[window, :, y, x] for y, x in places if known[window, 0, y, x]]
            assert float(found.known[window, 0, row, column]) == float(bool(seen))
            expected = torch.stack(seen).mean(dim=0) if seen else torch.zeros(3)
            torch.testing.assert_close(found.values[window, :, row, column], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_channels_of_features_are_found(encoder: EncoderName, fusion: FusionName) -> None:
    model = small_model(small_specification(encoder, fusion))
    before = {name: each.clone() for name, each in model.state_dict().items()}
    found = feature_channels(model)
    assert model.training
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    assert found.merged == model.fusion.channels[-1]
    assert found.dense == model.get_submodule("head.classifier").in_channels
    assert set(found.own) == (set() if fusion == "early" else set(model.modalities))


def test_a_model_of_scenes_has_no_dense_features() -> None:
    assert feature_channels(small_model(small_specification("unet", "early", head="scene"))).dense is None


@pytest.mark.parametrize("options", [{}, {"finer": 3}, {"coarser": 2}])
def test_patches_of_pixels_lie_where_they_should(options: dict[str, int]) -> None:
    entry = modality("some", 2, **options)
    height, width = (side * entry.finer // entry.coarser for side in (10, 14))
    values = torch.arange(2.0 * 2 * height * width).view(2, 2, height, width)
    patches = pixel_patches(values, entry, 4, (3, 4))
    side = 4 * entry.finer // entry.coarser
    assert patches.shape == (2, 3, 4, 2, side, side)
    for y, x in ((0, 0), (height - 1, width - 1), (side, side - 1)):
        assert torch.equal(patches[:, y // side, x // side, :, y % side, x % side], values[:, :, y, x])
    assert int(torch.isfinite(patches).sum()) == values.numel()


def test_too_many_pixels_are_averaged_without_those_that_are_missing() -> None:
    entry = modality("metre", 1, "elevation", finer=10)
    assert target_side(entry, 8) == 20
    values = torch.randn(1, 1, 80, 160)
    values[0, 0, :4, :4] = torch.nan
    values[0, 0, 4, 4] = torch.nan
    patches = pixel_patches(values, entry, 8, (1, 2))
    assert patches.shape == (1, 1, 2, 1, 20, 20)
    assert torch.isnan(patches[0, 0, 0, 0, 0, 0])
    assert patches[0, 0, 0, 0, 1, 1].item() == pytest.approx(values[0, 0, 4:8, 4:8].nanmean().item(), rel=1e-5)
    assert patches[0, 0, 1, 0, 2, 3].item() == pytest.approx(values[0, 0, 8:12, 92:96].mean().item(), rel=1e-4, abs=1e-6)


def test_values_count_in_their_own_units_and_only_where_every_band_is_known() -> None:
    entry = modality("optical", 2)
    values = torch.tensor([[[[0.0, 1.0, 99.0]], [[0.1, torch.nan, 0.1]]]])
    found = standardised(values, entry)
    torch.testing.assert_close(found[0, :, 0, 0], torch.zeros(2))
    assert torch.isnan(found[0, :, 0, 1]).all()
    assert found[0, 0, 0, 2] == 6
    heights = standardised(torch.tensor([[[[100.0, 105.0]]]]), modality("dsm", 1, "elevation"))
    assert (heights[..., 1] - heights[..., 0]).item() == pytest.approx(1.0)
    own = standardised(torch.tensor([[[[0.0, 5.0]]]]), modality("height_above_ground", 1, "elevation"))
    assert own.flatten().tolist() == [0.0, 6.0]


def test_bands_are_grouped_by_what_goes_together() -> None:
    sensor = next(sensor for sensor in SENSORS.values() if sensor.name == "sentinel2_l2a")
    bands = tuple(BandSpecification(name=b.name, mean=0, standard_deviation=1, center_nm=b.center_nm) for b in sensor.bands)
    entry = ModalitySpecification(name="s2", role="optical", sensor="sentinel2_l2a", kind="optical", bands=bands)
    names = [[bands[number].name for number in group] for group in band_groups(entry)]
    assert names == [["B1", "B2", "B3", "B4", "B5"], ["B6", "B7", "B8", "B8A", "B9"], ["B11", "B12"]]
    assert band_groups(modality("sar", 2, "sar")) == ((0,), (1,))
    assert band_groups(modality("dsm", 1, "elevation")) == ((0,),)
    nameless = entry.model_copy(update={"bands": tuple(b.model_copy(update={"center_nm": None}) for b in bands)})
    assert band_groups(nameless) == (tuple(range(12)),)


def test_patches_are_normalised_as_by_hand() -> None:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(3, 3, 4, 4, generator=generator) * 2 + 5
    pixels[0, :, 1, 2] = torch.nan
    pixels[1, :, :, :] = torch.nan
    pixels[1, :, 0, :3] = 1.0
    pixels[2] = 3.0
    target, counts = normalised_patches(pixels, ((0, 2), (1,)))
    given = pixels.numpy().astype(float)
    for patch, group in ((0, [0, 2]), (0, [1])):
        chosen = given[patch, group]
        expected = (chosen - np.nanmean(chosen)) / np.sqrt(np.nanvar(chosen) + LEAST_SPREAD**2)
        np.testing.assert_allclose(target[patch, group].numpy(), np.nan_to_num(expected), atol=1e-5)
        assert counts[patch, group].sum() == 15 * len(group)
    # Three pixels say nothing of a patch of sixteen; what is flat stays flat.
    assert not counts[1].any()
    assert not target[1].any()
    assert counts[2].all()
    assert target[2].abs().max() < 1e-5
