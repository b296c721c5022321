"""The state of a training run on disk, so that a run that was killed goes on as if nothing had happened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import ModelFileError
from core.models.model_file import read_tensors, write_tensors


def save_checkpoint(
    path: Path,
    identity: str,
    modules: dict[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler | None,
    records: list[dict[str, Any]],
    extra: dict[str, Any],
) -> None:
    """Writes everything that the next epoch depends on; randomness is drawn anew from seed and epoch and needs no state.

    Args:
        path: of the checkpoint.
        identity: of data, labels and settings; a checkpoint with another one is not used.
        modules: by name: the model, its average, the best so far.
        optimizer, schedule: of the run; a rate that follows from the step alone needs no schedule.
        records: of the epochs done, as plain values.
        extra: plain values of the loop.
    """
    tensors = {f"{name}/{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}
    state = optimizer.state_dict()
    for number, entry in state["state"].items():
        tensors.update({f"optimizer/{number}/{key}": torch.as_tensor(value) for key, value in entry.items()})
    header = {
        "identity": identity,
        "groups": state["param_groups"],
        "schedule": {} if schedule is None else {k: v for k, v in schedule.state_dict().items() if not k.startswith("_")},
        "records": records,
        "extra": extra,
    }
    copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    write_tensors(path, copies, json.dumps(header))


def is_checkpoint_of(path: Path, identity: str) -> bool:
    """Whether a file is the checkpoint of this very run."""
    return _read(path, identity) is not None


def load_checkpoint(
    path: Path,
    identity: str,
    modules: dict[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler | None,
) -> tuple[list[dict[str, Any]], dict[str, Any]] | None:
    """Restores what ``save_checkpoint`` wrote; None where there is no checkpoint of this very run."""
    read = _read(path, identity)
    if read is None:
        return None
    tensors, header = read
    for name, module in modules.items():
        module.load_state_dict(_with_prefix(tensors, f"{name}/"))
    entries: dict[int, dict[str, Tensor]] = {}
    for key, tensor in _with_prefix(tensors, "optimizer/").items():
        number, _, field = key.partition("/")
        entries.setdefault(int(number), {})[field] = tensor
    optimizer.load_state_dict({"state": entries, "param_groups": header["groups"]})
    if schedule is not None:
        schedule.load_state_dict(header["schedule"])
    return header["records"], header["extra"]


def _read(path: Path, identity: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and header of the checkpoint of a run; None where the file is none, or another run's."""
    if not path.is_file():
        return None
    try:
        tensors, text = read_tensors(path)
        header: dict[str, Any] = json.loads(text)
    except (ModelFileError, json.JSONDecodeError):
        return None
    return (tensors, header) if header.get("identity") == identity else None


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
