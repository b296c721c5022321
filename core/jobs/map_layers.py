"""The rasters that a map is made of: classes, and what says how sure they are."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.jobs.outputs import Staging
from core.jobs.schemas import MapJob
from core.labels.scheme import NODATA_CODE
from core.mapping.engine import MapStrip
from core.mapping.rasters import StripWriter, check_space
from core.mapping.sidecars import (
    AGREEMENT_RAMP,
    DOUBT_RAMP,
    NOVELTY_RAMP,
    ClassAreas,
    Ramp,
    scheme_colormap,
    write_class_sidecars,
    write_ramp_style,
)
from core.mapping.uncertainty import confidence, entropy, margin
from core.models.model_file import ModelCard
from core.scenes.categorical import auxiliary_path, style_path
from core.scenes.grid import Grid

PERCENT_NODATA = 255

Values = Callable[[MapStrip], NDArray[np.float32]]


@dataclass(frozen=True)
class Layer:
    """A raster beside the classes.

    Attributes:
        path: of the raster.
        names: of its bands.
        values: (bands, rows, columns) of a strip; parts of one where it is in percent.
        in_percent: written as whole percent of 8 bits; otherwise as float32.
        ramp: its colours; None leaves them to QGIS.
    """

    path: str
    names: tuple[str, ...]
    values: Values
    in_percent: bool
    ramp: Ramp | None


def layers_of(job: MapJob, card: ModelCard) -> list[Layer]:
    """The rasters that a job asks for beside the classes."""
    inputs = tuple(modality.name for modality in card.specification.modalities)
    every = [
        Layer(
            job.confidence or "", ("confidence in percent",), lambda s: confidence(s.probabilities)[None], True, AGREEMENT_RAMP
        ),
        Layer(job.entropy or "", ("entropy in percent",), lambda s: entropy(s.probabilities)[None], True, DOUBT_RAMP),
        Layer(job.margin or "", ("margin in percent",), lambda s: margin(s.probabilities)[None], True, AGREEMENT_RAMP),
        Layer(job.novelty or "", ("distance from what was seen",), lambda s: s.novelty, False, NOVELTY_RAMP),
        Layer(job.contributions or "", inputs, lambda s: s.contributions, True, DOUBT_RAMP),
        Layer(job.probabilities or "", tuple(card.scheme.names), lambda s: s.probabilities, False, None),
    ]
    return [layer for layer in every if layer.path]


class MapWriters:
    """The rasters of a job, opened together and finished together.

    Args:
        stack: that closes them.
        job: whose rasters these are.
        card: of the model.
        grid: of the map.
        tags: of every raster.
    """

    def __init__(self, stack: ExitStack, job: MapJob, card: ModelCard, grid: Grid, tags: dict[str, str]) -> None:
        self._codes = np.array(card.scheme.codes, np.uint8)
        self._layers = layers_of(job, card)

        def writer(path: str, count: int, dtype: str, nodata: float, names: tuple[str, ...], is_classes: bool) -> StripWriter:
            # Classes shrink to less than half, probabilities hardly. Overviews add a third, and a COG is translated from
            # a whole file that lies beside it.
            raw = grid.width * grid.height * count * np.dtype(dtype).itemsize
            files = 7 / 3 if job.format == "cog" else 4 / 3
            check_space(Path(path), int(raw * files * (0.5 if dtype == "uint8" else 1.0)))
            colormap = scheme_colormap(card.scheme) if is_classes else None
            return stack.enter_context(
                StripWriter(
                    Path(path),
                    grid,
                    count,
                    dtype,
                    nodata,
                    tags=tags,
                    file_format=job.format,
                    descriptions=names,
                    colormap=colormap,
                )
            )

        self._classes = writer(job.output, 1, "uint8", NODATA_CODE, ("land cover",), True)
        self._writers = [
            writer(layer.path, len(layer.names), "uint8", PERCENT_NODATA, layer.names, False)
            if layer.in_percent
            else writer(layer.path, len(layer.names), "float32", float("nan"), layer.names, False)
            for layer in self._layers
        ]

    def write(self, strip: MapStrip, row: int) -> NDArray[np.uint8]:
        """Writes a strip to every raster and returns its class codes."""
        best = strip.probabilities.argmax(axis=0)
        codes = np.where(strip.mapped, self._codes[best], NODATA_CODE).astype(np.uint8)
        self._classes.write(codes[None], row)
        for layer, writer in zip(self._layers, self._writers, strict=True):
            values = layer.values(strip)
            if layer.in_percent:
                percent = np.rint(np.clip(values, 0.0, 1.0) * 100)
                writer.write(np.where(strip.mapped, percent, PERCENT_NODATA).astype(np.uint8), row)
            else:
                writer.write(np.where(strip.mapped, values, np.nan).astype(np.float32), row)
        return codes

    def finish(self) -> None:
        """Completes every raster, so that leaving the stack only moves them to their places."""
        for writer in (self._classes, *self._writers):
            writer.finish()


def stage_sidecars(staging: Staging, job: MapJob, card: ModelCard, areas: ClassAreas) -> None:
    """Writes styles and attribute table beside the unfinished rasters: a full disk must show before they are replaced."""
    output = Path(job.output)
    with staging.writing(output) as temporary:
        style, auxiliary = write_class_sidecars(temporary, card.scheme, areas.counts, areas.hectares)
    staging.add(style, style_path(output))
    staging.add(auxiliary, auxiliary_path(output))
    for layer in layers_of(job, card):
        if layer.ramp is not None:
            path = Path(layer.path)
            with staging.writing(path) as temporary:
                staging.add(write_ramp_style(temporary, layer.ramp), style_path(path))
