"""The decoder that fits an encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from core.models.decoders.decoder import Decoder
from core.models.decoders.unet import UNetDecoder
from core.models.decoders.upernet import UPerNetDecoder
from core.models.specification import ModelSpecification


def decoder_maker(specification: ModelSpecification) -> Callable[[Sequence[int], Sequence[int]], Decoder]:
    """Makes decoders over levels of given channels and strides."""
    return UPerNetDecoder if specification.encoder == "vit" else UNetDecoder
