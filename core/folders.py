"""Folders that results go to."""

from __future__ import annotations

import secrets
from pathlib import Path

from core.errors import OutputError


def check_writable(folder: Path) -> None:
    """Tries to write: permissions alone do not tell on a network share or on Windows.

    Raises:
        OutputError: a file cannot be made in the folder.
    """
    probe = folder / f".{secrets.token_hex(4)}.probe"
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"The folder '{folder}' cannot be written to: {error.strerror}.", "Choose a folder that you may write to."
        ) from None
