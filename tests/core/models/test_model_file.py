"""The model file: what is written comes back, and what is not ours is refused without being run."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import nn

from core.errors import ModelFileError, OutputError
from core.labels.scheme import ClassScheme, LandCoverClass
from core.models.model_file import (
    FORMAT_VERSION,
    ModelCard,
    class_cards,
    file_digest,
    load_model,
    read_tensors,
    save_model,
    subset_key,
    write_tensors,
)
from core.models.registry import build_model
from tests.core.models.specifications import inputs, specification

SCHEME = ClassScheme(
    "Flächen",
    (LandCoverClass(3, "Wälder & 'Büsche'", "#00ff00", "w"), LandCoverClass(255, "水", "#0000ff", "2")),
)


def card(**options: Any) -> ModelCard:
    values = {
        "software_version": "0.1",
        "specification": specification("unet_intermediate", "usual", n_classes=2),
        "resolution_m": 10.0,
        "class_scheme": SCHEME.name,
        "classes": class_cards(SCHEME),
        "training": {"seed": 3, "inputs": {"dsm": ["a b.tif"]}},
        "scores": {"overall_accuracy": 0.1 + 0.2},
        "temperature": 1 / 3,
    }
    return ModelCard(**(values | options))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    made = build_model(card().specification).train()
    # Running statistics that differ from a new model's.
    made(inputs(card().specification, 24, 24, 2))
    return made.eval()


@pytest.fixture
def written(tmp_path: Path, model: nn.Module) -> Path:
    path = tmp_path / "l'été.safetensors"
    save_model(path, model, card())
    return path


def test_model_and_card_come_back_bit_for_bit(written: Path, model: nn.Module) -> None:
    loaded, found = load_model(written)
    assert found == card()
    assert found.scheme == SCHEME
    state, expected = loaded.state_dict(), model.state_dict()
    assert list(state) == list(expected)
    for name, value in expected.items():
        assert state[name].dtype == value.dtype
        assert torch.equal(state[name], value)
    assert not loaded.training
    values = inputs(found.specification, 24, 24)
    assert torch.equal(loaded(values), model(values))
    assert [entry.name for entry in written.parent.iterdir()] == [written.name]


def test_same_model_same_bytes(written: Path, model: nn.Module) -> None:
    first = written.read_bytes()
    for number in range(5):
        again = written.with_name(f"{number}.safetensors")
        save_model(again, model, card())
        assert again.read_bytes() == first
    loaded, found = load_model(written)
    save_model(written, loaded, found)
    assert written.read_bytes() == first
    assert file_digest(written) == file_digest(again)


def test_tensors_are_aligned_as_the_format_wants(written: Path) -> None:
    content = written.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    assert length % 8 == 0
    header = json.loads(content[8 : 8 + length])
    spans = sorted(entry["data_offsets"] for name, entry in header.items() if name != "__metadata__")
    assert spans[0][0] == 0
    assert all(first[1] == second[0] for first, second in pairwise(spans))
    assert 8 + length + spans[-1][1] == len(content)


class Trap:
    """An object whose unpickling makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib", ".PT", ".safetensors", ""])
@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_a_pickle_is_refused_and_not_run(tmp_path: Path, suffix: str, writer: str) -> None:
    sprung = tmp_path / "sprung"
    path = tmp_path / f"model{suffix}"
    if writer == "pickle":
        path.write_bytes(pickle.dumps(Trap(sprung)))
    else:
        torch.save({"state_dict": Trap(sprung)}, path)
    with pytest.raises(ModelFileError, match="model") as caught:
        load_model(path)
    assert not sprung.exists()
    assert str(path) in caught.value.message
    assert ("is a pickle" in caught.value.message) == (suffix not in (".safetensors", ""))
    assert caught.value.hint
    pickle.loads(pickle.dumps(Trap(sprung)))
    assert sprung.exists()


@pytest.mark.parametrize("length", [0, 4, 8, 100, 3000, -1])
def test_a_truncated_file_is_refused(written: Path, length: int) -> None:
    content = written.read_bytes()
    written.write_bytes(content[:length])
    with pytest.raises(ModelFileError, match="damaged"):
        load_model(written)


def test_a_header_longer_than_the_file_is_refused(written: Path) -> None:
    written.write_bytes(struct.pack("<Q", 2**62) + written.read_bytes()[8:])
    with pytest.raises(ModelFileError, match="damaged"):
        load_model(written)


def test_other_peoples_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    for metadata in (None, {"format": "pt"}):
        save_file({"weight": torch.zeros(3)}, path, metadata)
        with pytest.raises(ModelFileError, match="no model card"):
            load_model(path)


def test_what_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="does not exist"):
        load_model(tmp_path / "none.safetensors")
    with pytest.raises(ModelFileError, match="does not exist"):
        load_model(tmp_path)


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor], dict[str, Any]], None]) -> None:
    """The same file with other weights or another card."""
    tensors, header = read_tensors(path)
    content = json.loads(header)
    change(tensors, content)
    write_tensors(path, tensors, json.dumps(content))


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 0, "1.5", None])
def test_another_format_version_is_named(written: Path, version: Any) -> None:
    rewrite(written, lambda _, content: content.update(format_version=version, unheard_of=True))
    with pytest.raises(ModelFileError, match=f"format version {version}.*reads version {FORMAT_VERSION}") as caught:
        load_model(written)
    assert "version" in caught.value.hint


@pytest.mark.parametrize(("version", "words"), [(1, "before models had parts"), (2, "a linear model of its own")])
def test_older_models_are_refused_by_name(written: Path, version: int, words: str) -> None:
    rewrite(written, lambda _, content: content.update(format_version=version))
    with pytest.raises(ModelFileError, match=f"format version {version}; this software reads version 3") as caught:
        load_model(written)
    assert words in caught.value.hint


def test_temperatures_of_subsets_come_back(tmp_path: Path, model: nn.Module) -> None:
    path = tmp_path / "model.safetensors"
    key = subset_key(["sentinel2_l2a", "dsm"])
    assert key == subset_key(["dsm", "sentinel2_l2a"]) == "dsm+sentinel2_l2a"
    save_model(path, model, card(allows_missing=True, temperatures={key: 1.25}))
    found = load_model(path)[1]
    assert found.allows_missing
    assert found.temperatures == {key: 1.25}


def test_a_card_that_is_no_card_is_refused(written: Path) -> None:
    tensors, _ = read_tensors(written)
    for header in ("", "{", "[1]", "7", '"format_version"'):
        write_tensors(written, tensors, header)
        with pytest.raises(ModelFileError, match=r"card of the model .* is damaged|format version None"):
            load_model(written)


def specification_of(content: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = content["specification"]
    return found


DAMAGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "resolution_m": lambda content: content.update(resolution_m=-1),
    "specification.architecture": lambda content: specification_of(content).update(architecture="U-Net"),
    "specification.n_classes": lambda content: specification_of(content).update(n_classes=0),
    "specification.encoder": lambda content: specification_of(content).update(encoder="mlp"),
    "specification: .*comes in the sizes": lambda content: specification_of(content).update(encoder="vit", size="large"),
    "specification: .*2 to 255 classes": lambda content: specification_of(content).update(n_classes=1),
    "specification.width": lambda content: specification_of(content).update(width=10**9),
    "specification.modalities.0.bands.1.mean": lambda content: specification_of(content)["modalities"][0]["bands"][1].update(
        mean=None
    ),
    "specification.modalities.2.name": lambda content: specification_of(content)["modalities"][2].update(name="../dsm"),
    "card: .*same code": lambda content: content["classes"][0].update(code=255),
    "card: .*#rrggbb": lambda content: content["classes"][1].update(colour="blue"),
    "card: .*1 classes for 2 outputs": lambda content: content["classes"].pop(),
    "unheard_of": lambda content: content.update(unheard_of=1),
    "created": lambda content: content.update(created=5),
}


@pytest.mark.parametrize("where", DAMAGES)
def test_a_damaged_card_names_what_is_wrong(written: Path, where: str) -> None:
    rewrite(written, lambda _, content: DAMAGES[where](content))
    with pytest.raises(ModelFileError, match=f"card of the model .* is damaged: {where}"):
        load_model(written)


def test_weights_that_do_not_fit_are_named(written: Path) -> None:
    original = written.read_bytes()
    name = "head.classifier.weight"

    def reshaped(tensors: dict[str, torch.Tensor], _: dict[str, Any]) -> None:
        tensors[name] = torch.zeros(2, 7, 1, 1)

    def left_out(tensors: dict[str, torch.Tensor], _: dict[str, Any]) -> None:
        del tensors[name]

    def added(tensors: dict[str, torch.Tensor], _: dict[str, Any]) -> None:
        tensors["stranger"] = torch.zeros(1)

    for change, complaint in ((reshaped, f"size mismatch.*{name}"), (left_out, f"Missing.*{name}"), (added, "stranger")):
        written.write_bytes(original)
        rewrite(written, change)
        with pytest.raises(ModelFileError, match=f"do not belong.*{complaint}"):
            load_model(written)


def test_an_input_named_as_torch_names_its_own_is_refused(written: Path) -> None:
    rewrite(written, lambda _, content: specification_of(content)["modalities"][0].update(name="training"))
    with pytest.raises(ModelFileError, match=r"do not belong.*training"):
        load_model(written)


def test_what_could_not_be_read_back_is_not_written() -> None:
    with pytest.raises(ValidationError, match="temperature"):
        card(temperature=float("inf"))
    with pytest.raises(ValidationError, match="2 classes for 5 outputs"):
        card(specification=specification(n_classes=5))


def test_a_folder_that_is_missing_or_a_target_that_is_a_folder(tmp_path: Path, model: nn.Module) -> None:
    target = tmp_path / "taken"
    target.mkdir()
    for path in (tmp_path / "none" / "model.safetensors", target):
        with pytest.raises(OutputError, match="cannot be written") as caught:
            save_model(path, model, card())
        assert str(path) in caught.value.message
    assert list(tmp_path.rglob("*")) == [target]


def test_a_failed_write_leaves_the_earlier_model(written: Path, model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    before = written.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="No space left"):
        save_model(written, model, card(temperature=2.0))
    assert written.read_bytes() == before
    assert list(written.parent.iterdir()) == [written]
