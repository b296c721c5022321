"""Algorithms from their start to their outputs, with workers made for the occasion; in models and in batch."""

import os
import sys
import textwrap
import time

import pytest

HEAD = """
import json, os, sys, time
def say(**event):
    sys.stdout.write(json.dumps(event) + "\\n")
    sys.stdout.flush()
job = json.load(open(sys.argv[1], encoding="utf-8"))
say(event="hello", protocol=1, version="0.1.0", python="3.11", torch="2.13", device="cpu")
"""


@pytest.fixture
def with_worker(monkeypatch, tmp_path):
    """Has the algorithms run a script in place of ``core/worker.py``."""

    def use(body):
        from rsfusion_plugin.worker.process import Worker

        script = tmp_path / "worker.py"
        script.write_text(HEAD + textwrap.dedent(body))
        worker = (Worker(sys.executable, str(script)), "the test")
        monkeypatch.setattr("rsfusion_plugin.algorithms.base.find_worker", lambda *places: worker)

    return use


@pytest.fixture
def parameters(raster, tmp_path):
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"x")
    return {"OPTICAL": [raster()], "MODEL": str(model), "OUTPUT": str(tmp_path / "map.tif")}


MAP = """
import shutil
say(event="progress", fraction=0.5, phase="mapping")
say(event="log", level="warning", text="a cloud")
shutil.copy(job["inputs"]["optical"][0], job["output"])
say(event="progress", fraction=1.0, phase="writing")
say(event="result", outputs={"OUTPUT": job["output"], "DEVICE_USED": "cpu"})
"""


def run(algorithm, parameters, context, feedback):
    return algorithm.run(parameters, context, feedback)


def test_outputs_words_and_progress_arrive(algorithm, with_worker, parameters, context, feedback, tmp_path):
    with_worker(MAP)
    outputs, fine = run(algorithm("landcovermap"), parameters, context, feedback)
    assert fine, feedback.errors
    assert outputs == {
        "OUTPUT": parameters["OUTPUT"],
        **dict.fromkeys(("CONFIDENCE", "PROBABILITIES", "ENTROPY", "MARGIN", "NOVELTY", "CONTRIBUTIONS")),
        "DEVICE_USED": "cpu",
    }
    assert os.path.exists(parameters["OUTPUT"])
    assert feedback.phases == ["mapping", "writing"]
    assert feedback.fractions == sorted(feedback.fractions)
    assert feedback.fractions[-1] == 100.0
    assert "a cloud" in feedback.warnings
    assert any("device cpu" in text for text in feedback.infos)
    assert feedback.commands[0].startswith("rsfusion map --optical")
    assert '"kind": "map"' in feedback.debug[0]


def test_an_unknown_key_is_warned_of(algorithm, with_worker, parameters, context, feedback):
    with_worker(MAP)
    assert run(algorithm("landcovermap"), dict(parameters, CONFIDENC="x.tif"), context, feedback)[1]
    assert "There is no parameter 'CONFIDENC', it is ignored. Did you mean CONFIDENCE?" in feedback.warnings


def test_a_temporary_output_gets_a_path(algorithm, with_worker, parameters, context, feedback):
    with_worker(MAP)
    outputs, fine = run(algorithm("landcovermap"), dict(parameters, OUTPUT="TEMPORARY_OUTPUT"), context, feedback)
    assert fine
    assert outputs["OUTPUT"].endswith(".tif")
    assert os.path.exists(outputs["OUTPUT"])


def test_an_error_of_the_worker_fails_the_algorithm(algorithm, with_worker, parameters, context, feedback):
    with_worker("say(event='error', message='The model wants band B11.', hint='Add it.', kind='E'); sys.exit(1)")
    _, fine = run(algorithm("landcovermap"), parameters, context, feedback)
    assert not fine
    assert "The model wants band B11. Add it." in "".join(feedback.errors)


def test_a_crash_shows_the_last_words_and_leaves_a_log(algorithm, with_worker, parameters, context, feedback):
    from rsfusion_plugin.settings import data_folder

    with_worker("sys.stderr.write('libgdal fell over\\n'); sys.exit(5)")
    assert not run(algorithm("landcovermap"), parameters, context, feedback)[1]
    text = "".join(feedback.errors)
    assert "exit code 5" in text
    assert "libgdal fell over" in text
    logs = os.path.join(data_folder(), "logs")
    assert logs in text
    assert any(name.startswith("worker-") for name in os.listdir(logs))


def test_without_a_worker_a_run_fails_and_says_why(algorithm, parameters, context, feedback):
    """3.22's qgis_process runs an algorithm whatever ``canExecute`` says."""
    assert not run(algorithm("landcovermap"), parameters, context, feedback)[1]
    assert "rsfusion:setupenvironment" in "".join(feedback.errors)


def test_a_step_of_a_model_is_checked_although_nobody_asks(algorithm, with_worker, parameters, context, feedback):
    with_worker(MAP)
    assert not run(algorithm("landcovermap"), dict(parameters, OUTPUT=parameters["OPTICAL"][0]), context, feedback)[1]
    assert "is an input as well" in "".join(feedback.errors)


def test_cancelling_ends_within_two_seconds(algorithm, with_worker, parameters, context, feedback):
    with_worker("say(event='progress', fraction=0.1, phase='mapping'); sys.stdin.read(); say(event='cancelled')")
    feedback.progressChanged.connect(lambda fraction: feedback.cancel())
    start = time.monotonic()
    assert not run(algorithm("landcovermap"), parameters, context, feedback)[1]
    assert time.monotonic() - start < 2.0
    assert "The job was cancelled." in "".join(feedback.infos)


def test_the_files_of_a_job_are_removed(algorithm, with_worker, parameters, polygons, context, feedback):
    with_worker("say(event='log', level='info', text='FILE ' + sys.argv[1] + '|' + job['mask'])\n" + MAP)
    assert run(algorithm("landcovermap"), dict(parameters, MASK=polygons()), context, feedback)[1]
    (line,) = [text for text in feedback.infos if text.startswith("FILE ")]
    for path in line[5:].split("|"):
        assert not os.path.exists(path)
        assert not os.path.exists(os.path.dirname(path))


def test_only_the_newest_logs_are_kept(provider, tmp_path):
    from rsfusion_plugin.algorithms import base
    from rsfusion_plugin.settings import data_folder

    folder = os.path.join(data_folder(), "logs")
    os.makedirs(folder, exist_ok=True)
    for number in range(40):
        with open(os.path.join(folder, f"worker-3000-{number:02d}.log"), "w") as file:
            file.write("old")
    path = base._new_log()
    names = [name for name in os.listdir(folder) if name.startswith("worker-")]
    assert len(names) == base._LOGS_KEPT - 1
    assert "worker-3000-39.log" in names
    assert "worker-3000-00.log" not in names
    assert not os.path.exists(path)


PALETTED = """<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis version="3.22.16"><pipe><rasterrenderer type="paletted" band="1" opacity="1" alphaBand="-1" nodataColor="">
<colorPalette><paletteEntry value="1" color="#0000ff" label="Open water" alpha="255"/></colorPalette>
</rasterrenderer></pipe></qgis>"""


def test_a_loaded_result_has_its_own_style(provider, with_worker, parameters, context, feedback, tmp_path):
    """As in the QGIS window: Processing loads the result, the class names of the .qml are in the legend."""
    from processing.gui.Postprocessing import handleAlgorithmResults
    from qgis.core import QgsProcessingOutputLayerDefinition, QgsProject

    (tmp_path / "map.qml").write_text(PALETTED)
    with_worker(MAP)
    subject = provider.algorithm("landcovermap").create()
    definition = QgsProcessingOutputLayerDefinition(parameters["OUTPUT"], QgsProject.instance())
    values = dict(parameters, OUTPUT=definition)
    _, fine = run(subject, values, context, feedback)
    assert fine, feedback.errors
    assert handleAlgorithmResults(subject, context, feedback, parameters=values)
    (layer,) = QgsProject.instance().mapLayers().values()
    assert layer.source() == parameters["OUTPUT"]
    assert layer.renderer().type() == "paletted"
    assert [entry.label for entry in layer.renderer().classes()] == ["Open water"]


def test_a_sample_scene_is_added_to_the_project(provider, with_worker, raster, context, feedback, tmp_path):
    from processing.gui.Postprocessing import handleAlgorithmResults
    from qgis.core import QgsProject

    path = raster()
    with_worker(f"say(event='result', outputs={{'OUTPUT': job['output'], 'OPTICAL': {path!r}}})")
    subject = provider.algorithm("samplescene").create()
    outputs, fine = run(subject, {"OUTPUT": str(tmp_path / "scene")}, context, feedback)
    assert fine
    assert outputs["OPTICAL"] == path
    assert outputs["TRUTH"] is None
    assert handleAlgorithmResults(subject, context, feedback, parameters={})
    assert [layer.source() for layer in QgsProject.instance().mapLayers().values()] == [path]


CHAIN = {
    "sample-scene": """
        import shutil
        os.makedirs(job["output"])
        names = dict(OPTICAL="optical.tif", SAR="sar.tif", ELEVATION="surface.tif", TRUTH="truth.tif", LABELS="l.gpkg")
        paths = {key: os.path.join(job["output"], name) for key, name in names.items()}
        for key, path in paths.items():
            shutil.copy(VECTOR if key == "LABELS" else RASTER, path)
        outputs = dict(paths, OUTPUT=job["output"], REFERENCE=paths["LABELS"])
    """,
    "finetune": """
        open(job["output_model"], "w").write(json.dumps(job))
        outputs = dict(OUTPUT_MODEL=job["output_model"], OVERALL_ACCURACY=0.9, MACRO_F1=0.8, DEVICE_USED="cpu")
        outputs["MODEL_USED"] = "Random forest on pixels"
    """,
    "map": """
        import shutil
        json.load(open(job["model"]))
        shutil.copy(job["inputs"]["optical"][0], job["output"])
        outputs = dict(OUTPUT=job["output"], DEVICE_USED="cpu")
    """,
    "accuracy": """
        open(job["report"], "w").write(json.dumps(job))
        outputs = dict(REPORT=job["report"], OVERALL_ACCURACY=0.75, MACRO_F1=0.5)
    """,
}


@pytest.fixture
def chain_worker(with_worker, raster, polygons, tmp_path):
    """A worker that makes believable outputs of every job."""
    from qgis.core import QgsProject, QgsVectorFileWriter

    vector = str(tmp_path / "source.gpkg")
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName = "GPKG"
    QgsVectorFileWriter.writeAsVectorFormatV3(polygons(), vector, QgsProject.instance().transformContext(), options)
    lines = ["RASTER, VECTOR = {!r}, {!r}".format(raster("source.tif"), vector)]
    for kind, body in CHAIN.items():
        lines.append(f"if job['kind'] == {kind!r}:")
        lines.append(textwrap.indent(textwrap.dedent(body), "    "))
    with_worker("\n".join([*lines, "say(event='result', outputs=outputs)"]))


def chained_model():
    """Sample scene, training, map and assessment as a model, as the designer would build it."""
    from qgis.core import (
        QgsProcessingModelAlgorithm,
        QgsProcessingModelChildAlgorithm,
        QgsProcessingModelChildParameterSource,
        QgsProcessingModelOutput,
    )

    from_output = QgsProcessingModelChildParameterSource.fromChildOutput
    value = QgsProcessingModelChildParameterSource.fromStaticValue
    rasters = {key: [from_output("scene", key)] for key in ("OPTICAL", "SAR", "ELEVATION")}
    steps = {
        "scene": ("samplescene", {"SIZE": [value(64)], "SEED": [value(1)]}, {}),
        "train": (
            "finetune",
            dict(rasters, LABELS=[from_output("scene", "LABELS")], CLASS_FIELD=[value("class")]),
            {},
        ),
        "map": ("landcovermap", dict(rasters, MODEL=[from_output("train", "OUTPUT_MODEL")]), {"map": "OUTPUT"}),
        "assess": (
            "accuracy",
            {
                "MAP": [from_output("map", "OUTPUT")],
                "REFERENCE": [from_output("scene", "REFERENCE")],
                "CLASS_FIELD": [value("class")],
            },
            {"report": "REPORT"},
        ),
    }
    model = QgsProcessingModelAlgorithm("chain", "tests")
    for identifier, (name, sources, outputs) in steps.items():
        child = QgsProcessingModelChildAlgorithm("rsfusion:" + name)
        child.setChildId(identifier)
        for definition in child.algorithm().parameterDefinitions():
            # The designer writes every default into the step.
            if not definition.isDestination() and definition.defaultValue() is not None:
                child.addParameterSources(definition.name(), [value(definition.defaultValue())])
        for key, source in sources.items():
            child.addParameterSources(key, source)
        model_outputs = {}
        for title, key in outputs.items():
            output = QgsProcessingModelOutput(title)
            output.setChildId(identifier)
            output.setChildOutputName(key)
            model_outputs[title] = output
        child.setModelOutputs(model_outputs)
        model.addChildAlgorithm(child)
    model.updateDestinationParameters()
    return model


def test_a_model_of_all_steps_is_valid_and_runs(provider, chain_worker, context, feedback, tmp_path):
    model = chained_model()
    for identifier in ("scene", "train", "map", "assess"):
        fine, problems = model.validateChildAlgorithm(identifier)
        assert fine, problems
    assert model.validate()[0], model.validate()
    keys = [definition.name() for definition in model.parameterDefinitions()]
    assert sorted(keys) == ["assess:report", "map:map"]
    values = {"map:map": str(tmp_path / "map.tif"), "assess:report": str(tmp_path / "report.html")}
    outputs, fine = run(model, values, context, feedback)
    assert fine, feedback.errors
    assert os.path.exists(outputs["map:map"])
    report = (tmp_path / "report.html").read_text()
    assert '"kind": "accuracy"' in report
    assert str(tmp_path / "map.tif") in report
    assert not [text for text in feedback.warnings if "no parameter" in text]


def test_a_batch_runs_each_row(provider, chain_worker, raster, feedback, context, tmp_path):
    from processing.gui.AlgorithmExecutor import execute

    subject = provider.algorithm("landcovermap")
    model = tmp_path / "m.safetensors"
    model.write_text("{}")
    rows = [
        {"OPTICAL": [raster(name + ".tif")], "MODEL": str(model), "OUTPUT": str(tmp_path / (name + "_map.tif"))}
        for name in ("north", "south")
    ]
    for row in rows:
        fine, _ = execute(subject, row, context, feedback)
        assert fine, feedback.errors
        assert os.path.exists(row["OUTPUT"])


def test_the_setup_reports_failure_and_success(provider, algorithm, context, feedback, tmp_path, monkeypatch):
    """The building itself is tested in test_environment; here its words and its setting."""
    from rsfusion_plugin import settings
    from rsfusion_plugin.algorithms import setup_environment

    lock = tmp_path / "worker.lock"
    lock.write_text("# nothing\n")
    script = tmp_path / "worker.py"
    script.write_text(
        "import json; print(json.dumps(dict(event='hello', protocol=1, version='0', python='3', torch='2', device='c')))"
    )
    monkeypatch.setattr(setup_environment, "lock_file", lambda: str(lock))
    monkeypatch.setattr(setup_environment, "worker_script", lambda: str(script))
    busy = tmp_path / "busy"
    busy.mkdir()
    (busy / "file").write_text("mine")
    assert not run(algorithm("setupenvironment"), {"FOLDER": str(busy)}, context, feedback)[1]
    assert "nothing was changed" in "".join(feedback.errors)
    folder = tmp_path / "environment"
    try:
        outputs, fine = run(algorithm("setupenvironment"), {"FOLDER": str(folder)}, context, feedback)
        assert fine, feedback.errors
        assert os.path.isfile(outputs["OUTPUT_PYTHON"])
        assert settings.worker_python() == outputs["OUTPUT_PYTHON"]
        assert feedback.fractions[-1] == 100.0
    finally:
        settings.set_worker_python("")
