"""Reports as one HTML file: text, tables, pictures and the numbers, without network or script.

The numbers stand a second time as JSON in ``<script type="application/json" id="rsfusion-data">``, which no browser
executes; what is not defined is ``null`` there. The same contents give the same bytes.
"""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from core.assessment.calibration import Calibration
from core.assessment.confusion import Accuracy
from core.assessment.contents import AccuracyReport, ModelScore, PretrainingReport, SceneReport, TrainingReport
from core.errors import OutputError
from core.labels.scheme import ClassScheme

TEMPLATES = Path(__file__).resolve().parents[1] / "resources" / "report"


def write_training_report(path: Path, report: TrainingReport) -> None:
    """Writes the report of a training as one HTML file.

    Raises:
        OutputError: the folder is missing or cannot be written to.
    """
    from core.assessment import curve_pictures, pictures

    images = {
        "models": _embedded(pictures.models_picture(report.rows)),
        "confusion": _embedded(pictures.confusion_picture(report.confusion, report.scheme.names)),
    }
    if report.calibration is not None:
        images["reliability"] = _embedded(curve_pictures.reliability_picture(report.calibration))
    if report.label_worth is not None:
        images["learning"] = _embedded(curve_pictures.learning_picture(report.label_worth))
    if report.curves:
        images["curves"] = _embedded(curve_pictures.curves_picture(report.curves, report.best_epoch))
    if report.map_codes is not None:
        images["map"] = _embedded(pictures.map_picture(report.imagery, report.map_codes, report.scheme, report.drawn_labels))
    html = (
        _environment()
        .get_template("training.html")
        .render(report=report, images=images, better=better_lines(report), data=_script_json(_training_data(report)))
    )
    _write(path, html)


def write_accuracy_report(path: Path, report: AccuracyReport) -> None:
    """Writes the report of an accuracy assessment as one HTML file.

    Raises:
        OutputError: the folder is missing or cannot be written to.
    """
    from core.assessment import pictures

    images = {"confusion": _embedded(pictures.confusion_picture(report.confusion, report.scheme.names))}
    if report.map_codes is not None:
        images["map"] = _embedded(pictures.map_picture(report.imagery, report.map_codes, report.scheme))
    html = (
        _environment()
        .get_template("accuracy.html")
        .render(report=report, images=images, data=_script_json(_accuracy_data(report)))
    )
    _write(path, html)


def write_pretraining_report(path: Path, report: PretrainingReport) -> None:
    """Writes the report of a pre-training as one HTML file.

    Raises:
        OutputError: the folder is missing or cannot be written to.
    """
    from core.assessment import curve_pictures

    images = {"curves": _embedded(curve_pictures.pretraining_picture(report.records))}
    data = {"kind": "pretraining", **asdict(report)}
    html = _environment().get_template("pretraining.html").render(report=report, images=images, data=_script_json(data))
    _write(path, html)


def write_scene_report(path: Path, report: SceneReport) -> None:
    """Writes the report of a classification of scenes as one HTML file.

    Raises:
        OutputError: the folder is missing or cannot be written to.
    """
    data = {
        "kind": "scenes",
        **asdict(report),
        "scheme": [asdict(entry) for entry in report.scheme.classes],
        "confusion": None if report.confusion is None else report.confusion.tolist(),
    }
    html = _environment().get_template("scenes.html").render(report=report, data=_script_json(data))
    _write(path, html)


def better_lines(report: TrainingReport) -> tuple[str, ...]:
    """A sentence for every model that did better than the one delivered, in mean IoU or in macro-F1."""
    own = report.delivered
    lines = []
    for row in report.better_rows:
        if row.mean_iou > own.mean_iou and row.macro_f1 > own.macro_f1:
            measures = (
                f"mean IoU {row.mean_iou:.3f} against {own.mean_iou:.3f}, "
                f"macro-F1 {row.macro_f1:.3f} against {own.macro_f1:.3f}"
            )
        elif row.mean_iou > own.mean_iou:
            measures = f"mean IoU {row.mean_iou:.3f} against {own.mean_iou:.3f}, though not in macro-F1"
        else:
            measures = f"macro-F1 {row.macro_f1:.3f} against {own.macro_f1:.3f}, though not in mean IoU"
        line = f"{row.name} was better than the model delivered: {measures}."
        if _overlap(row, own):
            line += " Their 95 % intervals overlap, so these blocks alone do not settle which of the two is better."
        lines.append(line)
    return tuple(lines)


def _overlap(one: ModelScore, other: ModelScore) -> bool:
    if one.interval is None or other.interval is None:
        return False
    (low, high), (other_low, other_high) = one.interval.mean_iou, other.interval.mean_iou
    return low <= other_high and other_low <= high


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(score=_score, count=_count, hectares=_hectares, duration=_duration, number=_number)
    return environment


def _score(value: float) -> str:
    """A number between 0 and 1."""
    return f"{value:.3f}" if math.isfinite(value) else "–"


def _number(value: float | None) -> str:
    """A number of any size, to three figures."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.3g}"


def _count(value: int) -> str:
    """A whole number, thousands apart by a narrow space."""
    return f"{value:,}".replace(",", "\u202f")


def _hectares(value: float) -> str:
    """An area, with decimals only where it is small."""
    if not math.isfinite(value):
        return "–"
    decimals = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{decimals}f}".replace(",", "\u202f")


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def _embedded(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _training_data(report: TrainingReport) -> dict[str, Any]:
    return {
        "kind": "training",
        "title": report.title,
        "created": report.created,
        **_scores_data(report.accuracy, report.confusion, report.scheme),
        "models": [asdict(row) for row in report.rows],
        "better_than_delivered": [row.name for row in report.better_rows],
        "missing_inputs": [asdict(row) for row in report.missing_inputs],
        "calibration": None if report.calibration is None else _calibration_data(report.calibration),
        "label_worth": None if report.label_worth is None else asdict(report.label_worth) | {"drop": report.label_worth.drop},
        "curves": [asdict(record) for record in report.curves],
        "best_epoch": report.best_epoch,
        "warnings": report.warnings,
        "settings": dict(report.settings),
        "provenance": dict(report.provenance),
    }


def _calibration_data(calibration: Calibration) -> dict[str, Any]:
    return {
        "expected_calibration_error": calibration.expected_error,
        "expected_calibration_error_before_scaling": calibration.before.expected_error,
        "pixels": calibration.pixels,
        **asdict(calibration),
    }


def _accuracy_data(report: AccuracyReport) -> dict[str, Any]:
    return {
        "kind": "accuracy",
        "title": report.title,
        "created": report.created,
        **_scores_data(report.accuracy, report.confusion, report.scheme),
        "interval": None if report.interval is None else asdict(report.interval),
        "n_reference_units": report.n_reference_units,
        "mapped_areas_ha": report.mapped_areas_ha,
        "area_adjusted": None if report.area_adjusted is None else asdict(report.area_adjusted),
        "warnings": report.warnings,
        "provenance": dict(report.provenance),
    }


def _scores_data(accuracy: Accuracy, confusion: np.ndarray[Any, Any], scheme: ClassScheme) -> dict[str, Any]:
    per_class = [
        {
            "code": entry.code,
            "name": entry.name,
            "colour": entry.colour,
            "support": accuracy.support[k],
            "mapped": accuracy.mapped[k],
            "users_accuracy": accuracy.users_accuracy[k],
            "producers_accuracy": accuracy.producers_accuracy[k],
            "f1": accuracy.f1[k],
            "iou": accuracy.iou[k],
        }
        for k, entry in enumerate(scheme.classes)
    ]
    return {
        "overall_accuracy": accuracy.overall_accuracy,
        "macro_f1": accuracy.macro_f1,
        "mean_iou": accuracy.mean_iou,
        "kappa": accuracy.kappa,
        "n_units": accuracy.n_units,
        "not_validated": accuracy.not_validated,
        "classes": per_class,
        "confusion": np.asarray(confusion).tolist(),
    }


def _script_json(data: Mapping[str, Any]) -> Markup:
    """JSON that cannot end the script element it stands in, whatever its texts hold."""
    text = json.dumps(_plain(data), ensure_ascii=True, allow_nan=False, indent=1)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    # Nothing that HTML could read as its own is left in the text.
    return Markup(text)  # nosec B704


def _plain(value: Any) -> Any:
    """What JSON can hold: numbers that are not finite become null, anything unknown becomes text."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return str(value)


def _write(path: Path, html: str) -> None:
    """Writes beside the target and renames, so that the target is whole or untouched."""
    path = Path(path)
    if not path.parent.is_dir():
        raise OutputError(
            f"The report '{path}' cannot be written: the folder '{path.parent}' does not exist.",
            "Create the folder or choose another.",
        )
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        # A file name that is not valid text may reach the report; it must not keep it from being written.
        partial.write_bytes(html.encode("utf-8", errors="replace"))
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise OutputError(
            f"The report '{path}' cannot be written: {error.strerror or error}.",
            "Choose a folder that you may write to, with space left.",
        ) from None
