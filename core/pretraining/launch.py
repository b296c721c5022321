"""How ``torchrun`` tells a process that it is one of several: by environment variables. Without torch, for who only asks."""

from __future__ import annotations

import os


def started_processes() -> int:
    """How many processes have been started together; one without ``torchrun``."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process's number among them; 0 speaks and writes."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """This process's number among those on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))
