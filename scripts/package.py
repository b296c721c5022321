#!/usr/bin/env python3
"""Builds the plugin's zip: ``python3 scripts/package.py [target.zip]``, by default ``dist/rsfusion_plugin.zip``.

The top folder is ``rsfusion``: the plugin site wants no 'plugin' in that name. It holds the plugin, the package ``core``,
the list of the worker's packages and the licence. The same files give the same bytes.
"""

import argparse
import os
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOP = "rsfusion"
MOST_BYTES = 25_000_000
"""What the plugin site takes, a little below its 25 MB."""

_DATE = (2020, 1, 1, 0, 0, 0)
"""Of every file in the zip: when a file was checked out must not change the bytes."""


def packaged_files(root):
    """What goes into the zip.

    Args:
        root: the project's folder.

    Returns:
        Pairs of the name in the zip and the file, sorted by name.

    Raises:
        FileNotFoundError: a file that the plugin cannot do without is missing.
    """
    files = {}
    for folder, inside in ((root / "rsfusion_plugin", ""), (root / "core", "core/")):
        for path in folder.rglob("*"):
            parts = path.relative_to(folder).parts
            if path.is_file() and not any(_is_left_out(part) for part in parts):
                files["{}/{}{}".format(TOP, inside, "/".join(parts))] = path
    files[TOP + "/LICENSE"] = root / "LICENSE"
    files[TOP + "/worker/requirements.lock"] = root / "requirements" / "worker.lock"
    for name in ("metadata.txt", "__init__.py", "core/__init__.py", "core/worker.py"):
        files.setdefault(TOP + "/" + name, root / "rsfusion_plugin" / name)
    for path in files.values():
        if not path.is_file():
            raise FileNotFoundError(f"'{path}' is missing, and the plugin cannot do without it.")
    return sorted(files.items())


def _is_left_out(name):
    return name.startswith(".") or name in ("__pycache__", "tests") or name.endswith((".pyc", ".pyo", ".aux.xml"))


def write_zip(target, files):
    """Writes the zip beside its target and then renames it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.name + ".part")
    with zipfile.ZipFile(str(temporary), "w") as archive:
        for name, path in files:
            entry = zipfile.ZipInfo(name, _DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # as from Unix, wherever it is built
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, path.read_bytes(), compresslevel=9)
    os.replace(str(temporary), str(target))


def main(arguments=None):
    """Builds the zip; returns the exit code."""
    parser = argparse.ArgumentParser(description="Build the zip of the QGIS plugin.")
    parser.add_argument("target", nargs="?", type=Path, default=ROOT / "dist" / "rsfusion_plugin.zip")
    target = parser.parse_args(arguments).target
    try:
        write_zip(target, packaged_files(ROOT))
    except OSError as error:
        print(f"The plugin was not packaged: {error}", file=sys.stderr)
        return 1
    size = target.stat().st_size
    if size > MOST_BYTES:
        print(f"{target} has {size} bytes, and the plugin site takes {MOST_BYTES}.", file=sys.stderr)
        return 1
    print(f"{target} ({size / 1000:.0f} kB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
