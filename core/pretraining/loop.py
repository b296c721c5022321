"""Pre-training: a thin loop around a model, an objective and windows of scenes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from core.errors import TrainingError
from core.models.checkpoint import load_checkpoint, save_checkpoint
from core.models.fusion_model import FusionModel
from core.models.heads import DenseHead
from core.pretraining.monitors import has_collapsed, look_at
from core.pretraining.objectives.objective import Objective, Step
from core.pretraining.processes import AveragedBuffers, Processes, current
from core.pretraining.records import PretrainingRecord
from core.pretraining.scene_windows import SceneWindows
from core.pretraining.settings import PretrainingSettings

CHECKPOINT_SECONDS = 60.0
"""Between two checkpoints within an epoch."""

LEAST_WINDOWS = 256
"""In an epoch: a small scene is seen from many corners before it is asked how things go."""

MOST_WINDOWS = 2048
"""In an epoch: of a large scene other parts are seen in each, and the default does not take days."""

PATIENCE = 4
"""Epochs in a row with collapsed features after which a run stops: in the first ones contrast may lose its rank for two, and
find it again."""

PROBE = "linear probe"
"""The monitor that a probe's answer goes by."""

Progress = Callable[[float, str], None]
Probe = Callable[[FusionModel], float]


@dataclass(frozen=True, eq=False)
class PretrainingResult:
    """A model after pre-training, in evaluation mode.

    Attributes:
        model: of the last epoch.
        records: an entry an epoch.
        steps: of the optimiser.
        trains_decoder: whether the decoder took part, so that what it makes of features means something.
    """

    model: FusionModel
    records: tuple[PretrainingRecord, ...]
    steps: int
    trains_decoder: bool


class _Run:
    """The moving parts of one run."""

    def __init__(self, model: FusionModel, objective: Objective, settings: PretrainingSettings, device: torch.device) -> None:
        self.model, self.objective = model.to(device), objective.to(device)
        self.device = device
        self.settings = settings
        for parameter in model.head.classifier.parameters():
            parameter.requires_grad_(objective.trains_classifier)
        trained = [p for module in (model, objective) for p in module.parameters() if p.requires_grad]
        decayed, others = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=settings.learning_rate,
            betas=(0.9, settings.second_moment),
        )
        self.trained = trained

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {"model": self.model, "objective": self.objective}

    def set_rate(self, done: float) -> None:
        """Warm-up and cosine, from the part of the run that is done."""
        rate = rate_at(done, self.settings.warm_up) * self.settings.learning_rate
        for group in self.optimizer.param_groups:
            group["lr"] = rate


def rate_at(done: float, warm_up: float) -> float:
    """Part of the highest learning rate after a part of the run."""
    if done < warm_up:
        return max(done / warm_up, 0.01)
    return 0.5 * (1 + math.cos(math.pi * (done - warm_up) / max(1e-9, 1 - warm_up)))


def pretrain(
    model: FusionModel,
    objective: Objective,
    windows: SceneWindows,
    settings: PretrainingSettings,
    device: torch.device,
    checkpoint: Path,
    identity: str,
    progress: Progress,
    probe: Probe | None = None,
) -> PretrainingResult:
    """Trains without labels.

    A run that was killed goes on from its last checkpoint and ends with the same weights to the bit, on the same
    machine with the same number of threads; unless its length is given in minutes. Several processes that have joined
    (see ``core.pretraining.processes``) take ``accumulation`` batches each in a step, and end with the same weights.

    Args:
        model: initialised; changed in place.
        objective: with its heads.
        windows: of the scenes.
        settings: of the loop.
        device: to train on.
        checkpoint: where the state is kept; removed by the caller when the model is safe.
        identity: of data, recipe and settings.
        progress: told the part done, and in which phase; raises to stop.
        probe: asked after each epoch what the features are good for; it has no part in the training.

    Raises:
        TrainingError: the features collapsed, or a loss is no number.
    """
    run = _Run(model, objective, settings, device)
    processes = current()
    per_epoch = settings.windows_per_epoch or min(max(windows.n_windows, LEAST_WINDOWS), MOST_WINDOWS)
    steps = max(1, round(per_epoch / (settings.batch_size * settings.accumulation * processes.count)))
    restored = load_checkpoint(checkpoint, identity, run.modules, run.optimizer, None)
    written, extra = restored if restored is not None else ([], {"step": 0, "seconds": 0.0, "sums": {}})
    records = [PretrainingRecord(**record) for record in written]
    step, sums = int(extra["step"]), dict(extra["sums"])
    started = time.monotonic() - float(extra["seconds"])
    _check_alike(run, processes, step)

    def save() -> None:
        if not processes.is_main:
            return
        state = {"step": step, "seconds": time.monotonic() - started, "sums": sums}
        save_checkpoint(checkpoint, identity, run.modules, run.optimizer, None, [asdict(r) for r in records], state)

    def done() -> float:
        if settings.minutes is not None:
            return processes.agree(min(1.0, (time.monotonic() - started) / (60 * settings.minutes)))
        return min(1.0, step / (steps * settings.epochs))

    saved = time.monotonic()
    part = done()
    while part < 1:
        epoch = step // steps + 1
        if step % steps == 0 or restored is not None:
            windows.open_epoch(settings.seed, epoch)
            restored = None
        losses = _step(run, windows, step, part, processes)
        for name, value in losses.items():
            total, count = sums.get(name, (0.0, 0))
            sums[name] = (total + value, count + 1)
        step += 1
        part = done()
        objective.after_step(model, part)
        progress(part, _phase(objective.activity, epoch, records, settings))
        if step % steps == 0 or part >= 1:
            _stop_if_idle(sums)
            records.append(_record(run, windows, epoch, sums, probe))
            sums = {}
            if objective.learns_features:
                _stop_if_collapsed(records)
            save()
            saved = time.monotonic()
        elif time.monotonic() - saved > CHECKPOINT_SECONDS:
            save()
            saved = time.monotonic()
    decoder = model.head.decoder if isinstance(model.head, DenseHead) else None
    trains_decoder = decoder is not None and any(p in run.optimizer.state for p in decoder.parameters())
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return PretrainingResult(model.eval(), tuple(records), step, trains_decoder)


def _step(run: _Run, windows: SceneWindows, step: int, done: float, processes: Processes) -> dict[str, float]:
    """One step of the optimiser; everything random in it follows from the seed, the step and the batch, so that it can be
    resumed, and shared among processes.

    Returns:
        The losses by term, averaged over the batches of all processes.
    """
    settings = run.settings
    count = settings.accumulation * processes.count
    run.model.train()
    run.objective.train()
    run.set_rate(done)
    run.optimizer.zero_grad(set_to_none=True)
    collected: dict[str, float] = {}
    averaged = AveragedBuffers(run.modules.values()) if count > 1 else None
    for number in processes.own(count):
        draws = np.random.default_rng((settings.seed, step, number, 11))
        for name, value in _batch_losses(run, windows, draws, step, done, count).items():
            collected[name] = collected.get(name, 0.0) + value
        if averaged is not None:
            averaged.take()
    if averaged is not None:
        averaged.put(processes, count)
    processes.add_gradients(run.trained)
    nn.utils.clip_grad_norm_(run.trained, settings.gradient_limit)
    run.optimizer.step()
    everything = processes.all_values(collected)
    names = dict.fromkeys(name for values in everything for name in values)
    return {name: sum(values.get(name, 0.0) for values in everything) for name in names}


def _batch_losses(
    run: _Run, windows: SceneWindows, draws: np.random.Generator, step: int, done: float, count: int
) -> dict[str, float]:
    """Adds a batch's gradients to the step's, and returns its share in the step's losses."""
    device = run.device
    generator = torch.Generator().manual_seed(int(draws.integers(2**62)))
    with torch.random.fork_rng(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        torch.manual_seed(int(draws.integers(2**62)))
        batch = windows.batch(draws)
        terms = run.objective(Step(run.model, batch.to(device), generator, done))
        if not terms:
            return {}
        total = torch.stack(list(terms.values())).sum() / count
    if not torch.isfinite(total):
        raise TrainingError(
            f"The loss is no number in step {step + 1}.",
            "Look for extreme values and undeclared nodata in the rasters, enlarge the batch, or choose another method.",
        )
    if total.requires_grad:
        total.backward()  # type: ignore[no-untyped-call]
    return {name: float(term.detach()) / count for name, term in terms.items()}


def _record(run: _Run, windows: SceneWindows, epoch: int, sums: dict[str, Any], probe: Probe | None) -> PretrainingRecord:
    """What the epoch showed, on windows that are the same for all epochs as long as all of the scenes is in memory."""
    batch = windows.batch(np.random.default_rng((run.settings.seed, 13)))
    health = look_at(run.model, batch.to(run.device))
    losses = {name: total / count for name, (total, count) in sums.items()}
    monitors = health.fusion | run.objective.monitors()
    if probe is not None and current().is_main:
        score = probe(run.model)
        monitors = {PROBE: score, **monitors} if math.isfinite(score) else monitors
    return PretrainingRecord(epoch, losses, health.spread, health.effective_rank, health.dependence, monitors)


def _check_alike(run: _Run, processes: Processes, step: int) -> None:
    """Raises:
    TrainingError: the processes do not start from the same state.
    """
    own = (float(step), sum(float(parameter.detach().double().sum()) for parameter in run.trained))
    if own != (processes.agree(own[0]), processes.agree(own[1])):
        raise TrainingError(
            "The processes do not start from the same state: only the first one writes what a run goes on from.",
            "Give all machines the same folder for the model, or start without what is left of the former run.",
        )


def _stop_if_idle(sums: dict[str, Any]) -> None:
    """Raises:
    TrainingError: no loss had anything to compare in the whole epoch.
    """
    if all(total == 0 for total, _ in sums.values()):
        terms = f" The terms {', '.join(sums)} were zero throughout." if sums else ""
        raise TrainingError(
            f"There was nothing to learn from in a whole epoch.{terms}",
            "Enlarge the batch, and see that the sensors that are to be compared show the same ground in a scene.",
        )


def _stop_if_collapsed(records: list[PretrainingRecord]) -> None:
    last = records[-PATIENCE:]
    if len(last) < PATIENCE or not all(has_collapsed(record.spread, record.effective_rank) for record in last):
        return
    raise TrainingError(
        f"The features have collapsed: for {PATIENCE} epochs nearly all places look alike (spread {last[-1].spread:.3f}, "
        f"effective rank {last[-1].effective_rank:.1f}).",
        "Enlarge the batch, give more scenes, or choose another method: 'latent_targets' cannot collapse this way.",
    )


def _phase(activity: str, epoch: int, records: list[PretrainingRecord], settings: PretrainingSettings) -> str:
    text = f"{activity}: epoch {epoch}" + ("" if settings.minutes else f" of {settings.epochs}")
    if not records:
        return text
    text = f"{text}, loss {sum(records[-1].losses.values()):.3f}, effective rank {records[-1].effective_rank:.0f}"
    probed = records[-1].monitors.get(PROBE)
    return text if probed is None else f"{text}, macro F1 of a linear model {probed:.2f}"
