"""Which windows are shown: every class equally often, every polygon of a class equally often."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.finetuning.networks.augmentation import symmetry, vary_radiometry
from core.finetuning.networks.settings import TrainingSettings
from core.finetuning.training_data import TrainingData
from core.models.registry import model_step, receptive_radius
from core.models.specification import ModelSpecification
from core.models.subsets import LISTED, proper_subsets
from core.scenes.grid import Window, aligned
from core.scenes.reading import usable_pixels
from core.scenes.scene import shows_ground

Inputs = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch on the CPU.

    Attributes:
        values: by modality (B, C, h, w) float32, NaN = missing.
        classes: (B, H, W) int64, -1 = ignored.
        weights: (B, H, W) float32, how much each label counts.
        calm: as ``values``, of all inputs and without changes of brightness; empty without consistency.
        unlabelled: (B, H, W) bool, pixels with data that nobody drew; all false without consistency.
    """

    values: Inputs
    classes: Tensor
    weights: Tensor
    calm: Inputs
    unlabelled: Tensor


class WindowSampler:
    """Draws windows around the labels of a set of features.

    Large polygons would otherwise fill most windows: a class is drawn first, then a feature of it, then a pixel of
    that, which lies anywhere in the window.

    Args:
        data: blocks around the labels.
        features: (n_features,) bool, those to learn from.
        specification: of the model.
        settings: of the training; windows are enlarged to the next size that the model takes.
    """

    def __init__(
        self,
        data: TrainingData,
        features: NDArray[np.bool_],
        specification: ModelSpecification,
        settings: TrainingSettings,
    ) -> None:
        self._data = data
        self._features = features
        self._specification = specification
        self._settings = settings
        step = model_step(specification)
        # A model with a global view is trained on windows of the size that it maps with.
        is_local = receptive_radius(specification) is not None
        wanted = settings.window_size if is_local else specification.window
        self._size = -(-wanted // step) * step
        # A base model may know inputs that this scene does not have.
        present = {acquisition.name for acquisition in data.scene.acquisitions}
        self._modalities = [modality for modality in specification.modalities if modality.name in present]
        self._everything = frozenset(modality.name for modality in self._modalities)
        subsets = proper_subsets(specification) if data.allows_missing else []
        self._subsets = [names for names in subsets if names < self._everything]
        pixels = data.pixels[features[data.pixels[:, 3]]]
        self._by_class: list[list[NDArray[np.int64]]] = []
        for index in np.unique(pixels[:, 2]):
            of_class = pixels[pixels[:, 2] == index]
            self._by_class.append([of_class[of_class[:, 3] == feature] for feature in np.unique(of_class[:, 3])])

    def batch(self, generator: np.random.Generator) -> Batch:
        """Draws one batch, augmented."""
        size, step = self._size, self._data.scene.step
        kept = self._kept(generator)
        windows, classes, weights, calm, unlabelled = [], [], [], [], []
        for _ in range(self._settings.batch_size):
            of_class = self._by_class[generator.integers(len(self._by_class))]
            pixels = of_class[generator.integers(len(of_class))]
            column, row, _, _ = pixels[generator.integers(len(pixels))].tolist()
            # The corner is drawn among those that a coarser modality allows and that leave the pixel in the window.
            nearest = aligned(self._data.scene.grid, Window(column, row, 1, 1), step)
            left, up = (step * int(generator.integers(size // step)) for _ in range(2))
            drawn = self._data.window(Window(nearest.column - left, nearest.row - up, size, size))
            # Other features may lie in the window; only those to learn from may be seen with their label.
            known = np.where((drawn.feature >= 0) & self._features[drawn.feature], drawn.classes, -1)
            seen = {name: values for name, values in drawn.values.items() if name in kept}
            if len(seen) < len(drawn.values):
                usable = usable_pixels(seen, self._data.scene.acquisitions, allows_missing=True)
                known = np.where(usable, known, -1)
            number = int(generator.integers(8))
            varied = vary_radiometry(seen, self._specification.modalities, self._settings.radiometric_strength, generator)
            windows.append({name: symmetry(values, number) for name, values in varied.items()})
            classes.append(symmetry(known.astype(np.int64), number))
            weights.append(symmetry(drawn.weight, number))
            nobodys = np.zeros(drawn.classes.shape, bool)
            if self._settings.consistency:
                calm.append({name: symmetry(values, number) for name, values in drawn.values.items()})
                usable = usable_pixels(drawn.values, self._data.scene.acquisitions, allows_missing=self._data.allows_missing)
                nobodys = usable & (drawn.feature < 0)
            unlabelled.append(symmetry(nobodys, number))
        labels, counted, nobodys_pixels = (torch.from_numpy(np.stack(parts)) for parts in (classes, weights, unlabelled))
        return Batch(_stacked(windows), labels, counted, _stacked(calm), nobodys_pixels)

    def _kept(self, generator: np.random.Generator) -> frozenset[str]:
        """The inputs of one step: a whole batch does without some, so that no running statistic mixes the two."""
        if not self._subsets or generator.random() >= self._settings.modality_dropout:
            return self._everything
        modalities = self._modalities
        if len(modalities) <= LISTED:
            return self._subsets[generator.integers(len(self._subsets))]
        # Too many to list: any of them, each input with a chance of a half.
        roles = [modality.role for modality in modalities]
        while True:
            kept = generator.random(len(modalities)) < 0.5
            chosen = [modality for modality, is_kept in zip(modalities, kept, strict=True) if is_kept]
            if len(chosen) < len(modalities) and any(shows_ground(modality.role, roles) for modality in chosen):
                return frozenset(modality.name for modality in chosen)


def _stacked(windows: list[dict[str, NDArray[np.float32]]]) -> Inputs:
    names = windows[0] if windows else ()
    return {name: torch.from_numpy(np.stack([window[name] for window in windows])) for name in names}


def class_weights(data: TrainingData, features: NDArray[np.bool_], n_classes: int) -> Tensor:
    """Weights that let every class count alike in the loss: inverse to its pixels, one on average over the pixels.

    Returns:
        (n_classes,) float32; zero for a class without pixels.
    """
    pixels = data.pixels[features[data.pixels[:, 3]]]
    counts = np.bincount(pixels[:, 2], minlength=n_classes).astype(np.float64)
    present = counts > 0
    weights = np.zeros(n_classes)
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return torch.from_numpy(weights.astype(np.float32))
