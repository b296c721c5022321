"""From a model to an ONNX graph with its card, checked against the model."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import ModelFileError, UsageError
from core.models.estimator_model import EstimatorModel
from core.models.features import Values
from core.models.fusion_model import FusionModel
from core.models.graphs.estimators import append_estimators, estimators_of, seen_by, seer_of
from core.models.graphs.onnx_model import CARD_KEY, OnnxModel
from core.models.model_file import ModelCard
from core.models.registry import model_step
from core.models.specification import ModelSpecification
from core.models.vote_model import VoteModel

TOLERANCE = 1e-4
"""By how much a score of the graph may differ from torch's, as part of the largest score."""
ON_THRESHOLDS = 0.005
"""Part of the pixels whose scores may differ by more where trees decide: a value that differs in its last bit from the one that
a branch compares with goes the other way."""

_CHECKED_STEPS = ((8, 8), (11, 9))
"""Sides of the windows that a graph is checked on, in steps of the model; it is traced on the first."""
_LEAST_SIDE = 32
"""Reference pixels: in windows of a few pixels there would be too few to count."""

Outputs = tuple[Tensor, ...]


class _ByPosition(nn.Module):
    """A model whose inputs are told by their place: graphs know no dictionaries."""

    def __init__(self, model: nn.Module, names: list[str], said: Callable[[Values], Outputs]) -> None:
        super().__init__()
        self._model = model
        self._names = names
        self._said = said

    def forward(self, *values: Tensor) -> Outputs:
        return self._said(dict(zip(self._names, values, strict=True)))


def export_graph(model: nn.Module, card: ModelCard) -> tuple[bytes, float]:
    """A model as an ONNX graph with its card, checked against the model.

    Args:
        model: in evaluation mode, on the processor.
        card: its card.

    Returns:
        The file's bytes, and the largest difference of scores as part of the largest score: on two sizes of windows, with
        missing pixels, and without each of the inputs where the model has learned to do without. Of trees, without the
        ``ON_THRESHOLDS`` of the pixels that differ most.

    Raises:
        UsageError: what the export takes is not installed.
        ModelFileError: no model of pixels, it cannot be traced, or the graph says something else than the model.
    """
    if not isinstance(model, FusionModel | EstimatorModel | VoteModel) or card.specification.head != "dense":
        raise ModelFileError("Only models that map pixels become ONNX graphs.", "Use the model file itself.")
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch asks for it on the way, in words that nobody understands
    except ImportError:
        raise UsageError(
            "An export takes the package 'onnxscript'.", "Install it with: pip install 'rsfusion[export]'."
        ) from None
    if isinstance(model, FusionModel):
        proto = _traced(model, card.specification, ["scores"], lambda values: (torch.as_tensor(model(values)),))
    else:
        seers = sorted({seer_of(model, number) for number in range(len(estimators_of(model)))})
        names = [name for seer in seers for name in seen_by(seer)]
        proto = _traced(model, card.specification, names, lambda values: _seen(model, seers, values), optimizes=False)
        append_estimators(proto, model)
    onnx.helper.set_model_props(proto, {CARD_KEY: card.model_dump_json()})
    graph = proto.SerializeToString(deterministic=True)
    worst = _largest_difference(model, OnnxModel(graph, card.specification), card)
    if not worst <= TOLERANCE:
        raise ModelFileError(
            f"The graph says something else than the model: scores differ by {worst:.2g} of the largest, and {TOLERANCE:g} are "
            "allowed.",
            "Map with the model file itself.",
        )
    return graph, worst


def _seen(model: nn.Module, seers: list[int], values: Values) -> Outputs:
    """What estimators are given, (1, columns, H, W), and (1, H, W) the bits of the inputs known, one after the other."""
    members = estimators_of(model)
    return tuple(part for seer in seers for part in members[seer].rows(values))


def _traced(
    model: nn.Module,
    specification: ModelSpecification,
    outputs: list[str],
    said: Callable[[Values], Outputs],
    *,
    optimizes: bool = True,
) -> Any:
    """The graph of what torch computes, for windows of any size.

    Args:
        model: that it is of.
        specification: of the model.
        outputs: their names.
        said: of the values by input.
        optimizes: whether the graph is written in fewer nodes, which takes as long again; the runtime does so, too.

    Raises:
        ModelFileError: torch cannot follow it.
    """
    step = model_step(specification)
    names = [entry.name for entry in specification.modalities]
    rows, columns = (torch.export.Dim(name, min=2, max=4096) for name in ("rows", "columns"))
    sides = [step * entry.finer // entry.coarser for entry in specification.modalities]
    shapes = tuple({2: side * rows, 3: side * columns} if side > 1 else {2: rows, 3: columns} for side in sides)
    example = tuple(_values(specification, *_sides(step)[0]).values())
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                _ByPosition(model, names, said).eval(),
                example,
                dynamo=True,
                input_names=names,
                output_names=outputs,
                dynamic_shapes=(shapes,),
                optimize=optimizes,
                verbose=False,
            )
        except Exception as error:  # torch's own have no common class
            raise ModelFileError(
                f"The model cannot be traced: {str(error).splitlines()[0]}", "Map with the model file itself."
            ) from None
    if program is None:
        raise ModelFileError("torch has made no graph of the model.", "Map with the model file itself.")
    return program.model_proto


def _sides(step: int) -> list[tuple[int, int]]:
    times = max(1, -(-_LEAST_SIDE // (_CHECKED_STEPS[0][0] * step)))
    return [(step * times * height, step * times * width) for height, width in _CHECKED_STEPS]


def _values(specification: ModelSpecification, rows: int, columns: int) -> dict[str, Tensor]:
    """Random values as the bands have them, with a gap."""
    generator = torch.Generator().manual_seed(rows + columns)
    values = {}
    for entry in specification.modalities:
        shape = (1, len(entry.bands), rows * entry.finer // entry.coarser, columns * entry.finer // entry.coarser)
        mean = torch.tensor([band.mean for band in entry.bands])[:, None, None]
        deviation = torch.tensor([band.standard_deviation for band in entry.bands])[:, None, None]
        drawn = mean + deviation * torch.randn(shape, generator=generator)
        drawn[:, :, 2:5, 3:9] = torch.nan
        values[entry.name] = drawn
    return values


def _largest_difference(model: nn.Module, graph: OnnxModel, card: ModelCard) -> float:
    specification = card.specification
    has_trees = any(member.estimator.kind != "logistic" for member in estimators_of(model))
    found = []
    for size in _sides(model_step(specification)):
        values = _values(specification, *size)
        shown = [values]
        if card.allows_missing and len(values) > 1:
            shown += [{name: each for name, each in values.items() if name != left} for left in values]
        for given in shown:
            with torch.inference_mode():
                expected = model(given)
            differences = (graph(given) - expected).abs().amax(dim=1).flatten() / expected.abs().max().clamp_min(1e-6)
            spared = int(ON_THRESHOLDS * len(differences)) if has_trees else 0
            # NaN counts as the largest here; Python's own comparison would lose it.
            found.append(torch.sort(differences).values[len(differences) - 1 - spared])
    return float(torch.stack(found).max())
