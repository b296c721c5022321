"""How a model is trained without labels."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PretrainingSettings:
    """Settings of the loop.

    Attributes:
        epochs: an epoch shows as many windows as lie beside each other on the scenes, 256 to 2048.
        minutes: takes the place of the epochs; such a run is not repeatable to the byte.
        windows_per_epoch: in place of the number that covers the scenes once.
        batch_size: windows that are compared with each other.
        accumulation: batches a step of the optimiser.
        window_size: side of a window in reference pixels.
        learning_rate: highest learning rate, reached after ``warm_up`` of the run; it falls along a cosine.
        weight_decay: of AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101).
        second_moment: of AdamW: by how much its mean of squares keeps with each step.
        warm_up: part of the run.
        gradient_limit: largest norm of a step's gradient.
        seed: of windows, views, masks and initialisation.
    """

    epochs: int = 20
    minutes: float | None = None
    windows_per_epoch: int | None = None
    batch_size: int = 32
    accumulation: int = 1
    window_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    second_moment: float = 0.999
    warm_up: float = 0.1
    gradient_limit: float = 1.0
    seed: int = 0
