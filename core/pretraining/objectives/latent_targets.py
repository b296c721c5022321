"""Latent targets: say what the hidden patches are like, not what they look like pixel by pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.models.features import FeatureMap
from core.models.fusion_model import FusionModel
from core.models.heads import DenseHead
from core.pretraining.masking import MaskSettings, draw_masks, hide, known_patches, patch_of
from core.pretraining.objectives.objective import Objective, Step
from core.pretraining.patch_decoder import Level, PatchDecoders
from core.pretraining.patch_targets import PatchTargets
from core.pretraining.patches import feature_channels, on_lattice

MOST_ROWS = 1024
"""Patches of a modality that a step tells apart: the comparison is quadratic."""

MOST_PIXELS = 4096
"""Pixels of a modality that a step predicts: neighbours say nearly the same."""

SAME = 0.95
"""Cosine of two targets above which their patches are alike, and no negatives of each other: a lake is many patches."""

PIXEL_CONTEXTS = (5, 9)
"""Neighbourhoods of the targets of single pixels."""


class LatentTargets(Objective):
    """Predicts frozen random projections of masked patches, of every modality from all that is visible.

    The idea is OlmoEarth's (frozen random projections as targets of a masked encoder, and patches told apart by
    contrast); the targets, the decoders and the pixels are ours. No teacher is kept, no pixel is drawn, and a target
    that is fixed cannot collapse, which suits small batches of one user's scenes. Whole modalities are withheld now and
    then, so that each is predicted from the others.

    For U-Nets, ``level="dense"`` predicts from what their own decoder makes of the features, which trains it, too. With
    ``pixels``, each pixel of that map predicts the target of its own place in every modality, hidden or not, through two
    layers on that pixel alone: of the visible ones the hidden surroundings, of the others what another modality shows.

    Args:
        model: that will be trained.
        masks: how they are drawn.
        modalities: names of those that are predicted; all by default.
        patch: side in reference pixels; by default what ``patch_of`` says.
        level: see ``PatchDecoders``.
        loss: ``contrast`` tells the patches of a batch apart, ``cosine`` only wants the right direction.
        temperature: of the contrast.
        width, depth: of the decoders.
        channels: of the targets.
        pixels: weight of the targets of pixels beside those of patches; 0 = none.
        seed: of the targets.
        weight: of the whole.

    Raises:
        ValueError: pixels are wanted without a dense level.
    """

    def __init__(
        self,
        model: FusionModel,
        masks: MaskSettings | None = None,
        *,
        modalities: Sequence[str] | None = None,
        patch: int | None = None,
        level: Level = "tokens",
        loss: Literal["cosine", "contrast"] = "contrast",
        temperature: float = 0.2,
        width: int = 128,
        depth: int = 2,
        channels: int = 64,
        pixels: float = 0.0,
        seed: int = 0,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        if pixels and level != "dense":
            raise ValueError("targets of pixels need the level 'dense'")
        self.masks = masks or MaskSettings(ratio=0.5, withheld=0.25)
        self.patch = patch or patch_of(model)
        self.loss, self.temperature, self.weight, self.pixels = loss, temperature, weight, pixels
        entries = {name: model.modalities[name] for name in modalities or model.modalities}
        self.decoders = PatchDecoders(model, entries, level, width, depth)
        self.outputs = nn.ModuleDict({name: _two_layers(width, channels) for name in entries})
        self.targets = nn.ModuleDict({n: PatchTargets(e, self.patch, channels, seed=seed) for n, e in entries.items()})
        self.cells: dict[str, int] = {}
        self.pixel_outputs, self.pixel_targets = nn.ModuleDict(), nn.ModuleDict()
        if pixels:
            dense = feature_channels(model).dense or 0
            stride = model.head.stride if isinstance(model.head, DenseHead) else 1
            self.cells = {name: math.lcm(stride, entry.coarser) for name, entry in entries.items()}
            self.pixel_outputs = nn.ModuleDict({name: _two_layers(dense, channels) for name in entries})
            self.pixel_targets = nn.ModuleDict(
                {n: PatchTargets(e, self.cells[n], channels, PIXEL_CONTEXTS, seed=seed) for n, e in entries.items()}
            )

    def forward(self, step: Step) -> dict[str, Tensor]:
        """``latent <modality>`` of each modality of which anything is masked, and ``latent pixels <modality>``."""
        windows, model = step.windows, step.model
        masks = draw_masks(windows, model.modalities, self.patch, self.masks, step.generator)
        hidden = hide(windows.values, masks, model.modalities)
        features = model.features(hidden, dates=windows.dates, geography=windows.geography)
        merged = self.decoders.merged(model, features)
        decoded = self.decoders(features, merged, masks, windows.geography)
        losses = {}
        for name, tokens in decoded.items():
            known, masked = masks.known[name], masks.masked[name]
            targets: Tensor = self.targets[name](windows.values[name], known)
            losses[name] = self._compared(self.outputs[name](tokens), targets[masked[known]], step.generator)
        terms = {f"latent {name}": self.weight * loss / len(losses) for name, loss in losses.items()}
        if not self.cells:
            return terms
        of_pixels = self._of_pixels(step, merged)
        scale = self.weight * self.pixels / max(len(of_pixels), 1)
        return terms | {f"latent pixels {name}": scale * loss for name, loss in of_pixels.items()}

    def _of_pixels(self, step: Step, dense: FeatureMap) -> dict[str, Tensor]:
        """Losses of pixels that have features, by modality."""
        losses = {}
        for name, cell in self.cells.items():
            if name not in step.windows.values:
                continue
            values = step.windows.values[name]
            known = known_patches(values, step.model.modalities[name], cell)
            seen = on_lattice(dense, cell, (known.shape[1], known.shape[2]))
            asked = torch.nonzero((known & (seen.known[:, 0] > 0)).flatten())[:, 0]
            asked = _some(asked, MOST_PIXELS, step.generator)
            if not len(asked):
                continue
            targets: Tensor = self.pixel_targets[name](values, known)
            numbers = known.flatten().cumsum(dim=0) - 1
            predicted = self.pixel_outputs[name](seen.values.movedim(1, -1).flatten(0, 2)[asked])
            losses[name] = self._compared(predicted, targets[numbers[asked]], step.generator)
        return losses

    def _compared(self, predicted: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """The loss of predictions and targets of the same rows."""
        predicted = functional.normalize(predicted, dim=1, eps=1e-6)
        if self.loss == "cosine":
            return (1 - (predicted * targets).sum(dim=1)).mean()
        rows = _some(torch.arange(len(predicted), device=predicted.device), MOST_ROWS, generator)
        return patch_discrimination(predicted[rows], targets[rows], self.temperature)


def patch_discrimination(predicted: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Which of the targets is the one of each prediction; those almost the same as it are not asked about.

    Cross-entropy of the cosines by the temperature, after OlmoEarth's patch discrimination; leaving out what is alike
    is ours. Exactly zero where there is nothing else to choose.

    Args:
        predicted, targets: (n, C) unit vectors.
        temperature: that cosines are divided by.
    """
    logits = predicted @ targets.T / temperature
    alike = targets @ targets.T > SAME
    alike.fill_diagonal_(False)
    own = torch.arange(len(logits), device=logits.device)
    return functional.cross_entropy(logits.masked_fill(alike, -torch.inf), own)


def _two_layers(channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, out_channels))


def _some(numbers: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """At most that many of the numbers, any of them alike."""
    if len(numbers) <= most:
        return numbers
    return numbers[torch.randperm(len(numbers), generator=generator)[:most].to(numbers.device)]
