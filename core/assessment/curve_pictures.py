"""The pictures of a report that show curves: trainings, probabilities, what labels are worth; see ``picture_style``."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from core.assessment.calibration import Calibration
from core.assessment.contents import LabelWorth
from core.assessment.picture_style import ACCENT, INK, MUTED, RULE, SECOND, WIDTH, styled
from core.finetuning.networks.records import EpochRecord
from core.pretraining.records import PretrainingRecord


@styled
def curves_picture(curves: Sequence[EpochRecord], best_epoch: int | None) -> Figure:
    """Losses and validation score over the epochs, with the epoch that was kept.

    Args:
        curves: at least one epoch.
        best_epoch: marked where given.
    """
    epochs = [record.epoch for record in curves]
    # Epochs that were not scored would break the lines.
    scored = [record for record in curves if math.isfinite(record.validation_loss)]
    figure = Figure(figsize=(WIDTH, 2.5))
    loss, score = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.075, right=0.985, bottom=0.18, top=0.88, wspace=0.2)
    marker = "o" if len(epochs) <= 2 else None
    margin = 0.5 if len(epochs) == 1 else 0.02 * (epochs[-1] - epochs[0])
    numbers = [record.epoch for record in scored]
    loss.plot(epochs, [record.training_loss for record in curves], color=MUTED, label="training", marker=marker)
    loss.plot(numbers, [record.validation_loss for record in scored], color=ACCENT, label="validation", marker=marker)
    loss.set_title("Loss")
    loss.legend(loc="upper right")
    score.plot(numbers, [record.validation_macro_f1 for record in scored], color=ACCENT, marker=marker)
    score.set_title("Macro-F1, validation blocks")
    score.set_ylim(0.0, 1.0)
    for axes in (loss, score):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
        axes.set_xlim(epochs[0] - margin, epochs[-1] + margin)
        axes.grid(axis="y", color=RULE, linewidth=0.5)
        axes.set_axisbelow(True)
        if best_epoch is not None:
            axes.axvline(best_epoch, color=SECOND, linewidth=1.0, linestyle=(0, (4, 2)))
    best = next((record for record in curves if record.epoch == best_epoch), None)
    if best is not None and math.isfinite(best.validation_macro_f1):
        _mark_best(score, best, epochs)
    return figure


@styled
def pretraining_picture(records: Sequence[PretrainingRecord]) -> Figure:
    """Losses by term, the features' effective rank, and what each input counts for, over the epochs.

    Args:
        records: at least one epoch.
    """
    epochs = [record.epoch for record in records]
    figure = Figure(figsize=(WIDTH, 2.6))
    losses, rank, dependence = figure.subplots(1, 3)
    figure.subplots_adjust(left=0.07, right=0.985, bottom=0.17, top=0.88, wspace=0.28)
    marker = "o" if len(epochs) == 1 else None
    for axes, title, by_name in (
        (losses, "Loss by term", [record.losses for record in records]),
        (rank, "Effective rank", [{"": record.effective_rank} for record in records]),
        (dependence, "Dependence on inputs", [record.dependence for record in records]),
    ):
        names = list(dict.fromkeys(name for entry in by_name for name in entry))
        for number, name in enumerate(names):
            values = [entry.get(name, math.nan) for entry in by_name]
            colour = (ACCENT, SECOND, MUTED, INK)[number % 4]
            axes.plot(epochs, values, color=colour, label=name, marker=marker, linestyle=("-", "--")[number // 4 % 2])
        if names and names != [""]:
            axes.legend(loc="best", fontsize=7)
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
        axes.grid(axis="y", color=RULE, linewidth=0.5)
        axes.set_axisbelow(True)
    rank.set_ylim(bottom=0)
    dependence.set_ylim(bottom=0)
    return figure


def _mark_best(axes: Axes, best: EpochRecord, epochs: Sequence[int]) -> None:
    """Marks the score that was kept; its text stands at the foot of the line, where curves seldom run."""
    left_half = best.epoch <= (epochs[0] + epochs[-1]) / 2
    axes.plot([best.epoch], [best.validation_macro_f1], marker="o", markersize=4.5, color=SECOND)
    axes.annotate(
        f"kept: epoch {best.epoch}, {best.validation_macro_f1:.3f}",
        (best.epoch, 0.0),
        xytext=(6 if left_half else -6, 6),
        textcoords="offset points",
        ha="left" if left_half else "right",
        fontsize=8,
        color=SECOND,
    )


@styled
def reliability_picture(calibration: Calibration) -> Figure:
    """Accuracy over confidence before and after temperature scaling, and how many pixels have which confidence.

    Args:
        calibration: of at least one pixel.
    """
    figure = Figure(figsize=(WIDTH, 3.0))
    curve, share = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.075, right=0.985, bottom=0.15, top=0.9, wspace=0.2)
    curve.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
    for label, colour, reliability in (
        ("before scaling", SECOND, calibration.before),
        ("after scaling", ACCENT, calibration.after),
    ):
        known = [number for number, count in enumerate(reliability.count) if count]
        confidence = [reliability.confidence[number] for number in known]
        curve.plot(confidence, [reliability.accuracy[n] for n in known], color=colour, marker="o", markersize=3.5)
        shares = np.array(reliability.count) / max(1, sum(reliability.count))
        share.stairs(shares, np.linspace(0.0, 1.0, len(shares) + 1), color=colour, linewidth=1.2, label=label)
    curve.set_title("Accuracy by confidence")
    curve.set_ylim(0.0, 1.02)
    share.set_title("Share of the pixels by confidence")
    share.set_ylim(bottom=0.0)
    share.legend(loc="best")
    for axes in (curve, share):
        axes.set_xlabel("confidence")
        axes.set_xlim(0.0, 1.02)
        axes.grid(axis="y", color=RULE, linewidth=0.5)
        axes.set_axisbelow(True)
    return figure


@styled
def learning_picture(worth: LabelWorth) -> Figure:
    """Scores over the number of labels learned from.

    Args:
        worth: with at least two points.
    """
    figure = Figure(figsize=(WIDTH, 2.6))
    panels = figure.subplots(1, 3, sharey=True)
    figure.subplots_adjust(left=0.06, right=0.985, bottom=0.18, top=0.88, wspace=0.1)
    features = [point.features for point in worth.points]
    scores = (("overall_accuracy", "Overall accuracy"), ("macro_f1", "Macro-F1"), ("mean_iou", "Mean IoU"))
    for axes, (score, title) in zip(panels, scores, strict=True):
        values = [getattr(point, score) for point in worth.points]
        axes.plot(features, values, color=ACCENT, marker="o", markersize=4)
        for x, y in zip(features, values, strict=True):
            axes.annotate(f"{y:.2f}", (x, y), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=7.5, color=INK)
        axes.set_title(title)
        axes.set_xlabel("features learned from")
        axes.set_xlim(0.0, 1.12 * max(features))
        axes.set_ylim(0.0, 1.08)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        axes.grid(axis="y", color=RULE, linewidth=0.5)
        axes.set_axisbelow(True)
    return figure
