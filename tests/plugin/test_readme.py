"""The commands that the README shows, run as they stand there, on a smaller scene and with fewer epochs."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow

# What makes a run short, and keeps it out of folders that others may use.
SHORTER = (("SIZE=500", "SIZE=112"), ("--size 500", "--size 112"), ("EPOCHS=24", "EPOCHS=2"), ("--epochs 24", "--epochs 2"))


def commands(name):
    """The block of commands that the README marks with ``<!-- run: name -->``."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"<!-- run: " + re.escape(name) + r" -->\n```bash\n(.*?)```", text, re.DOTALL)
    assert len(found) == 1, "the README has no such block, or several"
    return found[0]


@pytest.mark.parametrize(
    ("name", "results"),
    [
        ("headless", ["model.safetensors", "training.html", "map.tif", "map.qml", "confidence.tif", "accuracy.html"]),
        ("models", ["models.json"]),
        ("missing inputs", ["model.safetensors", "training.html", "radar_alone.tif", "confidence.tif", "both.tif"]),
        ("pretraining", ["base.safetensors", "pretraining.html", "features.tif", "model.safetensors"]),
        (
            "after the map",
            ["clean.tif", "polygons.gpkg", "polygons.qml", "areas.csv", "change.tif", "matrix.csv", "balance.csv"],
        ),
        ("scenes", ["scenes.gpkg", "scenes.qml", "scenes.html", "scenes.safetensors", "radar_alone.gpkg"]),
        (
            "command line",
            ["model.safetensors", "training.html", "map.tif", "probabilities.tif", "places.gpkg", "accuracy.html"],
        ),
    ],
)
def test_the_commands_of_the_readme_work(name, results, tmp_path, real_python):
    script = commands(name)
    for long, short in SHORTER:
        script = script.replace(long, short)
    # Every path below /tmp becomes one below the test's own folder.
    (tmp_path / "scene").mkdir()
    script = re.sub(r"/tmp/rsfusion-(headless|cli|missing|pretraining|after|scenes)\b", str(tmp_path / "scene"), script)
    script = script.replace("/tmp/rsfusion-models.json", str(tmp_path / "scene" / "models.json"))
    assert "/tmp/rsfusion" not in script.replace(str(tmp_path), "")
    answer = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT,
        env=dict(os.environ, QGIS_CUSTOM_CONFIG_PATH=str(tmp_path / "profile")),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert answer.returncode == 0, answer.stdout[-3000:] + answer.stderr[-3000:]
    missing = [result for result in results if not (tmp_path / "scene" / result).is_file()]
    assert not missing


def test_every_block_of_commands_is_run_by_a_test():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    marked = set(re.findall(r"<!-- run: (.*?) -->\n```bash", text))
    assert text.count("```bash") == len(marked)
    assert marked == {"headless", "command line", "models", "missing inputs", "pretraining", "after the map", "scenes"}
