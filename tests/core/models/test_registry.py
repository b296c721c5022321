"""How far models see, and the windows that they ask for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from core.models.fusion_model import FusionModel
from core.models.registry import build_model, count_parameters, model_step, receptive_radius
from core.models.specification import EncoderName, FusionName, ModelSpecification, StemName
from core.models.stems.band_codes import BandCodes
from core.scenes.grid import COARSER_FACTORS
from tests.core.models.specifications import (
    EVERY_COMBINATION,
    FUSIONS,
    MODALITY_SETS,
    STEMS,
    combination,
    inputs,
    modality,
    random_model,
    side_of,
)

CLOSE = {"unet": 0.6, "resnet": 0.4, "resunet": 0.4}
"""How much of the bound is seen at least. Encoders with strides count the worst phase of each."""

LOCAL_FUSIONS = [fusion for fusion in FUSIONS if fusion != "asymmetric_attention"]


def with_positive_weights(model: FusionModel) -> FusionModel:
    """A model through which a larger input passes to every output that it can reach: no weight cancels another, no unit
    is silent and the largest value wins every pooling."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
            if parameter.ndim > 1:
                parameter.fill_(1 / parameter[0].numel())
            else:
                # So that what falls is not cut off at zero.
                parameter.add_(1)
        for module in model.modules():
            if isinstance(module, BandCodes):
                # Kernels that do not depend on the band, all positive.
                module.layers[-1].weight.zero_()
                module.layers[-1].bias.fill_(0.1)
    return model.eval().double()


@torch.no_grad()
def farthest_change(model: FusionModel, values: dict[str, Tensor], wanted: ModelSpecification, place: int) -> int:
    """How many reference pixels beyond a changed input pixel the output still changes, along the rows."""
    plain, farthest = model(values), 0
    for entry in wanted.modalities:
        changed = {name: value.clone() for name, value in values.items()}
        pixel = place * entry.finer // entry.coarser
        changed[entry.name][:, :, 0, pixel] += 50
        differs = (model(changed) - plain).abs().amax(dim=(0, 1, 2))
        # Heights are centred on the mean of the whole tile first, which stirs the last bits everywhere.
        columns = torch.nonzero(differs > 1e-13 * float(plain.abs().max()))
        first = pixel * entry.coarser // entry.finer
        last = first + entry.coarser - 1
        farthest = max(farthest, first - int(columns.min()), int(columns.max()) - last)
    return farthest


def assert_close_bound(wanted: ModelSpecification, phases: int) -> None:
    torch.manual_seed(0)
    model = with_positive_weights(build_model(wanted))
    radius, step = receptive_radius(wanted), model_step(wanted)
    assert radius is not None
    # One row of tiles is enough to see how far a change travels along it.
    width = side_of(wanted, 2 * radius + 4 * step)
    middle = width // 2 // step * step
    values = {name: torch.zeros_like(value).double() for name, value in inputs(wanted, step, width).items()}
    for entry in wanted.modalities:
        values[entry.name] += torch.tensor([band.mean for band in entry.bands]).view(-1, 1, 1)
    seen = max(farthest_change(model, values, wanted, middle + p) for p in range(0, step, max(1, step // phases)))
    assert CLOSE[wanted.encoder] * radius <= seen <= radius


EVERY_INPUT = [
    *((stem, "unet", name, 1) for stem in STEMS for name in MODALITY_SETS),
    *(("statistics", "unet", name, 3) for name in ("usual", "coarser")),
    *((stem, "resunet", "three", 1) for stem in STEMS),
]


@pytest.mark.parametrize(("stem", "encoder", "modalities", "depth"), EVERY_INPUT)
def test_radius_is_a_close_upper_bound_for_every_input(
    stem: StemName, encoder: EncoderName, modalities: str, depth: int
) -> None:
    assert_close_bound(combination(stem, encoder, "early", modalities, depth=depth), 4)


# Attention among the modalities of a place reaches no further than the place, whatever the encoder.
EVERY_FUSION = [
    *(("unet", fusion) for fusion in LOCAL_FUSIONS),
    *((encoder, fusion) for encoder in ("resnet", "resunet") for fusion in ("early", "late", "joint_tokens")),
]


@pytest.mark.parametrize(("encoder", "fusion"), EVERY_FUSION)
def test_radius_is_a_close_upper_bound_for_every_fusion(encoder: EncoderName, fusion: FusionName) -> None:
    stem: StemName = "statistics" if encoder == "unet" else "per_sensor"
    assert_close_bound(combination(stem, encoder, fusion, "three"), 2)


def test_radius_is_a_close_upper_bound_with_the_published_stride() -> None:
    assert_close_bound(combination("per_sensor", "resnet", "early", "three", finest=2), 2)


@EVERY_COMBINATION
def test_models_with_a_global_view_have_no_radius(stem: StemName, encoder: EncoderName, fusion: FusionName) -> None:
    wanted = combination(stem, encoder, fusion)
    is_global = encoder == "vit" or fusion == "asymmetric_attention"
    assert (receptive_radius(wanted) is None) == is_global
    assert receptive_radius(wanted.model_copy(update={"head": "scene"})) is None
    alone = combination(stem, encoder, fusion, "one")
    assert (receptive_radius(alone) is None) == (encoder == "vit")


@pytest.mark.parametrize(
    ("stem", "fusion"), [*(("statistics", fusion) for fusion in LOCAL_FUSIONS), ("per_sensor", "early"), ("generated", "early")]
)
@pytest.mark.parametrize("modalities", ["three", "odd"])
def test_a_far_pixel_changes_no_score_of_a_random_model(stem: StemName, fusion: FusionName, modalities: str) -> None:
    wanted = combination(stem, "unet", fusion, modalities)
    model = random_model(wanted)
    radius, step = receptive_radius(wanted), model_step(wanted)
    assert radius is not None
    width = side_of(wanted, 2 * radius + 2 * step)
    values = inputs(wanted, 2 * step, width)
    with torch.no_grad():
        plain = model(values)
        for entry in wanted.modalities:
            values[entry.name][:, :, :, 0] += 3
        differs = (model(values) - plain).abs()
    assert differs[..., :step].max() > 0.01
    # Heights above the sea are centred on the mean of the whole tile first, which stirs the last bits everywhere.
    bound = 1e-5 * plain.abs().max() if modalities == "three" else 0.0
    assert differs[..., radius + 2 :].max() <= bound


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("coarser", COARSER_FACTORS)
def test_step_holds_whole_pixels_of_every_level_and_modality(depth: int, coarser: int) -> None:
    entries = (modality("fine", 2), modality("coarse", 1, "other", coarser=coarser))
    wanted = ModelSpecification(architecture="tried", modalities=entries, n_classes=2, depth=depth)
    step = model_step(wanted)
    assert step % 2**depth == 0
    assert step % coarser == 0
    assert step <= 2**depth * coarser


def test_asking_takes_no_random_number_and_no_memory() -> None:
    state = torch.random.get_rng_state()
    wanted = combination("per_sensor", "resnet", "late").model_copy(update={"size": "large", "n_classes": 77})
    assert model_step(wanted) == 16
    assert torch.equal(torch.random.get_rng_state(), state)


def test_parameters_that_are_frozen_do_not_count() -> None:
    model = build_model(combination("statistics", "unet", "early"))
    everything = count_parameters(model)
    assert everything == sum(parameter.numel() for parameter in model.parameters())
    frozen = next(model.parameters()).requires_grad_(False)
    assert count_parameters(model) == everything - frozen.numel()
