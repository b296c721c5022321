"""The model file: weights and a card in one safetensors file. Nothing in it is ever executed."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from core.errors import ModelFileError, OutputError
from core.labels.scheme import ClassScheme, LandCoverClass
from core.models.novelty import Novelty
from core.models.registry import any_model
from core.models.specification import ModelSpecification

FORMAT_VERSION: Literal[3] = 3
_KEY = "rsfusion"
_NOVELTY = "novelty."
"""Before the names of what ``Novelty`` holds, beside the weights."""
_OLDER = {
    1: "Version 1 was written before models had parts to choose from",
    2: "Version 2 was written before each set of inputs had a linear model of its own",
}
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib")


class ClassCard(BaseModel):
    """One class as the card writes it; see ``core.labels.scheme.LandCoverClass``."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    code: int
    name: str
    colour: str
    value: str


class ModelCard(BaseModel):
    """What a model is, what it was made from, and how good it was found to be.

    Attributes:
        format_version: of the file; a newer one is refused by name.
        software_version: of this package when the file was written.
        specification: enough to build the modules again.
        resolution_m: pixel size of the reference grid it was trained on, in metres.
        class_scheme, classes: what its output channels mean; without classes the model knows none yet.
        training: data, split, settings and seed, as text and numbers.
        scores: how it was measured, and the numbers.
        temperature: by which class scores are divided before the softmax, where every input has data.
        temperatures: the same where only some inputs have; keys as ``subset_key`` makes them.
        allows_missing: inputs were left out in training, so that the model maps with any that are there.
        has_trained_decoder: whether what the decoder makes of the features means something; not so after some ways of
            pre-training.
        created: date and time, ISO 8601.
        licence: of the weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    format_version: Literal[3] = FORMAT_VERSION
    software_version: str
    specification: ModelSpecification
    resolution_m: float = Field(gt=0)
    class_scheme: str
    classes: tuple[ClassCard, ...]
    training: dict[str, Any] = {}
    scores: dict[str, Any] = {}
    temperature: float = Field(1.0, gt=0)
    temperatures: dict[str, float] = {}
    allows_missing: bool = False
    has_trained_decoder: bool = True
    created: str = ""
    licence: str = "as the training data's owner decides"

    @model_validator(mode="after")
    def _classes_fit(self) -> Self:
        if self.specification.head == "embedding" and not self.classes:
            return self
        if len(self.scheme) != self.specification.n_classes:
            raise ValueError(f"{len(self.classes)} classes for {self.specification.n_classes} outputs")
        return self

    @property
    def scheme(self) -> ClassScheme:
        return ClassScheme(
            self.class_scheme,
            tuple(LandCoverClass(entry.code, entry.name, entry.colour, entry.value) for entry in self.classes),
        )


def subset_key(names: Iterable[str]) -> str:
    """Which inputs are there, as the card writes it."""
    return "+".join(sorted(names))


def class_cards(scheme: ClassScheme) -> tuple[ClassCard, ...]:
    """A scheme's classes as the card writes them."""
    return tuple(
        ClassCard(code=entry.code, name=entry.name, colour=entry.colour, value=entry.value) for entry in scheme.classes
    )


def save_model(path: Path, model: nn.Module, card: ModelCard, novelty: Novelty | None = None) -> None:
    """Writes weights and card, and what the labelled pixels looked like, whole or not at all.

    Raises:
        OutputError: the folder is missing or read-only, or the disk is full.
    """
    state = model.state_dict()
    if novelty is not None:
        state = {**state, **{_NOVELTY + name: tensor for name, tensor in novelty.state_dict().items()}}
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    write_tensors(path, state, card.model_dump_json())


def load_model(path: Path) -> tuple[nn.Module, ModelCard]:
    """The model in evaluation mode on the CPU, and its card.

    Raises:
        ModelFileError: no model of ours, a pickle, a damaged file, or a format that this version does not know.
    """
    state, header = read_tensors(path)
    card = read_card(header, path)
    try:
        model = any_model(card.specification)
        model.load_state_dict({name: tensor for name, tensor in state.items() if not name.startswith(_NOVELTY)})
    # KeyError: an input whose name torch keeps for itself.
    except (RuntimeError, KeyError) as error:
        raise ModelFileError(
            f"The weights in '{path}' do not belong to its own architecture: {_reason(error)}",
            "The file was changed after it was written; use the original.",
        ) from None
    model.eval()
    return model, card


def read_card(text: str, path: Path) -> ModelCard:
    """A card as its file writes it.

    Raises:
        ModelFileError: it is damaged, or of a format that this version does not know.
    """
    try:
        content = json.loads(text)
        version = content.get("format_version") if isinstance(content, dict) else None
        if version != FORMAT_VERSION:
            raise ModelFileError(
                f"The model '{path}' has format version {version}; this software reads version {FORMAT_VERSION}.",
                f"{_OLDER[version]}: train it again, or map with the older software."
                if isinstance(version, int) and version in _OLDER
                else "Use the version of the software that wrote it, or a newer one.",
            )
        return ModelCard.model_validate(content)
    except (json.JSONDecodeError, ValidationError) as error:
        raise ModelFileError(
            f"The card of the model '{path}' is damaged: {_reason(error)}.",
            "The file was changed after it was written; use the original.",
        ) from None


def load_novelty(path: Path, card: ModelCard) -> Novelty | None:
    """What the labelled pixels of a model's training looked like; None where the file does not say.

    Args:
        path: of a file that ``load_model`` took.
        card: its card; with the scene's own inputs.

    Raises:
        ModelFileError: a damaged file.
    """
    state = {name.removeprefix(_NOVELTY): tensor for name, tensor in _read(path)[0].items() if name.startswith(_NOVELTY)}
    if not state:
        return None
    novelty = Novelty(card.specification)
    try:
        novelty.load_state_dict(state)
    except RuntimeError as error:
        raise ModelFileError(
            f"What the model '{path}' has seen does not belong to its own inputs: {_reason(error)}",
            "Map without the layer of novelty, or with the sensors that the model was trained on.",
        ) from None
    return novelty.eval()


def write_tensors(path: Path, tensors: dict[str, Tensor], header: str) -> None:
    """One safetensors file with a text in its header, whole or not at all, the same bytes for the same input."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(_sorted_header(save(tensors, metadata={_KEY: header})))
        os.replace(partial, path)
    except OSError as error:
        raise OutputError(f"'{path}' cannot be written: {error.strerror}.", "Choose another folder.") from None
    finally:
        partial.unlink(missing_ok=True)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], str]:
    """Tensors and header text of a file written by ``write_tensors``.

    Raises:
        ModelFileError: missing, a pickle, damaged, or not written by this software.
    """
    tensors, metadata = _read(path)
    if _KEY not in metadata:
        raise ModelFileError(
            f"'{path}' holds weights, but not from this software: its header has no model card.",
            "Give a model made by 'Fine-tune on labels'.",
        )
    return tensors, metadata[_KEY]


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors of any safetensors file.

    Raises:
        ModelFileError: missing, a pickle, or damaged.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if path.suffix.lower() in _PICKLES:
        raise ModelFileError(
            f"'{path}' is a pickle, which can run any program when it is opened; it was not opened.",
            "Models of this software end in .safetensors. Convert weights to safetensors where you trust their source.",
        )
    if not path.is_file():
        raise ModelFileError(f"The model '{path}' does not exist.", "Check the path.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelFileError(
            f"'{path}' is no model file, or it is damaged: {error}.", "Models of this software end in .safetensors."
        ) from None
    return tensors, metadata


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _reason(error: Exception) -> str:
    """The first thing that an error complains of, without the title that pydantic and torch put above it."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'card'}: {first['msg']}"
    lines = str(error).splitlines()
    return lines[min(1, len(lines) - 1)].strip()


def _sorted_header(content: bytes) -> bytes:
    """The same file with its header's keys sorted: the library writes its metadata in an order that changes."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    # Offsets count from the end of the header, so that it may change its length; padded to eight bytes, as specified.
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + content[8 + length :]
