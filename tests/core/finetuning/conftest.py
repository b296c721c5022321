"""A scene of three resolutions with a handful of rectangles, and the simulated scene with its drawn polygons."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from core.finetuning.training_data import TrainingData
from core.scenes.scene import Scene
from tests.core.finetuning.scenes import labels_at, mixed_scene

BOXES = ((3, 2, 9, 8), (30, 10, 32, 31), (60, 60, 75, 66), (140, 120, 150, 130), (66, 70, 70, 75), (100, 20, 101, 21))
CLASSES = (0, 1, 2, 0, 1, 0)


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return mixed_scene(tmp_path_factory.mktemp("mixed"))


@pytest.fixture(scope="session")
def mixed_data(mixed: Scene) -> TrainingData:
    return TrainingData(mixed, labels_at(mixed.grid, BOXES, CLASSES), reach=20)


@pytest.fixture(scope="session")
def held_out() -> np.ndarray:
    """Of the rectangles of ``mixed_data``."""
    return np.array([False, False, False, True, True, False])


@pytest.fixture(scope="session")
def simulated(sample: Any) -> Any:
    """Scene, labels, held-out features and the surroundings of the labels of the simulated scene."""
    from tests.core.finetuning.training import prepare

    return prepare(sample.folder)
