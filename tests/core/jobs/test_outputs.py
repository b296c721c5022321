"""Files that a job writes: names, temporary names, and what an abandoned job leaves."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from core.errors import Cancelled, OutputError, TrainingError
from core.jobs.events import JobContext
from core.jobs.outputs import (
    Staging,
    check_outputs,
    checkpoint_path,
    keeping_checkpoint,
    outputs_of,
    remove_half_done,
)
from core.jobs.schemas import AccuracyJob, ClassifyScenesJob, FinetuneJob, MapJob, SampleSceneJob


def map_job(folder: Path, **changes: object) -> MapJob:
    values = {"inputs": {"optical": ["a.tif"]}, "model": "m.safetensors", "output": str(folder / "map.tif"), **changes}
    return MapJob.model_validate(values)


def finetune_job(folder: Path) -> FinetuneJob:
    return FinetuneJob.model_validate(
        {
            "inputs": {"optical": ["a.tif"]},
            "labels": {"path": "l.gpkg", "class_field": "class"},
            "output_model": str(folder / "model.safetensors"),
            "report": str(folder / "report.html"),
        }
    )


@pytest.mark.parametrize(
    ("error", "resumable", "is_kept"),
    [
        (None, False, False),
        (Cancelled(), False, False),
        (Cancelled(), True, True),
        (TrainingError("The features have collapsed.", ""), False, False),
        (OutputError("The disk is full.", ""), False, True),
        (OSError(28, "No space left on device"), False, True),
        (RuntimeError("a defect"), False, True),
    ],
)
def test_a_training_is_kept_where_it_can_go_on(tmp_path, error, resumable, is_kept):
    events = []
    context = JobContext(events.append)
    if resumable:
        context.cancel(resumable=True)
    checkpoint = tmp_path / ".model.checkpoint.safetensors"
    checkpoint.write_bytes(b"state")
    with suppress(type(error) if error else ()), keeping_checkpoint(checkpoint, context):
        if error is not None:
            raise error
    assert checkpoint.exists() == is_kept
    assert any("goes on from there" in event["text"] for event in events) == (is_kept and not resumable)


def test_outputs_of_every_job(tmp_path):
    assert [output.key for output in outputs_of(map_job(tmp_path, confidence="c.tif"))] == ["output", "confidence"]
    assert [output.key for output in outputs_of(finetune_job(tmp_path))] == ["output_model", "report"]
    accuracy = AccuracyJob.model_validate({"map": "m.tif", "reference": {"path": "r.gpkg", "class_field": "c"}})
    assert outputs_of(accuracy) == []
    assert outputs_of(SampleSceneJob(output="scene")) == []


def test_good_names_pass_and_leave_nothing(tmp_path):
    check_outputs(map_job(tmp_path, confidence=str(tmp_path / "C.TIFF"), probabilities=str(tmp_path / "p.tif")), ["a.tif"])
    check_outputs(finetune_job(tmp_path), [])
    assert not list(tmp_path.iterdir())


def test_an_own_style_from_an_earlier_run_is_replaced(tmp_path):
    for name in ("map.tif", "map.qml", "map.html", "map.safetensors", "mapping.gpkg"):
        (tmp_path / name).touch()
    check_outputs(map_job(tmp_path), [])
    (tmp_path / "map.tif").unlink()
    check_outputs(map_job(tmp_path), [])
    (tmp_path / "map.shp").touch()
    with pytest.raises(OutputError, match=r"map\.shp"):
        check_outputs(map_job(tmp_path), [])


def test_staged_files_appear_together(tmp_path):
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("old")
    with Staging() as staging:
        for path in (first, second):
            with staging.writing(path) as temporary:
                temporary.write_text("new")
        assert first.read_text() == "old"
        assert not second.exists()
        staging.put_in_place()
    assert first.read_text() == second.read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt"]


def test_staged_files_disappear_together(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with Staging() as staging, staging.writing(path) as temporary:
        temporary.write_text("new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


def test_errors_name_the_file_that_was_asked_for(tmp_path):
    path = tmp_path / "a.txt"
    with pytest.raises(OutputError) as caught, Staging() as staging, staging.writing(path) as temporary:
        raise OutputError(f"'{temporary}' cannot be written.", "Free some space.")
    assert caught.value.message == f"'{path}' cannot be written."
    assert caught.value.hint == "Free some space."


HALF_DONE = (".map.tif.0a1b2c3d.part", ".map.tif.0a1b2c3d.part.cog", ".map.tif.0a1b2c3d.part.qml", ".map.qml.0a1b2c3d.part")
KEPT = ("map.tif", "map.qml", ".map.tif", ".other.tif.0a1b2c3d.part", "map.tif.part", ".map.tif.backup")


def test_what_an_abandoned_map_leaves(tmp_path):
    for name in (*HALF_DONE, *KEPT):
        (tmp_path / name).touch()
    remove_half_done(map_job(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == set(KEPT)


def test_what_an_abandoned_training_leaves(tmp_path):
    checkpoint = checkpoint_path(tmp_path / "model.safetensors")
    half = tmp_path / f".{checkpoint.name}.partial"
    for path in (checkpoint, half, tmp_path / "model.safetensors"):
        path.touch()
    remove_half_done(finetune_job(tmp_path), keep_checkpoint=True)
    assert {path.name for path in tmp_path.iterdir()} == {checkpoint.name, "model.safetensors"}
    remove_half_done(finetune_job(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors"}


def test_what_abandoned_scenes_leave(tmp_path):
    job = ClassifyScenesJob.model_validate(
        {"inputs": {"optical": ["a.tif"]}, "model": "m.safetensors", "output": str(tmp_path / "scenes.gpkg")}
    )
    for name in (
        ".scenes.gpkg.0a1b2c3d.part.gpkg",
        ".scenes.gpkg.0a1b2c3d.part.gpkg-journal",
        ".scenes.gpkg.0a1b2c3d.part.qml",
    ):
        (tmp_path / name).touch()
    (tmp_path / "scenes.gpkg").touch()
    remove_half_done(job)
    assert {path.name for path in tmp_path.iterdir()} == {"scenes.gpkg"}
    (tmp_path / "scenes.qml").touch()
    (tmp_path / "scenes.tif").touch()
    with pytest.raises(OutputError, match=r"scenes\.qml"):
        check_outputs(job, [])


def test_what_an_abandoned_scene_leaves(tmp_path):
    half = tmp_path / ".scene.0a1b2c3d.part"
    half.mkdir()
    (half / "truth.tif").touch()
    remove_half_done(SampleSceneJob(output=str(tmp_path / "scene")))
    assert not list(tmp_path.iterdir())
    remove_half_done(SampleSceneJob(output=str(tmp_path / "none" / "scene")))
