"""Writes the lock files in requirements/ from the versions installed in the environment that runs it.

Run it in an environment where the new versions were installed and the tests pass: ``.venv/bin/python scripts/lock.py``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
HEADER = "# Exact versions, made by scripts/lock.py from pyproject.toml; do not edit by hand.\n"
# The packages that only other systems need, and that are therefore not installed where the lock is made.
ELSEWHERE = ('colorama==0.4.6 ; sys_platform == "win32"',)


def closure(requirements: Iterable[str]) -> dict[str, str]:
    """Name to version of everything that the requirements need here."""
    versions: dict[str, str] = {}
    pending = [Requirement(text) for text in requirements]
    while pending:
        requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        if name in versions or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        try:
            found = distribution(name)
        except PackageNotFoundError:
            raise SystemExit(f"{name} is not installed: install it first.") from None
        # A local version such as 2.13.0+cpu names a build, not a release that an index has.
        versions[name] = found.version.partition("+")[0]
        pending += [Requirement(text) for text in found.requires or []]
    return versions


def write(path: Path, versions: dict[str, str], extra: Iterable[str] = ()) -> None:
    lines = sorted([*(f"{name}=={version}" for name, version in versions.items()), *extra])
    path.write_text(HEADER + "\n".join(lines) + "\n")


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    worker = closure(project["dependencies"])
    development = closure(project["optional-dependencies"]["development"])
    write(ROOT / "requirements" / "worker.lock", worker, ELSEWHERE)
    write(
        ROOT / "requirements" / "development.lock",
        {name: version for name, version in development.items() if name not in worker},
    )


if __name__ == "__main__":
    main()
