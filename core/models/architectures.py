"""The architectures by name, each a choice of parts, with when to use which. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from core.models.specification import EncoderName, FusionName, ModelSpecification, SizeName, StemName

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
            "The default: a dozen polygons a class, any sensors, no base model.",
            "statistics",
            "unet",
            "small",
            "intermediate",
        ),
        Architecture(
            "unet_early",
            "U-Net, early fusion",
            "The cheapest: one sensor, or several that see alike.",
            "statistics",
            "unet",
            "small",
            "early",
        ),
        Architecture(
            "unet_late",
            "U-Net, late fusion",
            "Sensors that are often missing, and that each can tell the classes alone.",
            "statistics",
            "unet",
            "small",
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
            "As the one before, when the sensors agree on shapes rather than on pixels.",
            "statistics",
            "unet",
            "small",
            "cross_modality",
        ),
        Architecture(
            "unet_joint_tokens",
            "U-Net, joint tokens",
            "As the one before; sensors meet as equals at every level.",
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
            "System 1 of the literature: with pre-training, and an optical image beside heights.",
            "per_sensor",
            "resnet",
            "small",
            "asymmetric_attention",
        ),
        Architecture(
            "resnet_intermediate",
            "ResNet, intermediate fusion",
            "With the weights of a public encoder.",
            "per_sensor",
            "resnet",
            "small",
            "intermediate",
        ),
        Architecture(
            "resunet_early",
            "Residual U-Net, early fusion (PixEF)",
            "System 3 of the literature, early: with pre-training.",
            "per_sensor",
            "resunet",
            "large",
            "early",
        ),
        Architecture(
            "resunet_intermediate",
            "Residual U-Net, intermediate fusion (PixIF)",
            "System 3, intermediate: with pre-training on SAR and optical images.",
            "per_sensor",
            "resunet",
            "base",
            "intermediate",
        ),
        Architecture(
            "resunet_late",
            "Residual U-Net, late fusion (PixLF)",
            "System 3, late: with pre-training, and SAR alone where there is cloud.",
            "per_sensor",
            "resunet",
            "base",
            "late",
        ),
        Architecture(
            "vit_cross_scale",
            "Vision transformer, cross-attention and cross-modality",
            "System 2 of the literature: with pre-training on many scenes.",
            "per_sensor",
            "vit",
            "tiny",
            "cross_attention_and_modality",
        ),
        Architecture(
            "vit_joint_tokens",
            "Vision transformer, joint tokens",
            "System 5 of the literature, and public transformers: with pre-training on many scenes.",
            "per_sensor",
            "vit",
            "tiny",
            "joint_tokens",
        ),
    )
}
"""In the order in which lists show them; the first is the default."""


def title_of(specification: ModelSpecification) -> str:
    """The name in reports: the architecture's, with the parts that were chosen in place of its own."""
    entry = next((entry for entry in ARCHITECTURES.values() if entry.name == specification.architecture), None)
    if entry is None:
        return specification.architecture
    own = {"encoder": entry.encoder, "size": entry.size, "fusion": entry.fusion}
    chosen = [f"{part} {getattr(specification, part)}" for part in own if getattr(specification, part) != own[part]]
    return f"{entry.title} ({', '.join(chosen)})" if chosen else entry.title
