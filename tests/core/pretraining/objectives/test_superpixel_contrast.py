"""Contrast of super-pixels: both views meet on the same ground, and the loss is that of their means."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core.models.features import FeatureMap, Features, features_of
from core.models.fusion_model import FusionModel
from core.pretraining.objectives import superpixel_contrast
from core.pretraining.objectives.objective import Step, Windows
from core.pretraining.objectives.superpixel_contrast import (
    SuperpixelContrast,
    SuperpixelContrastSettings,
    cut_windows,
)
from core.pretraining.projections import unit
from core.pretraining.view_pairs import FeaturePair, PairSettings, draw_pair
from core.pretraining.views import ViewSettings
from tests.core.pretraining.models import small_model, small_specification, step_of
from tests.core.pretraining.objectives.learning import backward, fields

VIEWS = PairSettings(ViewSettings(shift=0.25))


def looking(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor]]:
    """Collects the rows that are compared."""
    seen: list[tuple[Tensor, Tensor]] = []
    whole = superpixel_contrast.info_nce

    def look(first: Tensor, second: Tensor, *options: Any) -> Tensor:
        seen.append((first, second))
        return whole(first, second, *options)

    monkeypatch.setattr(superpixel_contrast, "info_nce", look)
    return seen


def made(**options: Any) -> tuple[FusionModel, SuperpixelContrast]:
    model = small_model(small_specification("unet", "intermediate"))
    return model, SuperpixelContrast(model, SuperpixelContrastSettings(channels=4, **options), VIEWS).train()


def transparent(monkeypatch: pytest.MonkeyPatch, model: FusionModel, objective: SuperpixelContrast) -> None:
    """Dense features are the optical values themselves."""
    objective.projection = nn.Identity()  # type: ignore[assignment]
    monkeypatch.setattr(model, "dense", lambda features: features.levels[-1])


def as_features(view: Windows) -> Features:
    values = view.values["optical"]
    known = torch.isfinite(values).all(dim=1, keepdim=True).float()
    return features_of([FeatureMap(torch.nan_to_num(values) * known, known, 1)])


def looped(step: Step, pair: FeaturePair) -> dict[tuple[int, int], Tensor]:
    """The mean of each super-pixel over what both views show, from the window itself: pixel by pixel."""
    ids, values = cut_windows(step.model, step.windows, "felzenszwalb"), step.windows.values["optical"]
    side = values.shape[-1]
    sums: dict[tuple[int, int], list[Tensor]] = {}
    for window in range(len(ids)):
        for row in range(side):
            for column in range(side):
                at = torch.tensor([(2 * column + 1) / side - 1, (2 * row + 1) / side - 1], dtype=torch.float64)
                shown = []
                for maps in (pair.views.first_maps[window], pair.views.second_maps[window]):
                    # Where the pixel is in the view.
                    shown.append(bool((torch.linalg.solve(maps[:, :2], at - maps[:, 2]).abs() < 1).all()))
                if all(shown):
                    direction = unit(values[window, None, :, row, column])[0]
                    sums.setdefault((window, int(ids[window, row, column])), []).append(direction)
    return {key: torch.stack(parts).mean(dim=0) for key, parts in sums.items()}


@pytest.mark.parametrize("seed", range(3))
def test_both_views_give_each_super_pixel_the_mean_of_what_both_show(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    model, objective = made()
    transparent(monkeypatch, model, objective)
    seen = looking(monkeypatch)
    step = step_of(model, fields(model.specification, 16, 3, seed), seed)
    views = draw_pair(step, objective.pair)
    pair = FeaturePair(views, as_features(views.first), as_features(views.second))
    loss = objective.terms(step, pair)["superpixel"]
    first, second = seen[0]
    expected = looped(step, pair)
    assert len(first) == len(expected) > 3
    # Turned and shifted by whole pixels, both see the very same values.
    torch.testing.assert_close(first, second, rtol=0, atol=1e-4)
    torch.testing.assert_close(first, unit(torch.stack([expected[key] for key in sorted(expected)])), rtol=0, atol=1e-4)
    assert torch.isfinite(loss)
    assert objective.monitors() == {"superpixels": len(first)}


def test_gaps_in_one_view_count_in_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    model, objective = made()
    transparent(monkeypatch, model, objective)
    seen = looking(monkeypatch)
    step = step_of(model, fields(model.specification, 16, 2))
    views = draw_pair(step, objective.pair)
    first, second = as_features(views.first), as_features(views.second)
    hole = second.levels[-1].known.clone()
    hole[:, :, 4:9] = 0
    gapped = features_of([FeatureMap(second.levels[-1].values * hole, hole, 1)])
    objective.terms(step, FeaturePair(views, first, gapped))
    torch.testing.assert_close(seen[0][0], seen[0][1], rtol=0, atol=1e-4)


def test_single_places_take_the_place_of_means_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    model, objective = made(samples_one_place=True)
    transparent(monkeypatch, model, objective)
    seen = looking(monkeypatch)
    step = step_of(model, fields(model.specification, 16, 2))
    views = draw_pair(step, objective.pair)
    objective.terms(step, FeaturePair(views, as_features(views.first), as_features(views.second)))
    first, second = seen[0]
    torch.testing.assert_close(first, second, rtol=0, atol=1e-4)
    pixels = unit(step.windows.values["optical"].movedim(1, -1).flatten(0, 2))
    # Each row is one pixel of the windows, and a mean of none of them.
    assert float((first @ pixels.T).amax(dim=1).min()) > 1 - 1e-6


def test_at_most_as_many_as_asked_for_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    model, objective = made(most=3)
    seen = looking(monkeypatch)
    objective(step_of(model, fields(model.specification, 16, 4)))
    assert [len(each) for each in seen[0]] == [3, 3]


def test_windows_are_cut_of_an_optical_modality_where_there_is_one() -> None:
    model = small_model(small_specification("unet", "intermediate"))
    windows = fields(model.specification, 32, 2)
    shuffled = Windows(dict(reversed(windows.values.items())), windows.geography)
    ids = cut_windows(model, shuffled, "felzenszwalb")
    assert ids.shape[-2:] == windows.values["optical"].shape[-2:]
    assert torch.equal(
        ids, cut_windows(model, Windows({"optical": windows.values["optical"]}, windows.geography), "felzenszwalb")
    )
    without = Windows({name: windows.values[name] for name in ("sar", "dsm")}, windows.geography)
    assert cut_windows(model, without, "felzenszwalb").shape[-2:] == windows.values["sar"].shape[-2:]
    empty = windows.values | {"optical": torch.full_like(windows.values["optical"], torch.nan)}
    assert cut_windows(model, Windows(empty, windows.geography), "slic").shape[-2:] == windows.values["sar"].shape[-2:]


@pytest.mark.parametrize("names", [("optical", "sar", "dsm"), ("sar", "dsm"), ("dsm",)])
@pytest.mark.parametrize("between", [False, True])
def test_the_loss_reaches_the_decoder_whatever_is_there(names: tuple[str, ...], between: bool) -> None:
    """Segments may be of a finer or a coarser modality than the features."""
    model = small_model(small_specification("unet", "late"))
    settings = SuperpixelContrastSettings(channels=4)
    objective = SuperpixelContrast(model, settings, PairSettings(VIEWS.views, between_modalities=between)).train()
    windows = fields(model.specification, 16, 3)
    terms = objective(step_of(model, Windows({name: windows.values[name] for name in names}, windows.geography)))
    backward(terms)
    assert objective.projection.weight.grad is not None
    assert objective.projection.weight.grad.any()
    decoder = [parameter.grad for name, parameter in model.named_parameters() if "decoders" in name]
    assert any(gradient is not None and bool(gradient.any()) for gradient in decoder)
    assert objective.monitors()["superpixels"] >= 3


def test_a_head_of_scenes_is_refused() -> None:
    model = small_model(small_specification("unet", "early", head="scene"))
    with pytest.raises(ValueError, match="no decoder"):
        SuperpixelContrast(model)
