"""Draws imagery, map and confidence side by side: ``picture.py IMAGERY MAP CONFIDENCE OUTPUT.png``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from core.assessment.quicklook import imagery_picture
from core.mapping.class_raster import open_class_raster
from core.scenes.raster_file import open_raster
from core.scenes.scene import SceneRequest, build_scene


def main(imagery: str, map_path: str, confidence: str, output: str) -> None:
    raster = open_class_raster(map_path)
    codes = raster.read(raster.grid.window)
    scheme = raster.scheme
    picture = imagery_picture(build_scene(SceneRequest({"optical": [imagery]})), raster.grid)
    table = np.full(256, 0)
    table[list(scheme.codes)] = np.arange(1, len(scheme) + 1)
    with open_raster(confidence) as dataset:
        percent = dataset.read(1, masked=True)
    figure = Figure(figsize=(13, 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3)
    left.imshow(picture)
    left.set_title("Imagery", loc="left")
    middle.imshow(
        table[codes], cmap=ListedColormap(["#dddddd", *scheme.colours]), vmin=0, vmax=len(scheme), interpolation="nearest"
    )
    middle.set_title("Land cover", loc="left")
    shown = right.imshow(percent, cmap="RdYlGn", vmin=30, vmax=100, interpolation="nearest")
    right.set_title("Confidence", loc="left")
    figure.colorbar(shown, ax=right, label="percent", shrink=0.7)
    for axes in (left, middle, right):
        axes.set_axis_off()
    entries = [Patch(color=entry.colour, label=entry.name) for entry in scheme.classes]
    figure.legend(handles=entries, loc="outside lower center", ncols=len(entries), frameon=False)
    figure.savefig(Path(output), dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
