"""What training showed, epoch by epoch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of training; NaN where it was not measured.

    Attributes:
        epoch: counted from 1.
        training_loss: weighted cross-entropy over the epoch's windows.
        validation_loss: log loss on the held-out labels, classes counting alike.
        validation_macro_f1: mean F1 over the classes that occur there, 0..1.
    """

    epoch: int
    training_loss: float
    validation_loss: float
    validation_macro_f1: float
