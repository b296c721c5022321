"""What a model takes in and gives out: plain data that the model file's card carries."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from core.scenes.grid import Scale

ArchitectureName = Literal["unet_early", "unet_intermediate"]


class _Value(BaseModel):
    # A NaN would be written as null and could not be read back.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class BandSpecification(_Value):
    """One input band: its name in the sensor and the statistics that normalise its physical values."""

    name: str
    mean: float
    standard_deviation: float = Field(gt=0)


class ModalitySpecification(_Value):
    """One input: a sensor's bands on a grid that is a whole factor finer or coarser than the reference grid.

    Attributes:
        name: unique within the model, and a part of the names of its weights; the sensor's name unless a model takes a
            sensor twice.
        role: the input list it comes from.
        sensor: key of the sensor registry.
        kind: of the sensor.
        bands: in the order of the model's input channels.
        finer, coarser: see ``core.scenes.grid.Scale``.
    """

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    role: Literal["optical", "sar", "elevation", "other"]
    sensor: str
    kind: Literal["optical", "sar", "elevation", "thermal", "index", "other"]
    bands: tuple[BandSpecification, ...] = Field(min_length=1)
    finer: int = 1
    coarser: int = 1

    @model_validator(mode="after")
    def _has_a_scale(self) -> Self:
        Scale(self.finer, self.coarser)
        return self

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
    width: int = Field(24, ge=4, le=256)
    depth: int = Field(2, ge=1, le=5)
    dropout: float = Field(0.2, ge=0, lt=1)

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [modality.name for modality in self.modalities]
        if len(set(names)) != len(names):
            raise ValueError(f"two inputs of the model have the same name: {names}")
        return self
