"""Masks: exact numbers, the coupling to an anchor, whole pixels of every modality, and no leakage."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import Tensor

from core.models.specification import EncoderName, FusionName, ModalitySpecification, StemName
from core.pretraining.masking import (
    Couplings,
    MaskPolicy,
    Masks,
    MaskSettings,
    draw_masks,
    hide,
    known_patches,
    lattice_size,
    patch_of,
    pixels_along,
)
from core.pretraining.objectives.masked_reconstruction import MaskedReconstruction
from core.pretraining.objectives.objective import Windows
from tests.core.models.specifications import EVERY_PAIR, MODALITY_SETS, modality, random_model, side_of
from tests.core.pretraining.models import small_model, small_specification, small_windows, step_of

EVERY_POLICY = pytest.mark.parametrize("policy", get_args(MaskPolicy))
THREE = {entry.name: entry for entry in MODALITY_SETS["three"]}
TWO = {name: modality(name, 2) for name in ("first", "second")}


def windows_of(entries: dict[str, ModalitySpecification], side: int, batch: int) -> Windows:
    values = {
        name: torch.zeros(batch, len(e.bands), *[side * e.finer // e.coarser] * 2, dtype=torch.float32)
        for name, e in entries.items()
    }
    return Windows(values, torch.full((batch, 3), torch.nan, dtype=torch.float64))


def drawn(
    windows: Windows, entries: dict[str, ModalitySpecification], patch: int, settings: MaskSettings, seed: int = 0
) -> Masks:
    return draw_masks(windows, entries, patch, settings, torch.Generator().manual_seed(seed))


def counts(masks: dict[str, Tensor], name: str) -> list[int]:
    return masks[name].flatten(1).sum(dim=1).tolist()


@pytest.mark.parametrize(("encoder", "patch"), [("unet", 8), ("resnet", 16), ("resunet", 16), ("vit", 4)])
def test_patches_are_whole_steps_of_the_model(encoder: EncoderName, patch: int) -> None:
    model = small_model(small_specification(encoder, "early"))
    assert patch_of(model) == patch
    assert patch_of(model) % model.step == 0


def test_long_strides_do_not_leave_a_window_with_few_patches() -> None:
    model = small_model(small_specification("resnet", "early", finest=2))
    assert model.step == 32
    assert [patch_of(model, size) for size in (256, 128, 64, 32)] == [32, 32, 16, 8]
    thirds = small_model(small_specification("resnet", "early", "coarser", finest=2))
    assert thirds.step == 96
    assert patch_of(thirds) == 12


def test_a_patch_that_cuts_pixels_is_refused() -> None:
    coarse = modality("coarse", 1, coarser=3)
    assert pixels_along(6, coarse) == 2
    with pytest.raises(ValueError, match="cuts the pixels of 'coarse'"):
        pixels_along(8, coarse)
    with pytest.raises(ValueError, match="between 0 and 1"):
        drawn(windows_of(TWO, 16, 1), TWO, 8, MaskSettings(ratio=1.0))


@EVERY_POLICY
@pytest.mark.parametrize("ratio", [0.29, 0.5, 0.75, 0.99])
def test_exactly_the_share_of_the_patches_with_data_is_masked(policy: MaskPolicy, ratio: float) -> None:
    windows = windows_of(THREE, 80, 3)
    windows.values["optical"][0, :, :40] = torch.nan
    windows.values["sar"][1] = torch.nan
    windows.values["dsm"][2] = torch.nan
    windows.values["dsm"][2, :, 50, 90] = 1.0
    windows.values["dsm"][2, :, 150:, 90] = 1.0
    masks = drawn(windows, THREE, 8, MaskSettings(policy, ratio))
    assert masks.size == (10, 10)
    assert counts(masks.known, "optical") == [50, 100, 100]
    assert counts(masks.known, "sar") == [100, 0, 100]
    # A patch of the elevation has 16 pixels: of the column, those of rows 9 and below, and one higher up.
    assert counts(masks.known, "dsm") == [100, 100, 2]
    for name in THREE:
        assert not (masks.masked[name] & ~masks.known[name]).any()
        if policy != "consistent":
            expected = [math.floor(ratio * count + 1e-9) for count in counts(masks.known, name)]
            assert counts(masks.masked, name) == expected
        for window in range(3):
            if masks.known[name][window].sum() >= 2 and policy != "consistent":
                assert masks.visible(name)[window].any()
    if policy == "consistent":
        union = torch.stack(list(masks.masked.values())).any(dim=0)
        assert union.flatten(1).sum(dim=1).tolist() == [math.floor(ratio * 100 + 1e-9)] * 3
        for name in THREE:
            assert torch.equal(masks.masked[name], union & masks.known[name])


@EVERY_POLICY
def test_the_generator_decides(policy: MaskPolicy) -> None:
    windows = windows_of(THREE, 80, 2)
    first, again, other = (drawn(windows, THREE, 8, MaskSettings(policy, withheld=0.3), seed) for seed in (1, 1, 2))
    assert all(torch.equal(first.masked[name], again.masked[name]) for name in THREE)
    assert not all(torch.equal(first.masked[name], other.masked[name]) for name in THREE)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_few_patches_keep_one_that_is_seen(count: int) -> None:
    windows = windows_of(TWO, 16, 1)
    windows.values["first"][:] = torch.nan
    for number in range(count):
        windows.values["first"][0, :, 8 * (number // 2), 8 * (number % 2)] = 1.0
    masks = drawn(windows, TWO, 8, MaskSettings(ratio=0.75))
    assert counts(masks.known, "first") == [count]
    assert counts(masks.masked, "first") == [3 * count // 4]


def shares(kappa: float, ratio: float) -> tuple[float, float]:
    """The parts masked where the anchor is masked, and where it is not, as Gumbel top-k draws them without end.

    A place of weight w is among the first with probability 1 - exp(-w t), at the t where the mean of all is the ratio.
    """

    def odds(share: float) -> float:
        probability = min(max(ratio + kappa * (share - ratio), 0.02), 0.98)
        return probability / (1 - probability)

    low, high = 0.0, 1e3
    for _ in range(100):
        t = (low + high) / 2
        chosen, left = 1 - math.exp(-odds(1) * t), 1 - math.exp(-odds(0) * t)
        low, high = (t, high) if ratio * chosen + (1 - ratio) * left < ratio else (low, t)
    return chosen, left


@pytest.mark.parametrize(("kappa", "ratio"), [(1.0, 0.5), (0.9, 0.5), (0.5, 0.75), (0.0, 0.5), (-0.3, 0.5), (-1.0, 0.5)])
def test_masks_follow_the_anchor_as_far_as_they_are_coupled(kappa: float, ratio: float) -> None:
    windows = windows_of(TWO, 160, 24)
    settings = MaskSettings("anchor", ratio, couplings=Couplings(other_bands=kappa))
    masks = drawn(windows, TWO, 4, settings)
    assert masks.anchors is not None
    is_first = (masks.anchors == 0)[:, None, None]
    assert 4 < int(is_first.sum()) < 20
    assert torch.equal(masks.is_anchor("second"), masks.anchors == 1)
    anchor = torch.where(is_first, masks.masked["first"], masks.masked["second"])
    other = torch.where(is_first, masks.masked["second"], masks.masked["first"])
    chosen, left = shares(kappa, ratio)
    assert float(other[anchor].float().mean()) == pytest.approx(chosen, abs=0.015)
    assert float(other[~anchor].float().mean()) == pytest.approx(left, abs=0.015)
    if kappa == 0:
        assert chosen == pytest.approx(left)


def test_where_the_anchor_has_no_data_it_decides_nothing() -> None:
    entries = {"fine": modality("fine", 1, finer=2), "plain": modality("plain", 1)}
    windows = windows_of(entries, 160, 24)
    windows.values["fine"][:, :, :160] = torch.nan
    settings = MaskSettings("anchor", 0.5, anchor="finest", couplings=Couplings(other_resolution=1.0))
    masks = drawn(windows, entries, 4, settings)
    assert masks.is_anchor("fine").all()
    above, below = masks.masked["plain"][:, :20], masks.masked["plain"][:, 20:]
    followed = below == masks.masked["fine"][:, 20:]
    assert float(followed.float().mean()) > 0.97
    assert float(above.float().mean()) == pytest.approx(0.5, abs=0.02)


def test_a_window_without_the_finest_modality_has_another_anchor() -> None:
    windows = windows_of(THREE, 32, 2)
    windows.values["dsm"][1] = torch.nan
    masks = drawn(windows, THREE, 8, MaskSettings("anchor", anchor="finest"))
    assert masks.anchors is not None
    assert [list(THREE)[number] for number in masks.anchors] == ["dsm", "optical"]


def test_couplings_go_by_what_a_modality_is_to_the_anchor() -> None:
    couplings = Couplings()
    optical = modality("optical", 3)
    assert couplings.between(modality("later", 3, sensor="optical"), optical) == 0.9
    assert couplings.between(modality("landsat", 3), optical) == 0.5
    assert couplings.between(modality("coarse", 3, sensor="optical", coarser=2), optical) == 0.0
    assert couplings.between(modality("sar", 2, "sar"), optical) == -0.3
    assert couplings.between(modality("sar", 2, "sar", coarser=2), optical) == -0.3
    others = optical.model_copy(update={"bands": tuple(b.model_copy(update={"name": b.name + "x"}) for b in optical.bands)})
    assert couplings.between(others, optical) == 0.5


def test_a_withheld_modality_leaves_another_one_to_see_by() -> None:
    windows = windows_of(THREE, 32, 200)
    windows.values["sar"][100:] = torch.nan
    windows.values["dsm"][100:] = torch.nan
    masks = drawn(windows, THREE, 8, MaskSettings(ratio=0.5, withheld=0.6))
    whole = torch.stack([masks.masked[name].flatten(1).all(dim=1) for name in THREE], dim=1)
    assert (whole.sum(dim=1) <= 1).all()
    assert float(whole[:100].any(dim=1).float().mean()) == pytest.approx(0.6, abs=0.15)
    assert (whole[:100].sum(dim=0) > 8).all()
    # Where there is one modality, it is never withheld.
    assert not whole[100:].any()


@EVERY_POLICY
def test_hidden_pixels_are_those_of_masked_patches_on_every_grid(policy: MaskPolicy) -> None:
    windows = windows_of(THREE, 20, 2)
    windows.values["optical"][0, :, :3, :3] = torch.nan
    masks = drawn(windows, THREE, 8, MaskSettings(policy, 0.6))
    assert masks.size == (3, 3)
    hidden = hide(windows.values, masks, THREE)
    for name, entry in THREE.items():
        given, values = windows.values[name], hidden[name]
        assert values.shape == given.shape
        assert lattice_size(given, entry, 8) == (3, 3)
        for row in range(given.shape[2]):
            for column in range(given.shape[3]):
                y, x = (int(pixel * entry.coarser / entry.finer) // 8 for pixel in (row, column))
                is_gone = masks.masked[name][:, y, x] | torch.isnan(given[:, 0, row, column])
                assert torch.equal(torch.isnan(values[:, :, row, column]).all(dim=1), is_gone)
                assert torch.equal(torch.isnan(values[:, :, row, column]).any(dim=1), is_gone)


def test_a_pixel_that_lacks_a_band_is_not_known() -> None:
    values = torch.ones(1, 2, 8, 8)
    values[0, 0, :4] = torch.nan
    values[0, 1, :, :4] = torch.nan
    assert known_patches(values, TWO["first"], 4).tolist() == [[[False, False], [False, True]]]


@EVERY_PAIR
@torch.no_grad()
def test_a_masked_pixel_cannot_change_what_is_encoded(stem: StemName, encoder: EncoderName, fusion: FusionName) -> None:
    """Bit for bit, by way of an objective; and a visible one does change it."""
    wanted = small_specification(encoder, fusion, stem=stem)
    model = random_model(wanted, least=24).eval()
    objective = MaskedReconstruction(model, MaskSettings(ratio=0.5, withheld=0.3), width=8, depth=1, patch=4)
    side = side_of(wanted, 20) + 2
    windows = small_windows(wanted, side)
    plain = objective.encoded(step_of(model, windows))
    moved = {}
    for name, values in windows.values.items():
        gone = torch.isnan(hide(windows.values, plain.masks, model.modalities)[name])
        assert gone.any()
        assert not gone.all()
        moved[name] = torch.where(gone, 7 * values.flip(-1) - 3, values)
    other = objective.encoded(step_of(model, replace(windows, values=moved)))
    pairs = list(zip(plain.features.levels, other.features.levels, strict=True))
    pairs += [(level, other.features.by_modality[name]) for name, level in plain.features.by_modality.items()]
    for level, same in pairs:
        assert torch.equal(level.values, same.values)
        assert torch.equal(level.known, same.known)
    assert torch.equal(plain.features.pooled, other.features.pooled)
    seen = {name: torch.where(torch.isnan(values), values, values + 0.5) for name, values in windows.values.items()}
    changed = objective.encoded(step_of(model, replace(windows, values=seen)))
    assert not torch.equal(plain.features.pooled, changed.features.pooled)
