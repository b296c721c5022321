"""What the reports say, as plain values: the jobs fill them, ``core.assessment.report`` writes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.assessment.area_adjusted import AreaAdjusted
from core.assessment.calibration import Calibration
from core.assessment.confusion import Accuracy, AccuracyInterval, checked_counts
from core.assessment.scene_scores import SceneScores
from core.finetuning.networks.records import EpochRecord
from core.labels.scheme import ClassScheme
from core.pretraining.records import PretrainingRecord

ByteArray = NDArray[np.uint8]


@dataclass(frozen=True)
class ModelScore:
    """How one model did on the held-out part.

    Attributes:
        name: as a sentence can use it, such as "Random forest on pixels".
        is_delivered: whether it is the model that the job wrote.
        overall_accuracy, macro_f1, mean_iou: 0..1.
        interval: over the groups held out, where there is one.
        seconds: to train and score it.
    """

    name: str
    is_delivered: bool
    overall_accuracy: float
    macro_f1: float
    mean_iou: float
    interval: AccuracyInterval | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class SubsetScore:
    """How the model delivered did on the held-out part with some of its inputs, or with all of them.

    Attributes:
        inputs: those that it had.
        is_complete: whether these are all.
        pixels: held-out pixels that it could be asked about.
        overall_accuracy, macro_f1, mean_iou: 0..1.
        temperature: by which its class scores are divided before they become probabilities.
    """

    inputs: tuple[str, ...]
    is_complete: bool
    pixels: int
    overall_accuracy: float
    macro_f1: float
    mean_iou: float
    temperature: float


@dataclass(frozen=True, eq=False)
class DrawnLabel:
    """A label as it lies on the report's map.

    Attributes:
        code: of its class.
        is_held_out: whether nothing was learned from it.
        rings: (n, 2) columns and rows of the picture, in pixels from its upper left corner; a point is one row.
    """

    code: int
    is_held_out: bool
    rings: tuple[NDArray[np.float64], ...]


@dataclass(frozen=True)
class LabelPoint:
    """How an estimator did with some of the labels.

    Attributes:
        features: that it learned from, in the mean over the parts of a cross-validation.
        overall_accuracy, macro_f1, mean_iou: 0..1, on blocks of ground that were held out.
    """

    features: float
    overall_accuracy: float
    macro_f1: float
    mean_iou: float


@dataclass(frozen=True)
class LabelWorth:
    """What more labels would bring, and what nearness does to scores.

    Attributes:
        name: of the estimator that was tried.
        points: with ever more labels; the last with all.
        nearby: with all labels, where single pixels were held out at random in place of blocks.
    """

    name: str
    points: tuple[LabelPoint, ...]
    nearby: LabelPoint

    @property
    def drop(self) -> float:
        """Overall accuracy that is lost from random pixels to blocks of ground."""
        return self.nearby.overall_accuracy - self.points[-1].overall_accuracy


@dataclass(frozen=True, eq=False)
class TrainingReport:
    """The contents of a training report.

    Attributes:
        title: of the page.
        created: date and time, ISO 8601.
        summary_lines: what was done, in sentences.
        rows: the model delivered, exactly one, and what it is compared with.
        accuracy, confusion: of the model delivered on the held-out blocks; (K, K) rows = map, columns = reference.
        scheme: the K classes.
        missing_inputs: the model delivered with all of its inputs, then with some of them; empty where it needs them all.
        calibration: of the model delivered; None where it could not be measured.
        calibration_lines: how it was measured, or why not.
        label_worth: of an estimator on the same labels; None where it was not tried.
        curves: the epochs in order; empty where the model delivered has none.
        best_epoch: the one whose weights were kept; 0 for those that training started from.
        imagery: (H, W, 3) uint8, as shown beside the map.
        map_codes: (H, W) uint8 codes of the scheme, 0 = not mapped, of the same ground.
        drawn_labels: that lie there.
        label_lines: what was found in the labels.
        input_lines: how bands were matched, which offsets were taken off.
        split_lines: how the validation part was blocked.
        warnings: what may be wrong.
        settings, provenance: name to value, shown as text.
    """

    title: str
    created: str
    summary_lines: tuple[str, ...]
    rows: tuple[ModelScore, ...]
    accuracy: Accuracy
    confusion: NDArray[np.integer]
    scheme: ClassScheme
    missing_inputs: tuple[SubsetScore, ...] = ()
    calibration: Calibration | None = None
    calibration_lines: tuple[str, ...] = ()
    label_worth: LabelWorth | None = None
    curves: tuple[EpochRecord, ...] = ()
    best_epoch: int | None = None
    imagery: ByteArray | None = None
    map_codes: ByteArray | None = None
    drawn_labels: tuple[DrawnLabel, ...] = ()
    label_lines: tuple[str, ...] = ()
    input_lines: tuple[str, ...] = ()
    split_lines: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_scores(self.accuracy, self.confusion, self.scheme)
        _check_pictures(self.imagery, self.map_codes)
        delivered = [row.name for row in self.rows if row.is_delivered]
        if len(delivered) != 1:
            raise ValueError(f"Exactly one model of a report is the one delivered; got {delivered}.")

    @property
    def delivered(self) -> ModelScore:
        """The model that the job wrote."""
        return next(row for row in self.rows if row.is_delivered)

    @property
    def better_rows(self) -> tuple[ModelScore, ...]:
        """What did better than the model delivered, in mean IoU or in macro-F1, best mean IoU first."""
        own = self.delivered
        better = [row for row in self.rows if row.mean_iou > own.mean_iou or row.macro_f1 > own.macro_f1]
        return tuple(sorted(better, key=lambda row: -row.mean_iou))


@dataclass(frozen=True, eq=False)
class AccuracyReport:
    """The contents of an accuracy report.

    Attributes:
        title: of the page.
        created: date and time, ISO 8601.
        accuracy, confusion: of the map; (K, K) rows = map, columns = reference.
        scheme: the K classes.
        n_reference_units: polygons or points that the reference came from.
        mapped_areas_ha: (K,) area of each class in the map, hectares; empty where unknown.
        area_adjusted: stratified estimates, with areas in hectares.
        interval: over the polygons or blocks of the reference.
        lines: what was compared, in sentences.
        warnings: what may be wrong.
        imagery: (H, W, 3) uint8, as shown beside the map.
        map_codes: (H, W) uint8 codes of the scheme, 0 = not mapped, of the same ground.
        provenance: name to value, shown as text.
    """

    title: str
    created: str
    accuracy: Accuracy
    confusion: NDArray[np.integer]
    scheme: ClassScheme
    n_reference_units: int
    mapped_areas_ha: tuple[float, ...] = ()
    area_adjusted: AreaAdjusted | None = None
    interval: AccuracyInterval | None = None
    lines: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    imagery: ByteArray | None = None
    map_codes: ByteArray | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_scores(self.accuracy, self.confusion, self.scheme)
        _check_pictures(self.imagery, self.map_codes)
        if len(self.mapped_areas_ha) not in (0, len(self.scheme)):
            raise ValueError(f"{len(self.scheme)} classes need as many areas; got {len(self.mapped_areas_ha)}.")
        if self.area_adjusted is not None and self.area_adjusted.names != self.scheme.names:
            raise ValueError(f"The estimates are of {self.area_adjusted.names}, the scheme has {self.scheme.names}.")


@dataclass(frozen=True)
class SceneCandidate:
    """A classifier of scenes that was tried.

    Attributes:
        name: as a sentence can use it.
        is_chosen: whether it is the one that the job used.
        log_loss, mean_average_precision: cross-validated over blocks of the training part.
        scores: on the polygons held out, which chose nothing.
        seconds: of the cross-validation.
    """

    name: str
    is_chosen: bool
    log_loss: float
    mean_average_precision: float
    scores: SceneScores
    seconds: float


@dataclass(frozen=True, eq=False)
class SceneReport:
    """The contents of a report on classified scenes.

    Attributes:
        title: of the page.
        created: date and time, ISO 8601.
        lines: what was done, in sentences.
        scores: of the classifier on the polygons held out.
        candidates: all that were tried; empty where the blocks were too few.
        scheme: the K classes.
        is_multi_label: whether a polygon may have several classes.
        threshold: probability from which it has one; None where it has one class.
        n_training: polygons of each class that were learned from.
        confusion: (K, K) held-out polygons, rows = said, columns = reference; None where they may have several classes.
        units: of each class, and without data in the last place, what was classified.
        warnings: what may be wrong.
        settings, provenance: name to value, shown as text.
    """

    title: str
    created: str
    lines: tuple[str, ...]
    scores: SceneScores
    candidates: tuple[SceneCandidate, ...]
    scheme: ClassScheme
    is_multi_label: bool
    threshold: float | None
    n_training: tuple[int, ...]
    confusion: NDArray[np.int64] | None
    units: tuple[int, ...]
    warnings: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class PretrainingReport:
    """The contents of a report of pre-training.

    Attributes:
        title: of the page.
        created: date and time, ISO 8601.
        records: an entry an epoch, at least one.
        seconds: that the training took.
        lines: what was trained on what, in sentences.
        warnings: what may be wrong.
        settings, provenance: name to value, shown as text.
    """

    title: str
    created: str
    records: tuple[PretrainingRecord, ...]
    seconds: float
    lines: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


def _check_scores(accuracy: Accuracy, confusion: NDArray[np.integer], scheme: ClassScheme) -> None:
    shape = checked_counts(confusion).shape
    if shape[0] != len(scheme):
        raise ValueError(f"The confusion matrix is {shape} and the scheme has {len(scheme)} classes.")
    if accuracy.names != scheme.names:
        raise ValueError(f"The scores are of {accuracy.names}, the scheme has {scheme.names}.")


def _check_pictures(imagery: ByteArray | None, map_codes: ByteArray | None) -> None:
    if imagery is not None and (imagery.ndim != 3 or imagery.shape[2] != 3 or imagery.dtype != np.uint8):
        raise ValueError(f"Imagery is (H, W, 3) uint8; got {imagery.shape} {imagery.dtype}.")
    if map_codes is not None and (map_codes.ndim != 2 or map_codes.dtype != np.uint8):
        raise ValueError(f"Map codes are (H, W) uint8; got {map_codes.shape} {map_codes.dtype}.")
