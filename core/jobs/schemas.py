"""One pydantic schema a job: what the plugin, the command line and a file ask for.

The descriptions are the help texts of the command line. Nothing here imports torch, rasterio or pandas.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from core.errors import UsageError
from core.models.architectures import ArchitectureName, choose_parts
from core.models.specification import EncoderName, FusionName, SizeName
from core.pretraining.methods import MethodName, SettingName

MissingInputs = Literal["allow", "require"]
ModeName = Literal["auto", "scratch", "linear", "partial", "full", "forest", "boosting", "logistic"]
BASE_MODES: tuple[ModeName, ...] = ("linear", "partial", "full")
"""Modes that need a base model."""
Sentinel2Offset = Literal["auto", "yes", "no"]


class _Schema(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Inputs(_Schema):
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


class ClassEntry(_Schema):
    """A class as the label layer's own style shows it."""

    value: str = Field(description="What the class field holds, as text.")
    name: str = Field(description="The name shown to the user.")
    colour: str = Field(pattern=r"^#[0-9a-fA-F]{6}$", description="#rrggbb.")


class Labels(_Schema):
    """Polygons or points with a class."""

    path: str = Field(description="Vector file with polygons or points.")
    layer: str | None = Field(None, description="Layer of the file, where it has several.")
    class_field: str = Field(description="Field that holds the class, text or whole numbers.")
    classes: list[ClassEntry] = Field([], description="Names and colours from the layer's style, if it has any.")
    class_scheme: str = Field(
        "auto",
        description="Name of a shipped class scheme, path of a scheme's JSON file, or 'auto': made from the field.",
    )


class Extent(_Schema):
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


class SampleSceneJob(_Schema):
    """Write a simulated scene with rasters, truth and polygons."""

    kind: Literal["sample-scene"] = "sample-scene"
    output: str = Field(description="Folder to write the scene to.")
    size: int = Field(500, ge=64, le=20000, description="Width and height in pixels of 10 m.")
    seed: int = Field(0, ge=0, description="Seed: the same seed gives the same files.")


class FinetuneJob(_Schema):
    """Train a model on drawn labels."""

    kind: Literal["finetune"] = "finetune"
    inputs: Inputs
    labels: Labels
    base_model: str | None = Field(None, description="Model file to start from; from scratch by default.")
    architecture: ArchitectureName = Field(
        "unet_intermediate", description="Architecture of a model made from scratch; 'rsfusion models' lists them."
    )
    encoder: EncoderName | None = Field(None, description="Encoder in place of the architecture's own.")
    fusion: FusionName | None = Field(None, description="Fusion in place of the architecture's own.")
    size: SizeName | None = Field(None, description="Size of the encoder in place of the architecture's own.")
    encoder_weights: str | None = Field(
        None, description="Weights of a public encoder (.safetensors) to start from, such as a ResNet or ViT of timm."
    )
    encoder_keys: str = Field(
        "auto",
        description="Which weight is which: 'auto', 'timm_resnet', 'timm_vit', or a JSON file with pairs of a regular "
        "expression and a name.",
    )
    missing_inputs: MissingInputs = Field(
        "allow",
        description="'allow': learn to map where some inputs have no data, too; 'require': only where all have.",
    )
    mode: ModeName = Field(
        "auto",
        description="'auto': trains a network, forests, boosted trees and logistic regressions, and delivers what is best on "
        "the held-out labels; 'scratch': a network; of a base model 'linear': only what follows its encoders is trained, "
        "'partial': also their last stage, 'full': all; 'forest', 'boosting', 'logistic': no network.",
    )
    epochs: int = Field(24, ge=1, le=10000, description="Most epochs to train; training stops early when it no longer helps.")
    seed: int = Field(0, ge=0, description="Seed of everything random.")
    device: str = Field("auto", description="'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'.")
    validation_fraction: float = Field(0.3, gt=0, lt=0.9, description="Part of the labels held out, in spatial blocks.")
    block_size: float | None = Field(None, gt=0, description="Side of a spatial block in metres; chosen by default.")
    output_model: str = Field(description="Model file to write (.safetensors).")
    report: str | None = Field(None, description="HTML report to write.")

    @model_validator(mode="after")
    def _parts_exist(self) -> FinetuneJob:
        # Asked before any raster is read. A base model brings its own parts; these are compared where it is read.
        if self.base_model is None and self.mode in BASE_MODES:
            raise ValueError(f"mode '{self.mode}' trains a part of a base model, and none was given: give one, or take 'auto'")
        if self.base_model is not None and self.mode == "scratch":
            raise ValueError("mode 'scratch' starts from nothing: leave out the base model, or take 'auto' or 'full'")
        if self.base_model is None:
            try:
                choose_parts(self.architecture, self.encoder, self.fusion, self.size)
            except UsageError as error:
                raise ValueError(str(error)) from None
        elif self.encoder_weights is not None:
            raise ValueError("training starts from a base model or from a public encoder's weights: give one of them")
        return self


class PretrainJob(_Schema):
    """Train a model on unlabelled scenes."""

    kind: Literal["pretrain"] = "pretrain"
    scenes: list[Inputs] = Field(min_length=1, description="The rasters of one or more scenes.")
    scenes_folder: str | None = Field(
        None,
        description="Folder of further scenes: a folder each, whose rasters have the same file names as those of the first "
        "scene; a scene may lack some of them.",
    )
    labels: Labels | None = Field(
        None,
        description="Labels on the first scene, to ask after each round how much a linear model tells from the features; "
        "nothing is trained on them.",
    )
    method: MethodName = Field("latent_targets", description="How the model learns without labels.")
    setting: SettingName = Field(
        "small", description="'small': settings for a few scenes and one computer; 'paper': as published."
    )
    switches: dict[str, bool | float | str] = Field(
        {}, description="Parts of the method to switch, such as a term of its loss; 'rsfusion methods' lists them."
    )
    architecture: ArchitectureName | None = Field(None, description="Architecture in place of the method's own.")
    encoder: EncoderName | None = Field(None, description="Encoder in place of the architecture's own.")
    size: SizeName | None = Field(None, description="Size of the encoder in place of the architecture's own.")
    initial_model: str | None = Field(None, description="Model file to go on from; from scratch by default.")
    epochs: int | None = Field(None, ge=1, le=100000, description="Rounds over the scenes; the method's own by default.")
    minutes: float | None = Field(None, gt=0, description="Time to train, in place of the rounds.")
    windows: int | None = Field(
        None, ge=1, description="Windows an epoch; by default as many as cover the scenes, 256 to 2048."
    )
    batch_size: int | None = Field(None, ge=1, le=4096, description="Windows a batch; the method's own by default.")
    accumulation: int = Field(
        1, ge=1, le=1024, description="Batches a step of the optimiser: a larger step in the same memory."
    )
    seed: int = Field(0, ge=0, description="Seed of everything random.")
    device: str = Field("auto", description="'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'.")
    output_model: str = Field(description="Model file to write (.safetensors).")
    report: str | None = Field(None, description="HTML report to write.")

    @model_validator(mode="after")
    def _one_length(self) -> PretrainJob:
        if self.epochs is not None and self.minutes is not None:
            raise ValueError("the training ends after epochs or after minutes: give one of them")
        return self


class FeaturesJob(_Schema):
    """Write what a model knows of each pixel, before it says a class."""

    kind: Literal["features"] = "features"
    inputs: Inputs
    model: str = Field(description="Model file (.safetensors).")
    components: int = Field(
        0, ge=0, le=1024, description="Number of principal components to write in place of the features; 0 = all features."
    )
    picture: bool = Field(False, description="Write the first three principal components as a picture of 8 bits.")
    extent: Extent | None = Field(None, description="Part of the scene.")
    overlap: float = Field(0.25, ge=0, le=0.75, description="Part of a tile that it shares with its neighbour.")
    device: str = Field("auto", description="'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'.")
    format: Literal["gtiff", "cog"] = Field("gtiff", description="Tiled GeoTIFF, or cloud-optimised GeoTIFF.")
    output: str = Field(description="Raster to write.")


class MapJob(_Schema):
    """Map a scene with a model."""

    kind: Literal["map"] = "map"
    inputs: Inputs
    model: str = Field(description="Model file (.safetensors).")
    extent: Extent | None = Field(None, description="Part of the scene to map.")
    mask: str | None = Field(None, description="Vector file whose polygons limit the map.")
    overlap: float = Field(0.25, ge=0, le=0.75, description="Part of a tile that it shares with its neighbour.")
    device: str = Field("auto", description="'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'.")
    missing_inputs: MissingInputs = Field(
        "allow",
        description="'allow': map where some inputs have no data, if the model has learned to; 'require': leave it empty.",
    )
    format: Literal["gtiff", "cog"] = Field("gtiff", description="Tiled GeoTIFF, or cloud-optimised GeoTIFF.")
    output: str = Field(description="Class raster to write.")
    confidence: str | None = Field(None, description="Confidence raster to write, in percent.")
    probabilities: str | None = Field(None, description="Raster of class probabilities to write, a band a class.")


class AccuracyJob(_Schema):
    """Compare a map with reference polygons or points."""

    kind: Literal["accuracy"] = "accuracy"
    map: str = Field(description="Class raster.")
    reference: Labels
    report: str | None = Field(None, description="HTML report to write.")


Job = Annotated[SampleSceneJob | PretrainJob | FinetuneJob | MapJob | FeaturesJob | AccuracyJob, Field(discriminator="kind")]
AnyJob = SampleSceneJob | PretrainJob | FinetuneJob | MapJob | FeaturesJob | AccuracyJob
_ADAPTER: TypeAdapter[AnyJob] = TypeAdapter(Job)


def parse_job(value: Any) -> AnyJob:
    """A job from the plain data of its JSON file.

    Raises:
        UsageError: a key is missing, unknown or out of range; the message names it.
    """
    try:
        return _ADAPTER.validate_python(value)
    except ValidationError as error:
        raise UsageError(describe(error)) from None


def read_job(path: Path) -> AnyJob:
    """A job from its JSON file.

    Raises:
        UsageError: the file is missing, is not JSON, or is no job.
    """
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"The job file '{path}' cannot be read: {error.strerror}.") from None
    except ValidationError as error:
        raise UsageError(f"'{path}' is not a job: {describe(error)}") from None


def describe(error: ValidationError) -> str:
    """What pydantic found, a line a field, without its addresses and codes."""
    lines = []
    for entry in error.errors(include_url=False, include_context=False):
        place = ".".join(str(part) for part in entry["loc"]) or "job"
        given = entry["input"]
        shown = f" (got {given!r})" if isinstance(given, str | int | float) and entry["type"] != "json_invalid" else ""
        lines.append(f"{place}: {entry['msg'].removeprefix('Value error, ')}{shown}")
    return "; ".join(lines)
