"""How unlike the labelled ground a pixel is: whether a model has seen such a thing at all."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from core.models.features import Values
from core.models.pixel_rows import PixelRows
from core.models.specification import ModelSpecification
from core.models.subsets import input_subsets, subset_numbers

FAMILIAR = 0.95
"""Part of the held-out labelled pixels that lie within a distance of 1."""


class Novelty(nn.Module):
    """The distance of each pixel to the nearest class, in the space of the inputs' normalised values.

    The distance is that of Mahalanobis with the classes' common covariance (Lee et al. 2018, arXiv:1807.03888, eq. 2, there
    on a network's features; here on the pixel's own values, so that it is the same for every kind of model: inferred). Its
    unit is the distance within which 95 % of the held-out labelled pixels lie. Where inputs are missing it is that among the
    others, in a unit of their own.

    Args:
        specification: of the model, for its inputs and classes.

    Attributes:
        means: (n_classes, columns), NaN of classes without labels.
        covariance: (columns, columns).
        unit: (S,) of each set of inputs of ``input_subsets``; NaN where it was not measured.
    """

    means: Tensor
    covariance: Tensor
    unit: Tensor

    def __init__(self, specification: ModelSpecification) -> None:
        super().__init__()
        self.pixels = PixelRows(specification, neighbourhoods=False, reduces_many=True)
        self.subsets = input_subsets(specification)
        self._numbers = subset_numbers(list(self.pixels.counts), self.subsets)
        self._is_listed = [number > 0 or bits == len(self._numbers) - 1 for bits, number in enumerate(self._numbers)]
        columns = sum(self.pixels.counts.values())
        self.register_buffer("means", torch.full((specification.n_classes, columns), torch.nan))
        self.register_buffer("covariance", torch.eye(columns))
        self.register_buffer("unit", torch.full((len(self.subsets),), torch.nan))
        self.radius = self.pixels.radius

    def forward(self, values: Values) -> Tensor:
        """(B, H, W) distances in the units of what is familiar; NaN where no input is known. See ``FusionModel.forward``."""
        rows, bits = self.pixels(values)
        flat = rows.permute(0, 2, 3, 1).flatten(0, 2)
        return self.distances(flat, bits.flatten()).view(bits.shape)

    def distances(self, rows: Tensor, bits: Tensor) -> Tensor:
        """(n,) of pixels.

        Args:
            rows: (n, columns) as ``PixelRows`` gives them.
            bits: (n,) of the inputs known.
        """
        found = torch.full((len(rows),), torch.nan, device=rows.device)
        for present in torch.unique(bits).tolist():
            if present:
                places = bits == present
                found[places] = self.raw_distances(rows[places], present) / self._unit_of(present)
        return found

    def raw_distances(self, rows: Tensor, present: int) -> Tensor:
        """(n,) distances to the nearest class among the columns of some inputs, in deviations.

        Args:
            rows: (n, columns).
            present: bits of the inputs.
        """
        columns = self._columns(present)
        means = self.means[:, columns]
        means = means[torch.isfinite(means).all(dim=1)].double()
        root = torch.linalg.cholesky(self.covariance[columns][:, columns].double())
        whitened = torch.linalg.solve_triangular(root, torch.cat([means, rows[:, columns].double()]).T, upper=False).T
        return torch.cdist(whitened[len(means) :], whitened[: len(means)]).amin(dim=1).to(rows.dtype)

    def _columns(self, present: int) -> Tensor:
        parts = [part for bit, part in enumerate(self.pixels.columns().values()) if present >> bit & 1]
        return torch.cat([torch.arange(part.start, part.stop, device=self.means.device) for part in parts])

    def _unit_of(self, present: int) -> float:
        """Of a set that was not measured, that of all inputs, as a distance grows with the root of the columns."""
        own = float(self.unit[self._numbers[present]])
        if self._is_listed[present] and math.isfinite(own):
            return own
        share = len(self._columns(present)) / self.means.shape[1]
        return float(self.unit[0]) * math.sqrt(share)
