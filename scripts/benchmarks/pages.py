"""What the pages and files of the benchmarks share: lines of a JSON file, and means with their spread in tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from labelled_scenes import COUNTS

Run = dict[str, Any]


def read(path: Path) -> list[Run]:
    """The runs of a file, none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def cell(values: Sequence[float], digits: int = 1) -> str:
    """Mean and standard deviation."""
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}" if values else "–"


def tables_by_scene(rows: Sequence[Run], headings: Sequence[str], more: Callable[[list[Run]], list[str]]) -> list[str]:
    """A table a scene: mean IoU in percent by row and number of polygons, and further columns.

    Args:
        rows: runs with scene, seed, row, polygons and miou.
        headings: of the further columns.
        more: their cells, from the runs of a row.
    """
    lines = []
    for scene in dict.fromkeys(row["scene"] for row in rows):
        own = [row for row in rows if row["scene"] == scene]
        columns = ["model", "draws", *(f"{count} a class" for count in COUNTS), *headings]
        lines += ["", f"## {scene}", "", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
        for name in dict.fromkeys(row["row"] for row in own):
            runs = [row for row in own if row["row"] == name]
            cells = [name, str(len({run["seed"] for run in runs}))]
            cells += [cell([100 * run["miou"] for run in runs if run["polygons"] == count]) for count in COUNTS]
            lines.append(f"| {' | '.join([*cells, *more(runs)])} |")
    return lines
