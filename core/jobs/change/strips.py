"""Change strip by strip: from a test, from a vote of estimators, from a network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from core.finetuning.change.estimators import ChangeFeatures, ChangeVote, feature_strips
from core.finetuning.change.network import ChangeNetwork, change_card
from core.jobs.change.training import UNCHANGED_COLOUR
from core.labels.scheme import NODATA_CODE, ClassScheme, LandCoverClass
from core.mapping.engine import MappingEngine
from core.models.alteration import Alteration, length_at, no_change_probability
from core.scenes.date_pair import DatePair, PairReader
from core.scenes.grid import Window

UNLABELLED = ClassScheme(
    "change",
    (LandCoverClass(1, "Unchanged", UNCHANGED_COLOUR, "unchanged"), LandCoverClass(2, "Changed", "#c8352b", "changed")),
)


@dataclass(frozen=True, eq=False)
class ChangeStrip:
    """Rows of the result.

    Attributes:
        window: of the grid.
        codes: (rows, columns) uint8, 0 = a date lacks data.
        probability: (rows, columns) float32 of change in percent, NaN where a date lacks data.
        variates: (p + 1, rows, columns) float32, their length first; None where the job does not ask for them.
    """

    window: Window
    codes: NDArray[np.uint8]
    probability: NDArray[np.float32]
    variates: NDArray[np.float32] | None


def without_labels(reader: PairReader, alteration: Alteration, level: float, pair: DatePair) -> Iterator[ChangeStrip]:
    """What differs by more than a test at a level allows."""
    unchanged, changed = UNLABELLED.codes
    threshold = length_at(level, len(alteration.correlations))
    for window in feature_strips(pair.grid):
        variates = alteration.variates(reader.read(window))
        length = _length(variates)
        codes = np.where(length > threshold, changed, unchanged)
        percent = 100 * (1 - no_change_probability(variates))
        yield ChangeStrip(
            window,
            np.where(np.isnan(length), NODATA_CODE, codes).astype(np.uint8),
            percent.astype(np.float32),
            np.concatenate([length[None], variates]),
        )


def from_vote(
    features: ChangeFeatures,
    model: ChangeVote,
    scheme: ClassScheme,
    unchanged: int | None,
    pair: DatePair,
    has_variates: bool,
) -> Iterator[ChangeStrip]:
    """What a vote of estimators says of each pixel."""
    table = np.array(scheme.codes, np.uint8)
    for window in feature_strips(pair.grid):
        values = features.of(window)
        known = np.isfinite(values[0])
        codes = np.full(window.shape, NODATA_CODE, np.uint8)
        percent = np.full(window.shape, np.nan, np.float32)
        if known.any():
            shares = model.probabilities(values[:, known].T)
            codes[known] = table[shares.argmax(axis=1)]
            percent[known] = 100 * (1 - shares[:, unchanged]) if unchanged is not None else np.nan
        yield ChangeStrip(window, codes, percent, _variates(features, window) if has_variates else None)


def from_network(
    network: ChangeNetwork,
    scheme: ClassScheme,
    unchanged: int | None,
    features: ChangeFeatures,
    device: torch.device,
    has_variates: bool,
) -> Iterator[ChangeStrip]:
    """What a network says, blended over tiles.

    Args:
        network: that is mapped with.
        scheme: its classes.
        unchanged: index of the class that means no change.
        features: of which the variates come, where they are asked for.
        device: to compute on.
        has_variates: whether they are.
    """
    table = np.array(scheme.codes, np.uint8)
    pair = network.prepared.pair
    engine = MappingEngine(network.result.model, change_card(network, scheme), pair.scene, device)
    for strip in engine.strips(pair.grid.window):
        codes = np.where(strip.mapped, table[strip.probabilities.argmax(axis=0)], NODATA_CODE)
        percent = np.full(strip.window.shape, np.nan, np.float32)
        if unchanged is not None:
            percent[strip.mapped] = 100 * (1 - strip.probabilities[unchanged][strip.mapped])
        variates = _variates(features, strip.window) if has_variates else None
        yield ChangeStrip(strip.window, codes.astype(np.uint8), percent, variates)


def _variates(features: ChangeFeatures, window: Window) -> NDArray[np.float32]:
    signed = features.alteration.variates(features.reader.read(window))
    return np.concatenate([_length(signed)[None], signed])


def _length(variates: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.sqrt(np.square(variates, dtype=np.float64).sum(axis=0)), np.float32)
