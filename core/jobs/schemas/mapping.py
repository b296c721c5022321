"""Jobs that write rasters: maps, features, a simulated scene."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from core.jobs.schemas.inputs import Extent, Inputs, MissingInputs, Schema


class SampleSceneJob(Schema):
    """Write a simulated scene with rasters, truth and polygons."""

    kind: Literal["sample-scene"] = "sample-scene"
    output: str = Field(description="Folder to write the scene to.")
    size: int = Field(500, ge=64, le=20000, description="Width and height in pixels of 10 m.")
    seed: int = Field(0, ge=0, description="Seed: the same seed gives the same files.")


class FeaturesJob(Schema):
    """Write what a model knows of each pixel, before it says a class."""

    kind: Literal["features"] = "features"
    inputs: Inputs
    model: str = Field(description="Model file (.safetensors).")
    components: int = Field(
        0, ge=0, le=1024, description="Number of principal components to write in place of the features; 0 = all features."
    )
    picture: bool = Field(False, description="Write the first three principal components as a picture of 8 bits.")
    extent: Extent | None = Field(None, description="Part of the scene.")
    overlap: float = Field(
        0.25,
        ge=0,
        le=0.75,
        description="Part of a tile that it shares with its neighbour, at most: no more than the model sees around a pixel.",
    )
    device: str = Field("auto", description="'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'.")
    format: Literal["gtiff", "cog"] = Field("gtiff", description="Tiled GeoTIFF, or cloud-optimised GeoTIFF.")
    output: str = Field(description="Raster to write.")


MAP_LAYERS = ("confidence", "probabilities", "entropy", "margin", "novelty", "contributions")
"""The rasters that a map can have beside its classes."""


class MapJob(Schema):
    """Map a scene with a model."""

    kind: Literal["map"] = "map"
    inputs: Inputs
    model: str = Field(description="Model file (.safetensors).")
    extent: Extent | None = Field(None, description="Part of the scene to map.")
    mask: str | None = Field(None, description="Vector file whose polygons limit the map.")
    overlap: float = Field(
        0.25,
        ge=0,
        le=0.75,
        description="Part of a tile that it shares with its neighbour, at most: no more than the model sees around a pixel.",
    )
    device: str = Field("auto", description="'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'.")
    missing_inputs: MissingInputs = Field(
        "allow",
        description="'allow': map where some inputs have no data, if the model has learned to; 'require': leave it empty.",
    )
    format: Literal["gtiff", "cog"] = Field("gtiff", description="Tiled GeoTIFF, or cloud-optimised GeoTIFF.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Numbers that a network computes with: 'auto' takes 16 bits for a large scene where the processor computes "
        "with them and a trial gives 99.5 percent of the pixels the same class; forests have their own.",
    )
    workers: int = Field(
        1, ge=1, le=1024, description="Processes of this machine that map, each with its own model in memory (takes Dask)."
    )
    scheduler: str | None = Field(
        None,
        description="Address of a running Dask scheduler, such as tcp://host:8786, whose workers map in place of this machine.",
    )
    output: str = Field(description="Class raster to write.")
    confidence: str | None = Field(None, description="Confidence raster to write, in percent.")
    probabilities: str | None = Field(None, description="Raster of class probabilities to write, a band a class.")
    entropy: str | None = Field(
        None, description="Raster of the probabilities' entropy to write, in percent: 0 = one class, 100 = all alike."
    )
    margin: str | None = Field(
        None, description="Raster to write of how far the likeliest class is ahead of the next, in percent."
    )
    novelty: str | None = Field(
        None,
        description="Raster to write of how unlike the labelled ground each pixel is: 95 % of the held-out labels lie below 1.",
    )
    contributions: str | None = Field(
        None,
        description="Raster to write of how many percent of the probability would move to other classes without each input, a "
        "band an input.",
    )


class ExportJob(Schema):
    """Write a model as an ONNX graph, which other software runs without torch."""

    kind: Literal["export"] = "export"
    model: str = Field(description="Model file (.safetensors).")
    output: str = Field(description="ONNX graph to write (.onnx); it maps as the model file does.")
    stac: str | None = Field(None, description="STAC item to write (.json), which describes the graph with the MLM extension.")
    int8: bool = Field(
        False,
        description="Write convolutions in eight bits: a quarter of the size. Takes rasters that show what values there are, "
        "and is refused where more than one pixel in a hundred of them would get another class.",
    )
    inputs: Inputs | None = Field(None, description="Rasters for 'int8'.")

    @model_validator(mode="after")
    def _shows_values(self) -> ExportJob:
        if self.int8 and self.inputs is None:
            raise ValueError("int8 needs to see what values there are: give rasters like those to be mapped")
        return self
