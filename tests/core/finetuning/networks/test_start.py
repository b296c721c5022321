"""What a new model takes over from a base model, and how a scene is turned into a specification."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from core.errors import RasterError, UsageError
from core.finetuning.networks.start import start_model
from core.labels.scheme import ClassScheme, LandCoverClass
from core.models.architectures import ARCHITECTURES, ArchitectureName
from core.models.model_file import ModelCard, class_cards
from core.models.specify import specify_model
from core.scenes.scene import SceneRequest, build_scene
from tests.core.finetuning.scenes import LEFT, TOP, write_raster
from tests.core.finetuning.training import Prepared
from tests.core.models.specifications import specification

NAMES = ("water", "trees", "built")


def scheme(*names: str) -> ClassScheme:
    return ClassScheme("test", tuple(LandCoverClass(i + 1, name, "#000000", name) for i, name in enumerate(names)))


def base(architecture: ArchitectureName) -> tuple[torch.nn.Module, ModelCard]:
    wanted = specification(architecture, "usual", n_classes=3)
    model = start_model(wanted, 1, None, scheme(*NAMES))
    model.train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5)
        for name, value in model.named_buffers():
            if "running_" in name:
                value.add_(0.25)
    card = ModelCard(
        software_version="0", specification=wanted, resolution_m=10, class_scheme="test", classes=class_cards(scheme(*NAMES))
    )
    return model, card


@pytest.mark.parametrize("architecture", ["unet_early", "unet_intermediate"])
@pytest.mark.parametrize(
    ("names", "is_kept"),
    [(NAMES, True), (("trees", "water", "built"), False), (("water", "trees"), False), ((*NAMES, "bare"), False)],
)
def test_weights_are_kept_and_the_head_only_for_the_same_classes(
    architecture: ArchitectureName, names: tuple[str, ...], is_kept: bool
) -> None:
    model, card = base(architecture)
    wanted = card.specification.model_copy(update={"n_classes": len(names)})
    started, fresh = start_model(wanted, 1, (model, card), scheme(*names)), start_model(wanted, 1, None, scheme(*names))
    before, after, new = model.state_dict(), started.state_dict(), fresh.state_dict()
    heads = [name for name in after if name.startswith("head.classifier.")]
    assert [len(after[name]) for name in heads] == [len(names)] * 2
    for name, value in after.items():
        assert torch.equal(value, before[name] if is_kept or name not in heads else new[name])


def test_starting_follows_from_the_seed_and_leaves_the_generator_alone() -> None:
    wanted = specification("unet_early", "usual")
    state = torch.random.get_rng_state()
    first, again, other = (start_model(wanted, seed, None, scheme(*"abcde")).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_a_changed_start_does_not_change_the_base() -> None:
    model, card = base("unet_early")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    started = start_model(card.specification, 1, (model, card), scheme(*NAMES))
    with torch.no_grad():
        for parameter in started.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_scene_is_specified_by_the_registry(simulated: Prepared) -> None:
    scene = simulated.data.scene
    found = specify_model(scene, "unet_early", 4)
    assert [entry.name for entry in found.modalities] == [entry.name for entry in scene.acquisitions]
    for entry, acquisition in zip(found.modalities, scene.acquisitions, strict=True):
        assert entry.scale == acquisition.scale
        assert entry.band_names == acquisition.bands
        for band in entry.bands:
            known = acquisition.sensor.band(band.name)
            if known.mean is not None:
                assert (band.mean, band.standard_deviation) == (known.mean, known.standard_deviation)
    assert specify_model(scene, "unet_early", 4) == found


def test_an_unknown_sensor_is_scaled_by_its_own_values(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    values = np.stack([generator.normal(50, 4, (60, 60)), np.full((60, 60), 3.0)])
    values[:, :5] = np.nan
    path = write_raster(tmp_path / "other.tif", values, 10)
    scene = build_scene(SceneRequest({"other": [path]}, {"other": "generic"}))
    varied, flat = specify_model(scene, "unet_early", 2).modalities[0].bands
    assert abs(varied.mean - 50) < 0.3
    assert 3.2 < varied.standard_deviation < 4.2
    assert (flat.mean, flat.standard_deviation) == (3.0, 1.0)


def test_a_band_without_a_plausible_value_is_named(tmp_path: Path) -> None:
    values = np.stack([np.random.default_rng(0).normal(50, 4, (40, 40)), np.full((40, 40), np.nan)])
    path = write_raster(tmp_path / "half.tif", values, 10, LEFT, TOP)
    scene = build_scene(SceneRequest({"other": [path]}, {"other": "generic"}))
    with pytest.raises(RasterError, match=r"half\.tif"):
        specify_model(scene, "unet_early", 2)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_names_its_parts(simulated: Prepared, name: ArchitectureName) -> None:
    found, entry = specify_model(simulated.data.scene, name, 4), ARCHITECTURES[name]
    assert (found.architecture, found.stem, found.encoder, found.size, found.fusion) == (
        name,
        entry.stem,
        entry.encoder,
        entry.size,
        entry.fusion,
    )
    assert found.resolution_m == pytest.approx(10, rel=1e-3)
    assert found.head == "dense"


def test_parts_that_are_chosen_take_the_place_of_the_architectures_own(simulated: Prepared) -> None:
    scene = simulated.data.scene
    found = specify_model(scene, "unet_early", 4, encoder="vit", fusion="late")
    # Neighbourhood statistics are for the encoder that keeps every pixel apart.
    assert (found.encoder, found.fusion, found.size, found.stem) == ("vit", "late", "small", "per_sensor")
    kept = specify_model(scene, "unet_any_sensor", 4, encoder="resnet", size="tiny")
    assert (kept.encoder, kept.size, kept.stem) == ("resnet", "tiny", "generated")
    assert specify_model(scene, "vit_joint_tokens", 4, encoder="resunet").size == "small"
    with pytest.raises(UsageError, match="'vit' does not come in the size 'large'") as caught:
        specify_model(scene, "vit_joint_tokens", 4, size="large")
    assert "tiny, small, base" in caught.value.hint


def test_only_radar_keeps_its_polarisation_and_optical_bands_their_wavelength(simulated: Prepared) -> None:
    optical, sar = specify_model(simulated.data.scene, "unet_any_sensor", 4).modalities
    assert all(band.center_nm and band.polarization is None for band in optical.bands)
    assert {band.polarization for band in sar.bands} == {"VV", "VH"}
