"""The commands that the README shows, run as they stand there, on a smaller scene and with fewer epochs."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow

# What makes a run short, and keeps it out of folders that others may use.
SHORTER = (("SIZE=500", "SIZE=112"), ("--size 500", "--size 112"), ("EPOCHS=40", "EPOCHS=2"), ("--epochs 40", "--epochs 2"))


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
        ("command line", ["model.safetensors", "training.html", "map.tif", "probabilities.tif", "accuracy.html"]),
    ],
)
def test_the_commands_of_the_readme_work(name, results, tmp_path, real_python):
    script = commands(name)
    for long, short in SHORTER:
        script = script.replace(long, short)
    folder = re.search(r"cd (/tmp/\S+)", script).group(1)
    script = script.replace(folder, str(tmp_path / "scene"))
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
    assert marked == {"headless", "command line"}
