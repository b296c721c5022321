"""Jobs that make labels."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from core.jobs.schemas.inputs import Extent, Inputs, Schema


class PseudolabelsJob(Schema):
    """Draw polygons where spectral indices are sure of water, vegetation, bare ground or built-up."""

    kind: Literal["pseudolabels"] = "pseudolabels"
    inputs: Inputs
    count: int = Field(30, ge=1, le=1000, description="Most polygons of a class.")
    minimum_pixels: int = Field(9, ge=1, le=256, description="Fewest pixels of a polygon.")
    extent: Extent | None = Field(None, description="Part of the scene to search.")
    output: str = Field(description="GeoPackage with polygons to write.")
