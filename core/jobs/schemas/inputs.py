"""What several jobs ask for: the rasters of a scene, labels, a rectangle."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Sentinel2Offset = Literal["auto", "yes", "no"]
MissingInputs = Literal["allow", "require"]


class Schema(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Inputs(Schema):
    """The rasters of a scene by role; every list may hold several files that tile the ground."""

    optical: list[str] = Field([], description="Optical rasters: satellite, aerial or hyperspectral.")
    sar: list[str] = Field([], description="SAR rasters, backscatter in dB or linear.")
    elevation: list[str] = Field([], description="Elevation rasters: DEM, DSM or height above ground, in metres.")
    other: list[str] = Field([], description="Any other rasters: indices, temperature, texture.")
    optical_sensor: str = Field("auto", description="Sensor of the optical rasters, or 'auto'.")
    sar_sensor: str = Field("auto", description="Sensor of the SAR rasters, or 'auto'.")
    elevation_sensor: str = Field("auto", description="Sensor of the elevation rasters, or 'auto'.")
    other_sensor: str = Field("auto", description="Sensor of the other rasters, or 'auto'.")
    resolution: float | None = Field(
        None,
        gt=0,
        description="Pixel size of the map in the units of the main raster's CRS; by default the main raster's.",
    )
    sentinel2_offset: Sentinel2Offset = Field(
        "auto", description="Whether Sentinel-2 digital numbers carry the +1000 offset of baseline 04.00 and later."
    )

    @model_validator(mode="after")
    def _at_least_one(self) -> Inputs:
        if not (self.optical or self.sar or self.elevation or self.other):
            raise ValueError("No raster was given. Give at least one of optical, sar, elevation and other.")
        return self


class ClassEntry(Schema):
    """A class as the label layer's own style shows it."""

    value: str = Field(description="What the class field holds, as text.")
    name: str = Field(description="The name shown to the user.")
    colour: str = Field(pattern=r"^#[0-9a-fA-F]{6}$", description="#rrggbb.")


class Labels(Schema):
    """Polygons or points with a class."""

    path: str = Field(description="Vector file with polygons or points.")
    layer: str | None = Field(None, description="Layer of the file, where it has several.")
    class_field: str = Field(description="Field that holds the class, text or whole numbers.")
    classes: list[ClassEntry] = Field([], description="Names and colours from the layer's style, if it has any.")
    class_scheme: str = Field(
        "auto",
        description="Name of a shipped class scheme, path of a scheme's JSON file, or 'auto': made from the field.",
    )


class Extent(Schema):
    """A rectangle on the ground."""

    left: float
    bottom: float
    right: float
    top: float
    crs: str = Field(description="Authority code or WKT.")

    @model_validator(mode="after")
    def _has_area(self) -> Extent:
        if not (self.left < self.right and self.bottom < self.top):
            raise ValueError("The extent has no area: left must lie below right, and bottom below top.")
        return self
