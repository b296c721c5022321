"""The transformer: sizes as published, positions in metres."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from core.models.encoders import vit
from core.models.encoders.vit import ViTEncoder, packing_of
from core.models.features import FeatureMap
from core.models.registry import count_parameters
from core.models.specification import SizeName


def codes(patch: int, resolution_m: float, rows: int, columns: int) -> Tensor:
    encoder = ViTEncoder("tiny", patch, resolution_m)
    return encoder.positions(torch.zeros(1, encoder.geometry.channels, rows, columns))[0]


def test_the_same_metres_have_the_same_code_whatever_the_patch_and_the_resolution() -> None:
    plain = codes(4, 10.0, 5, 7)
    for patch, resolution_m in ((2, 20.0), (8, 5.0), (1, 40.0)):
        assert torch.equal(plain, codes(patch, resolution_m, 5, 7))
    # Three small patches lie in a large one; the middle one has its centre.
    small = codes(4, 10.0 / 3, 15, 21)
    torch.testing.assert_close(small[:, 1::3, 1::3], plain, rtol=0, atol=1e-6)
    assert not torch.allclose(codes(4, 20.0, 5, 7), plain, atol=0.1)


def test_every_place_has_its_own_code_and_a_larger_window_only_adds_some() -> None:
    found = codes(4, 10.0, 16, 16)
    assert len(found.flatten(1).T.unique(dim=0)) == 256
    assert torch.equal(codes(4, 10.0, 5, 7), found[:, :5, :7])


def test_codes_of_places_do_not_get_lost_far_from_the_corner() -> None:
    found = codes(2, 0.2, 1, 5000)[:, 0]
    assert (found[:, 1:] - found[:, :-1]).abs().amax(dim=0).min() > 0.05


@pytest.mark.parametrize(("size", "count"), [("small", 21.3e6), ("base", 85.1e6)])
def test_sizes_are_the_published_ones(size: SizeName, count: float) -> None:
    with torch.device("meta"):
        encoder = ViTEncoder(size, 16, 10.0)
    # Twelve blocks of 12 * channels ** 2 weights; the kernels of the patches stand in the stems.
    assert count_parameters(encoder) == pytest.approx(count, rel=0.005)


@torch.no_grad()
def test_unknown_places_are_not_looked_at() -> None:
    torch.manual_seed(0)
    encoder = ViTEncoder("tiny", 4, 10.0).eval()
    known = torch.ones(1, 1, 4, 4)
    known[:, :, 2:, 1] = 0
    values = torch.randn(1, encoder.geometry.channels, 4, 4)
    plain = encoder(FeatureMap(values * known, known, 4))
    other = encoder(FeatureMap(torch.where(known > 0, values, 99.0), known, 4))
    assert plain.strides == (4, 4, 4, 4)
    assert plain.tokens.shape == (1, 16, encoder.geometry.channels)
    for level, same in zip(plain.levels, other.levels, strict=True):
        assert torch.equal(level.values, same.values)
        assert not level.values[:, :, 2:, 1].any()
    torch.testing.assert_close(plain.pooled, plain.levels[-1].values.sum((2, 3)) / 14)


def sequences() -> tuple[ViTEncoder, FeatureMap]:
    """An encoder, and maps of which a quarter, a half and nothing is known."""
    torch.manual_seed(0)
    encoder = ViTEncoder("tiny", 4, 10.0)
    known = torch.zeros(3, 1, 6, 6)
    known[0, :, ::2, ::2] = 1
    known[1, :, :, 3:] = 1
    return encoder, FeatureMap(torch.randn(3, encoder.geometry.channels, 6, 6) * known, known, 4)


def test_leaving_unknown_tokens_out_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, state = sequences()
    lengths: list[int] = []
    for block in encoder.blocks:
        block.register_forward_hook(lambda _, given, __: lengths.append(given[0].shape[1]))
    results, gradients = [], []
    for packs in (True, False):
        if not packs:
            monkeypatch.setattr(vit, "packing_of", lambda known: None)
        encoder.zero_grad()
        results.append(encoder(state))
        torch.stack([level.values.square().mean() for level in results[-1].levels]).sum().backward()
        gradients.append([p.grad.clone() for p in encoder.parameters() if p.grad is not None])
    # The class token and the 18 places of the fullest sequence, then all 36.
    assert lengths == [19] * len(encoder.blocks) + [37] * len(encoder.blocks)
    for level, same in zip(results[0].levels, results[1].levels, strict=True):
        torch.testing.assert_close(level.values, same.values, rtol=0, atol=1e-5)
    for gradient, other in zip(*gradients, strict=True):
        torch.testing.assert_close(gradient, other, rtol=0, atol=1e-5)


@torch.no_grad()
def test_unknown_tokens_are_not_looked_at_when_left_out_either() -> None:
    encoder, state = sequences()
    plain = encoder.eval()(state)
    other = encoder(FeatureMap(torch.where(state.known > 0, state.values, 99.0), state.known, 4))
    for level, same in zip(plain.levels, other.levels, strict=True):
        assert torch.equal(level.values, same.values)


def test_sequences_with_few_gaps_are_not_packed() -> None:
    known = torch.ones(2, 16, dtype=torch.bool)
    known[:, 0] = False
    assert packing_of(known) is None
    known[:, :2] = False
    packing = packing_of(known)
    assert packing is not None
    assert packing.known is None
    assert packing.places.tolist() == [list(range(2, 16))] * 2
    known[0, 2:] = False
    packing = packing_of(known)
    assert packing is not None
    assert packing.known is not None
    assert packing.known.sum(dim=1).tolist() == [0, 14]
    tokens = torch.arange(32.0).view(2, 16, 1)
    taken, _ = packing.taken(tokens)
    assert torch.equal(packing.put_back(taken, tokens), tokens)
    assert packing.put_back(taken + 100, tokens)[1, :, 0].tolist() == [16, 17, *range(118, 132)]
