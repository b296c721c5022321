"""What a model is, as a STAC item with the machine-learning model extension (MLM 1.4)."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from core.errors import UsageError
from core.models.architectures import title_of
from core.models.model_file import ModelCard
from core.models.registry import any_model, count_parameters
from core.models.specification import ModalitySpecification, ModelSpecification

_BANDS = ["batch", "bands", "height", "width"]
"""The extension's schema asks for this name where an input lists its bands, and for their description in the item."""
_CLASSES = ["batch", "class", "height", "width"]
EVERYWHERE = (-180.0, -90.0, 180.0, 90.0)
"""A model maps wherever its sensors look; the item does not say where its labels lay."""


def stac_item(card: ModelCard, graph: Path, folder: Path) -> str:
    """The item of an exported graph, as JSON.

    Args:
        card: of the model.
        graph: its file.
        folder: that the item will lie in, from which it refers to the graph.

    Raises:
        UsageError: pystac is not installed.
    """
    try:
        import pystac
        from pystac.extensions import mlm
        from pystac.extensions.raster import DataType
    except ImportError:
        raise UsageError(
            "A STAC item takes the package 'pystac'.", "Install it with: pip install 'rsfusion[export]'."
        ) from None
    specification = card.specification
    left, bottom, right, top = EVERYWHERE
    ring = [[left, bottom], [right, bottom], [right, top], [left, top], [left, bottom]]
    created = datetime.fromisoformat(card.created) if card.created else datetime.fromtimestamp(0, UTC)
    # The schema takes one word: an identifier of SPDX, or that it is something else.
    is_word = re.fullmatch(r"[\w.+-]+", card.licence) is not None
    licence = {"license": card.licence} if is_word else {"license": "other", "description": f"Licence: {card.licence}."}
    item = pystac.Item(graph.stem, {"type": "Polygon", "coordinates": [ring]}, list(EVERYWHERE), created, licence)
    extension = mlm.MLMExtension.ext(item, add_if_missing=True)
    classes = [
        {
            "value": number,
            "name": _slug(entry.value) or str(entry.code),
            "title": entry.name,
            "color_hint": entry.colour.lstrip("#").upper(),
        }
        for number, entry in enumerate(card.classes)
    ]
    scores = mlm.InputStructure.create([1, specification.n_classes, -1, -1], _CLASSES, DataType.FLOAT32)
    extension.apply(
        name=_name(graph.stem),
        architecture=specification.architecture if specification.estimator is None else title_of(specification),
        tasks=[mlm.TaskType.SEMANTIC_SEGMENTATION],
        input=[_input(entry) for entry in specification.modalities],
        output=[
            mlm.ModelOutput.create(
                name="scores",
                tasks=[mlm.TaskType.SEMANTIC_SEGMENTATION],
                result=mlm.ResultStructure.create(scores.shape, scores.dim_order, scores.data_type),
            )
        ],
        framework="ONNX",
        total_parameters=count_parameters(any_model(specification)),
    )
    item.properties["mlm:output"][0]["classification:classes"] = classes
    item.properties["bands"] = _described_bands(specification)
    item.stac_extensions.append("https://stac-extensions.github.io/classification/v2.0.0/schema.json")
    item.add_asset(
        "model", pystac.Asset(_reference(graph, folder), graph.name, media_type="application/octet-stream", roles=["mlm:model"])
    )
    item.assets["model"].extra_fields["mlm:artifact_type"] = "onnx"
    return json.dumps(item.to_dict(include_self_link=False, transform_hrefs=False), indent=2) + "\n"


def _reference(graph: Path, folder: Path) -> str:
    """As a relative link; as an absolute one where there is no way, as between the drives of Windows."""
    try:
        way = Path(os.path.relpath(graph.absolute(), folder.absolute())).as_posix()
    except ValueError:
        return graph.absolute().as_uri()
    return quote(way if way.startswith("../") else f"./{way}")


def _name(stem: str) -> str:
    """As the extension wants a name: three signs or more, the first a letter, the last a letter or digit."""
    plain = _slug(stem)
    return plain if re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_-]+[a-zA-Z0-9]", plain) else f"model-{plain}".rstrip("-")


def _slug(text: str) -> str:
    """Letters, digits, lines: what the extensions take for a name."""
    return re.sub(r"[^a-zA-Z0-9_-]+", "-", text).strip("_-")


def _described_bands(specification: ModelSpecification) -> list[dict[str, str]]:
    """STAC's common metadata of all bands; a name that several sensors use stands there once."""
    sensors: dict[str, list[str]] = {}
    for entry in specification.modalities:
        for band in entry.bands:
            sensors.setdefault(band.name, []).append(
                f"{entry.sensor}, {band.center_nm:g} nm" if band.center_nm is not None else entry.sensor
            )
    return [{"name": name, "description": "; ".join(dict.fromkeys(found))} for name, found in sensors.items()]


def _input(entry: ModalitySpecification) -> mlm.ModelInput:  # type: ignore[name-defined]  # noqa: F821
    from pystac.extensions import mlm
    from pystac.extensions.raster import DataType

    shape = mlm.InputStructure.create([1, len(entry.bands), -1, -1], _BANDS, DataType.FLOAT32)
    note = f"{entry.sensor}: physical units, NaN = missing; {entry.finer} pixels of it along {entry.coarser} of the map."
    return mlm.ModelInput.create(name=entry.name, bands=list(entry.band_names), input=shape, description=note)
