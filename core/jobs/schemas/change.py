"""The job that finds change between the images of two dates."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from core.jobs.schemas.inputs import Inputs, Labels, Schema, Sentinel2Offset

ChangeModeName = Literal["auto", "vote", "network"]


class DetectChangeJob(Schema):
    """Find change between the images of two dates, from labels of change or without any."""

    kind: Literal["detect-change"] = "detect-change"
    inputs: Inputs
    after_optical: list[str] = Field([], description="Optical rasters of the second date, of the first date's sensor.")
    after_sar: list[str] = Field([], description="SAR rasters of the second date.")
    after_elevation: list[str] = Field([], description="Elevation rasters of the second date.")
    after_other: list[str] = Field([], description="Any other rasters of the second date.")
    after_sentinel2_offset: Sentinel2Offset = Field(
        "auto", description="Whether Sentinel-2 digital numbers of the second date carry the +1000 offset."
    )
    labels: Labels | None = None
    unchanged: str = Field("unchanged", description="Class of the labels that means no change; all others are kinds of change.")
    mode: ChangeModeName = Field(
        "auto",
        description="With labels: 'vote': estimators, which take seconds; 'network': besides them a network over both dates is "
        "trained, and maps where it is clearly better than they are on labels held out; 'auto': a network where a base model "
        "is given.",
    )
    base_model: str | None = Field(
        None, description="Model file that the network starts from, of pre-training or fine-tuning over the same sensors."
    )
    epochs: int = Field(
        24, ge=1, le=10000, description="Most epochs to train a network; training stops early when it no longer helps."
    )
    no_change_probability: float = Field(
        0.001,
        gt=0,
        lt=1,
        description="Without labels: a pixel counts as changed where unchanged ground would differ as much with a probability "
        "below this.",
    )
    seed: int = Field(0, ge=0, description="Seed of everything random.")
    device: str = Field("auto", description="Of a network: 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'.")
    output: str = Field(description="Raster of change to write.")
    probability: str | None = Field(None, description="Raster to write with the probability of change, in percent.")
    variates: str | None = Field(
        None, description="Raster to write with how much each pixel differs, and the MAD variates that this is made of."
    )
    report: str | None = Field(None, description="HTML report to write, of a map that is made from labels.")

    @model_validator(mode="after")
    def _two_dates(self) -> Self:
        if not any(self.after.values()):
            raise ValueError(
                "No raster of the second date was given. Give at least one of after_optical, after_sar, after_elevation and "
                "after_other."
            )
        if self.labels is None and self.report is not None:
            raise ValueError("without labels there is nothing to measure: leave out the report, or give labels of change")
        if self.labels is None and (self.mode != "auto" or self.base_model is not None):
            raise ValueError("without labels nothing is trained: leave out mode and base model, or give labels of change")
        if self.mode == "vote" and self.base_model is not None:
            raise ValueError("mode 'vote' trains no network: leave out the base model, or take 'auto' or 'network'")
        return self

    @property
    def trains_network(self) -> bool:
        """Whether a network is trained beside the estimators."""
        return self.mode == "network" or self.base_model is not None

    @property
    def after(self) -> dict[str, list[str]]:
        """The rasters of the second date by role."""
        roles = ("optical", "sar", "elevation", "other")
        return {role: list(getattr(self, f"after_{role}")) for role in roles}

    @property
    def after_inputs(self) -> Inputs:
        """The second date as the first: its sensors are the first date's, its grid is its own."""
        changed = {**self.after, "resolution": None, "sentinel2_offset": self.after_sentinel2_offset}
        return self.inputs.model_copy(update=changed)
