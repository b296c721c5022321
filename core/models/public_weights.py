"""Weights of public encoders, from a local safetensors file, by a map of names. Nothing is imported and nothing unpickled.

A key map is a list of pairs: a regular expression over the names in the file, and the name in an encoder of ours that a full
match stands for (``\\1`` is its first group); an empty name drops the weight. Two are built in, ``timm_resnet`` and
``timm_vit``; any other is a JSON file with such a list:

    [["features\\\\.bn\\\\.(.*)", "bn1.\\\\1"], ["classifier\\\\..*", ""]]

The stem is given by the name ``stem``: its (D, C, k, k) kernels go to the bands of each modality by wavelength.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from core.errors import ModelFileError
from core.models.encoders.encoder import Encoder
from core.models.fusion_model import FusionModel
from core.models.model_file import read_safetensors
from core.models.specification import ModalitySpecification
from core.models.stems.kernels import resample_kernel
from core.models.stems.stem import PerSensorStem

STEM = "stem"

KEY_MAPS: dict[str, tuple[tuple[str, str], ...]] = {
    "timm_resnet": (
        (r"conv1\.weight", STEM),
        (r"bn1\.(.*)", r"bn1.\1"),
        (r"layer(\d)\.(.*)", r"stages.\1.\2"),
        (r"fc\..*", ""),
    ),
    "timm_vit": (
        (r"patch_embed\.proj\.weight", STEM),
        (r"patch_embed\.proj\.bias", "patch_bias"),
        (r"cls_token", "cls_token"),
        # Learned positions count pixels of one image size; ours count metres.
        (r"pos_embed", ""),
        (r"blocks\.(.*)", r"blocks.\1"),
        (r"norm\.(.*)", r"norms.3.\1"),
        (r"(fc_norm|head|head_drop)\..*", ""),
    ),
}

RGB_NM = (665.0, 560.0, 490.0)
"""What the channels of a public encoder show, where its file has three and nothing else is said."""

FARTHEST_NM = 80.0
"""A band takes the kernel of a channel at most this far; a farther one takes the mean of all."""


@dataclass(frozen=True)
class LoadedWeights:
    """What became of a public encoder's weights.

    Attributes:
        loaded: names of ours that were filled, of one encoder.
        fresh: names of ours that the file has nothing for.
        dropped: names in the file that were left out on purpose.
        bands: by modality, the channel of each band, or None where the mean of all stands for it.
    """

    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    dropped: tuple[str, ...]
    bands: dict[str, dict[str, int | None]]


def load_public_encoder(
    model: FusionModel, path: Path, key_map: str = "auto", wavelengths_nm: Sequence[float] | None = None
) -> LoadedWeights:
    """Fills every encoder of a model, and the kernels of its stems, with a public encoder's weights.

    Args:
        model: with learned stems (``per_sensor``); changed in place.
        path: safetensors file.
        key_map: ``timm_resnet``, ``timm_vit``, the path of a JSON file, or ``auto``: the built-in one that fits.
        wavelengths_nm: centre wavelength of each channel of the file's stem; red, green, blue where there are three.

    Raises:
        ModelFileError: the file is no safetensors file, a weight has another shape, or a name fits no rule.
    """
    tensors = read_safetensors(path)
    rules = _rules(key_map, list(tensors), path)
    renamed, dropped = _renamed(tensors, rules, path)
    stem = renamed.pop(STEM, None)
    encoders = [module for module in model.fusion.modules() if isinstance(module, Encoder)]
    own = encoders[0].state_dict()
    _check_shapes(renamed, own, path, model.specification.encoder)
    # Everything is checked before anything is changed.
    stems = {} if stem is None else _stem_weights(model, stem, wavelengths_nm, path)
    for encoder in encoders:
        encoder.load_state_dict(renamed, strict=False)
    for name, (weight, _) in stems.items():
        with torch.no_grad():
            model.get_parameter(f"stems.{name}.kernels.weight").copy_(weight)
    bands = {name: chosen for name, (_, chosen) in stems.items()}
    fresh = tuple(name for name in own if name not in renamed and not name.endswith("num_batches_tracked"))
    return LoadedWeights(tuple(sorted(renamed)), fresh, tuple(dropped), bands)


def _rules(key_map: str, names: list[str], path: Path) -> Sequence[tuple[str, str]]:
    if key_map in KEY_MAPS:
        return KEY_MAPS[key_map]
    if key_map == "auto":
        fitting = [rules for rules in KEY_MAPS.values() if all(_match(name, rules) is not None for name in names)]
        if not fitting:
            raise ModelFileError(
                f"The names of the weights in '{path}' are neither those of a timm ResNet nor of a timm ViT: "
                f"{', '.join(names[:5])}, ...",
                "Write a key map: a JSON file with pairs of a regular expression and a name of the encoder.",
            )
        return fitting[0]
    try:
        rules = json.loads(Path(key_map).read_text("utf-8"))
        return [(str(pattern), str(name)) for pattern, name in rules if re.compile(pattern)]
    except (OSError, ValueError, TypeError, re.error) as error:
        raise ModelFileError(
            f"The key map '{key_map}' cannot be used: {error}.",
            f"Give one of {', '.join(KEY_MAPS)}, or a JSON file with pairs of a regular expression and a name.",
        ) from None


def _match(name: str, rules: Sequence[tuple[str, str]]) -> str | None:
    """The name of ours, empty where the weight is dropped; None where no rule fits."""
    for pattern, target in rules:
        found = re.fullmatch(pattern, name)
        if found is not None:
            return found.expand(target)
    return None


def _renamed(tensors: dict[str, Tensor], rules: Sequence[tuple[str, str]], path: Path) -> tuple[dict[str, Tensor], list[str]]:
    renamed, dropped = {}, []
    for name, tensor in tensors.items():
        target = _match(name, rules)
        if target is None:
            raise ModelFileError(
                f"No rule of the key map fits the weight '{name}' in '{path}'.",
                "Add a rule for it, with an empty name if it is not needed.",
            )
        if target:
            renamed[target] = tensor.float() if tensor.is_floating_point() else tensor
        else:
            dropped.append(name)
    return renamed, dropped


def _check_shapes(renamed: dict[str, Tensor], own: dict[str, Tensor], path: Path, encoder: str) -> None:
    unknown = [name for name in renamed if name not in own]
    if unknown:
        raise ModelFileError(
            f"'{path}' has weights that the encoder '{encoder}' of this size has no place for: {', '.join(unknown[:5])}"
            f"{', ...' if len(unknown) > 5 else ''}.",
            "Choose the encoder and the size that the weights were made for.",
        )
    for name, tensor in renamed.items():
        if tensor.shape != own[name].shape:
            raise ModelFileError(
                f"The weight '{name}' in '{path}' has the shape {tuple(tensor.shape)}, and the encoder's has "
                f"{tuple(own[name].shape)}.",
                "Choose the encoder and the size that the weights were made for.",
            )


def _stem_weights(
    model: FusionModel, kernels: Tensor, wavelengths_nm: Sequence[float] | None, path: Path
) -> dict[str, tuple[Tensor, dict[str, int | None]]]:
    """For every band the kernel of the channel that sees nearly the same light, by modality, and which it is."""
    channels = kernels.shape[1]
    known = list(wavelengths_nm or (RGB_NM if channels == 3 else ()))
    if known and len(known) != channels:
        raise ModelFileError(
            f"The stem in '{path}' has {channels} channels, and {len(known)} wavelengths were given.",
            "Give the centre wavelength of every channel, in nanometres.",
        )
    filled = {}
    for entry in model.specification.modalities:
        stem = model.stems[entry.name]
        if not isinstance(stem, PerSensorStem) or stem.last is not None:
            # Finer modalities reach the encoder by layers of their own.
            continue
        own = stem.kernels.weight
        if kernels.shape[0] != own.shape[0]:
            raise ModelFileError(
                f"The stem in '{path}' puts out {kernels.shape[0]} channels, and the model's {own.shape[0]}.",
                "Choose the encoder and the size that the weights were made for.",
            )
        chosen = _channels_of(entry, stem.channels.bands, known)
        made = [kernels.mean(dim=1) if channel is None else kernels[:, channel] for channel in chosen.values()]
        weight = resample_kernel(torch.stack(made, dim=1).float(), own.shape[-1])
        # As many more bands as channels answer as loudly together.
        scaled = (weight * (channels / len(made)))[:, None].expand_as(own) / own.shape[1]
        filled[entry.name] = scaled, chosen
    return filled


def _channels_of(entry: ModalitySpecification, bands: Sequence[str], wavelengths_nm: Sequence[float]) -> dict[str, int | None]:
    centres = {band.name: band.center_nm for band in entry.bands}
    chosen: dict[str, int | None] = {}
    for name in bands:
        centre = centres[name]
        chosen[name] = None
        if centre is not None and wavelengths_nm:
            channel = min(range(len(wavelengths_nm)), key=lambda number: abs(wavelengths_nm[number] - centre))
            if abs(wavelengths_nm[channel] - centre) <= FARTHEST_NM:
                chosen[name] = channel
    return chosen
