"""Jobs that say how good a map is."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from core.jobs.schemas.inputs import Labels, Schema


class AccuracyJob(Schema):
    """Compare a map with reference polygons or points."""

    kind: Literal["accuracy"] = "accuracy"
    map: str = Field(description="Class raster.")
    reference: Labels
    report: str | None = Field(None, description="HTML report to write.")
