"""The architectures by name, each a choice of parts, with when to use which. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from core.errors import UsageError
from core.models.specification import (
    SIZES,
    EncoderName,
    EstimatorName,
    EstimatorSpecification,
    FusionName,
    ModelSpecification,
    SizeName,
    StemName,
)

ArchitectureName = Literal[
    "unet_intermediate",
    "unet_early",
    "unet_late",
    "unet_asymmetric_attention",
    "unet_cross_attention",
    "unet_cross_modality",
    "unet_joint_tokens",
    "unet_any_sensor",
    "resnet_asymmetric_attention",
    "resnet_intermediate",
    "resunet_early",
    "resunet_intermediate",
    "resunet_late",
    "vit_cross_scale",
    "vit_joint_tokens",
]


@dataclass(frozen=True)
class Architecture:
    """A choice of parts.

    Attributes:
        name: in the registry.
        title: the name in reports.
        use: when to take it, one line.
        stem, encoder, size, fusion: see ``core.models.specification``.
    """

    name: ArchitectureName
    title: str
    use: str
    stem: StemName
    encoder: EncoderName
    size: SizeName
    fusion: FusionName


ARCHITECTURES: dict[ArchitectureName, Architecture] = {
    entry.name: entry
    for entry in (
        Architecture(
            "unet_intermediate",
            "U-Net, intermediate fusion",
            "The default: a dozen polygons a class, any sensors, no model to start from.",
            "statistics",
            "unet",
            "tiny",
            "intermediate",
        ),
        Architecture(
            "unet_early",
            "U-Net, early fusion",
            "The cheapest U-Net: one sensor, or several that see alike.",
            "statistics",
            "unet",
            "tiny",
            "early",
        ),
        Architecture(
            "unet_late",
            "U-Net, late fusion",
            "Sensors that are often missing, and that each can tell the classes alone.",
            "statistics",
            "unet",
            "tiny",
            "late",
        ),
        Architecture(
            "unet_asymmetric_attention",
            "U-Net, asymmetric attention",
            "A good main sensor beside noisy ones that should not drown it.",
            "statistics",
            "unet",
            "small",
            "asymmetric_attention",
        ),
        Architecture(
            "unet_cross_attention",
            "U-Net, cross-attention before the encoder",
            "Many sensors and few weights: one encoder for all of them.",
            "statistics",
            "unet",
            "small",
            "cross_attention",
        ),
        Architecture(
            "unet_cross_modality",
            "U-Net, cross-modality after the encoder",
            "Sensors that agree on shapes rather than on single pixels.",
            "statistics",
            "unet",
            "small",
            "cross_modality",
        ),
        Architecture(
            "unet_joint_tokens",
            "U-Net, joint tokens",
            "Sensors that matter alike and should meet at every level; takes the most memory of the U-Nets.",
            "statistics",
            "unet",
            "small",
            "joint_tokens",
        ),
        Architecture(
            "unet_any_sensor",
            "U-Net, kernels from wavelengths",
            "A model that will see other optical sensors than those it was trained on.",
            "generated",
            "unet",
            "small",
            "intermediate",
        ),
        Architecture(
            "resnet_asymmetric_attention",
            "ResNet, asymmetric attention (AAF)",
            "With pre-training: an optical image that leads, beside heights or radar.",
            "per_sensor",
            "resnet",
            "small",
            "asymmetric_attention",
        ),
        Architecture(
            "resnet_intermediate",
            "ResNet, intermediate fusion",
            "With pre-training, or the weights of a public ResNet.",
            "per_sensor",
            "resnet",
            "small",
            "intermediate",
        ),
        Architecture(
            "resunet_early",
            "Residual U-Net, early fusion (PixEF)",
            "With pre-training: a residual U-Net for one sensor, or several that see alike.",
            "per_sensor",
            "resunet",
            "large",
            "early",
        ),
        Architecture(
            "resunet_intermediate",
            "Residual U-Net, intermediate fusion (PixIF)",
            "With pre-training: radar beside optical images, at a low cost for a large map.",
            "per_sensor",
            "resunet",
            "base",
            "intermediate",
        ),
        Architecture(
            "resunet_late",
            "Residual U-Net, late fusion (PixLF)",
            "With pre-training: radar alone where there is cloud, at a low cost for a large map.",
            "per_sensor",
            "resunet",
            "base",
            "late",
        ),
        Architecture(
            "vit_cross_scale",
            "Vision transformer, cross-attention and cross-modality",
            "With pre-training on many scenes: a transformer in which sensors read each other.",
            "per_sensor",
            "vit",
            "tiny",
            "cross_attention_and_modality",
        ),
        Architecture(
            "vit_joint_tokens",
            "Vision transformer, joint tokens",
            "With pre-training on many scenes, or the weights of a public vision transformer.",
            "per_sensor",
            "vit",
            "tiny",
            "joint_tokens",
        ),
    )
}
"""In the order in which lists show them; the first is the default."""


@dataclass(frozen=True)
class Parts:
    """What a model is put together from; see ``core.models.specification``."""

    stem: StemName
    encoder: EncoderName
    size: SizeName
    fusion: FusionName


def choose_parts(
    architecture: ArchitectureName,
    encoder: EncoderName | None = None,
    fusion: FusionName | None = None,
    size: SizeName | None = None,
) -> Parts:
    """An architecture's parts, with those that are given in place of its own.

    Raises:
        UsageError: the encoder does not come in that size.
    """
    own = ARCHITECTURES[architecture]
    chosen = encoder or own.encoder
    sizes = SIZES[chosen]
    if size is not None and size not in sizes:
        raise UsageError(f"The encoder '{chosen}' does not come in the size '{size}'.", f"Choose one of {', '.join(sizes)}.")
    # Neighbourhood statistics are for the encoder that keeps every pixel apart.
    stem: StemName = "per_sensor" if own.stem == "statistics" and chosen != "unet" else own.stem
    # An architecture's size is one of its own encoder.
    usual: SizeName = own.size if chosen == own.encoder else "small"
    return Parts(stem, chosen, size or usual, fusion or own.fusion)


ESTIMATORS: dict[EstimatorName, str] = {
    "forest": "Random forest",
    "boosting": "Boosted trees",
    "logistic": "Logistic regression",
}


def estimator_title(estimator: EstimatorSpecification, is_of_scenes: bool = False) -> str:
    """The name in reports."""
    if estimator.kind == "vote":
        members = [estimator_title(member) for member in estimator.members]
        lowered = [f"{name[0].lower()}{name[1:]}" for name in members]
        return f"Vote of {', '.join(lowered[:-1])} and {lowered[-1]}"
    parts = (
        ["scenes" if is_of_scenes else "pixels"]
        + ["neighbourhoods"] * estimator.neighbourhoods
        + ["base features"] * estimator.base_features
    )
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"{ESTIMATORS[estimator.kind]} on {listed}"


def title_of(specification: ModelSpecification) -> str:
    """The name in reports: the estimator's, or the architecture's with the parts that were chosen in place of its own."""
    if specification.estimator is not None:
        return estimator_title(specification.estimator, specification.head == "scene")
    entry = next((entry for entry in ARCHITECTURES.values() if entry.name == specification.architecture), None)
    if entry is None:
        return specification.architecture
    usual = choose_parts(entry.name, specification.encoder).size
    own = {"encoder": entry.encoder, "size": usual, "fusion": entry.fusion}
    chosen = [f"{part} {getattr(specification, part)}" for part in own if getattr(specification, part) != own[part]]
    return f"{entry.title} ({', '.join(chosen)})" if chosen else entry.title
