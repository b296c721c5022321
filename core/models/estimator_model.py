"""A forest, boosted trees or a logistic regression as the model: it maps, and is stored, as any other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.models.feature_model import FeatureModel
from core.models.features import Values, inner_part
from core.models.fusion_model import FusionModel
from core.models.pixel_rows import PixelRows
from core.models.programs import Program
from core.models.specification import EstimatorSpecification, ModelSpecification
from core.models.subsets import input_subsets, subset_numbers

LEAST_SHARE = 1e-3
"""Probability below which a class's score falls no further: trees that all say no are not infinitely sure."""

ROWS_AT_ONCE = 1 << 16
"""Pixels that an estimator is asked about at a time, so that their copies take little memory beside the window."""

PROGRAM = "programs.{}"
CLASSES = "classes.{}"


class EstimatorModel(nn.Module):
    """Scikit-learn's estimators over the channels of every pixel, one for each set of inputs that may be there.

    What an estimator sees are the normalised bands, relief in place of height above the sea, and, where that was wanted,
    the statistics of the pixel's neighbourhoods and what a base model makes of the pixel. The estimators are kept as
    ONNX graphs; see ``programs``.

    Args:
        specification: with an estimator.

    Attributes:
        subsets: the sets of inputs, all of them first. One without an estimator of its own takes that of all inputs, with
            what is missing at its mean.
        step, radius: as for ``FusionModel``.
    """

    def __init__(self, specification: ModelSpecification) -> None:
        super().__init__()
        if specification.estimator is None:
            raise ValueError("the specification has no estimator")
        if specification.estimator.kind == "vote":
            raise ValueError("a vote is several estimators")
        self.specification = specification
        self.estimator: EstimatorSpecification = specification.estimator
        self.modalities = {entry.name: entry for entry in specification.modalities}
        around = self.estimator.neighbourhoods
        self.pixels = PixelRows(specification, neighbourhoods=around, reduces_many=around)
        self.base = FusionModel(base_specification(specification)) if self.estimator.base_features else None
        self.subsets = input_subsets(specification)
        self._numbers = subset_numbers(list(self.modalities), self.subsets)
        self.n_classes = specification.n_classes
        self._programs: dict[int, Program] = {}
        self._classes: dict[int, NDArray[np.int64]] = {}
        coarser = [entry.coarser for entry in specification.modalities]
        self.step = math.lcm(*coarser, *([] if self.base is None else [self.base.step]))
        self._base_features = None if self.base is None else FeatureModel(self.base, self.estimator.uses_decoder).n_features
        base_radius = 0 if self.base is None else self.base.radius
        self.radius = None if base_radius is None else max(self.pixels.radius, base_radius)

    def columns_of(self, names: frozenset[str]) -> list[slice]:
        """Where the channels of some inputs lie among the columns; with all inputs, the base model's features, too."""
        parts, first = [], 0
        for name, count in self._counts().items():
            if name in names or (name not in self.modalities and len(names) == len(self.modalities)):
                parts.append(slice(first, first + count))
            first += count
        return parts

    def bits_of(self, number: int) -> int:
        """The bits of the inputs of a set."""
        return sum(1 << bit for bit, name in enumerate(self.modalities) if name in self.subsets[number])

    @property
    def n_columns(self) -> int:
        """Values of a pixel."""
        return sum(self._counts().values())

    def _counts(self) -> dict[str, int]:
        return self.pixels.counts | ({} if self._base_features is None else {"/base": self._base_features})

    def _features(self) -> FeatureModel:
        if self.base is None:
            raise TypeError("the estimator sees no base model")
        return FeatureModel(self.base, self.estimator.uses_decoder)

    def put(self, number: int, program: bytes, classes: NDArray[np.int64]) -> None:
        """Takes an estimator.

        Args:
            number: of the set of inputs.
            program: an ONNX graph of rows (n, columns) float32 to labels and probabilities (n, classes).
            classes: numbers of its classes among the model's.
        """
        self._programs[number] = Program(program, is_linear=self.estimator.kind == "logistic")
        self._classes[number] = np.asarray(classes, np.int64)

    def graph(self, number: int) -> bytes:
        """The ONNX graph of the estimator of a set of inputs."""
        return self._programs[number].graph

    @property
    def fitted(self) -> dict[int, NDArray[np.int64]]:
        """By set of inputs that has an estimator of its own, the numbers of its classes among the model's."""
        return dict(sorted(self._classes.items()))

    @property
    def numbers_by_bits(self) -> list[int]:
        """The set of inputs whose estimator is asked, for each combination of bits."""
        return [number if number in self._programs else 0 for number in self._numbers]

    def rows(self, values: Values, margin: int = 0) -> tuple[Tensor, Tensor]:
        """What estimators see, (B, columns, H, W), zero where unknown; and by pixel (B, H, W) the bits of the inputs known.

        Args:
            values, margin: see ``FusionModel.forward``.

        Raises:
            ValueError: see ``FusionModel.forward``.
        """
        rows, bits = (inner_part(each, margin) for each in self.pixels(values))
        if self.base is None:
            return rows, bits
        return torch.cat([rows, inner_part(self._features()(values), margin)], dim=1), bits

    def forward(self, values: Values, margin: int = 0) -> Tensor:
        """(B, n_classes, H, W) logarithms of probabilities; even where nothing is known, or no estimator was fitted yet. See
        ``FusionModel.forward``."""
        rows, bits = self.rows(values, margin)
        batch, _, height, width = rows.shape
        scores = torch.full((batch, self.n_classes, height, width), math.log(1 / self.n_classes), device=rows.device)
        numbers = torch.where(bits > 0, torch.tensor(self.numbers_by_bits, device=bits.device)[bits], -1)
        for own, said, chosen in zip(rows.flatten(2), scores.flatten(2), numbers.flatten(1), strict=True):
            for number in [each for each in torch.unique(chosen).tolist() if each in self._programs]:
                for places in torch.split(torch.nonzero(chosen == number)[:, 0], ROWS_AT_ONCE):
                    said[:, places] = self._said(number, own[:, places].T).T
        return scores

    def _said(self, number: int, rows: Tensor) -> Tensor:
        """(n, n_classes) logarithms of probabilities."""
        columns = torch.cat([rows[:, part] for part in self.columns_of(self.subsets[number])], dim=1)
        given = np.ascontiguousarray(columns.detach().cpu().numpy(), np.float32)
        shares = self._programs[number].shares(given)
        every = np.full((len(given), self.n_classes), 0.0, np.float32)
        every[:, self._classes[number]] = shares
        return torch.from_numpy(np.log(np.maximum(every, LEAST_SHARE))).to(rows.device)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """Weights of the base model, and of each estimator its graph, as bytes, and its classes."""
        state: dict[str, Tensor] = super().state_dict(*args, **kwargs)
        for number, program in sorted(self._programs.items()):
            state[PROGRAM.format(number)] = torch.from_numpy(np.frombuffer(program.graph, np.uint8).copy())
            state[CLASSES.format(number)] = torch.from_numpy(self._classes[number])
        return state

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """See ``state_dict``.

        Raises:
            RuntimeError: not the weights of such a model.
        """
        rest = dict(state)
        for number in range(len(self.subsets)):
            if PROGRAM.format(number) in rest:
                program = rest.pop(PROGRAM.format(number)).numpy().astype(np.uint8).tobytes()
                classes = rest.pop(CLASSES.format(number), torch.empty(0)).numpy()
                if not len(classes) or classes.min() < 0 or classes.max() >= self.n_classes:
                    raise RuntimeError("Error in the estimators:\nthe classes are not those of the model")
                self.put(number, program, classes)
                self._check(number)
        if strict and 0 not in self._programs:
            raise RuntimeError("Error in the estimators:\nthere is none for all inputs")
        return super().load_state_dict(rest, strict=strict, assign=assign)

    def _check(self, number: int) -> None:
        """Raises:
        RuntimeError: the graph is damaged, or takes or gives something else.
        """
        width = sum(part.stop - part.start for part in self.columns_of(self.subsets[number]))
        try:
            shares = self._programs[number].shares(np.zeros((1, width), np.float32))
        except Exception as error:
            # The runtime's errors have no common class.
            raise RuntimeError(f"Error in the estimators:\n{str(error).splitlines()[0]}") from None
        if shares.shape != (1, len(self._classes[number])):
            raise RuntimeError("Error in the estimators:\nthe graph has other classes than the model")


def base_specification(specification: ModelSpecification) -> ModelSpecification:
    """Of the model whose features the estimator sees."""
    changed = {"estimator": None, "head": "embedding", "n_classes": 1, "has_shortcut": False}
    return specification.model_copy(update=changed)
