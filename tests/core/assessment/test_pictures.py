"""The pictures: real PNG files, the same each time, with the colours that the scheme asks for."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from core.assessment.contents import DrawnLabel, ModelScore, TrainingReport
from core.assessment.curve_pictures import curves_picture, learning_picture, pretraining_picture, reliability_picture
from core.assessment.pictures import confusion_picture, map_picture, models_picture
from core.finetuning.networks.records import EpochRecord
from core.labels.scheme import ClassScheme, LandCoverClass
from core.pretraining.records import PretrainingRecord

PRETRAINING = [
    PretrainingRecord(
        epoch,
        {"latent sentinel2_l2a": 2 / epoch, "latent sentinel1": 1.5},
        0.5,
        40.0 + epoch,
        {"sentinel1": 0.4},
    )
    for epoch in range(1, 9)
]

DRAWINGS: dict[str, Callable[[TrainingReport], bytes]] = {
    "confusion": lambda report: confusion_picture(report.confusion, report.scheme.names),
    "curves": lambda report: curves_picture(report.curves, report.best_epoch),
    "pretraining": lambda report: pretraining_picture(PRETRAINING),
    "models": lambda report: models_picture(report.rows),
    "reliability": lambda report: reliability_picture(report.calibration),
    "learning": lambda report: learning_picture(report.label_worth),
    "map": lambda report: map_picture(report.imagery, report.map_codes, report.scheme, report.drawn_labels),
}


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def has_colour(png: bytes, colour: str) -> bool:
    rgb = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    return bool((pixels(png) == rgb).all(axis=-1).any())


@pytest.mark.parametrize("name", DRAWINGS)
def test_same_bytes_each_time_and_no_metadata(name: str, training_report: TrainingReport) -> None:
    first = DRAWINGS[name](training_report)
    assert first == DRAWINGS[name](training_report)
    image = Image.open(io.BytesIO(first))
    assert image.format == "PNG"
    assert image.width == 1080
    assert set(image.info) <= {"dpi"}


@pytest.mark.parametrize("name", DRAWINGS)
def test_nothing_is_cut_off_at_the_right_or_the_top(name: str, training_report: TrainingReport) -> None:
    image = pixels(DRAWINGS[name](training_report))
    if name != "map":  # the map fills the width
        assert (image[:, -3:] == 255).all()
        assert (image[:, :3] == 255).all()
    assert (image[:2] == 255).all()


@pytest.mark.parametrize("n_classes", [1, 2, 6, 7, 20])
def test_confusion_of_few_and_many_classes_fits(n_classes: int) -> None:
    names = tuple(f"Class {k} with a name of more than a line" for k in range(n_classes))
    image = pixels(confusion_picture(np.full((n_classes, n_classes), 123_456), names))
    assert image.shape[1] == 1080
    assert (image[:2] == 255).all()
    assert (image[:, -2:] == 255).all()
    assert (image[:, :2] == 255).all()


def test_confusion_colours_are_shares_of_the_row() -> None:
    agreeing = confusion_picture(np.array([[90, 0], [0, 2]]), ("a", "b"))
    assert has_colour(agreeing, "#123a57")
    even = confusion_picture(np.array([[50, 50], [1, 1]]), ("a", "b"))
    assert not has_colour(even, "#123a57")


def test_map_shows_the_scheme_nodata_and_unknown_codes(scheme: ClassScheme) -> None:
    codes = np.zeros((40, 60), dtype=np.uint8)
    codes[:, 20:40] = scheme.codes[0]
    codes[:, 40:] = 255
    png = map_picture(None, codes, scheme)
    for colour in (scheme.colours[0], "#e4e6e8", "#4a4a4a"):
        assert has_colour(png, colour)
    assert not has_colour(png, scheme.colours[1])


def test_map_of_any_shape_keeps_its_proportions(scheme: ClassScheme) -> None:
    for height, width in ((400, 40), (40, 400), (3000, 2000)):
        image = pixels(map_picture(None, np.full((height, width), scheme.codes[0], np.uint8), scheme))
        rgb = [int(scheme.colours[0][k : k + 2], 16) for k in (1, 3, 5)]
        drawn = (image == rgb).all(axis=-1)
        rows, columns = drawn.sum(axis=1), drawn.sum(axis=0)
        # The legend's swatch has the same colour and is small.
        assert rows.max() / columns.max() == pytest.approx(width / height, rel=0.1)


def test_long_legends_make_the_picture_taller() -> None:
    def draw(n_classes: int) -> np.ndarray:
        classes = tuple(
            LandCoverClass(k + 1, f"A class with a rather long name, number {k}", f"#{10 + 11 * k:02x}8040", str(k))
            for k in range(n_classes)
        )
        codes = np.tile(np.arange(1, n_classes + 1, dtype=np.uint8), (20, 1))
        return pixels(map_picture(None, np.kron(codes, np.ones((1, 60 // n_classes), np.uint8)), ClassScheme("s", classes)))

    few, many = draw(3), draw(20)
    assert many.shape[0] > few.shape[0] + 150
    assert (many[-2:] == 255).all()


def test_names_that_look_like_formulas_are_drawn_as_they_are() -> None:
    assert confusion_picture(np.eye(2, dtype=int), ("$\\frac{1}{", "50 $ & <b>")).startswith(b"\x89PNG")


def test_values_that_are_not_known_can_be_drawn() -> None:
    nan = float("nan")
    assert curves_picture([EpochRecord(1, 0.5, nan, nan)], 1).startswith(b"\x89PNG")
    assert models_picture([ModelScore("a", True, nan, nan, nan)]).startswith(b"\x89PNG")


def test_the_best_epoch_is_marked(training_report: TrainingReport) -> None:
    assert has_colour(curves_picture(training_report.curves, 26), "#c2703d")
    assert not has_colour(curves_picture(training_report.curves, None), "#c2703d")


def test_only_the_model_delivered_is_in_colour(training_report: TrainingReport) -> None:
    assert has_colour(models_picture(training_report.rows), "#1f5f8b")
    assert not has_colour(models_picture(training_report.rows[1:]), "#1f5f8b")


def test_drawing_leaves_no_trace_and_needs_no_pyplot() -> None:
    code = (
        "import sys, numpy as np, core.assessment, core.assessment.report\n"
        "early = 'matplotlib' in sys.modules\n"
        "import matplotlib\n"
        "def settings():\n"  # asking for the backend would import pyplot
        "    return {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != 'backend'}\n"
        "before = settings()\n"
        "from core.assessment.pictures import confusion_picture\n"
        "confusion_picture(np.eye(2, dtype=int), ('a', 'b'))\n"
        "print(early, 'matplotlib.pyplot' in sys.modules, before == settings())\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "False", "True"]


@pytest.mark.parametrize("size", [100, 2900])
def test_labels_lie_where_they_are_in_the_colours_of_their_classes(scheme: ClassScheme, size: int) -> None:
    imagery = np.full((size, size, 3), 128, np.uint8)
    codes = np.full((size, size), scheme.codes[1], np.uint8)
    box = np.array([[0.2, 0.6], [0.4, 0.6], [0.4, 0.8], [0.2, 0.8], [0.2, 0.6]]) * size
    label = DrawnLabel(scheme.codes[0], False, (box,))
    bare, drawn = (pixels(map_picture(imagery, codes, scheme, labels)).astype(int) for labels in ((), (label,)))
    changed = np.abs(bare - drawn).sum(axis=-1) > 60
    left = changed[:, : changed.shape[1] // 2]
    rows, columns = np.nonzero(left)
    side = np.flatnonzero((bare[:, : left.shape[1]] == 128).all(axis=-1).any(axis=1))
    first, down = side[0], len(side)
    across = np.flatnonzero((bare[:, : left.shape[1]] == 128).all(axis=-1).any(axis=0))
    assert (rows.min() - first) / down == pytest.approx(0.6, abs=0.02)
    assert (rows.max() - first) / down == pytest.approx(0.8, abs=0.02)
    assert (columns.min() - across[0]) / len(across) == pytest.approx(0.2, abs=0.02)
    assert (columns.max() - across[0]) / len(across) == pytest.approx(0.4, abs=0.02)
    assert has_colour(map_picture(imagery, codes, scheme, (label,)), scheme.classes[0].colour)
    assert not has_colour(map_picture(imagery, codes, scheme), scheme.classes[0].colour)
