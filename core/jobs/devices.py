"""Where a job computes."""

from __future__ import annotations

import torch

from core.errors import DeviceError
from core.pretraining.launch import local_rank, started_processes


def choose_device(wanted: str) -> torch.device:
    """The device of that name; ``auto`` takes a GPU where there is one.

    Raises:
        DeviceError: the name means nothing, or the device is not there.
    """
    if wanted == "auto":
        if torch.cuda.is_available():
            return _own_gpu()
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise DeviceError(f"'{wanted}' is no device.", "Use auto, cpu, cuda, cuda:N or mps.") from None
    is_there = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not is_there.get(device.type, False):
        raise DeviceError(f"The device '{wanted}' is not on this machine.", "Use 'auto' or 'cpu'.")
    return _own_gpu() if wanted == "cuda" else device


def _own_gpu() -> torch.device:
    """The current GPU; of several processes on this machine each takes another."""
    if started_processes() == 1:
        return torch.device("cuda")
    return torch.device("cuda", local_rank() % torch.cuda.device_count())


def describe_device(device: torch.device) -> str:
    """The device's name as a user knows it."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        return f"cpu ({torch.get_num_threads()} threads)"
    return str(device)
