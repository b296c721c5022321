"""The command line: options, events, exit codes, Ctrl-C, and that it is the same as the jobs of files."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer.main
from click.testing import CliRunner

import core
from core import cli
from core.commands.options import extent_of
from core.jobs.schemas import (
    AccuracyJob,
    ChangeMapJob,
    ClassifyScenesJob,
    CleanMapJob,
    DetectChangeJob,
    DistilJob,
    ExportJob,
    FinetuneJob,
    Inputs,
    Labels,
    MapJob,
    SampleSceneJob,
    VectorizeMapJob,
    ZonalAreasJob,
    Zones,
)
from core.models.architectures import ARCHITECTURES
from tests.core.jobs.running import EPOCH, ROOT, RSFUSION, run_command, snapshot, strict_json

COMMANDS = typer.main.get_command(cli.app).commands
LABEL_OPTIONS_OF_CHANGE = {"path": "labels", "layer": "layer", "class_field": "class_field"}
LABEL_OPTIONS = {"path": "labels", "layer": "layer", "class_field": "class_field", "class_scheme": "class_scheme"}


def options(command: str) -> dict[str, Any]:
    """Parameters by name; ``--json`` is about the command and not the job."""
    return {parameter.name.rstrip("_"): parameter for parameter in COMMANDS[command].params if parameter.name != "json"}


def fields_of(schema: Any, label_options: dict[str, str], labels_key: str) -> dict[str, Any]:
    """Name of the option to the schema's field. Classes have no option: they come from a layer's style."""
    found = {}
    for name, field in schema.model_fields.items():
        if name == "inputs":
            found.update(Inputs.model_fields)
        elif name == labels_key:
            part = Zones if labels_key == "zones" else Labels
            found.update({option: part.model_fields[key] for key, option in label_options.items()})
        elif name != "kind":
            found[name] = field
    return found


@pytest.mark.parametrize(
    ("command", "schema", "label_options", "labels_key"),
    [
        ("sample-scene", SampleSceneJob, {}, ""),
        ("finetune", FinetuneJob, LABEL_OPTIONS, "labels"),
        ("map", MapJob, {}, ""),
        ("distil", DistilJob, {}, ""),
        ("export", ExportJob, {}, ""),
        ("scenes", ClassifyScenesJob, {**LABEL_OPTIONS, "path": "training"}, "training"),
        # A reference is read in the classes of the map, so no class scheme is asked for.
        ("assess", AccuracyJob, {"path": "reference", "layer": "layer", "class_field": "class_field"}, "reference"),
        ("clean", CleanMapJob, {}, ""),
        ("vectorize", VectorizeMapJob, {}, ""),
        ("change", ChangeMapJob, {}, ""),
        ("detect-change", DetectChangeJob, LABEL_OPTIONS_OF_CHANGE, "labels"),
        ("areas", ZonalAreasJob, {"path": "zones", "layer": "layer", "id_field": "id_field"}, "zones"),
    ],
)
def test_options_mirror_the_schema(command, schema, label_options, labels_key):
    fields = fields_of(schema, label_options, labels_key)
    given = options(command)
    # Labels that may be left out have no option that is required.
    free = label_options.values() if labels_key and not schema.model_fields[labels_key].is_required() else ()
    assert set(given) == set(fields)
    for name, field in fields.items():
        parameter = given[name]
        assert parameter.required == (field.is_required() and name not in free), name
        assert parameter.help.startswith(field.description), name
        if not field.is_required():
            default = None if parameter.default == () else parameter.default
            assert default == (field.default or None if isinstance(field.default, list) else field.default), name
        if parameter.param_type_name != "argument":
            assert "--" + name.replace("_", "-") in parameter.opts


def test_every_command_prints_events_on_wish():
    jobs = {"sample-scene", "pretrain", "finetune", "distil", "map", "features", "scenes", "suggest", "sample", "assess", "run"}
    jobs |= {"clean", "vectorize", "areas", "change", "detect-change", "pseudolabels", "export"}
    assert set(COMMANDS) == jobs | {"models", "methods", "version"}
    for name, command in COMMANDS.items():
        assert name == "version" or any("--json" in parameter.opts for parameter in command.params)


def test_version_and_help():
    runner = CliRunner()
    assert runner.invoke(typer.main.get_command(cli.app), ["version"]).output.strip() == core.__version__
    for name in COMMANDS:
        assert runner.invoke(typer.main.get_command(cli.app), [name, "--help"]).exit_code == 0
    assert runner.invoke(typer.main.get_command(cli.app), []).exit_code in (0, 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,2,3,4 [EPSG:32633]", {"left": 1, "right": 2, "bottom": 3, "top": 4, "crs": "EPSG:32633"}),
        ("-1.5,2e1,-3,4[EPSG:4326]", {"left": -1.5, "right": 20, "bottom": -3, "top": 4, "crs": "EPSG:4326"}),
        (
            '1,2,3,4 [GEOGCRS["x",ID["EPSG",4326]]]',
            {"left": 1, "right": 2, "bottom": 3, "top": 4, "crs": 'GEOGCRS["x",ID["EPSG",4326]]'},
        ),
    ],
)
def test_extent_as_qgis_writes_it(text, expected):
    assert extent_of(text) == expected


@pytest.mark.parametrize("text", ["1,2,3", "1,2,3,4", "a,b,c,d [EPSG:4326]", "", "1,2,3,4 []"])
def test_extent_that_is_none(text):
    with pytest.raises(typer.BadParameter):
        extent_of(text)


def models(*arguments: str) -> Any:
    return CliRunner().invoke(typer.main.get_command(cli.app), ["models", *arguments])


def test_models_are_listed_with_their_use_and_cost():
    answer = models()
    assert answer.exit_code == 0, answer.output
    lines = answer.stdout.splitlines()
    for name, entry in ARCHITECTURES.items():
        assert any(line.split()[:1] == [name] and line.endswith(entry.use) for line in lines), name
        row = [entry.stem, entry.encoder, entry.size, entry.fusion]
        assert any(line.split()[:5] == [name, *row] for line in lines), name
    assert "Sentinel-2 MSI, L2A (12 bands, 10 m); Sentinel-1 C-band SAR (2 bands, 10 m)" in answer.stdout
    assert "1:16 2:32 4:64" in answer.stdout


def test_models_as_json_over_stated_inputs():
    answer = models("--json", "--modalities", "aerial_rgbnir,dsm@0.5", "--resolution", "0.25")
    assert answer.exit_code == 0, answer.output
    data = strict_json(answer.stdout)
    assert [entry["name"] for entry in data["architectures"]] == list(ARCHITECTURES)
    assert data["inputs"][1] == {
        "name": "dsm",
        "role": "elevation",
        "sensor": "dsm",
        "title": "Elevation of the surface",
        "bands": ["elevation"],
        "pixel_size_m": 0.5,
    }
    first = data["architectures"][0]
    assert first["levels"] == [{"stride": 1, "channels": 16}, {"stride": 2, "channels": 32}, {"stride": 4, "channels": 64}]
    assert first["parameters"] > 100_000
    assert first["gflop_per_megapixel"] > 10
    assert "combinations" not in data


def test_all_combinations_are_listed_on_wish(monkeypatch):
    from core.models import catalogue

    monkeypatch.setattr(catalogue, "SIZES", {"unet": ("tiny",), "resunet": ("small",)})
    arguments = ("--all", "--modalities", "sentinel1,dem")
    data = strict_json(models(*arguments, "--json").stdout)
    assert len(data["combinations"]) == 2 * 2 * 8
    answer = models(*arguments)
    assert "Every combination of stem, encoder, size and fusion" in answer.stdout
    for entry in data["combinations"]:
        row = [entry["stem"], entry["encoder"], entry["size"], entry["fusion"], f"{entry['parameters']:,}"]
        assert any(line.split()[:5] == row for line in answer.stdout.splitlines()), row


def test_a_model_file_is_described(trained):
    answer = models("--model", str(trained.model))
    assert answer.exit_code == 0, answer.output
    for words in (
        "model.safetensors: U-Net, intermediate fusion",
        "encoder unet, size tiny, fusion intermediate",
        "some may be missing",
        "sentinel1: Sentinel-1 C-band SAR (sar), 10 m, 2 bands",
        "Bare ground, Built-up",
        "Random forest on pixels",
        "with sentinel1 ",
    ):
        assert words in answer.stdout
    data = strict_json(models("--model", str(trained.model), "--json").stdout)
    assert data["card"]["allows_missing"] is True
    assert data["architecture"] == "unet_intermediate"
    assert [entry["sensor"] for entry in data["inputs"]] == ["sentinel2_l2a", "sentinel1"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--modalities", "sentinel9"), 1, "'sentinel9'"),
        (("--modalities", "generic"), 2, "'generic'"),
        (("--resolution", "0"), 2, "resolution"),
        (("--resolution", "inf"), 2, "resolution"),
        (("--model", "none.safetensors"), 1, "'none.safetensors' does not exist"),
    ],
)
def test_what_models_cannot_list_is_said(arguments, code, words):
    answer = models(*arguments)
    assert answer.exit_code == code, answer.output
    assert words in answer.stderr
    assert answer.stdout == ""


def test_events_of_a_training(trained):
    told = trained.told
    assert told.code == 0
    assert [event["event"] for event in told.events if event["event"] == "result"] == ["result"]
    assert told.last["event"] == "result"
    scores = {"OVERALL_ACCURACY", "MACRO_F1", "EXPECTED_CALIBRATION_ERROR"}
    assert set(told.outputs) == {"OUTPUT_MODEL", "REPORT", "MODEL_USED", "DEVICE_USED"} | scores
    assert told.outputs["MODEL_USED"] == "U-Net, intermediate fusion"
    assert told.outputs["OUTPUT_MODEL"] == str(trained.model)
    assert 0 <= told.outputs["MACRO_F1"] <= 1
    assert {event["event"] for event in told.events} == {"progress", "log", "result"}
    assert told.fractions == sorted(told.fractions)
    assert told.fractions[0] == 0.0
    assert told.fractions[-1] == 1.0
    assert all(isinstance(event["phase"], str) for event in told.events if event["event"] == "progress")
    assert "Water: 12 features" in told.texts("info")
    assert "U-Net, intermediate fusion: overall accuracy" in told.texts("info")
    assert "Traceback" not in told.stderr
    assert "Warning" not in told.stderr, told.stderr
    assert set(snapshot(trained.model.parent)) == {"model.safetensors", "report.html"}


def test_progress_bars_and_results_for_people(sample, tmp_path):
    report = tmp_path / "report.html"
    arguments = ["assess", "--map", sample.truth, "--reference", sample.reference, "--class-field", "class", "--report", report]
    done = subprocess.run(
        [*RSFUSION, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"REPORT: {report}",
        "OVERALL_ACCURACY: 1.0",
        "MACRO_F1: 1.0",
        "AREA_ADJUSTED_ACCURACY: 1.0",
        "AREA_ADJUSTED_HALF_WIDTH: 0.0",
    ]
    assert "100%" in done.stderr
    done = subprocess.run(
        [*RSFUSION, "assess", "--map", "none.tif", "--reference", "r.gpkg", "--class-field", "class"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Error: The raster 'none.tif' does not exist. Check the path." in done.stderr
    assert "Traceback" not in done.stderr


def test_a_job_file_does_what_the_command_does(map_job, trained, tmp_path):
    """Byte for byte, in another process; also what is written beside the maps."""
    (tmp_path / "file").mkdir()
    outputs = {"output": "map.tif", "confidence": "confidence.tif", "probabilities": "probabilities.tif"}
    extent = {"left": 310_100.0, "bottom": 5_818_900.0, "right": 311_100.0, "top": 5_819_800.0, "crs": "EPSG:32633"}
    job = {**map_job, "extent": extent} | {key: str(tmp_path / "file" / name) for key, name in outputs.items()}
    path = tmp_path / "job.json"
    path.write_text(json.dumps(job))
    from_file = run_command("run", str(path))
    assert from_file.code == 0, from_file.events[-1]
    arguments = ["--model", job["model"], "--optical", job["inputs"]["optical"][0], "--sar", job["inputs"]["sar"][0]]
    arguments += ["--overlap", "0", "--extent", "310100,311100,5818900,5819800 [EPSG:32633]"]
    for key, name in outputs.items():
        arguments += ["--" + key, str(tmp_path / "out" / name)]
    from_options = run_command("map", *arguments)
    assert from_options.code == 0, from_options.events[-1]
    made = snapshot(tmp_path / "file")
    assert snapshot(tmp_path / "out") == made
    assert set(made) == {*outputs.values(), "map.qml", "map.tif.aux.xml", "confidence.qml"}
    assert from_options.fractions == sorted(from_options.fractions)


def test_job_files_that_are_none(tmp_path):
    for name, content, words in (
        ("none.json", None, "cannot be read"),
        ("text.json", b"map it, please", "Invalid JSON"),
        ("list.json", b"[1]", "is not a job"),
        ("bytes.json", b"\xff\xfe\x00", "is not a job"),
        ("unkind.json", b'{"size": 64}', "kind"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        told = run_command("run", str(tmp_path / name))
        assert (told.code, told.last["kind"]) == (2, "UsageError")
        assert name in told.message
        assert words in told.message


def start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*RSFUSION, *arguments, "--json"],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SOURCE_DATE_EPOCH": EPOCH},
    )


def wait_for(process: subprocess.Popen[str], pattern: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if re.search(pattern, line):
            return
    raise AssertionError(f"the process ended without '{pattern}': {process.stderr and process.stderr.read()}")


@pytest.fixture
def training(sample: Any, few_labels: Path) -> list[str]:
    """Arguments of a training of the smallest model, without the number of epochs."""
    return [
        *("finetune", "--optical", str(sample.optical), "--labels", str(few_labels), "--class-field", "class"),
        *("--architecture", "unet_early", "--output-model", "model.safetensors", "--epochs"),
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize(("when", "pattern"), [("a baseline", "Fitting: forest"), ("training", "epoch 2 of")])
def test_ctrl_c_leaves_nothing(training, tmp_path, when, pattern):
    (tmp_path / "model.safetensors").write_bytes(b"old model")
    process = start(*training, "1000", cwd=tmp_path)
    wait_for(process, pattern)
    asked = time.monotonic()
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert time.monotonic() - asked < 8, "cancelling takes seconds"
    assert process.returncode == 130
    assert strict_json(stdout.splitlines()[-1]) == {"event": "cancelled"}
    assert "Traceback" not in stderr
    assert snapshot(tmp_path) == {"model.safetensors": b"old model"}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without a signal")
def test_what_the_system_ends_keeps_its_checkpoint(training, tmp_path):
    process = start(*training, "1000", cwd=tmp_path)
    wait_for(process, "epoch 2 of")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert set(snapshot(tmp_path)) == {".model.safetensors.checkpoint.safetensors"}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no broken pipes")
def test_a_reader_that_goes_away_ends_the_job_quietly(training, tmp_path):
    process = start(*training, "1000", cwd=tmp_path)
    wait_for(process, "epoch 1 of")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    stderr = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 130
    assert "Traceback" not in stderr
    assert "BrokenPipe" not in stderr
    assert snapshot(tmp_path) == {}
