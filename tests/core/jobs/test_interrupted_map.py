"""Maps that are killed, and go on."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely

from core.mapping.journal import journal_folder
from core.models.model_file import save_model
from core.scenes.scene import SceneRequest, build_scene
from tests.core.finetuning.scenes import specification_for, write_raster
from tests.core.jobs.running import EPOCH, ROOT, Told, run_here, snapshot, strict_json
from tests.core.mapping.test_engine import card_of
from tests.core.models.specifications import random_model

PROGRAM = """
import json, sys
import core.jobs.mapping.preparation as module
from core.jobs.events import JobContext, json_lines
from core.jobs.runner import run_and_report
from core.jobs.schemas import parse_job

module.MAP_BYTES = int(sys.argv[2])
sys.exit(run_and_report(parse_job(json.loads(sys.argv[1])), JobContext(json_lines(sys.stdout))))
"""
ONE_COLUMN = 1
"""As many bytes as no map has: each panel is a column of tiles."""


@pytest.fixture(scope="module")
def wide_job(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Three columns of tiles and seven rows, with gaps, and all that can be asked for of one input."""
    folder = tmp_path_factory.mktemp("wide")
    values = np.random.default_rng(4).uniform(0.05, 0.6, (4, 1500, 700))
    values[:, 300:420, 100:500] = np.nan
    raster = write_raster(folder / "optical.tif", values, 10)
    scene = build_scene(SceneRequest({"optical": [raster]}, {"optical": "spot6_7"}))
    specification = specification_for(scene, 3).model_copy(update={"depth": 1})
    model = folder / "model.safetensors"
    save_model(model, random_model(specification), card_of(specification))
    return {"kind": "map", "inputs": {"optical": [raster], "optical_sensor": "spot6_7"}, "model": str(model)}


def with_outputs(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    layers = ("output", "confidence", "entropy", "probabilities")
    return job | {key: str(folder / f"{key}.tif") for key in layers}


def run_elsewhere(job: dict[str, Any], most_bytes: int = ONE_COLUMN, killed_at: int | None = None) -> Told:
    """Runs a job in a process of its own, which is killed at the so-manieth event that tells of progress."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SOURCE_DATE_EPOCH": EPOCH, "OMP_WAIT_POLICY": "PASSIVE"}
    # A panel has a column of tiles for each thread, and the events are counted.
    environment["OMP_NUM_THREADS"] = "1"
    program = [sys.executable, "-c", PROGRAM, json.dumps(job), str(most_bytes)]
    told, count = Told(0), 0
    with subprocess.Popen(program, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            told.events.append(strict_json(line))
            count += told.last["event"] == "progress"
            if count == killed_at:
                process.send_signal(signal.SIGKILL)
                break
    told.code = process.returncode
    return told


@pytest.fixture(scope="module")
def whole(wide_job: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes | None]:
    """The map of a run that nothing interrupts, in one panel."""
    folder = tmp_path_factory.mktemp("whole")
    told = run_elsewhere(with_outputs(wide_job, folder), 2**40)
    assert told.code == 0, told.last
    assert "side by side" not in told.texts("info")
    return snapshot(folder)


def test_panels_give_the_same_bytes(wide_job: dict[str, Any], whole: dict[str, bytes | None], tmp_path: Path) -> None:
    told = run_elsewhere(with_outputs(wide_job, tmp_path))
    assert told.code == 0, told.last
    assert "parts side by side" in told.texts("info"), told.texts("info")
    assert snapshot(tmp_path) == whole


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal")
@pytest.mark.parametrize(("seed", "most_bytes"), [(0, ONE_COLUMN), (1, ONE_COLUMN), (2, 2**40)])
def test_killed_at_any_moment_the_map_is_that_of_one_run(
    wide_job: dict[str, Any], whole: dict[str, bytes | None], tmp_path: Path, seed: int, most_bytes: int
) -> None:
    generator = random.Random(seed)
    job = with_outputs(wide_job, tmp_path)
    n_strips = 21 if most_bytes == ONE_COLUMN else 7
    taken_over = []
    for _ in range(2):
        told = run_elsewhere(job, most_bytes, killed_at=generator.randrange(1, n_strips + 2))
        assert told.code == -signal.SIGKILL
        assert not (tmp_path / "output.tif").exists()
        taken_over.append("are taken over" in told.texts("info"))
    told = run_elsewhere(job, most_bytes)
    assert told.code == 0, told.last
    assert "are taken over" in told.texts("info") or not any(taken_over)
    assert snapshot(tmp_path) == whole, "the same bytes, and nothing beside them"


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal")
def test_a_map_that_would_now_be_cut_otherwise_goes_on(
    wide_job: dict[str, Any], whole: dict[str, bytes | None], tmp_path: Path
) -> None:
    """As on a machine with more threads, where parts are wider: the strips of the first run are still of use."""
    job = with_outputs(wide_job, tmp_path)
    assert run_elsewhere(job, killed_at=12).code == -signal.SIGKILL
    told = run_elsewhere(job, 2**40)
    assert told.code == 0, told.last
    assert "finished parts of an interrupted run are taken over" in told.texts("info")
    first = next(event["fraction"] for event in told.events if "Mapping" in event.get("phase", ""))
    assert first > 0.3
    assert snapshot(tmp_path) == whole


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal")
@pytest.mark.parametrize("change", [{"overlap": 0.5}, {"inputs": {"sentinel2_offset": "yes"}}])
def test_what_changed_since_is_named_and_the_map_made_anew(
    wide_job: dict[str, Any], tmp_path: Path, change: dict[str, Any]
) -> None:
    job = with_outputs(wide_job, tmp_path)
    assert run_elsewhere(job, killed_at=9).code == -signal.SIGKILL
    assert journal_folder(tmp_path / "output.tif").is_dir()
    told = run_here(job | change | {"inputs": job["inputs"] | change.get("inputs", {})})
    assert told.code == 0, told.last
    assert "the settings changed since: it is mapped anew" in told.texts("warning")
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".")} == set()


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal")
def test_a_copy_of_the_mask_is_the_same_mask(wide_job: dict[str, Any], tmp_path: Path) -> None:
    """QGIS hands over its layer as a file in a folder of the run."""
    scene = build_scene(SceneRequest({"optical": wide_job["inputs"]["optical"]}, {"optical": "spot6_7"}))
    left, _, right, top = scene.grid.bounds
    first, copy, other = (str(tmp_path / f"{name}.gpkg") for name in ("first", "copy", "other"))
    for path, width in ((first, 5000), (copy, 5000), (other, 4000)):
        shape = shapely.box(left, top - 15_000, min(left + width, right), top)
        geopandas.GeoDataFrame(geometry=[shape], crs=scene.grid.crs).to_file(path, driver="GPKG")
    job = with_outputs(wide_job, tmp_path / "out")
    assert run_elsewhere(job | {"mask": first}, killed_at=9).code == -signal.SIGKILL
    assert "are taken over" in run_elsewhere(job | {"mask": copy}, killed_at=9).texts("info")
    assert "the mask changed since" in run_elsewhere(job | {"mask": other}, killed_at=2).texts("warning")


def test_a_map_that_the_user_cancels_leaves_nothing_and_one_that_the_system_ends_its_strips(
    wide_job: dict[str, Any], tmp_path: Path
) -> None:
    for is_resumable in (False, True):
        folder = tmp_path / str(is_resumable)
        count = 0

        def stop(context: Any, event: dict[str, Any], resumable: bool = is_resumable) -> None:
            nonlocal count
            count += event["event"] == "progress"
            if count == 5:
                context.cancel(resumable=resumable)

        told = run_here(with_outputs(wide_job, folder), stop)
        assert told.last["event"] == "cancelled"
        left = {path.name for path in folder.iterdir()}
        assert left == ({".output.tif.strips"} if is_resumable else set())


def test_progress_says_how_fast_it_goes_and_how_long_it_takes(wide_job: dict[str, Any], tmp_path: Path) -> None:
    told = run_here(with_outputs(wide_job, tmp_path))
    phases = [event["phase"] for event in told.events if event["event"] == "progress"]
    mapping = [phase for phase in phases if phase.startswith("Mapping: ")]
    assert len(mapping) >= 6
    assert all(" Mpx/s, " in phase and " left, cpu, " in phase and phase.endswith(" MiB") for phase in mapping)
    assert told.fractions == sorted(told.fractions)
