"""Stems on every grid, and kernels that come from what a band is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from core.models.registry import build_model
from core.models.specification import BandSpecification, ModalitySpecification, ModelSpecification, StemName
from core.models.stems.band_codes import BandCodes
from core.models.stems.kernels import StemGeometry
from core.models.stems.stem import GeneratedStem, KnownStandardisation, PerSensorStem, StatisticsStem, Stem, strides_to
from tests.core.models.specifications import STEMS, modality

GEOMETRIES = {"unet": StemGeometry(8, 1, 1), "resnet": StemGeometry(8, 7, 2), "vit": StemGeometry(8, 4, 4)}


def stem_of(name: StemName, entry: ModalitySpecification, geometry: StemGeometry) -> Stem:
    torch.manual_seed(0)
    if name == "generated":
        return GeneratedStem(entry, geometry, BandCodes(geometry.channels, geometry.kernel), 10.0).eval()
    return (StatisticsStem if name == "statistics" else PerSensorStem)(entry, geometry).eval()


@pytest.mark.parametrize(
    "scale", [{}, {"finer": 2}, {"finer": 10}, {"finer": 50}, {"coarser": 2}, {"coarser": 3}, {"coarser": 6}]
)
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("name", STEMS)
@torch.no_grad()
def test_every_resolution_reaches_the_grid_of_the_encoder(name: StemName, geometry: str, scale: dict[str, Any]) -> None:
    entry, wanted = modality("any", 2, **scale), GEOMETRIES[geometry]
    finer, coarser = entry.finer, entry.coarser
    values = torch.randn(2, 2, 24 * finer // coarser, 12 * finer // coarser)
    # A gap in the north-west, of whole outputs and whole pixels.
    values[0, :, : 12 * finer // coarser, : 12 * finer // coarser] = torch.nan
    found = stem_of(name, entry, wanted)(values)
    assert found.stride == wanted.stride
    assert found.values.shape == (2, 8, 24 // wanted.stride, 12 // wanted.stride)
    assert found.known.shape == (2, 1, 24 // wanted.stride, 12 // wanted.stride)
    assert torch.isfinite(found.values).all()
    assert not found.values[(found.known == 0).expand_as(found.values)].any()
    assert found.known[1].all()
    # Interpolation between coarse pixels reaches less than one of them into the gap.
    inner = max(0, (12 - coarser) // wanted.stride) if coarser > 1 else 12 // wanted.stride
    assert not found.known[0, 0, :inner].any()
    assert found.known[0, 0, 12 // wanted.stride :].all()


@pytest.mark.parametrize(
    ("factor", "steps"), [(1, ()), (2, (2,)), (4, (4,)), (6, (3, 2)), (10, (5, 2)), (50, (5, 5, 2)), (7, (7,))]
)
def test_finer_pixels_are_reached_in_small_steps(factor: int, steps: tuple[int, ...]) -> None:
    assert strides_to(factor) == steps


def generated(*modalities: ModalitySpecification) -> ModelSpecification:
    return ModelSpecification(
        architecture="tried", stem="generated", fusion="early", modalities=modalities, n_classes=3, width=4, depth=1
    )


def sensor(name: str, bands: list[BandSpecification], kind: str = "optical") -> ModalitySpecification:
    role = kind if kind in ("optical", "sar") else "other"
    return ModalitySpecification(name=name, role=role, sensor=name, kind=kind, bands=tuple(bands))  # type: ignore[arg-type]


def optical(name: str, centre: float, width: float = 20.0) -> BandSpecification:
    return BandSpecification(name=name, mean=0.2, standard_deviation=0.1, center_nm=centre, fwhm_nm=width)


@torch.no_grad()
def said(wanted: ModelSpecification, weights: dict[str, Tensor], values: Tensor) -> Tensor:
    model = build_model(wanted).eval()
    model.load_state_dict(weights)
    scores: Tensor = model({wanted.modalities[0].name: values})
    return scores


def test_a_cube_and_an_aerial_image_pass_through_the_same_weights() -> None:
    torch.manual_seed(0)
    cube = sensor("enmap", [optical(f"b{i}", 420 + 9.0 * i, 8) for i in range(224)])
    image = sensor("aerial", [optical(n, c, 60) for n, c in (("blue", 460), ("green", 560), ("red", 650), ("nir", 840))])
    weights = build_model(generated(cube)).state_dict()
    assert not any("enmap" in name or name.startswith("stems.") for name in weights)
    of_cube = said(generated(cube), weights, 0.2 + 0.1 * torch.randn(1, 224, 12, 12))
    of_image = said(generated(image), weights, 0.2 + 0.1 * torch.randn(1, 4, 12, 12))
    assert of_cube.shape == of_image.shape == (1, 3, 12, 12)
    # 224 bands weigh about as much as four.
    assert 0.1 < of_cube.std() / of_image.std() < 10


def test_names_of_bands_do_not_matter_and_wavelengths_do() -> None:
    torch.manual_seed(0)
    values = 0.2 + 0.1 * torch.randn(1, 2, 12, 12)
    one = generated(sensor("one", [optical("a", 560), optical("b", 840)]))
    weights = build_model(one).state_dict()
    plain = said(one, weights, values)
    renamed = generated(sensor("other", [optical("z", 560), optical("c", 840)]))
    torch.testing.assert_close(said(renamed, weights, values), plain, rtol=0, atol=1e-6)
    for moved in (optical("b", 1600), optical("b", 840, 300)):
        assert not torch.allclose(said(generated(sensor("one", [optical("a", 560), moved])), weights, values), plain, atol=1e-4)


def test_radar_is_coded_by_polarisation_and_orbit() -> None:
    def band(name: str, polarization: str, orbit: Any = None) -> BandSpecification:
        return BandSpecification(name=name, mean=-12, standard_deviation=4, polarization=polarization, orbit=orbit)

    torch.manual_seed(0)
    values = -12 + 4 * torch.randn(1, 2, 12, 12)
    one = generated(sensor("s1", [band("a", "VV"), band("b", "VH")], "sar"))
    weights = build_model(one).state_dict()
    plain = said(one, weights, values)
    same = generated(sensor("nisar", [band("c", "VV"), band("d", "VH")], "sar"))
    torch.testing.assert_close(said(same, weights, values), plain, rtol=0, atol=1e-6)
    turned = generated(sensor("s1", [band("z", "VV"), band("b", "VH")], "sar"))
    torch.testing.assert_close(said(turned, weights, values), plain, rtol=0, atol=1e-6)
    others = [
        [band("a", "HH"), band("b", "HV")],
        [band("a", "VH"), band("b", "VV")],
        [band("a", "VV", "ascending"), band("b", "VH")],
    ]
    for bands in others:
        assert not torch.allclose(said(generated(sensor("s1", bands, "sar")), weights, values), plain, atol=1e-4)


@torch.no_grad()
def test_many_bands_are_mixed_whatever_their_order() -> None:
    entry = sensor("enmap", [optical(f"b{i}", 420 + 40.0 * i) for i in range(40)])
    stem = stem_of("statistics", entry, GEOMETRIES["unet"])
    values = 0.2 + 0.1 * torch.randn(1, 40, 12, 12)
    plain = stem(values).values
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0)).tolist()
    names = [entry.bands[i].name for i in order]
    assert torch.equal(plain, stem(values[:, order], names).values)
    other = stem_of("statistics", entry.model_copy(update={"bands": tuple(entry.bands[i] for i in order)}), GEOMETRIES["unet"])
    assert torch.equal(other.channels.mixtures, stem.channels.mixtures)  # type: ignore[arg-type]
    other.load_state_dict(stem.state_dict())
    assert torch.equal(plain, other(values[:, order]).values)
    part = stem(values[:, order[:7]], names[:7]).values
    assert torch.isfinite(part).all()
    assert not torch.equal(part, plain)


def test_what_is_missing_does_not_change_how_the_rest_is_scaled() -> None:
    layer, other = KnownStandardisation(3), KnownStandardisation(3)
    clear = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 4 + 9
    clouded = torch.cat([clear, torch.zeros(2, 3, 8, 24)], dim=3)
    known = torch.cat([torch.ones(2, 1, 8, 8), torch.zeros(2, 1, 8, 24)], dim=3)
    found, expected = layer(clouded, known, range(3)), other(clear, torch.ones(2, 1, 8, 8), range(3))
    torch.testing.assert_close(found[..., :8], expected, rtol=0, atol=1e-5)
    assert not found[..., 8:].any()
    torch.testing.assert_close(layer.running_mean, other.running_mean)
    torch.testing.assert_close(layer.running_var, other.running_var)
    plain = torch.nn.BatchNorm2d(3, affine=False)
    torch.testing.assert_close(expected, plain(clear), rtol=0, atol=1e-5)
    torch.testing.assert_close(other.running_var, plain.running_var)
    before = layer.running_mean.clone()
    assert not layer(torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4), range(3)).any()
    assert torch.equal(layer.running_mean, before)
