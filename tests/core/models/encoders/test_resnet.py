"""Residual networks: as many weights as published, levels at the promised strides."""

from __future__ import annotations

import pytest
import torch

from core.models.encoders.encoder import Encoder
from core.models.encoders.resnet import ResNetEncoder
from core.models.encoders.resunet import ResUNetEncoder
from core.models.encoders.unet import UNetEncoder
from core.models.features import FeatureMap
from core.models.registry import count_parameters
from core.models.specification import SizeName


@pytest.mark.parametrize(("size", "count"), [("small", 11_167_104), ("base", 21_275_264), ("large", 23_498_624)])
def test_sizes_are_the_published_ones(size: SizeName, count: int) -> None:
    """The numbers are those of the published networks without their first convolution and their classifier."""
    with torch.device("meta"):
        assert count_parameters(ResNetEncoder(size, 2)) == count


ENCODERS = {
    "resnet 1": lambda: ResNetEncoder("tiny", 1),
    "resnet 2": lambda: ResNetEncoder("tiny", 2),
    "resunet 1": lambda: ResUNetEncoder("small", 1),
    "resunet 2": lambda: ResUNetEncoder("small", 2),
    "unet 1": lambda: UNetEncoder(4, 3, 0.0),
}


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_levels_have_their_strides_and_are_zero_where_nothing_is_known(name: str) -> None:
    encoder: Encoder = ENCODERS[name]().eval()
    first = encoder.geometry.stride
    assert encoder.strides == tuple(first * 2**number for number in range(len(encoder.strides)))
    assert name.endswith(str(first))
    side = 2 * encoder.strides[-1]
    known = torch.ones(2, 1, side // first, side // first)
    known[0, :, : known.shape[2] // 2] = 0
    values = torch.randn(2, encoder.geometry.channels, *known.shape[2:])
    found = encoder(FeatureMap(values * known, known, first))
    assert found.strides == encoder.strides
    for level, channels, stride in zip(found.levels, encoder.channels, encoder.strides, strict=True):
        assert level.values.shape == (2, channels, side // stride, side // stride)
        rows = side // stride // 2
        assert not level.values[0, :, :rows].any()
        assert not level.known[0, :, :rows].any()
        assert level.known[0, :, rows:].all()
        assert level.known[1].all()
    assert found.pooled.shape == (2, encoder.channels[-1])
