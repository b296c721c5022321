"""Reports about a small invented landscape, for the tests that write and read them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.assessment.area_adjusted import area_adjusted_accuracy
from core.assessment.calibration import Calibration, reliability
from core.assessment.confusion import AccuracyInterval, accuracy, bootstrap_interval, confusion_matrix
from core.assessment.contents import AccuracyReport, DrawnLabel, LabelPoint, LabelWorth, ModelScore, SubsetScore, TrainingReport
from core.finetuning.networks.records import EpochRecord
from core.labels.scheme import ClassScheme, LandCoverClass

CLASSES = (
    ("Water", "#3b7fc4"),
    ("Broad-leaved forest", "#2f8f4e"),
    ("Coniferous forest", "#1c5a3a"),
    ("Grassland", "#a8cf6b"),
    ("Cropland", "#e8c860"),
    ("Built-up", "#c4483b"),
    ("Bare rock and sparsely vegetated ground", "#b9a28c"),
    ("Wetland", "#7a6fb0"),
)


def landscape(seed: int = 7, size: int = 240) -> tuple[np.ndarray, np.ndarray]:
    """Class indices (H, W) of a truth of blobs and of a map of it with mistakes along the edges."""
    generator = np.random.default_rng(seed)
    seeds = generator.uniform(0, size, (60, 2))
    kinds = generator.integers(0, 7, 60)  # the eighth class never occurs
    rows, columns = np.mgrid[:size, :size]
    wobble = 6 * np.sin(rows / 11.0) + 6 * np.cos(columns / 13.0)

    def nearest(shift: float) -> np.ndarray:
        squares = (rows[..., None] + shift * wobble[..., None] - seeds[:, 0]) ** 2 + (
            columns[..., None] - shift * wobble[..., None] - seeds[:, 1]
        ) ** 2
        return kinds[squares.argmin(axis=-1)]

    return nearest(0.0), nearest(0.6)


@pytest.fixture(scope="session")
def scheme() -> ClassScheme:
    return ClassScheme(
        "invented",
        tuple(LandCoverClass(10 * (k + 1), name, colour, name) for k, (name, colour) in enumerate(CLASSES)),
    )


@pytest.fixture(scope="session")
def groups() -> np.ndarray:
    """(G, K, K): a confusion matrix for each of 36 blocks of 40 pixels."""
    truth, mapped = landscape()
    blocks = [(slice(y, y + 40), slice(x, x + 40)) for y in range(0, 240, 40) for x in range(0, 240, 40)]
    return np.stack([confusion_matrix(mapped[block], truth[block], len(CLASSES)) for block in blocks])


@pytest.fixture(scope="session")
def map_codes() -> np.ndarray:
    codes = ((landscape()[1] + 1) * 10).astype(np.uint8)
    codes[:30, :60] = 0
    return codes


@pytest.fixture(scope="session")
def imagery() -> np.ndarray:
    truth, _ = landscape()
    table = np.array(
        [[30, 60, 90], [60, 90, 50], [35, 60, 40], [130, 150, 80], [190, 170, 110], [170, 160, 160], [150, 140, 125]]
    )
    noise = np.random.default_rng(3).normal(0, 9, (*truth.shape, 3))
    return np.clip(table[truth] + noise, 0, 255).astype(np.uint8)


def calibration() -> Calibration:
    """Of a model that is too sure of itself until it is scaled."""
    generator = np.random.default_rng(5)
    classes = generator.integers(0, 8, 4000)
    scores = generator.normal(0, 1.5, (4000, 8)) + 3 * np.eye(8)[classes]

    def told(factor: float) -> np.ndarray:
        odds = np.exp(factor * scores)
        return odds / odds.sum(axis=1, keepdims=True)

    before, after = (reliability(told(factor), classes) for factor in (3.0, 1.3))
    return Calibration(before, after, 0.011, 2.3, 12, is_cross_validated=False)


@pytest.fixture(scope="session")
def training_report(scheme: ClassScheme, groups: np.ndarray, map_codes: np.ndarray, imagery: np.ndarray) -> TrainingReport:
    confusion = groups.sum(axis=0)
    scores = accuracy(confusion, scheme.names)
    interval = bootstrap_interval(groups, seed=0)
    own = (scores.overall_accuracy, scores.macro_f1, scores.mean_iou)

    def row(name: str, change: float, **others: Any) -> ModelScore:
        bounds = (interval.overall_accuracy, interval.macro_f1, interval.mean_iou)
        moved = AccuracyInterval(*((low + change, high + change) for low, high in bounds), interval.n_groups)
        return ModelScore(name, False, *(value + change for value in own), interval=moved, **others)

    return TrainingReport(
        title="Land cover of an invented valley",
        created="2025-06-01T10:30:00+02:00",
        summary_lines=(
            "A residual U-Net with intermediate fusion of Sentinel-2, Sentinel-1 and elevation was trained on 160 polygons.",
            "It was compared with three baselines that learned from the same polygons.",
        ),
        rows=(
            ModelScore("U-Net, intermediate fusion", True, *own, interval=interval, seconds=212.4),
            row("Forest on neighbourhoods", 0.021, seconds=41.0),
            row("Forest on pixels", -0.084, seconds=9.3),
            row("Logistic regression", -0.152, seconds=1.2),
        ),
        accuracy=scores,
        confusion=confusion,
        scheme=scheme,
        missing_inputs=(
            SubsetScore(("Sentinel-2", "Sentinel-1"), True, 57_600, *own, 0.9),
            SubsetScore(("Sentinel-2",), False, 57_600, 0.71, 0.62, 0.51, 1.25),
            SubsetScore(("Sentinel-1",), False, 40_100, 0.58, 0.41, float("nan"), 2.5),
        ),
        calibration=calibration(),
        calibration_lines=("Measured on 4000 labelled pixels in 12 blocks of ground.",),
        label_worth=LabelWorth(
            "Forest on pixels",
            (LabelPoint(31.0, 0.61, 0.52, 0.41), LabelPoint(62.5, 0.70, 0.60, 0.50), LabelPoint(120.0, 0.76, 0.66, 0.56)),
            LabelPoint(120.0, 0.93, 0.91, 0.84),
        ),
        curves=tuple(
            EpochRecord(e, 1.7 * 0.92**e + 0.12, 1.6 * 0.92**e + 0.3 + 0.004 * e, 0.86 * (1 - 0.88**e) - 0.002 * max(0, e - 26))
            for e in range(1, 37)
        ),
        best_epoch=26,
        imagery=imagery,
        map_codes=map_codes,
        drawn_labels=(
            DrawnLabel(1, False, (np.array([[5.0, 5.0], [25.0, 5.0], [25.0, 20.0], [5.0, 5.0]]),)),
            DrawnLabel(4, True, (np.array([[40.0, 30.0], [60.0, 30.0], [60.0, 50.0], [40.0, 30.0]]), np.array([[70.0, 12.0]]))),
        ),
        label_lines=(
            "160 polygons of 7 classes, 57 600 pixels.",
            "12 pixels lie in polygons of different classes and were ignored.",
        ),
        input_lines=("a.tif: Sentinel-2 L2A, 12 bands matched by name, offset of +1000 taken off.",),
        split_lines=("Blocks of 400 m; 30 % of the labelled pixels were held out.",),
        warnings=("The +1000 offset was guessed from the data.",),
        settings={"epochs": 40, "seed": 0, "architecture": "unet_intermediate", "device": "cpu"},
        provenance={"rsfusion": "0.1.0", "optical": "a.tif", "labels": "polygons.gpkg"},
    )


@pytest.fixture(scope="session")
def accuracy_report(scheme: ClassScheme, groups: np.ndarray, map_codes: np.ndarray) -> AccuracyReport:
    confusion = groups.sum(axis=0)
    areas = tuple(float((map_codes == code).sum()) / 100 for code in scheme.codes)
    return AccuracyReport(
        title="Map of an invented valley against 120 points",
        created="2025-06-02",
        accuracy=accuracy(confusion, scheme.names),
        confusion=confusion,
        scheme=scheme,
        n_reference_units=36,
        mapped_areas_ha=areas,
        area_adjusted=area_adjusted_accuracy(confusion // 40, np.array(areas), scheme.names),
        interval=bootstrap_interval(groups, seed=0),
        lines=("map.tif was compared with points.gpkg.",),
        map_codes=map_codes,
        provenance={"map": "map.tif", "reference": "points.gpkg"},
    )


@pytest.fixture(scope="session")
def read_data() -> Any:
    """Reads the numbers of a report back from its HTML."""

    def read(path: Path) -> dict[str, Any]:
        blocks = re.findall(r'<script type="application/json" id="rsfusion-data">(.*?)</script>', path.read_text("utf-8"), re.S)
        (block,) = blocks
        data: dict[str, Any] = json.loads(block)
        return data

    return read
