"""What every decoder is: levels in, one map of the finest stride out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import nn

from core.models.features import FeatureMap


class Decoder(nn.Module):
    """From levels to one feature map.

    Attributes:
        channels: put out.
        stride: of the output in reference pixels.
        radius: reference pixels around a pixel of the output that it depends on in the levels; None where that is the
            whole window.
    """

    channels: int
    stride: int
    radius: int | None

    @abstractmethod
    def forward(self, levels: Sequence[FeatureMap], margin: int = 0) -> FeatureMap:
        """Decodes levels, finest first.

        Args:
            levels: of one window.
            margin: reference pixels along each edge of it that are left out of what is put out, a multiple of the stride.
        """
