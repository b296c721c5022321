"""What speaks for a sensor apart from its bands: the product's name, the metadata, the resolution."""

from __future__ import annotations

import re

from core.sensors.description import RasterDescription
from core.sensors.types import Sensor

_PRODUCTS: dict[str, re.Pattern[str]] = {
    name: re.compile(pattern, re.IGNORECASE)
    for name, pattern in {
        "sentinel1": r"(?<![a-z0-9])s1[abc]?(?![a-z0-9])|sentinel[-_ ]?1",
        "sentinel2_l1c": r"(?<![a-z0-9])s2[abc]?(?![a-z0-9])|sentinel[-_ ]?2|msil1c|l1c(?![a-z])",
        "sentinel2_l2a": r"(?<![a-z0-9])s2[abc]?(?![a-z0-9])|sentinel[-_ ]?2|msil2a|l2a(?![a-z])",
        "landsat_tm": r"(?<![a-z0-9])l[te]0?[57](?!\d)|landsat[-_ ]?[57]|(?<![a-z])e?tm(?![a-z])",
        "landsat_oli": r"(?<![a-z0-9])l[oct]0?[89](?!\d)|landsat[-_ ]?[89]|(?<![a-z])oli(?![a-z])",
        "spot6_7": r"spot[-_ ]?[67]|(?<![a-z0-9])s[67]_?(?:ms|xs|pms)(?![a-z])",
        "aerial_rgb": r"(?<![a-z])(?:naip|dop\d*|ortho\w*|aerial|airborne)(?![a-z])",
        "aerial_rgbnir": r"(?<![a-z])(?:naip|dop\d*|ortho\w*|aerial|airborne)(?![a-z])",
        "enmap": r"enmap",
        "dem": r"(?<![a-z])(?:dem|dtm|dgm|srtm|terrain|copdem|alos\w*dem)(?![a-z])",
        "dsm": r"(?<![a-z])(?:dsm|dom|surface)(?![a-z])",
        "height_above_ground": r"(?<![a-z])(?:hag|chm|ndsm|ndom|nhm|canopy|height)(?![a-z])",
    }.items()
}
_SENTINEL2_LEVEL = re.compile(r"(?:msi|(?<![a-z0-9]))(l1c|l2a)(?![a-z])|level-?(1c|2a)", re.IGNORECASE)
_SAFE_PRODUCT = re.compile(r"S2[ABC]_MSI(L1C|L2A)_\d{8}", re.IGNORECASE)
_LANDSAT_NAME = re.compile(r"(?<![a-z0-9])(?:sr|st)_b\d", re.IGNORECASE)

_RESOLUTIONS_M: dict[str, tuple[float, float]] = {
    "sentinel1": (5.0, 45.0),
    "sentinel2_l1c": (8.5, 22.0),
    "sentinel2_l2a": (8.5, 22.0),
    "landsat_tm": (25.0, 36.0),
    "landsat_oli": (25.0, 36.0),
    "spot6_7": (1.3, 7.0),
    "aerial_rgb": (0.0, 5.5),
    "aerial_rgbnir": (0.0, 5.5),
    "enmap": (25.0, 36.0),
}
"""Pixel sizes in which a sensor's products usually come; other sizes are possible, they only prove nothing."""

_PRODUCT_WEIGHT = 2
_RESOLUTION_WEIGHT = 1
_LONGEST_TAG = 300
"""Longer texts are histories and licences, where any sensor may be mentioned."""


def place_text(path: str) -> str:
    """The file's name and its folder's: what is above them may be anybody's."""
    return "/".join(re.split(r"[\\/]", path)[-2:])


def metadata_text(description: RasterDescription) -> str:
    """The short values of the file's metadata, a line each."""
    return "\n".join(value for value in description.file_tags().values() if len(value) <= _LONGEST_TAG)


def fits_resolution(sensor: Sensor, description: RasterDescription) -> bool | None:
    """Whether the pixel size is one of the sensor's; None where that is not known."""
    limits = _RESOLUTIONS_M.get(sensor.name)
    if limits is None or description.resolution_m is None:
        return None
    return limits[0] <= description.resolution_m <= limits[1]


def names_product(sensor: Sensor, description: RasterDescription) -> bool:
    """Whether the file's name, its folder's name or its metadata name the sensor."""
    pattern = _PRODUCTS.get(sensor.name)
    if pattern is None:
        return False
    texts = [place_text(description.path), metadata_text(description)]
    texts += [description.description(index) for index in range(1, min(description.band_count, 20) + 1)]
    if sensor.name.startswith("landsat") and any(_LANDSAT_NAME.search(text) for text in texts):
        return True
    return any(pattern.search(text) for text in texts)


def score(sensor: Sensor, description: RasterDescription) -> int:
    """How much speaks for a sensor beside its bands: the product's name counts twice as much as the resolution."""
    named = _PRODUCT_WEIGHT if names_product(sensor, description) else 0
    return named + (_RESOLUTION_WEIGHT if fits_resolution(sensor, description) else 0)


def sentinel2_level(description: RasterDescription) -> str | None:
    """``l1c`` or ``l2a`` where a product name in the path, the file's name or the metadata says so."""
    product = _SAFE_PRODUCT.search(description.path)
    if product:
        return str(product[1]).lower()
    for text in (place_text(description.path), metadata_text(description)):
        levels: set[str] = {(first or second).lower()[-2:] for first, second in _SENTINEL2_LEVEL.findall(text)}
        if len(levels) == 1:
            return f"l{levels.pop()}"
    # Only L2A products are delivered resampled, with the pixel size at the end of a band's file name.
    return "l2a" if re.search(r"_B[0-9A]{2}_[126]0m\.", description.path) else None


def elevation_kind(description: RasterDescription) -> str | None:
    """``dem``, ``dsm`` or ``height_above_ground`` as the first band's description, the file's name or its folder's says."""
    for text in (description.description(1), *reversed(place_text(description.path).split("/"))):
        for name in ("height_above_ground", "dsm", "dem"):
            if _PRODUCTS[name].search(text):
                return name
    return None
