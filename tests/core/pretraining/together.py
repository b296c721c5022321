"""A program that pre-trains with several methods, alone or started by torchrun, and writes what came of it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from core.models.registry import build_model, model_step
from core.models.specify import specify_for_scenes
from core.pretraining.launch import rank
from core.pretraining.loop import pretrain
from core.pretraining.methods import METHODS, MethodName
from core.pretraining.processes import joined
from core.pretraining.recipes.build import make_recipe
from core.pretraining.scene_windows import SceneWindows
from core.pretraining.settings import PretrainingSettings
from core.scenes.scene import Scene
from tests.core.finetuning.scenes import mixed_scene
from tests.core.models.conftest import small_networks

SWITCHES: dict[MethodName, dict[str, Any]] = {
    "latent_targets": {},
    "asymmetric_attention": {"kind": "moco", "queue": 16},
    "cross_scale_mae": {"queue": 8},
    "cross_sensor_alignment": {},
}
"""With queues, a teacher's centre and running statistics: what several processes could come to differ in."""

SETTINGS = PretrainingSettings(epochs=2, windows_per_epoch=8, batch_size=2, window_size=32, learning_rate=1e-3, seed=3)


def run(scene: Scene, folder: Path, accumulation: int) -> None:
    """Trains with every method; the main process writes records and weights."""
    with joined(torch.device("cpu")) as processes:
        for method, switches in SWITCHES.items():
            specification, scenes = specify_for_scenes([scene], METHODS[method].architecture, size="tiny")
            recipe = make_recipe(method, "small", switches)
            specification = recipe.specification(specification)
            torch.manual_seed(0)
            model = build_model(specification)
            objective = recipe.objective(model)
            side = model_step(specification)
            window = max(side, SETTINGS.window_size // side * side)
            settings = replace(SETTINGS, window_size=window, accumulation=accumulation)
            windows = SceneWindows(scenes, specification, settings.window_size, settings.batch_size)
            checkpoint = folder / f"{method}.checkpoint"
            device = torch.device("cpu")
            result = pretrain(model, objective, windows, settings, device, checkpoint, method, lambda part, phase: None)
            state = {name: value.contiguous() for name, value in result.model.state_dict().items()}
            save_file(state, folder / f"{method}_{processes.rank}.safetensors")
            if processes.is_main:
                records = [asdict(record) for record in result.records]
                (folder / f"{method}.json").write_text(json.dumps({"records": records, "steps": result.steps}))


if __name__ == "__main__":
    scene = mixed_scene(Path(sys.argv[1]) / f"scene{rank()}", 60, 48)
    with small_networks():
        run(scene, Path(sys.argv[1]), int(sys.argv[2]))
