"""The GeoPackage of a sample: points for a person to interpret, and the table of the strata that they were drawn from.

The layer ``sample`` has the points, the table ``strata`` their strata. Without the table a later assessment of another map
would not know how much ground each point stands for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import pyogrio.errors

from core.assessment.area_adjusted import Stratum
from core.assessment.drawing import DrawnPixels, centres
from core.assessment.sample_style import interpretation_style
from core.errors import LabelError
from core.labels.scheme import ClassScheme
from core.labels.schemes import class_text, find_class, listed
from core.scenes.grid import Grid
from core.scenes.vector_writing import writing_vectors

SAMPLE_LAYER = "sample"
STRATA_TABLE = "strata"
STRATUM_FIELD = "stratum"
_NEEDED = ("stratum", "stratum_value", "pixels", "area_ha", "sample_size")
"""Columns of the table without which an assessment cannot use it."""

_FILE_VERSION = {"VERSION": "1.2"}
"""Of the GeoPackage: a later one makes the GDAL of older QGIS warn that it may not understand the file."""


@dataclass(frozen=True)
class StratumRow:
    """A line of the table of strata.

    Attributes:
        code: of the class in the map.
        pixels, hectares: of the stratum.
        sample_size: points drawn in it.
        expected_accuracy: the user's accuracy for which the sample was sized.
    """

    code: int
    pixels: int
    hectares: float
    sample_size: int
    expected_accuracy: float


def class_label(scheme: ClassScheme, index: int) -> str:
    """The text by which a field means a class: its name, or its value where another class has that name."""
    entry = scheme.classes[index]
    return entry.name if find_class(scheme, entry.name) == index else entry.value


def write_sample(
    path: Path,
    pixels: DrawnPixels,
    rows: Sequence[StratumRow],
    grid: Grid,
    scheme: ClassScheme,
    created: str,
    provenance: Mapping[str, str],
) -> None:
    """Writes the points, numbered in their order, and the table of strata.

    Args:
        path: of the GeoPackage; an existing one is replaced.
        pixels: that were drawn, in random order.
        rows: the strata, in the order of ``DrawnPixels.stratum``.
        grid: of the map.
        scheme: its classes, which the form offers to the interpreter.
        created: date and time for the file, ISO 8601.
        provenance: name to value, for the layer's metadata.

    Raises:
        OutputError: it cannot be written.
    """
    names = [class_label(scheme, scheme.codes.index(row.code)) for row in rows]
    sizes = np.array([row.sample_size for row in rows])
    shares = sizes / np.array([row.pixels for row in rows])
    empty = np.full(len(pixels), None, dtype=object)
    points = geopandas.GeoDataFrame(
        {
            "id": np.arange(1, len(pixels) + 1, dtype=np.int32),
            "reference": empty,
            "interpreter": empty,
            "confidence": empty,
            "note": empty,
            STRATUM_FIELD: np.array(names, dtype=object)[pixels.stratum],
            "stratum_value": np.array([row.code for row in rows], np.int32)[pixels.stratum],
            "inclusion_probability": shares[pixels.stratum],
        },
        geometry=geopandas.points_from_xy(*centres(grid, pixels)),
        crs=grid.crs,
    )
    strata = pd.DataFrame(
        {
            "stratum": names,
            "stratum_value": np.array([row.code for row in rows], np.int32),
            "pixels": np.array([row.pixels for row in rows], np.int64),
            "area_ha": [row.hectares for row in rows],
            "sample_size": sizes.astype(np.int32),
            "expected_accuracy": [row.expected_accuracy for row in rows],
        }
    )
    labels = {class_label(scheme, index): entry.colour for index, entry in enumerate(scheme.classes)}
    style = _style_table(interpretation_style("reference", labels), created)
    with writing_vectors(path, created):
        path.unlink(missing_ok=True)
        pyogrio.write_dataframe(
            points, path, layer=SAMPLE_LAYER, driver="GPKG", layer_metadata=dict(provenance), dataset_options=_FILE_VERSION
        )
        pyogrio.write_dataframe(strata, path, layer=STRATA_TABLE, driver="GPKG")
        pyogrio.write_dataframe(style, path, layer="layer_styles", driver="GPKG")


def _style_table(document: str, created: str) -> pd.DataFrame:
    """The table in which QGIS keeps the styles of a GeoPackage's layers."""
    return pd.DataFrame(
        {
            "f_table_catalog": [""],
            "f_table_schema": [""],
            "f_table_name": [SAMPLE_LAYER],
            "f_geometry_column": ["geom"],
            "styleName": ["interpretation"],
            "styleQML": [document],
            "styleSLD": [""],
            "useAsDefault": [True],
            "description": ["Points to be interpreted"],
            "owner": [""],
            "ui": [""],
            "update_time": [created],
        }
    )


def has_strata(path: str) -> bool:
    """Whether a file has the table of strata."""
    try:
        return STRATA_TABLE in pyogrio.list_layers(path)[:, 0].tolist()
    except pyogrio.errors.DataSourceError:
        return False


def read_strata(path: str) -> tuple[dict[str, Stratum], dict[str, str]]:
    """The table of strata of a sample.

    Returns:
        Names to strata, and the codes of the strata, as text, to their names.

    Raises:
        LabelError: the file has no such table, or a line of it cannot be used.
    """
    if not has_strata(path):
        raise LabelError(
            f"'{path}' has no table '{STRATA_TABLE}'.",
            "Give the GeoPackage that 'Sampling design' wrote, with both its layers.",
        )
    table = pyogrio.read_dataframe(path, layer=STRATA_TABLE)
    missing = [name for name in _NEEDED if name not in table.columns]
    if missing:
        raise LabelError(
            f"The table '{STRATA_TABLE}' of '{path}' has no column {listed(missing)}.",
            "Give the GeoPackage that 'Sampling design' wrote, or add the columns.",
        )
    strata: dict[str, Stratum] = {}
    names: dict[str, str] = {}
    for line in table.to_dict("records"):
        name, value = class_text(line["stratum"]), class_text(line["stratum_value"])
        sound = all(np.isfinite(line[key]) and line[key] > 0 for key in ("pixels", "area_ha"))
        if name is None or name in strata or not sound:
            raise LabelError(
                f"The table '{STRATA_TABLE}' of '{path}' has a line that cannot be used: stratum '{name}', "
                f"{line['pixels']} pixels, {line['area_ha']} ha.",
                "Every stratum has one line with a name, its pixels and its area.",
            )
        drawn = line["sample_size"]
        strata[name] = Stratum(name, int(line["pixels"]), float(line["area_ha"]), 0 if pd.isna(drawn) else int(drawn))
        if value is not None:
            names[value] = name
    if not strata:
        raise LabelError(f"The table '{STRATA_TABLE}' of '{path}' is empty.", "Draw the sample again.")
    return strata, names
