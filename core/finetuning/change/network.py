"""A network with the head of change, trained on labels of two dates and compared with what needs no network."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import core
from core.errors import SensorError, UsageError
from core.finetuning.change.estimators import ChangeCandidate, LabelledChange
from core.finetuning.estimators.candidates import may_replace
from core.finetuning.evaluation import Predictions, context_reach
from core.finetuning.networks.loop import Progress, TrainingResult, train
from core.finetuning.networks.settings import TrainingSettings
from core.finetuning.networks.start import start_model, without_classes
from core.finetuning.training_data import TrainingData
from core.labels.label_set import LabelSet
from core.labels.scheme import ClassScheme
from core.models.alteration import Alteration
from core.models.architectures import ArchitectureName, title_of
from core.models.fusion_model import FusionModel
from core.models.model_file import ModelCard, class_cards
from core.models.pair_model import PairModel, pair_specification
from core.models.specification import MOST_INPUTS, ModelSpecification
from core.models.specify import specify_model, with_change
from core.scenes.date_pair import DatePair
from core.scenes.scene import select

ARCHITECTURE: ArchitectureName = "unet_intermediate"
"""Of a network that starts from nothing: that which ``finetune`` takes by default."""


@dataclass(frozen=True, eq=False)
class PreparedChange:
    """A network of change before its training.

    Attributes:
        pair: the two dates with the network's inputs.
        specification: of the network, over both dates as one scene; see ``pair_specification``.
        model: initialised.
        data: blocks around the labels, of both dates as one scene.
        settings: of the training.
    """

    pair: DatePair
    specification: ModelSpecification
    model: PairModel
    data: TrainingData
    settings: TrainingSettings

    @property
    def name(self) -> str:
        """In reports."""
        return f"{title_of(self.specification)} on both dates"


@dataclass(frozen=True, eq=False)
class ChangeNetwork:
    """A trained network of change.

    Attributes:
        prepared: what its training started from.
        result: of the training.
        seconds: that it took.
        held_out: what it says of the labels held out, where ``beside`` has an answer, too.
        beside: what everything else says of the same pixels, in the same order.
    """

    prepared: PreparedChange
    result: TrainingResult
    seconds: float
    held_out: Predictions
    beside: tuple[ChangeCandidate, ...]

    @property
    def is_clearly_better(self) -> bool:
        """Than the first of the others, which is the vote."""
        return may_replace(self.held_out, self.beside[0].said)


def prepare_change_network(
    pair: DatePair,
    alteration: Alteration,
    labels: LabelSet,
    base: tuple[FusionModel, ModelCard] | None,
    epochs: int,
    seed: int,
    progress: Progress,
) -> PreparedChange:
    """Builds the network and reads the surroundings of the labels.

    Args:
        pair: the two dates.
        alteration: fitted on them.
        labels: of change.
        base: whose weights the network starts from, all but those of its classes; it keeps its parts.
        epochs: most of the training.
        seed: of everything random.
        progress: told the part done, and in which phase; raises to stop.

    Raises:
        SensorError: the base model needs what the two dates do not have in common.
        UsageError: the two dates make more inputs than a model takes.
        LabelError: no label lies where both dates have data.
    """
    light = _light(pair, alteration)
    if base is None:
        specification = specify_model(pair.before, ARCHITECTURE, len(labels.scheme))
    else:
        pair, specification = _as_base_wants(pair, base[1])
    specification = with_change(specification, len(labels.scheme))
    names = tuple(acquisition.name for acquisition in pair.before.acquisitions)
    if 2 * len(names) > MOST_INPUTS:
        raise UsageError(
            f"A network over two dates of {len(names)} inputs each would take {2 * len(names)}, and may take {MOST_INPUTS}.",
            "Stack rasters of one kind into one file, leave some out, or train no network (mode 'vote').",
        )
    network = start_model(specification, seed, None, labels.scheme)
    if base is not None:
        network.load_state_dict(without_classes(base[0].state_dict()), strict=False)
    model = PairModel(
        network, {each.name: _of_bands(light, each.role, each.sensor.name, each.bands) for each in pair.before.acquisitions}
    )
    settings = TrainingSettings(
        epochs=epochs, seed=seed, windows_per_epoch=TrainingSettings.windows_for(len(labels)), modality_dropout=0.0
    )
    both = pair_specification(specification, names)
    data = TrainingData(
        pair.scene,
        labels,
        max(settings.window_size, context_reach(both)),
        lambda part: progress(part, "Reading the surroundings of the labels"),
    )
    return PreparedChange(pair, both, model, data, settings)


Light = dict[tuple[str, str, str], tuple[float, float]]


def _light(pair: DatePair, alteration: Alteration) -> Light:
    """Gain and offset of the second date's bands, by role, sensor and band."""
    keys = [(each.role, each.sensor.name, band) for each in pair.before.acquisitions for band in each.bands]
    return dict(zip(keys, zip(*map(np.ndarray.tolist, alteration.light_of_first()), strict=True), strict=True))


def _of_bands(light: Light, role: str, sensor: str, bands: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    gain, offset = np.array([light[role, sensor, band] for band in bands]).T
    return gain, offset


def _as_base_wants(pair: DatePair, card: ModelCard) -> tuple[DatePair, ModelSpecification]:
    """The pair with a base model's inputs in its order, and its specification for their pixel size.

    Raises:
        SensorError: both dates lack a sensor or a band that the base model needs.
    """
    specification = card.specification
    needed = [(entry.name, entry.role, entry.sensor, entry.band_names, entry.scale) for entry in specification.modalities]
    try:
        before, after = (select(scene, needed, card.allows_missing) for scene in (pair.before, pair.after))
    except SensorError as error:
        raise SensorError(
            f"The base model does not fit what both dates show. {error.message}",
            "Give a base model that was trained on the sensors and bands of both dates, or leave the base model out.",
        ) from None
    if specification.stem == "generated" or specification.encoder == "vit":
        # Kernels and positions are made for metres, and need no weights of their own for another pixel size.
        specification = specification.model_copy(update={"resolution_m": round(pair.grid.resolution_m(), 6)})
    return replace(pair, before=before, after=after), specification


def train_change_network(
    prepared: PreparedChange,
    validation: NDArray[np.bool_],
    labelled: LabelledChange,
    candidates: Sequence[ChangeCandidate],
    fold: NDArray[np.int64],
    device: torch.device,
    checkpoint: Path,
    identity: str,
    progress: Progress,
) -> ChangeNetwork:
    """Trains the network, and sets it beside what estimators say of the same held-out pixels.

    Args:
        prepared: what it starts from.
        validation: (n_features,) bool, the features held out; they choose the epoch, too.
        labelled: what the estimators have learned from.
        candidates: what they say in their cross-validation.
        fold: (n_features,) of the cross-validation, whose first part is ``validation``.
        device: to train on.
        checkpoint, identity: see ``train``.
        progress: told the part done, and in which phase; raises to stop.
    """
    started = time.perf_counter()
    data, n_columns = prepared.data, prepared.pair.grid.width
    result = train(
        prepared.model, prepared.specification, data, validation, prepared.settings, device, checkpoint, identity, progress
    )
    seconds = time.perf_counter() - started
    if result.validation is None:
        raise RuntimeError("The split holds out nothing.")
    seen = data.pixels[validation[data.pixels[:, 3]]]
    asked = labelled.place[fold[labelled.feature] >= 0]
    # Of large labels the estimators see some pixels only, and at the edge of data a finer raster may say more than the other.
    own_keys, other_keys = (rows[:, 1] * n_columns + rows[:, 0] for rows in (seen, asked))
    _, own, others = np.intersect1d(own_keys, other_keys, return_indices=True)
    beside = tuple(replace(each, said=_rows(each.said, others)) for each in candidates)
    return ChangeNetwork(prepared, result, seconds, _rows(result.validation, own), beside)


def _rows(told: Predictions, rows: NDArray[np.int64]) -> Predictions:
    return Predictions(told.scores[rows], told.classes[rows], told.feature[rows])


def change_card(network: ChangeNetwork, scheme: ClassScheme) -> ModelCard:
    """What the mapping engine has to know of a trained network."""
    return ModelCard(
        software_version=core.__version__,
        specification=network.prepared.specification,
        resolution_m=round(network.prepared.pair.grid.resolution_m(), 6),
        class_scheme=scheme.name,
        classes=class_cards(scheme),
        temperature=network.result.temperature,
    )
