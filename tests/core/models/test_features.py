"""Maps between stems and heads."""

from __future__ import annotations

import pytest
import torch

from core.models.features import FeatureMap, zero_where_unknown


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("channels", [1, 3, 16])
def test_what_is_not_known_is_zero_and_all_else_stays(channels: int, layout: torch.memory_format, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, channels, 9, 7, generator=generator).to(dtype).contiguous(memory_format=layout)
    known = (torch.rand(2, 1, 9, 7, generator=generator) > 0.4).to(dtype)
    before = values.clone()
    expected = torch.where(known > 0, values, torch.zeros((), dtype=dtype))
    with torch.inference_mode():
        assert torch.equal(zero_where_unknown(values, known), expected)
    assert torch.equal(zero_where_unknown(values, known), expected)
    assert torch.equal(values, before)


def test_a_map_without_its_margin() -> None:
    values = torch.arange(64.0).view(1, 1, 8, 8)
    level = FeatureMap(values, torch.ones(1, 1, 8, 8), 2)
    cut = level.cut(4)
    assert torch.equal(cut.values, values[:, :, 2:6, 2:6])
    assert cut.known.shape == (1, 1, 4, 4)
    assert level.cut(0) is level
