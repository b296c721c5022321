"""Both terms from one pass: the same as each by itself."""

from __future__ import annotations

import pytest
import torch

from core.pretraining.objectives.image_contrast import ImageContrast, ImageContrastSettings
from core.pretraining.objectives.sar_optical_contrast import SarOpticalContrast
from core.pretraining.objectives.superpixel_contrast import SuperpixelContrast, SuperpixelContrastSettings
from core.pretraining.view_pairs import PairSettings
from tests.core.pretraining.models import small_model, small_specification, step_of
from tests.core.pretraining.objectives.learning import fields

IMAGE = ImageContrastSettings(channels=8, own_channels=4, has_cross_modal=True)
SUPERPIXEL = SuperpixelContrastSettings(channels=4)


@pytest.mark.parametrize("between", [False, True])
def test_both_terms_are_those_of_each_by_itself(between: bool) -> None:
    model = small_model(small_specification("unet", "intermediate", dropout=0.0, statistics_dropout=0.0))
    pair, windows = PairSettings(between_modalities=between), fields(model.specification, 16, 3)
    both = SarOpticalContrast(model, IMAGE, SUPERPIXEL, pair).train()
    image, superpixel = ImageContrast(model, IMAGE, pair).train(), SuperpixelContrast(model, SUPERPIXEL, pair).train()
    assert both.image is not None
    assert both.superpixel is not None
    image.load_state_dict(both.image.state_dict())
    superpixel.load_state_dict(both.superpixel.state_dict())
    found = both(step_of(model, windows))
    expected = image(step_of(model, windows)) | superpixel(step_of(model, windows))
    assert found.keys() == expected.keys() == {"image", "cross_modal", "superpixel"}
    for name, term in expected.items():
        torch.testing.assert_close(found[name], term)


@pytest.mark.parametrize(("between", "passes"), [(False, 1), (True, 2)])
def test_each_view_is_encoded_once(monkeypatch: pytest.MonkeyPatch, between: bool, passes: int) -> None:
    model = small_model(small_specification("unet", "intermediate"))
    objective = SarOpticalContrast(model, IMAGE, SUPERPIXEL, PairSettings(between_modalities=between))
    seen = []
    features = model.features
    monkeypatch.setattr(model, "features", lambda *values, **options: seen.append(1) or features(*values, **options))
    objective(step_of(model, fields(model.specification, 16, 2)))
    assert len(seen) == passes


def test_each_term_can_be_left_out_but_not_both() -> None:
    model = small_model(small_specification("unet", "intermediate"))
    step = step_of(model, fields(model.specification, 16, 2))
    assert SarOpticalContrast(model, IMAGE, None)(step).keys() == {"image", "cross_modal"}
    assert SarOpticalContrast(model, None, SUPERPIXEL)(step).keys() == {"superpixel"}
    with pytest.raises(ValueError, match="got neither"):
        SarOpticalContrast(model, None, None)
    objective = SarOpticalContrast(model, IMAGE, SUPERPIXEL)
    objective(step)
    assert objective.monitors().keys() == {"image_spread", "image_rank", "superpixels"}
