"""Finished strips of a map, kept on disk until the map is whole.

A map that is killed goes on from them, and what several processes map is put together from them. The folder of a journal
lies beside the map; its name begins with a dot. It holds ``journal.json``, which says what the strips were made from, and a
file for every strip, which is there whole or not at all.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from core.errors import OutputError
from core.scenes.grid import Window

_HEAD, _LOCK = "journal.json", "lock"
_held: set[str] = set()
"""The locks of this process."""


def journal_folder(path: Path) -> Path:
    """Where the strips of a raster are kept while it is made."""
    whole = path.absolute()
    return whole.with_name(f".{whole.name}.strips")


def journal_bytes(path: Path) -> int:
    """What an interrupted run has left on the disk."""
    folder = journal_folder(path)
    return sum(entry.stat().st_size for entry in folder.iterdir()) if folder.is_dir() else 0


def has_strips(path: Path) -> bool:
    """Whether there is anything that a later run can go on from."""
    return any(journal_folder(path).glob("*.npz"))


def is_in_use(path: Path) -> bool:
    """Whether another process makes this raster now."""
    lock = journal_folder(path) / _LOCK
    if not lock.is_file() or str(lock) in _held:
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


def remove_journal(path: Path) -> None:
    """Removes what an interrupted run has left, if anything."""
    shutil.rmtree(journal_folder(path), ignore_errors=True)


class StripJournal:
    """The finished strips of one map. Enter it to keep others from it.

    Strips that were made from something else than ``identity`` are removed: they would not fit.

    Args:
        path: of the map.
        identity: what the strips depend on, each by a name that the user understands.
        facts: of the first run, which a run that goes on takes over.

    Attributes:
        changed: the names of what the strips that were found do not share.
        facts: of the run that began the map.
        count: of the strips that were found and fit.
        is_second_run: an earlier run was interrupted.

    Raises:
        OutputError: another process makes the same map, or the folder cannot be written.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        self._path = path
        self._folder = journal_folder(path)
        self._identity = json.loads(json.dumps(dict(identity)))
        self.facts = dict(facts)
        self.changed: list[str] = []
        self.count = 0
        self.is_second_run = False

    def __enter__(self) -> StripJournal:
        try:
            self._folder.mkdir(exist_ok=True)
            self._lock = FileLock(self._folder / _LOCK, timeout=0)
            self._lock.acquire()
        except Timeout:
            raise OutputError(
                f"'{self._path}' is being made by another process.", "Wait for it, or choose another name."
            ) from None
        except OSError as error:
            raise OutputError(
                f"'{self._folder}' cannot be written: {error.strerror}.", "Check the rights of its folder."
            ) from None
        _held.add(str(self._folder / _LOCK))
        try:
            self._begin()
        except BaseException as error:
            self._release()
            if not isinstance(error, OSError):
                raise
            raise OutputError(
                f"'{self._folder}' cannot be written: {error.strerror}.", "Free some space, or choose another place."
            ) from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._release()

    def _release(self) -> None:
        _held.discard(str(self._folder / _LOCK))
        self._lock.release()

    def _begin(self) -> None:
        found = self._head()
        self.is_second_run = any(entry.name != _LOCK for entry in self._folder.iterdir())
        if found is not None:
            names = [*self._identity, *found["identity"]]
            self.changed = [name for name in dict.fromkeys(names) if self._identity.get(name) != found["identity"].get(name)]
        if found is None or self.changed:
            for entry in self._folder.iterdir():
                if entry.name != _LOCK:
                    entry.unlink()
            head = {"identity": self._identity, "facts": self.facts}
            self._put(_HEAD, lambda path: path.write_text(json.dumps(head), encoding="utf-8"))
            return
        self.facts = found["facts"]
        for entry in self._folder.glob("*.part"):
            entry.unlink()
        for entry in self._folder.glob("*.npz"):
            if _is_whole(entry):
                self.count += 1
            else:
                entry.unlink()

    def _head(self) -> dict[str, Any] | None:
        try:
            found = json.loads((self._folder / _HEAD).read_text(encoding="utf-8"))
            return dict(found) if {"identity", "facts"} <= set(found) else None
        except (OSError, ValueError):
            return None

    def _put(self, name: str, write: Any) -> None:
        partial = self._folder / f"{name}.{secrets.token_hex(4)}.part"
        try:
            write(partial)
            os.replace(partial, self._folder / name)
        finally:
            partial.unlink(missing_ok=True)

    def _place(self, window: Window) -> Path:
        return self._folder / f"{window.column}_{window.row}_{window.width}_{window.height}.npz"

    def __contains__(self, window: Window) -> bool:
        return self._place(window).is_file()

    def add(self, window: Window, arrays: Sequence[NDArray[Any]]) -> None:
        """Keeps a strip.

        Raises:
            OutputError: the disk is full, or files may not grow so large.
        """

        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.savez(file, *arrays)

        try:
            self._put(self._place(window).name, write)
        except OSError as error:
            raise OutputError(
                f"The strips of '{self._path}' cannot be kept: {error.strerror}.", "Free some space, or choose another disk."
            ) from None

    def read(self, window: Window) -> list[NDArray[Any]]:
        """The arrays of a strip that was kept."""
        with np.load(self._place(window), allow_pickle=False) as file:
            return [file[f"arr_{number}"] for number in range(len(file.files))]

    def remove(self) -> None:
        """Removes all strips: the map is whole."""
        self._release()
        shutil.rmtree(self._folder, ignore_errors=True)


def _is_whole(path: Path) -> bool:
    """Whether a file is as it was written: a machine that lost its power can leave it short or empty."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False
