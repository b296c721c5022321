"""Models of whole scenes: windows in, probabilities out, and what a file of one may hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from core.errors import ModelFileError
from core.finetuning.estimators.scene_classifiers import CANDIDATES, fit_classifier
from core.labels.scheme import ClassScheme, LandCoverClass
from core.models.catalogue import catalogue_entry
from core.models.model_file import ModelCard, class_cards, load_model, read_tensors, save_model, write_tensors
from core.models.registry import any_model
from core.models.scene_model import SceneModel
from core.models.specification import BandSpecification, EstimatorSpecification, ModalitySpecification, ModelSpecification

SCHEME = ClassScheme("labels", tuple(LandCoverClass(k + 1, name, "#112233", name) for k, name in enumerate(("a", "b"))))


def modality(name: str, role: str, *bands: str) -> ModalitySpecification:
    entries = tuple(BandSpecification(name=band, mean=1.0, standard_deviation=2.0) for band in bands)
    return ModalitySpecification(name=name, role=role, sensor=name, kind=role, bands=entries)


def specification(multi_label: bool = False, **changes) -> ModelSpecification:
    values = {
        "architecture": "unet_early",
        "head": "scene",
        "modalities": (modality("sentinel1", "sar", "VV", "VH"), modality("generic", "optical", "x")),
        "n_classes": 2,
        "estimator": EstimatorSpecification(kind="logistic", multi_label=multi_label),
    }
    return ModelSpecification.model_validate(values | changes)


def windows(count: int) -> tuple[dict[str, torch.Tensor], np.ndarray]:
    """Windows of two classes, of which the second is brighter in all bands."""
    generator = torch.Generator().manual_seed(0)
    kind = torch.arange(count) % 2
    values = {name: torch.randn(count, bands, 8, 8, generator=generator) for name, bands in (("sentinel1", 2), ("generic", 1))}
    return {name: each + 4 * kind[:, None, None, None] for name, each in values.items()}, kind.numpy()


def fitted(multi_label: bool) -> SceneModel:
    model = SceneModel(specification(multi_label)).eval()
    values, kind = windows(20)
    seen: list[np.ndarray] = []
    model.probabilities = lambda rows: seen.append(rows) or np.full((len(rows), 2), 0.5)  # type: ignore[method-assign]
    model(values)
    del model.probabilities
    classifier = fit_classifier(CANDIDATES[2], seen[0], np.eye(2, dtype=bool)[kind], model.layout, multi_label, 0, (1, 2))
    classifier.put_into(model, 0.4)
    return model


def card(model: SceneModel) -> ModelCard:
    return ModelCard(
        software_version="0",
        specification=model.specification,
        resolution_m=10,
        class_scheme="labels",
        classes=class_cards(SCHEME),
    )


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_file_holds_all_of_it(multi_label, tmp_path):
    model = fitted(multi_label)
    save_model(tmp_path / "m.safetensors", model, card(model))
    loaded, _ = load_model(tmp_path / "m.safetensors")
    assert isinstance(loaded, SceneModel)
    assert float(loaded.threshold) == 0.4
    values, kind = windows(20)
    for given in (values, {"sentinel1": values["sentinel1"]}):
        assert torch.equal(loaded(given), model(given))
        assert (loaded(given).argmax(dim=1).numpy() == kind).all()
    total = loaded(values).exp().sum(dim=1)
    assert multi_label or torch.allclose(total, torch.ones(20), atol=1e-5)


def test_damaged_graphs_are_refused(tmp_path):
    model = fitted(False)
    path = tmp_path / "m.safetensors"
    save_model(path, model, card(model))
    tensors, header = read_tensors(path)
    broken = {**tensors, "programs.0.0": torch.zeros(9, dtype=torch.uint8)}
    other = {**tensors, "programs.0.0": tensors["programs.1.0"].clone()}
    none = {name: value for name, value in tensors.items() if not name.startswith("programs")}
    for state, words in ((broken, "do not belong"), (other, "do not belong"), (none, "there is none")):
        write_tensors(path, state, header)
        with pytest.raises(ModelFileError, match=words):
            load_model(path)


def test_what_is_possible():
    assert isinstance(any_model(specification()), SceneModel)
    with pytest.raises(ValidationError, match="an estimator of pixels"):
        specification(head="embedding")
    with pytest.raises(ValueError, match="not of an estimator of scenes"):
        SceneModel(specification(estimator=None))
    entry = catalogue_entry(specification())
    assert entry.levels == ()
    assert entry.reach is None
