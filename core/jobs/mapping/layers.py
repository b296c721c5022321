"""The rasters that a map is made of: classes, and what says how sure they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.jobs.outputs import Staging
from core.jobs.schemas import MapJob
from core.labels.scheme import NODATA_CODE, ClassScheme
from core.mapping.engine import MapStrip
from core.mapping.sidecars import (
    AGREEMENT_RAMP,
    DOUBT_RAMP,
    NOVELTY_RAMP,
    ClassAreas,
    Ramp,
    write_class_sidecars,
    write_ramp_style,
)
from core.mapping.uncertainty import entropy, margin
from core.models.model_file import ModelCard
from core.scenes.categorical import auxiliary_path, style_path

PERCENT_NODATA = 255

Values = Callable[[MapStrip], NDArray[Any]]


@dataclass(frozen=True)
class Layer:
    """A raster of a map.

    Attributes:
        key: of the job.
        path: of the raster.
        names: of its bands.
        dtype: of its values.
        nodata: of pixels that were not mapped.
        encoded: (bands, rows, columns) of a strip, of that type.
        ramp: its colours; None leaves them to QGIS.
    """

    key: str
    path: str
    names: tuple[str, ...]
    dtype: str
    nodata: float
    encoded: Values
    ramp: Ramp | None

    @property
    def pixel_bytes(self) -> int:
        """Of all bands."""
        return len(self.names) * np.dtype(self.dtype).itemsize


def layers_of(job: MapJob, card: ModelCard) -> list[Layer]:
    """The rasters that a job asks for; the first is that of the classes."""
    codes = np.array(card.scheme.codes, np.uint8)
    inputs = tuple(modality.name for modality in card.specification.modalities)

    def classes(strip: MapStrip) -> NDArray[Any]:
        return np.where(strip.mapped, codes[strip.likeliest[0]], np.uint8(NODATA_CODE))[None]

    def percent(key: str, names: tuple[str, ...], values: Callable[[MapStrip], NDArray[np.float32]], ramp: Ramp) -> Layer:
        def encoded(strip: MapStrip) -> NDArray[Any]:
            parts = np.rint(np.clip(values(strip), 0.0, 1.0) * 100).astype(np.uint8)
            return np.where(strip.mapped, parts, np.uint8(PERCENT_NODATA))

        return Layer(key, getattr(job, key) or "", names, "uint8", PERCENT_NODATA, encoded, ramp)

    def numbers(
        key: str, names: tuple[str, ...], values: Callable[[MapStrip], NDArray[np.float32]], ramp: Ramp | None
    ) -> Layer:
        def encoded(strip: MapStrip) -> NDArray[Any]:
            return np.where(strip.mapped, values(strip), np.float32(np.nan))

        return Layer(key, getattr(job, key) or "", names, "float32", float("nan"), encoded, ramp)

    every = [
        Layer("output", job.output, ("land cover",), "uint8", NODATA_CODE, classes, None),
        percent("confidence", ("confidence in percent",), lambda s: s.likeliest[1][None], AGREEMENT_RAMP),
        percent("entropy", ("entropy in percent",), lambda s: entropy(s.probabilities)[None], DOUBT_RAMP),
        percent("margin", ("margin in percent",), lambda s: margin(s.probabilities)[None], AGREEMENT_RAMP),
        numbers("novelty", ("distance from what was seen",), lambda s: s.novelty, NOVELTY_RAMP),
        percent("contributions", inputs, lambda s: s.contributions, DOUBT_RAMP),
        numbers("probabilities", tuple(card.scheme.names), lambda s: s.probabilities, None),
    ]
    return [layer for layer in every if layer.path]


def encoded_strip(layers: list[Layer], strip: MapStrip) -> list[NDArray[Any]]:
    """A strip of every raster, and (256,) how many pixels rest on each set of inputs."""
    there = strip.subset if strip.mapped.all() else strip.subset[strip.mapped]
    return [*(layer.encoded(strip) for layer in layers), np.bincount(there.ravel(), minlength=256).astype(np.int64)]


def stage_sidecars(staging: Staging, layers: list[Layer], scheme: ClassScheme, areas: ClassAreas) -> None:
    """Writes styles and attribute table beside the unfinished rasters: a full disk must show before they are replaced."""
    output = Path(layers[0].path)
    with staging.writing(output) as temporary:
        style, auxiliary = write_class_sidecars(temporary, scheme, areas.counts, areas.hectares)
    staging.add(style, style_path(output))
    staging.add(auxiliary, auxiliary_path(output))
    for layer in layers:
        if layer.ramp is not None:
            path = Path(layer.path)
            with staging.writing(path) as temporary:
                staging.add(write_ramp_style(temporary, layer.ramp), style_path(path))
