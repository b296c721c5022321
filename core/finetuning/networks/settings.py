"""How a model is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TrainedPart = Literal["all", "last", "head", "adapters"]
"""What is trained: everything; the encoders' last stage and all that follows; what follows stems, encoders and fusion; the
same and low-rank adapters of encoders and fusion."""


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of the loop; the defaults were chosen on a simulated scene and on one of Sentinel-1, -2 and a DEM.

    Attributes:
        epochs: most epochs; the learning rate falls over all of them.
        windows_per_epoch: windows shown in one epoch.
        batch_size: windows a step.
        window_size: side of a window in reference pixels.
        learning_rate: highest learning rate, reached after a tenth of the steps.
        weight_decay: of AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101).
        label_smoothing: part of the target given to all classes alike (Szegedy et al. 2016, arXiv:1512.00567, section 7).
        modality_dropout: part of the steps in which some of the inputs are withheld, so that the model learns to do
            without them.
        radiometric_strength: see ``augmentation.vary_radiometry``.
        averaging: part of the averaged weights kept at each step; validation and the final model use the average.
        consistency: whether the network also has to agree, on unlabelled pixels, with sure answers of its averaged weights;
            see ``consistency``.
        patience: epochs without a better validation loss after which training stops, in its second half.
        trained_part: see ``freezing``.
        adapter_rank, adapter_alpha: of the adapters, where these are trained; see ``adapters``. The
            rank is one that the paper found enough (its section 7.2), and was not compared with others here.
        layer_decay: of the learning rate from part to part, head to stems; 1 = none. See ``layer_decay``.
        seed: of initialisation, sampling, augmentation and dropout.
    """

    epochs: int = 24
    windows_per_epoch: int = 80
    batch_size: int = 8
    window_size: int = 48
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    label_smoothing: float = 0.05
    modality_dropout: float = 0.25
    radiometric_strength: float = 0.1
    averaging: float = 0.98
    consistency: bool = False
    patience: int = 10
    trained_part: TrainedPart = "all"
    adapter_rank: int = 4
    adapter_alpha: float = 4.0
    layer_decay: float = 1.0
    seed: int = 0

    @staticmethod
    def windows_for(n_features: int) -> int:
        """A window a feature and epoch, so that many labels are all seen, up to ten times the usual number."""
        usual = TrainingSettings.windows_per_epoch
        return min(max(n_features, usual), 10 * usual)

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.windows_per_epoch // self.batch_size)
