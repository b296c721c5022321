"""Pairs of views: what each shows, and that one pass of both is as good as two."""

from __future__ import annotations

import pytest
import torch

from core.models.features import FeatureMap
from core.pretraining.objectives.objective import Windows
from core.pretraining.view_pairs import (
    PairSettings,
    dense_channels,
    draw_pair,
    encode_pair,
    is_anything_known,
    own_channels,
    pooled_channels,
    within,
)
from core.pretraining.views import ViewSettings, view_of
from tests.core.models.specifications import ENCODERS, FUSIONS
from tests.core.pretraining.models import small_model, small_specification, small_windows, step_of


def test_both_views_are_of_all_modalities_and_follow_their_maps() -> None:
    wanted = small_specification("unet", "intermediate")
    model, windows = small_model(wanted), small_windows(wanted, 16)
    pair = draw_pair(step_of(model, windows), PairSettings())
    assert not torch.equal(pair.first_maps, pair.second_maps)
    for view, maps in ((pair.first, pair.first_maps), (pair.second, pair.second_maps)):
        expected = view_of(windows, maps).values
        assert view.names == windows.names
        assert all(torch.equal(view.values[name].nan_to_num(9), expected[name].nan_to_num(9)) for name in expected)


def test_between_modalities_the_first_is_seen_against_the_others() -> None:
    wanted = small_specification("unet", "late")
    model, windows = small_model(wanted), small_windows(wanted, 16)
    settings = PairSettings(between_modalities=True)
    pair = draw_pair(step_of(model, windows), settings)
    assert (pair.first.names, pair.second.names) == (("optical",), ("sar", "dsm"))
    assert all(pair.second.values[name] is windows.values[name] for name in ("sar", "dsm"))
    assert torch.equal(pair.second_maps, torch.eye(2, 3, dtype=torch.float64).repeat(2, 1, 1))
    without = Windows({name: windows.values[name] for name in ("dsm", "sar")}, windows.geography)
    pair = draw_pair(step_of(model, without), settings)
    assert (pair.first.names, pair.second.names) == (("sar",), ("dsm",))
    alone = Windows({"dsm": windows.values["dsm"]}, windows.geography)
    pair = draw_pair(step_of(model, alone), settings)
    assert pair.first.names == pair.second.names == ("dsm",)
    assert not torch.equal(pair.first_maps, pair.second_maps)


def test_radiometry_varies_where_it_is_asked_for() -> None:
    wanted = small_specification("unet", "intermediate")
    model, windows = small_model(wanted), small_windows(wanted, 16)
    still = ViewSettings(turns=False)
    pair = draw_pair(step_of(model, windows), PairSettings(ViewSettings(turns=False, gain=0.2, noise=0.1)))
    for name, values in windows.values.items():
        assert not torch.equal(pair.first.values[name], values)
        assert not torch.equal(pair.first.values[name], pair.second.values[name])
    unmoved = draw_pair(step_of(model, windows), PairSettings(still))
    assert all(torch.equal(unmoved.first.values[name], values) for name, values in windows.values.items())


@pytest.mark.parametrize("fusion", FUSIONS)
def test_one_pass_of_both_views_is_two_passes(fusion: str) -> None:
    """In evaluation mode, where windows do not know of each other."""
    wanted = small_specification("vit" if "and" in fusion else "unet", fusion)  # type: ignore[arg-type]
    model, windows = small_model(wanted).eval(), small_windows(wanted, 16, missing=0.02)
    pair = draw_pair(step_of(model, windows), PairSettings())
    with torch.no_grad():
        encoded = encode_pair(model, pair)
        for view, features in ((pair.first, encoded.first), (pair.second, encoded.second)):
            alone = model.features(view.values, geography=view.geography)
            torch.testing.assert_close(features.pooled, alone.pooled, rtol=0, atol=1e-4)
            for one, other in zip(features.levels, alone.levels, strict=True):
                torch.testing.assert_close(one.values, other.values, rtol=0, atol=1e-4)
                assert torch.equal(one.known, other.known)
                assert one.stride == other.stride
            assert features.by_modality.keys() == alone.by_modality.keys()
            for name, level in features.by_modality.items():
                torch.testing.assert_close(level.values, alone.by_modality[name].values, rtol=0, atol=1e-4)
            torch.testing.assert_close(model.dense(features).values, model.dense(alone).values, rtol=0, atol=1e-4)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("fusion", ["early", "late", "joint_tokens"])
def test_channels_are_those_of_the_features(encoder: str, fusion: str) -> None:
    wanted = small_specification(encoder, fusion)  # type: ignore[arg-type]
    model, windows = small_model(wanted), small_windows(wanted, 32)
    features = model.features(windows.values)
    assert features.pooled.shape[1] == pooled_channels(model)
    assert model.dense(features).values.shape[1] == dense_channels(model)
    assert all(level.values.shape[1] == own_channels(model) for level in features.by_modality.values())


def test_a_head_of_scenes_has_no_places() -> None:
    model = small_model(small_specification("unet", "early", head="scene"))
    with pytest.raises(ValueError, match="no decoder"):
        dense_channels(model)


def test_what_a_model_filled_up_is_cut_off() -> None:
    wanted = small_specification("unet", "early", depth=2)
    model, windows = small_model(wanted), small_windows(wanted, 18)
    step = step_of(model, windows)
    dense = model.dense(model.features(windows.values))
    assert dense.values.shape[-2:] == (20, 20)
    cut = within(step, dense)
    assert cut.values.shape[-2:] == cut.known.shape[-2:] == (18, 18)
    assert torch.equal(cut.values, dense.values[..., :18, :18])


def test_a_window_without_data_is_told_from_others() -> None:
    known = torch.zeros(3, 1, 2, 2)
    known[1, 0, 0, 1] = 1
    assert is_anything_known(FeatureMap(torch.zeros(3, 4, 2, 2), known, 1)).tolist() == [False, True, False]
