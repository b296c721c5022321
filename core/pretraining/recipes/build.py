"""Recipes by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.pretraining.methods import MethodName, SettingName
from core.pretraining.recipes.anchor_aware_mae import AnchorAwareMaeRecipe
from core.pretraining.recipes.asymmetric_attention import AsymmetricAttentionRecipe
from core.pretraining.recipes.cross_scale_mae import CrossScaleMaeRecipe
from core.pretraining.recipes.cross_sensor_alignment import CrossSensorAlignmentRecipe
from core.pretraining.recipes.latent_targets import LatentTargetsRecipe
from core.pretraining.recipes.recipe import Recipe
from core.pretraining.recipes.sar_optical_contrast import EarlyRecipe, IntermediateRecipe, LateRecipe

RECIPES: dict[MethodName, type[Recipe]] = {
    "latent_targets": LatentTargetsRecipe,
    "sar_optical_contrast_early": EarlyRecipe,
    "sar_optical_contrast_intermediate": IntermediateRecipe,
    "sar_optical_contrast_late": LateRecipe,
    "asymmetric_attention": AsymmetricAttentionRecipe,
    "cross_scale_mae": CrossScaleMaeRecipe,
    "cross_sensor_alignment": CrossSensorAlignmentRecipe,
    "anchor_aware_mae": AnchorAwareMaeRecipe,
}


def make_recipe(method: MethodName, setting: SettingName = "small", switches: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe with its switches set.

    Raises:
        UsageError: no such switch, or a value that it does not take.
    """
    chosen = RECIPES[method]
    recipe = chosen.as_published() if setting == "paper" else chosen()
    return recipe.switched(dict(switches or {}))
