"""What is seen of single pixels: the channels of all inputs, side by side, and which inputs are there."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from core.models.features import Values, size_of
from core.models.specification import ModelSpecification
from core.models.stems.channels import BandChannels, channels_radius


class PixelRows(nn.Module):
    """The channels of every input at each pixel of the reference grid.

    Args:
        specification: with the inputs.
        neighbourhoods: whether the statistics of the pixels' neighbourhoods are among them.
        reduces_many: see ``BandChannels``.

    Attributes:
        counts: channels of each input, in their order.
        radius: reference pixels around a pixel that its channels look at.
    """

    def __init__(self, specification: ModelSpecification, *, neighbourhoods: bool, reduces_many: bool) -> None:
        super().__init__()
        self.channels = nn.ModuleDict()
        self.counts: dict[str, int] = {}
        for entry in specification.modalities:
            part = BandChannels(entry, on_reference_grid=True, has_statistics=neighbourhoods, reduces_many=reduces_many)
            self.channels[entry.name] = part
            self.counts[entry.name] = len(part.views) * part.count
        self.modalities = {entry.name: entry for entry in specification.modalities}
        self.radius = max(channels_radius(entry, has_statistics=neighbourhoods) for entry in specification.modalities)

    def columns(self) -> dict[str, slice]:
        """Where the channels of each input lie."""
        parts, first = {}, 0
        for name, count in self.counts.items():
            parts[name] = slice(first, first + count)
            first += count
        return parts

    def forward(self, values: Values) -> tuple[Tensor, Tensor]:
        """(B, columns, H, W), zero where unknown; and by pixel (B, H, W) the bits of the inputs known.

        Raises:
            ValueError: see ``FusionModel.forward``.
        """
        height, width = size_of(values, self.modalities)
        some = next(iter(values.values()))
        bits = torch.zeros(len(some), height, width, dtype=torch.int64, device=some.device)
        parts = []
        for bit, name in enumerate(self.modalities):
            if name in values:
                channels, known = self.channels[name](values[name])
                parts.append(channels * known)
                bits += (known[:, 0] > 0).to(torch.int64) << bit
            else:
                parts.append(torch.zeros(len(some), self.counts[name], height, width, device=some.device))
        return torch.cat(parts, dim=1), bits


class RowsAndBits(nn.Module):
    """What is seen of each pixel, and in a last channel the bits of the inputs known: a model for ``predict_labelled``.

    Args:
        rows: as ``PixelRows.forward``.
    """

    def __init__(self, rows: Callable[[Values], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self._rows = rows

    def forward(self, values: Values) -> Tensor:
        """(B, columns + 1, H, W)."""
        rows, bits = self._rows(values)
        return torch.cat([rows, bits[:, None].to(rows.dtype)], dim=1)
