"""What is known of a raster file before its sensor is: plain data, so that nothing here opens files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class RasterDescription:
    """A raster's structure and metadata; everything a band has is in the file's order.

    The per-band tuples may be left empty, which means "nothing said"; otherwise they have ``band_count`` entries.

    Attributes:
        path: as given; the file's name and its folder's name are evidence for the sensor.
        band_count: number of bands.
        dtype: numpy's name of the stored type.
        descriptions: the band descriptions (GDAL's), None where there is none.
        band_tags: metadata of each band, all domains together.
        tags: metadata of the file, all domains together.
        color_interpretation: lower-case names such as ``red``, ``gray``, ``alpha``.
        resolution_m: side of a pixel on the ground in metres; None without a coordinate reference system.
        sample: stored values of some thousand pixels, (C, N), NaN = missing; None where nothing was read. Pixels are
            the same in every band.
        scales, offsets: the file's own calibration of each band (GDAL's); 1 and 0 mean "none".
    """

    path: str
    band_count: int
    dtype: str
    descriptions: tuple[str | None, ...] = ()
    band_tags: tuple[Mapping[str, str], ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    color_interpretation: tuple[str, ...] = ()
    resolution_m: float | None = None
    sample: FloatArray | None = field(default=None, compare=False, repr=False)
    scales: tuple[float, ...] = ()
    offsets: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.band_count < 1:
            raise ValueError(f"A raster has at least one band; '{self.path}' is described with {self.band_count}.")
        for name in ("descriptions", "band_tags", "color_interpretation", "scales", "offsets"):
            length = len(getattr(self, name))
            if length not in (0, self.band_count):
                raise ValueError(f"'{self.path}' has {self.band_count} bands and {length} {name}.")
        if self.sample is not None and (self.sample.ndim != 2 or self.sample.shape[0] != self.band_count):
            raise ValueError(f"The sample of '{self.path}' is {self.sample.shape}, expected ({self.band_count}, N).")

    @property
    def has_integers(self) -> bool:
        return self.dtype.startswith(("int", "uint"))

    def description(self, index: int) -> str:
        """The description of a band (1-based), empty where there is none."""
        return (self.descriptions[index - 1] or "") if self.descriptions else ""

    def tags_of(self, index: int) -> dict[str, str]:
        """The metadata of a band (1-based), keys in lower case."""
        return _lower_keys(self.band_tags[index - 1]) if self.band_tags else {}

    def color_of(self, index: int) -> str:
        """The colour interpretation of a band (1-based), empty where none is known."""
        return self.color_interpretation[index - 1].lower() if self.color_interpretation else ""

    def file_tags(self) -> dict[str, str]:
        """The metadata of the file, keys in lower case."""
        return _lower_keys(self.tags)

    def own_calibration(self, index: int) -> tuple[float, float]:
        """Scale and offset of a band (1-based) as the file states them; (1, 0) where it states none."""
        scale = self.scales[index - 1] if self.scales else 1.0
        offset = self.offsets[index - 1] if self.offsets else 0.0
        return scale, offset

    def sample_of(self, indexes: tuple[int, ...]) -> FloatArray | None:
        """The sampled values of some bands (1-based), (len(indexes), N); None where nothing was read."""
        return None if self.sample is None else self.sample[[index - 1 for index in indexes]]


def _lower_keys(tags: Mapping[str, str]) -> dict[str, str]:
    return {key.lower(): str(value) for key, value in tags.items()}
