"""The provider and what every algorithm has to offer."""

import re
import subprocess
import sys
import textwrap
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

INPUTS = {
    "OPTICAL",
    "SAR",
    "ELEVATION",
    "OTHER",
    "OPTICAL_SENSOR",
    "SAR_SENSOR",
    "ELEVATION_SENSOR",
    "OTHER_SENSOR",
    "RESOLUTION",
    "SENTINEL2_OFFSET",
}
TRAINING = {"LABELS", "CLASS_FIELD", "BASE_MODEL", "ARCHITECTURE", "EPOCHS", "SEED", "DEVICE"}
PRETRAINING = {
    "SCENES",
    "LABELS",
    "CLASS_FIELD",
    "METHOD",
    "SETTING",
    "SWITCHES",
    "ARCHITECTURE",
    "ENCODER",
    "SIZE",
    "INITIAL_MODEL",
}
LENGTH = {"EPOCHS", "MINUTES", "WINDOWS", "BATCH_SIZE", "ACCUMULATION", "SEED", "DEVICE"}
PARTS = {"MODE", "ENCODER", "FUSION", "SIZE", "MISSING_INPUTS", "ENCODER_WEIGHTS", "ENCODER_KEYS"}
SWITCHES = {"SPREAD_LABELS", "SELF_TRAINING", "CONSISTENCY"}
MAP_LAYERS = {"CONFIDENCE", "PROBABILITIES", "ENTROPY", "MARGIN", "NOVELTY", "CONTRIBUTIONS"}
MAPPING = {"MODEL", "EXTENT", "MASK", "OVERLAP", "DEVICE", "MISSING_INPUTS", "PRECISION", "FORMAT", "OUTPUT", *MAP_LAYERS}
SCENES = {"TRAINING", "CLASS_FIELD", "MULTI_LABEL", "UNITS", "EXTENT", "CELL_SIZE", "BASE_MODEL", "MODEL"}
SCENE = {"OPTICAL", "SAR", "ELEVATION", "LABELS", "REFERENCE", "TRUTH"}
# name: (display name, parameters, outputs)
ALGORITHMS = {
    "setupenvironment": ("Set up the worker environment", {"FOLDER"}, {"OUTPUT_PYTHON"}),
    "samplescene": ("Create a sample scene", {"SIZE", "SEED", "OUTPUT"}, {"OUTPUT"} | SCENE),
    "pretrain": (
        "Pre-train on unlabelled scenes",
        INPUTS | PRETRAINING | LENGTH | {"OUTPUT_MODEL", "REPORT"},
        {"OUTPUT_MODEL", "REPORT", "EFFECTIVE_RANK", "DEVICE_USED"},
    ),
    "distil": (
        "Distil to a smaller model",
        INPUTS | {"MODEL", "EPOCHS", "MINUTES", "WINDOWS", "SEED", "DEVICE", "OUTPUT_MODEL"},
        {"OUTPUT_MODEL", "AGREEMENT", "SPEED_RATIO", "DEVICE_USED"},
    ),
    "features": (
        "Extract features",
        INPUTS | {"MODEL", "COMPONENTS", "PICTURE", "EXTENT", "OVERLAP", "DEVICE", "FORMAT", "OUTPUT"},
        {"OUTPUT", "N_FEATURES", "DEVICE_USED"},
    ),
    "finetune": (
        "Fine-tune on labels",
        INPUTS
        | TRAINING
        | PARTS
        | SWITCHES
        | {"CLASS_SCHEME", "MINUTES", "VALIDATION_FRACTION", "BLOCK_SIZE", "OUTPUT_MODEL", "REPORT"},
        {"OUTPUT_MODEL", "REPORT", "MODEL_USED", "OVERALL_ACCURACY", "MACRO_F1", "EXPECTED_CALIBRATION_ERROR", "DEVICE_USED"},
    ),
    "landcovermap": (
        "Multimodal land-cover map",
        INPUTS | MAPPING,
        {"OUTPUT", *MAP_LAYERS, "DEVICE_USED"},
    ),
    "classifyscenes": (
        "Classify scenes",
        INPUTS | SCENES | {"VALIDATION_FRACTION", "SEED", "DEVICE", "OUTPUT", "OUTPUT_MODEL", "REPORT"},
        {"OUTPUT", "OUTPUT_MODEL", "REPORT", "CLASSIFIER_USED", "TOP1", "TOP3", "MACRO_F1", "MAP", "VALIDATION_UNITS"}
        | {"DEVICE_USED"},
    ),
    "accuracy": (
        "Accuracy assessment",
        {"MAP", "REFERENCE", "CLASS_FIELD", "STRATA_FIELD", "STRATA", "REPORT"},
        {"REPORT", "OVERALL_ACCURACY", "MACRO_F1", "AREA_ADJUSTED_ACCURACY", "AREA_ADJUSTED_HALF_WIDTH"},
    ),
    "suggestlabels": (
        "Suggest where to label next",
        INPUTS | {"MODEL", "EXISTING_LABELS", "COUNT", "EXTENT", "UNIT_PIXELS", "SEED", "DEVICE", "OUTPUT"},
        {"OUTPUT", "N_PLACES", "DEVICE_USED"},
    ),
    "pseudolabels": (
        "Label from spectral indices",
        INPUTS | {"COUNT", "MINIMUM_PIXELS", "EXTENT", "OUTPUT"},
        {"OUTPUT", "N_POLYGONS"},
    ),
    "samplingdesign": (
        "Sampling design",
        {"MAP", "SIZE", "MINIMUM", "SEED", "OUTPUT"}
        | {"EXPECTED_ACCURACY", "TARGET_STANDARD_ERROR", "ALLOCATION", "MINIMUM_DISTANCE"},
        {"OUTPUT", "SAMPLE_SIZE", "EXPECTED_STANDARD_ERROR"},
    ),
    "cleanmap": (
        "Clean a map",
        {"MAP", "MINIMUM_AREA", "UNIT", "CONNECTEDNESS", "MAJORITY", "KEEP", "OUTPUT"},
        {"OUTPUT", "SMALL_PATCHES"},
    ),
    "vectorizemap": ("Map to polygons", {"MAP", "POLYGONS", "SIMPLIFY", "OUTPUT"}, {"OUTPUT", "N_POLYGONS"}),
    "zonalareas": (
        "Areas of classes in zones",
        {"MAP", "ZONES", "ID_FIELD", "OUTPUT"},
        {"OUTPUT", "N_ZONES", "TOTAL_HECTARES"},
    ),
    "detectchange": (
        "Detect change between images",
        INPUTS
        | {"AFTER_OPTICAL", "AFTER_SAR", "AFTER_ELEVATION", "AFTER_OTHER", "AFTER_SENTINEL2_OFFSET"}
        | {"LABELS", "CLASS_FIELD", "UNCHANGED", "NO_CHANGE_PROBABILITY", "SEED"}
        | {"MODE", "BASE_MODEL", "EPOCHS", "DEVICE"}
        | {"OUTPUT", "PROBABILITY", "VARIATES", "REPORT"},
        {"OUTPUT", "PROBABILITY", "VARIATES", "REPORT"}
        | {"CHANGED_HECTARES", "CHANGED_PERCENT", "OVERALL_ACCURACY", "MACRO_F1", "MODEL_USED"},
    ),
    "changemap": (
        "Change between two maps",
        {"BEFORE", "AFTER", "OUTPUT", "MATRIX", "SUMMARY"},
        {"OUTPUT", "MATRIX", "SUMMARY", "CHANGED_HECTARES", "CHANGED_PERCENT"},
    ),
}


def test_the_provider_offers_exactly_the_published_algorithms(provider):
    assert provider.id() == "rsfusion"
    assert provider.versionInfo() == "0.1.0"
    assert not provider.icon().isNull()
    assert {algorithm.id() for algorithm in provider.algorithms()} == {"rsfusion:" + name for name in ALGORITHMS}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_names_and_keys_are_the_published_ones(algorithm, name):
    display_name, parameters, outputs = ALGORITHMS[name]
    subject = algorithm(name)
    assert subject.displayName() == display_name
    assert {definition.name() for definition in subject.parameterDefinitions()} == parameters
    assert {definition.name() for definition in subject.outputDefinitions()} == outputs
    assert re.fullmatch("[a-z0-9]+", subject.name())


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_explains_itself(algorithm, name):
    subject = algorithm(name)
    assert len(subject.shortHelpString()) > 200
    assert subject.shortDescription().endswith(".")
    assert "<" not in subject.shortDescription()
    assert subject.group()
    assert re.fullmatch("[a-z]+", subject.groupId())
    assert subject.tags()
    for definition in subject.parameterDefinitions():
        assert len(definition.help()) > 20, definition.name()
        assert definition.description()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_has_an_icon_of_its_own(algorithm, provider, name):
    subject = algorithm(name)
    path = Path(subject.svgIconPath())
    assert path.name == name + ".svg"
    assert ElementTree.parse(path).getroot().tag.endswith("svg")
    assert not subject.icon().pixmap(24, 24).isNull()


@pytest.mark.parametrize("name", sorted(set(ALGORITHMS) - {"setupenvironment"}))
def test_without_a_worker_every_algorithm_says_how_to_get_one(algorithm, name):
    able, reason = algorithm(name).canExecute()
    assert not able
    assert "rsfusion:setupenvironment" in reason


def test_the_setup_runs_without_a_worker_and_not_in_batch(algorithm):
    from qgis.core import QgsProcessingAlgorithm

    subject = algorithm("setupenvironment")
    assert subject.canExecute()[0]
    assert not subject.flags() & QgsProcessingAlgorithm.Flag.FlagSupportsBatch
    for name in set(ALGORITHMS) - {"setupenvironment"}:
        assert algorithm(name).flags() & QgsProcessingAlgorithm.Flag.FlagSupportsBatch


def test_choices_are_static_strings_and_default_to_auto(algorithm):
    for name in ("finetune", "landcovermap"):
        subject = algorithm(name)
        for key in ("OPTICAL_SENSOR", "SAR_SENSOR", "ELEVATION_SENSOR", "OTHER_SENSOR", "SENTINEL2_OFFSET", "DEVICE"):
            definition = subject.parameterDefinition(key)
            assert definition.usesStaticStrings()
            assert definition.defaultValue() == "auto"
            assert definition.options()[0] == "auto"


def test_parts_of_a_model_are_advanced_and_left_to_the_architecture(algorithm):
    from qgis.core import QgsProcessingParameterDefinition

    advanced = QgsProcessingParameterDefinition.Flag.FlagAdvanced
    subject = algorithm("finetune")
    for key in ("ENCODER", "FUSION", "SIZE"):
        definition = subject.parameterDefinition(key)
        assert definition.usesStaticStrings()
        assert definition.options()[0] == definition.defaultValue() == "auto"
        assert definition.flags() & advanced
        assert "'auto'" in definition.help()
    for name in ("finetune", "landcovermap"):
        subject = algorithm(name)
        definition = subject.parameterDefinition("MISSING_INPUTS")
        assert definition.usesStaticStrings()
        assert definition.options() == ["allow", "require"]
        assert definition.defaultValue() == "allow"
        assert definition.flags() & advanced


def test_every_method_says_when_to_use_it(algorithm):
    subject = algorithm("pretrain")
    definition = subject.parameterDefinition("METHOD")
    assert definition.usesStaticStrings()
    assert definition.options()[0] == definition.defaultValue() == "latent_targets"
    assert len(definition.options()) == 8
    for name in definition.options():
        assert name + ": " in definition.help()


def test_every_architecture_says_when_to_use_it(algorithm):
    subject = algorithm("finetune")
    definition = subject.parameterDefinition("ARCHITECTURE")
    assert definition.usesStaticStrings()
    assert definition.options()[0] == definition.defaultValue() == "unet_intermediate"
    assert len(definition.options()) > 10
    for name in definition.options():
        assert name + ": " in definition.help()


def test_unloading_takes_everything_back(qgis_app):
    from processing.core.ProcessingConfig import ProcessingConfig
    from qgis.core import QgsApplication

    import rsfusion_plugin

    registry = QgsApplication.processingRegistry()
    assert registry.providerById("rsfusion") is None
    plugin = rsfusion_plugin.classFactory(None)
    plugin.initGui()
    plugin.initProcessing()
    assert registry.providerById("rsfusion") is plugin.provider
    assert "RSFUSION_PYTHON" in ProcessingConfig.settings
    plugin.unload()
    assert registry.providerById("rsfusion") is None
    assert "RSFUSION_PYTHON" not in ProcessingConfig.settings
    plugin.unload()


def test_the_option_and_the_setting_are_one(provider, worker_setting, tmp_path):
    from processing.core.ProcessingConfig import ProcessingConfig
    from qgis.core import QgsSettings

    from rsfusion_plugin import settings

    option = ProcessingConfig.settings["RSFUSION_PYTHON"]
    option.setValue(str(tmp_path))
    option.save()
    assert QgsSettings().value("rsfusion/worker_python") == str(tmp_path)
    assert settings.worker_python() == str(tmp_path)
    worker_setting("/somewhere/else")
    assert option.value == "/somewhere/else"
    assert settings.worker_python() == "/somewhere/else"


def test_the_plugin_loads_fast_and_without_any_dependency(tmp_path):
    """With modules that raise in place of those that only the worker has."""
    for name in ("torch", "rasterio", "geopandas", "pandas", "sklearn", "pydantic", "shapely", "numpy", "core"):
        (tmp_path / (name + ".py")).write_text("raise RuntimeError('imported by the plugin: ' + __name__)\n")
    program = """
        import sys, time
        from qgis.core import QgsApplication
        application = QgsApplication([], False)
        application.initQgis()
        sys.path[:0] = [{shadows!r}, {root!r}]
        start = time.monotonic()
        import rsfusion_plugin
        plugin = rsfusion_plugin.classFactory(None)
        plugin.initProcessing()
        names = [algorithm.id() for algorithm in plugin.provider.algorithms()]
        seconds = time.monotonic() - start
        assert len(names) == {count}, names
        print("SECONDS", seconds)
        plugin.unload()
        application.exitQgis()
    """
    program = textwrap.dedent(program).format(shadows=str(tmp_path), root=str(ROOT), count=len(ALGORITHMS))
    start = time.monotonic()
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 0, answer.stderr
    seconds = float(re.search(r"SECONDS ([\d.]+)", answer.stdout).group(1))
    assert seconds < 1.0, f"{seconds} s of {time.monotonic() - start} s"


def test_the_metadata_has_every_mandatory_field():
    import configparser

    metadata = configparser.ConfigParser(interpolation=None)
    metadata.read(str(ROOT / "rsfusion_plugin" / "metadata.txt"), encoding="utf-8")
    general = metadata["general"]
    mandatory = ["name", "qgisMinimumVersion", "description", "about", "version", "author", "email", "repository", "tracker"]
    for key in mandatory:
        assert general.get(key), key
    assert general["hasProcessingProvider"] == "yes"
    assert general["qgisMinimumVersion"] == "3.22"
    assert general["qgisMaximumVersion"] == "4.99"
    assert (ROOT / "rsfusion_plugin" / general["icon"]).is_file()
    assert "plugin" not in general["name"].lower()
