"""A classifier of whole scenes: statistics of a polygon's pixels in, probabilities of its classes out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.models.estimator_model import LEAST_SHARE, PROGRAM, base_specification
from core.models.feature_model import FeatureModel
from core.models.features import Values, size_of
from core.models.fusion_model import FusionModel
from core.models.pixel_rows import PixelRows
from core.models.programs import Program
from core.models.scene_descriptors import STATISTICS, Description, Layout, Moments
from core.models.specification import EstimatorSpecification, ModelSpecification
from core.models.subsets import input_subsets

MOMENTS = 2
"""Of each feature of the base model: mean and standard deviation."""

FloatArray = NDArray[np.float64]


class SceneModel(nn.Module):
    """One of scikit-learn's estimators over the descriptor of a polygon, or one for each class where it may have several.

    A descriptor holds of each input the mean, standard deviation and three quantiles of its normalised bands, relief in
    place of height above the sea, and, where that was wanted, mean and standard deviation of a base model's features.
    Each set of inputs that may be there has estimators of its own. They are kept as ONNX graphs.

    Args:
        specification: with the head ``scene`` and an estimator.

    Attributes:
        layout: of a descriptor's columns; ``base_part`` are those of the base model.
        radius: None, a window is looked at as a whole; pixels need ``reach`` of the ground around them.
        medians: (columns,) of the training, for what is missing and has no estimator of its own.
        told: (n_classes,) bool, classes that the estimator of all classes knows.
        shares: (n_classes,) part of the training's units with a class, where they may have several; it stands for a class
            without an estimator, which all units have or none.
        threshold: probability from which a unit has a class, where it may have several.
    """

    medians: Tensor
    told: Tensor
    shares: Tensor
    threshold: Tensor

    def __init__(self, specification: ModelSpecification) -> None:
        super().__init__()
        if specification.estimator is None or specification.head != "scene":
            raise ValueError("the specification is not of an estimator of scenes")
        self.specification = specification
        self.estimator: EstimatorSpecification = specification.estimator
        self.modalities = {entry.name: entry for entry in specification.modalities}
        self.pixels = PixelRows(specification, neighbourhoods=False, reduces_many=True)
        self.base = FusionModel(base_specification(specification)) if self.estimator.base_features else None
        self.n_classes = specification.n_classes
        self.step = math.lcm(*(entry.coarser for entry in specification.modalities), *([self.base.step] if self.base else []))
        self.radius: int | None = None
        self.reach = self.pixels.radius
        counts = [len(STATISTICS) * count for count in self.pixels.counts.values()]
        ends = np.cumsum(counts).tolist()
        parts = tuple(slice(end - count, end) for end, count in zip(ends, counts, strict=True))
        n_columns: int = ends[-1] + (0 if self.base is None else MOMENTS * self.features().n_features)
        self.base_part = slice(ends[-1], n_columns)
        self.layout = Layout(tuple(self.modalities), parts, n_columns, input_subsets(specification))
        self.register_buffer("medians", torch.zeros(n_columns, dtype=torch.float64))
        self.register_buffer("told", torch.ones(self.n_classes, dtype=torch.bool))
        self.register_buffer("shares", torch.full((self.n_classes,), 1 / self.n_classes, dtype=torch.float64))
        self.register_buffer("threshold", torch.tensor(0.5, dtype=torch.float64))
        self._programs: dict[tuple[int, int], Program] = {}

    def features(self) -> FeatureModel:
        """The base model as one of features.

        Raises:
            TypeError: there is none.
        """
        if self.base is None:
            raise TypeError("the model sees no base model")
        return FeatureModel(self.base, self.estimator.uses_decoder)

    def pixel_channels(self, values: Values) -> dict[str, tuple[NDArray[np.float32], NDArray[np.bool_]]]:
        """By input the channels (C, H, W) of a window's pixels and where they are known (H, W).

        Args:
            values: by modality (1, C, h, w) physical, NaN = missing.
        """
        found = {}
        for name in self.modalities:
            if name in values:
                channels, known = self.pixels.channels[name](values[name])
                found[name] = channels[0].numpy(), known[0, 0].numpy() > 0
        return found

    @property
    def is_multi_label(self) -> bool:
        return self.estimator.multi_label

    def put(self, subset: int, number: int, program: bytes) -> None:
        """Takes an estimator.

        Args:
            subset: number of the set of inputs that it sees.
            number: of the class that it is of; 0 for the one of all classes.
            program: an ONNX graph of rows (n, columns) float32 to labels and probabilities, of one class (n, 2), of all
                classes a column for each that is ``told``.
        """
        self._programs[subset, number] = Program(program, is_linear=self.estimator.kind == "logistic")

    def probabilities(self, rows: FloatArray) -> FloatArray:
        """(N, n_classes) from descriptors (N, columns), NaN = missing; of several labels each for itself."""
        medians = self.medians.numpy()
        said = np.tile(self.shares.numpy(), (len(rows), 1))
        listed = {subset for subset, _ in self._programs}
        own = self.layout.numbers(rows)
        own = np.where(np.isin(own, list(listed)), own, 0)
        for subset, number in self._programs:
            places = np.flatnonzero(own == subset)
            if not len(places):
                continue
            given = self.layout.seen(rows[places], medians, subset)
            answer = self._programs[subset, number].shares(given).astype(np.float64)
            if self.is_multi_label:
                said[places, number] = answer[:, 1]
            else:
                said[places] = 0
                said[places[:, None], np.flatnonzero(self.told.numpy())] = answer
        return bounded(said, self.is_multi_label)

    def forward(self, values: Values) -> Tensor:
        """(B, n_classes) logarithms of the probabilities of whole windows; see ``FusionModel.forward``."""
        height, width = size_of(values, self.modalities)
        batch = len(next(iter(values.values())))
        rows = np.full((batch, self.layout.n_columns), np.nan)
        numbers = np.arange(height * width)
        for row in range(batch):
            for name, (channels, known) in self.pixel_channels({k: v[row : row + 1] for k, v in values.items()}).items():
                description = Description(len(channels), height * width)
                description.add(channels[:, known], numbers[known.ravel()])
                rows[row, self.layout.parts[self.layout.names.index(name)]] = description.result()
        if self.base is not None:
            for row, features in enumerate(self.features()(values).flatten(2)):
                moments = Moments(len(features))
                moments.add(features.numpy())
                rows[row, self.base_part] = np.concatenate(moments.result())
        return torch.from_numpy(np.log(self.probabilities(rows)).astype(np.float32))

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """Weights of the base model, what fills gaps, and the graph of each estimator as bytes."""
        state: dict[str, Tensor] = super().state_dict(*args, **kwargs)
        for (subset, number), program in sorted(self._programs.items()):
            state[PROGRAM.format(f"{subset}.{number}")] = torch.from_numpy(np.frombuffer(program.graph, np.uint8).copy())
        return state

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """See ``state_dict``.

        Raises:
            RuntimeError: not the weights of such a model.
        """
        rest = dict(state)
        for subset in range(len(self.layout.subsets)):
            for number in range(self.n_classes if self.is_multi_label else 1):
                key = PROGRAM.format(f"{subset}.{number}")
                if key in rest:
                    self.put(subset, number, rest.pop(key).numpy().astype(np.uint8).tobytes())
                    self._check(subset, number, rest.get("told", self.told))
        if strict and all(subset for subset, _ in self._programs):
            raise RuntimeError("Error in the estimators:\nthere is none for all inputs")
        return super().load_state_dict(rest, strict=strict, assign=assign)

    def _check(self, subset: int, number: int, told: Tensor) -> None:
        """Raises:
        RuntimeError: the graph is damaged, or takes or gives something else.
        """
        row = np.zeros((1, len(self.layout.columns(subset))), np.float32)
        try:
            shares = self._programs[subset, number].shares(row)
        except Exception as error:
            # The runtime's errors have no common class.
            raise RuntimeError(f"Error in the estimators:\n{str(error).splitlines()[0]}") from None
        if shares.shape != (1, 2 if self.is_multi_label else int(told.sum())):
            raise RuntimeError("Error in the estimators:\nthe graph has other classes than the model")


def bounded(shares: FloatArray, is_multi_label: bool) -> FloatArray:
    """Probabilities (N, K) of which none is quite 0 or 1: trees that all agree are not infinitely sure."""
    if is_multi_label:
        return np.clip(shares, LEAST_SHARE, 1 - LEAST_SHARE)
    least = np.maximum(shares, LEAST_SHARE)
    return np.asarray(least / least.sum(axis=1, keepdims=True))
