"""What a band is, in numbers, and kernels made from them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from core.models.fourier import fourier_features
from core.models.specification import BandSpecification, ModalitySpecification

KINDS = ("optical", "sar", "elevation", "thermal", "index", "other")
VIEWS = (
    *("value", "relief9", "relief33", "/spread"),
    *(f"/{statistic}{window}" for window in (5, 9, 17) for statistic in ("mean", "deviation")),
)
"""The parts that names of views are made of."""

FREQUENCIES = 8
WAVELENGTHS_NM = (300.0, 15000.0)
WIDTHS_NM = (1.0, 2000.0)
RESOLUTIONS_M = (0.02, 1000.0)

_PHYSICS = 3 * (2 * FREQUENCIES + 1)
CODE_LENGTH = _PHYSICS + len(KINDS) + len(VIEWS) + 8


class BandCodes(nn.Module):
    """Makes a kernel for a band from its code: kind, wavelength, width, resolution, polarisation, orbit, and view.

    SAR is coded by what was transmitted and received and by the direction of the pass, never by a wavelength.

    Args:
        channels: that a kernel puts out.
        kernel: its side.
        hidden: width of the generating network.
    """

    def __init__(self, channels: int, kernel: int, hidden: int = 64) -> None:
        super().__init__()
        self.channels, self.kernel = channels, kernel
        self.layers = nn.Sequential(
            nn.Linear(CODE_LENGTH, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, channels * kernel**2),
        )

    def codes(
        self, specification: ModalitySpecification, bands: Sequence[str], views: Sequence[str], resolution_m: float
    ) -> Tensor:
        """(views, bands, CODE_LENGTH) float32.

        Args:
            specification: of the modality.
            bands: names, in the order wanted.
            views: names, as ``core.models.stems.channels.view_names`` gives them.
            resolution_m: pixel size of the reference grid in metres.
        """
        by_name = {band.name: band for band in specification.bands}
        own_m = resolution_m * specification.coarser / specification.finer
        # Few numbers, worked out on the processor even where shapes alone are asked for: see ``core.models.registry``.
        with torch.device("cpu"):
            physics = torch.stack([_physics(by_name[name], specification.kind, own_m) for name in bands])
            seen = torch.stack([_view(name) for name in views])
        parts = [physics[None].expand(len(views), -1, -1), seen[:, None].expand(-1, len(bands), -1)]
        return torch.cat(parts, dim=2).contiguous()

    def forward(self, codes: Tensor) -> Tensor:
        """(channels, n, kernel, kernel) kernels for (n, CODE_LENGTH) codes.

        They are scaled by the number of bands, so that 224 bands weigh as much as four.
        """
        made = self.layers(codes).view(len(codes), self.channels, self.kernel, self.kernel)
        return torch.as_tensor(made.transpose(0, 1) * (4.0 / (math.sqrt(len(codes)) * self.kernel)))


def _physics(band: BandSpecification, kind: str, resolution_m: float) -> Tensor:
    parts = [
        _logarithmic(band.center_nm, WAVELENGTHS_NM),
        _logarithmic(band.fwhm_nm, WIDTHS_NM),
        _logarithmic(resolution_m, RESOLUTIONS_M),
        torch.tensor([float(kind == name) for name in KINDS]),
    ]
    polarization = band.polarization or ""
    sar = [float(polarization[:1] == letter) for letter in "HV"] + [float(polarization[1:] == letter) for letter in "HV"]
    orbit = [float(band.orbit == name) for name in ("ascending", "descending")]
    same = [float(len(polarization) == 2 and polarization[0] == polarization[1]), float(bool(polarization))]
    return torch.cat([*parts, torch.tensor([*sar, *orbit, *same])])


def _logarithmic(value: float | None, limits: tuple[float, float]) -> Tensor:
    """Fourier features of the logarithm; all zero where there is no value."""
    if value is None:
        return torch.zeros(2 * FREQUENCIES + 1)
    low, high = (math.log(limit) for limit in limits)
    place = torch.tensor((math.log(value) - low) / (high - low), dtype=torch.float64)
    waves = fourier_features(place, FREQUENCIES, 0.05, 4.0)
    return torch.cat([torch.ones(1), waves.float()])


def _view(name: str) -> Tensor:
    return torch.tensor([float(part in name if part.startswith("/") else name.startswith(part)) for part in VIEWS])
