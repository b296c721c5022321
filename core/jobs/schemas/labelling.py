"""Jobs that make labels, or say where to make the next."""

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


class SuggestLabelsJob(Schema):
    """Say where to label next: places that the model doubts, no two of them alike."""

    kind: Literal["suggest-labels"] = "suggest-labels"
    inputs: Inputs
    model: str = Field(description="Model file (.safetensors) that was fine-tuned on labels.")
    existing_labels: str | None = Field(None, description="Vector file with the labels that there are: no place lies on them.")
    count: int = Field(10, ge=1, le=1000, description="Number of places.")
    unit_pixels: int = Field(64, ge=9, le=10000, description="Size of a place in pixels, on average.")
    extent: Extent | None = Field(None, description="Part of the scene to search.")
    seed: int = Field(0, ge=0, description="Seed: the same seed gives the same places.")
    device: str = Field("auto", description="'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'.")
    output: str = Field(description="GeoPackage with polygons to write.")
