"""Jobs that go on from a finished map: clean it, make polygons of it, measure it, compare it with another."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from core.jobs.schemas.inputs import Schema


class CleanMapJob(Schema):
    """Remove specks and small patches from a map."""

    kind: Literal["clean-map"] = "clean-map"
    map: str = Field(description="Class raster.")
    minimum_area: float = Field(
        0.5, ge=0, description="Minimum mapping unit: smaller patches go to a neighbouring class; 0 = none do."
    )
    unit: Literal["hectares", "pixels"] = Field("hectares", description="What the minimum mapping unit is measured in.")
    connectedness: Literal["4", "8"] = Field(
        "4", description="'4': pixels of a patch touch by their sides; '8': by their corners too."
    )
    majority: int = Field(
        1, ge=1, le=51, description="Side in pixels, odd, of the window of a majority filter that comes first; 1 = none."
    )
    keep: list[str] = Field([], description="Classes, by name or code, of which no patch is removed.")
    output: str = Field(description="Class raster to write.")

    @field_validator("majority")
    @classmethod
    def _is_odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("The window of the majority filter has a middle pixel: give an odd number.")
        return value


class VectorizeMapJob(Schema):
    """Make polygons of the classes of a map."""

    kind: Literal["vectorize-map"] = "vectorize-map"
    map: str = Field(description="Class raster.")
    polygons: Literal["patches", "classes"] = Field(
        "patches", description="'patches': a polygon for each patch; 'classes': one of several parts for each class."
    )
    simplify: float = Field(
        0.0, ge=0, description="Tolerance in pixels of simpler outlines, in which neighbours keep their border; 0 = none."
    )
    output: str = Field(description="GeoPackage to write (.gpkg).")


class Zones(Schema):
    """Polygons that something is asked for."""

    path: str = Field(description="Vector file with the zones, polygons in any coordinate reference system.")
    layer: str | None = Field(None, description="Layer of the file, where it has several.")
    id_field: str = Field(description="Field that names the zones.")


class ZonalAreasJob(Schema):
    """Measure the area of each class of a map in zones."""

    kind: Literal["zonal-areas"] = "zonal-areas"
    map: str = Field(description="Class raster.")
    zones: Zones
    output: str = Field(description="Table to write: .csv, or .gpkg with the zones.")


class ChangeMapJob(Schema):
    """Compare two maps of one place: what became of each class. The difference has the errors of both maps."""

    kind: Literal["change-map"] = "change-map"
    before: str = Field(description="Class raster of the first date; the result has its grid.")
    after: str = Field(description="Class raster of the second date, on any grid, with the same class names.")
    output: str = Field(description="Raster of transitions to write.")
    matrix: str | None = Field(None, description="Table of hectares from each class to each class to write (.csv).")
    summary: str | None = Field(None, description="Table of gains and losses of each class in hectares to write (.csv).")
