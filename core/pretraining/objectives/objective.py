"""What every objective is to the loop: a model and windows in, losses by term out."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from core.models.fusion_model import FusionModel


@dataclass(frozen=True, eq=False)
class Windows:
    """A batch of windows without labels, each modality on its own scale.

    Attributes:
        values: by modality (B, C, h, w) float32 physical values, NaN = missing. All windows lack the same modalities.
        geography: (B, 3) float64 latitude, longitude in degrees and resolution in metres; NaN = unknown.
        dates: by modality (B, 1) float64 days since the start of any year, NaN = unknown; of those that have any.
    """

    values: dict[str, Tensor]
    geography: Tensor
    dates: dict[str, Tensor] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.values)

    def __len__(self) -> int:
        return len(self.geography)

    def to(self, device: torch.device) -> Windows:
        """The same on a device."""
        values, dates = ({name: each.to(device) for name, each in given.items()} for given in (self.values, self.dates))
        return Windows(values, self.geography.to(device), dates)


@dataclass(frozen=True, eq=False)
class Step:
    """What an objective is asked with.

    Attributes:
        model: that learns, in training mode.
        windows: on the model's device.
        generator: of everything random in the step, on the CPU.
        done: part of the run that is behind, 0 to 1.
    """

    model: FusionModel
    windows: Windows
    generator: torch.Generator
    done: float = 0.0


class Objective(nn.Module):
    """Losses of a step. An objective owns its heads and teachers: what of it is trained, is in ``parameters()`` with a
    gradient, and the loop puts exactly that beside the model's own parameters into the optimiser.

    Attributes:
        activity: what the user is told is going on.
        learns_features: whether features that all look alike mean that nothing was learned. What says classes may need few.
        trains_classifier: whether the classes' own layer is learned; else whoever fine-tunes makes it anew.
    """

    activity: ClassVar[str] = "Pre-training"
    learns_features: ClassVar[bool] = True
    trains_classifier: ClassVar[bool] = False

    @abstractmethod
    def forward(self, step: Step) -> dict[str, Tensor]:
        """Scalars by term, weighted: their sum is what is minimised. A term that a batch has nothing for is left out."""

    def after_step(self, model: FusionModel, done: float) -> None:
        """Called after each step of the optimiser, with the part of the run done: moves teachers and queues."""

    def monitors(self) -> dict[str, float]:
        """What the last step showed of its health, by name, such as a teacher's entropy."""
        return {}
