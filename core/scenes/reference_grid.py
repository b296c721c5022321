"""The grid that maps are made on, from the files of the main acquisition."""

from __future__ import annotations

import math
from collections.abc import Sequence

from core.errors import GridError
from core.scenes.grid import COARSER_FACTORS, Bounds, Grid, first_line, parsed_crs, project_bounds
from core.scenes.raster_file import RasterFile


def reference_grid(rasters: Sequence[RasterFile], resolution: float | None, notes: list[str]) -> Grid:
    """The north-up grid of the main acquisition's finest file, around all of its files.

    A south-up raster keeps its pixels and is read the other way round; a rotated one gets a north-up grid of its own
    pixel size around it. A crop of a raster by whole pixels gets the same lattice as the raster, whatever the resolution.

    Raises:
        GridError: the resolution leaves nothing or is absurdly fine, or the files have no common system.
    """
    finest = min(raster.description.resolution_m or math.inf for raster in rasters)
    first = next(raster for raster in rasters if (raster.description.resolution_m or math.inf) <= 1.01 * finest)
    bounds = first.bounds
    for raster in rasters:
        other = bounds_in(raster, first.crs)
        if other is None:
            raise GridError(
                f"'{raster.path}' lies where the system of '{first.path}' ({crs_name(first.crs)}) does not reach.",
                "Make a map of each.",
            )
        bounds = bounds.union(other)
    width, height = first.pixel_size
    if first.transform.b or first.transform.d:
        notes.append(f"'{first.path}' is rotated: the map is made on a north-up grid around it.")
        phase_x = phase_y = 0.0
    else:
        phase_x, phase_y = first.bounds.left, first.bounds.top
    own_width, own_height = width, height
    if resolution is not None and not (math.isclose(resolution, width) and math.isclose(resolution, height)):
        _check_resolution(resolution, first, bounds)
        width = height = resolution
    if (width, height, phase_x, phase_y) == (own_width, own_height, first.bounds.left, first.bounds.top):
        left, top = first.bounds.left, first.bounds.top
    else:
        left = first_line(bounds.left, own_width, width, phase_x)
        top = -first_line(-bounds.top, own_height, height, -phase_y)
    lattice = Grid(first.crs, left, top, width, height, 1, 1)
    return lattice.crop(lattice.window_of(bounds))


def _check_resolution(resolution: float, first: RasterFile, bounds: Bounds) -> None:
    width, height = bounds.right - bounds.left, bounds.top - bounds.bottom
    if min(width, height) < resolution / 2:
        problem = f"leaves nothing of '{first.path}', which is {width:g} x {height:g} in units of {crs_name(first.crs)}."
    elif max(first.pixel_size) > resolution * max(COARSER_FACTORS) * 1.01:
        problem = (
            f"is more than {max(COARSER_FACTORS)} times finer than '{first.path}', whose pixels are "
            f"{first.pixel_size[0]:g} x {first.pixel_size[1]:g} in units of {crs_name(first.crs)}."
        )
    else:
        return
    unit = parsed_crs(first.crs).axis_info[0].unit_name
    raise GridError(
        f"A resolution of {resolution:g} {problem}",
        f"Give the resolution in the units of the main raster's coordinate reference system ({unit}).",
    )


def bounds_in(raster: RasterFile, crs: str) -> Bounds | None:
    """The raster's rectangle in a system, None where it has none there."""
    try:
        return project_bounds(raster.bounds, raster.crs, crs)
    except ValueError:
        return None


def crs_name(crs: str) -> str:
    """A short name of a system for messages."""
    return crs if len(crs) < 20 else parsed_crs(crs).name
