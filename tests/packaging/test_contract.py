"""The plugin and ``core`` are never loaded together; here their words are compared."""

import configparser
import importlib.util
import subprocess
import sys
import types
from pathlib import Path
from typing import get_args

import pytest

import core
from core.jobs import events, schemas

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "rsfusion_plugin"


def plugin_module(name):
    """A module of the plugin that needs no QGIS, without running the package around it."""
    package = "plugin_under_test." + name.rpartition(".")[0]
    for part in ("plugin_under_test", package):
        sys.modules.setdefault(part, types.ModuleType(part))
        folder = PLUGIN.joinpath(*part.split(".")[1:])
        sys.modules[part].__path__ = [str(folder)]
    path = PLUGIN.joinpath(*name.split(".")).with_suffix(".py")
    spec = importlib.util.spec_from_file_location("plugin_under_test." + name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


choices = plugin_module("algorithms.choices")
command_line = plugin_module("algorithms.command_line").command_line


def test_sensors_are_those_of_the_registry():
    from core.sensors.registry import sensors_of_role

    for role, names in choices.SENSORS.items():
        assert names == tuple(sensor.name for sensor in sensors_of_role(role.lower())), role


def test_the_main_raster_is_the_same_to_both():
    from core.scenes.scene import ROLES

    assert tuple(role.lower() for role in choices.LEADING_ROLES) == ROLES


def test_choices_are_those_of_the_schemas():
    def values(model, field):
        return get_args(model.model_fields[field].annotation)

    def part_names(field):
        """Of a part that may be left out."""
        return get_args(get_args(schemas.FinetuneJob.model_fields[field].annotation)[0])

    assert tuple(choices.ARCHITECTURES) == values(schemas.FinetuneJob, "architecture")
    for field, names in (("encoder", choices.ENCODERS), ("fusion", choices.FUSIONS), ("size", choices.SIZES)):
        assert names == (choices.AUTO, *part_names(field)), field
    for job in (schemas.FinetuneJob, schemas.MapJob):
        assert values(job, "missing_inputs") == choices.MISSING_INPUTS
    assert values(schemas.ClassifyScenesJob, "multi_label") == choices.MULTI_LABEL
    assert set(choices.FORMATS) == set(values(schemas.MapJob, "format"))
    assert values(schemas.MapJob, "precision") == choices.PRECISIONS
    assert values(schemas.SamplingDesignJob, "allocation") == choices.ALLOCATIONS
    assert values(schemas.CleanMapJob, "unit") == choices.AREA_UNITS
    assert values(schemas.CleanMapJob, "connectedness") == choices.CONNECTEDNESS
    assert values(schemas.VectorizeMapJob, "polygons") == choices.POLYGONS
    assert set(choices.SENTINEL2_OFFSETS) == set(values(schemas.Inputs, "sentinel2_offset"))


def test_architectures_are_those_of_the_registry():
    from core.models.architectures import ARCHITECTURES

    assert list(choices.ARCHITECTURES.items()) == [(entry.name, entry.use) for entry in ARCHITECTURES.values()]


def test_methods_are_those_of_the_registry():
    from core.pretraining.methods import METHODS

    assert list(choices.METHODS.items()) == [(entry.name, entry.use) for entry in METHODS.values()]
    assert tuple(choices.METHODS) == get_args(schemas.PretrainJob.model_fields["method"].annotation)
    assert get_args(schemas.PretrainJob.model_fields["setting"].annotation) == choices.SETTINGS
    assert get_args(schemas.FinetuneJob.model_fields["mode"].annotation) == choices.MODES
    assert get_args(schemas.DetectChangeJob.model_fields["mode"].annotation) == choices.CHANGE_MODES


def test_protocol_and_version_are_the_same():
    assert plugin_module("worker.process").PROTOCOL == events.PROTOCOL
    metadata = configparser.ConfigParser(interpolation=None)
    metadata.read(PLUGIN / "metadata.txt", encoding="utf-8")
    assert metadata["general"]["version"] == core.__version__


@pytest.fixture(scope="module")
def declared():
    """Keys, defaults and choices of every algorithm, asked of the plugin in the Python of QGIS."""
    import json
    import shutil

    python = "/usr/bin/python3"
    if not shutil.which("qgis_process"):
        pytest.skip("QGIS is not installed on this machine")
    program = """
import json, os, sys
os.environ["QT_QPA_PLATFORM"] = "offscreen"
sys.path.insert(0, {root!r})
from qgis.core import QgsApplication
application = QgsApplication([], False)
application.initQgis()
import rsfusion_plugin
plugin = rsfusion_plugin.classFactory(None)
plugin.initProcessing()
found = {{
    algorithm.name(): {{
        definition.name(): definition.defaultValue()
        for definition in algorithm.parameterDefinitions()
    }}
    for algorithm in plugin.provider.algorithms()
}}
print("FOUND" + json.dumps(found))
plugin.unload()
application.exitQgis()
"""
    answer = subprocess.run(
        [python, "-c", program.format(root=str(ROOT))], capture_output=True, text=True, check=False, timeout=60
    )
    assert "FOUND" in answer.stdout, answer.stderr
    return json.loads(answer.stdout.partition("FOUND")[2])


LABEL_KEYS = {"path": "LABELS", "class_field": "CLASS_FIELD", "class_scheme": "CLASS_SCHEME"}


@pytest.mark.parametrize(
    ("algorithm", "job"),
    [
        ("samplescene", schemas.SampleSceneJob),
        ("finetune", schemas.FinetuneJob),
        ("pretrain", schemas.PretrainJob),
        ("distil", schemas.DistilJob),
        ("landcovermap", schemas.MapJob),
        ("features", schemas.FeaturesJob),
        ("accuracy", schemas.AccuracyJob),
        ("samplingdesign", schemas.SamplingDesignJob),
        ("suggestlabels", schemas.SuggestLabelsJob),
        ("pseudolabels", schemas.PseudolabelsJob),
        ("cleanmap", schemas.CleanMapJob),
        ("vectorizemap", schemas.VectorizeMapJob),
        ("zonalareas", schemas.ZonalAreasJob),
        ("changemap", schemas.ChangeMapJob),
        ("classifyscenes", schemas.ClassifyScenesJob),
        ("detectchange", schemas.DetectChangeJob),
    ],
)
def test_keys_and_defaults_are_those_of_the_schemas(declared, algorithm, job):
    """A key of the plugin is the schema's field in capitals; labels and inputs are groups of fields."""
    expected = {}
    for name, field in job.model_fields.items():
        if name in ("inputs", "scenes"):
            expected.update({key.upper(): value.default for key, value in schemas.Inputs.model_fields.items()})
        elif name == "labels" and job in (schemas.PretrainJob, schemas.DetectChangeJob):
            # Labels that are only asked, and kinds of change, are classes of no scheme.
            expected.update({"LABELS": None, "CLASS_FIELD": None})
        elif name == "labels":
            expected.update({LABEL_KEYS[key]: schemas.Labels.model_fields[key].default for key in LABEL_KEYS})
        elif name == "training":
            expected.update({"TRAINING": None, "CLASS_FIELD": None})
        elif name == "reference":
            expected.update({"REFERENCE": None, "CLASS_FIELD": None})
        elif name == "zones":
            expected.update({"ZONES": None, "ID_FIELD": None})
        elif name == "scenes_folder":
            expected["SCENES"] = None
        elif name in ("switches", "keep"):
            expected[name.upper()] = ""
        elif name in ("workers", "scheduler"):
            pass  # of the command line: the worker's environment of QGIS comes without Dask
        elif name != "kind":
            expected[name.upper()] = field.default
    assert set(declared[algorithm]) == set(expected)
    for key, default in expected.items():
        if isinstance(default, (str, int, float)) and not isinstance(default, bool):
            assert declared[algorithm][key] == default, key


JOBS = [
    {
        "kind": "detect-change",
        "inputs": {"optical": ["/a.tif"], "optical_sensor": "landsat_tm", "sentinel2_offset": "auto"},
        "after_optical": ["/b 1.tif", "/b 2.tif"],
        "after_sentinel2_offset": "yes",
        "labels": {"path": "/l.gpkg", "layer": "features", "class_field": "my class"},
        "unchanged": "as before",
        "mode": "network",
        "base_model": "/m.safetensors",
        "epochs": 5,
        "no_change_probability": 0.01,
        "seed": 3,
        "device": "cpu",
        "output": "/c.tif",
        "probability": "/p.tif",
        "variates": "/v.tif",
        "report": "/r.html",
    },
    {"kind": "sample-scene", "output": "/a folder/scene", "size": 64, "seed": 3},
    {
        "kind": "finetune",
        "inputs": {
            "optical": ["/a.tif", "/b c.tif"],
            "optical_sensor": "sentinel2_l2a",
            "sar": ["/d.tif"],
            "sar_sensor": "auto",
            "resolution": 10.0,
            "sentinel2_offset": "no",
        },
        "labels": {"path": "/l'é.gpkg", "layer": "features", "class_field": "my class", "class_scheme": "ipcc"},
        "base_model": "/base.safetensors",
        "architecture": "unet_early",
        "encoder": "vit",
        "fusion": "joint_tokens",
        "size": "tiny",
        "missing_inputs": "require",
        "mode": "auto",
        "spread_labels": True,
        "self_training": 2,
        "consistency": True,
        "epochs": 2,
        "minutes": 12.5,
        "seed": 1,
        "device": "cpu",
        "validation_fraction": 0.25,
        "block_size": 100.0,
        "output_model": "/m.safetensors",
        "report": "/r.html",
    },
    {
        "kind": "map",
        "inputs": {"elevation": ["/e.tif"], "elevation_sensor": "dsm", "sentinel2_offset": "auto"},
        "model": "/m.safetensors",
        "extent": {"left": 1.5, "bottom": -2.0, "right": 3.0, "top": 4.25, "crs": "EPSG:32633"},
        "mask": "/k.gpkg",
        "overlap": 0.5,
        "device": "auto",
        "missing_inputs": "require",
        "precision": "bfloat16",
        "format": "cog",
        "output": "/o.tif",
        "confidence": "/c.tif",
        "probabilities": "/p.tif",
        "entropy": "/e.tif",
        "margin": "/d.tif",
        "novelty": "/n.tif",
        "contributions": "/x.tif",
    },
    {
        "kind": "distil",
        "inputs": {"optical": ["/a.tif"], "optical_sensor": "auto", "sentinel2_offset": "auto"},
        "model": "/m.safetensors",
        "epochs": 3,
        "minutes": 1.5,
        "windows": 40,
        "seed": 4,
        "device": "cpu",
        "output_model": "/small.safetensors",
    },
    {
        "kind": "pretrain",
        "scenes": [{"optical": ["/a.tif", "/b c.tif"], "optical_sensor": "auto", "sar": ["/d.tif"], "sar_sensor": "sentinel1"}],
        "scenes_folder": "/further scenes",
        "method": "cross_scale_mae",
        "setting": "paper",
        "switches": {"contrast": "false", "mask_ratio": "0.5"},
        "architecture": "vit_cross_scale",
        "encoder": "vit",
        "size": "small",
        "initial_model": "/base.safetensors",
        "minutes": 2.5,
        "windows": 16,
        "batch_size": 8,
        "seed": 4,
        "device": "cpu",
        "output_model": "/m.safetensors",
        "report": "/r.html",
    },
    {
        "kind": "features",
        "inputs": {"optical": ["/e.tif"], "optical_sensor": "auto", "sentinel2_offset": "auto"},
        "model": "/m.safetensors",
        "components": 3,
        "picture": True,
        "extent": {"left": 1.5, "bottom": -2.0, "right": 3.0, "top": 4.25, "crs": "EPSG:32633"},
        "overlap": 0.5,
        "device": "cpu",
        "format": "cog",
        "output": "/o.tif",
    },
    {
        "kind": "classify-scenes",
        "inputs": {"optical": ["/e.tif"], "optical_sensor": "auto", "sentinel2_offset": "auto"},
        "training": {"path": "/t.gpkg", "layer": "features", "class_field": "my classes"},
        "multi_label": "yes",
        "extent": {"left": 1.5, "bottom": -2.0, "right": 3.0, "top": 4.25, "crs": "EPSG:32633"},
        "cell_size": 320.0,
        "base_model": "/b.safetensors",
        "validation_fraction": 0.25,
        "seed": 2,
        "device": "cpu",
        "output": "/o.gpkg",
        "output_model": "/m.safetensors",
        "report": "/r.html",
    },
    {
        "kind": "accuracy",
        "map": "/o.tif",
        "reference": {"path": "/p.gpkg", "class_field": "class"},
        "report": "/r.html",
    },
    {
        "kind": "accuracy",
        "map": "/o.tif",
        "reference": {"path": "/p.gpkg", "layer": "features", "class_field": "class"},
        "strata_field": "stratum",
        "strata": "/s.gpkg",
    },
    {
        "kind": "sampling-design",
        "map": "/o.tif",
        "expected_accuracy": "0.8, forest=0.9",
        "target_standard_error": 0.02,
        "size": 300,
        "allocation": "optimal",
        "minimum": 20,
        "minimum_distance": 100.0,
        "seed": 3,
        "output": "/s.gpkg",
    },
    {
        "kind": "suggest-labels",
        "inputs": {"optical": ["/a.tif"], "sar": ["/b 1.tif", "/b 2.tif"]},
        "model": "/m.safetensors",
        "existing_labels": "/l.gpkg",
        "count": 7,
        "unit_pixels": 100,
        "extent": {"left": 1.5, "bottom": -2.0, "right": 3.0, "top": 4.25, "crs": "EPSG:32633"},
        "seed": 2,
        "device": "cpu",
        "output": "/p.gpkg",
    },
    {
        "kind": "pseudolabels",
        "inputs": {"optical": ["/a.tif"], "sar": ["/b 1.tif", "/b 2.tif"]},
        "count": 7,
        "minimum_pixels": 4,
        "extent": {"left": 1.5, "bottom": -2.0, "right": 3.0, "top": 4.25, "crs": "EPSG:32633"},
        "output": "/p.gpkg",
    },
    {
        "kind": "clean-map",
        "map": "/o.tif",
        "minimum_area": 12.5,
        "unit": "pixels",
        "connectedness": "8",
        "majority": 5,
        "keep": ["Open water", "3"],
        "output": "/c.tif",
    },
    {"kind": "vectorize-map", "map": "/o.tif", "polygons": "classes", "simplify": 1.5, "output": "/v.gpkg"},
    {
        "kind": "zonal-areas",
        "map": "/o.tif",
        "zones": {"path": "/z.gpkg", "layer": "districts", "id_field": "my id"},
        "output": "/t.csv",
    },
    {
        "kind": "change-map",
        "before": "/o 1.tif",
        "after": "/o 2.tif",
        "output": "/t.tif",
        "matrix": "/m.csv",
        "summary": "/s.csv",
    },
]


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job["kind"])
def test_the_command_line_shown_in_the_log_asks_for_the_same_job(job, monkeypatch):
    """The line that the plugin shows is parsed by the real command line, and the jobs are compared."""
    import shlex

    from typer.testing import CliRunner

    from core import cli
    from core.commands import assessment, change, labelling, learning, mapping, products, scenes

    asked = []
    for module in (assessment, change, labelling, learning, mapping, products, scenes):
        monkeypatch.setattr(module, "execute", lambda found, as_json: asked.append(schemas.parse_job(found)))
    words = shlex.split(command_line(job))
    assert words[0] == "rsfusion"
    answer = CliRunner().invoke(cli.app, words[1:])
    assert answer.exit_code == 0, answer.output
    assert asked == [schemas.parse_job(job)]
