"""The pictures of a report that show a map, a confusion matrix and how models compare; see ``picture_style``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from core.assessment.confusion import checked_counts
from core.assessment.contents import ByteArray, DrawnLabel, ModelScore
from core.assessment.picture_style import ACCENT, INK, MUTED, RULE, WIDTH, styled, wrapped
from core.labels.scheme import NODATA_CODE, ClassScheme

NODATA_COLOUR = "#e4e6e8"
UNKNOWN_COLOUR = "#4a4a4a"
"""Of codes that the scheme does not have: they should be seen, and not look like a class."""

MOST_PIXELS = 1400
"""Longest side of a picture inside the report; a printed page shows no more."""

_BLUES = LinearSegmentedColormap.from_list("agreement", ["#ffffff", "#cfe0ec", "#7fabc9", ACCENT, "#123a57"])


@styled
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
    left_labels = [wrapped(name, 26, lines=2) for name in names]
    top_labels = [wrapped(name, 22, lines=2) if slanted else wrapped(name, 26, lines=1) for name in names]
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


@styled
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
    panels[0].set_yticks(positions, [wrapped(row.name, 32, lines=2) for row in rows])
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


@styled
def map_picture(
    imagery: ByteArray | None, map_codes: ByteArray, scheme: ClassScheme, labels: Sequence[DrawnLabel] = ()
) -> Figure:
    """A class map in its colours, beside the imagery of the same ground where there is any, with a legend.

    Args:
        imagery: (H, W, 3) uint8.
        map_codes: (H, W) uint8 codes of the scheme; 0 is drawn light grey.
        scheme: of the map.
        labels: drawn on both, those that were held out in dashes.
    """
    step = _step(map_codes)
    codes = map_codes[::step, ::step]
    panels: list[tuple[str, ByteArray, int]] = []
    if imagery is not None:
        panels.append(("Imagery", imagery[:: _step(imagery), :: _step(imagery)], _step(imagery)))
    panels.append(("Map", _coloured(codes, scheme), step))
    entries = _legend_entries(codes, scheme)
    columns = 4 if max(len(label) for label, _ in entries) <= 22 else 3
    texts = [wrapped(label, 24 if columns == 4 else 34, lines=3) for label, _ in entries]
    legend = _legend_height(texts, columns)
    gap, top = 0.12, 0.26
    width = (WIDTH - gap * (len(panels) - 1)) / len(panels)
    picture = min(width * map_codes.shape[0] / map_codes.shape[1], 4.8)
    width = min(width, picture * map_codes.shape[1] / map_codes.shape[0])
    height = picture + legend + top
    figure = Figure(figsize=(WIDTH, height))
    left = (WIDTH - width * len(panels) - gap * (len(panels) - 1)) / 2
    for index, (title, values, step) in enumerate(panels):
        box = ((left + index * (width + gap)) / WIDTH, legend / height, width / WIDTH, picture / height)
        axes = figure.add_axes(box)
        axes.imshow(values, aspect="auto", interpolation="antialiased" if title == "Imagery" else "nearest")
        axes.set_title(title, pad=4)
        _draw_labels(axes, labels, scheme, step, is_coloured=title == "Imagery")
        axes.set_xlim(-0.5, values.shape[1] - 0.5)
        axes.set_ylim(values.shape[0] - 0.5, -0.5)
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


def _draw_labels(axes: Axes, labels: Sequence[DrawnLabel], scheme: ClassScheme, step: int, is_coloured: bool) -> None:
    """Outlines over a picture of every ``step``-th pixel: in the colours of their classes, or all dark on a map of these."""
    colours = {entry.code: entry.colour for entry in scheme.classes}
    for label in labels:
        colour = colours.get(label.code, UNKNOWN_COLOUR) if is_coloured else INK
        dashes = (0, (2.5, 1.5)) if label.is_held_out else "solid"
        for ring in label.rings:
            columns, rows = (ring / step - 0.5).T
            if len(ring) == 1:
                face = "none" if label.is_held_out else colour
                axes.plot(columns, rows, marker="o", markersize=2.5, markerfacecolor=face, markeredgecolor=colour)
                continue
            if is_coloured:
                axes.plot(columns, rows, color="white", linewidth=2.0)
            axes.plot(columns, rows, color=colour, linewidth=0.9, linestyle=dashes)


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


def _short_count(count: int) -> str:
    """At most five characters: 99999, 250k, 12.3M."""
    if count < 100_000:
        return str(count)
    if count < 10_000_000:
        return f"{count / 1000:.0f}k" if count < 1_000_000 else f"{count / 1e6:.1f}M"
    return f"{count / 1e6:.0f}M"
