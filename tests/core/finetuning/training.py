"""One small training on the simulated scene, in this process or as a program of its own that can be killed.

python -m tests.core.finetuning.training SCENE_FOLDER MODEL CHECKPOINT SECONDS_A_STEP [MODE]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from core.finetuning.networks.loop import TrainingResult, train
from core.finetuning.networks.settings import TrainingSettings
from core.finetuning.networks.start import start_model
from core.finetuning.training_data import TrainingData
from core.labels.blocks import spatial_split
from core.labels.label_set import LabelSet
from core.labels.reading import read_labels
from core.models.model_file import ModelCard, class_cards, save_model
from core.models.specification import ModelSpecification
from core.models.specify import specify_model
from core.scenes.scene import SceneRequest, build_scene
from core.scenes.simulate import SimulatedScene

SETTINGS = TrainingSettings(
    epochs=3, windows_per_epoch=48, batch_size=6, window_size=32, patience=9, averaging=0.8, learning_rate=0.02, seed=7
)
MODES = {
    "scratch": SETTINGS,
    "adapters": replace(SETTINGS, trained_part="adapters", adapter_rank=2),
    "layer decay": replace(SETTINGS, layer_decay=0.5),
}
IDENTITY = "this run"


@dataclass(frozen=True, eq=False)
class Prepared:
    data: TrainingData
    labels: LabelSet
    validation: np.ndarray
    specification: ModelSpecification


def prepare(folder: Path) -> Prepared:
    """Everything up to the training. Without the surface model, whose fine pixels take most of the time."""
    files = SimulatedScene.in_folder(folder)
    scene = build_scene(SceneRequest({"optical": [str(files.optical)], "sar": [str(files.sar)]}))
    labels = read_labels(str(files.labels), "class", scene.grid)
    small = {"width": 8, "depth": 1, "dropout": 0.05, "has_shortcut": False}
    specification = specify_model(scene, "unet_intermediate", len(labels.scheme)).model_copy(update=small)
    data = TrainingData(scene, labels, reach=64)
    return Prepared(data, labels, spatial_split(labels, scene.grid, 0.25, 0).validation, specification)


def run(
    prepared: Prepared,
    checkpoint: Path,
    progress: Callable[[float, str], None] = lambda part, phase: None,
    identity: str = IDENTITY,
    settings: TrainingSettings = SETTINGS,
) -> TrainingResult:
    """Trains from the beginning, or from the checkpoint."""
    model = start_model(prepared.specification, settings.seed, None, prepared.labels.scheme)
    return train(
        model,
        prepared.specification,
        prepared.data,
        prepared.validation,
        settings,
        torch.device("cpu"),
        checkpoint,
        identity,
        progress,
    )


def write(path: Path, prepared: Prepared, result: TrainingResult) -> bytes:
    """The model file of a result."""
    card = ModelCard(
        software_version="0",
        specification=prepared.specification,
        resolution_m=10,
        class_scheme="test",
        classes=class_cards(prepared.labels.scheme),
        temperature=result.temperature,
    )
    save_model(path, result.model, card)
    return path.read_bytes()


def main() -> None:
    folder, model, checkpoint = (Path(argument) for argument in sys.argv[1:4])
    seconds = float(sys.argv[4])
    prepared = prepare(folder)
    settings = MODES[sys.argv[5] if len(sys.argv) > 5 else "scratch"]
    write(model, prepared, run(prepared, checkpoint, lambda part, phase: time.sleep(seconds), settings=settings))


if __name__ == "__main__":
    main()
