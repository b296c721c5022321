"""Jobs that say how good a map is, or draw the sample that will say it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from core.jobs.schemas.inputs import Labels, Schema


class AccuracyJob(Schema):
    """Compare a map with reference polygons or points."""

    kind: Literal["accuracy"] = "accuracy"
    map: str = Field(description="Class raster.")
    reference: Labels
    strata_field: str | None = Field(
        None,
        description="Field of reference points with the stratum that each was drawn from; found by itself in the points of a "
        "sampling design.",
    )
    strata: str | None = Field(
        None,
        description="GeoPackage with the table of the strata, where the reference has lost its own; without any, the strata "
        "are the classes of the map.",
    )
    report: str | None = Field(None, description="HTML report to write.")


class SamplingDesignJob(Schema):
    """Draw a stratified random sample of points from a map, to be interpreted as its reference."""

    kind: Literal["sampling-design"] = "sampling-design"
    map: str = Field(description="Class raster whose classes are the strata.")
    expected_accuracy: str = Field(
        "0.8",
        description="User's accuracy to expect: a number for all classes, or class=number after commas; a number among these "
        "is for all other classes.",
    )
    target_standard_error: float = Field(
        0.01, gt=0, lt=0.5, description="Standard error of overall accuracy for which the sample is sized."
    )
    size: int | None = Field(None, ge=1, description="Number of points, in place of the target.")
    allocation: Literal["balanced", "proportional", "equal", "optimal"] = Field(
        "balanced",
        description="'balanced': by area, but a minimum in each class; 'proportional': by area; 'equal': alike; 'optimal': by "
        "area and expected error (Neyman).",
    )
    minimum: int = Field(50, ge=2, description="Fewest points of a class in a balanced allocation.")
    minimum_distance: float = Field(0.0, ge=0, description="Distance between any two points, in metres; 0 = any.")
    seed: int = Field(0, ge=0, description="Seed: the same seed gives the same points.")
    output: str = Field(description="GeoPackage to write.")
