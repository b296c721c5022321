"""Labels from spectral indices: rules that find confident places of four classes, without any drawn label.

They are the rules by which Chen and Bruzzone (2022, TGRS 60:5406011) could begin: their script is not published, so thresholds
are inferred. A percentile alone finds its class in every scene, water in a desert too; each rule therefore also has a bound
in physical units. Rules are not truth: whoever uses the seeds looks at them first.

Sources of the indices: NDVI of Rouse et al. (1974), NDWI of McFeeters (1996, DOI 10.1080/01431169608948714), MNDWI of Xu
(2006, DOI 10.1080/01431160600589179), DBSI of Rasul et al. (2018, DOI 10.3390/land7030081).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from core.errors import SensorError
from core.labels.palette import colours_for
from core.labels.scheme import ClassScheme, LandCoverClass
from core.scenes.scene import Acquisition, Scene
from core.sensors import Band

IndexName = Literal["ndvi", "ndwi", "mndwi", "dbsi", "sar"]
INDICES: tuple[IndexName, ...] = ("ndvi", "ndwi", "mndwi", "dbsi", "sar")

Layers = dict[IndexName, NDArray[np.float32]]

_NAMES = ("Water", "Vegetation", "Bare ground", "Built-up")
SCHEME = ClassScheme(
    "spectral indices",
    tuple(LandCoverClass(i + 1, n, c, n) for i, (n, c) in enumerate(zip(_NAMES, colours_for(_NAMES), strict=True))),
)
WATER, VEGETATION, BARE, BUILT = range(4)

_RANGES_NM = {"green": (530.0, 590.0), "red": (630.0, 690.0), "nir": (770.0, 900.0), "swir": (1550.0, 1750.0)}
"""Of the band nearest to the middle of each: those of Sentinel-2, Landsat, SPOT and aerial cameras lie within."""

DARK_DB = {"both": -20.0, "VV": -17.0, "HH": -17.0}
"""Backscatter of calm water lies below, of a mean of VV and VH and of VV or HH alone. Inferred; dry sand does, too."""

RADAR_ALONE = (
    "Radar alone takes dry sand, roads and shadow for water: of what it drew on labelled floods, nearly all was water where "
    "much of the scene was, and little where there was hardly any. An optical raster beside it tells them apart."
)

GREEN_NDVI = 0.3
"""Vegetation lies above, in the greenest fifth of a bare scene too. Inferred."""


@dataclass(frozen=True)
class Bound:
    """A condition on an index.

    Attributes:
        index: that is looked at.
        is_above: whether it has to lie above the limit, or below.
        value: the limit in physical units; None where it is a percentile.
        percentile: of the scene.
    """

    index: IndexName
    is_above: bool
    value: float | None = None
    percentile: float | None = None

    def limit(self, percentiles: Mapping[tuple[IndexName, float], float]) -> float:
        if self.value is not None:
            return self.value
        return percentiles[self.index, self.percentile or 0.0]

    def text(self, limit: float) -> str:
        from_scene = "" if self.percentile is None else f" (p{self.percentile:g})"
        return f"{self.index.upper()} {'>' if self.is_above else '<'} {limit:.2f}{from_scene}"


@dataclass(frozen=True)
class Rule:
    """All bounds together make a class.

    Attributes:
        number: of the class in ``SCHEME``.
        bounds: that have to hold.
    """

    number: int
    bounds: tuple[Bound, ...]

    @property
    def indices(self) -> frozenset[IndexName]:
        return frozenset(bound.index for bound in self.bounds)


def _above(index: IndexName, value: float | None = None, percentile: float | None = None) -> Bound:
    return Bound(index, True, value, percentile)


def _below(index: IndexName, value: float | None = None, percentile: float | None = None) -> Bound:
    return Bound(index, False, value, percentile)


@dataclass(frozen=True)
class IndexSources:
    """Which bands of a scene indices are made of.

    Attributes:
        optical: the acquisition; None without one that has red and near infrared.
        bands: names of its bands, by ``green``, ``red``, ``nir`` and ``swir``.
        sar: the acquisition; None without one.
        polarizations: names of its bands by polarisation, VV and VH, or VV or HH alone.
    """

    optical: Acquisition | None
    bands: Mapping[str, str]
    sar: Acquisition | None
    polarizations: Mapping[str, str]

    @property
    def indices(self) -> tuple[IndexName, ...]:
        """Those that can be computed."""
        bands = set(self.bands)
        wanted: dict[IndexName, set[str]] = {
            "ndvi": {"red", "nir"},
            "ndwi": {"green", "nir"},
            "mndwi": {"green", "swir"},
            "dbsi": {"green", "red", "nir", "swir"},
        }
        told = [name for name, needed in wanted.items() if needed <= bands]
        return (*told, "sar") if self.sar is not None else tuple(told)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know of the rules."""
        return () if self.optical is not None else (RADAR_ALONE,)

    def rules(self) -> tuple[Rule, ...]:
        """The rules whose indices can be computed, at most one a class."""
        able = frozenset(self.indices)
        found = []
        for number, candidates in enumerate(
            _rules("both" if len(self.polarizations) > 1 else next(iter(self.polarizations), ""))
        ):
            usable = [Rule(number, bounds) for bounds in candidates if {bound.index for bound in bounds} <= able]
            found += usable[:1]
        return tuple(found)


def _rules(polarizations: str) -> tuple[tuple[tuple[Bound, ...], ...], ...]:
    """By class the sets of bounds that make it, those with the most evidence first."""
    dark = _below("sar", DARK_DB.get(polarizations, DARK_DB["both"]))
    return (
        (
            (_above("ndwi", 0.0), _below("sar", percentile=15.0)),
            (_above("ndwi", 0.0), _above("mndwi", 0.0)),
            (_above("ndwi", 0.0), _below("ndvi", 0.0)),
            (_below("sar", percentile=15.0), dark),
        ),
        ((_above("ndvi", percentile=80.0), _above("ndvi", GREEN_NDVI)),),
        ((_above("dbsi", percentile=90.0), _above("dbsi", 0.0), _below("ndvi", 0.2), _below("ndwi", 0.0)),),
        ((_above("sar", percentile=90.0), _below("ndvi", 0.3), _below("ndwi", 0.0)),),
    )


def index_sources(scene: Scene) -> IndexSources:
    """Finds the bands by wavelength and polarisation, whatever the sensor calls them.

    Raises:
        SensorError: no rule can be followed.
    """
    optical: Acquisition | None = None
    bands: dict[str, str] = {}
    sar: Acquisition | None = None
    polarizations: dict[str, str] = {}
    for acquisition in scene.acquisitions:
        own = [acquisition.sensor.band(name) for name in acquisition.bands]
        if acquisition.role == "optical":
            found = _spectral_bands(own)
            if {"red", "nir"} <= set(found) and len(found) > len(bands):
                optical, bands = acquisition, found
        elif acquisition.role == "sar" and sar is None:
            by_polarization = {band.polarization: band.name for band in own if band.polarization}
            for wanted in (("VV", "VH"), ("VV",), ("HH",)):
                if not polarizations and all(name in by_polarization for name in wanted):
                    sar, polarizations = acquisition, {name: by_polarization[name] for name in wanted}
    sources = IndexSources(optical, bands, sar, polarizations)
    if not sources.rules():
        given = ", ".join(f"{a.sensor.name} ({', '.join(a.bands)})" for a in scene.acquisitions)
        raise SensorError(
            f"No spectral index can be computed from {given}.",
            "Give an optical raster with red and near infrared (with green for water, with a short-wave band near 1600 nm for "
            "bare ground), or radar backscatter with VV or HH, which tells water.",
        )
    return sources


def _spectral_bands(bands: Sequence[Band]) -> dict[str, str]:
    found = {}
    for name, (low, high) in _RANGES_NM.items():
        inside = [b for b in bands if b.kind == "optical" and b.center_nm is not None and low <= b.center_nm <= high]
        if inside:
            # Of two near infrared bands the broad one is the finer.
            found[name] = min(
                inside, key=lambda band: (band.gsd_m or 0.0, abs((band.center_nm or 0.0) - (low + high) / 2))
            ).name
    return found


def compute_indices(optical: Mapping[str, NDArray[np.float32]], sar: Sequence[NDArray[np.float32]]) -> Layers:
    """The indices of a window.

    Args:
        optical: by ``green``, ``red``, ``nir``, ``swir`` (rows, columns) reflectance, NaN = missing; those that there are.
        sar: (rows, columns) in dB of each polarisation; none without a radar.
    """
    layers: Layers = {}
    if {"red", "nir"} <= set(optical):
        layers["ndvi"] = _ratio(optical["nir"], optical["red"])
    if {"green", "nir"} <= set(optical):
        layers["ndwi"] = _ratio(optical["green"], optical["nir"])
    if {"green", "swir"} <= set(optical):
        layers["mndwi"] = _ratio(optical["green"], optical["swir"])
        if "ndvi" in layers:
            layers["dbsi"] = -layers["mndwi"] - layers["ndvi"]
    if len(sar):
        layers["sar"] = np.mean(np.stack(list(sar)), axis=0, dtype=np.float32)
    return layers


def _ratio(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    # Atmospheric correction leaves reflectances below zero over water, which no ratio can take.
    first, second = np.maximum(first, 1e-4), np.maximum(second, 1e-4)
    return np.asarray((first - second) / (first + second), np.float32)


def label_by_rules(
    layers: Layers, rules: Sequence[Rule], percentiles: Mapping[tuple[IndexName, float], float]
) -> NDArray[np.int8]:
    """(rows, columns) class number in ``SCHEME``; -1 where no rule holds, more than one does, or an index is missing.

    Args:
        layers: of a window.
        rules: to follow.
        percentiles: of the scene, by index and percentile.
    """
    shape = next(iter(layers.values())).shape
    classes, holds = np.full(shape, -1, np.int8), np.zeros(shape, np.int8)
    for rule in rules:
        found = np.ones(shape, bool)
        for bound in rule.bounds:
            limit, values = bound.limit(percentiles), layers[bound.index]
            with np.errstate(invalid="ignore"):
                found &= values > limit if bound.is_above else values < limit
        classes[found] = rule.number
        holds += found
    classes[holds > 1] = -1
    return classes
