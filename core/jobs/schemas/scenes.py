"""The job that classifies polygons and grid cells as wholes."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from core.jobs.schemas.inputs import Extent, Inputs, Labels, Schema


class ClassifyScenesJob(Schema):
    """Give polygons or grid cells the classes that they have as wholes."""

    kind: Literal["classify-scenes"] = "classify-scenes"
    inputs: Inputs
    training: Labels | None = None
    multi_label: Literal["auto", "yes", "no"] = Field(
        "auto",
        description="Whether a polygon may have several classes, written in the class field as in 'Water; Trees' or "
        "'Water, Trees'; 'auto' looks at the field.",
    )
    units: str | None = Field(None, description="Vector file with the polygons to classify; cells of a grid by default.")
    extent: Extent | None = Field(None, description="Part of the scene to classify.")
    cell_size: float | None = Field(
        None, gt=0, description="Side of a cell in the units of the main raster's CRS; 64 pixels by default."
    )
    base_model: str | None = Field(
        None, description="Model file whose features are pooled over each polygon, beside the statistics of the bands."
    )
    model: str | None = Field(
        None, description="Model file of an earlier classification of scenes, in place of training polygons."
    )
    validation_fraction: float = Field(0.3, gt=0, lt=0.9, description="Part of the polygons held out, in spatial blocks.")
    seed: int = Field(0, ge=0, description="Seed of everything random.")
    device: str = Field("auto", description="'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'; only a base model needs one.")
    output: str = Field(description="Vector layer to write (.gpkg).")
    output_model: str | None = Field(None, description="Model file to write (.safetensors), to classify other scenes with.")
    report: str | None = Field(None, description="HTML report to write.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.training is None) == (self.model is None):
            raise ValueError("a classifier comes from training polygons or from a model file: give one of them")
        if self.model is not None and (self.base_model or self.output_model):
            raise ValueError(
                "a model file brings its own base model and is not trained again: leave out base_model and output_model"
            )
        if self.units is not None and self.cell_size is not None:
            raise ValueError("cells are made where no units are given: leave out cell_size or units")
        return self
