"""Features of pixels: on the map's grid, of the decoder or of all levels."""

from __future__ import annotations

import pytest
import torch

from core.models.feature_model import FeatureModel
from core.models.registry import build_model
from tests.core.models.specifications import combination, inputs


@pytest.mark.parametrize("encoder", ["unet", "resnet", "vit"])
@pytest.mark.parametrize("uses_decoder", [True, False])
def test_features_lie_on_the_reference_grid(encoder, uses_decoder):
    stem = "statistics" if encoder == "unet" else "per_sensor"
    wanted = combination(stem, encoder, "intermediate")
    model = build_model(wanted).eval()
    features = FeatureModel(model, uses_decoder).eval()
    values = inputs(wanted, 42, 36, 2)
    with torch.no_grad():
        seen = features(values)
        assert seen.shape == (2, features.n_features, 42, 36)
        if uses_decoder:
            scores = model.head.classifier(model.dense(model.features(values)).values)
            expected = model.head.classifier(seen)
            if model.head.stride == 1:
                assert torch.allclose(scores[:, :, :42, :36], expected, atol=1e-5)
        else:
            assert features.n_features == sum(model.fusion.channels)


def test_scenes_have_no_features_of_pixels():
    with pytest.raises(TypeError, match="head of pixels"):
        FeatureModel(build_model(combination("per_sensor", "unet", "early", head="scene")), True)
