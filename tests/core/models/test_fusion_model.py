"""Every stem with every encoder and every fusion: gradients, missing data, sizes, order of bands, model files."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from core.labels.scheme import ClassScheme, LandCoverClass
from core.models.fusion_model import FusionModel
from core.models.model_file import ModelCard, class_cards, load_model, save_model
from core.models.registry import build_model, count_parameters
from core.models.specification import EncoderName, FusionName, HeadName, ModelSpecification, StemName
from tests.core.models.specifications import (
    ENCODERS,
    EVERY_COMBINATION,
    EVERY_PAIR,
    FUSIONS,
    MODALITY_SETS,
    STEMS,
    combination,
    inputs,
    random_model,
    side_of,
)

HEIGHT, WIDTH = 14, 10
"""No multiple of any step, but whole pixels of all modalities."""

NAMES = tuple(entry.name for entry in MODALITY_SETS["three"])
SUBSETS = [frozenset(chosen) for count in range(1, len(NAMES) + 1) for chosen in itertools.combinations(NAMES, count)]
EVERY_HEAD = pytest.mark.parametrize(
    ("encoder", "fusion", "head"),
    list(itertools.product(ENCODERS, ("early", "late"), ("scene", "embedding", "change"))),
)
Call = Callable[..., Tensor]


@cache
def tried(wanted: ModelSpecification) -> FusionModel:
    """A model in evaluation mode, for looking at only."""
    return random_model(wanted, least=24)


@cache
def untouched(wanted: ModelSpecification) -> Tensor:
    """What it says of ``inputs(wanted, HEIGHT, WIDTH, 2)``."""
    return said(tried(wanted), inputs(wanted, HEIGHT, WIDTH, 2))


@torch.no_grad()
def said(model: FusionModel, values: dict[str, Tensor], **options: Any) -> Tensor:
    return model(values, **options)


def steps_until_all_learn(wanted: ModelSpecification, call: Callable[[FusionModel, int], Tensor]) -> set[str]:
    """Names of the parameters without a gradient in any of three steps.

    In double precision: a gradient that is zero but for rounding has not learned.
    """
    torch.manual_seed(1)
    model = build_model(wanted).train().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    idle = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert sum(model.get_parameter(name).numel() for name in idle) == count_parameters(model)
    for step in range(3):
        scores = call(model, step)
        classes = torch.randint(5, (2, *scores.shape[2:]), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        functional.cross_entropy(4 * scores, classes).backward()  # type: ignore[no-untyped-call]
        for name in list(idle):
            gradient = model.get_parameter(name).grad
            if gradient is not None and gradient.abs().max() > 1e-12:
                idle.remove(name)
        if not idle:
            break
        optimizer.step()
    return idle


def gapped(wanted: ModelSpecification, step: int, dates: int = 0) -> dict[str, Tensor]:
    """Inputs in double precision of which a corner is missing from one sample: without any gap, what adds the same
    everywhere is taken out again by the batch normalisation behind it."""
    # Two places at the coarsest level, for batch normalisation.
    side = side_of(wanted, 16 if wanted.encoder in ("unet", "vit") else 24)
    values = {name: each.double() for name, each in inputs(wanted, side, side, 2, step, dates=dates).items()}
    for each in values.values():
        each[0, ..., : each.shape[-2] // 2, : each.shape[-1] // 2] = torch.nan
    return values


@EVERY_COMBINATION
def test_every_parameter_learns_within_three_steps(stem: StemName, encoder: EncoderName, fusion: FusionName) -> None:
    """With two dates, places that are partly unknown, and without one modality in one step and one sample of another."""
    wanted = combination(stem, encoder, fusion, has_dates=True, has_geography=True, attention_direction="both")
    dates = {name: torch.tensor([[30.0, 200.0], [100.0, torch.nan]]) for name in NAMES}
    geography = torch.tensor([[52.0, 13.0, 10.0], [torch.nan, torch.nan, 10.0]], dtype=torch.float64)

    def call(model: FusionModel, step: int) -> Tensor:
        values = gapped(wanted, step, dates=2)
        if step == 1:
            del values["sar"]
        known = geography if step < 2 else torch.where(torch.tensor([1, 1, 0]) == 1, geography, torch.nan).flip(0)
        present = {"dsm": torch.tensor([True, False])} if step == 2 else None
        scores: Tensor = model(values, dates=dates, geography=known, present=present)
        return scores

    assert steps_until_all_learn(wanted, call) == set()


@EVERY_HEAD
def test_every_parameter_below_every_head_learns(encoder: EncoderName, fusion: FusionName, head: HeadName) -> None:
    wanted = combination("per_sensor", encoder, fusion, head=head)

    def call(model: FusionModel, step: int) -> Tensor:
        after = {"after": gapped(wanted, step + 9)} if head == "change" else {}
        scores: Tensor = model(gapped(wanted, step), **after)
        return scores

    idle = steps_until_all_learn(wanted, call)
    if encoder == "vit" and head == "change":
        # What is added to both dates alike is gone from their difference.
        idle = {name for name in idle if not re.fullmatch(r"fusion\.encoders?\..*norms\.\d\.bias", name)}
    assert idle == set()


@EVERY_COMBINATION
def test_a_sample_without_a_modality_is_not_moved_by_what_stands_in_its_place(
    stem: StemName, encoder: EncoderName, fusion: FusionName
) -> None:
    wanted = combination(stem, encoder, fusion)
    model, values = tried(wanted), inputs(wanted, HEIGHT, WIDTH, 2)
    absent = dict(zip(NAMES, torch.tensor([[True, False], [False, True], [True, False]]), strict=True))
    hidden, empty = {}, {}
    for name, each in values.items():
        lacks = ~absent[name].view(-1, 1, 1, 1)
        hidden[name] = torch.where(lacks, 100 * each.flip(-1), each)
        empty[name] = torch.where(lacks, torch.nan, each)
    plain = said(model, values, present=absent)
    assert torch.equal(plain, said(model, hidden, present=absent))
    assert torch.equal(plain, said(model, empty))
    assert torch.isfinite(plain).all()
    assert not torch.equal(plain, untouched(wanted))
    # Alone, and without those keys at all, it says the same but for rounding.
    alone = said(model, {name: each[:1] for name, each in values.items() if absent[name][0]})
    torch.testing.assert_close(plain[:1], alone, rtol=0, atol=1e-5 * float(plain.abs().max()))


@EVERY_COMBINATION
def test_any_subset_runs_and_leaving_out_is_the_same_as_nothing_known(
    stem: StemName, encoder: EncoderName, fusion: FusionName
) -> None:
    wanted = combination(stem, encoder, fusion)
    model, values = tried(wanted), inputs(wanted, HEIGHT, WIDTH, 2)
    seen = []
    for subset in SUBSETS:
        scores = said(model, {name: each for name, each in values.items() if name in subset})
        assert scores.shape == (2, 5, HEIGHT, WIDTH)
        assert torch.isfinite(scores).all()
        if len(subset) == 1:
            absent = {name: torch.zeros(2, dtype=torch.bool) for name in NAMES if name not in subset}
            assert torch.equal(scores, said(model, values, present=absent))
        elif len(subset) == 2:
            empty = {name: each if name in subset else torch.full_like(each, torch.nan) for name, each in values.items()}
            assert torch.equal(scores, said(model, empty))
        assert not any(torch.equal(scores, other) for other in seen)
        seen.append(scores)
    assert torch.equal(seen[-1], untouched(wanted))


@EVERY_HEAD
def test_what_a_sample_lacks_moves_no_head(encoder: EncoderName, fusion: FusionName, head: HeadName) -> None:
    """Absent modalities, any subset, a batch of one and an odd size, for the heads that are not dense."""
    wanted = combination("per_sensor", encoder, fusion, head=head)
    model, values = tried(wanted), inputs(wanted, HEIGHT, WIDTH, 2)
    later = inputs(wanted, HEIGHT, WIDTH, 2, 7)

    def call(given: dict[str, Tensor], **options: Any) -> Tensor:
        after = {"after": {name: later[name][: len(each)] for name, each in given.items()}} if head == "change" else {}
        return said(model, given, **after, **options)

    absent = dict(zip(NAMES, torch.tensor([[True, False], [False, True], [True, False]]), strict=True))
    hidden = {name: torch.where(absent[name].view(-1, 1, 1, 1), each, 100 * each.flip(-1)) for name, each in values.items()}
    plain = call(values, present=absent)
    assert torch.equal(plain, call(hidden, present=absent))
    assert torch.isfinite(plain).all()
    assert not torch.equal(plain, call(values))
    alone = call({name: each[:1] for name, each in values.items() if absent[name][0]})
    torch.testing.assert_close(plain[:1], alone, rtol=0, atol=1e-5 * max(1.0, float(plain.abs().max())))
    for subset in SUBSETS:
        assert torch.isfinite(call({name: each for name, each in values.items() if name in subset})).all()


@pytest.mark.parametrize("fusion", ["early", "intermediate", "joint_tokens"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_what_one_time_lacks_is_no_change(encoder: EncoderName, fusion: FusionName) -> None:
    wanted = combination("per_sensor", encoder, fusion, head="change")
    model, values, later = tried(wanted), inputs(wanted, HEIGHT, WIDTH, 2), inputs(wanted, HEIGHT, WIDTH, 2, 7)
    both = said(model, values, after=later)
    without = {name: each for name, each in values.items() if name != "sar"}
    later_without = {name: each for name, each in later.items() if name != "sar"}
    plain = said(model, without, after=later_without)
    assert not torch.equal(plain, both)
    assert torch.equal(plain, said(model, values, after=later_without))
    assert torch.equal(plain, said(model, without, after=later))
    nobody = {"sar": torch.zeros(2, dtype=torch.bool)}
    assert torch.equal(plain, said(model, values, after=later, after_present=nobody))
    assert torch.equal(plain, said(model, values, after=later, present=nobody))
    # A cloud at one time hides the place at the other.
    clouded, moved = ({name: each.clone() for name, each in time.items()} for time in (values, later))
    clouded["optical"][:, :, 2:6, 3:7] = torch.nan
    moved["optical"][:, :, 2:6, 3:7] += 5
    assert torch.equal(said(model, clouded, after=later), said(model, clouded, after=moved))
    with pytest.raises(ValueError, match="nothing is seen at both times"):
        said(model, {"optical": values["optical"]}, after={"sar": later["sar"]})


def test_each_time_has_its_own_dates() -> None:
    wanted = combination("per_sensor", "unet", "early", head="change", has_dates=True)
    model = tried(wanted)
    values, later = inputs(wanted, HEIGHT, WIDTH, 2, dates=2), inputs(wanted, HEIGHT, WIDTH, 2, 7, dates=3)
    first, second = {"sar": torch.full((2, 2), 40.0)}, {"sar": torch.full((2, 3), 200.0)}
    plain = said(model, values, after=later, dates=first, after_dates=second)
    assert not torch.equal(plain, said(model, values, after=later, dates=first))
    assert not torch.equal(plain, said(model, values, after=later, after_dates=second))


def own_parameters(model: FusionModel, name: str) -> list[nn.Parameter]:
    """Those that belong to one modality alone; the main encoder of asymmetric attention carries what others give."""
    carries = model.specification.fusion == "asymmetric_attention" and name == NAMES[0]
    return [
        parameter
        for path, parameter in model.named_parameters()
        if name in path.split(".") and not (carries and path.startswith("fusion.encoders"))
    ]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_weights_of_an_absent_modality_do_not_matter(encoder: EncoderName, fusion: FusionName, name: str) -> None:
    wanted = combination("statistics" if encoder == "unet" else "per_sensor", encoder, fusion)
    model = tried(wanted)
    own = own_parameters(model, name)
    assert own
    values = inputs(wanted, HEIGHT, WIDTH)
    values[name].fill_(torch.nan)
    plain, kept = said(model, values), [parameter.detach().clone() for parameter in own]
    try:
        with torch.no_grad():
            for parameter in own:
                parameter.fill_(torch.nan)
        assert torch.equal(plain, said(model, values))
    finally:
        with torch.no_grad():
            for parameter, before in zip(own, kept, strict=True):
                parameter.copy_(before)


@EVERY_COMBINATION
def test_a_pixel_that_lacks_one_band_is_not_moved_by_its_others(
    stem: StemName, encoder: EncoderName, fusion: FusionName
) -> None:
    wanted = combination(stem, encoder, fusion)
    model, values = tried(wanted), inputs(wanted, HEIGHT, WIDTH, 2)
    values["optical"][:, 1, 3:5, 7] = torch.nan
    values["sar"][:, 0, :, 4:] = torch.nan
    changed = {name: each.clone() for name, each in values.items()}
    changed["optical"][:, (0, 2, 3), 3:5, 7] = 55.0
    changed["sar"][:, 1, :, 4:] = torch.nan
    plain = said(model, values)
    assert torch.isfinite(plain).all()
    assert torch.equal(plain, said(model, changed))


@EVERY_PAIR
def test_a_batch_of_one_and_any_size_run_in_training_and_after(
    stem: StemName, encoder: EncoderName, fusion: FusionName
) -> None:
    wanted = combination(stem, encoder, fusion, "odd")
    torch.manual_seed(0)
    model = build_model(wanted)
    # Batch normalisation needs two places at the coarsest level, and two are what a window of more than a step has.
    for height, width in ((19, 37),):
        values = inputs(wanted, height, width, missing=0.1)
        scores = model.train()(values)
        scores.square().mean().backward()
        assert scores.shape == (1, 5, height, width)
        assert torch.isfinite(scores).all()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        assert all(torch.isfinite(gradient).all() for gradient in gradients)
    for height, width in ((1, 1), (17, 5)):
        scores = said(model.eval(), inputs(wanted, height, width))
        assert scores.shape == (1, 5, height, width)
        assert scores.dtype == torch.float32
        assert torch.isfinite(scores).all()


@EVERY_COMBINATION
def test_a_batch_changes_nothing_for_its_members(stem: StemName, encoder: EncoderName, fusion: FusionName) -> None:
    wanted = combination(stem, encoder, fusion)
    values = inputs(wanted, HEIGHT, WIDTH, 2)
    alone = said(tried(wanted), {name: each[1:] for name, each in values.items()})
    torch.testing.assert_close(untouched(wanted)[1:], alone, rtol=0, atol=1e-5 * float(alone.abs().max()))


@EVERY_COMBINATION
def test_bands_are_taken_by_name_and_modalities_too(stem: StemName, encoder: EncoderName, fusion: FusionName) -> None:
    wanted = combination(stem, encoder, fusion)
    model, values = tried(wanted), inputs(wanted, HEIGHT, WIDTH, 2)
    plain = untouched(wanted)
    orders = {
        entry.name: torch.randperm(len(entry.bands), generator=torch.Generator().manual_seed(3)) for entry in wanted.modalities
    }
    turned = {name: values[name][:, orders[name]] for name in reversed(NAMES)}
    named = {entry.name: [entry.bands[i].name for i in orders[entry.name]] for entry in wanted.modalities}
    assert named["optical"] != list(wanted.modalities[0].band_names)
    assert torch.equal(plain, said(model, turned, bands=named))
    modalities = tuple(
        entry.model_copy(update={"bands": tuple(entry.bands[i] for i in orders[entry.name])}) for entry in wanted.modalities
    )
    other = build_model(wanted.model_copy(update={"modalities": modalities})).eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(plain, said(other, turned))


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("stem", STEMS)
def test_any_part_of_the_bands_runs_in_any_order(stem: StemName, encoder: EncoderName) -> None:
    wanted = combination(stem, encoder, "intermediate")
    model, values = tried(wanted), inputs(wanted, HEIGHT, WIDTH)
    names = wanted.modalities[0].band_names
    for chosen in ([2], [0, 3], [3, 1, 2]):
        part = values | {"optical": values["optical"][:, chosen]}
        scores = said(model, part, bands={"optical": [names[i] for i in chosen]})
        assert torch.isfinite(scores).all()
        back = values | {"optical": part["optical"].flip(1)}
        assert torch.equal(scores, said(model, back, bands={"optical": [names[i] for i in reversed(chosen)]}))
        for number in range(len(chosen)):
            moved = part["optical"].clone()
            moved[:, number] += 1
            assert not torch.equal(
                scores, said(model, part | {"optical": moved}, bands={"optical": [names[i] for i in chosen]})
            )


def card_of(wanted: ModelSpecification) -> ModelCard:
    classes = tuple(LandCoverClass(i + 1, f"class {i}", "#000000", str(i)) for i in range(wanted.n_classes))
    return ModelCard(
        software_version="0",
        specification=wanted,
        resolution_m=10,
        class_scheme="test",
        classes=class_cards(ClassScheme("test", classes)),
    )


def assert_restored(wanted: ModelSpecification, path: Path, **options: Any) -> None:
    model, values = tried(wanted), inputs(wanted, HEIGHT, WIDTH, 2)
    save_model(path, model, card_of(wanted))
    loaded, card = load_model(path)
    assert card.specification == wanted
    state, expected = loaded.state_dict(), model.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], value) for name, value in expected.items())
    with torch.no_grad():
        assert torch.equal(loaded(values, **options), said(model, values, **options))


@EVERY_PAIR
def test_a_model_file_restores_it_bit_for_bit(stem: StemName, encoder: EncoderName, fusion: FusionName, tmp_path: Path) -> None:
    wanted = combination(stem, encoder, fusion)
    assert_restored(wanted, tmp_path / "model.safetensors")


@pytest.mark.parametrize("stem", STEMS)
def test_a_model_file_restores_dates_and_geography(stem: StemName, tmp_path: Path) -> None:
    wanted = combination(stem, "unet", "early", has_dates=True, has_geography=True)
    options = {"geography": torch.tensor([[52.0, 13.0, 10.0]] * 2), "dates": {"sar": torch.full((2, 1), 40.0)}}
    assert_restored(wanted, tmp_path / "model.safetensors", **options)


@EVERY_HEAD
def test_a_model_file_restores_every_head(encoder: EncoderName, fusion: FusionName, head: HeadName, tmp_path: Path) -> None:
    wanted = combination("statistics", encoder, fusion, head=head)
    after = {"after": inputs(wanted, HEIGHT, WIDTH, 2, 7)} if head == "change" else {}
    assert_restored(wanted, tmp_path / "model.safetensors", **after)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@EVERY_COMBINATION
def test_processor_and_gpu_agree(stem: StemName, encoder: EncoderName, fusion: FusionName) -> None:
    wanted = combination(stem, encoder, fusion, has_dates=True, has_geography=True)
    model, values = tried(wanted), inputs(wanted, HEIGHT, WIDTH, 2, missing=0.1, dates=2)
    dates = {name: torch.tensor([[10.0, 200.0], [90.0, torch.nan]]) for name in NAMES}
    options: dict[str, Any] = {"geography": torch.tensor([[52.0, 13.0, 10.0]] * 2), "dates": dates}
    expected = said(model, values, **options)
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        moved = {"geography": options["geography"].cuda(), "dates": {name: each.cuda() for name, each in dates.items()}}
        found = said(model.cuda(), {name: each.cuda() for name, each in values.items()}, **moved)
    finally:
        model.cpu()
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_nothing_known_at_all_spoils_neither_scores_nor_gradients(encoder: EncoderName, fusion: FusionName) -> None:
    wanted = combination("statistics" if encoder == "unet" else "per_sensor", encoder, fusion)
    side = side_of(wanted)
    torch.manual_seed(0)
    model = build_model(wanted).train()
    scores = model(inputs(wanted, side, side, 2, missing=1.0))
    scores.square().mean().backward()
    assert torch.isfinite(scores).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)
    assert torch.isfinite(said(model.eval(), inputs(wanted, side, side, missing=1.0))).all()
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


def test_infinite_and_absurd_values_stay_finite() -> None:
    wanted = combination("statistics", "unet", "intermediate", "usual")
    values = inputs(wanted, 24, 24)
    for name, value in (("sentinel2_l2a", math.inf), ("sentinel1", -math.inf), ("dsm", 1e30)):
        values[name][:, :, 3, 5] = value
    assert torch.isfinite(said(tried(wanted), values)).all()


def test_same_seed_same_weights() -> None:
    wanted = combination("per_sensor", "unet", "intermediate")

    def state(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return build_model(wanted).state_dict()

    first, second, other = (state(seed) for seed in (3, 3, 4))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_what_does_not_belong_together_is_refused() -> None:
    wanted = combination("statistics", "unet", "early")
    model, values = tried(wanted), inputs(wanted, HEIGHT, WIDTH)
    with pytest.raises(ValueError, match="expected some of optical, sar, dsm; got nothing"):
        said(model, {})
    with pytest.raises(ValueError, match=r"expected some of.*got .*lidar"):
        said(model, values | {"lidar": values["dsm"]})
    with pytest.raises(ValueError, match="different windows"):
        said(model, values | {"sar": values["sar"][..., :-1]})
    with pytest.raises(ValueError, match="2 dates, and the model was made for one"):
        said(model, {"optical": values["optical"][:, None].expand(-1, 2, -1, -1, -1)})
    for bands in (["b0", "b9"], ["b0", "b0"]):
        with pytest.raises(ValueError, match="each once"):
            said(model, values | {"optical": values["optical"][:, : len(bands)]}, bands={"optical": bands})
    change = combination("statistics", "unet", "early", head="change")
    with pytest.raises(ValueError, match="later date"):
        said(tried(change), values)
