"""The ways of pre-training by name, with when to use which. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from core.models.architectures import ArchitectureName
from core.models.specification import SizeName

MethodName = Literal[
    "latent_targets",
    "sar_optical_contrast_early",
    "sar_optical_contrast_intermediate",
    "sar_optical_contrast_late",
    "asymmetric_attention",
    "cross_scale_mae",
    "cross_sensor_alignment",
    "anchor_aware_mae",
]
SettingName = Literal["small", "paper"]


@dataclass(frozen=True)
class Method:
    """A way of pre-training.

    Attributes:
        name: in the registry.
        title: the name in reports.
        use: when to take it, one line.
        architecture: of a model made from scratch.
        source: the paper.
        size: of that model's encoder, in place of the architecture's own.
        paper_size: of the published encoder; the same by default.
        paper_patch: side of the published transformer's patches in pixels; the encoder's own by default.
    """

    name: MethodName
    title: str
    use: str
    architecture: ArchitectureName
    source: str
    size: SizeName | None = None
    paper_size: SizeName | None = None
    paper_patch: int | None = None

    def encoder_size(self, setting: SettingName) -> SizeName | None:
        """Of the encoder in a setting; None for the architecture's own."""
        return (self.paper_size if setting == "paper" else None) or self.size


METHODS: dict[MethodName, Method] = {
    entry.name: entry
    for entry in (
        Method(
            "latent_targets",
            "Latent targets",
            "The default: any sensors, any of them missing, minutes on a laptop.",
            "unet_intermediate",
            "ours, after the fixed targets of OlmoEarth (Ai2, 2025)",
            # All pixels of a scene teach more than a dozen polygons; what it learns was measured in this size.
            "small",
        ),
        Method(
            "sar_optical_contrast_early",
            "SAR-optical contrast, early fusion (PixEF)",
            "Sensors on one grid that are stacked into one image.",
            "resunet_early",
            "Chen and Bruzzone (2022), TGRS 60:5406011",
        ),
        Method(
            "sar_optical_contrast_intermediate",
            "SAR-optical contrast, intermediate fusion (PixIF)",
            "Radar beside optical images, both always there.",
            "resunet_intermediate",
            "Chen and Bruzzone (2022), TGRS 60:5406011",
        ),
        Method(
            "sar_optical_contrast_late",
            "SAR-optical contrast, late fusion (PixLF)",
            "Radar beside optical images, of which one is often missing; needs two sensors.",
            "resunet_late",
            "Chen and Bruzzone (2022), TGRS 60:5406011",
        ),
        Method(
            "asymmetric_attention",
            "Asymmetric attention with transfer gate (AAF)",
            "An optical image that leads, beside heights or radar.",
            "resnet_asymmetric_attention",
            "Xu et al. (2023), Remote Sensing 15:5682",
            paper_size="large",  # inferred: ResNet-50, which MoCo-v2 is published with
        ),
        Method(
            "cross_scale_mae",
            "Cross-scale masked autoencoder",
            "Many scenes of the same sensors, which read each other in a transformer.",
            "vit_cross_scale",
            "Fudan University (2024), Journal of Infrared and Millimeter Waves 2024221",
            paper_size="small",  # inferred, as the patch
            paper_patch=16,
        ),
        Method(
            "cross_sensor_alignment",
            "Cross-sensor alignment (X-STARS)",
            "Several sensors of the same ground whose features should say the same.",
            "vit_joint_tokens",
            "Marsocci and Audebert (2025), JSTARS 18:12278",
            paper_size="tiny",  # of the authors' commands
            paper_patch=16,
        ),
        Method(
            "anchor_aware_mae",
            "Anchor-aware masked autoencoder (A2-MAE)",
            "Sets of images of one place, of different bands and resolutions.",
            "vit_joint_tokens",
            "Zhang et al. (2024), arXiv:2406.08079",
            paper_size="base",  # inferred, as the patch
            paper_patch=16,
        ),
    )
}
"""In the order in which lists show them; the first is the default."""
