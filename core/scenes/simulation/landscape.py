"""A landscape as a function of place: terrain, land cover, and what stands on it.

Coordinates are metres east and south of the scene's upper left corner. Any window can be asked for at any pixel size;
windows of one pixel size agree where they overlap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from core.scenes.categorical import Category
from core.scenes.simulation.noise import FloatArray, HashArray, fractal_noise, hashed, parcels, smooth_noise, unit

WATER, TREES, GRASSLAND, CROPS, BUILT_UP, BARE, WETLAND = range(1, 8)
CLASSES = (
    Category(WATER, "Water", "#2b6cb8"),
    Category(TREES, "Trees", "#1f6b2e"),
    Category(GRASSLAND, "Grassland", "#a6d96a"),
    Category(CROPS, "Crops", "#f0d35a"),
    Category(BUILT_UP, "Built-up", "#c8372d"),
    Category(BARE, "Bare ground", "#b89f86"),
    Category(WETLAND, "Wetland", "#5fb3a8"),
)

# What the ground is covered with, finer than the classes: spectra and backscatter belong to covers.
COVERS = (
    "clear water",
    "turbid water",
    "broadleaf",
    "conifer",
    "fresh grass",
    "dry grass",
    "maize",
    "ripe cereal",
    "beet",
    "tilled soil",
    "tile roof",
    "bright roof",
    "asphalt",
    "sand",
    "gravel",
    "reed",
)
COVER = {name: index for index, name in enumerate(COVERS)}

WATER_LEVEL_M = 33.0
_SAMPLES = 256
"""Points along each side of the scene from which the levels are set: 65,536 points place a quantile of 3 % to within
a tenth of itself."""
_SHARES = {"water": 0.10, "wetland": 0.07, "built": 0.12, "bare": 0.06, "trees": 0.30}
"""Parts of the scene, each of what the classes before it leave over."""


@dataclass(frozen=True)
class Patch:
    """A window of the landscape; every array is (H, W).

    Attributes:
        codes: uint8, class codes.
        cover: uint8, indices into ``COVERS``.
        other_cover, other_share: uint8 and 0..1, a second cover mixed in, and its part.
        terrain: metres above sea level, without objects.
        objects: metres above the terrain.
        parcel: uint64, the same within a field.
    """

    codes: NDArray[np.uint8]
    cover: NDArray[np.uint8]
    other_cover: NDArray[np.uint8]
    other_share: FloatArray
    terrain: FloatArray
    objects: FloatArray
    parcel: HashArray


@dataclass(frozen=True)
class _Fields:
    """Continuous fields over a window from which classes are cut."""

    river: FloatArray
    lake: FloatArray
    upland: FloatArray
    wet: FloatArray
    built: FloatArray
    bare: FloatArray
    trees: FloatArray
    road: FloatArray


@dataclass(frozen=True)
class _Levels:
    """Values at which the fields are cut, so that every scene has every class."""

    river: float
    road: float
    water: float = math.inf
    wetland: float = math.inf
    built: float = math.inf
    bare: float = math.inf
    trees: float = math.inf


class Landscape:
    """The landscape of one scene.

    Args:
        extent_m: side of the square scene in metres.
        seed: of everything random.
    """

    def __init__(self, extent_m: float, seed: int) -> None:
        self.extent_m = extent_m
        self._key = int(hashed(1, np.array([seed], dtype=np.uint64))[0]) % 2**40
        # A scene of less than 5 km still shows a whole landscape, a smaller one.
        self._scale = min(1.0, max(0.25, extent_m / 5000))
        self._levels = self._find_levels()

    def key(self, number: int) -> int:
        """The key of a random field of this scene."""
        return self._key + number

    def _noise(
        self, xs: FloatArray, ys: FloatArray, length: float, octaves: int, number: int, persistence: float = 0.5
    ) -> FloatArray:
        return fractal_noise(xs, ys, length * self._scale, octaves, self.key(number), persistence)

    def _fields(self, xs: FloatArray, ys: FloatArray, levels: _Levels) -> _Fields:
        course = self._noise(xs, ys, 2600, 4, 1, 0.3) - np.float32(levels.river)
        # How far above the valley floor, 0..1.
        upland = 1 - np.exp(-np.square(course / np.float32(0.55)))
        lake = self._noise(xs, ys, 800, 4, 2) - np.float32(1.7) * upland
        hills = self._noise(xs, ys, 700, 5, 3, 0.55)
        settled = self._noise(xs, ys, 620, 3, 4, 0.35)
        return _Fields(
            river=np.float32(0.030) - np.abs(course),
            lake=lake,
            upland=upland,
            wet=self._noise(xs, ys, 300, 4, 5),
            built=settled - np.float32(0.5) * hills + np.float32(0.4) * upland,
            bare=self._noise(xs, ys, 330, 3, 6, 0.4) + np.float32(0.2) * hills,
            trees=hills + np.float32(0.7) * upland,
            road=np.abs(self._noise(xs, ys, 1500, 2, 7, 0.25) - np.float32(levels.road)),
        )

    def _find_levels(self) -> _Levels:
        positions = (np.arange(_SAMPLES) + 0.5) * self.extent_m / _SAMPLES
        levels = _Levels(
            river=float(np.median(self._noise(positions, positions, 2600, 4, 1, 0.3))),
            road=float(np.median(self._noise(positions, positions, 1500, 2, 7, 0.25))),
        )
        fields = self._fields(positions, positions, levels)
        left = np.ones(fields.river.shape, dtype=bool)

        def cut(values: FloatArray, share: float) -> float:
            level = float(np.quantile(values[left], 1 - share))
            left[values > level] = False
            return level

        levels = replace(levels, water=cut(fields.lake, _SHARES["water"] * 0.8))
        levels = replace(levels, wetland=cut(_wetness(fields, levels), _SHARES["wetland"]))
        levels = replace(levels, built=cut(fields.built, _SHARES["built"]))
        levels = replace(levels, bare=cut(fields.bare, _SHARES["bare"]))
        return replace(levels, trees=cut(fields.trees, _SHARES["trees"]))

    def patch(self, left: float, top: float, width: int, height: int, pixel_m: float) -> Patch:
        """The landscape over a window.

        Args:
            left, top: metres east and south of the scene's corner, at the window's own corner.
            width, height: in pixels.
            pixel_m: pixel size in metres.
        """
        xs = left + (np.arange(width) + 0.5) * pixel_m
        ys = top + (np.arange(height) + 0.5) * pixel_m
        levels = self._levels
        fields = self._fields(xs, ys, levels)
        land = parcels(xs, ys, 1300 * self._scale, max(60.0, 240 * self._scale), self.key(20))
        shore = np.maximum(fields.lake - np.float32(levels.water), fields.river * np.float32(6))
        codes = self._codes(fields, shore, land.bits)
        terrain = self._terrain(xs, ys, fields, shore)
        cover, other, share, objects = self._covers(xs, ys, codes, fields, land.bits)
        self._build(codes, fields, land.district, land.u, land.v, cover, other, share, objects)
        # Between two fields runs a strip of grass with a hedge here and there.
        margin = (land.edge < 3.5) & np.isin(codes, (CROPS, GRASSLAND))
        hedge = margin & (unit(land.bits, 3) < 0.22)
        cover[margin] = COVER["dry grass"]
        cover[hedge] = COVER["broadleaf"]
        objects[margin] = np.float32(0.3)
        objects[hedge] = np.float32(4.5)
        return Patch(codes, cover, other, share, terrain, objects, land.bits)

    def _codes(self, fields: _Fields, shore: FloatArray, parcel: HashArray) -> NDArray[np.uint8]:
        levels = self._levels
        pasture = unit(parcel, 0) < np.float32(0.30) + np.float32(0.45) * (fields.upland < 0.25)
        codes = np.where(pasture, GRASSLAND, CROPS).astype(np.uint8)
        codes[fields.trees > levels.trees] = TREES
        codes[fields.bare > levels.bare] = BARE
        codes[fields.built > levels.built] = BUILT_UP
        codes[fields.road < 0.011 / self._scale] = BUILT_UP
        codes[_wetness(fields, levels) > levels.wetland] = WETLAND
        codes[shore > 0] = WATER
        return codes

    def _terrain(self, xs: FloatArray, ys: FloatArray, fields: _Fields, shore: FloatArray) -> FloatArray:
        hills = self._noise(xs, ys, 1500, 7, 8, 0.45)
        height = np.float32(2.0) + fields.upland * (np.float32(15) + np.float32(6) * hills)
        # Towards the water the land comes down to its level.
        height = height * np.clip(-shore / np.float32(0.35), 0, 1)
        return np.asarray(np.float32(WATER_LEVEL_M) + height, dtype=np.float32)

    def _covers(
        self,
        xs: FloatArray,
        ys: FloatArray,
        codes: NDArray[np.uint8],
        fields: _Fields,
        parcel: HashArray,
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8], FloatArray, FloatArray]:
        """Main cover, second cover, the second's share, and object heights; what is built comes later."""
        stand = self._noise(xs, ys, 420, 4, 9)
        patchy = smooth_noise(xs, ys, 45, self.key(10)) + np.float32(0.6) * smooth_noise(xs, ys, 18, self.key(11))
        crown = smooth_noise(xs, ys, 7.5, self.key(12))
        share = np.clip(np.float32(0.24) + np.float32(0.20) * patchy, 0, np.float32(0.95))
        tall = unit(parcel, 1)
        crop = np.digitize(tall, (0.28, 0.58, 0.76, 0.94))
        crop_cover = np.array([COVER[n] for n in ("maize", "ripe cereal", "beet", "tilled soil", "fresh grass")])
        crop_other = np.array([COVER[n] for n in ("tilled soil", "tilled soil", "tilled soil", "gravel", "dry grass")])
        crop_height = np.array([2.3, 0.8, 0.5, 0.0, 0.4], dtype=np.float32)
        is_conifer = stand > 0.35
        canopy = np.clip(19 + 4 * stand + 1.5 * patchy + 2.2 * crown - 9.0 * (patchy > 2.1), 2, 34)
        dry = (unit(parcel, 2) < 0.4) | (fields.upland > 0.97)
        cover = np.zeros(codes.shape, dtype=np.uint8)
        other = np.zeros(codes.shape, dtype=np.uint8)
        objects = np.zeros(codes.shape, dtype=np.float32)
        rules = (
            (WATER, np.where(fields.river > 0, COVER["turbid water"], COVER["clear water"]), COVER["turbid water"], 0),
            (TREES, np.where(is_conifer, COVER["conifer"], COVER["broadleaf"]), COVER["broadleaf"], canopy),
            (GRASSLAND, np.where(dry, COVER["dry grass"], COVER["fresh grass"]), COVER["dry grass"], 0.3),
            (CROPS, crop_cover[crop], crop_other[crop], crop_height[crop]),
            (BUILT_UP, COVER["asphalt"], COVER["fresh grass"], 0),
            (BARE, np.where(stand > 0.0, COVER["sand"], COVER["gravel"]), COVER["dry grass"], 0.1 * np.abs(patchy)),
            (WETLAND, COVER["reed"], np.where(stand > 0.2, COVER["turbid water"], COVER["fresh grass"]), 1.4),
        )
        for code, main, second, height in rules:
            where = codes == code
            cover[where] = np.broadcast_to(main, codes.shape)[where]
            other[where] = np.broadcast_to(second, codes.shape)[where]
            objects[where] = np.broadcast_to(np.asarray(height, dtype=np.float32), codes.shape)[where]
        share[codes == CROPS] *= np.float32(0.7)
        return cover, other, share, objects

    def _build(
        self,
        codes: NDArray[np.uint8],
        fields: _Fields,
        district: HashArray,
        u: FloatArray,
        v: FloatArray,
        cover: NDArray[np.uint8],
        other: NDArray[np.uint8],
        share: FloatArray,
        objects: FloatArray,
    ) -> None:
        """Houses, yards and streets where the class is built-up; writes into the last four arrays."""
        town = (codes == BUILT_UP) & (fields.built > self._levels.built)
        core = np.clip((fields.built[town] - np.float32(self._levels.built)) * np.float32(1.2), 0, 1)
        lot_u, lot_v = np.floor(u[town] / np.float32(26)), np.floor(v[town] / np.float32(22))
        bits = hashed(self.key(30), district[town], lot_u.astype(np.int64), lot_v.astype(np.int64))
        in_u, in_v = u[town] - lot_u * np.float32(26), v[town] - lot_v * np.float32(22)
        street = (in_v < 5) | ((in_u < 6) & (lot_u % 5 == 0))
        depth = np.float32(9) + np.float32(7) * unit(bits, 0) * (np.float32(0.4) + core)
        house = ~street & (in_v < 5 + depth) & (in_u > 7) & (in_u < 25) & (unit(bits, 1) < 0.62 + 0.3 * core)
        tree = ~street & ~house & (unit(bits, 2) < 0.32)
        bright = unit(bits, 3) < 0.25 + 0.5 * core
        roof = np.where(bright, COVER["bright roof"], COVER["tile roof"])
        yard = np.where(tree, COVER["broadleaf"], COVER["fresh grass"])
        cover[town] = np.where(house, roof, np.where(street, COVER["asphalt"], yard))
        other[town] = np.where(house | street, COVER["asphalt"], COVER["gravel"])
        share[town] = np.where(house | street, share[town] * np.float32(0.5), share[town])
        house_height = np.float32(4) + np.float32(5) * unit(bits, 0) + np.float32(9) * core * unit(bits, 2)
        objects[town] = np.where(house, house_height, np.where(tree, np.float32(6), np.float32(0)))


def _wetness(fields: _Fields, levels: _Levels) -> FloatArray:
    """How much a place is a wetland: near open water, on the valley floor."""
    near = np.maximum(fields.lake - np.float32(levels.water), np.float32(4) * fields.river)
    wetness = np.float32(1.1) * np.minimum(near, 0) + np.float32(0.30) * fields.wet - np.float32(0.6) * fields.upland
    return np.asarray(wetness, dtype=np.float32)
