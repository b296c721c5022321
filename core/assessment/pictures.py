"""The pictures of a report, as PNG bytes that are the same for the same input.

Everything is drawn on figures of its own with the Agg renderer: no pyplot, no display, nothing left behind. This module
imports matplotlib; ``core.assessment`` does not.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from core.assessment.calibration import Calibration
from core.assessment.confusion import checked_counts
from core.assessment.contents import ByteArray, ModelScore
from core.finetuning.records import EpochRecord
from core.labels.scheme import NODATA_CODE, ClassScheme
from core.pretraining.records import PretrainingRecord

INK = "#1d2733"
MUTED = "#66727f"
RULE = "#d5dbe1"
ACCENT = "#1f5f8b"
SECOND = "#c2703d"
NODATA_COLOUR = "#e4e6e8"
UNKNOWN_COLOUR = "#4a4a4a"
"""Of codes that the scheme does not have: they should be seen, and not look like a class."""

DPI = 150
WIDTH = 7.2
"""Inches; the width of the text on A4."""

MOST_PIXELS = 1400
"""Longest side of a picture inside the report; a printed page shows no more."""

_STYLE: dict[Any, Any] = {
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so pictures do not depend on the machine's fonts
    "font.size": 8.5,
    "text.color": INK,
    "text.usetex": False,
    "text.parse_math": False,  # a class may be called "$x$"
    "axes.labelcolor": INK,
    "axes.labelsize": 8.5,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "axes.autolimit_mode": "data",
    "axes.xmargin": 0.05,
    "axes.ymargin": 0.05,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.direction": "out",
    "ytick.direction": "out",
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "white",
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    "savefig.bbox": None,
    "path.simplify": True,
}

_BLUES = LinearSegmentedColormap.from_list("agreement", ["#ffffff", "#cfe0ec", "#7fabc9", ACCENT, "#123a57"])

P = ParamSpec("P")


def _styled(draw: Callable[P, Figure]) -> Callable[P, bytes]:
    """Draws in the house style and returns PNG bytes without date, version or other metadata."""

    @wraps(draw)
    def render(*args: P.args, **kwargs: P.kwargs) -> bytes:
        with matplotlib.rc_context(_STYLE):
            figure = draw(*args, **kwargs)
            buffer = io.BytesIO()
            FigureCanvasAgg(figure)
            figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
        return buffer.getvalue()

    return render


@_styled
def confusion_picture(confusion: NDArray[np.integer], names: Sequence[str]) -> Figure:
    """The counts of a confusion matrix, coloured by the share of their row.

    Args:
        confusion: (K, K), rows = map, columns = reference.
        names: of the K classes.
    """
    counts = checked_counts(confusion)
    n_classes = len(counts)
    rows = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, rows, out=np.zeros(counts.shape), where=rows > 0)
    slanted = n_classes <= 6  # more names would run into each other, or out of the picture
    tick_size = 8.0 if n_classes <= 12 else 6.5
    left_labels = [_wrapped(name, 26, lines=2) for name in names]
    top_labels = [_wrapped(name, 22, lines=2) if slanted else _wrapped(name, 26, lines=1) for name in names]
    # About 0.6 of the font's size a character.
    longest = max(len(line) for label in top_labels for line in label.split("\n")) * 0.6 * tick_size / 72
    above = (0.3 + 0.71 * longest) if slanted else (0.15 + longest)
    below = 0.3
    cell = min(0.56, (WIDTH - 2.2) / n_classes)
    side = cell * n_classes
    height = side + above + below
    figure = Figure(figsize=(WIDTH, height))
    left = max(2.1, (WIDTH - side) / 2)
    axes = figure.add_axes((left / WIDTH, below / height, side / WIDTH, side / height))
    axes.imshow(shares, cmap=_BLUES, vmin=0.0, vmax=1.0, aspect="equal", interpolation="nearest")
    size = min(8.5, 72 * cell * 0.3)
    for row, column in np.argwhere(counts > 0):
        colour = "white" if shares[row, column] > 0.55 else INK
        text = _short_count(int(counts[row, column]))
        fitted = min(size, 72 * cell / (0.68 * max(3, len(text))))
        axes.text(column, row, text, ha="center", va="center", fontsize=fitted, color=colour)
    ticks = np.arange(n_classes)
    turn: dict[str, Any] = {"rotation": 45, "ha": "left", "rotation_mode": "anchor"} if slanted else {"rotation": 90}
    axes.set_xticks(ticks, top_labels, fontsize=tick_size, **turn)
    axes.set_yticks(ticks, left_labels, fontsize=tick_size)
    axes.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False, pad=4)
    axes.set_xticks(ticks[:-1] + 0.5, minor=True)
    axes.set_yticks(ticks[:-1] + 0.5, minor=True)
    axes.grid(which="minor", color=RULE, linewidth=0.6)
    axes.tick_params(which="minor", length=0)
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(RULE)
    axes.set_ylabel("Map", color=MUTED)
    axes.set_xlabel("Reference", color=MUTED)
    return figure


@_styled
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


@_styled
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


@_styled
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


@_styled
def models_picture(rows: Sequence[ModelScore]) -> Figure:
    """Bars of the model delivered (in colour) and its baselines, a panel a score, with 95 % intervals where known.

    Args:
        rows: at least one model.
    """
    height = 0.62 + 0.33 * len(rows)
    figure = Figure(figsize=(WIDTH, height))
    panels = figure.subplots(1, 3, sharey=True)
    figure.subplots_adjust(left=0.29, right=0.985, bottom=0.3 / height, top=1 - 0.3 / height, wspace=0.12)
    positions = np.arange(len(rows))
    colours = [ACCENT if row.is_delivered else "#b4bec8" for row in rows]
    scores = (("overall_accuracy", "Overall accuracy"), ("macro_f1", "Macro-F1"), ("mean_iou", "Mean IoU"))
    for axes, (score, title) in zip(panels, scores, strict=True):
        values = np.array([getattr(row, score) for row in rows], dtype=np.float64)
        axes.barh(positions, np.nan_to_num(values), height=0.62, color=colours)
        for position, (row, value) in enumerate(zip(rows, values, strict=True)):
            _interval_and_number(axes, position, row, score, float(value))
        axes.set_title(title)
        axes.set_xlim(0.0, 1.0)
        axes.set_xticks([0.0, 0.25, 0.5, 0.75, 1.0], ["0", "", "0.5", "", "1"])
        axes.grid(axis="x", color=RULE, linewidth=0.5)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    panels[0].set_yticks(positions, [_wrapped(row.name, 32, lines=2) for row in rows])
    panels[0].invert_yaxis()
    for label, row in zip(panels[0].get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if row.is_delivered else "normal")
    return figure


def _interval_and_number(axes: Axes, position: int, row: ModelScore, score: str, value: float) -> None:
    end = value if math.isfinite(value) else 0.0
    if row.interval is not None:
        low, high = getattr(row.interval, score)
        if math.isfinite(low):
            end = max(end, high)
            axes.plot([low, high], [position, position], color=INK, linewidth=1.0, solid_capstyle="butt")
            axes.plot([low, low, high, high], [position] * 4, color=INK, marker="|", markersize=5, linestyle="none")
    text = f"{value:.3f}" if math.isfinite(value) else "not defined"
    fits = value > 0.25
    colour = "white" if row.is_delivered and fits else INK
    axes.text(0.02 if fits else end + 0.03, position, text, va="center", ha="left", fontsize=7.5, color=colour)


@_styled
def map_picture(imagery: ByteArray | None, map_codes: ByteArray, scheme: ClassScheme) -> Figure:
    """A class map in its colours, beside the imagery of the same ground where there is any, with a legend.

    Args:
        imagery: (H, W, 3) uint8.
        map_codes: (H, W) uint8 codes of the scheme; 0 is drawn light grey.
        scheme: of the map.
    """
    codes = map_codes[:: _step(map_codes), :: _step(map_codes)]
    panels: list[tuple[str, ByteArray]] = []
    if imagery is not None:
        panels.append(("Imagery", imagery[:: _step(imagery), :: _step(imagery)]))
    panels.append(("Map", _coloured(codes, scheme)))
    entries = _legend_entries(codes, scheme)
    columns = 4 if max(len(label) for label, _ in entries) <= 22 else 3
    texts = [_wrapped(label, 24 if columns == 4 else 34, lines=3) for label, _ in entries]
    legend = _legend_height(texts, columns)
    gap, top = 0.12, 0.26
    width = (WIDTH - gap * (len(panels) - 1)) / len(panels)
    picture = min(width * map_codes.shape[0] / map_codes.shape[1], 4.8)
    width = min(width, picture * map_codes.shape[1] / map_codes.shape[0])
    height = picture + legend + top
    figure = Figure(figsize=(WIDTH, height))
    left = (WIDTH - width * len(panels) - gap * (len(panels) - 1)) / 2
    for index, (title, values) in enumerate(panels):
        box = ((left + index * (width + gap)) / WIDTH, legend / height, width / WIDTH, picture / height)
        axes = figure.add_axes(box)
        axes.imshow(values, aspect="auto", interpolation="antialiased" if title == "Imagery" else "nearest")
        axes.set_title(title, pad=4)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(True)
            spine.set_color(RULE)
    handles = [
        Patch(facecolor=colour, edgecolor=MUTED, linewidth=0.4, label=text)
        for text, (_, colour) in zip(texts, entries, strict=True)
    ]
    place: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 0.0), "borderaxespad": 0.2}
    figure.legend(handles=handles, ncols=columns, handlelength=1.3, handleheight=1.0, columnspacing=1.6, **place)
    return figure


def _coloured(codes: ByteArray, scheme: ClassScheme) -> ByteArray:
    """(H, W, 3) uint8 colours of class codes."""
    table = np.empty((256, 3), dtype=np.uint8)
    table[:] = _rgb(UNKNOWN_COLOUR)
    table[NODATA_CODE] = _rgb(NODATA_COLOUR)
    for entry in scheme.classes:
        table[entry.code] = _rgb(entry.colour)
    coloured: ByteArray = table[codes]
    return coloured


def _legend_entries(codes: ByteArray, scheme: ClassScheme) -> list[tuple[str, str]]:
    """Label and colour of what the map shows, in the order of the scheme."""
    shown = {int(code) for code in np.unique(codes)}
    entries = [(entry.name, entry.colour) for entry in scheme.classes if entry.code in shown]
    if shown - set(scheme.codes) - {NODATA_CODE}:
        entries.append(("not in the class scheme", UNKNOWN_COLOUR))
    if NODATA_CODE in shown:
        entries.append(("no data", NODATA_COLOUR))
    return entries


def _legend_height(texts: Sequence[str], columns: int) -> float:
    """Inches that a legend needs, filled column by column as matplotlib does."""
    entries, longer = divmod(len(texts), columns)
    tallest, start = 0.0, 0
    for column in range(columns):
        stop = start + entries + (column < longer)
        tallest = max(tallest, sum(0.055 + 0.13 * (text.count("\n") + 1) for text in texts[start:stop]))
        start = stop
    return 0.2 + tallest


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _step(values: ByteArray) -> int:
    """Every how many pixels are shown."""
    longest: int = max(values.shape[:2])
    return max(1, math.ceil(longest / MOST_PIXELS))


def _wrapped(text: str, width: int, lines: int) -> str:
    return "\n".join(textwrap.wrap(text, width, max_lines=lines, placeholder="…") or [text])


def _short_count(count: int) -> str:
    """At most five characters: 99999, 250k, 12.3M."""
    if count < 100_000:
        return str(count)
    if count < 10_000_000:
        return f"{count / 1000:.0f}k" if count < 1_000_000 else f"{count / 1e6:.1f}M"
    return f"{count / 1e6:.0f}M"
