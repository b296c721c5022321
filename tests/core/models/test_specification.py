"""Specifications that are impossible are refused, and what is possible comes back from its text."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from core.models.specification import ModelSpecification
from tests.core.models.specifications import EVERY_COMBINATION, combination, modality

REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("2 to 255 classes", {"n_classes": 1}),
    ("2 to 255 classes", {"n_classes": 256, "head": "change"}),
    ("n_classes", {"n_classes": 0, "head": "scene"}),
    ("architecture", {"architecture": "U-Net"}),
    ("dropout", {"dropout": 1.0}),
    ("depth", {"depth": 0}),
    ("modalities", {"modalities": ()}),
    ("at most 8 items", {"modalities": tuple(modality(f"optical_{number}", 3) for number in range(9))}),
    ("encoder 'vit' comes in the sizes tiny, small, base, not 'large'", {"encoder": "vit", "size": "large"}),
    ("encoder 'resunet' comes in the sizes small, base, large", {"encoder": "resunet", "size": "tiny"}),
    ("finest stride of 1 or 2, not 4", {"encoder": "resnet", "finest": 4}),
    ("finest stride of 1, not 2", {"finest": 2}),
    ("fusion", {"fusion": "middle"}),
    ("resolution_m", {"resolution_m": 0}),
]


@pytest.mark.parametrize(("complaint", "values"), REFUSED)
def test_impossible_models_are_refused(complaint: str, values: dict[str, Any]) -> None:
    possible = {"architecture": "tried", "modalities": (modality("optical", 3),), "n_classes": 2}
    ModelSpecification(**possible)
    with pytest.raises(ValidationError, match=complaint):
        ModelSpecification(**(possible | values))


def test_impossible_modalities_are_refused() -> None:
    entry = modality("optical", 3)
    with pytest.raises(ValidationError, match="same name"):
        ModelSpecification(architecture="tried", modalities=(entry, entry), n_classes=2)
    with pytest.raises(ValidationError, match="whole factor"):
        modality("both", 1, finer=2, coarser=2)
    with pytest.raises(ValidationError, match="bands"):
        modality("none", 0)
    with pytest.raises(ValidationError, match="name"):
        modality("a.b")


@pytest.mark.parametrize(("head", "count"), [("scene", 1), ("embedding", 4096)])
def test_what_is_no_map_has_any_number_of_outputs(head: str, count: int) -> None:
    found = ModelSpecification(architecture="tried", modalities=(modality("a"),), n_classes=count, head=head)  # type: ignore[arg-type]
    assert found.n_classes == count


@EVERY_COMBINATION
def test_a_specification_comes_back_from_its_text(stem: Any, encoder: Any, fusion: Any) -> None:
    wanted = combination(stem, encoder, fusion, has_dates=True)
    assert ModelSpecification.model_validate_json(wanted.model_dump_json()) == wanted
