"""Fusions by name."""

from __future__ import annotations

from core.models.decoders.build import decoder_maker
from core.models.encoders.build import build_encoder
from core.models.encoders.encoder import Encoder
from core.models.fusion.asymmetric_attention import AsymmetricAttentionFusion
from core.models.fusion.base import Fusion
from core.models.fusion.early import EarlyFusion
from core.models.fusion.intermediate import IntermediateFusion
from core.models.fusion.joint_tokens import JointTokensFusion
from core.models.fusion.late import LateFusion
from core.models.specification import ModelSpecification


def build_fusion(specification: ModelSpecification) -> Fusion:
    """A freshly initialised fusion of the kind that a model asks for, with its encoders."""
    names = [modality.name for modality in specification.modalities]

    def make_encoder() -> Encoder:
        return build_encoder(specification)

    match specification.fusion:
        case "early":
            return EarlyFusion(names, make_encoder)
        case "intermediate":
            return IntermediateFusion(names, make_encoder)
        case "late":
            return LateFusion(names, make_encoder, decoder_maker(specification))
        case "asymmetric_attention":
            direction, has_gate = specification.attention_direction, specification.has_transfer_gate
            return AsymmetricAttentionFusion(names, make_encoder, direction, has_gate)
        case "joint_tokens":
            return JointTokensFusion(names, make_encoder)
        case "cross_attention":
            return JointTokensFusion(names, make_encoder, has_cross_attention=True)
        case "cross_modality":
            return JointTokensFusion(names, make_encoder, has_cross_modality=True)
        case "cross_attention_and_modality":
            return JointTokensFusion(names, make_encoder, has_cross_attention=True, has_cross_modality=True)
