"""Descriptions for the tests: of real files, as the reader of ``core.scenes`` makes them, and of imagined ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

from core.sensors import RasterDescription

METRES_A_DEGREE = 111_320.0
SAMPLED_PIXELS = 4000


@pytest.fixture(scope="session")
def describe() -> Callable[[Path], RasterDescription]:
    """A function that describes a file, with a sample of about 4000 pixels."""

    def description_of(path: Path) -> RasterDescription:
        with rasterio.open(path) as source:
            values = source.read(masked=True).astype(np.float32).filled(np.nan).reshape(source.count, -1)
            step = max(1, values.shape[1] // SAMPLED_PIXELS)
            resolution = None
            if source.crs is not None:
                resolution = source.res[0] * (METRES_A_DEGREE if source.crs.is_geographic else 1.0)
            return RasterDescription(
                path=str(path),
                band_count=source.count,
                dtype=source.dtypes[0],
                descriptions=source.descriptions,
                band_tags=tuple(source.tags(index) for index in source.indexes),
                tags=source.tags() | source.tags(ns="ENVI"),
                color_interpretation=tuple(color.name for color in source.colorinterp),
                resolution_m=resolution,
                sample=values[:, ::step],
                scales=source.scales,
                offsets=source.offsets,
            )

    return description_of
