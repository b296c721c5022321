"""From a model file and a job's inputs to a model for a scene."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from core.errors import ModelFileError
from core.jobs.events import JobContext
from core.jobs.inputs import scene_for_model
from core.jobs.schemas import Inputs
from core.models.model_file import ModelCard, load_novelty
from core.models.novelty import Novelty
from core.models.onnx_model import OnnxModel
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
