"""Jobs that train models, with labels and without."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from core.errors import UsageError
from core.jobs.schemas.inputs import Inputs, Labels, MissingInputs, Schema
from core.models.architectures import ArchitectureName, choose_parts
from core.models.specification import EncoderName, FusionName, SizeName
from core.pretraining.methods import MethodName, SettingName

ModeName = Literal["auto", "scratch", "linear", "partial", "full", "adapters", "forest", "boosting", "logistic"]
BASE_MODES: tuple[ModeName, ...] = ("linear", "partial", "full", "adapters")
"""Modes that need a base model."""


class FinetuneJob(Schema):
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
        description="'auto': trains a network, forests and logistic regressions, and delivers the vote of a regression and "
        "two forests, unless the network is clearly better on labels held out; 'scratch': a network; of a base model "
        "'linear': only what follows its encoders is trained, 'partial': also their last stage, 'full': all, the first layers "
        "least, 'adapters': also small changes of all layers of its encoders; 'forest', 'boosting', 'logistic': no network.",
    )
    spread_labels: bool = Field(
        False,
        description="Let labels spread within super-pixels, connected pieces of the image that look alike, with less weight "
        "than what was drawn; scores are of drawn pixels alone.",
    )
    self_training: int = Field(
        0,
        ge=0,
        le=10,
        description="Rounds in which forests and regressions learn from unlabelled pixels around the labels, too, where they "
        "are sure of the class; 0: none.",
    )
    consistency: bool = Field(
        False,
        description="Let a network also agree with its own averaged weights where these are sure, on unlabelled pixels around "
        "the labels.",
    )
    epochs: int = Field(24, ge=1, le=10000, description="Most epochs to train; training stops early when it no longer helps.")
    minutes: float | None = Field(
        None,
        gt=0,
        description="With mode 'auto', time for the whole training: after the first network others are trained as long as they "
        "are likely to end in it, of a base model in other ways, and all at other learning rates. By default one network.",
    )
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
        if self.consistency and self.mode in ("forest", "boosting", "logistic"):
            raise ValueError(f"consistency is a way to train networks, and mode '{self.mode}' trains none: leave it out")
        if self.minutes is not None and self.mode != "auto":
            raise ValueError(f"minutes are for trying several networks in mode 'auto', and the mode is '{self.mode}'")
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


class PretrainJob(Schema):
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
        "small",
        description="'small': settings for a few scenes and one computer; 'paper': as published, with the published size of "
        "the encoder: for a GPU, and days.",
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


class DistilJob(Schema):
    """Make a model of half the width that maps like a given one."""

    kind: Literal["distil"] = "distil"
    inputs: Inputs
    model: str = Field(description="Model file (.safetensors) of a network that maps classes.")
    epochs: int = Field(12, ge=1, le=100000, description="Rounds over the scene.")
    minutes: float | None = Field(None, gt=0, description="Time to train, in place of the rounds.")
    windows: int | None = Field(None, ge=1, description="Windows an epoch; by default as many as cover the scene, 256 to 2048.")
    seed: int = Field(0, ge=0, description="Seed of everything random.")
    device: str = Field("auto", description="'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'.")
    output_model: str = Field(description="Model file to write (.safetensors).")
