"""What a model can start from, and what it can look at, beside what it was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from safetensors.torch import load_file, save_file

from core.models.model_file import load_model
from core.sensors import get_sensor
from tests.core.jobs.running import check_refused, run_here

LANDSAT = {"B2": "B2", "B3": "B3", "B4": "B4", "B8A": "B5", "B11": "B6", "B12": "B7"}
"""Sentinel-2's bands and those of Landsat 8 that see nearly the same."""


def as_landsat(source: Path, target: Path) -> str:
    """The scene as Landsat 8 stores it, with six bands in another order."""
    registered = get_sensor("landsat_oli")
    with rasterio.open(source) as dataset:
        names = list(dataset.descriptions)
        wanted = list(reversed(LANDSAT.items()))
        reflectance = np.stack([dataset.read(names.index(ours) + 1) for ours, _ in wanted]) / 10000.0
        profile = {**dataset.profile, "count": len(wanted), "dtype": "uint16", "nodata": 0}
    for number, (_, name) in enumerate(wanted):
        band = registered.band(name)
        reflectance[number] = np.clip((reflectance[number] - band.offset) / band.scale, 1, 65535)
    with rasterio.open(target, "w", **profile) as dataset:
        dataset.write(reflectance.round().astype(np.uint16))
        dataset.descriptions = tuple(name for _, name in wanted)
    return str(target)


def test_a_model_with_generated_kernels_maps_with_another_sensor(
    finetune_job: dict[str, Any], sample: Any, tmp_path: Path
) -> None:
    told = run_here({**finetune_job, "architecture": "unet_any_sensor", "epochs": 2})
    assert told.code == 0, told.last
    landsat = as_landsat(sample.optical, tmp_path / "landsat.tif")
    job = {
        "kind": "map",
        "inputs": {"optical": [landsat], "optical_sensor": "landsat_oli"},
        "model": finetune_job["output_model"],
        "output": str(tmp_path / "out" / "map.tif"),
    }
    told = run_here(job)
    assert told.code == 0, told.last
    assert "the model sees landsat_oli (B2, B3, B4, B5, B6, B7)" in told.texts("info")
    with rasterio.open(job["output"]) as dataset:
        other = dataset.read(1)
    own = {**job, "inputs": {"optical": [str(sample.optical)]}, "output": str(tmp_path / "out" / "own.tif")}
    assert run_here(own).code == 0
    with rasterio.open(own["output"]) as dataset:
        same = dataset.read(1)
    assert (other > 0).all()
    # And it can be trained further there.
    further = {**finetune_job, "inputs": job["inputs"], "mode": "full", "base_model": job["model"], "epochs": 1, "report": None}
    further["output_model"] = str(tmp_path / "out" / "further.safetensors")
    told = run_here(further)
    assert told.code == 0, told.last
    assert [entry.sensor for entry in load_model(Path(further["output_model"]))[1].specification.modalities] == ["landsat_oli"]
    # Six of twelve bands, seen through other wavelengths, still show most of the same ground.
    assert (other == same).mean() > 0.5


def test_other_models_name_the_sensor_that_they_need(map_job: dict[str, Any], sample: Any, tmp_path: Path) -> None:
    landsat = as_landsat(sample.optical, tmp_path / "landsat.tif")
    inputs = {"optical": [landsat], "optical_sensor": "landsat_oli"}
    check_refused({**map_job, "inputs": inputs}, tmp_path, "sentinel2_l2a", "sentinel1")


def public_resnet(path: Path, like: Path) -> dict[str, torch.Tensor]:
    """Random weights under timm's names, of the shapes of a model's encoder."""
    own = {name: value for name, value in load_file(like).items() if name.startswith("fusion.encoder.")}
    generator = torch.Generator().manual_seed(3)
    state = {"conv1.weight": 0.1 * torch.randn(64, 3, 7, 7, generator=generator)}
    for name, value in own.items():
        key = name.removeprefix("fusion.encoder.")
        parts = key.split(".")
        public = ".".join([f"layer{parts[1]}", *parts[2:]]) if parts[0] == "stages" else key
        drawn = torch.rand(value.shape, generator=generator) * 0.1
        state[public] = drawn if value.is_floating_point() else torch.tensor(5)
    save_file(state, path)
    return state


def test_training_starts_from_a_public_encoder(finetune_job: dict[str, Any], tmp_path: Path) -> None:
    small = {"architecture": "resnet_intermediate", "fusion": "early", "size": "tiny"}
    assert run_here({**finetune_job, **small}).code == 0
    own = Path(finetune_job["output_model"])
    weights = tmp_path / "public.safetensors"
    state = public_resnet(weights, own)
    # A ResNet-18 of half the width has a stem of 32 channels.
    state["conv1.weight"] = state["conv1.weight"][:32].contiguous()
    save_file(state, weights)
    job = {**finetune_job, **small, "encoder_weights": str(weights)}
    told = run_here(job)
    assert told.code == 0, told.last
    assert f"From '{weights}': " in told.texts("info")
    assert "B8A" in told.texts("info").split("start alike: ")[1]
    card = load_model(own)[1]
    assert card.training["encoder_weights"] == "public.safetensors"
    # One epoch with a small rate leaves them near where they started.
    learned = load_file(own)["fusion.encoder.stages.3.0.conv2.weight"]
    start = state["layer3.0.conv2.weight"]
    assert np.corrcoef(learned.flatten(), start.flatten())[0, 1] > 0.9
    base = tmp_path / "base.safetensors"
    base.write_bytes(own.read_bytes())
    check_refused({**job, "mode": "auto", "base_model": str(base)}, tmp_path, "one of them", code=2)
    check_refused({**job, "size": "small"}, tmp_path, "has the shape")
    check_refused({**job, "encoder_keys": str(tmp_path / "none.json")}, tmp_path, "none.json", "timm_resnet")
    pickle = tmp_path / "public.pth"
    pickle.write_bytes(b"x")
    check_refused({**job, "encoder_weights": str(pickle)}, tmp_path, "pickle")
