"""The list of models: what is in it, what it says of each, and inputs as a user writes them."""

from __future__ import annotations

from typing import get_args

import pytest

from core.errors import RsfusionError, SensorError, UsageError
from core.models.architectures import ARCHITECTURES, ArchitectureName, choose_parts
from core.models.catalogue import (
    N_CLASSES,
    all_specifications,
    catalogue_entry,
    named_specifications,
    stated_modalities,
)
from core.models.registry import build_model, count_parameters, receptive_radius
from core.models.specification import SIZES, FusionName, SizeName
from core.models.stems.neighbourhoods import STATISTICS_WINDOWS

USUAL = "sentinel2_l2a,sentinel1,dsm@2.5"


def test_the_registry_holds_every_name_once() -> None:
    assert tuple(ARCHITECTURES) == get_args(ArchitectureName)
    assert next(iter(ARCHITECTURES)) == "unet_intermediate"
    for name, entry in ARCHITECTURES.items():
        assert entry.name == name
        assert entry.use.endswith(".")
        assert "\n" not in entry.use
    assert len({entry.title for entry in ARCHITECTURES.values()}) == len(ARCHITECTURES)


def test_parts_are_the_architectures_own_or_those_asked_for() -> None:
    own = choose_parts("resunet_late")
    assert (own.stem, own.encoder, own.size, own.fusion) == ("per_sensor", "resunet", "base", "late")
    other = choose_parts("unet_late", "resunet", "early", "large")
    assert (other.stem, other.encoder, other.size, other.fusion) == ("per_sensor", "resunet", "large", "early")
    assert choose_parts("unet_late").stem == "statistics"
    assert choose_parts("unet_any_sensor", "vit").stem == "generated", "asked for by the architecture's very name"
    assert choose_parts("resunet_early", "vit").size == "small", "there is no large one"


@pytest.mark.parametrize("encoder", SIZES)
def test_a_size_that_an_encoder_does_not_come_in(encoder: str) -> None:
    for size in get_args(SizeName):
        if size in SIZES[encoder]:  # type: ignore[index]
            assert choose_parts("unet_early", encoder, size=size).size == size  # type: ignore[arg-type]
        else:
            with pytest.raises(UsageError, match=f"'{encoder}' does not come in the size '{size}'") as caught:
                choose_parts("unet_early", encoder, size=size)  # type: ignore[arg-type]
            assert SIZES[encoder][0] in caught.value.hint  # type: ignore[index]


def test_inputs_as_a_user_writes_them() -> None:
    optical, sar, heights = stated_modalities(" sentinel2_l2a, sentinel1@30 ,dsm@2.5", 10.0)
    assert (optical.role, len(optical.bands), optical.finer, optical.coarser) == ("optical", 12, 1, 1)
    assert (sar.role, sar.band_names, sar.finer, sar.coarser) == ("sar", ("VV", "VH"), 1, 3)
    assert sar.bands[0].polarization == "VV"
    assert (heights.role, heights.band_names, heights.finer) == ("elevation", ("elevation",), 4)
    assert optical.bands[1].center_nm == pytest.approx(490, abs=10)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("sentinel9", SensorError, "sentinel9"),
        ("", SensorError, "''"),
        ("dem,dem", UsageError, "twice"),
        ("generic", UsageError, "'generic'"),
        ("dsm@", UsageError, "dsm@"),
        ("dsm@0", UsageError, "'0'"),
        ("dsm@-3", UsageError, "'-3'"),
        ("dsm@nan", UsageError, "'nan'"),
        ("dsm@inf", UsageError, "'inf'"),
        ("dsm@fine", UsageError, "'fine'"),
    ],
)
def test_inputs_that_are_none(text: str, error: type[RsfusionError], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        stated_modalities(text, 10.0)
    assert caught.value.hint


def test_an_entry_is_what_the_model_is() -> None:
    modalities = stated_modalities(USUAL, 10.0)
    named = {entry.architecture: entry for entry in named_specifications(modalities, 10.0)}
    assert tuple(named) == tuple(ARCHITECTURES)
    small = named["unet_early"]
    entry = catalogue_entry(small)
    model = build_model(small)
    assert entry.parameters == count_parameters(model)
    assert [(level.stride, level.channels) for level in entry.levels] == [(1, 16), (2, 32), (4, 64)]
    assert entry.reach == receptive_radius(small)
    assert catalogue_entry(named["vit_joint_tokens"]).reach is None


def test_the_cost_is_that_of_the_convolutions() -> None:
    """Counted by hand for the part of a model that is easy to count: what one more sensor costs an early fusion."""
    one, two = (
        catalogue_entry(named_specifications(stated_modalities(text, 10.0), 10.0)[1])
        for text in ("sentinel1", "sentinel1,sentinel2_l2a")
    )
    assert one.specification.fusion == "early"
    assert one.gflop_per_megapixel < two.gflop_per_megapixel
    # One more stem and a wider joint: both work at full resolution, so a weight costs about two operations a pixel.
    more = two.parameters - one.parameters
    # The linear model beside the network is no parameter, and costs as much.
    more += 12 * (1 + 2 * len(STATISTICS_WINDOWS)) * N_CLASSES
    # Sums of neighbourhoods are made by compiled code, which is not counted.
    assert two.gflop_per_megapixel - one.gflop_per_megapixel == pytest.approx(2 * more / 1000, rel=0.1)


def test_every_combination_is_one_of_a_kind() -> None:
    everything = all_specifications(stated_modalities(USUAL, 10.0), 10.0)
    kinds = {(entry.stem, entry.encoder, entry.size, entry.fusion) for entry in everything}
    assert len(kinds) == len(everything) == 2 * sum(map(len, SIZES.values())) * len(get_args(FusionName))
    assert {entry.stem for entry in everything if entry.encoder == "unet"} == {"statistics", "generated"}
    assert {entry.stem for entry in everything if entry.encoder != "unet"} == {"per_sensor", "generated"}
