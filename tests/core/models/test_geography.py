"""Place and resolution as inputs, and what stands in for them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from core.models.geography import GeographicEncoding
from tests.core.models.specifications import combination, inputs, random_model


@pytest.fixture
def encoding() -> GeographicEncoding:
    torch.manual_seed(0)
    return GeographicEncoding(8).eval()


def code(encoding: GeographicEncoding, *rows: tuple[float, float, float]) -> Tensor:
    with torch.no_grad():
        found: Tensor = encoding(torch.tensor(rows, dtype=torch.float64))
    return found


def test_learned_vectors_stand_in_for_what_is_unknown(encoding: GeographicEncoding) -> None:
    nan = torch.nan
    known, nowhere, half, unsized, nothing = code(
        encoding, (52, 13, 10), (nan, nan, 10), (52, nan, 10), (52, 13, nan), (nan, nan, nan)
    )
    torch.testing.assert_close(nothing, (encoding.no_place + encoding.no_resolution).detach())
    assert torch.equal(nowhere, half)
    torch.testing.assert_close(known - nowhere, unsized - nothing, rtol=0, atol=1e-5)
    torch.testing.assert_close(known - unsized, nowhere - nothing, rtol=0, atol=1e-5)
    assert len(torch.stack([known, nowhere, unsized, nothing]).unique(dim=0)) == 4
    torch.testing.assert_close(code(encoding, (52, 13, 0))[0], unsized)


def test_longitude_does_not_jump_at_the_date_line(encoding: GeographicEncoding) -> None:
    west, east, whole = code(encoding, (10, -179.9999, 10), (10, 179.9999, 10), (10, 180.0001, 10))
    torch.testing.assert_close(west, whole, rtol=0, atol=1e-6)
    torch.testing.assert_close(west, east, rtol=0, atol=0.02)
    poles = code(encoding, (90, 0, 10), (90, 120, 10))
    torch.testing.assert_close(poles[0], poles[1], rtol=0, atol=1e-6)


def test_places_differ_and_resolutions_do(encoding: GeographicEncoding) -> None:
    berlin, near, far, fine = code(encoding, (52.5, 13.4, 10), (52.9, 13.4, 10), (-30, 140, 10), (52.5, 13.4, 0.2))
    assert all((berlin - other).abs().max() > 0.05 for other in (near, far, fine))


def test_metadata_are_withheld_in_training_only(encoding: GeographicEncoding) -> None:
    rows = [(52.0, 13.0, 10.0)] * 4000
    assert len(code(encoding, *rows).unique(dim=0)) == 1
    torch.manual_seed(3)
    found, count = code(encoding.train(), *rows).unique(dim=0, return_counts=True)
    assert len(found) == 4
    expected = sorted([0.8 * 0.8, 0.8 * 0.2, 0.2 * 0.8, 0.2 * 0.2])
    for share, wanted in zip(sorted((count / 4000).tolist()), expected, strict=True):
        assert abs(share - wanted) < 0.03


@torch.no_grad()
def test_a_model_without_metadata_says_what_it_says_of_unknown_ones() -> None:
    wanted = combination("statistics", "unet", "intermediate", has_geography=True)
    model, values = random_model(wanted, least=24), inputs(wanted, 12, 12, 2)
    plain = model(values)
    assert torch.equal(plain, model(values, geography=torch.full((2, 3), torch.nan)))
    there = model(values, geography=torch.tensor([[52.0, 13.0, 10.0], [torch.nan] * 3], dtype=torch.float64))
    assert not torch.allclose(plain[0], there[0], atol=1e-3)
    torch.testing.assert_close(plain[1], there[1], rtol=0, atol=1e-5 * float(plain.abs().max()))
