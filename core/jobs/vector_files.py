"""Writing GeoPackages that are the same bytes for the same job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import shapely
from numpy.typing import NDArray

from core.jobs.provenance import creation_time
from core.scenes.vector_writing import writing_vectors


class LayerWriter:
    """Appends features to the only layer of a GeoPackage.

    Args:
        path: of a file that does not exist yet.
        layer: its name.
        crs: of the geometries; an authority code or WKT.
        geometry_type: ``Polygon`` or ``MultiPolygon``.
        tags: provenance, kept as the layer's metadata.
    """

    def __init__(self, path: Path, layer: str, crs: str, geometry_type: str, tags: Mapping[str, str]) -> None:
        self._path = path
        self._layer = layer
        self._crs = crs
        self._geometry_type = geometry_type
        self._tags = dict(tags)
        self._begun = False

    def write(self, geometries: NDArray[Any], names: Sequence[str], columns: Sequence[NDArray[Any]]) -> None:
        """Writes features.

        Args:
            geometries: (n,) shapes.
            names: of the fields.
            columns: (n,) values of each field.

        Raises:
            OutputError: the file cannot be written.
        """
        with writing_vectors(self._path, creation_time()):
            pyogrio.raw.write(
                self._path,
                shapely.to_wkb(geometries),
                list(columns),
                np.array(list(names), dtype=object),
                layer=self._layer,
                driver="GPKG",
                geometry_type=self._geometry_type,
                crs=self._crs,
                append=self._begun,
                layer_metadata=None if self._begun else self._tags,
            )
        self._begun = True
