"""What the fusions promise beyond what all of them do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from core.models.features import FeatureMap
from core.models.fusion.asymmetric_attention import AsymmetricAttentionFusion
from core.models.fusion.base import Fusion, Streams
from core.models.fusion.build import build_fusion
from core.models.fusion.cross_attention import CrossAttention
from core.models.fusion.joint_tokens import JointTokensFusion
from core.models.fusion.transfer_gate import TransferGate
from core.models.specification import EncoderName, FusionName
from tests.core.models.specifications import ENCODERS, FUSIONS, combination

NAMES = ("optical", "sar", "dsm")


def streams_of(fusion: Fusion, side: int = 16, seed: int = 0) -> Streams:
    generator = torch.Generator().manual_seed(seed)
    side = side // fusion.geometry.stride * fusion.geometry.stride
    shape = (2, fusion.geometry.channels, side // fusion.geometry.stride, side // fusion.geometry.stride)
    known = torch.ones(2, 1, *shape[2:])
    return {name: FeatureMap(torch.randn(shape, generator=generator), known, fusion.geometry.stride) for name in NAMES}


def made(encoder: EncoderName, fusion: FusionName, **options: bool | str) -> Fusion:
    torch.manual_seed(0)
    return build_fusion(combination("per_sensor", encoder, fusion, **options)).eval()


@pytest.mark.parametrize("direction", ["auxiliary_to_main", "both"])
@pytest.mark.parametrize("has_gate", [True, False])
@pytest.mark.parametrize("encoder", ENCODERS)
@torch.no_grad()
def test_asymmetric_attention_starts_from_the_main_stream_alone(encoder: EncoderName, has_gate: bool, direction: str) -> None:
    fusion = made(encoder, "asymmetric_attention", has_transfer_gate=has_gate, attention_direction=direction)
    assert isinstance(fusion, AsymmetricAttentionFusion)
    assert bool(fusion.gates) == has_gate
    streams = streams_of(fusion)
    both, alone = fusion(streams), fusion({"optical": streams["optical"]})
    own = fusion.encoders["optical"](streams["optical"])
    for first, second, third in zip(both.levels, alone.levels, own.levels, strict=True):
        # The gate mixes two that are equal, which rounds.
        torch.testing.assert_close(first.values, second.values, rtol=0, atol=1e-6)
        torch.testing.assert_close(first.values, third.values, rtol=0, atol=1e-6)
        assert has_gate or torch.equal(first.values, third.values)
    with torch.no_grad():
        for name, parameter in fusion.named_parameters():
            if ".to_main." in name:
                parameter.normal_()
    assert not torch.allclose(fusion(streams).levels[-1].values, own.levels[-1].values, atol=1e-3)


def opened(fusion: Fusion) -> Fusion:
    with torch.no_grad():
        for parameter in fusion.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.3)
    return fusion


@pytest.mark.parametrize("direction", ["auxiliary_to_main", "both"])
@torch.no_grad()
def test_only_the_switch_lets_auxiliary_streams_read_the_main_one(direction: str) -> None:
    """What the auxiliary stream is handed on as, after a change of the main one."""
    fusion = opened(made("unet", "asymmetric_attention", attention_direction=direction))
    streams = streams_of(fusion)
    main, auxiliary = list(streams)[:2]
    before = fusion(streams).by_modality[auxiliary]
    changed = {**streams, main: streams[main].masked(streams[main].values + 1)}
    after = fusion(changed).by_modality[auxiliary]
    assert torch.equal(before.values, after.values) == (direction == "auxiliary_to_main")
    # After the last stage no one reads the auxiliary streams.
    last = len(fusion.strides) - 1
    assert not any(name.startswith(f"attentions.{last}.") and "to_auxiliary" in name for name in fusion.state_dict())


@torch.no_grad()
def test_a_transformers_cross_attention_sees_positions() -> None:
    """Asking everywhere, a token could otherwise not find its own place in the other sensor."""
    fusion = made("vit", "cross_attention")
    assert isinstance(fusion, JointTokensFusion)
    assert fusion.cross_attention is not None
    asked: list[Streams] = []
    fusion.cross_attention.register_forward_pre_hook(lambda _, given: asked.append(given[0]))
    same_everywhere = {
        name: stream.masked(stream.values[:, :, :1, :1].expand_as(stream.values)) for name, stream in streams_of(fusion).items()
    }
    fusion(same_everywhere)
    for stream in asked[0].values():
        assert (stream.values - stream.values[:, :, :1, :1]).abs().amax(dim=(0, 1)).flatten()[1:].min() > 1e-3


@torch.no_grad()
def test_the_main_stream_may_be_missing() -> None:
    fusion = opened(made("unet", "asymmetric_attention"))
    streams = streams_of(fusion)
    found = fusion({name: streams[name] for name in ("sar", "dsm")})
    assert all(level.known.all() and level.values.any() for level in found.levels)


@torch.no_grad()
def test_the_gate_of_two_that_are_equal_changes_nothing() -> None:
    gate = TransferGate(8).eval()
    level = FeatureMap(torch.randn(2, 8, 4, 4), torch.ones(2, 1, 4, 4), 1)
    torch.testing.assert_close(gate(level, level).values, level.values, rtol=0, atol=1e-6)
    other = level.masked(level.values + 1)
    found = gate(other, level).values
    share = found - level.values
    # A share of the fused features for each channel, the same at every place.
    assert ((share > 0) & (share < 1)).all()
    torch.testing.assert_close(share, share[:, :, :1, :1].expand_as(share), rtol=0, atol=1e-5)
    assert share.mean() > 0.6


@pytest.mark.parametrize("is_local", [True, False])
@torch.no_grad()
def test_cross_attention_of_one_modality_is_itself_and_the_feed_forward(is_local: bool) -> None:
    torch.manual_seed(0)
    block = CrossAttention(NAMES, 8, is_local).eval()
    stream = FeatureMap(torch.randn(2, 8, 3, 5), torch.ones(2, 1, 3, 5), 1)
    tokens = stream.values.flatten(2).transpose(1, 2)
    expected = (tokens + block.mlp(block.norm(tokens))).transpose(1, 2).reshape(2, 8, 3, 5)
    assert torch.equal(block({"sar": stream})["sar"].values, expected)
    alone = CrossAttention(["sar"], 8, is_local).eval()
    assert not any(name.startswith("attentions") for name in alone.state_dict())
    joined = block({"sar": stream, "dsm": FeatureMap(torch.randn(2, 8, 3, 5), torch.zeros(2, 1, 3, 5), 1)})
    torch.testing.assert_close(joined["sar"].values, expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_local_attention_stays_at_its_place() -> None:
    torch.manual_seed(0)
    known = torch.ones(1, 1, 4, 4)
    streams = {name: FeatureMap(torch.randn(1, 8, 4, 4), known, 1) for name in NAMES}
    changed = {name: stream.masked(stream.values.clone()) for name, stream in streams.items()}
    changed["dsm"].values[:, :4, 1, 2] += 3
    for is_local in (True, False):
        block = CrossAttention(NAMES, 8, is_local).eval()
        moved = (block(changed)["sar"].values - block(streams)["sar"].values).abs().amax(dim=1)[0] > 1e-6
        assert moved[1, 2]
        assert int(moved.sum()) == (1 if is_local else 16)


def test_joint_tokens_see_the_same_statistics_in_training_and_after() -> None:
    """Streams of different level and spread: each by its own statistics would look like any other in training only."""
    fusion = made("unet", "joint_tokens", dropout=0.0).train()
    assert isinstance(fusion, JointTokensFusion)
    for module in fusion.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    streams = streams_of(fusion)
    scaled = {
        name: FeatureMap((number + 1) * stream.values + 2 * number, stream.known, stream.stride)
        for number, (name, stream) in enumerate(streams.items())
    }
    with torch.no_grad():
        trained = fusion(scaled).levels
        after = fusion.eval()(scaled).levels
    for first, second in zip(trained, after, strict=True):
        torch.testing.assert_close(first.values, second.values, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_what_a_fusion_does_not_know_is_refused(fusion: FusionName) -> None:
    model = made("unet", fusion)
    streams = streams_of(model)
    for given in ({}, {"lidar": streams["dsm"]}):
        with pytest.raises(ValueError, match="expected some of optical, sar, dsm"):
            model(given)


@pytest.mark.parametrize("fusion", FUSIONS)
@torch.no_grad()
def test_the_order_of_reading_does_not_matter(fusion: FusionName) -> None:
    model = opened(made("unet", fusion))
    streams = streams_of(model)
    turned: dict[str, FeatureMap] = dict(reversed(list(streams.items())))
    plain: list[Tensor] = [level.values for level in model(streams).levels]
    assert all(torch.equal(a, b.values) for a, b in zip(plain, model(turned).levels, strict=True))
