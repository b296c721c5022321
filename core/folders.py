"""Folders that results go to, and small files that are whole or not there."""

from __future__ import annotations

import os
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


def write_text(path: Path, text: str) -> None:
    """As ``write_bytes``, of a text in UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a small file so that it is whole or not there.

    Raises:
        OutputError: the folder is missing or cannot be written to, or the disk is full.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OutputError(f"'{path}' cannot be written: {error.strerror}.") from None
