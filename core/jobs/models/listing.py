"""What ``rsfusion models`` says: the architectures with when to use which, what they cost, and what a model file is."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from core.errors import UsageError
from core.models.architectures import ARCHITECTURES, title_of
from core.models.catalogue import (
    CatalogueEntry,
    all_specifications,
    catalogue_entry,
    named_specifications,
    stated_modalities,
)
from core.models.model_file import load_model
from core.models.specification import ModalitySpecification, ModelSpecification
from core.sensors import get_sensor

HEADINGS = ("stem", "encoder", "size", "fusion", "parameters", "GFLOP/Mpx", "levels (stride:channels)")
_RIGHT = ("parameters", "GFLOP/Mpx")
_SCORES = ("overall accuracy", "macro f1", "mean iou")


def models_data(modalities: str, resolution_m: float, every_combination: bool) -> dict[str, Any]:
    """The architectures, and on request all combinations of parts, with their cost; plain data for JSON.

    Args:
        modalities: see ``core.models.catalogue.stated_modalities``.
        resolution_m: pixel size of the map in metres.
        every_combination: whether to measure all combinations of encoder, size and fusion, too: some minutes.

    Raises:
        RsfusionError: the inputs cannot be understood.
    """
    if not (math.isfinite(resolution_m) and resolution_m > 0):
        raise UsageError(f"resolution: {resolution_m:g} is no pixel size.", "Give metres, more than 0.")
    inputs = stated_modalities(modalities, resolution_m)
    named = named_specifications(inputs, resolution_m)
    others = all_specifications(inputs, resolution_m) if every_combination else []
    entries = list(_measured([*named, *others]))
    data: dict[str, Any] = {"resolution_m": resolution_m, "inputs": [_input_data(entry, resolution_m) for entry in inputs]}
    data["architectures"] = [
        {"name": known.name, "title": known.title, "use": known.use, **_entry_data(entry)}
        for known, entry in zip(ARCHITECTURES.values(), entries[: len(named)], strict=True)
    ]
    if every_combination:
        data["combinations"] = [_entry_data(entry) for entry in entries[len(named) :]]
    return data


def _measured(specifications: Sequence[ModelSpecification]) -> Iterator[CatalogueEntry]:
    # disable=None: no bar where nobody sits at a terminal.
    for specification in tqdm(specifications, "Measuring", file=sys.stderr, disable=None, leave=False):
        yield catalogue_entry(specification)


def model_data(path: str) -> dict[str, Any]:
    """What a model file holds; plain data for JSON.

    Raises:
        ModelFileError: the file is no model of ours.
    """
    _, card = load_model(Path(path))
    specification = card.specification
    return {
        "file": Path(path).name,
        "title": title_of(specification),
        "architecture": specification.architecture,
        "head": specification.head,
        "estimator": None if specification.estimator is None else specification.estimator.model_dump(),
        **_entry_data(catalogue_entry(specification)),
        "inputs": [_input_data(entry, card.resolution_m) for entry in specification.modalities],
        "card": card.model_dump(mode="json", exclude={"specification"}),
    }


def _entry_data(entry: CatalogueEntry) -> dict[str, Any]:
    specification = entry.specification
    return {
        "stem": specification.stem,
        "encoder": specification.encoder,
        "size": specification.size,
        "fusion": specification.fusion,
        "parameters": entry.parameters,
        "gflop_per_megapixel": round(entry.gflop_per_megapixel, 3),
        "levels": [asdict(level) for level in entry.levels],
        "reach": entry.reach,
    }


def _input_data(modality: ModalitySpecification, resolution_m: float) -> dict[str, Any]:
    return {
        "name": modality.name,
        "role": modality.role,
        "sensor": modality.sensor,
        "title": get_sensor(modality.sensor).title,
        "bands": list(modality.band_names),
        "pixel_size_m": round(resolution_m * modality.coarser / modality.finer, 6),
    }


def models_text(data: dict[str, Any]) -> str:
    """``models_data`` for people."""
    width = max(len(entry["name"]) for entry in data["architectures"])
    lines = ["Architectures, and when to use which", ""]
    lines += [f"  {entry['name']:{width}}  {entry['use']}" for entry in data["architectures"]]
    lines += ["", f"Cost over {_inputs_text(data['inputs'])}; map of {data['resolution_m']:g} m", ""]
    lines += _table(("architecture", *HEADINGS), ((entry["name"], *_cells(entry)) for entry in data["architectures"]))
    if "combinations" in data:
        lines += ["", "Every combination of stem, encoder, size and fusion", ""]
        lines += _table(HEADINGS, map(_cells, data["combinations"]))
    lines += [
        "",
        "GFLOP/Mpx: thousand million operations for a million pixels of the map. Levels: for each level of features, map",
        "pixels from one to the next, and channels.",
    ]
    if "combinations" not in data:
        lines.append("--all measures every combination of stem, encoder, size and fusion; --modalities takes other inputs.")
    return "\n".join(lines)


def model_text(data: dict[str, Any]) -> str:
    """``model_data`` for people."""
    card = data["card"]
    lines = [
        f"{data['file']}: {data['title']}",
        "",
        f"  made          {card['created'] or 'at an unknown date'}, by version {card['software_version']}",
        *_parts_lines(data),
        f"  pixel size    {card['resolution_m']:.4g} m",
        f"  classes       {', '.join(entry['name'] for entry in card['classes'])}",
        f"  inputs        {'some may be missing' if card['allows_missing'] else 'all are needed'}",
    ]
    lines += [
        f"    {entry['name']}: {entry['title']} ({entry['role']}), {entry['pixel_size_m']:.4g} m, {_bands(entry['bands'])}"
        for entry in data["inputs"]
    ]
    scores = card["scores"]
    rows = [(str(row.get("name")), *_score_cells(row)) for row in scores.get("models", [])]
    subsets = [("with " + ", ".join(row.get("inputs", ())), *_score_cells(row)) for row in scores.get("missing_inputs", [])]
    if rows:
        lines += ["", *_table(("scores", *_SCORES), [*rows, *subsets], _SCORES)]
    if "measured" in scores:
        lines += ["", f"  Scores: {scores['measured']}."]
    return "\n".join(lines)


def _parts_lines(data: dict[str, Any]) -> list[str]:
    """What a model is made of: nothing of a network where an estimator sees the pixels alone."""
    if not data["levels"]:
        return []
    return [
        f"  parts         stem {data['stem']}, encoder {data['encoder']}, size {data['size']}, fusion {data['fusion']}",
        f"  cost          {data['parameters']:,} parameters, {data['gflop_per_megapixel']:,.0f} GFLOP per megapixel of map",
        f"  levels        {_levels(data)} (stride:channels)",
    ]


def _score_cells(row: dict[str, Any]) -> tuple[str, ...]:
    values = (row.get(heading.replace(" ", "_")) for heading in _SCORES)
    return tuple(f"{value:.3f}" if isinstance(value, float | int) else "" for value in values)


def _cells(entry: dict[str, Any]) -> tuple[str, ...]:
    numbers = (f"{entry['parameters']:,}", f"{entry['gflop_per_megapixel']:,.0f}")
    return (entry["stem"], entry["encoder"], entry["size"], entry["fusion"], *numbers, _levels(entry))


def _levels(entry: dict[str, Any]) -> str:
    return " ".join(f"{level['stride']}:{level['channels']}" for level in entry["levels"])


def _inputs_text(inputs: Sequence[dict[str, Any]]) -> str:
    return "; ".join(f"{entry['title']} ({_bands(entry['bands'])}, {entry['pixel_size_m']:.4g} m)" for entry in inputs)


def _bands(bands: Sequence[str]) -> str:
    return "1 band" if len(bands) == 1 else f"{len(bands)} bands"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[str] = _RIGHT) -> list[str]:
    """Lines of a table with columns as wide as what stands in them."""
    lines = [tuple(headings), *map(tuple, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return [
        "  "
        + "  ".join(
            f"{text:>{width}}" if heading in numbers else f"{text:{width}}"
            for text, width, heading in zip(line, widths, headings, strict=True)
        ).rstrip()
        for line in lines
    ]
