"""Public encoders' weights: a plain forward pass over the same weights gives the same features."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from core.errors import ModelFileError
from core.models.encoders.resnet import ResNetEncoder
from core.models.encoders.vit import VITS, ViTEncoder
from core.models.features import FeatureMap
from core.models.fusion_model import FusionModel
from core.models.public_weights import load_public_encoder
from core.models.registry import build_model
from core.models.specification import BandSpecification, EncoderName, FusionName, ModalitySpecification, ModelSpecification

RED_GREEN_BLUE = (("R", 665.0), ("G", 560.0), ("B", 490.0))
EPSILON = 1e-5


@pytest.fixture(autouse=True, scope="module")
def _small_networks() -> None:
    """The published sizes here: the weights are made for them."""


def modality(name: str, bands: tuple[tuple[str, float | None], ...], **options: object) -> ModalitySpecification:
    made = tuple(BandSpecification(name=n, mean=0, standard_deviation=1, center_nm=c) for n, c in bands)
    values = {"name": name, "role": "optical", "sensor": name, "kind": "optical", "bands": made}
    return ModalitySpecification.model_validate(values | options)


def model_of(
    encoder: EncoderName, *modalities: ModalitySpecification, fusion: FusionName = "early", finest: int | None = None
) -> FusionModel:
    torch.manual_seed(0)
    size = "tiny" if encoder == "vit" else "small"
    return build_model(
        ModelSpecification(
            architecture="any",
            stem="per_sensor",
            encoder=encoder,
            size=size,
            fusion=fusion,
            modalities=modalities or (modality("rgb", RED_GREEN_BLUE),),
            n_classes=2,
            finest=finest,
        )
    ).eval()


def random_norm(name: str, channels: int, statistics: bool = True) -> dict[str, Tensor]:
    state = {f"{name}.weight": 1 + 0.1 * torch.randn(channels), f"{name}.bias": 0.1 * torch.randn(channels)}
    if statistics:
        state |= {f"{name}.running_mean": 0.1 * torch.randn(channels), f"{name}.running_var": 1 + torch.rand(channels)}
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)
    return state


def timm_resnet18() -> dict[str, Tensor]:
    """Random weights under timm's names of a ResNet-18."""
    torch.manual_seed(1)
    state = {"conv1.weight": 0.1 * torch.randn(64, 3, 7, 7), **random_norm("bn1", 64)}
    before = 64
    for layer, width in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            name = f"layer{layer}.{block}"
            state[f"{name}.conv1.weight"] = 0.05 * torch.randn(width, before, 3, 3)
            state[f"{name}.conv2.weight"] = 0.05 * torch.randn(width, width, 3, 3)
            state |= random_norm(f"{name}.bn1", width) | random_norm(f"{name}.bn2", width)
            if before != width:
                state[f"{name}.downsample.0.weight"] = 0.1 * torch.randn(width, before, 1, 1)
                state |= random_norm(f"{name}.downsample.1", width)
            before = width
    state |= {"fc.weight": torch.randn(1000, 512), "fc.bias": torch.randn(1000)}
    return state


def plain_resnet18(state: dict[str, Tensor], image: Tensor) -> list[Tensor]:
    """The forward pass as the paper's figure and table give it, without any module of ours."""

    def norm(values: Tensor, name: str) -> Tensor:
        parts = [state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return functional.batch_norm(values, *parts, eps=EPSILON)

    values = functional.relu(norm(functional.conv2d(image, state["conv1.weight"], stride=2, padding=3), "bn1"))
    levels = [values]
    values = functional.max_pool2d(values, 3, 2, 1)
    for layer in range(1, 5):
        for block in range(2):
            name, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            inner = functional.conv2d(values, state[f"{name}.conv1.weight"], stride=stride, padding=1)
            inner = functional.conv2d(functional.relu(norm(inner, f"{name}.bn1")), state[f"{name}.conv2.weight"], padding=1)
            if f"{name}.downsample.0.weight" in state:
                values = functional.conv2d(values, state[f"{name}.downsample.0.weight"], stride=stride)
                values = norm(values, f"{name}.downsample.1")
            values = functional.relu(norm(inner, f"{name}.bn2") + values)
        levels.append(values)
    return levels


def timm_vit_tiny(blocks: int = 12, patch: int = 16) -> dict[str, Tensor]:
    """Random weights under timm's names of a ViT-Ti."""
    torch.manual_seed(2)
    width = VITS["tiny"][0]
    state = {
        "cls_token": torch.randn(1, 1, width),
        "pos_embed": torch.randn(1, 197, width),
        "patch_embed.proj.weight": 0.02 * torch.randn(width, 3, patch, patch),
        "patch_embed.proj.bias": 0.1 * torch.randn(width),
        "head.weight": torch.randn(1000, width),
        "head.bias": torch.randn(1000),
        **random_norm("norm", width, statistics=False),
    }
    for number in range(blocks):
        name = f"blocks.{number}"
        state |= random_norm(f"{name}.norm1", width, statistics=False) | random_norm(f"{name}.norm2", width, statistics=False)
        for layer, (rows, columns) in {
            "attn.qkv": (3 * width, width),
            "attn.proj": (width, width),
            "mlp.fc1": (4 * width, width),
            "mlp.fc2": (width, 4 * width),
        }.items():
            state[f"{name}.{layer}.weight"] = 0.05 * torch.randn(rows, columns)
            state[f"{name}.{layer}.bias"] = 0.05 * torch.randn(rows)
    return state


def plain_vit(state: dict[str, Tensor], image: Tensor, positions: Tensor, heads: int) -> Tensor:
    """(B, N, C) tokens after the last normalisation, without any module of ours."""
    width = state["cls_token"].shape[-1]

    def linear(values: Tensor, name: str) -> Tensor:
        return functional.linear(values, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(values: Tensor, name: str) -> Tensor:
        return functional.layer_norm(values, (width,), state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-6)

    patch = state["patch_embed.proj.weight"].shape[-1]
    kernel, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    places = functional.conv2d(image, kernel, bias, stride=patch) + positions
    tokens = torch.cat([state["cls_token"].expand(len(image), -1, -1), places.flatten(2).transpose(1, 2)], dim=1)
    for number in range(12):
        name = f"blocks.{number}"
        batch, count, _ = tokens.shape
        qkv = linear(norm(tokens, f"{name}.norm1"), f"{name}.attn.qkv").reshape(batch, count, 3, heads, width // heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        weights = torch.softmax(query @ key.transpose(-2, -1) / (width // heads) ** 0.5, dim=-1)
        tokens = tokens + linear((weights @ value).transpose(1, 2).reshape(batch, count, width), f"{name}.attn.proj")
        hidden = functional.gelu(linear(norm(tokens, f"{name}.norm2"), f"{name}.mlp.fc1"))
        tokens = tokens + linear(hidden, f"{name}.mlp.fc2")
    return norm(tokens, "norm")[:, 1:]


def saved(path: Path, state: dict[str, Tensor]) -> Path:
    save_file(state, path)
    return path


def test_a_resnet_gives_the_features_of_its_weights(tmp_path: Path) -> None:
    state, model = timm_resnet18(), model_of("resnet")
    report = load_public_encoder(model, saved(tmp_path / "resnet.safetensors", state))
    assert report.dropped == ("fc.bias", "fc.weight") or set(report.dropped) == {"fc.bias", "fc.weight"}
    assert not report.fresh
    assert report.bands == {"rgb": {"B": 2, "G": 1, "R": 0}}
    image = torch.randn(2, 3, 64, 96)
    features = model.features({"rgb": image})
    for level, expected in zip(features.levels, plain_resnet18(state, image), strict=True):
        torch.testing.assert_close(level.values, expected, rtol=1e-4, atol=1e-4)


def test_a_vit_gives_the_features_of_its_weights(tmp_path: Path) -> None:
    state, model = timm_vit_tiny(), model_of("vit", finest=16)
    report = load_public_encoder(model, saved(tmp_path / "vit.safetensors", state), "timm_vit")
    assert set(report.dropped) == {"pos_embed", "head.weight", "head.bias"}
    # The norms of the levels between have no counterpart.
    assert {name.split(".")[0] for name in report.fresh} == {"norms"}
    image = torch.randn(2, 3, 48, 64)
    encoder = next(module for module in model.modules() if isinstance(module, ViTEncoder))
    positions = encoder.positions(torch.empty(2, VITS["tiny"][0], 3, 4))
    expected = plain_vit(state, image, positions, heads=3)
    torch.testing.assert_close(model.features({"rgb": image}).tokens, expected, rtol=1e-4, atol=1e-4)


def test_patches_of_another_size_answer_alike(tmp_path: Path) -> None:
    state = timm_vit_tiny()
    # A smooth kernel, as trained ones are: of a rough one, little is left at half the size.
    smooth = functional.interpolate(torch.randn(VITS["tiny"][0], 3, 4, 4), size=(16, 16), mode="bilinear")
    state["patch_embed.proj.weight"] = smooth
    path = saved(tmp_path / "vit.safetensors", state)
    models = [model_of("vit", finest=side) for side in (16, 32)]
    for model in models:
        load_public_encoder(model, path)
    small = torch.randn(1, 3, 16, 16)
    large = functional.interpolate(small, size=(32, 32), mode="bilinear")
    first, second = (model.stems["rgb"](image).values for model, image in zip(models, (small, large), strict=True))
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-3)


def test_bands_take_the_kernel_of_the_nearest_wavelength(tmp_path: Path) -> None:
    bands = (("B4", 665.0), ("B8", 833.0), ("B3", 560.0), ("cloud", None))
    entry = modality("s2", bands)
    model = model_of("resnet", entry)
    state = timm_resnet18()
    report = load_public_encoder(model, saved(tmp_path / "resnet.safetensors", state))
    assert report.bands == {"s2": {"B3": 1, "B4": 0, "B8": None, "cloud": None}}
    weight = model.get_parameter("stems.s2.kernels.weight")[:, 0]
    kernels = state["conv1.weight"]
    torch.testing.assert_close(weight[:, 1], kernels[:, 0] * 3 / 4)
    torch.testing.assert_close(weight[:, 2], kernels.mean(dim=1) * 3 / 4)
    # A scene that looks alike in every band is answered as by the public encoder.
    grey = torch.randn(1, 1, 32, 32)
    plain = functional.conv2d(grey.expand(-1, 3, -1, -1), kernels, stride=2, padding=3)
    same = modality("same", (("R", 665.0), ("G", 560.0), ("B", 490.0)))
    twin = model_of("resnet", same)
    load_public_encoder(twin, tmp_path / "resnet.safetensors")
    torch.testing.assert_close(twin.stems["same"](grey.expand(-1, 3, -1, -1)).values, plain, rtol=1e-4, atol=1e-4)


def test_every_encoder_of_a_fusion_is_filled(tmp_path: Path) -> None:
    sar = modality("sar", (("VV", None), ("VH", None)), role="sar", kind="sar")
    model = model_of("resnet", modality("rgb", RED_GREEN_BLUE), sar, fusion="intermediate")
    state = timm_resnet18()
    load_public_encoder(model, saved(tmp_path / "resnet.safetensors", state))
    encoders = [module for module in model.modules() if isinstance(module, ResNetEncoder)]
    assert len(encoders) == 2
    for encoder in encoders:
        assert torch.equal(encoder.get_parameter("stages.2.1.conv2.weight"), state["layer2.1.conv2.weight"])
    values = FeatureMap(torch.randn(1, 64, 16, 16), torch.ones(1, 1, 16, 16), 2)
    torch.testing.assert_close(encoders[0](values).pooled, encoders[1](values).pooled)


def test_a_key_map_of_ones_own(tmp_path: Path) -> None:
    state = {f"backbone.{name}": value for name, value in timm_resnet18().items()}
    rules = [[r"backbone\.conv1\.weight", "stem"], [r"backbone\.layer(\d)\.(.*)", r"stages.\1.\2"], [r"backbone\.fc.*", ""]]
    rules.append([r"backbone\.bn1\.(.*)", r"bn1.\1"])
    (tmp_path / "map.json").write_text(json.dumps(rules))
    model = model_of("resnet")
    path = saved(tmp_path / "own.safetensors", state)
    assert not load_public_encoder(model, path, str(tmp_path / "map.json")).fresh
    with pytest.raises(ModelFileError, match="neither those of a timm ResNet"):
        load_public_encoder(model, path)
    (tmp_path / "map.json").write_text(json.dumps(rules[:2]))
    with pytest.raises(ModelFileError, match="No rule of the key map fits"):
        load_public_encoder(model, path, str(tmp_path / "map.json"))
    with pytest.raises(ModelFileError, match="cannot be used"):
        load_public_encoder(model, path, str(tmp_path / "missing.json"))


def test_what_does_not_fit_is_named_and_changes_nothing(tmp_path: Path) -> None:
    model = model_of("resnet")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = timm_resnet18()
    wrong = saved(tmp_path / "wrong.safetensors", state | {"layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1)})
    with pytest.raises(ModelFileError, match=r"stages\.1\.0\.conv1\.weight.*\(64, 64, 1, 1\)"):
        load_public_encoder(model, wrong)
    deeper = saved(tmp_path / "deeper.safetensors", state | {"layer3.5.conv1.weight": torch.zeros(1)})
    with pytest.raises(ModelFileError, match=r"no place for: stages\.3\.5\.conv1\.weight"):
        load_public_encoder(model, deeper)
    with pytest.raises(ModelFileError, match="4 wavelengths were given"):
        load_public_encoder(model, saved(tmp_path / "w.safetensors", state), wavelengths_nm=(1, 2, 3, 4))
    (tmp_path / "model.pth").write_bytes(b"anything")
    with pytest.raises(ModelFileError, match="pickle"):
        load_public_encoder(model, tmp_path / "model.pth")
    after = model.state_dict()
    changed = [name for name, value in before.items() if not torch.equal(value, after[name])]
    assert not changed
