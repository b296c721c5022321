"""A margin that nobody asks about: what is left is the same to the bit, and is made from less."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from core.models.decoders.unet import cuts_of_levels
from core.models.fusion_model import FusionModel
from core.models.inference import for_inference
from core.models.registry import model_step, receptive_radius
from core.models.specification import EncoderName, FusionName, StemName
from core.models.stems.channels import STATISTICS_RADIUS
from tests.core.models.specifications import EVERY_PAIR, MODALITY_SETS, combination, inputs, random_model, specification


def with_gaps(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each input lacks another part of the window."""
    gapped = {name: given.clone() for name, given in values.items()}
    for number, given in enumerate(gapped.values()):
        rows, columns = (side // 3 for side in given.shape[-2:])
        given[:, :, number * rows : number * rows + rows // 2, columns:] = torch.nan
    return gapped


@pytest.mark.parametrize("modalities", MODALITY_SETS)
@pytest.mark.parametrize("fusion", ["early", "intermediate", "late"])
def test_the_rest_of_a_window_is_what_it_is_in_the_whole(fusion: FusionName, modalities: str) -> None:
    wanted = combination("statistics", "unet", fusion, modalities, depth=2)
    model, step = for_inference(random_model(wanted).eval()), model_step(wanted)
    assert isinstance(model, FusionModel)
    radius = receptive_radius(wanted)
    assert radius is not None
    side = -(-(2 * radius + 40) // step) * step
    values = inputs(wanted, side, side, 1)
    for given in (values, with_gaps(values)):
        with torch.inference_mode():
            whole = model(given)
            for margin in (1, 5, radius - 3, radius, radius + 7):
                part = model(given, margin=margin)
                assert torch.equal(part, whole[:, :, margin : side - margin, margin : side - margin]), margin
    # Nothing is left out that the answer rests on.
    assert model.fusion.radius is not None
    assert model.head.radius is not None
    seen = model.fusion.radius + model.head.radius + STATISTICS_RADIUS
    assert (model.spared(seen + step - 1), model.spared(seen + step)) == (0, step)


@EVERY_PAIR
def test_any_parts_leave_a_margin_out(stem: StemName, encoder: EncoderName, fusion: FusionName) -> None:
    wanted = combination(stem, encoder, fusion)
    model, values = random_model(wanted, least=24), inputs(wanted, 48, 48, 1)
    with torch.inference_mode():
        whole, part = model(values), model(values, margin=7)
    assert part.shape[-2:] == (34, 34)
    torch.testing.assert_close(part, whole[:, :, 7:41, 7:41], rtol=0, atol=1e-5 * float(whole.abs().max()))


def test_sides_that_the_levels_do_not_divide() -> None:
    wanted = specification("unet_intermediate", "usual", has_shortcut=True)
    model, values = random_model(wanted), inputs(wanted, 150, 141, 1)
    with torch.inference_mode():
        whole, part = model(values), model(values, margin=60)
    torch.testing.assert_close(part, whole[:, :, 60:90, 60:81], rtol=0, atol=1e-5 * float(whole.abs().max()))


def test_a_network_that_says_nothing_is_not_asked() -> None:
    wanted = specification("unet_intermediate", "usual", has_shortcut=True)
    model, values = random_model(wanted), inputs(wanted, 96, 96, 1)
    torch.nn.init.zeros_(model.head.classifier.weight)
    assert model.head.classifier.bias is not None
    torch.nn.init.zeros_(model.head.classifier.bias)
    assert model.is_linear
    asked = []
    model.fusion.register_forward_hook(lambda module, given, told: asked.append(module))
    with torch.inference_mode():
        whole, part = model(values), model(values, margin=20)
        assert not asked
        assert torch.equal(part, whole[:, :, 20:76, 20:76])
        assert torch.equal(whole, model.linear_scores(values))
    assert model.spared(20) == 12
    model.train()
    model(values)
    assert asked


def test_what_a_decoder_leaves_out_by_hand() -> None:
    # The finest block looks two pixels far, interpolation one pixel of two, the block before it two of them.
    assert cuts_of_levels([1, 2], 40) == [38, 32]
    assert cuts_of_levels([1, 2], 3) == [1, 0]
    assert cuts_of_levels([1], 0) == [0]
    assert cuts_of_levels([2, 4, 8], 60) == [56, 44, 16]
