"""From stored values to physical units, once, on reading.

What the file says of itself (GDAL's scale and offset) comes first, then what the product's specification says, as far as
the stored type and a sample of the values bear it out. Where neither gives physical units, values are only brought to a
handy range and the registry's statistics do not hold for them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from core.errors import SensorError
from core.sensors.backscatter import backscatter_scale
from core.sensors.band_match import BandMatch
from core.sensors.description import FloatArray, RasterDescription
from core.sensors.registry.satellites import KELVIN_RANGE
from core.sensors.sentinel2_offset import (
    LEAST_WITH_OFFSET,
    MOST_WITH_OFFSET,
    OFFSET_DN,
    OffsetChoice,
    darkest_level,
    sentinel2_offset,
)
from core.sensors.types import Band

_HIGH_PERCENTILE = 99.5
_LARGEST_REFLECTANCE = 2.0
_LARGEST_PERCENT = 110.0
_LEAST_COLLECTION_2 = 5000.0
"""Landsat Collection 2 stores reflectance 0 as 7273: a median below 5000 is some other scaling."""

_EIGHT_BIT = 1 / 255
_SIXTEEN_BIT = 1 / 65535
_LANDSAT_LEVEL_1 = (2e-5, -0.1)
"""Top-of-atmosphere reflectance of OLI, before the division by the sine of the sun's elevation."""


@dataclass(frozen=True)
class Calibration:
    """``physical = stored * scale + offset``, or ``decibel_factor * log10(stored * scale + offset)``.

    Attributes:
        scale, offset, lowest, highest: of each matched band, in match order; values outside ``lowest..highest`` are
            missing data.
        fill_value: a pixel with this stored value in every band is missing; None for no such value.
        decibel_factor: 10 for linear power, 20 for amplitude, None for values that are not converted.
        is_physical: whether the result is in the sensor's unit, so that the registry's statistics hold.
        note: what was done, for the report.
        warnings: what was assumed, for the user.
    """

    scale: tuple[float, ...]
    offset: tuple[float, ...]
    lowest: tuple[float, ...]
    highest: tuple[float, ...]
    fill_value: float | None
    decibel_factor: float | None
    is_physical: bool
    note: str
    warnings: tuple[str, ...] = ()

    def apply(self, stored: FloatArray) -> NDArray[np.float32]:
        """Physical values.

        Args:
            stored: (C, ...) in match order, NaN = missing.

        Returns:
            A new array of the same shape, float32; NaN where missing, outside the valid range, or fill in every band.

        Raises:
            ValueError: another number of bands.
        """
        if len(stored) != len(self.scale):
            raise ValueError(f"Expected {len(self.scale)} bands, got an array of shape {stored.shape}.")
        values = np.array(stored, dtype=np.float32, order="C")
        self.apply_in_place(values.reshape(len(values), -1))
        return values

    def apply_in_place(self, values: NDArray[np.float32]) -> None:
        """As ``apply``, in the place of the stored values: (C, n) or (C, rows, columns)."""
        if self.fill_value is not None:
            fill = np.float32(self.fill_value)
            if len(values) and (values[0] == fill).any():
                values[:, (values == fill).all(axis=0)] = np.nan
        # Band by band: a band of a strip fits into the processor's cache, all of them do not.
        for band, scale, offset, lowest, highest in zip(
            values, self.scale, self.offset, self.lowest, self.highest, strict=True
        ):
            band *= np.float32(scale)
            band += np.float32(offset)
            if self.decibel_factor is not None:
                band[~(band > 0)] = np.nan
                np.log(band, out=band)
                band *= np.float32(self.decibel_factor / math.log(10))
            low, high = np.float32(lowest), np.float32(highest)
            # Comparisons with NaN are false.
            if band.size and not (band.min() >= low and band.max() <= high):
                band[~((band >= low) & (band <= high))] = np.nan


@dataclass(frozen=True)
class _Scaling:
    """Scale and offset of each band, whether the result is physical, and why."""

    pairs: tuple[tuple[float, float], ...]
    note: str
    is_physical: bool = True
    warnings: tuple[str, ...] = ()


def calibration_for(description: RasterDescription, match: BandMatch, offset_setting: OffsetChoice = "auto") -> Calibration:
    """How the matched bands of a raster become physical values.

    Args:
        description: with a sample of the stored values, on which the stored scaling is told by.
        match: the sensor and the bands.
        offset_setting: about Sentinel-2's offset of 1000; other sensors do not look at it.

    Raises:
        SensorError: complex numbers, or uncalibrated SAR.
    """
    if description.dtype.startswith(("complex", "cint", "cfloat")):
        raise SensorError(
            f"'{description.path}' holds complex numbers ({description.dtype}).",
            "Give backscatter (sigma nought or gamma nought), not single-look complex data.",
        )
    decibel_factor = None
    if match.sensor.unit == "reflectance":
        scaling = _reflectance(description, match, offset_setting)
    elif match.sensor.name == "sentinel1":
        backscatter = backscatter_scale(description, match)
        decibel_factor = backscatter.factor
        pairs = tuple((scale * backscatter.scale, offset) for scale, offset in _own_pairs(description, match))
        warnings = () if backscatter.warning is None else (backscatter.warning,)
        scaling = _Scaling(pairs, backscatter.detail, True, warnings)
    elif match.sensor.name in ("aerial_rgb", "aerial_rgbnir", "display_8bit"):
        scaling = _display(description, match)
    else:
        unit = "metres" if match.sensor.unit == "m" else "stored values"
        scaling = _Scaling(_own_pairs(description, match), f"Values are {unit}{_own_note(description, match)}.")
    unlimited = (float("-inf"), float("inf"))
    limits = [band.valid_range if scaling.is_physical else unlimited for band in match.matched_bands]
    return Calibration(
        scale=tuple(scale for scale, _ in scaling.pairs),
        offset=tuple(offset for _, offset in scaling.pairs),
        lowest=tuple(low for low, _ in limits),
        highest=tuple(high for _, high in limits),
        fill_value=match.sensor.fill_value,
        decibel_factor=decibel_factor,
        is_physical=scaling.is_physical,
        note=scaling.note,
        warnings=scaling.warnings,
    )


def _own_pairs(description: RasterDescription, match: BandMatch) -> tuple[tuple[float, float], ...]:
    return tuple(description.own_calibration(index) for index in match.indexes)


def _has_own(description: RasterDescription, match: BandMatch) -> bool:
    return any(pair != (1.0, 0.0) for pair in _own_pairs(description, match))


def _own_note(description: RasterDescription, match: BandMatch) -> str:
    return ", with the file's own scale and offset" if _has_own(description, match) else ""


def _level(sample: FloatArray | None, percentile: float) -> float | None:
    """A percentile over all bands together; None without values. Zeros are left out: they are mostly fill."""
    if sample is None:
        return None
    present = sample[np.isfinite(sample) & (sample != 0)]
    return float(np.percentile(present, percentile)) if present.size else None


def _display(description: RasterDescription, match: BandMatch) -> _Scaling:
    """Camera and display values to 0..1."""
    count = len(match.bands)
    if _has_own(description, match):
        return _Scaling(_own_pairs(description, match), "Scaled by the file's own scale and offset.")
    if description.dtype == "uint8":
        return _Scaling(((_EIGHT_BIT, 0.0),) * count, "8-bit values scaled to 0..1.")
    high = _level(description.sample_of(match.indexes), _HIGH_PERCENTILE)
    if not description.has_integers and (high is None or high <= 1.0):
        return _Scaling(((1.0, 0.0),) * count, "Values are 0..1 already.")
    scale = _EIGHT_BIT if high is not None and high <= 255 else _SIXTEEN_BIT
    warning = (
        f"'{description.path}' is stored as {description.dtype}, and nothing tells its brightest value: it is normalised "
        "by the scene's own statistics, so a model made from it may not fit other scenes."
    )
    return _Scaling(((scale, 0.0),) * count, f"Values of {description.dtype} scaled by {scale:.3g}.", False, (warning,))


def _reflectance(description: RasterDescription, match: BandMatch, setting: OffsetChoice) -> _Scaling:
    """Reflectance 0..1, and kelvin for thermal bands."""
    bands = match.matched_bands
    indexes = tuple(index for index, band in zip(match.indexes, bands, strict=True) if band.kind != "thermal")
    if _has_own(description, match):
        pairs = _own_pairs(description, match)
        scaling = _Scaling(pairs, "The file's own scale and offset give reflectance.")
        stated = any(offset != 0 for _, offset in pairs)
        return scaling if stated else _with_sentinel2_offset(description, match, setting, scaling)
    if description.dtype in ("uint8", "int8"):
        warning = (
            f"'{description.path}' holds 8-bit numbers, which are not reflectance: they are scaled to 0..1 and normalised "
            "by the scene's own statistics, so a model made from it may not fit other scenes."
        )
        note = "8-bit digital numbers scaled to 0..1, not calibrated."
        return _Scaling(((_EIGHT_BIT, 0.0),) * len(bands), note, False, (warning,))
    sample = description.sample_of(indexes) if indexes else None
    general = _reflectance_scale(description, match, sample)
    thermal = [_thermal_scale(description, index, band) for index, band in zip(match.indexes, bands, strict=True)]
    pairs = tuple(own or general.pairs[0] for own in thermal)
    scaling = _Scaling(pairs, general.note, general.is_physical, general.warnings)
    return _with_sentinel2_offset(description, match, setting, scaling)


def _reflectance_scale(description: RasterDescription, match: BandMatch, sample: FloatArray | None) -> _Scaling:
    """Scale and offset of the reflective bands, by the stored type and level."""
    high, middle = _level(sample, _HIGH_PERCENTILE), _level(sample, 50.0)
    path = description.path
    if not description.has_integers and (high is None or high <= _LARGEST_REFLECTANCE):
        warning = f"'{path}' shows no values; its {description.dtype} numbers are taken as reflectance 0..1."
        return _Scaling(((1.0, 0.0),), "Values are reflectance already.", True, (warning,) if high is None else ())
    if not description.has_integers and high is not None and high <= _LARGEST_PERCENT:
        warning = f"'{path}' has values up to {high:.0f}, taken as reflectance in percent."
        return _Scaling(((0.01, 0.0),), "Reflectance in percent.", True, (warning,))
    if match.sensor.name.startswith("landsat"):
        return _landsat_scale(description, match, middle)
    band = next((band for band in match.matched_bands if band.kind != "thermal"), match.matched_bands[0])
    warning = f"'{path}' is taken as reflectance times 10000, as Airbus' reflectance products are; raw numbers are not."
    note = f"Digital numbers times {band.scale:g} give reflectance."
    return _Scaling(((band.scale, band.offset),), note, True, (warning,) if match.sensor.name == "spot6_7" else ())


def _landsat_scale(description: RasterDescription, match: BandMatch, middle: float | None) -> _Scaling:
    level_1 = any(word in description.path.upper() for word in ("_L1TP_", "_L1GT_", "_L1GS_"))
    if level_1 and match.sensor.name == "landsat_oli":
        warning = f"'{description.path}' is a Level-1 product: top-of-atmosphere reflectance without the sun's elevation."
        return _Scaling((_LANDSAT_LEVEL_1,), "Landsat Level-1 scale and offset.", True, (warning,))
    reflective = next((band for band in match.matched_bands if band.kind == "optical"), None)
    pair = (reflective.scale, reflective.offset) if reflective else (1.0, 0.0)
    if description.dtype == "int16" or (middle is not None and middle < _LEAST_COLLECTION_2):
        warning = f"'{description.path}' is taken as reflectance times 10000 (Collection 1, HLS), not Collection 2."
        return _Scaling(((1e-4, 0.0),), "Digital numbers times 0.0001 give reflectance.", True, (warning,))
    return _Scaling((pair,), "Landsat Collection 2 Level-2 scale and offset give surface reflectance.")


def _thermal_scale(description: RasterDescription, index: int, band: Band) -> tuple[float, float] | None:
    """Scale and offset to kelvin of a thermal band, None for any other band."""
    if band.kind != "thermal":
        return None
    middle = _level(description.sample_of((index,)), 50.0)
    if middle is not None and KELVIN_RANGE[0] <= middle <= KELVIN_RANGE[1]:
        return 1.0, 0.0
    if middle is not None and KELVIN_RANGE[0] <= middle / 10 <= KELVIN_RANGE[1]:
        return 0.1, 0.0
    return band.scale, band.offset


def _with_sentinel2_offset(
    description: RasterDescription, match: BandMatch, setting: OffsetChoice, scaling: _Scaling
) -> _Scaling:
    """Takes the offset of 1000 off Sentinel-2 values that carry it."""
    if match.sensor.name not in ("sentinel2_l1c", "sentinel2_l2a"):
        return scaling
    if not description.has_integers and scaling.pairs[0][0] == 1.0 and setting == "auto":
        # Whoever divided by 10000 has mostly dealt with the offset, too; to take off what is not there would do more harm.
        level = 1e4 * darkest_level(description, match)
        if not LEAST_WITH_OFFSET <= level <= MOST_WITH_OFFSET:
            return scaling
        warning = (
            f"The darkest values of '{description.path}' stand at a reflectance of {level / 1e4:.2f}, as if they still carried "
            "the offset of 1000 digital numbers. It is not taken off; set sentinel2_offset to 'yes' if they do."
        )
        return replace(scaling, warnings=(*scaling.warnings, warning))
    decision = sentinel2_offset(description, match, setting)
    warnings = scaling.warnings if decision.warning is None else (*scaling.warnings, decision.warning)
    pairs = scaling.pairs
    if decision.applies:
        stored = 1.0 if description.has_integers or scaling.pairs[0][0] != 1.0 else 1e-4
        pairs = tuple((scale, offset + OFFSET_DN * stored * scale) for scale, offset in pairs)
    return _Scaling(pairs, f"{scaling.note} {decision.detail}", scaling.is_physical, warnings)
