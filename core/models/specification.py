"""What a model takes in and gives out: plain data that the model file's card carries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from core.scenes.grid import Scale

StemName = Literal["statistics", "per_sensor", "generated"]
EncoderName = Literal["unet", "resnet", "resunet", "vit"]
SizeName = Literal["tiny", "small", "base", "large"]
FusionName = Literal[
    "early",
    "intermediate",
    "late",
    "asymmetric_attention",
    "cross_attention",
    "cross_modality",
    "cross_attention_and_modality",
    "joint_tokens",
]
EstimatorName = Literal["forest", "boosting", "logistic"]
HeadName = Literal["dense", "scene", "embedding", "change"]

SIZES: dict[EncoderName, tuple[SizeName, ...]] = {
    "unet": ("tiny", "small", "base", "large"),
    "resnet": ("tiny", "small", "base", "large"),
    "resunet": ("small", "base", "large"),
    "vit": ("tiny", "small", "base"),
}
"""Which sizes an encoder comes in: tiny, small, base and large ``resnet`` are the half-width 18, 18, 34 and 50."""

MOST_INPUTS = 8
"""Of a model: which of them are there at a pixel is a number of eight bits."""


class _Value(BaseModel):
    # A NaN would be written as null and could not be read back.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class BandSpecification(_Value):
    """One input band: its name in the sensor, the statistics that normalise its physical values, and its physics.

    Attributes:
        name: in the sensor.
        mean, standard_deviation: of the physical values.
        center_nm, fwhm_nm: centre wavelength and width in nanometres, where there is one.
        polarization: of SAR: transmitted, received.
        orbit: of SAR: direction of the pass.
    """

    name: str
    mean: float
    standard_deviation: float = Field(gt=0)
    center_nm: float | None = Field(None, gt=0)
    fwhm_nm: float | None = Field(None, gt=0)
    polarization: str | None = Field(None, pattern=r"^[HV][HV]$")
    orbit: Literal["ascending", "descending"] | None = None


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
        _ = self.scale
        return self

    @property
    def scale(self) -> Scale:
        # The names of parts are read where neither numpy nor pyproj is wanted: by the command line before a job runs.
        from core.scenes.grid import Scale

        return Scale(self.finer, self.coarser)

    @property
    def band_names(self) -> tuple[str, ...]:
        return tuple(band.name for band in self.bands)


class EstimatorSpecification(_Value):
    """One of scikit-learn's estimators as the model, or several that vote.

    Attributes:
        kind: random forest, boosted trees or logistic regression; or the mean of the members' probabilities.
        neighbourhoods: whether it sees the statistics of the pixels' neighbourhoods.
        base_features: whether it sees what a base model of the specification's parts makes of the pixels.
        uses_decoder: whether these are what the base model's decoder makes of them; otherwise all of its levels.
        members: of a vote.
        multi_label: whether a scene may have several classes; of the head ``scene``.
    """

    kind: EstimatorName | Literal["vote"]
    neighbourhoods: bool = False
    base_features: bool = False
    uses_decoder: bool = False
    multi_label: bool = False
    members: tuple[EstimatorSpecification, ...] = ()

    @model_validator(mode="after")
    def _votes_of_several(self) -> Self:
        if (self.kind == "vote") != (len(self.members) > 1) or any(member.kind == "vote" for member in self.members):
            raise ValueError("a vote has two or more members, none of which is a vote, and nothing else has members")
        return self


class ModelSpecification(_Value):
    """Everything that is needed to build a model's modules again.

    Attributes:
        architecture: name in the registry of architectures that the parts below were taken from.
        stem, encoder, size, fusion, head: names of the parts.
        modalities: in the order in which they were given; the first is the main one of ``asymmetric_attention``.
        n_classes: channels of the output; dimensions of an embedding.
        resolution_m: pixel size of the reference grid that the model was made for, in metres.
        finest: stride of the encoder's finest level in reference pixels: the patch of ``vit``; by default 1 for ``unet``,
            2 for ``resnet`` and ``resunet``, 4 for ``vit``.
        width: channels of the finest level of ``unet``; from the size by default.
        depth: how often ``unet`` halves the resolution.
        dropout: probability that a feature channel is left out in training.
        statistics_dropout: probability that a statistic of a band is withheld in training, as trees of a forest see a part
            of the features each; of the stem ``statistics``.
        attention_direction: of ``asymmetric_attention``: whether auxiliary streams read the main one, too.
        has_transfer_gate: of ``asymmetric_attention``.
        has_shortcut: class scores are the sum of those of fitted linear models over the stems' statistics and the network's.
        has_dates: inputs may have several dates.
        has_geography: place and resolution are inputs.
        has_circumstances: day of the year and pixel size of each modality are inputs.
        window: side in reference pixels of the windows that a model with a global view is trained on and maps with.
        estimator: what stands in place of the network, or behind it.
    """

    architecture: str = Field(pattern=r"^[a-z0-9_]+$")
    stem: StemName = "statistics"
    encoder: EncoderName = "unet"
    size: SizeName = "small"
    fusion: FusionName = "intermediate"
    head: HeadName = "dense"
    modalities: tuple[ModalitySpecification, ...] = Field(min_length=1, max_length=MOST_INPUTS)
    n_classes: int = Field(ge=1, le=4096)
    resolution_m: float = Field(10.0, gt=0)
    finest: int | None = Field(None, ge=1, le=32)
    width: int | None = Field(None, ge=4, le=256)
    depth: int = Field(2, ge=1, le=5)
    dropout: float = Field(0.2, ge=0, lt=1)
    statistics_dropout: float = Field(0.3, ge=0, lt=1)
    attention_direction: Literal["auxiliary_to_main", "both"] = "auxiliary_to_main"
    has_transfer_gate: bool = True
    has_shortcut: bool = False
    has_dates: bool = False
    has_geography: bool = False
    has_circumstances: bool = False
    window: int = Field(64, ge=16, le=512)
    estimator: EstimatorSpecification | None = None

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        names = [modality.name for modality in self.modalities]
        if len(set(names)) != len(names):
            raise ValueError(f"two inputs of the model have the same name: {names}")
        if self.size not in SIZES[self.encoder]:
            raise ValueError(f"encoder '{self.encoder}' comes in the sizes {', '.join(SIZES[self.encoder])}, not '{self.size}'")
        if self.encoder in ("resnet", "resunet") and self.finest not in (None, 1, 2):
            raise ValueError(f"encoder '{self.encoder}' has a finest stride of 1 or 2, not {self.finest}")
        if self.encoder == "unet" and self.finest not in (None, 1):
            raise ValueError(f"encoder 'unet' has a finest stride of 1, not {self.finest}")
        if self.has_shortcut and (self.stem != "statistics" or self.head != "dense" or self.has_dates):
            raise ValueError("a shortcut needs the stem 'statistics', the head 'dense', and one date")
        if (
            self.estimator is not None
            and self.head != "scene"
            and (self.head != "dense" or self.has_shortcut or self.has_dates)
        ):
            raise ValueError("an estimator of pixels needs the head 'dense', one date, and no shortcut")
        if self.head in ("dense", "change") and not 2 <= self.n_classes <= 255:
            raise ValueError(f"a map has 2 to 255 classes, not {self.n_classes}")
        return self
