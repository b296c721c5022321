"""From a model file and a job's inputs to a model for a scene."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

import core
from core.errors import ModelFileError
from core.jobs.events import JobContext
from core.jobs.inputs import scene_for_model
from core.jobs.provenance import creation_time, input_names
from core.jobs.schemas import Inputs
from core.models.graphs.onnx_model import OnnxModel
from core.models.model_file import ModelCard, file_digest, load_novelty
from core.models.novelty import Novelty
from core.models.registry import for_inputs
from core.scenes.scene import Scene


def model_on_scene(
    model: nn.Module, card: ModelCard, inputs: Inputs, context: JobContext, allows_missing: bool
) -> tuple[Scene, nn.Module, ModelCard]:
    """The scene with a model's inputs; and the model and its card for these inputs. See ``scene_for_model``."""
    scene, specification = scene_for_model(inputs, card.specification, context, allows_missing)
    if specification != card.specification and isinstance(model, OnnxModel):
        raise ModelFileError(
            "A graph knows the sensors and the resolution that it was exported for, and these rasters are others.",
            "Map with the model file that it was made from.",
        )
    if specification != card.specification:
        model, card = for_inputs(model, specification), card.model_copy(update={"specification": specification})
    return scene, model, card


def model_tags(model: str, scene: Scene, settings: dict[str, Any]) -> dict[str, str]:
    """What a raster made by a model says of its origin; see ``core.mapping.rasters``.

    Args:
        model: path of the model.
        scene: that it was shown.
        settings: what was asked for.
    """
    return {
        "RSFUSION_VERSION": core.__version__,
        "RSFUSION_CREATED": creation_time(),
        "RSFUSION_MODEL": Path(model).name,
        "RSFUSION_MODEL_SHA256": file_digest(Path(model)),
        "RSFUSION_INPUTS": json.dumps(input_names(scene)),
        "RSFUSION_SETTINGS": json.dumps(settings),
    }


def required_novelty(path: str, card: ModelCard, hint: str) -> Novelty:
    """What a model has seen; see ``load_novelty``.

    Args:
        path, card: of the model.
        hint: what to do where its file does not say.

    Raises:
        ModelFileError: the file does not say, or is damaged.
    """
    novelty = load_novelty(Path(path), card)
    if novelty is None:
        raise ModelFileError(f"The model '{path}' does not say what it has seen: it was written by an older version.", hint)
    return novelty
