"""The networks that a training tries: one, or, within the minutes that ``auto`` is given, others that learn in other ways."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from core.finetuning.evaluation import calibrated_log_loss
from core.finetuning.networks.loop import TrainingResult, train
from core.finetuning.networks.settings import TrainingSettings
from core.jobs.events import JobContext
from core.jobs.learning.preparation import PreparedTraining, settings_for
from core.jobs.outputs import trial_checkpoint
from core.jobs.schemas import FinetuneJob
from core.models.checkpoint import is_checkpoint_of

MODES_TRIED = ("partial", "linear", "adapters", "full")
"""Ways to train a base model, in the order in which they are tried after the usual one: all of it at one rate."""

OTHER_RATES = (3e-4, 3e-3)
"""Learning rates tried after the usual one."""

TRAINED = {
    "all": "all of it",
    "last": "from the encoders' last stage on",
    "head": "what follows the encoders",
    "adapters": "with adapters",
}
"""In words, by the part that is trained."""


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A network that was trained.

    Attributes:
        title: in reports.
        settings: that it was trained with.
        result: of its training.
        seconds: of it.
    """

    title: str
    settings: TrainingSettings
    result: TrainingResult
    seconds: float


def settings_to_try(job: FinetuneJob, prepared: PreparedTraining) -> list[TrainingSettings]:
    """Of the one network that is trained; where ``auto`` has minutes, of all that may be, the most promising first."""
    usual = prepared.settings
    if job.minutes is None:
        return [usual]
    ways = [usual]
    if prepared.base is not None:
        ways += [settings_for(job, mode, len(prepared.labels)) for mode in MODES_TRIED]
    return [replace(way, learning_rate=rate) for rate in (usual.learning_rate, *OTHER_RATES) for way in ways]


def train_networks(
    job: FinetuneJob,
    prepared: PreparedTraining,
    device: torch.device,
    checkpoint: Path,
    identity: str,
    started: float,
    context: JobContext,
) -> list[TrainedNetwork]:
    """Trains one network, and further ones as long as the next is likely to end within the job's minutes.

    Each keeps its own checkpoint, so that a run that was killed goes through what it had trained without training it again.

    Args:
        job: that asks for it.
        prepared: what training starts from; its model is left as it is where several networks are tried.
        device: to train on.
        checkpoint: of the first.
        identity: of data, labels and settings.
        started: when the job did, of ``time.perf_counter``.
        context: told of the progress, and asked whether to stop.
    """
    tried = settings_to_try(job, prepared)
    if checkpoint.is_file():
        context.info("A training of this model was interrupted; it goes on from there, if nothing has changed since.")
    networks: list[TrainedNetwork] = []
    for number, settings in enumerate(tried):
        kept, own = trial_checkpoint(checkpoint, number), f"{identity}/{number}" if number else identity
        longest = max((network.seconds for network in networks), default=0.0)
        spent = time.perf_counter() - started
        if networks and spent + longest > 60 * (job.minutes or 0.0) and not is_checkpoint_of(kept, own):
            break
        title = _title(prepared, settings) if len(tried) > 1 else prepared.title
        if len(tried) > 1:
            context.info(f"Network {number + 1} of at most {len(tried)}: {title}.")
        part = 0.72 / len(tried)
        begun = time.perf_counter()
        result = train(
            copy.deepcopy(prepared.model) if len(tried) > 1 else prepared.model,
            prepared.specification,
            prepared.data,
            prepared.split.validation,
            settings,
            device,
            kept,
            own,
            context.part(0.2 + number * part, 0.2 + (number + 1) * part),
        )
        networks.append(TrainedNetwork(title, settings, result, time.perf_counter() - begun))
        best = best_network(networks)
        networks = [network if network is best else _without_model(network) for network in networks]
    if len(tried) > 1:
        spent = (time.perf_counter() - started) / 60
        context.info(f"{len(networks)} of {len(tried)} networks were trained; {spent:.1f} of {job.minutes:g} minutes are over.")
    return networks


def _without_model(network: TrainedNetwork) -> TrainedNetwork:
    """What the report says of a network that is not delivered; its weights would take memory to the end."""
    return replace(network, result=replace(network.result, model=nn.Identity()))


def best_network(networks: Sequence[TrainedNetwork]) -> TrainedNetwork:
    """The one with the lowest calibrated log loss on the held-out labels."""

    def loss(network: TrainedNetwork) -> float:
        if network.result.validation is None:
            raise RuntimeError("The split holds out nothing.")
        return calibrated_log_loss(network.result.validation)

    return networks[0] if len(networks) == 1 else min(networks, key=loss)


def _title(prepared: PreparedTraining, settings: TrainingSettings) -> str:
    """Tells a network from others of the same architecture."""
    rate = f"learning rate {settings.learning_rate:g}"
    if prepared.base is None:
        return f"{prepared.title}, {rate}"
    falling = " at rates that fall towards its inputs" if settings.layer_decay < 1 else ""
    return f"{prepared.title}, {TRAINED[settings.trained_part]}{falling}, {rate}"
