"""The reports: whole, self-contained, honest, safe."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.assessment.confusion import AccuracyInterval, accuracy
from core.assessment.contents import AccuracyReport, ModelScore, TrainingReport
from core.assessment.report import better_lines, write_accuracy_report, write_training_report
from core.errors import OutputError
from core.labels.scheme import ClassScheme, LandCoverClass

VOID = {"meta", "img", "br", "link", "input", "hr"}
ATTACK = "</script><script>alert(1)</script><img src=x onerror=alert(2)> \"'&\u2028"


class Page(HTMLParser):
    """What a browser would find: elements with their attributes, the text, and whether all is closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(path.read_text("utf-8"))
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self._open):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def training_path(tmp_path: Path, training_report: TrainingReport) -> Path:
    path = tmp_path / "report with spaces é'.html"
    write_training_report(path, training_report)
    return path


@pytest.fixture
def accuracy_path(tmp_path: Path, accuracy_report: AccuracyReport) -> Path:
    path = tmp_path / "accuracy.html"
    write_accuracy_report(path, accuracy_report)
    return path


@pytest.fixture(params=["training", "accuracy"])
def any_page(request: pytest.FixtureRequest) -> Page:
    return Page(request.getfixturevalue(f"{request.param}_path"))


def test_a_page_needs_nothing_from_outside(any_page: Page) -> None:
    for _, attributes in any_page.elements:
        assert not {"href", "srcset", "onload", "onerror", "onclick"} & set(attributes)
    sources = [attributes["src"] for attributes in any_page.attributes("img")]
    assert sources
    assert all(source and source.startswith("data:image/png;base64,iVBOR") for source in sources)
    assert [attributes.get("type") for attributes in any_page.attributes("script")] == ["application/json"]
    assert not any_page.attributes("link")


def test_a_page_is_accessible(any_page: Page) -> None:
    assert any_page.attributes("html")[0]["lang"] == "en-GB"
    assert all(len(attributes.get("alt") or "") > 20 for attributes in any_page.attributes("img"))
    assert all(attributes.get("scope") in ("row", "col") for attributes in any_page.attributes("th"))
    assert len(any_page.attributes("h1")) == 1


def test_training_numbers_can_be_read_back(
    training_path: Path, training_report: TrainingReport, read_data: Callable[[Path], dict[str, Any]]
) -> None:
    data = read_data(training_path)
    assert data["kind"] == "training"
    assert data["overall_accuracy"] == training_report.accuracy.overall_accuracy
    assert data["macro_f1"] == training_report.accuracy.macro_f1
    assert np.array_equal(data["confusion"], training_report.confusion)
    assert data["models"][0]["interval"]["mean_iou"] == list(training_report.rows[0].interval.mean_iou)
    assert data["curves"][25]["validation_macro_f1"] == training_report.curves[25].validation_macro_f1
    assert data["best_epoch"] == 26
    assert data["calibration"]["expected_calibration_error"] == training_report.calibration.after.expected_error
    assert data["calibration"]["expected_calibration_error_before_scaling"] == training_report.calibration.before.expected_error
    assert sum(data["calibration"]["after"]["count"]) == data["calibration"]["pixels"] == 4000
    assert data["calibration"]["after"]["accuracy"][0] is None
    assert [point["features"] for point in data["label_worth"]["points"]] == [31.0, 62.5, 120.0]
    assert data["label_worth"]["drop"] == pytest.approx(0.93 - 0.76)
    assert data["settings"]["epochs"] == 40
    assert [row["inputs"] for row in data["missing_inputs"]] == [["Sentinel-2", "Sentinel-1"], ["Sentinel-2"], ["Sentinel-1"]]
    assert data["missing_inputs"][1]["temperature"] == 1.25
    assert data["missing_inputs"][2]["mean_iou"] is None
    # Not defined is null, never NaN and never 0.
    assert data["classes"][7]["f1"] is None
    assert data["not_validated"] == ["Wetland"]


def test_training_page_says_what_it_must(training_path: Path) -> None:
    text = Page(training_path).text
    for part in (
        "Land cover of an invented valley",
        "2025-06-01T10:30:00+02:00",
        "in blocks of the same scene that were held out",
        "no accuracy of the map in the statistical sense",
        "Nothing is known of the accuracy of Wetland",
        "the overall accuracy drops by 0.170",
        "those that were held out in dashes",
        "The +1000 offset was guessed from the data.",
        "Forest on neighbourhoods was better than the model delivered: mean IoU 0.782 against 0.761",
        "Their 95 % intervals overlap",
        "U-Net, intermediate fusion (delivered)",
        "3 min 32 s",
        "epoch 26, whose weights were kept",
        "Where inputs are missing",
        "All: Sentinel-2; Sentinel-1",
        "0.510",
        "1.25",
        "40 100",
        "How honest are the probabilities?",
        "Measured on 4000 labelled pixels in 12 blocks of ground.",
        "12 pixels lie in polygons of different classes",
        "Blocks of 400 m",
        "unet_intermediate",
        "polygons.gpkg",
    ):
        assert part in text


def test_the_page_tells_the_calibration_error_or_why_there_is_none(
    tmp_path: Path, training_path: Path, training_report: TrainingReport, read_data: Callable[[Path], dict[str, Any]]
) -> None:
    errors = (training_report.calibration.expected_error, training_report.calibration.before.expected_error)
    assert f"Expected calibration error {errors[0]:.3f} Before temperature scaling {errors[1]:.3f}" in Page(training_path).text
    unknown = dataclasses.replace(training_report, calibration=None, calibration_lines=("It could not be measured.",))
    write_training_report(tmp_path / "unknown.html", unknown)
    page = Page(tmp_path / "unknown.html")
    assert "How honest are the probabilities? It could not be measured." in page.text
    assert "Expected calibration error" not in page.text
    assert len(page.attributes("img")) == len(Page(training_path).attributes("img")) - 1
    assert read_data(tmp_path / "unknown.html")["calibration"] is None


def test_accuracy_page_says_what_it_must(accuracy_path: Path, accuracy_report: AccuracyReport) -> None:
    text = Page(accuracy_path).text
    estimates = accuracy_report.area_adjusted
    assert estimates is not None
    for part in (
        "only if the reference is a probability sample",
        "36 reference polygons or points",
        "Olofsson et al. (2014)",
        f"{estimates.overall_accuracy.value:.3f} ± {estimates.overall_accuracy.half_width:.3f}",
        f"{estimates.producers_accuracy[0].value:.3f} ± {estimates.producers_accuracy[0].half_width:.3f}",
        f"{estimates.areas[0].value:.1f}",
        "Nothing is known of the accuracy of Wetland",
    ):
        assert part in text


def test_accuracy_numbers_can_be_read_back(
    accuracy_path: Path, accuracy_report: AccuracyReport, read_data: Callable[[Path], dict[str, Any]]
) -> None:
    data = read_data(accuracy_path)
    assert data["kind"] == "accuracy"
    assert data["area_adjusted"]["areas"][0]["value"] == accuracy_report.area_adjusted.areas[0].value
    assert data["mapped_areas_ha"] == list(accuracy_report.mapped_areas_ha)
    assert data["n_reference_units"] == 36


def test_html_in_texts_stays_text(
    tmp_path: Path, training_report: TrainingReport, read_data: Callable[[Path], dict[str, Any]]
) -> None:
    scheme = ClassScheme("hostile", (LandCoverClass(1, ATTACK, "#000000", "x"), LandCoverClass(2, "b", "#ffffff", "b")))
    counts = np.array([[5, 1], [0, 6]])
    hostile = dataclasses.replace(
        training_report,
        title=ATTACK,
        scheme=scheme,
        confusion=counts,
        accuracy=accuracy(counts, scheme.names),
        rows=(ModelScore(ATTACK, True, 0.9, 0.9, 0.8), ModelScore(ATTACK, False, 0.9, 0.95, 0.9)),
        warnings=(ATTACK,),
        settings={ATTACK: ATTACK},
        map_codes=np.ones((8, 8), dtype=np.uint8),
    )
    path = tmp_path / "hostile.html"
    write_training_report(path, hostile)
    page = Page(path)
    assert len(page.attributes("script")) == 1
    assert all((attributes.get("src") or "").startswith("data:") for attributes in page.attributes("img"))
    assert all("onerror" not in attributes for _, attributes in page.elements)
    assert "<script>alert(1)</script>" in page.text
    data = read_data(path)
    assert data["title"] == ATTACK
    assert data["classes"][0]["name"] == ATTACK


def test_same_contents_give_the_same_bytes(tmp_path: Path, training_report: TrainingReport) -> None:
    for name in ("a.html", "b.html"):
        write_training_report(tmp_path / name, training_report)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_bare_report_is_whole(tmp_path: Path, training_report: TrainingReport, accuracy_report: AccuracyReport) -> None:
    """No pictures, curves, areas, notes: the sections are left out, nothing breaks."""
    bare = TrainingReport(
        "t",
        "2025",
        (),
        (training_report.delivered,),
        training_report.accuracy,
        training_report.confusion,
        training_report.scheme,
    )
    write_training_report(tmp_path / "t.html", bare)
    page = Page(tmp_path / "t.html")
    assert "was better than the model delivered" not in page.text
    assert "favourable" not in page.text
    assert "Where inputs are missing" not in page.text
    assert len(page.attributes("img")) == 2
    empty = dataclasses.replace(
        accuracy_report, area_adjusted=None, mapped_areas_ha=(), interval=None, map_codes=None, lines=(), n_reference_units=1
    )
    write_accuracy_report(tmp_path / "a.html", empty)
    page = Page(tmp_path / "a.html")
    assert "Olofsson" not in page.text
    assert "Mapped area" not in page.text
    assert "1 reference polygon or point," in page.text
    assert len(page.attributes("img")) == 1


def scored(name: str, macro_f1: float, mean_iou: float, spread: float | None = None, delivered: bool = False) -> ModelScore:
    bounds = None if spread is None else (mean_iou - spread, mean_iou + spread)
    interval = None if bounds is None else AccuracyInterval(bounds, bounds, bounds, 9)
    return ModelScore(name, delivered, 0.8, macro_f1, mean_iou, interval)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (scored("B", 0.6, 0.5), None),
        (scored("B", 0.7, 0.6), None),
        (scored("B", 0.8, 0.7), "mean IoU 0.700 against 0.600, macro-F1 0.800 against 0.700."),
        (scored("B", 0.6, 0.7), "mean IoU 0.700 against 0.600, though not in macro-F1."),
        (scored("B", 0.8, 0.5), "macro-F1 0.800 against 0.700, though not in mean IoU."),
        (scored("B", float("nan"), float("nan")), None),
    ],
)
def test_a_better_baseline_is_named(other: ModelScore, expected: str | None, training_report: TrainingReport) -> None:
    rows = (scored("Own", 0.7, 0.6, delivered=True), other)
    lines = better_lines(dataclasses.replace(training_report, rows=rows))
    assert lines == (() if expected is None else (f"B was better than the model delivered: {expected}",))


@pytest.mark.parametrize(("spread", "overlaps"), [(0.08, True), (0.02, False)])
def test_overlap_of_intervals_is_said(spread: float, overlaps: bool, training_report: TrainingReport) -> None:
    rows = (scored("Own", 0.7, 0.6, spread, delivered=True), scored("B", 0.8, 0.7, spread))
    (line,) = better_lines(dataclasses.replace(training_report, rows=rows))
    assert ("overlap" in line) is overlaps


def test_contents_that_do_not_fit_are_refused(training_report: TrainingReport, accuracy_report: AccuracyReport) -> None:
    with pytest.raises(ValueError, match="Exactly one model"):
        dataclasses.replace(training_report, rows=training_report.rows[1:])
    with pytest.raises(ValueError, match=r"\(2, 2\) and the scheme has 8"):
        dataclasses.replace(training_report, confusion=np.eye(2, dtype=int))
    with pytest.raises(ValueError, match="uint8; got"):
        dataclasses.replace(training_report, imagery=np.zeros((4, 4, 3)))
    with pytest.raises(ValueError, match="uint8; got"):
        dataclasses.replace(training_report, map_codes=np.zeros((4, 4, 1), dtype=np.uint8))
    with pytest.raises(ValueError, match="as many areas; got 1"):
        dataclasses.replace(accuracy_report, mapped_areas_ha=(1.0,))
    with pytest.raises(ValueError, match="scores are of"):
        dataclasses.replace(accuracy_report, accuracy=accuracy(np.eye(2, dtype=int), ("a", "b")))


def test_a_missing_folder_is_named(tmp_path: Path, accuracy_report: AccuracyReport) -> None:
    with pytest.raises(OutputError, match="missing' does not exist") as caught:
        write_accuracy_report(tmp_path / "missing" / "r.html", accuracy_report)
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_place_of_the_file_is_an_error_and_leaves_nothing(tmp_path: Path, accuracy_report: AccuracyReport) -> None:
    target = tmp_path / "r.html"
    target.mkdir()
    with pytest.raises(OutputError, match=r"r\.html' cannot be written"):
        write_accuracy_report(target, accuracy_report)
    assert list(tmp_path.iterdir()) == [target]


@contextlib.contextmanager
def without_privileges() -> Iterator[None]:
    """Root may write everywhere, so the test becomes nobody for a moment."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.name == "nt", reason="Windows folders have no read-only mode")
def test_a_read_only_folder_keeps_the_old_report(accuracy_report: AccuracyReport) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        target = folder / "r.html"
        write_accuracy_report(target, accuracy_report)
        before = target.read_bytes()
        folder.chmod(stat.S_IRUSR | stat.S_IXUSR | stat.S_IROTH | stat.S_IXOTH)
        try:
            with without_privileges(), pytest.raises(OutputError, match="Permission denied"):
                write_accuracy_report(target, dataclasses.replace(accuracy_report, title="Another"))
        finally:
            folder.chmod(stat.S_IRWXU)
        assert target.read_bytes() == before
        assert list(folder.iterdir()) == [target]


def test_a_name_that_is_no_text_does_not_keep_the_report_from_being_written(
    tmp_path: Path, accuracy_report: AccuracyReport
) -> None:
    odd = dataclasses.replace(accuracy_report, provenance={"map": os.fsdecode(b"m\xff.tif")})
    write_accuracy_report(tmp_path / "r.html", odd)
    assert "m?.tif" in Page(tmp_path / "r.html").text
