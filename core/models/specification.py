"""What a model takes in and gives out: plain data that the model file's card carries."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from core.scenes.grid import Scale

ArchitectureName = Literal["unet_early", "unet_intermediate"]


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BandSpecification(_Value):
    """One input band: its name in the sensor and the statistics that normalise its physical values."""

    name: str
    mean: float
    standard_deviation: float = Field(gt=0)


class ModalitySpecification(_Value):
    """One input: a sensor's bands on a grid that is a whole factor finer or coarser than the reference grid.

    Attributes:
        name: unique within the model; the sensor's name unless a model takes a sensor twice.
        role: the input list it comes from.
        sensor: key of the sensor registry.
        kind: of the sensor.
        bands: in the order of the model's input channels.
        finer, coarser: see ``core.scenes.grid.Scale``.
    """

    name: str
    role: Literal["optical", "sar", "elevation", "other"]
    sensor: str
    kind: Literal["optical", "sar", "elevation", "thermal", "index", "other"]
    bands: tuple[BandSpecification, ...]
    finer: int = 1
    coarser: int = 1

    @property
    def scale(self) -> Scale:
        return Scale(self.finer, self.coarser)

    @property
    def band_names(self) -> tuple[str, ...]:
        return tuple(band.name for band in self.bands)


class ModelSpecification(_Value):
    """Everything that is needed to build a model's modules again.

    Attributes:
        architecture: name in the registry of architectures.
        modalities: in the order in which they were given.
        n_classes: channels of the output.
        width: channels of the finest level.
        depth: number of times the resolution is halved.
        dropout: probability that a feature channel is left out in training.
    """

    architecture: ArchitectureName
    modalities: tuple[ModalitySpecification, ...] = Field(min_length=1)
    n_classes: int = Field(ge=2, le=255)
    width: int = Field(24, ge=4)
    depth: int = Field(2, ge=1, le=5)
    dropout: float = Field(0.2, ge=0, lt=1)
