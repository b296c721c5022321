"""What stands beside a result raster: QGIS styles, names, and a table of colours, counts and areas."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

# XML is only written here, never parsed.
from xml.etree import ElementTree  # nosec B405

import numpy as np
from numpy.typing import NDArray

from core.folders import write_text
from core.labels.scheme import ClassScheme
from core.scenes.categorical import (
    Category,
    auxiliary_metadata,
    auxiliary_path,
    colour_table,
    paletted_style,
    style_path,
    style_text,
)
from core.scenes.grid import Grid

_SQUARE_METRES = 10_000.0
"""In a hectare."""

Ramp = tuple[tuple[float, str, str], ...]
"""Values in rising order, each with its colour and its words in the legend."""

_GOOD_AND_BAD = ("#1d6b4f", "#8fbf7f", "#f2c14e", "#d1603d", "#7b1e2b")

AGREEMENT_RAMP: Ramp = tuple(
    (percent, colour, f"{percent} %") for percent, colour in zip((0, 25, 50, 75, 100), reversed(_GOOD_AND_BAD), strict=True)
)
"""Of percent, the more the better."""

DOUBT_RAMP: Ramp = tuple(
    (percent, colour, f"{percent} %") for percent, colour in zip((0, 25, 50, 75, 100), _GOOD_AND_BAD, strict=True)
)
"""Of percent, the more the less sure."""

NOVELTY_RAMP: Ramp = (
    (0.0, "#f7f7f7", "0: like the labels"),
    (1.0, "#c9c9c9", "1: as far as 5 % of the labels"),
    (2.0, "#d1603d", "2"),
    (4.0, "#7b1e2b", "4: unlike the labels"),
)
"""Of distances in units of what is familiar: coloured where the model has not seen such ground."""


def categories(scheme: ClassScheme) -> tuple[Category, ...]:
    """The classes of a scheme as categories of a raster."""
    return tuple(Category(entry.code, entry.name, entry.colour) for entry in scheme.classes)


def scheme_colormap(scheme: ClassScheme) -> dict[int, tuple[int, int, int, int]]:
    """The colour table of a scheme, for ``StripWriter``."""
    return colour_table(categories(scheme))


class ClassAreas:
    """Pixels and ground area of every code, gathered strip by strip.

    Args:
        grid: of the class raster.
    """

    def __init__(self, grid: Grid) -> None:
        self._row_areas = grid.row_pixel_areas_m2()
        self._counts = np.zeros(256, dtype=np.int64)
        self._square_metres = np.zeros(256)

    def add(self, codes: NDArray[np.uint8], row: int) -> None:
        """Counts a strip.

        Args:
            codes: (height, width) codes.
            row: the raster's row of the strip's first row.
        """
        # Row after row in one order: the sum must not depend on how the rows came in strips.
        for line, area in zip(codes, self._row_areas[row : row + len(codes)], strict=True):
            found = np.bincount(line, minlength=256)
            self._counts += found
            self._square_metres += found * area

    @property
    def counts(self) -> dict[int, int]:
        """Code to number of pixels, of the codes that occur."""
        return {int(code): int(self._counts[code]) for code in np.flatnonzero(self._counts)}

    @property
    def hectares(self) -> dict[int, float]:
        """Code to area in hectares, of the codes that occur."""
        return {int(code): float(self._square_metres[code]) / _SQUARE_METRES for code in np.flatnonzero(self._counts)}


def write_class_sidecars(
    path: Path, scheme: ClassScheme, counts: Mapping[int, int], hectares: Mapping[int, float]
) -> tuple[Path, Path]:
    """Writes the style and the attribute table of a class raster.

    Args:
        path: of the class raster.
        scheme: its classes.
        counts: pixels of each code; a missing code has none.
        hectares: area of each code.

    Returns:
        The paths of the QGIS style and of GDAL's auxiliary file.

    Raises:
        OutputError: they cannot be written.
    """
    entries = categories(scheme)
    style, auxiliary = style_path(path), auxiliary_path(path)
    write_text(style, paletted_style(entries))
    write_text(auxiliary, auxiliary_metadata(entries, counts, hectares))
    return style, auxiliary


def write_ramp_style(path: Path, ramp: Ramp) -> Path:
    """Writes the QGIS style of a raster whose first band is shown in a ramp of colours.

    Args:
        path: of the raster.
        ramp: its colours.

    Returns:
        The style's path.

    Raises:
        OutputError: it cannot be written.
    """
    root = ElementTree.Element("qgis", version="3.22.0", styleCategories="Symbology")
    pipe = ElementTree.SubElement(root, "pipe")
    renderer = ElementTree.SubElement(
        pipe,
        "rasterrenderer",
        type="singlebandpseudocolor",
        band="1",
        opacity="1",
        alphaBand="-1",
        nodataColor="",
        classificationMin=f"{ramp[0][0]:g}",
        classificationMax=f"{ramp[-1][0]:g}",
    )
    ElementTree.SubElement(renderer, "rasterTransparency")
    shader = ElementTree.SubElement(
        ElementTree.SubElement(renderer, "rastershader"),
        "colorrampshader",
        colorRampType="INTERPOLATED",
        classificationMode="1",
        clip="0",
        minimumValue=f"{ramp[0][0]:g}",
        maximumValue=f"{ramp[-1][0]:g}",
    )
    for value, colour, words in ramp:
        ElementTree.SubElement(shader, "item", value=f"{value:g}", color=colour, alpha="255", label=words)
    ElementTree.SubElement(root, "blendMode").text = "0"
    style = style_path(path)
    write_text(style, style_text(root))
    return style
