"""Training on labels: a thin loop around a model, a sampler and a held-out part."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import f1_score
from torch import Tensor, nn
from torch.nn import functional

from core.finetuning.evaluation import Predictions, calibrated_log_loss, fit_temperature, is_clearly_better, predict_labelled
from core.finetuning.networks.adapters import add_adapters, merged_state
from core.finetuning.networks.consistency import consistency_loss, consistency_weight
from core.finetuning.networks.freezing import freeze
from core.finetuning.networks.layer_decay import parameter_groups
from core.finetuning.networks.records import EpochRecord
from core.finetuning.networks.sampling import WindowSampler, class_weights
from core.finetuning.networks.settings import TrainingSettings
from core.finetuning.training_data import TrainingData
from core.models.checkpoint import load_checkpoint, save_checkpoint
from core.models.fusion_model import FusionModel
from core.models.specification import ModelSpecification
from core.models.subsets import proper_subsets

GRADIENT_LIMIT = 1.0
"""Largest norm of a step's gradient: a window of mislabelled pixels must not undo an epoch."""

SHORTCUT_WEIGHTS = (0.0, 0.5, 1.0)
"""How much of the linear model may be added to the network, chosen on the held-out labels."""

Progress = Callable[[float, str], None]


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """A trained model and how it came about.

    Attributes:
        model: the averaged weights of the best epoch, in evaluation mode.
        records: an entry an epoch; in the first half every second epoch is scored.
        best_epoch: the epoch that the model is from; 0 where none was better than the linear model it starts from.
        validation: scores of the held-out pixels; None without validation labels.
        temperature: by which scores are divided before the softmax.
        linear_weight: how much of the linear model was added to the network; None where there is none, or it is all.
        subsets: what the model says of the held-out pixels with some of its inputs missing, small sets first.
        calibration: scores of pixels not learned from, on which the temperature was fitted; None without any.
    """

    model: nn.Module
    records: tuple[EpochRecord, ...]
    best_epoch: int
    validation: Predictions | None
    temperature: float
    linear_weight: float | None = None
    subsets: tuple[SubsetResult, ...] = ()
    calibration: Predictions | None = None


@dataclass(frozen=True, eq=False)
class SubsetResult:
    """The model with some of its inputs.

    Attributes:
        inputs: names of those that it had.
        predictions: of the held-out pixels that they cover.
        temperature: by which its scores are divided before the softmax.
    """

    inputs: frozenset[str]
    predictions: Predictions
    temperature: float


class _Run:
    """The moving parts of one training run.

    Adapters are in the model that is trained alone: average and best hold the weights that come of them.
    """

    def __init__(
        self, model: nn.Module, specification: ModelSpecification, settings: TrainingSettings, device: torch.device
    ) -> None:
        self.specification = specification
        self.seed = settings.seed
        self.model = model.to(device)
        self.frozen = freeze(model, settings.trained_part)
        self.average = copy.deepcopy(self.model).eval()
        self.best = copy.deepcopy(self.average)
        if settings.trained_part == "adapters":
            add_adapters(self.model, settings.adapter_rank, settings.adapter_alpha, settings.seed)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(parameter_groups(self.model, settings))
        total = settings.epochs * settings.steps_per_epoch
        warm_up = max(1, total // 10)

        def rate(step: int) -> float:
            if step < warm_up:
                return (step + 1) / warm_up
            return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, total - warm_up)))

        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, rate)

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {"model": self.model, "average": self.average, "best": self.best}


def train(
    model: nn.Module,
    specification: ModelSpecification,
    data: TrainingData,
    validation: NDArray[np.bool_],
    settings: TrainingSettings,
    device: torch.device,
    checkpoint: Path,
    identity: str,
    progress: Progress,
) -> TrainingResult:
    """Trains on the features that are not held out; everything without a label is ignored.

    A run that was killed goes on from its last whole epoch and ends with the same weights to the bit, on the same
    machine with the same number of threads.

    Args:
        model: initialised.
        specification: of the model.
        data: blocks around the labels.
        validation: (n_features,) bool, the features held out. They stop the training and choose the epoch.
        settings: of the loop.
        device: to train on.
        checkpoint: where the state is kept after each epoch; removed by the caller when the model is safe.
        identity: of data, labels and settings, so that another run's checkpoint is not taken for this one's.
        progress: told the part done, and in which phase; raises to stop.
    """
    run = _Run(model, specification, settings, device)
    sampler = WindowSampler(data, ~validation, specification, settings)
    weights = class_weights(data, ~validation, specification.n_classes).to(device)
    can_validate = bool(validation[data.pixels[:, 3]].any())
    start = _linear_scores(run, data, validation, device) if can_validate else None
    restored = load_checkpoint(checkpoint, identity, run.modules, run.optimizer, run.schedule)
    written, extra = (
        restored if restored is not None else ([], {"best_epoch": 0, "best_loss": math.inf, "step": 0, "weight": None})
    )
    records = [EpochRecord(**record) for record in written]
    best_epoch, best_loss, step = int(extra["best_epoch"]), float(extra["best_loss"]), int(extra["step"])
    linear_weight = extra["weight"]
    if restored is None and start is not None:
        # What training starts from is worth something already, and has to be beaten clearly: on the real scenes tried, a
        # network that was hardly better on the held-out labels was worse everywhere else.
        best_loss = calibrated_log_loss(start)
    for epoch in range(len(records) + 1, settings.epochs + 1):
        # While the rate is high a network says little of what it will come to: neither is patience counted, nor is each
        # epoch scored, which takes as long as to train it.
        is_late = epoch > settings.epochs // 2
        is_scored = can_validate and (is_late or epoch % 2 == 0)
        if can_validate and is_late and epoch - best_epoch > settings.patience:
            break
        progress((epoch - 1) / settings.epochs, _phase(epoch, settings.epochs, records))
        loss, step = _train_epoch(run, sampler, weights, settings, device, epoch, step, progress)
        record, weight, seen = _validate(run, data, validation if is_scored else None, device, epoch, loss, start)
        records.append(record)
        is_best = record.validation_loss < best_loss or not can_validate
        if is_best and start is not None and seen is not None and best_epoch == 0:
            is_best = is_clearly_better(seen, start)
        if is_best:
            best_epoch, best_loss = epoch, min(best_loss, record.validation_loss)
            run.best.load_state_dict(run.average.state_dict())
            if start is not None and isinstance(run.best, FusionModel):
                if run.best.linear is not None:
                    run.best.linear.scale(weight)
                linear_weight = weight
        extra = {"best_epoch": best_epoch, "best_loss": best_loss, "step": step, "weight": linear_weight}
        save_checkpoint(checkpoint, identity, run.modules, run.optimizer, run.schedule, [asdict(r) for r in records], extra)
    held_out = predict_labelled(run.best, specification, data, validation, device) if can_validate else None
    temperature = fit_temperature(held_out) if held_out is not None else 1.0
    # Beside a network that learned by itself, each set of inputs may take another part of its linear model.
    source = run.model if start is not None and best_epoch else None
    subsets = without_inputs(run.best, source, specification, data, validation, device, progress) if can_validate else ()
    run.best.requires_grad_(True)
    return TrainingResult(run.best, tuple(records), best_epoch, held_out, temperature, linear_weight, subsets, held_out)


def without_inputs(
    model: nn.Module,
    source: nn.Module | None,
    specification: ModelSpecification,
    data: TrainingData,
    validation: NDArray[np.bool_],
    device: torch.device,
    progress: Progress,
) -> tuple[SubsetResult, ...]:
    """How the model does with some of its inputs missing, where it was trained for that.

    Args:
        model: delivered.
        source: with the linear models as they were fitted, where the held-out labels are to say how much of each counts.
    """
    results = []
    present = {acquisition.name for acquisition in data.scene.acquisitions}
    listed = enumerate(proper_subsets(specification), 1) if data.allows_missing else ()
    chosen = [(number, inputs) for number, inputs in listed if inputs < present]
    for count, (number, inputs) in enumerate(chosen, 1):
        # Also the place where a user who cancels is heard.
        progress(1.0, f"Scoring with some of the inputs: {count} of {len(chosen)}")
        if isinstance(model, FusionModel) and isinstance(source, FusionModel):
            predictions = _balanced(model, source, number, inputs, specification, data, validation, device)
        else:
            predictions = predict_labelled(model, specification, data, validation, device, inputs)
        if len(predictions.classes):
            results.append(SubsetResult(inputs, predictions, fit_temperature(predictions)))
    return tuple(results)


def _balanced(
    model: FusionModel,
    source: FusionModel,
    number: int,
    inputs: frozenset[str],
    specification: ModelSpecification,
    data: TrainingData,
    validation: NDArray[np.bool_],
    device: torch.device,
) -> Predictions:
    """Chooses how much of the network and of the linear model counts where only these inputs are there."""
    model.uses_shortcut = False
    network = predict_labelled(model, specification, data, validation, device, inputs)
    model.uses_shortcut = True
    linear = predict_labelled(_LinearOnly(source), specification, data, validation, device, inputs)
    if not len(network.classes) or model.linear is None or source.linear is None:
        return network
    shares = [(weight, 1.0) for weight in SHORTCUT_WEIGHTS] + [(1.0, 0.0)]
    candidates = [replace(network, scores=np.float32(n) * network.scores + np.float32(w) * linear.scores) for w, n in shares]
    best = min(range(len(shares)), key=lambda each: calibrated_log_loss(candidates[each]))
    model.linear.set_share(number, source.linear, *shares[best])
    return candidates[best]


class _LinearOnly(nn.Module):
    """A model without its network."""

    def __init__(self, model: FusionModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, values: dict[str, Tensor]) -> Tensor:
        return self.model.linear_scores(values)


def _phase(epoch: int, epochs: int, records: list[EpochRecord]) -> str:
    text = f"Training: epoch {epoch} of at most {epochs}"
    scores = [record.validation_macro_f1 for record in records if not math.isnan(record.validation_macro_f1)]
    return f"{text}, macro F1 on held-out labels {scores[-1]:.2f}" if scores else text


def _train_epoch(
    run: _Run,
    sampler: WindowSampler,
    weights: Tensor,
    settings: TrainingSettings,
    device: torch.device,
    epoch: int,
    step: int,
    progress: Progress,
) -> tuple[float, int]:
    # Everything random in an epoch follows from the seed and the epoch, which is what makes resuming exact.
    generator = np.random.default_rng((settings.seed, epoch))
    total = 0.0
    run.model.train()
    for module in run.frozen:
        module.eval()
    with torch.random.fork_rng():
        torch.manual_seed(int(generator.integers(2**62)))
        for number in range(settings.steps_per_epoch):
            batch = sampler.batch(generator)
            scores = run.model({name: values.to(device) for name, values in batch.values.items()})
            loss = _label_loss(scores, batch.classes.to(device), batch.weights.to(device), weights, settings.label_smoothing)
            if settings.consistency:
                weight = consistency_weight(step, settings.epochs * settings.steps_per_epoch)
                loss = loss + weight * consistency_loss(scores, run.average, batch)
            run.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(run.trained, GRADIENT_LIMIT)
            run.optimizer.step()
            run.schedule.step()
            step += 1
            _average(run.average, run.model, min(settings.averaging, step / (step + 9)))
            total += float(loss.detach())
            done = (epoch - 1 + (number + 1) / settings.steps_per_epoch) / settings.epochs
            progress(done, "")
    return total / settings.steps_per_epoch, step


def _label_loss(scores: Tensor, classes: Tensor, weights: Tensor, class_weights: Tensor, smoothing: float) -> Tensor:
    """The mean cross-entropy of what has a label, each pixel counting by its own weight and that of its class."""
    losses: Tensor = functional.cross_entropy(
        scores, classes, weight=class_weights, ignore_index=-1, label_smoothing=smoothing, reduction="none"
    )
    shares = weights * class_weights[classes.clamp(min=0)] * (classes >= 0)
    return (weights * losses).sum() / shares.sum()


@torch.no_grad()
def _average(average: nn.Module, model: nn.Module, kept: float) -> None:
    """Exponential average of weights and running statistics; what is not a real number is copied."""
    values = merged_state(model)
    for name, mean in average.state_dict().items():
        value = values[name]
        if mean.dtype.is_floating_point:
            mean.lerp_(value, 1 - kept)
        else:
            mean.copy_(value)


def _linear_scores(run: _Run, data: TrainingData, validation: NDArray[np.bool_], device: torch.device) -> Predictions | None:
    """What a linear model that training starts from says of the held-out pixels; the network is then trained without it.

    Added to the network's scores in training, it would leave the network little to learn: the linear model fits the labels
    that it was fitted on, and is blind to what lies between them.
    """
    if not (isinstance(run.model, FusionModel) and run.model.is_linear):
        return None
    seen = predict_labelled(run.best, run.specification, data, validation, device)
    with torch.random.fork_rng():
        torch.manual_seed(run.seed)
        run.model.head.classifier.reset_parameters()
    run.model.uses_shortcut = False
    run.average.load_state_dict(merged_state(run.model))
    if isinstance(run.average, FusionModel):
        run.average.uses_shortcut = False
    return seen


def _validate(
    run: _Run,
    data: TrainingData,
    validation: NDArray[np.bool_] | None,
    device: torch.device,
    epoch: int,
    training_loss: float,
    start: Predictions | None,
) -> tuple[EpochRecord, float, Predictions | None]:
    """The record of an epoch, how much of the linear model is best added to the network, and what the two then say."""
    if validation is None:
        return EpochRecord(epoch, training_loss, math.nan, math.nan), 1.0, None
    network = predict_labelled(run.average, run.specification, data, validation, device)
    candidates = {1.0: network}
    if start is not None:
        candidates = {w: replace(network, scores=network.scores + np.float32(w) * start.scores) for w in SHORTCUT_WEIGHTS}
    losses = {weight: calibrated_log_loss(predictions) for weight, predictions in candidates.items()}
    weight = min(losses, key=lambda each: losses[each])
    chosen = candidates[weight]
    present = np.unique(chosen.classes)
    score = f1_score(chosen.classes, chosen.predicted, labels=present, average="macro", zero_division=0.0)
    return EpochRecord(epoch, training_loss, losses[weight], float(score)), weight, chosen
