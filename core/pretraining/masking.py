"""Masks: which patches of which modality a pretext task hides.

All modalities of a window share one lattice of patches, each a whole number of reference pixels, and of whole pixels of
every modality. "Missing" and "masked" are two facts: what is missing was never measured, what is masked is known and
withheld, and losses are of the second alone. A masked pixel is given to the model as a missing one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from core.models.fusion_model import FusionModel
from core.models.specification import ModalitySpecification
from core.pretraining.objectives.objective import Windows

MaskPolicy = Literal["independent", "consistent", "anchor"]
AnchorChoice = Literal["random", "finest"]
Modalities = Mapping[str, ModalitySpecification]

LEAST_PATCH = 8
"""Reference pixels along a patch of convolutional encoders: smaller ones are guessed from their borders."""

LEAST_ALONG = 4
"""Patches along a window: of four in all, three masked ones would leave nothing to learn from."""

LEAST_PROBABILITY = 0.02
"""Epsilon of the anchor policy: how sure a coupling may be."""


@dataclass(frozen=True)
class Couplings:
    """How a modality's mask follows the anchor's: 1 = the same ground, 0 = independent, -1 = the opposite ground.

    That A2-MAE's masks follow the metadata of an anchor is published; these numbers are inferred.

    Attributes:
        other_date: the same sensor on another date, whose near-duplicates would be copied.
        other_bands: other bands on the same grid, which are correlated.
        other_resolution: of the same kind, coarser or finer.
        other_kind: such as radar beside optical, whose evidence is complementary.
    """

    other_date: float = 0.9
    other_bands: float = 0.5
    other_resolution: float = 0.0
    other_kind: float = -0.3

    def between(self, entry: ModalitySpecification, anchor: ModalitySpecification) -> float:
        """The coupling of a modality to the anchor. Dates are not in a specification: the same bands of the same sensor
        a second time are another date."""
        if entry.kind != anchor.kind:
            return self.other_kind
        if entry.scale != anchor.scale:
            return self.other_resolution
        is_same = entry.sensor == anchor.sensor and bool(set(entry.band_names) & set(anchor.band_names))
        return self.other_date if is_same else self.other_bands


@dataclass(frozen=True)
class MaskSettings:
    """How masks are drawn.

    Attributes:
        policy: ``independent`` draws for each modality alone, ``consistent`` hides the same places in all of them,
            ``anchor`` follows a modality chosen for each window.
        ratio: part of the patches with data that is masked.
        withheld: probability that one modality of a window, of several, is masked as a whole.
        anchor: how the anchor is chosen among the modalities with data.
        couplings: to the anchor.
    """

    policy: MaskPolicy = "independent"
    ratio: float = 0.75
    withheld: float = 0.0
    anchor: AnchorChoice = "random"
    couplings: Couplings = field(default_factory=Couplings)


@dataclass(frozen=True, eq=False)
class Masks:
    """What is hidden of a batch, on the lattice.

    Attributes:
        patch: side in reference pixels.
        known: by modality (B, rows, columns) bool, where any pixel of the patch is measured.
        masked: by modality the same, where it is withheld; only where it is known.
        anchors: (B,) number of the anchor among the modalities; None but for the policy ``anchor``.
    """

    patch: int
    known: dict[str, Tensor]
    masked: dict[str, Tensor]
    anchors: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the lattice."""
        some = next(iter(self.known.values()))
        return some.shape[1], some.shape[2]

    def visible(self, name: str) -> Tensor:
        """(B, rows, columns) bool, where a modality has data that is not hidden."""
        return self.known[name] & ~self.masked[name]

    def is_anchor(self, name: str) -> Tensor:
        """(B,) bool, of which windows a modality is the anchor."""
        if self.anchors is None:
            return torch.zeros(len(self.known[name]), dtype=torch.bool, device=self.known[name].device)
        return self.anchors == list(self.known).index(name)


def patch_of(model: FusionModel, window_size: int = 64) -> int:
    """Reference pixels along a patch: what the model's windows are multiples of, and that again until it is large
    enough for a convolutional encoder. A transformer's own patches are taken as they are.

    Of encoders with strides so long that a window would have fewer than ``LEAST_ALONG`` patches along its side, it is
    halved as long as it cuts no pixel of a coarser modality.

    Args:
        model: that is trained.
        window_size: side of the windows in reference pixels.
    """
    if model.specification.encoder == "vit":
        return model.step
    patch = model.step * -(-LEAST_PATCH // model.step)
    whole = math.lcm(*(entry.coarser for entry in model.modalities.values()))
    while window_size < LEAST_ALONG * patch and patch % (2 * whole) == 0 and patch >= 2 * LEAST_PATCH:
        patch //= 2
    return patch


def pixels_along(patch: int, entry: ModalitySpecification) -> int:
    """A modality's own pixels along a patch.

    Raises:
        ValueError: they are no whole number.
    """
    if patch * entry.finer % entry.coarser:
        raise ValueError(f"a patch of {patch} reference pixels cuts the pixels of '{entry.name}', {entry.coarser} each")
    return patch * entry.finer // entry.coarser


def lattice_size(values: Tensor, entry: ModalitySpecification, patch: int) -> tuple[int, int]:
    """Rows and columns of patches that a window takes; the last may reach beyond it."""
    side = pixels_along(patch, entry)
    return -(-values.shape[-2] // side), -(-values.shape[-1] // side)


def known_patches(values: Tensor, entry: ModalitySpecification, patch: int) -> Tensor:
    """(B, rows, columns) bool from (B, C, h, w): where a patch has a pixel of which every band is measured, as only
    such pixels count for the stems."""
    known = torch.isfinite(values).all(dim=1, keepdim=True).to(torch.float32)
    return functional.max_pool2d(known, pixels_along(patch, entry), ceil_mode=True)[:, 0] > 0


def draw_masks(
    windows: Windows, modalities: Modalities, patch: int, settings: MaskSettings, generator: torch.Generator
) -> Masks:
    """Masks for a batch.

    In each window exactly the whole number below ``ratio`` times the number of patches with data is masked, of each
    modality or, for ``consistent``, of the places where any has data. So at least one stays visible. The anchor policy
    is the inferred form of A2-MAE's (Zhang et al. 2024, arXiv:2406.08079): with m the masked part of the anchor on a
    patch's ground and kappa the coupling, patches are drawn without replacement by Gumbel top-k on the logit of

        pi = clip(ratio + kappa (m - ratio), epsilon, 1 - epsilon)

    where m is the ratio where the anchor has no data.

    Args:
        windows: a batch.
        modalities: by name.
        patch: side in reference pixels.
        settings: of the masks.
        generator: on the CPU.

    Raises:
        ValueError: the ratio is not between 0 and 1.
    """
    if not 0 < settings.ratio < 1:
        raise ValueError(f"the ratio of masked patches is between 0 and 1, not {settings.ratio}")
    known = {name: known_patches(values, modalities[name], patch).cpu() for name, values in windows.values.items()}
    anchors = None
    match settings.policy:
        case "independent":
            masked = {name: _drawn(each, None, settings.ratio, generator) for name, each in known.items()}
        case "consistent":
            places = _drawn(torch.stack(list(known.values())).any(dim=0), None, settings.ratio, generator)
            masked = {name: places & each for name, each in known.items()}
        case "anchor":
            anchors, masked = _around_anchors(known, [modalities[name] for name in known], settings, generator)
    if settings.withheld and len(known) > 1:
        masked = _withheld(known, masked, settings.withheld, generator)
    device = next(iter(windows.values.values())).device
    return Masks(
        patch,
        {name: each.to(device) for name, each in known.items()},
        {name: each.to(device) for name, each in masked.items()},
        None if anchors is None else anchors.to(device),
    )


def hide(values: Mapping[str, Tensor], masks: Masks, modalities: Modalities) -> dict[str, Tensor]:
    """The values with NaN for every masked pixel, each modality on its own grid."""
    return {
        name: each.masked_fill(masked_pixels(masks.masked[name], each, modalities[name], masks.patch), torch.nan)
        for name, each in values.items()
    }


def masked_pixels(masked: Tensor, values: Tensor, entry: ModalitySpecification, patch: int) -> Tensor:
    """(B, 1, h, w) bool: a mask of patches on the grid of a modality's values."""
    side = pixels_along(patch, entry)
    enlarged = masked.repeat_interleave(side, dim=1).repeat_interleave(side, dim=2)
    return enlarged[:, None, : values.shape[-2], : values.shape[-1]]


def _drawn(known: Tensor, logits: Tensor | None, ratio: float, generator: torch.Generator) -> Tensor:
    """Exactly the share ``ratio`` of the known patches of each window, the likelier the larger the logit."""
    uniform = torch.rand(known.shape, generator=generator, dtype=torch.float64).clamp_min(1e-300)
    scores = -(-uniform.log()).log()
    if logits is not None:
        scores = scores + logits
    scores = scores.masked_fill(~known, -torch.inf).flatten(1)
    rank = scores.argsort(dim=1, descending=True).argsort(dim=1)
    # Without the addition, 0.29 of a hundred would be 28.
    counts = (ratio * known.flatten(1).sum(dim=1) + 1e-9).floor()
    return (rank < counts[:, None]).view(known.shape) & known


def _around_anchors(
    known: dict[str, Tensor], entries: list[ModalitySpecification], settings: MaskSettings, generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """The anchor of each window, and masks that follow it."""
    ratio, couplings = settings.ratio, settings.couplings
    stacked = torch.stack(list(known.values()), dim=1)
    has_data = stacked.flatten(2).any(dim=2)
    if settings.anchor == "finest":
        preference = torch.tensor([entry.finer / entry.coarser for entry in entries]).expand(len(has_data), -1)
    else:
        preference = torch.rand(has_data.shape, generator=generator)
    anchors = preference.masked_fill(~has_data, -1.0).argmax(dim=1)
    rows = torch.arange(len(anchors))
    anchor_known = stacked[rows, anchors]
    anchor_masked = _drawn(anchor_known, None, ratio, generator)
    share = torch.where(anchor_known, anchor_masked.double(), ratio)
    table = torch.tensor([[couplings.between(entry, anchor) for anchor in entries] for entry in entries])
    masked = {}
    for number, (name, each) in enumerate(known.items()):
        kappa = table[number, anchors].double()[:, None, None]
        probability = (ratio + kappa * (share - ratio)).clamp(LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
        drawn = _drawn(each, torch.logit(probability), ratio, generator)
        masked[name] = torch.where((anchors == number)[:, None, None], anchor_masked, drawn)
    return anchors, masked


def _withheld(
    known: dict[str, Tensor], masked: dict[str, Tensor], probability: float, generator: torch.Generator
) -> dict[str, Tensor]:
    """In some windows one modality is masked everywhere, if another one is left to see by."""
    has_data = torch.stack([each.flatten(1).any(dim=1) for each in known.values()], dim=1)
    sees = torch.stack([(known[name] & ~masked[name]).flatten(1).any(dim=1) for name in known], dim=1)
    draws = torch.rand(has_data.shape, generator=generator).masked_fill(~has_data, -1.0)
    chosen = functional.one_hot(draws.argmax(dim=1), len(known)).bool() & has_data
    is_withheld = torch.rand(len(has_data), generator=generator) < probability
    chosen = chosen & is_withheld[:, None] & (sees & ~chosen).any(dim=1, keepdim=True)
    return {name: masked[name] | (known[name] & chosen[:, number, None, None]) for number, name in enumerate(known)}
