"""Networks that map say what networks that were trained say."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from core.models.architectures import ARCHITECTURES, ArchitectureName
from core.models.feature_model import FeatureModel
from core.models.inference import for_inference
from core.models.products import takes_bfloat16
from core.models.specification import EncoderName, FusionName, StemName
from tests.core.models.specifications import EVERY_PAIR, combination, inputs, random_model, side_of, specification


@EVERY_PAIR
def test_every_network_says_the_same_and_stays_as_it_was(stem: StemName, encoder: EncoderName, fusion: FusionName) -> None:
    wanted = combination(stem, encoder, fusion)
    model = random_model(wanted).eval()
    before = copy.deepcopy(model.state_dict())
    side = side_of(wanted)
    values = inputs(wanted, side, side, missing=0.05)
    with torch.inference_mode():
        expected, found = model(values), for_inference(model)(values)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_normalisations_are_folded_and_weights_shared() -> None:
    wanted = specification("unet_intermediate", "three")
    model = random_model(wanted).eval()
    folded = for_inference(model)
    counts = [sum(isinstance(module, nn.BatchNorm2d) for module in each.modules()) for each in (model, folded)]
    assert counts[1] < 0.4 * counts[0]
    assert folded.stems is model.stems or next(folded.stems.parameters()) is next(model.stems.parameters())
    features = FeatureModel(model, uses_decoder=True)
    values = inputs(wanted, 24, 24)
    with torch.inference_mode():
        torch.testing.assert_close(for_inference(features)(values), features(values), rtol=1e-4, atol=1e-4)


def test_in_training_nothing_is_folded_and_what_has_no_convolution_is_itself() -> None:
    model = random_model(specification("unet_early")).train()
    kinds = [[type(module) for module in each.modules()] for each in (model, for_inference(model))]
    for kind, folded in zip(*kinds, strict=True):
        assert folded is kind or (kind in (nn.Conv2d, nn.Linear) and issubclass(folded, kind))
    plain = nn.Sequential(nn.LayerNorm(2), nn.ReLU())
    assert for_inference(plain) is plain


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float32,
        pytest.param(torch.bfloat16, marks=pytest.mark.skipif(not takes_bfloat16(), reason="this processor does not")),
    ],
)
@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_the_number_of_threads_does_not_change_a_bit(architecture: ArchitectureName, dtype: torch.dtype) -> None:
    wanted = specification(architecture, "three")
    side = max(192, side_of(wanted))
    model, values = for_inference(random_model(wanted).eval(), dtype), inputs(wanted, side, side)
    found, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            with torch.inference_mode():
                found.append(model(values))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@EVERY_PAIR
def test_numbers_of_16_bits_say_nearly_the_same_and_leave_the_model_as_it_was(
    stem: StemName, encoder: EncoderName, fusion: FusionName
) -> None:
    wanted = combination(stem, encoder, fusion)
    side = side_of(wanted)
    model, values = random_model(wanted).eval(), inputs(wanted, side, side, missing=0.05)
    before = copy.deepcopy(model.state_dict())
    with torch.inference_mode():
        first = model(values)
        expected, found = for_inference(model)(values), for_inference(model, torch.bfloat16)(values)
        again = model(values)
    assert found.dtype == torch.float32
    apart = (found - expected).square().mean().sqrt() / expected.std()
    assert 0 < apart < 0.1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(first, again)


def test_only_networks_compute_in_16_bits() -> None:
    with pytest.raises(TypeError, match="Only networks"):
        for_inference(nn.Sequential(nn.Linear(2, 2)).eval(), torch.bfloat16)


def test_what_is_wholly_known_is_not_masked_and_says_the_same() -> None:
    """Masks stay where gradients are recorded: what they give must be what is left out."""
    wanted = specification("unet_intermediate", "three")
    model, values = random_model(wanted).eval(), inputs(wanted, 48, 48)
    with torch.inference_mode():
        streams, _ = model._streams(values, None, None, None)
        found = model(values)
    assert all(stream.is_whole for stream in streams.values())
    torch.testing.assert_close(found, model(values).detach(), rtol=1e-4, atol=1e-4)
    values["optical"][:, :, 3, 4] = torch.nan
    with torch.inference_mode():
        assert not model._streams(values, None, None, None)[0]["optical"].is_whole
